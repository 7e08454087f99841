"""Lock files: two trainings of one person never run at once, nor two runners of one home."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from easyphoto.errors import Conflict
from easyphoto.files import storage_error
from easyphoto.store.paths import make_folder

_PID_AT = 64
"""Where the holder's process id begins. On Windows a locked byte cannot be read by others, so byte 0 alone is locked."""


@contextmanager
def locked(path: Path, what: str, remove: bool = False) -> Iterator[None]:
    """Hold the lock file at `path`; `what` names the work in the message of the one who comes second.

    The operating system itself holds the lock (flock, or LockFile on Windows) and lets it go when the process ends, however it
    ends: a lock file left behind by a killed process is simply taken over, and no two can take it over at once. With
    `remove` the file is gone afterwards; whoever opened it before that finds out and opens the new one.

    Raises:
        Conflict: Another process, or another thread of this one, holds it.
        StorageError: The file cannot be made.
    """
    with _open_held(path, what) as file:
        try:
            _sign(file)
            yield
        finally:
            if remove:
                # Windows refuses this for an open file; then it is tried again below.
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            _let_go(file)
    if remove and sys.platform == "win32":
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _open_held(path: Path, what: str) -> IO[bytes]:
    """The lock file, open and locked; opened anew where its remover came first."""
    while True:
        file = _open(path)
        if not _take(file):
            with file:
                raise Conflict(f"{what} is being done already{_holder(file)}; wait until it has ended, or cancel it")
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _open(path: Path) -> IO[bytes]:
    """The lock file; its folder is made where there is none."""
    try:
        # Without a buffer: opening one looks at the file three times more.
        return path.open("a+b", buffering=0)
    except FileNotFoundError:
        make_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        return path.open("a+b", buffering=0)
    except OSError as error:
        raise storage_error(path, error) from error


@contextmanager
def waiting_lock(path: Path, what: str, patience: float = 60.0, pause: float = 0.05) -> Iterator[None]:
    """Hold the lock file at `path`, waiting up to `patience` seconds for another that holds it.

    Raises:
        Conflict: It was held all the time.
        StorageError: The file cannot be made.
    """
    began = time.monotonic()
    while True:
        held = locked(path, what)
        try:
            held.__enter__()
            break
        except Conflict:
            if time.monotonic() - began > patience:
                raise
            time.sleep(pause)
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def holder(path: Path) -> int | None:
    """The process that holds the lock file at `path`; None if nobody does, or nobody can say."""
    try:
        with locked(path, "it"):
            return None
    except Conflict:
        with path.open("rb") as file:
            file.seek(_PID_AT)
            digits = file.read(20).decode("ascii", "ignore").strip()
        return int(digits) if digits.isdigit() else None


def abandoned(path: Path) -> bool:
    """Whether somebody held the lock file at `path` who died before it was removed (see `locked`); makes no file."""
    with suppress(OSError), path.open("r+b") as file:
        if os.fstat(file.fileno()).st_size <= _PID_AT or not _take(file):
            return False
        free = os.path.samestat(os.fstat(file.fileno()), path.stat())
        _let_go(file)
        return free
    return False


def _sign(file: IO[bytes]) -> None:
    file.seek(_PID_AT)
    file.truncate()
    file.write(str(os.getpid()).encode("ascii"))


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
