"""Train a person from photos through a running server, and show how far it is.

    EASYPHOTO_URL=... EASYPHOTO_TOKEN=... python -m api_test.train Anna photos/anna --consent-by Anna
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone

from easyphoto.client import Client, Consent, Event, JobState, TrainSettings
from easyphoto.errors import EasyPhotoError


def main() -> int:
    """Train; 0 if the person can be used afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the person's name")
    parser.add_argument("photos", nargs="+", help="picture files or folders of them")
    parser.add_argument("--consent-by", metavar="WHO", help="who said that these photos may be used")
    parser.add_argument("--max-steps", type=int, help="train fewer steps than the base model's default")
    parser.add_argument("--no-validation", action="store_true", help="keep the last checkpoint unjudged")
    parser.add_argument("--replace", action="store_true", help="train a person anew")
    parser.add_argument("--check-only", action="store_true", help="judge the photos and train nothing")
    arguments = parser.parse_args()
    try:
        with Client() as client:
            return check(client, arguments) if arguments.check_only else train(client, arguments)
    except EasyPhotoError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_status


def check(client: Client, arguments: argparse.Namespace) -> int:
    """Print what the server thinks of each photo."""
    job = client.wait(client.check(arguments.photos), on_event=show)
    for verdict in client.result(job).verdicts:
        print("taken   " if verdict.accepted else "left out", verdict.photo, "-", verdict.sentence)
    return 0


def train(client: Client, arguments: argparse.Namespace) -> int:
    """Train and print the person."""
    job = client.train(
        arguments.name, arguments.photos, settings=settings(arguments), consent=consent(arguments), replace=arguments.replace
    )
    print(f"job {job.id} is {job.state.value}; it goes on when this script is stopped")
    job = client.wait(job, on_event=show)
    if job.state is not JobState.DONE:
        print(f"{job.state.value}: {job.failure.sentence if job.failure else 'somebody asked for it'}", file=sys.stderr)
        return 1
    person = client.find(arguments.name)
    print(f"{person.name} has the id {person.id}, was trained on {person.photos} photos and scores {person.score}")
    return 0


def settings(arguments: argparse.Namespace) -> TrainSettings:
    """What shall differ from the base model's defaults."""
    chosen: TrainSettings = {}
    if arguments.max_steps is not None:
        chosen["optim"] = {"max_steps": arguments.max_steps}
    if arguments.no_validation:
        chosen["validate"] = {"every": 0}
    return chosen


def consent(arguments: argparse.Namespace) -> Consent | None:
    """Who agreed, and that it was said today."""
    if arguments.consent_by is None:
        return None
    return Consent(given_by=arguments.consent_by, given_at=datetime.now(timezone.utc).date().isoformat())


def show(event: Event) -> None:
    """One line for each event that a person wants to see."""
    if event.kind == "progress":
        left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
        print(f"{event.stage} {event.step}/{event.total}{left}", flush=True)
    elif event.message:
        print(event.message, flush=True)


if __name__ == "__main__":
    sys.exit(main())
