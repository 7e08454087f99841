"""One order through the queue while somebody waits for it: run here if nobody else runs this home's jobs, else followed."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from easyphoto import errors
from easyphoto.app import Watch
from easyphoto.errors import Cancelled, Conflict, EasyPhotoError, JobFailed
from easyphoto.events import Event
from easyphoto.jobs.runner import Runner, runner_lock
from easyphoto.jobs.store import Input, JobStore, NewJob
from easyphoto.settings import Settings
from easyphoto.store.paths import owner_home
from easyphoto.work import Failure, Job, JobState

_PAUSE = 0.05


def run_order(settings: Settings, new: NewJob, inputs: Sequence[Input] = (), watch: Watch | None = None) -> Job:
    """Hand a job in and wait for its end; its events go to `watch.listener`, and `watch.cancel` cancels it.

    Raises:
        StorageError, Conflict, ...: It could not be handed in. How it ended is for the caller to read from the job.
    """
    store = JobStore(settings.home)
    try:
        return follow(settings, store, store.submit(new, inputs), watch or Watch())
    finally:
        store.close()


def follow(settings: Settings, store: JobStore, job: Job, watch: Watch, cancels: bool = True) -> Job:
    """Wait for the end of a job that is in the queue; see `run_order`.

    With `cancels` off, setting `watch.cancel` stops the watching alone: Cancelled is raised, and the job waits or goes on.
    """
    told, cancelled = 0, False
    with _Helper(settings, store, job.id) as helper:
        while True:
            # First the state, then the events: those said before its end are not missed.
            job = store.get(job.id)
            for number, event in store.events(job.id, told):
                told = number
                watch.listener(_placed(event, store, job))
            if job.state.ended:
                return job
            if watch.cancel.is_set() and not cancels:
                raise Cancelled(f"not watched any more; the job {job.id} stays in the queue")
            if watch.cancel.is_set() and not cancelled:
                cancelled = True
                store.cancel(job.id)
                continue
            helper.begin()
            time.sleep(_PAUSE)


class _Helper:
    """A runner for one job in this process, while no other process runs the jobs of this home."""

    def __init__(self, settings: Settings, store: JobStore, job_id: str) -> None:
        self._settings = settings
        self._store = store
        self._job_id = job_id
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Run the job here, unless that is being done already, here or elsewhere."""
        if self._thread is not None and self._thread.is_alive():
            return
        held = ExitStack()
        try:
            held.enter_context(runner_lock(self._settings.home))
        except Conflict:
            return
        self._thread = threading.Thread(target=self._run, args=(held,), name="runner", daemon=True)
        self._thread.start()

    def _run(self, held: ExitStack) -> None:
        with held:
            Runner(self._settings, self._store, only=self._job_id).run(self._stop)

    def __enter__(self) -> _Helper:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        # A second Ctrl-C breaks off: what is left is brought into order by whoever runs next.
        if self._thread is not None and kind is not KeyboardInterrupt:
            self._thread.join()


def _placed(event: Event, store: JobStore, job: Job) -> Event:
    """The event with its path made absolute: a picture in the job's folder, all else in the owner's home."""
    if event.path is None:
        return event
    inside: Path = store.folder(job.id) / event.path
    path = inside if inside.exists() else owner_home(store.root, job.owner).root / event.path
    return replace(event, path=str(path))


def error_of(job: Job) -> EasyPhotoError | None:
    """Why a job that has ended left no result, as the error it met; None if it is done."""
    if job.state is JobState.CANCELLED:
        return Cancelled("stopped because you asked; nothing half-made was kept")
    return None if job.failure is None else as_error(job.failure)


def as_error(failure: Failure) -> EasyPhotoError:
    """The error of our tree that a failure tells of."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EasyPhotoError)]
    return next((kind for kind in kinds if kind.code == failure.code), JobFailed)(failure.sentence)
