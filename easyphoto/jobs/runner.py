"""Runs the queue's jobs: one at each place at a GPU and one more, so that the next one's photos are checked meanwhile.

A training's process stays for the next training as long as one waits (see `training.slot`).

A lock on the home keeps every other runner away (`runner_lock`). Whatever ends a job is written on the disk before it is told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from easyphoto.app import App
from easyphoto.errors import Cancelled, EasyPhotoError, StorageError
from easyphoto.files import storage_error
from easyphoto.jobs import handlers
from easyphoto.jobs.desk import Desk, Gate, JobLog, logging_into
from easyphoto.jobs.folders import End, now
from easyphoto.jobs.results import drop_half_made
from easyphoto.jobs.store import JobQuery, JobStore
from easyphoto.jobs.turns import Turns
from easyphoto.marking import MarkingSettings
from easyphoto.settings import Settings
from easyphoto.store.locks import locked
from easyphoto.training.launch import remove_begun
from easyphoto.training.slot import slots
from easyphoto.work import Failure, JobKind, JobResult, JobState

logger = logging.getLogger(__name__)

_PAUSE, _IDLE_PAUSE = 0.02, 0.1
"""Seconds between two looks at the queue; the longer one after a while without work."""
_IDLE_AFTER = 10.0
_DISK_PAUSE = 1.0
"""Seconds between two tries to write down an end on a full disk."""


def runner_lock(home: Path) -> AbstractContextManager[None]:
    """Held by the one process that runs the jobs of a home; Conflict for a second one."""
    return locked(home / "queue" / "worker.lock", "the queue's work")


class Runner:
    """Takes jobs and runs them; whoever makes one holds `runner_lock`."""

    def __init__(
        self, settings: Settings, store: JobStore, only: str | None = None, app: App | None = None,
        marking: Callable[[], MarkingSettings] = MarkingSettings.from_env,
    ) -> None:  # fmt: skip
        """`app` brings a host's engine along, where the jobs run inside one; `marking` is asked anew for every job."""
        self._store, self._turns = store, Turns(store)
        self._app = app or App(settings)
        self._marking = marking
        self._only = only
        self._gate = Gate(slots(settings.at_once, settings.gpus, settings.device, self._training_waits))
        self._desks: dict[str, Desk] = {}
        self._threads = ThreadPoolExecutor(len(self._gate.places) + 1, "job")
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Bring the queue into order, then run jobs until `stop` is set (or the only one has ended).

        Jobs that run when `stop` is set are stopped in order and wait again.
        """
        log = JobLog()
        log.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(log)
        try:
            for job in self._turns.recover():
                logger.info("the job %s was left by a runner that was killed; it waits again", job.id)
                handlers.wait_for_orphan(self._app.for_owner(job.owner), job)
            self._loop(stop)
        finally:
            self._stop_all()
            self._gate.close()
            logging.getLogger().removeHandler(log)

    def _loop(self, stop: threading.Event) -> None:
        seen, active_at = -1, time.monotonic()
        begun = False
        while not stop.is_set():
            with suppress(StorageError):
                version = self._turns.version()
                if version != seen or self._wake.is_set():
                    self._wake.clear()
                    seen, active_at = version, time.monotonic()
                    self._pass_on_cancels()
                    begun = self._begin_some() or begun
                    self._gate.tidy(changed=True)
            if self._only is not None and not self._busy() and (begun or self._is_over()):
                return
            self._gate.tidy(changed=False)
            idle = not self._busy() and time.monotonic() - active_at > _IDLE_AFTER
            self._wake.wait(_IDLE_PAUSE if idle else _PAUSE)

    def _is_over(self) -> bool:
        """Whether the only job needs nobody any more."""
        return self._turns.wants_stop(self._only or "")

    def _training_waits(self) -> bool:
        """Whether there is a training that has not been at a GPU yet."""
        if self._only is not None or not self._app.shared.keeps_workers or self._stopping.is_set():
            return False
        with self._guard:
            desks = tuple(self._desks.values())
        if any(desk.turn.job.kind is JobKind.TRAINING and not desk.been_at_gpu for desk in desks):
            return True
        return bool(self._store.list(JobQuery(state=JobState.QUEUED, kind=JobKind.TRAINING, limit=1)))

    def _begin_some(self) -> bool:
        """Take jobs until each place has one and one more prepares itself; whether any was taken."""
        taken = False
        while len(busy := self._busy()) < (1 if self._only else len(self._gate.places) + 1):
            turn = self._turns.claim(busy, self._only)
            if turn is None:
                return taken
            taken = True
            app = self._app.for_owner(turn.job.owner)
            desk = Desk(turn=turn, turns=self._turns, app=app, gate=self._gate, marking=self._marking)
            with self._guard:
                self._desks[turn.job.id] = desk
            self._threads.submit(self._work, desk)
        return taken

    def _busy(self) -> tuple[str, ...]:
        with self._guard:
            return tuple(self._desks)

    def _pass_on_cancels(self) -> None:
        with self._guard:
            desks = tuple(self._desks.values())
        for desk in desks:
            if not desk.cancel.is_set() and self._turns.wants_stop(desk.turn.job.id):
                desk.cancel.set()

    def _work(self, desk: Desk) -> None:
        """One job from its beginning to its end, in a thread of its own."""
        turn = desk.turn
        try:
            with logging_into(turn.folder.log):
                desk.log(f"{turn.job.kind.value} {turn.job.id}: attempt {turn.job.attempt}")
                end, result = self._outcome(desk)
            if end is None:
                self._turns.put_back(turn.job.id)
            else:
                self._finish(desk, end, result)
        except Exception:
            logger.exception("the end of the job %s could not be written; it is found again at the next start", turn.job.id)
        finally:
            with self._guard:
                self._desks.pop(turn.job.id, None)
            self._wake.set()

    def _outcome(self, desk: Desk) -> tuple[End | None, JobResult | None]:
        """How the job ends, and what it leaves; no end for one that is to go on with the next runner."""
        job = desk.turn.job
        state, failure, result = JobState.DONE, None, None
        try:
            result = handlers.run(desk)
            desk.log("done")
        except Cancelled as error:
            if self._stopping.is_set() and not self._turns.wants_stop(job.id):
                desk.log("stopped with the queue; goes on with its next start")
                return None, None
            desk.log(f"cancelled: {error}")
            state = JobState.CANCELLED
        except Exception as error:  # noqa: BLE001 (a job's border: whatever it was, the job has to say so)
            state, failure = JobState.FAILED, self._failure(desk, error)
        finally:
            if result is None:
                drop_half_made(desk.app.home, job.id)
        return End(state=state, ended=now(), started=job.started, attempt=job.attempt, failure=failure), result

    def _failure(self, desk: Desk, error: Exception) -> Failure:
        known = _known(desk, error)
        if known is not error:
            logger.error("the job %s failed", desk.turn.job.id, exc_info=error)
        desk.log(f"failed ({known.code}): {known}")
        return Failure(code=known.code, sentence=str(known), log_tail=desk.turn.folder.log_tail())

    def _finish(self, desk: Desk, end: End, result: JobResult | None) -> None:
        """Write down the end; on a full disk, as soon as there is room."""
        if end.state is JobState.DONE:
            # Its result is in place, so a kill from here on leaves a job that is known to be done.
            clean_up(desk)
        while True:
            try:
                self._turns.finish(desk.turn, end, result)
                break
            except StorageError as error:
                logger.warning("the end of the job %s cannot be written yet: %s", desk.turn.job.id, error)
                if self._stopping.wait(_DISK_PAUSE):
                    raise

    def _stop_all(self) -> None:
        self._stopping.set()
        with self._guard:
            desks = tuple(self._desks.values())
        for desk in desks:
            desk.cancel.set()
        while self._busy():
            self._wake.clear()
            if self._busy():
                self._wake.wait(1.0)
        self._threads.shutdown()


def clean_up(desk: Desk) -> None:
    """Remove what a job that is done needs no more: the photos handed in, and the training's working files."""
    desk.turn.folder.drop_inputs()
    if desk.turn.job.kind is JobKind.TRAINING and desk.turn.job.person:
        remove_begun(desk.app.shelf(desk.turn.job.subject), desk.turn.job.person, desk.turn.job.id)


def _known(desk: Desk, error: Exception) -> EasyPhotoError:
    """The error as one of ours."""
    if isinstance(error, EasyPhotoError):
        return error
    if isinstance(error, OSError):
        return storage_error(Path(error.filename) if isinstance(error.filename, str) else desk.turn.folder.root, error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return EasyPhotoError("the job ran out of memory; close other programs, or ask for smaller or fewer pictures")
    return EasyPhotoError(f"the job failed ({type(error).__name__}: {error}); see {desk.turn.folder.log}")
