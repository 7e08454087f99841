"""Bodies of requests: JSON, and forms whose pictures are read from the disk while they are sent."""

from __future__ import annotations

import json
import mimetypes
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from easyphoto.errors import InputError, NotFound, PhotoError
from easyphoto.imaging.io import photo_files

_PIECE = 256 * 1024
"""Bytes read from a file at a time."""


class Body(Protocol):
    """What a request carries; asked for its pieces anew for every try."""

    @property
    def media_type(self) -> str:
        """For Content-Type."""

    @property
    def length(self) -> int:
        """Bytes in all, known before the first is sent."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes in order."""


@dataclass(frozen=True)
class JsonBody:
    """One JSON value."""

    data: bytes
    media_type: str = "application/json"

    @staticmethod
    def of(value: object) -> JsonBody:
        """A value as JSON.

        Raises:
            InputError: JSON cannot hold it.
        """
        return JsonBody(json_text(value).encode("utf-8"))

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        """All at once."""
        yield self.data


def json_text(value: object) -> str:
    """A value as JSON text without line ends.

    Raises:
        InputError: It holds a number JSON cannot write, or something that is no data.
    """
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise InputError(f"this cannot be sent as JSON: {error}; use plain texts, numbers, lists and objects") from error


@dataclass(frozen=True)
class Upload:
    """A picture that is in memory instead of on the disk."""

    name: str
    """What it is called in verdicts and results."""
    data: bytes
    """The whole file, in any format the server reads (JPEG, PNG, WebP, HEIC ...)."""


Pictures = str | Path | Upload
"""A picture file, a folder of them, or an `Upload`."""


def collect(pictures: Sequence[Pictures] | Pictures) -> tuple[Path | Upload, ...]:
    """All pictures named: folders give theirs in natural order ("2" before "10") and nothing else that lies in them.

    Raises:
        NotFound: A file or folder does not exist.
        PhotoError: There is none, or a folder shows no picture.
    """
    several = [pictures] if isinstance(pictures, str | Path | Upload) else list(pictures)
    found: list[Path | Upload] = []
    for entry in several:
        found.extend([entry] if isinstance(entry, Upload) else photo_files([Path(entry)]))
    if not found:
        raise PhotoError("there are no photos; name pictures or a folder with pictures (jpg, png, webp, heic ...)")
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class _Part:
    head: bytes
    content: bytes | Path
    size: int


class Form:
    """A multipart form (RFC 7578). Files are opened one after the other, each only while it is read."""

    def __init__(self, fields: Sequence[tuple[str, str]], files: Sequence[tuple[str, Path | Upload]]) -> None:
        boundary = secrets.token_hex(16)
        self.media_type = f"multipart/form-data; boundary={boundary}"
        self._between = f"--{boundary}\r\n".encode("ascii")
        self._end = f"--{boundary}--\r\n".encode("ascii")
        self._parts = [_field(name, value) for name, value in fields] + [_file(name, file) for name, file in files]

    @property
    def length(self) -> int:
        """Bytes in all."""
        return sum(len(self._between) + len(part.head) + part.size + 2 for part in self._parts) + len(self._end)

    def pieces(self) -> Iterator[bytes]:
        """The form's bytes.

        Raises:
            NotFound: A file has vanished since it was named.
            PhotoError: A file cannot be read, or has changed its size meanwhile.
        """
        for part in self._parts:
            yield self._between + part.head
            if isinstance(part.content, bytes):
                yield part.content
            else:
                yield from _read(part.content, part.size)
            yield b"\r\n"
        yield self._end


def _field(name: str, value: str) -> _Part:
    data = value.encode("utf-8", "replace")
    return _Part(head=f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode("ascii"), content=data, size=len(data))


def _file(field: str, file: Path | Upload) -> _Part:
    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    head = f'Content-Disposition: form-data; name="{field}"; filename="{_quoted(file.name)}"\r\n' \
           f"Content-Type: {media_type}\r\n\r\n"  # fmt: skip
    content = file.data if isinstance(file, Upload) else file
    size = len(content) if isinstance(content, bytes) else _size(content)
    return _Part(head=head.encode("utf-8"), content=content, size=size)


def _quoted(name: str) -> str:
    """A file name as browsers write it: UTF-8 as it is, only what would end the header escaped.

    A name on the disk that is no UTF-8 has its odd bytes replaced: there is no other way to send it.
    """
    kept = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return kept.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unread(path, error) from error


def _read(path: Path, size: int) -> Iterator[bytes]:
    left = size
    try:
        with path.open("rb") as file:
            while left and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece
            more = bool(file.read(1))
    except OSError as error:
        raise _unread(path, error) from error
    if left or more:
        raise PhotoError(f"{path.name} changed while it was sent; wait until it is written, then try again")


def _unread(path: Path, error: OSError) -> InputError | NotFound:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{path} is gone; check the name")
    return PhotoError(f"{path.name} cannot be read: {error.strerror or error}; check its permissions")
