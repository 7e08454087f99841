"""The line of those who want the host to compute for them: waited in fairly, left when somebody asks to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from easyphoto.errors import Cancelled

_LOOK = 0.1
"""Seconds between two looks whether somebody asked to stop."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How a caller waits for the host."""

    cancelled: Callable[[], bool] = lambda: False
    say: Callable[[], None] = lambda: None
    """Called once if the host is busy."""


@dataclass(eq=False)
class _Place:
    guard: threading.Lock = field(default_factory=threading.Lock)
    reached: threading.Event = field(default_factory=threading.Event)
    left: bool = False


@contextmanager
def in_line(lock: Any, waiting: Waiting) -> Iterator[None]:  # noqa: ANN401 (the host's own class)
    """Hold the host's queue lock; raises Cancelled for whoever asked to stop while it was waited for.

    The host's lock is first come, first served and cannot be waited for with an end; so a thread stands in the line for us,
    and lets the lock go at once where nobody wants it any more.
    """
    if not lock.acquire(blocking=False):
        waiting.say()
        _wait(lock, waiting)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: Any, waiting: Waiting) -> None:  # noqa: ANN401 (the host's own class)
    place = _Place()
    threading.Thread(target=_stand, args=(lock, place), name="easyphoto-in-line", daemon=True).start()
    try:
        while not place.reached.wait(_LOOK) and not waiting.cancelled():
            pass
    finally:
        with place.guard:
            place.left = True
            reached = place.reached.is_set()
    if not reached:
        raise Cancelled("stopped because you asked, while it waited for the WebUI; nothing half-made was kept")


def _stand(lock: Any, place: _Place) -> None:  # noqa: ANN401 (the host's own class)
    lock.acquire()
    with place.guard:
        if place.left:
            lock.release()
        else:
            place.reached.set()
