"""What each verb of the command line does: read the arguments, call the application, print."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from easyphoto.app import App, Watch
from easyphoto.bench.portrait import BenchOptions, run_bench
from easyphoto.cli.progress import watching
from easyphoto.demo import DemoOptions, run_demo
from easyphoto.doctor import examine
from easyphoto.errors import Cancelled
from easyphoto.events import Event, Listener
from easyphoto.settings import Settings
from easyphoto.specs import Person
from easyphoto.store.codec import to_json

Arguments = argparse.Namespace


def demo(arguments: Arguments, cancel: threading.Event) -> int:
    """Train a sample person, make portraits, write the page."""
    options = DemoOptions(
        output=arguments.output.absolute(), templates=arguments.templates, max_steps=arguments.max_steps
    )
    with watching(arguments.json) as listener:
        summary = run_demo(settings_of(arguments), options, Watch(listener=stoppable(listener, cancel), cancel=cancel))
    if arguments.json:
        print_json(summary.as_json())
    else:
        print(summary.text())
    return 0


def people_list(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print everyone who was trained."""
    everyone = App(settings_of(arguments)).people.list()
    if arguments.json:
        print_json([to_json(person) for person in everyone])
    elif not everyone:
        print("nobody yet; train someone with: easyphoto train PHOTOS --person NAME")
    for person in () if arguments.json else everyone:
        score = f"{person.score:.3f}" if person.score is not None else "  -  "
        print(f"{score}  {person.photos:>3} photos  {person.created}  {person.name}")
    return 0


def people_show(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print one person's files and scores."""
    person = App(settings_of(arguments)).people.get(arguments.name)
    print_json(to_json(person)) if arguments.json else print_person(person)
    return 0


def bench_portrait(arguments: Arguments, cancel: threading.Event) -> int:
    """Run PortraitBench and print its table."""
    options = BenchOptions(
        output=arguments.output.absolute(),
        real_people=arguments.people,
        templates=arguments.templates,
        only=tuple(arguments.only or ()),
    )
    with watching(arguments.json) as listener:
        watch = Watch(listener=stoppable(listener, cancel), cancel=cancel)
        report = run_bench(settings_of(arguments), options, watch)
    if arguments.json:
        print_json(report.as_json())
    else:
        print(report.table())
    return 0


def doctor(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print what is there; status 5 if something that is needed is missing."""
    findings = examine(settings_of(arguments))
    if arguments.json:
        print_json([to_json(finding) for finding in findings])
    for finding in () if arguments.json else findings:
        mark = "ok " if finding.ok else "-- " if not finding.needed else "NO "
        print(f"{mark} {finding.name:<32} {finding.found}")
        if not finding.ok:
            print(f"    {'':<32} {finding.remedy}")
    return 0 if all(finding.ok or not finding.needed for finding in findings) else 5


def settings_of(arguments: Arguments) -> Settings:
    """The environment's settings with what was said on the command line."""
    said = {
        "home": arguments.home and arguments.home.absolute(),
        "base_model": arguments.base_model and arguments.base_model.absolute(),
        "device": arguments.device, "gpus": arguments.gpus, "at_once": arguments.at_once,
    }
    return replace(Settings.from_env(), **{name: value for name, value in said.items() if value})


def stoppable(listener: Listener, cancel: threading.Event) -> Listener:
    """The listener, raising Cancelled once the person asked to stop."""

    def listen(event: Event) -> None:
        if cancel.is_set():
            raise Cancelled("stopped because you asked; nothing half-made was kept")
        listener(event)

    return listen


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=True), flush=True)


def print_person(person: Person) -> None:
    """A person's scores and files."""
    score = f"{person.score:.3f}" if person.score is not None else "not judged"
    print(f"{person.name}: score {score}, {person.photos} photos, trained {person.created}")
    print(f"  LoRA       {person.lora}\n  reference  {person.reference}\n  face_id    {person.face_id_picture}")
