"""What a handler works with: the job, its files, its turn at the GPU, and somebody to tell how far it is."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.app import App, Watch, waited_for
from easyphoto.errors import Cancelled, EasyPhotoError, InputError, NotFound
from easyphoto.events import Event
from easyphoto.jobs.turns import WAITING, Turn, Turns
from easyphoto.marking import MarkingSettings
from easyphoto.training.slot import WorkerSlot
from easyphoto.work import JobKind, JobProgress

logger = logging.getLogger(__name__)

_PAUSE = 0.26
"""Seconds between two notes of one stage's progress: at most four a second."""
_LOOK = 0.05
"""Seconds between two looks at which GPU is free."""
_AT: ContextVar[Path | None] = ContextVar("job_log", default=None)
"""The log of the job that this thread works on."""


class Gate:
    """The GPUs' doors: one job at a time at each place. Our own engine is at the first; trainings go to any."""

    def __init__(self, places: Sequence[WorkerSlot] = ()) -> None:
        """One place without a worker that stays, unless there are others."""
        self.places = tuple(places) or (WorkerSlot(lambda: False),)
        self._locks = [threading.Lock() for _ in self.places]

    @contextmanager
    def hold(self, cancel: threading.Event) -> Iterator[WorkerSlot]:
        """Wait for the first place and hold it, all of its memory free; raises Cancelled once `cancel` is set while waiting."""
        with waited_for(self._locks[0], cancel):
            self.places[0].close()
            yield self.places[0]

    @contextmanager
    def hold_any(self, cancel: threading.Event) -> Iterator[WorkerSlot]:
        """The same for a training, at any place that is free: where a worker waits sooner than elsewhere, at the first last."""
        while (number := self._take_any()) is None:
            if cancel.wait(_LOOK):
                raise Cancelled("stopped because you asked, while it waited for another job; nothing half-made was kept")
        try:
            yield self.places[number]
        finally:
            self._locks[number].release()

    def _take_any(self) -> int | None:
        order = sorted(range(len(self.places)), key=lambda number: (self.places[number].pid is None, -number))
        return next((number for number in order if self._locks[number].acquire(blocking=False)), None)

    def taken(self, all_places: bool = False) -> bool:
        """Whether somebody is at the first place right now, or at every one."""
        return all(lock.locked() for lock in (self._locks if all_places else self._locks[:1]))

    def tidy(self, changed: bool) -> None:
        """End workers that stay for nothing (see `WorkerSlot.tidy`); whoever is at a place sees to its own."""
        for place, lock in zip(self.places, self._locks):
            if place.pid is not None and lock.acquire(blocking=False):
                try:
                    place.tidy(changed)
                finally:
                    lock.release()

    def close(self) -> None:
        """End every worker that stays."""
        for place in self.places:
            place.close()


@dataclass(kw_only=True, eq=False)
class Desk:
    """One job while it runs."""

    turn: Turn
    turns: Turns
    app: App
    """Of the job's owner."""
    gate: Gate
    marking: Callable[[], MarkingSettings] = MarkingSettings.from_env
    """Which marks finished pictures get, as it is said now."""
    cancel: threading.Event = field(default_factory=threading.Event)
    been_at_gpu: bool = False
    _progress: JobProgress = field(default_factory=JobProgress)
    _noted_at: float = float("-inf")
    _previews: int = 0

    @property
    def watch(self) -> Watch:
        """For the application: told of everything, stopped by `cancel`, waiting for the GPU."""
        return Watch(listener=self.listen, cancel=self.cancel, gpu=self.at_gpu)

    @contextmanager
    def at_gpu(self) -> Iterator[WorkerSlot]:
        """Hold this for the job's turn at a GPU; raises Cancelled once somebody asked to stop while it waits."""
        trains = self.turn.job.kind is JobKind.TRAINING
        if self.gate.taken(all_places=trains):
            self.listen(Event(kind="progress", stage=WAITING))
        with (self.gate.hold_any if trains else self.gate.hold)(self.cancel) as place:
            self.been_at_gpu = True
            yield place

    def listen(self, event: Event) -> None:
        """Write an event down, unless one of the same stage was just now; raises Cancelled once somebody asked to stop."""
        if self.cancel.is_set():
            raise Cancelled("stopped because you asked; nothing half-made was kept")
        now = time.monotonic()
        passing = event.kind == "progress" and event.stage == self._progress.stage and event.step != event.total
        if passing and now - self._noted_at < _PAUSE:
            return
        self._noted_at = now
        if event.kind == "log":
            self.log(event.message or "")
        event = self._with_files_of_ours(event)
        self._progress = replace(
            self._progress, stage=event.stage or self._progress.stage, step=event.step, total=event.total,
            seconds_left=event.seconds_left, preview=event.path if event.kind == "sample" else self._progress.preview,
        )  # fmt: skip
        # Progress is worth no failure: a full disk is met where something is written that counts.
        with suppress(EasyPhotoError):
            self.turns.say(self.turn, event)
            self.turns.note(self.turn.job.id, self._progress)

    def log(self, text: str) -> None:
        """Add a line to the job's log."""
        stamp = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        _add(self.turn.folder.log, f"{stamp} {text}\n")

    def input(self, path: Path) -> Path:
        """Where a file of the order lies: in the job's folder, or in the template gallery; never elsewhere.

        Raises:
            InputError: It points elsewhere.
            NotFound: It is not there any more.
        """
        root = self.app.settings.templates if path.is_absolute() else self.turn.folder.root
        try:
            found = (root / path).resolve(strict=True)
        except OSError as error:
            raise NotFound(f"{path.name} is not there any more; hand the job in again") from error
        if not found.is_relative_to(root.resolve()):
            raise InputError(f"{path} lies outside the job's folder; hand the file in with the job")
        return found

    def _with_files_of_ours(self, event: Event) -> Event:
        """The event with its path as everybody may see it: a picture copied into the job's folder, else within the home."""
        if event.path is None:
            return event
        path = Path(event.path)
        if event.kind == "sample":
            self._previews += 1
            name = f"preview-{self.turn.job.attempt}-{self._previews:04d}{path.suffix.lower()}"
            with suppress(OSError):
                shutil.copyfile(path, self.turn.folder.root / name)
                return replace(event, path=name)
        home = self.app.home.root
        return replace(event, path=path.relative_to(home).as_posix() if path.is_relative_to(home) else None)


class JobLog(logging.Handler):
    """Takes what libraries and rooms log while a thread works on a job into that job's log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record to the log of this thread's job, if it has one."""
        path = _AT.get()
        if path is not None:
            _add(path, self.format(record) + "\n")


def _add(path: Path, text: str) -> None:
    """Add to a log in one write; what a full disk does not take is lost."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


@contextmanager
def logging_into(path: Path) -> Iterator[None]:
    """Let what this thread logs go into the file too."""
    token = _AT.set(path)
    try:
        yield
    finally:
        _AT.reset(token)
