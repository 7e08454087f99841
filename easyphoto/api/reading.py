"""A request's body, whichever way it came, as JSON data of one of our requests and the files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from starlette.requests import Request

from easyphoto.api import jsonbody
from easyphoto.api.forms import Form, read_form
from easyphoto.api.models import faults
from easyphoto.api.options import Limits
from easyphoto.api.problems import BadFields, Refused, bad_field
from easyphoto.api.threads import in_thread
from easyphoto.api.uploads import Handed
from easyphoto.api.wire import FieldProblem
from easyphoto.errors import EasyPhotoError, SpecError
from easyphoto.store.codec import from_json

Record = TypeVar("Record")
_LARGE = 256 * 1024
"""Bytes of JSON from which it is read in a thread of its own."""
_KEY = "idempotency-key"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks, checked for its shape and not yet for its sense."""

    data: dict[str, Any]
    """JSON data of the request's record."""
    files: tuple[Handed, ...] = ()
    """Uploads, in the order they came."""
    key: str | None = None
    """Of the header `Idempotency-Key`."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What may come in."""

    record: type
    """Class of the JSON body."""
    files: str = ""
    """Field of a form that holds the files; empty where no form is taken."""
    whole: str = ""
    """Field of a form that holds the JSON body as it is; empty where each field comes by itself."""


async def read_request(request: Request, folder: Path, limits: Limits, shape: Shape) -> Asked:
    """Read a body.

    Raises:
        Refused: 400, 413 or 415 for what it is.
        BadFields: A field is unknown, missing, or of the wrong kind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    files: tuple[Handed, ...] = ()
    if kind == "multipart/form-data" and shape.files:
        form = await read_form(request, folder, limits)
        data = _from_form(form, shape, limits)
        files = tuple(form.files.get(shape.files, ()))
    elif kind == "application/json":
        data = await read_json(request, limits)
    else:
        taken = "application/json" + (" or multipart/form-data" if shape.files else "")
        raise Refused(415, f"this takes {taken}, not {kind[:80] or 'a body of no kind'}; set Content-Type")
    if found := faults(shape.record, data):
        raise BadFields(found)
    return Asked(data=data, files=files, key=idempotency_key(request))


async def read_json(request: Request, limits: Limits) -> Any:  # noqa: ANN401 (any JSON)
    """The JSON in a body.

    Raises:
        Refused: 400 or 413.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
    if len(body) < _LARGE:
        return jsonbody.parse(bytes(body), limits)
    return await in_thread(jsonbody.parse, bytes(body), limits)


def idempotency_key(request: Request) -> str | None:
    """The key of the header, None if there is none.

    Raises:
        BadFields: It is empty, too long, or holds something else than printable ASCII.
    """
    key = request.headers.get(_KEY)
    if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise bad_field("Idempotency-Key", "has 1 to 255 printable ASCII characters; make one with uuid4")
    return key


def make(kind: type[Record], data: object, path: str = "") -> Record:
    """A record of JSON data; says the field where it refuses.

    Raises:
        BadFields: As the record's own checks say.
    """
    try:
        return from_json(kind, data)
    except SpecError as error:
        raise refused_field(error, data, path) from error


def refused_field(error: EasyPhotoError, data: object, path: str) -> BadFields:
    """The error of a record with the field that it speaks of, below `path`."""
    return bad_field(join(path, _named(str(error), data)), error)


def join(path: str, name: str) -> str:
    """ "settings" and "lora.rank" as "settings.lora.rank"."""
    return f"{path}.{name}" if path and name else path or name


def _named(message: str, data: object) -> str:
    """The field that a record's sentence begins with: "rank must be ..." or "TrainSpec.lora.rank must be ..."."""
    first = message.split(" ", 1)[0].rstrip(",:")
    if "." in first:
        return first.partition(".")[2]
    return _find(first, data) or ""


def _find(name: str, data: object) -> str | None:
    if not isinstance(data, Mapping):
        return None
    if name in data:
        return name
    for key, value in data.items():
        below = _find(name, value)
        if below is not None:
            return f"{key}.{below}"
    return None


def _from_form(form: Form, shape: Shape, limits: Limits) -> Any:  # noqa: ANN401 (any JSON)
    known = {shape.whole} if shape.whole else {field.name for field in fields(shape.record)} - {shape.files}
    strangers = [*(set(form.texts) - known), *(set(form.files) - {shape.files})]
    if strangers:
        raise BadFields([FieldProblem(field=name, message=_unknown(name, known, shape)) for name in sorted(strangers)])
    if shape.whole:
        if shape.whole not in form.texts:
            raise bad_field(shape.whole, "is missing; it holds the request as JSON")
        return _json_text(shape.whole, form.texts[shape.whole], limits)
    hints = get_type_hints(shape.record)
    return {name: _value(name, hints[name], texts, limits) for name, texts in form.texts.items()}


def _unknown(name: str, known: set[str], shape: Shape) -> str:
    if name == shape.files:
        return "must come as a file, with a file name"
    if name in known:
        return "must come as text, without a file name"
    return f"is no field of this form; it has {', '.join(sorted(known | {shape.files}))}"


def _value(name: str, hint: Any, texts: list[str], limits: Limits) -> Any:  # noqa: ANN401 (a type hint; any JSON)
    """A form's texts as the JSON value that the field has in a JSON body."""
    kinds = get_args(hint) or (hint,)
    if Ellipsis in kinds:
        return texts
    if len(texts) > 1:
        raise bad_field(name, "may come once only")
    text = texts[0]
    if any(isinstance(kind, type) and issubclass(kind, str) for kind in kinds):
        if fault := jsonbody.text_fault(text, limits.text):
            raise bad_field(name, fault)
        return text
    return _json_text(name, texts, limits)


def _json_text(name: str, texts: list[str], limits: Limits) -> Any:  # noqa: ANN401 (any JSON)
    """Settings, numbers and switches come as JSON text."""
    if len(texts) > 1:
        raise bad_field(name, "may come once only")
    try:
        return jsonbody.parse(texts[0].encode(), limits)
    except Refused as error:
        raise bad_field(name, str(error)) from error
    except BadFields as error:
        below = [FieldProblem(field=join(name, fault.field), message=fault.message) for fault in error.errors]
        raise BadFields(below) from error
