"""What people may ask about their faces: what is there, under which name, with whose consent, and that all of it goes."""

from __future__ import annotations

import argparse
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from easyphoto.app import App
from easyphoto.cli.commands import print_json, settings_of
from easyphoto.jobs.store import JobStore
from easyphoto.orders import Consent
from easyphoto.privacy.audit import audit
from easyphoto.privacy.erase import erase_person
from easyphoto.records import TrainKind
from easyphoto.settings import Settings
from easyphoto.store.codec import to_json
from easyphoto.store.paths import check_name
from easyphoto.work import LOCAL_OWNER

Arguments = argparse.Namespace


def add_people_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """`people delete`, `people rename` and `people consent`."""
    delete = verbs.add_parser("delete", parents=[common], help="remove a person with everything derived")
    delete.add_argument("name")
    delete.add_argument("--results", action="store_true", help="remove finished pictures that show them too")
    _owner(delete)
    delete.set_defaults(run=people_delete)
    rename = verbs.add_parser("rename", parents=[common], help="give a person another name")
    rename.add_argument("name")
    rename.add_argument("new")
    _owner(rename)
    rename.set_defaults(run=people_rename)
    consent = verbs.add_parser("consent", parents=[common], help="show or note who said that the photos may be used")
    consent.add_argument("name")
    consent.add_argument("--by", metavar="WHO", help="the person themselves, or who speaks for them")
    consent.add_argument("--at", metavar="DATE", help="when, as 2026-07-01 (default: now)")
    consent.add_argument("--note", default="", help="for what, how it was given")
    consent.add_argument("--withdraw", action="store_true", help="take the consent back")
    _owner(consent)
    consent.set_defaults(run=people_consent)


def add_audit(verb: argparse.ArgumentParser) -> None:
    """`audit`."""
    verb.add_argument("--person", "--name", metavar="NAME", help="what there is of this person, or scene, alone")
    verb.add_argument("--kind", choices=[kind.value for kind in TrainKind], default=TrainKind.PERSON.value)
    verb.set_defaults(run=show_audit)


def people_delete(arguments: Arguments, _cancel: threading.Event) -> int:
    """Remove one person and say what was removed, and what was kept."""
    with _open(settings_of(arguments)) as (app, store):
        erased = erase_person(app.for_owner(arguments.owner), store, arguments.name, arguments.results)
    if arguments.json:
        print_json(to_json(erased))
        return 0
    print(f"removed {len(erased.removed)} files and rows of {erased.person}")
    for path in erased.removed:
        print(f"  {path}")
    for path in erased.struck:
        print(f"struck the name out of {path}")
    if erased.kept:
        print(f"kept {len(erased.kept)} files of results that show {erased.person}; remove them too with --results")
        for path in erased.kept:
            print(f"  {path}")
    print("pictures that were saved or sent elsewhere are not known here")
    return 0


def people_rename(arguments: Arguments, _cancel: threading.Event) -> int:
    """Give one person another name."""
    person = App(settings_of(arguments)).for_owner(arguments.owner).people.rename(arguments.name, arguments.new)
    if arguments.json:
        print_json(to_json(person))
    else:
        print(f"{arguments.name} is called {person.name} now; LoRA {person.lora}")
    return 0


def consent_of(given_by: str, given_at: str | None, note: str) -> Consent:
    """A consent that was given at `given_at`, or now."""
    at = given_at or datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Consent(given_by=given_by, given_at=at, note=note)


def people_consent(arguments: Arguments, _cancel: threading.Event) -> int:
    """Show, write down or take back a consent."""
    people = App(settings_of(arguments)).for_owner(arguments.owner).people
    if arguments.withdraw:
        people.set_consent(arguments.name, None)
    elif arguments.by:
        people.set_consent(arguments.name, consent_of(arguments.by, arguments.at, arguments.note))
    consent = people.consent(arguments.name)
    if arguments.json:
        print_json({"person": arguments.name, "consent": consent and to_json(consent)})
    elif consent is None:
        print(f"nobody's consent is noted for {arguments.name}; note it with --by WHO")
    else:
        note = f" ({consent.note})" if consent.note else ""
        print(f"{arguments.name}: consent by {consent.given_by}, {consent.given_at}{note}")
    return 0


def show_audit(arguments: Arguments, _cancel: threading.Event) -> int:
    """List every file that holds something of somebody."""
    settings = settings_of(arguments)
    with _open(settings) as (_, store):
        found = audit(settings.home, store, settings.lora_folder)
    traces = found.of(check_name(arguments.person), subject=TrainKind(arguments.kind)) if arguments.person else found.traces
    unattributed = () if arguments.person else found.unattributed
    if arguments.json:
        print_json({"traces": [to_json(trace) for trace in traces], "unattributed": list(unattributed)})
        return 0
    for trace in traces:
        owner = "" if trace.owner == LOCAL_OWNER else f" ({trace.owner})"
        owner += "" if trace.subject is TrainKind.PERSON else f" [{trace.subject.value}]"
        print(f"{trace.person + owner:<20} {trace.kind.value:<18} {trace.path}" + (f"  {trace.note}" if trace.note else ""))
    for path in unattributed:
        print(f"{'nobody known':<20} {'':<18} {path}")
    counts = Counter(trace.person for trace in traces)
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "nothing of anybody")
    return 0


def _owner(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--owner", default=LOCAL_OWNER, help="whose person (default: the command line's)")


@contextmanager
def _open(settings: Settings) -> Iterator[tuple[App, JobStore]]:
    store = JobStore(settings.home)
    try:
        yield App(settings), store
    finally:
        store.close()
