"""Multipart forms, read piece by piece: files go to the disk under names of ours, nothing large stays in memory (RFC 7578)."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from easyphoto.api.jsonbody import text_fault
from easyphoto.api.options import Limits
from easyphoto.api.problems import Refused, bad_field
from easyphoto.api.uploads import Handed
from easyphoto.files import storage_error
from easyphoto.store.paths import make_folder

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartParser

_LONGEST_HEADER = 8 * 1024
"""Bytes of all headers of one part."""
_LONGEST_TEXT = 256 * 1024
"""Bytes of one field that is no file."""


@dataclass
class Part:
    """The part that is being read."""

    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    header_bytes: int = 0
    name: str = ""
    label: str | None = None
    """The file's name; None for a field that is no file."""
    text: bytearray = field(default_factory=bytearray)
    file: IO[bytes] | None = None
    path: Path | None = None
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a form held."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[Handed]] = field(default_factory=dict)


async def read_form(request: Request, folder: Path, limits: Limits) -> Form:
    """The form in a request's body, its files put down in `folder`, which is made for the first of them.

    Raises:
        Refused: 400 if it is no form or cut short, 413 if there is too much of it.
        BadFields: A field holds what it may not.
        StorageError: The disk is full.
    """
    reader = _Reader(folder, limits)
    parser = _parser(request.headers.get("content-type", ""), reader)
    with contextlib.closing(reader):
        try:
            async for piece in request.stream():
                parser.write(piece)
            parser.finalize()
        except OSError as error:
            raise storage_error(folder, error) from error
        except ValueError as error:  # the parser's own errors are ValueErrors
            raise Refused(400, f"the form cannot be read ({error}); send multipart/form-data as RFC 7578 says") from error
    if not reader.whole:
        raise Refused(400, "the form is cut short: its last boundary is missing; send it again")
    return reader.form


def _parser(content_type: str, reader: _Reader) -> MultipartParser:
    multipart = _library()
    _, options = multipart.parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise Refused(400, "the form names no boundary in its Content-Type; send multipart/form-data as RFC 7578 says")
    names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "headers_finished", "end")
    parser: MultipartParser = multipart.MultipartParser(boundary, {f"on_{name}": getattr(reader, name) for name in names})
    return parser


def _library() -> Any:  # noqa: ANN401 (a module under one of two names)
    try:
        return import_module("python_multipart.multipart")
    except ImportError:  # up to 0.0.12, as a WebUI may have it
        return import_module("multipart.multipart")


class _Reader:
    """Called by the parser with what it finds; names are the parser's."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._part = Part()
        self._count = 0
        self.form = Form()
        self.whole = False

    def part_begin(self) -> None:
        self._part = Part()
        self._count += 1
        if self._count > self._limits.form_fields:
            raise Refused(413, f"a form may have {self._limits.form_fields} fields; send fewer")

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._grow_header(self._part.header, data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow_header(self._part.value, data[start:end])

    def header_end(self) -> None:
        part = self._part
        if bytes(part.header).strip().lower() == b"content-disposition":
            part.disposition = bytes(part.value)
        part.header.clear()
        part.value.clear()

    def headers_finished(self) -> None:
        part = self._part
        kind, options = _library().parse_options_header(part.disposition)
        if kind.lower() != b"form-data" or b"name" not in options:
            raise Refused(400, "a part of the form has no name; give it a Content-Disposition with one")
        part.name = _decoded(options[b"name"], "the name of a field")
        # RFC 7578 forbids `filename*`, and some send nothing else.
        starred = re.search(rb"(?i)filename\*\s*=\s*utf-8''([^;\s]+)", part.disposition)
        if b"filename" in options or starred:
            self._begin_file(part, unquote_to_bytes(starred[1]) if starred else options[b"filename"])

    def part_data(self, data: bytes, start: int, end: int) -> None:
        part, piece = self._part, data[start:end]
        part.size += len(piece)
        if part.file is None:
            part.text += piece
            if part.size > _LONGEST_TEXT:
                raise bad_field(part.name, f"may have {_LONGEST_TEXT:,} bytes; shorten it")
            return
        if part.size > self._limits.file_bytes:
            raise Refused(413, f"{part.label} has more than {self._limits.file_bytes:,} bytes; make it smaller")
        part.file.write(piece)

    def part_end(self) -> None:
        part = self._part
        if part.file is None or part.path is None or part.label is None:
            self.form.texts.setdefault(part.name, []).append(_decoded(bytes(part.text), part.name))
            return
        part.file.close()
        part.file = None
        files = self.form.files.setdefault(part.name, [])
        files.append(Handed(label=part.label, data=part.path, field=f"{part.name}[{len(files)}]"))

    def end(self) -> None:
        self.whole = True

    def close(self) -> None:
        if self._part.file is not None:
            self._part.file.close()

    def _begin_file(self, part: Part, name: bytes) -> None:
        held = sum(map(len, self.form.files.values()))
        if held >= self._limits.files:
            raise bad_field(part.name, f"a request may hold {self._limits.files} files; send fewer")
        label = name.decode("utf-8", "replace").replace("%22", '"').replace("%0D", " ").replace("%0A", " ")
        part.label = label[: self._limits.text] or f"picture-{held + 1}"
        # A number, not the sender's name: that one is only ever shown.
        part.path = make_folder(self._folder) / f"{held:04d}"
        part.file = part.path.open("xb")

    def _grow_header(self, into: bytearray, piece: bytes) -> None:
        self._part.header_bytes += len(piece)
        if self._part.header_bytes > _LONGEST_HEADER:
            raise Refused(400, "a part of the form has headers that are too long; send only its name and file name")
        into += piece


def _decoded(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_field(name, "is no UTF-8; send it in UTF-8") from error
    if fault := text_fault(text, _LONGEST_TEXT):
        raise bad_field(name, fault)
    return text
