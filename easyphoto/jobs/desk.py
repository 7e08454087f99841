"""What a handler works with: the job, its files, its turn at the GPU, and somebody to tell how far it is."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.app import App, Watch, waited_for
from easyphoto.errors import Cancelled, EasyPhotoError, InputError, NotFound
from easyphoto.events import Event
from easyphoto.jobs.turns import WAITING, Turn, Turns
from easyphoto.marking import MarkingSettings
from easyphoto.work import JobProgress

logger = logging.getLogger(__name__)

_PAUSE = 0.26
"""Seconds between two notes of one stage's progress: at most four a second."""
_AT: ContextVar[Path | None] = ContextVar("job_log", default=None)
"""The log of the job that this thread works on."""


class Gate:
    """The GPU's door: one job at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def hold(self, cancel: threading.Event) -> AbstractContextManager[None]:
        """Wait for the GPU and hold it; raises Cancelled once `cancel` is set while waiting."""
        return waited_for(self._lock, cancel)

    @property
    def taken(self) -> bool:
        """Whether somebody is at the GPU right now."""
        return self._lock.locked()


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
    _progress: JobProgress = field(default_factory=JobProgress)
    _noted_at: float = float("-inf")
    _previews: int = 0

    @property
    def watch(self) -> Watch:
        """For the application: told of everything, stopped by `cancel`, waiting for the GPU."""
        return Watch(listener=self.listen, cancel=self.cancel, gpu=self.at_gpu)

    def at_gpu(self) -> AbstractContextManager[None]:
        """Hold this for the job's turn at the GPU; raises Cancelled once somebody asked to stop while it waits."""
        if self.gate.taken:
            self.listen(Event(kind="progress", stage=WAITING))
        return self.gate.hold(self.cancel)

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
        with suppress(OSError), self.turn.folder.log.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {text}\n")

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
            with suppress(OSError), path.open("a", encoding="utf-8") as file:
                file.write(self.format(record) + "\n")


@contextmanager
def logging_into(path: Path) -> Iterator[None]:
    """Let what this thread logs go into the file too."""
    token = _AT.set(path)
    try:
        yield
    finally:
        _AT.reset(token)
