"""Pictures of a request: uploaded, in base64, or by their address; each is opened before it is taken."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from easyphoto.api.options import ApiOptions
from easyphoto.api.problems import BadFields, bad_field
from easyphoto.api.sources import SourceOptions, fetch_picture
from easyphoto.api.uploads import Handed
from easyphoto.api.wire import FieldProblem, PhotoSource, TemplateSource
from easyphoto.errors import EasyPhotoError
from easyphoto.imaging.io import picture_size
from easyphoto.jobs.store import Input, input_name

Source = PhotoSource | TemplateSource
_AT_ONCE = 6
"""Addresses that are asked at the same time."""


def gather(sources: Sequence[tuple[str, Source]], options: ApiOptions) -> tuple[Handed, ...]:
    """The pictures in a JSON body, each with its place there ("photos[2]"); addresses are fetched.

    Raises:
        BadFields: Not base64, too large, or not to be had from where it lies; says which.
    """
    if all(source.url is None for _, source in sources):
        return tuple(_gather_one(field, source, options) for field, source in sources)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(lambda entry: _gather_one(entry[0], entry[1], options), sources))


def _gather_one(field: str, source: Source, options: ApiOptions) -> Handed:
    if source.url is None:
        place = field.rpartition("[")[2].rstrip("]")
        number = int(place) + 1 if place.isdecimal() else 1
        data = decode(source.data or "", f"{field}.data", options)
        return Handed(label=source.name or f"picture-{number}", data=data, field=field)
    wanted = SourceOptions(allow_urls=options.allow_urls, max_bytes=options.limits.file_bytes)
    try:
        name, data = fetch_picture(source.url, wanted)
    except EasyPhotoError as error:
        raise bad_field(f"{field}.url", error) from error
    return Handed(label=source.name or name, data=data, field=field)


def decode(text: str, field: str, options: ApiOptions) -> bytes:
    """The bytes in base64, with or without the head of a `data:` URL.

    Raises:
        BadFields: It is none, or too large.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    most = options.limits.file_bytes
    if len(text) > most * 4 // 3 + 4:
        raise bad_field(field, f"has more than {most:,} bytes; make it smaller")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_field(field, "is no base64; encode the picture file with base64 (RFC 4648, section 4)") from error


def inputs(pictures: Sequence[Handed]) -> tuple[Input, ...]:
    """The pictures as a job's inputs, each under a name of its own that people know it by."""
    taken: set[str] = set()
    found = []
    for index, picture in enumerate(pictures):
        name = input_name(index, picture.label)
        number, _, last = name.partition("/")
        path, copy = Path(last), 1
        while last.casefold() in taken:
            copy += 1
            last = input_name(index, f"{path.stem} ({copy}){path.suffix}").partition("/")[2]
        taken.add(last.casefold())
        found.append(Input(name=f"{number}/{last}", data=picture.data))
    return tuple(found)


def safe_name(label: str) -> str:
    """The name under which a picture of this label appears in verdicts."""
    return input_name(0, label).partition("/")[2]


def refuse_unreadable(pictures: Sequence[Handed], all_of_them: bool) -> None:
    """Open every picture as far as its header.

    Args:
        pictures: What was handed in.
        all_of_them: Refuse as soon as one is no picture; else only where not one is.

    Raises:
        BadFields: Names every picture that cannot be read, with the reason.
    """
    faults = []
    for picture in pictures:
        fault = _fault(picture)
        if fault is None and not all_of_them:
            return  # the others are left for the verdicts
        if fault is not None:
            faults.append(fault)
    if faults:
        raise BadFields(faults, code="bad_photo")


def _fault(picture: Handed) -> FieldProblem | None:
    try:
        picture_size(picture.read(), picture.label)
    except EasyPhotoError as error:
        return FieldProblem(field=picture.field, message=str(error))
    return None
