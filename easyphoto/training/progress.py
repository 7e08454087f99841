"""What the worker says while it works: events on its standard output and in the job folder, with the time that is left."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from easyphoto.events import Event

_PAUSE = 0.2
"""Seconds between two progress events of one stage; more would only fill the disk."""


class Stop:
    """Whether somebody wants the work to end: a signal, a file, or a parent that is gone."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark
        self._asked = threading.Event()

    def ask(self, *_: object) -> None:
        """Stop at the next step; fits as a signal handler."""
        self._asked.set()

    def wanted(self) -> bool:
        """Whether to stop now."""
        return self._asked.is_set() or self._mark.exists()


class Clock:
    """Guesses the time that is left from the steps and renderings so far."""

    def __init__(self, steps: int, renderings: int) -> None:
        self._left = {"step": steps, "rendering": renderings}
        # Seconds of one, until the first has been measured: a rendering takes about as long as six steps.
        self._one = {"step": 0.0, "rendering": 0.0}
        self._done = {"step": 0, "rendering": 0}

    def tick(self, what: str, seconds: float) -> None:
        """One more of `what` ("step" or "rendering") is done, and took so long."""
        done = self._done[what]
        # The mean of about the last twenty, so that a busy moment is soon forgotten; the first is mostly warming up.
        share = 1.0 if done < 2 else max(0.05, 1 / done)
        self._one[what] += share * (seconds - self._one[what])
        self._done[what] = done + 1
        self._left[what] = max(0, self._left[what] - 1)

    @property
    def seconds_left(self) -> float:
        """Seconds until everything is done."""
        rendering = self._one["rendering"] or 6 * self._one["step"]
        return self._left["step"] * self._one["step"] + self._left["rendering"] * rendering


class Reporter:
    """Writes events, from any thread."""

    def __init__(self, path: Path, out: TextIO | None = None) -> None:
        self._path = path
        self._out = out or sys.stdout
        self._began = time.perf_counter()
        self._last: dict[str, float] = {}
        self._writing = threading.Lock()
        self.device = "cpu"
        self.clock = Clock(0, 0)

    @property
    def seconds(self) -> float:
        """Since the worker began."""
        return time.perf_counter() - self._began

    def say(self, kind: str, **fields: Any) -> None:  # noqa: ANN401 (the fields of Event)
        """Write one event.

        Raises:
            OSError: The disk is full, or nobody reads any more.
        """
        event = Event(kind=kind, seconds=round(self.seconds, 2), memory_mb=memory_mb(self.device), **fields)
        line = event.line() + "\n"
        with self._writing:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
            finally:
                # Last, as whoever hears of the end may end this process; and on a full disk too.
                self._out.write(line)
                self._out.flush()

    def progress(self, stage: str, step: int, total: int, **fields: Any) -> None:  # noqa: ANN401 (the fields of Event)
        """Say how far a stage is, unless that was said just now."""
        now = time.perf_counter()
        if step < total and now - self._last.get(stage, 0.0) < _PAUSE:
            return
        self._last[stage] = now
        self.say("progress", stage=stage, step=step, total=total, seconds_left=round(self.clock.seconds_left, 1), **fields)


def memory_mb(device: str = "cpu") -> float | None:
    """MiB that the process uses: of the GPU where it works on one, else of main memory; None where nobody can say."""
    if device.startswith("cuda"):
        import torch

        return round(torch.cuda.memory_allocated() / 2**20, 1)
    status = Path("/proc/self/statm")
    if status.exists():
        import resource

        return round(int(status.read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20, 1)
    if sys.platform == "win32":
        return None
    import resource

    # The peak, in bytes on macOS and in KiB elsewhere; the present value takes a package.
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), 1)
