"""Removing files and folders so that none is ever half there."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from easyphoto.files import storage_error

DELETED = ".deleted-"
"""Beginning of a folder's name while it is being removed."""


def files_of(place: Path) -> tuple[Path, ...]:
    """Every file in a folder, or the file itself; links are not followed."""
    if place.is_symlink() or not place.is_dir():
        return (place,)
    return tuple(sorted(path for path in place.rglob("*") if path.is_symlink() or not path.is_dir()))


def remove(place: Path) -> tuple[Path, ...]:
    """Remove a file, or a folder whole and out of sight first; returns the files as they were called.

    Raises:
        StorageError: It cannot be removed.
    """
    files = files_of(place)
    try:
        if place.is_dir() and not place.is_symlink():
            doomed = place.with_name(f"{DELETED}{place.name.removeprefix(DELETED).removeprefix('.')}-{secrets.token_hex(4)}")
            place.rename(doomed)
            shutil.rmtree(doomed)
        else:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(place, error) from error
    flush(place.parent)
    return files


def flush(folder: Path) -> None:
    """Make what was renamed or removed in a folder survive a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
