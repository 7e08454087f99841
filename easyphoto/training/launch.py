"""The asking side of a training: starts the worker process, passes its events on, and hands over its result. No torch."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from easyphoto import errors
from easyphoto.errors import Cancelled, Conflict, EasyPhotoError, JobFailed, NotFound, SpecError
from easyphoto.events import Event, Listener, ignore
from easyphoto.files import write_text
from easyphoto.records import PreparedSet, TrainKind
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.specs import TrainResult, TrainSpec
from easyphoto.store.codec import dumps
from easyphoto.store.locks import holder, waiting_lock
from easyphoto.store.paths import check_name, person_id
from easyphoto.store.people import PeopleStore
from easyphoto.store.templates import list_templates
from easyphoto.training.child import Child
from easyphoto.training.job import JobFolder, JobOrder, new_job
from easyphoto.training.prepared_files import has_prepared, read_prepared, write_prepared
from easyphoto.training.slot import Fit, WorkerSlot

logger = logging.getLogger(__name__)

_TAIL_LINES = 5


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """How a training is watched and run."""

    listener: Listener = ignore
    """Receives every event; may raise Cancelled."""
    cancel: threading.Event = field(default_factory=threading.Event)
    """Set it from another thread to stop the training."""
    python: Path | None = None
    """Interpreter of the worker; None takes the one that runs now."""
    resume: bool = False
    """Go on with the person's last training that was cut off, if there is one."""
    templates: Path | None = None
    """Gallery that checkpoints are judged on; None takes the settings'."""
    gpus: int = 1
    """Over how many GPUs the training is spread, a process each."""
    slot: WorkerSlot | None = None
    """The place at the GPU where a worker may stay for the next training; None ends it with this one."""
    queued_as: str | None = None
    """Id of the queue's job: a training that was begun for it goes on, whatever ended the process that began it."""


def train(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, options: LaunchOptions | None = None) -> TrainResult:
    """Train a person in a process of its own; the result lies in the job's folder until it is published.

    Raises:
        Conflict: The same person is being trained already.
        Cancelled: Somebody asked to stop; the training can be resumed.
        JobFailed: The worker died or gave up; the message says why.
        StorageError, SpecError, LoraError, ...: What the worker met, as if it had happened here.
    """
    options = options or LaunchOptions()
    check_name(spec.person)
    with store.lock(spec.person):
        store.home.make()
        job = _job(spec, prepared, store, options)
        if not job.result.exists():
            _run_worker(job, options)
        return job.read_result()


def find_resumable(store: PeopleStore, name: str) -> Path | None:
    """The person's newest job that was cut off after its first checkpoint; None if there is none."""
    jobs = (JobFolder(root) for root in sorted(store.home.jobs.glob(f"{person_id(name)}-*"), reverse=True))
    return next((job.root for job in jobs if job.state.exists() and not job.result.exists()), None)


def find_begun(store: PeopleStore, name: str, queued_as: str | None) -> JobFolder | None:
    """The training that was begun for a job of the queue; None if there is none, or it was cut off while it was laid out."""
    for root in sorted(store.home.jobs.glob(f"{person_id(name)}-*")) if queued_as else ():
        job = JobFolder(root)
        with contextlib.suppress(NotFound, SpecError):
            if job.read_order().queued_as == queued_as and has_prepared(job.prepared):
                return job
    return None


def remove_begun(store: PeopleStore, name: str, queued_as: str) -> None:
    """Remove the working files of a training that was begun for a job of the queue; its person stays."""
    job = find_begun(store, name, queued_as)
    if job is not None:
        shutil.rmtree(job.root, ignore_errors=True)


def wait_for_worker(job: JobFolder, patience: float = 60.0) -> None:
    """Wait until the worker of a parent that was killed has gone too; one that does not go is made to."""
    try:
        with waiting_lock(job.lock, "the training", patience):
            return
    except Conflict:
        left = holder(job.lock)
    if left is not None:
        with contextlib.suppress(OSError):
            os.kill(left, getattr(signal, "SIGKILL", signal.SIGTERM))
    with waiting_lock(job.lock, f"the training in {job.root.name}", patience):
        return


def usable_cores() -> int:
    """Cores this process may really use: what the scheduler allows, within a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


def _job(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, options: LaunchOptions) -> JobFolder:
    """The job to run: a new one, or the one to go on with."""
    begun = find_begun(store, spec.person, options.queued_as)
    if begun is not None:
        wait_for_worker(begun)
        begun.cancel.unlink(missing_ok=True)
        return begun
    found = find_resumable(store, spec.person) if options.resume else None
    if found is not None:
        job = JobFolder(found)
        if job.read_spec() != spec:
            raise SpecError(f"the training to go on with ({job.root.name}) has other settings; give it the same, or start anew")
        if _names(read_prepared(job.prepared)) != _names(prepared):
            raise SpecError(f"the training to go on with ({job.root.name}) is of other photos; give it the same, or start anew")
        job.cancel.unlink(missing_ok=True)
        write_text(job.order, dumps(replace(job.read_order(), queued_as=options.queued_as)))
        return job
    judged = spec.validate.every and spec.kind is TrainKind.PERSON
    gallery = options.templates or Settings.from_env().templates
    paths = tuple(template.path for template in list_templates(gallery)) if judged else ()
    job = new_job(store.home.jobs, spec, JobOrder(templates=paths, created=time.time(), queued_as=options.queued_as))
    write_prepared(prepared, job.prepared)
    return job


def _names(prepared: PreparedSet) -> tuple[str, ...]:
    return tuple(photo.name + photo.caption for photo in prepared.photos)


def _run_worker(job: JobFolder, options: LaunchOptions) -> None:
    """Run the worker to the job's end, whatever that is."""
    slot = options.slot if options.gpus == 1 else None
    fit = Fit.of(job.read_spec(), options.python)
    child = _waiting(slot, fit, job) or Child(_command(job, options), job, _environment(options), stays=slot is not None)
    failure: Event | None = None
    kept = False
    try:
        for event in child.events(job, options.cancel):
            if event.kind in ("failed", "cancelled"):
                failure = event
            options.listener(event)
        kept = slot is not None and child.idle and slot.keep(fit, child)
    finally:
        code = 0 if kept else child.end()
    if options.cancel.is_set() and code != 0:
        raise Cancelled("the training was stopped because you asked; go on with it later with --resume")
    if code != 0 or failure is not None:
        raise _error(job, code, failure)


def _waiting(slot: WorkerSlot | None, fit: Fit, job: JobFolder) -> Child | None:
    """The worker of an earlier training, at work on this one; None if there is none that answers."""
    child = slot.take(fit) if slot else None
    if child is None or child.hand(job):
        return child
    logger.info("the training process %d, which was kept, does not answer; a new one is started", child.pid)
    return None


def _command(job: JobFolder, options: LaunchOptions) -> list[str]:
    command = [str(options.python or sys.executable), "-m", "easyphoto.training.worker", str(job.root), "--watch-parent"]
    if options.gpus > 1:
        return [*command, "--gpus", str(options.gpus)]
    return [*command, "--stay"] if options.slot else command


def _environment(options: LaunchOptions) -> dict[str, str]:
    slot = options.slot
    found = worker_environment(slot.places if slot else 1)
    return {**found, "CUDA_VISIBLE_DEVICES": slot.gpus} if slot and slot.gpus else found


def worker_environment(workers: int = 1) -> dict[str, str]:
    """The worker's environment: ours, this very package first on its path, and its share of the cores as threads.

    numpy's decompositions are small and run side by side (see `store.lora_merge`): one thread each.
    """
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8",
        "HF_HUB_OFFLINE": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    threads = max(1, usable_cores() // workers)
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", **os.environ, **own}


def _error(job: JobFolder, code: int, failure: Event | None) -> EasyPhotoError:
    """Why the worker ended, as the error it met itself, or from its exit status."""
    if failure is not None and failure.message:
        return _class_of(failure.code)(failure.message)
    if code < 0:
        name = signal.Signals(-code).name
        why = " (often because memory ran out)" if name == "SIGKILL" else ""
        return JobFailed(f"the training was killed by {name}{why}; go on with it with --resume, or see {job.log}")
    return JobFailed(f"the worker ended with status {code} and no result; the end of {job.log} says: {_tail(job.log)}")


def _class_of(code: str | None) -> type[EasyPhotoError]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EasyPhotoError)]
    return next((kind for kind in kinds if kind.code == code), JobFailed)


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "nothing"
    return " | ".join(lines[-_TAIL_LINES:]) or "nothing"
