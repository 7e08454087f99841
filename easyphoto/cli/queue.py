"""The verbs that look after jobs: list, show, cancel, watch."""

from __future__ import annotations

import argparse
import threading
from contextlib import closing

from easyphoto.app import Watch
from easyphoto.cli.commands import print_json, settings_of
from easyphoto.cli.progress import watching
from easyphoto.jobs.follow import error_of, follow
from easyphoto.jobs.store import JobQuery, JobStore
from easyphoto.store.codec import to_json
from easyphoto.work import Job, JobKind, JobState

Arguments = argparse.Namespace


def jobs_list(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print the newest jobs."""
    query = JobQuery(
        state=arguments.state and JobState(arguments.state), kind=arguments.kind and JobKind(arguments.kind),
        person=arguments.person, limit=arguments.limit,
    )  # fmt: skip
    with closing(JobStore(settings_of(arguments).home)) as store:
        jobs = store.list(query)
    if arguments.json:
        print_json([to_json(job) for job in jobs])
    elif not jobs:
        print("no jobs; train someone with: easyphoto train PHOTOS --person NAME")
    for job in () if arguments.json else jobs:
        print(_line(job))
    return 0


def _line(job: Job) -> str:
    progress = job.progress
    share = f" {progress.step}/{progress.total}" if progress.total else ""
    stage = f"  {progress.stage}{share}" if job.state is JobState.RUNNING and progress.stage else ""
    return f"{job.id}  {job.state.value:<9} {job.kind.value:<9} {job.created[:19]}  {job.person or ''}{stage}".rstrip()


def jobs_show(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print one job with what it failed of."""
    with closing(JobStore(settings_of(arguments).home)) as store:
        _show_job(store.get(arguments.id), arguments.json)
    return 0


def jobs_cancel(arguments: Arguments, _cancel: threading.Event) -> int:
    """Stop one job."""
    with closing(JobStore(settings_of(arguments).home)) as store:
        job = store.cancel(arguments.id)
    _show_job(job, arguments.json)
    return 0


def jobs_watch(arguments: Arguments, cancel: threading.Event) -> int:
    """Follow a job to its end, and run it if nobody else does; Ctrl-C stops the watching, not the job."""
    with closing(JobStore(settings_of(arguments).home)) as store, watching(arguments.json) as listener:
        watch = Watch(listener=listener, cancel=cancel)
        job = follow(settings_of(arguments), store, store.get(arguments.id), watch, cancels=False)
    _show_job(job, arguments.json)
    error = error_of(job)
    return 0 if error is None else error.exit_status


def _show_job(job: Job, as_json: bool) -> None:
    if as_json:
        print_json(to_json(job))
        return
    print(_line(job))
    if job.failure is not None:
        print(f"  {job.failure.sentence}")
        for line in job.failure.log_tail:
            print(f"  | {line}")
