"""Files of a result onto the disk: checked against their SHA-256, whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from io import BufferedWriter
from pathlib import Path

from easyphoto.client.problems import BadAnswer
from easyphoto.errors import Conflict
from easyphoto.files import storage_error
from easyphoto.work import ResultFile

_PIECE = 1024 * 1024
_FORBIDDEN = frozenset('/\\:*?"<>|') | set(map(chr, range(32)))
"""In a file name, on one file system or another."""


def place_of(file: ResultFile, folder: Path) -> Path:
    """Where a file of a result goes; a server that tries to write elsewhere is refused.

    Raises:
        BadAnswer: The name is not one of a file in a folder.
    """
    if not file.name.strip(". ") or set(file.name) & _FORBIDDEN:
        raise BadAnswer(f"the server calls a file of its result {file.name!r}, which is no plain file name; it was not fetched")
    return folder / file.name


def is_there(file: ResultFile, path: Path, replace: bool) -> bool:
    """The very file lies there already.

    Raises:
        Conflict: Another one of that name lies there, and may not be replaced.
        StorageError: It cannot be read.
    """
    if not path.exists():
        return False
    try:
        with path.open("rb") as kept:
            digest = hashlib.sha256()
            while piece := kept.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise storage_error(path, error) from error
    if digest.hexdigest() == file.sha256:
        return True
    if not replace:
        raise Conflict(f"{path} is there already and is another file; choose another folder, or say replace=True")
    return False


class PartFile:
    """A file while it comes in: under a temporary name in its folder, renamed once it is whole and right."""

    def __init__(self, file: ResultFile, path: Path) -> None:
        self._file = file
        self._path = path
        self._temporary = path.parent / f".{secrets.token_hex(8)}.part"
        self._open: BufferedWriter | None = None

    def begin(self) -> None:
        """The first byte is next; whatever came before is void."""
        try:
            if self._open is None:
                self._open = self._temporary.open("xb")
            self._open.seek(0)
            self._open.truncate()
        except OSError as error:
            raise storage_error(self._path, error) from error
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, piece: bytes) -> None:
        """The next bytes.

        Raises:
            StorageError: The disk is full or cannot be written.
            BadAnswer: More comes than was announced.
        """
        self._size += len(piece)
        if self._size > self._file.size:
            raise BadAnswer(f"the server sends more than the {self._file.size} bytes of {self._file.name}; it was not kept")
        self._digest.update(piece)
        try:
            self._writer().write(piece)
        except OSError as error:
            raise storage_error(self._path, error) from error

    def finish(self) -> Path:
        """Put the file in its place.

        Raises:
            BadAnswer: It is not the file that was announced.
            StorageError: The disk is full or cannot be written.
        """
        if self._digest.hexdigest() != self._file.sha256:
            raise BadAnswer(
                f"{self._file.name} does not have the SHA-256 that the server told, so it was damaged on the way and not kept; "
                "fetch it again"
            )
        writer = self._writer()
        try:
            writer.flush()
            os.fsync(writer.fileno())
            writer.close()
            self._temporary.replace(self._path)
        except OSError as error:
            raise storage_error(self._path, error) from error
        return self._path

    def close(self) -> None:
        """Whatever happened, nothing half-made stays."""
        with contextlib.suppress(OSError):
            if self._open is not None:
                self._open.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _writer(self) -> BufferedWriter:
        if self._open is None:
            raise BadAnswer(f"the server sent nothing for {self._file.name}; fetch it again")
        return self._open
