"""Records to JSON and back: one codec for every frozen dataclass of ours, strict in both directions.

Paths travel as strings, enums as their values, tuples as lists, records as objects. What a record does not have is
refused by name, so that a misspelt setting never passes silently.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from easyphoto.errors import SpecError
from easyphoto.specs import SCHEMA_VERSION
from easyphoto.wording import one_line, shown

Record = TypeVar("Record")
Json = Any
"""None, bool, int, float, str, a list or a dict of these."""
_MOST_BITS = 63
"""What SQLite, torch and most readers of JSON take for a whole number."""
_PLAIN = (str, int, bool)
"""What is JSON as it is, and nearly all that records hold."""
_HALF_LETTERS = re.compile("[\ud800-\udfff]")


def to_json(value: object) -> Json:
    """A record (or a tuple of records, a path, an enum ...) as JSON data.

    Raises:
        SpecError: It holds a number that JSON cannot write (NaN, infinity).
        TypeError: It holds something that is not data, such as pixels.
    """
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"JSON can write finite numbers only, got {value}")
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, name)) for name in _names(type(value))}
    raise TypeError(f"{type(value).__name__} is no data that JSON can hold")


@functools.cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def from_json(kind: type[Record], data: object) -> Record:
    """The record of class `kind` in a JSON object; the record's own checks run too.

    Raises:
        SpecError: A key is unknown or missing, a value has the wrong type, or the record is of a newer version of ours.
    """
    return _decode_record(kind, data, kind.__name__)


def dumps(value: object) -> str:
    """A record or a tuple of records as JSON text, indented for people.

    Raises:
        SpecError: As for `to_json`, or it holds text that no file can hold, such as a file name that is no UTF-8.
    """
    return _writable(json.dumps(to_json(value), ensure_ascii=False, indent=2, allow_nan=False), "this record") + "\n"


def loads(kind: type[Record], text: str) -> Record:
    """The record in JSON text.

    Raises:
        SpecError: As for `from_json`, or the text is no JSON.
    """
    try:
        data = json.loads(text, object_pairs_hook=_each_once)
    except ValueError as error:
        raise SpecError(f"{kind.__name__}: this is no JSON ({error}); write the file anew") from error
    except RecursionError as error:
        raise SpecError(f"{kind.__name__}: this JSON is nested too deep; write the file anew") from error
    return from_json(kind, data)


def _each_once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """An object that says nothing twice: of two values one would pass silently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise SpecError(f"this JSON says {shown(twice)} twice; leave one of them")
    return found


def _decode_record(kind: type[Record], data: object, where: str) -> Record:
    if not isinstance(data, Mapping):
        raise SpecError(f"{where} must be a JSON object, got {type(data).__name__}")
    hints = _hints(kind)  # type: ignore[arg-type]
    _check_keys(kind, data, where)
    values = {key: _decode(hints[key], value, f"{where}.{key}") for key, value in data.items()}
    version = values.get("schema_version", SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise SpecError(f"{where} was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION}); update")
    return kind(**values)


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    """A record's fields with their types; kept, for working them out costs more than reading a record."""
    return get_type_hints(kind)


def _check_keys(kind: type, data: Mapping[str, object], where: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        names = one_line(", ".join(map(shown, unknown)))
        raise SpecError(f"{where} has no setting {names}; it has {', '.join(fields)}")
    missing = [name for name, field in fields.items() if name not in data and not _has_default(field)]
    if missing:
        raise SpecError(f"{where} lacks {', '.join(missing)}; add it")


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _decode(hint: Any, value: object, where: str) -> Any:  # noqa: ANN401 (a type hint and its value)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _decode(next(part for part in inner if part is not type(None)), value, where)
    if origin is tuple:
        return _decode_tuple(inner, value, where)
    if dataclasses.is_dataclass(hint):
        return _decode_record(hint, value, where)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _decode_choice(hint, value, where)
    return _decode_plain(hint, value, where)


def _decode_tuple(inner: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise SpecError(f"{where} must be a list, got {type(value).__name__}")
    hints = (inner[0],) * len(value) if inner[1:] == (Ellipsis,) else inner
    if len(hints) != len(value):
        raise SpecError(f"{where} must have {len(hints)} entries, got {len(value)}")
    return tuple(_decode(hint, item, f"{where}[{place}]") for place, (hint, item) in enumerate(zip(hints, value)))


def _decode_choice(hint: type[Enum], value: object, where: str) -> Enum:
    try:
        return hint(value)
    except ValueError:
        choices = ", ".join(str(item.value) for item in hint)
        raise SpecError(f"{where} must be one of {choices}, got {shown(value)}") from None


def _decode_plain(hint: type, value: object, where: str) -> object:
    # bool is an int in Python, yet True is no number of steps.
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _MOST_BITS:
        raise SpecError(f"{where} must be a number of at most {_MOST_BITS} bits, got {shown(value)}")
    if hint is Path and isinstance(value, str):
        if "\0" in value:
            raise SpecError(f"{where} holds a zero character, which no path does; leave it out")
        return Path(_writable(value, where))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise SpecError(f"{where} must be a finite number, got {value}")
        return float(value)
    if hint is str and isinstance(value, str):
        return _writable(value, where)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    raise SpecError(f"{where} must be of type {hint.__name__}, got {shown(value)}")


def _writable(text: str, where: str) -> str:
    if not text.isascii() and (half := _HALF_LETTERS.search(text)):
        near = shown(text[max(0, half.start() - 20) : half.end() + 20])
        raise SpecError(f"{where} holds half of a letter that no file can hold ({near}); leave it out")
    return text
