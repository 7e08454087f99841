"""The host's line: waited in fairly, said aloud, left when somebody asks to stop, and never left locked."""

from __future__ import annotations

import threading
import time

import pytest

from easyphoto.engine.webui_queue import Waiting, in_line
from easyphoto.errors import Cancelled


def test_a_free_host_is_had_at_once_and_nobody_is_told_of_waiting() -> None:
    lock, said = threading.Lock(), []
    with in_line(lock, Waiting(say=lambda: said.append("waiting"))):
        assert lock.locked()
    assert not lock.locked()
    assert said == []


def test_a_busy_host_is_waited_for_and_that_is_said() -> None:
    lock, said = threading.Lock(), []
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    began = time.monotonic()
    with in_line(lock, Waiting(say=lambda: said.append("waiting"))):
        assert time.monotonic() - began > 0.25
        assert lock.locked()
    assert said == ["waiting"]
    assert not lock.locked()


def test_who_stops_waiting_leaves_the_line_to_the_others() -> None:
    lock, stop = threading.Lock(), threading.Event()
    lock.acquire()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Cancelled), in_line(lock, Waiting(cancelled=stop.is_set)):
        pytest.fail("the lock was never free")
    lock.release()
    # The place that was left may still be in the line; whoever comes next gets the lock all the same.
    assert lock.acquire(timeout=5)
    lock.release()


def test_an_error_while_it_is_held_lets_go() -> None:
    lock = threading.Lock()
    with pytest.raises(ValueError, match="broken"), in_line(lock, Waiting()):
        raise ValueError("broken")
    assert not lock.locked()
