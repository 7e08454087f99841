"""One lock file for each person: two trainings of one name never run at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from easyphoto.errors import Conflict
from easyphoto.files import storage_error
from easyphoto.store.paths import make_folder

_PID_AT = 64
"""Where the holder's process id begins. On Windows a locked byte cannot be read by others, so byte 0 alone is locked."""


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; `what` names the work in the message of the one who comes second.

    The operating system itself holds the lock (flock, or LockFile on Windows) and lets it go when the process ends, however it
    ends: a lock file left behind by a killed process is simply taken over, and no two can take it over at once. The file
    stays, because removing it would let a third process lock a new file of the same name beside the old one.

    Raises:
        Conflict: Another process, or another thread of this one, holds it.
        StorageError: The file cannot be made.
    """
    make_folder(path.parent)
    try:
        file = path.open("r+b" if path.exists() else "w+b")
    except OSError as error:
        raise storage_error(path, error) from error
    with file:
        if not _take(file):
            raise Conflict(f"{what} is being done already{_holder(file)}; wait until it has ended, or cancel it")
        try:
            _sign(file)
            yield
        finally:
            _let_go(file)


def _sign(file: IO[bytes]) -> None:
    file.seek(_PID_AT)
    file.truncate()
    file.write(str(os.getpid()).encode("ascii"))
    file.flush()


def _holder(file: IO[bytes]) -> str:
    file.seek(_PID_AT)
    digits = file.read(20).decode("ascii", "ignore").strip()
    return f" by process {digits}" if digits.isdigit() else ""


if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _let_go(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _let_go(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
