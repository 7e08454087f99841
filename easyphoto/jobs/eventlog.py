"""The events of one job, in a file of one JSON object a line, numbered from 1."""

from __future__ import annotations

import os
import threading
from array import array
from collections import OrderedDict
from pathlib import Path

from easyphoto.events import Event, parse
from easyphoto.files import storage_error

_REMEMBERED = 256
"""Files whose line beginnings are known."""


def append_event(path: Path, event: Event) -> None:
    """Add an event in one write; half a line that a crash left is closed first.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n" if hasattr(os, "pread") else False
            os.write(descriptor, (b"\n" if torn else b"") + event.line().encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(path, error) from error


class EventReader:
    """Reads events from where a follower stands, without reading the whole file again each time."""

    def __init__(self) -> None:
        self._starts: OrderedDict[Path, array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, after: int = 0) -> tuple[tuple[int, Event], ...]:
        """(number, event) of all whole lines behind line `after`; () where there is no file."""
        try:
            with path.open("rb") as file, self._lock:
                starts = self._known(path, os.fstat(file.fileno()).st_size)
                _look_on(file.fileno(), starts)
                after = max(0, after)
                if after >= len(starts) - 1:
                    return ()
                data = _read(file.fileno(), starts[after], starts[-1])
        except FileNotFoundError:
            return ()
        lines = data.decode("utf-8", "replace").splitlines()
        events = ((number, parse(line)) for number, line in enumerate(lines, start=after + 1))
        return tuple((number, event) for number, event in events if event is not None)

    def _known(self, path: Path, size: int) -> array[int]:
        starts = self._starts.get(path)
        if starts is None or starts[-1] > size:
            starts = self._starts[path] = array("q", [0])
        self._starts.move_to_end(path)
        while len(self._starts) > _REMEMBERED:
            self._starts.popitem(last=False)
        return starts


def _look_on(descriptor: int, starts: array[int]) -> None:
    """Note where the lines begin that have come since; the last entry is the end of the last whole line."""
    size = os.fstat(descriptor).st_size
    if size == starts[-1]:
        return
    begin = starts[-1]
    data = _read(descriptor, begin, size)
    at = data.find(b"\n")
    while at >= 0:
        starts.append(begin + at + 1)
        at = data.find(b"\n", at + 1)


def _read(descriptor: int, begin: int, end: int) -> bytes:
    os.lseek(descriptor, begin, os.SEEK_SET)
    parts: list[bytes] = []
    while begin < end and (part := os.read(descriptor, end - begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)
