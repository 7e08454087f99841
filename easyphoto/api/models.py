"""Pydantic models made of our records, so that there is one definition; alike under pydantic 1 and 2.

They check the shape of what comes in, all faults at once, and describe it; the records are made by `store.codec`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pydantic

from easyphoto.api.wire import FieldProblem
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, PortraitSettings, ValidateSpec
from easyphoto.store.codec import to_json

MODERN = pydantic.VERSION.startswith("2")
"""Whether this is pydantic 2; a WebUI may bring 1.10."""
Schema = dict[str, Any]
"""A JSON schema."""

_MAY_BE_NULL: Mapping[tuple[type, str], Any] = {(PortraitSettings, "seed"): int | None}
"""Fields of a request that may be null although the record's may not: the routes fill them in."""
_NO_DEFAULTS = frozenset({LoraSpec, OptimSpec, DataSpec, ValidateSpec})
"""Records whose open fields are filled in by the family of the base model, not by the record."""
_STRICT: Mapping[Any, Any] = {
    Path: pydantic.StrictStr, str: pydantic.StrictStr, int: pydantic.StrictInt, bool: pydantic.StrictBool,
    float: pydantic.StrictFloat if MODERN else float,
}  # fmt: skip
"""pydantic 1 takes no whole number for a strict float; the codec is strict for it."""


@cache
def model_of(record: type) -> type[pydantic.BaseModel]:
    """The model of a record class: its fields and no others, with their docstrings as descriptions."""
    hints, said = get_type_hints(record), docs_of(record)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        kind = _translate(_MAY_BE_NULL.get((record, field.name), hints[field.name]))
        # A model has methods called validate, copy, json ...; a field of that name goes by its alias.
        name = f"{field.name}_" if hasattr(pydantic.BaseModel, field.name) else field.name
        fields[name] = (kind, _pydantic_field(record, field, said.get(field.name, "")))
    made: type[pydantic.BaseModel] = pydantic.create_model(record.__name__, __config__=_config(), **fields)
    made.__doc__ = _as_json_says(record.__doc__ or "")
    return made


def faults(record: type, data: object) -> tuple[FieldProblem, ...]:
    """What is wrong with the shape of `data` as a request of this class; nothing if it is right."""
    if not isinstance(data, dict):
        return (FieldProblem(field="", message="must be a JSON object"),)
    model: Any = model_of(record)
    try:
        model.model_validate(data) if MODERN else model.parse_obj(data)
    except pydantic.ValidationError as error:
        found = {field_path(fault["loc"]): str(fault["msg"]) for fault in error.errors()}
        return tuple(FieldProblem(field=field, message=message) for field, message in found.items())
    return ()


def field_path(location: Iterable[Any]) -> str:
    """("photos", 2, "data") as "photos[2].data"."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def schemas(requests: Iterable[type], answers: Iterable[type]) -> dict[str, Schema]:
    """The JSON schemas of records and of all they hold, by name, for `#/components/schemas`."""
    found: dict[str, Schema] = {}
    for record in answers:
        found.update(_schema(record, mode="serialization"))
    for record in requests:
        found.update(_schema(record, mode="validation"))
    return dict(sorted(found.items()))


def _schema(record: type, mode: str) -> dict[str, Schema]:
    model: Any = model_of(record)
    place = "#/components/schemas/{model}"
    whole: Schema = (
        model.model_json_schema(ref_template=place, mode=mode) if MODERN else model.schema(ref_template=place)
    )
    held: dict[str, Schema] = {}
    for key in ("$defs", "definitions"):
        held.update(whole.pop(key, {}))
    held[record.__name__] = whole
    for schema in held.values():
        for part in schema.get("properties", {}).values():
            part.pop("title", None)
    return held


@cache
def docs_of(record: type) -> Mapping[str, str]:
    """The docstrings below the fields of a record class, its parents' too."""
    said: dict[str, str] = {}
    for owner in reversed(record.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        if not isinstance(body, ast.ClassDef):
            continue
        for field, after in zip(body.body, body.body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                said[ast.unparse(field.target)] = _as_json_says(str(after.value.value))
    return said


def _as_json_says(words: str) -> str:
    return re.sub(r"\bNone\b", "null", " ".join(words.split()))


def _config() -> Any:  # noqa: ANN401 (its class depends on pydantic's version)
    if not MODERN:
        return type("Config", (), {"extra": "forbid"})
    # An answer always has all its fields.
    return pydantic.ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


def _translate(kind: Any) -> Any:  # noqa: ANN401 (a type hint)
    """A record's type hint as a model's: records become models, paths strings, tuples of one kind lists."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return Union[tuple(_translate(part) for part in inner)]  # noqa: UP007 (made at run time)
    if origin is tuple and inner[1:] == (Ellipsis,):
        return list[_translate(inner[0])]  # type: ignore[misc]
    if origin is tuple:
        return tuple[tuple(_translate(part) for part in inner)]  # type: ignore[misc]
    if dataclasses.is_dataclass(kind):
        return model_of(kind)  # type: ignore[arg-type]
    return _STRICT.get(kind, kind)


def _pydantic_field(record: type, field: dataclasses.Field[Any], said: str) -> Any:  # noqa: ANN401 (pydantic's own kind)
    words: dict[str, Any] = {"alias": field.name}
    if said:
        words["description"] = said
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return pydantic.Field(..., **words)
    plain = field.default is None or isinstance(field.default, bool | int | float | str | tuple)
    if plain and record not in _NO_DEFAULTS and (record, field.name) not in _MAY_BE_NULL:
        return pydantic.Field(to_json(field.default), **words)
    if MODERN:
        words["json_schema_extra"] = _drop_default
    return pydantic.Field(None, **words)


def _drop_default(schema: Schema) -> None:
    """What is left open has no default to tell; pydantic wants one to know that the field may be left out."""
    schema.pop("default", None)
