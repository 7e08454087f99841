"""How far a portrait is, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from easyphoto.events import Event, Listener
from easyphoto.records import Pixels

Show = Callable[[str, Pixels], None]
"""Receives the picture of each stage while a portrait is made; may raise Cancelled."""


def show_nobody(_stage: str, _pixels: Pixels) -> None:
    """For callers that do not look."""


class Progress:
    """Tells a listener of stages and steps, and adds up seconds by stage."""

    def __init__(self, listener: Listener, label: str = "", show: Show = show_nobody) -> None:
        self._listener = listener
        self._label = label
        self._show = show
        self._stage = ""
        self._seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def for_picture(self, number: int, count: int) -> Progress:
        """A fresh clock for one of several pictures, which keeps what was spent on all of them together."""
        label = f"picture {number + 1} of {count}" if count > 1 else ""
        other = Progress(self._listener, label, self._show)
        other._seconds = dict(self._seconds)
        return other

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, under its name; a stage entered twice is added up."""
        self._stage = name
        self.step(0, 0)
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began

    def step(self, done: int, total: int) -> None:
        """Tell the listener; what it raises (`Cancelled`) stops the work."""
        stage = f"{self._label}: {self._stage}" if self._label else self._stage
        seconds = round(time.perf_counter() - self._began, 3)
        self._listener(Event(kind="progress", stage=stage, step=done, total=total, seconds=seconds))

    def show(self, stage: str, pixels: Pixels) -> None:
        """Let somebody look at what a stage made: a face's square, (size, size, 3) uint8 RGB."""
        self._show(stage, pixels)

    @property
    def seconds(self) -> tuple[tuple[str, float], ...]:
        """(stage, seconds) in the order the stages began."""
        return tuple(self._seconds.items())
