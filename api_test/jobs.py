"""Look at the jobs and results of a running server, follow or cancel a job, delete what is not wanted any more.

    EASYPHOTO_URL=... EASYPHOTO_TOKEN=... python -m api_test.jobs list --state running
"""

from __future__ import annotations

import argparse
import sys

from easyphoto.client import Client, Job, JobKind, JobState
from easyphoto.errors import EasyPhotoError


def main() -> int:
    """Do one of the things below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="jobs, newest first")
    listing.add_argument("--state", choices=[state.value for state in JobState])
    listing.add_argument("--kind", choices=[kind.value for kind in JobKind])
    listing.add_argument("--limit", type=int, default=20)
    for verb, words in (("show", "one job"), ("follow", "a job's events until it ends"), ("cancel", "stop a job")):
        verbs.add_parser(verb, help=words).add_argument("job")
    verbs.add_parser("results", help="finished results, newest first")
    verbs.add_parser("delete-result", help="remove a result with its files").add_argument("result")
    forget = verbs.add_parser("delete-person", help="remove a person with everything derived")
    forget.add_argument("name")
    forget.add_argument("--results", action="store_true", help="finished portraits too")
    arguments = parser.parse_args()
    try:
        with Client() as client:
            run(client, arguments)
    except EasyPhotoError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def run(client: Client, arguments: argparse.Namespace) -> None:
    """One verb."""
    if arguments.verb == "list":
        for job in client.jobs(state=arguments.state, kind=arguments.kind, limit=arguments.limit):
            print(line(job))
    elif arguments.verb == "show":
        print(line(client.job(arguments.job)))
    elif arguments.verb == "follow":
        for event in client.events(arguments.job):
            print(event.line(), flush=True)
        print(line(client.job(arguments.job)))
    elif arguments.verb == "cancel":
        print(line(client.cancel(arguments.job)))
    elif arguments.verb == "results":
        for result in client.results():
            print(result.id, result.created, result.kind.value, result.person or "", f"{len(result.files)} files")
    else:
        delete(client, arguments)


def delete(client: Client, arguments: argparse.Namespace) -> None:
    """Remove something and print every file that went."""
    if arguments.verb == "delete-result":
        removed = client.delete_result(arguments.result)
    else:
        removed = client.delete_person(client.find(arguments.name), results=arguments.results)
    print("\n".join(removed.removed))


def line(job: Job) -> str:
    """A job for people."""
    words = [job.id, job.created, job.kind.value, job.state.value, job.person or ""]
    if job.state is JobState.RUNNING:
        words.append(f"{job.progress.stage} {job.progress.step}/{job.progress.total}")
    if job.failure:
        words.append(job.failure.sentence)
    return "  ".join(filter(None, words))


if __name__ == "__main__":
    sys.exit(main())
