"""Files that are either whole or not there: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from easyphoto.errors import EasyPhotoError, NotFound, StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and try again",
    getattr(errno, "EDQUOT", -1): "your disk quota is used up; free some space and try again",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EACCES: "the folder may not be written to; change its permissions or choose another folder",
    errno.EPERM: "the folder may not be written to; change its permissions or choose another folder",
    errno.ENAMETOOLONG: "the name is too long for this disk; choose a shorter one",
}


def storage_error(path: Path, error: OSError) -> EasyPhotoError:
    """The error of our tree for a failed write to `path`, as a sentence with what to do."""
    if error.errno == errno.ENOENT:
        return NotFound(f"{path} cannot be written: the folder {path.parent} does not exist; make it first")
    reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}; choose another folder")
    return StorageError(f"{path} cannot be written: {reason}")


def write_bytes(path: Path, data: bytes, flushed: bool = True) -> None:
    """Write `data` to `path` in one atomic step, as `write_parts` does."""
    write_parts(path, (data,), flushed)


def write_parts(path: Path, parts: Iterable[bytes | memoryview], flushed: bool = True) -> None:
    """Write what lies in several places to `path` in one atomic step; a file that was there is replaced.

    A crash or a full disk leaves the old file (or none), never half of the new one. The temporary file lies in the
    same folder, because a rename is atomic only within one file system.

    Args:
        path: Where the file shall lie; its folder must exist.
        parts: The content, one after the other.
        flushed: Wait until the disk has it. Without, a power cut may take the file or leave it empty; a crash of ours does not.

    Raises:
        StorageError: The disk is full, read-only or closed to us.
        NotFound: The folder does not exist.
    """
    # Short and independent of the final name: that one may already use up the file system's limit.
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if flushed:
                os.fsync(file.fileno())
        temporary.replace(path)
        if flushed:
            flush_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_new(path: Path, data: bytes) -> None:
    """Write a file into a folder that nobody looks at yet; whoever puts that in its place flushes it (`flush_file`).

    Raises:
        StorageError: The disk is full, read-only or closed to us.
        NotFound: The folder does not exist.
    """
    _write(path, data, "xb", begin=True)


def write_plainly(path: Path, data: bytes) -> None:
    """Write a file whose loss is none: its reader takes half of it, which a crash may leave, for no file at all.

    Raises:
        StorageError: The disk is full, read-only or closed to us.
        NotFound: The folder does not exist.
    """
    _write(path, data, "wb")


def _write(path: Path, data: bytes, mode: Literal["xb", "wb"], begin: bool = False) -> None:
    """Write without a buffer, which costs a small file more than the writing."""
    left = memoryview(data)
    try:
        with path.open(mode, buffering=0) as file:
            while left:  # a disk that fills takes a part at first
                left = left[file.write(left) :]
            if begin:
                _begin_writing(file.fileno())
    except OSError as error:
        raise storage_error(path, error) from error


def _begin_writing(descriptor: int) -> None:
    """Let the disk begin with what was written, where the system takes such advice; several flushes then wait for one write."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def flush_file(path: Path) -> None:
    """Wait until the disk has a file; raises OSError."""
    # Windows flushes only what is open for writing.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, flushed: bool = True) -> None:
    """Write `text` as UTF-8 with its line ends untouched, the way `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"), flushed)


def flush_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can (not on Windows or some network disks)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
