"""The server's JSON as records, forgiving: what a newer server adds is passed over, what an older one lacks is default.

The strict codec of `store` is for what we write ourselves; a client that broke with every new field would be of no use.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from easyphoto.errors import EasyPhotoError

Record = TypeVar("Record")


class Unreadable(ValueError):
    """The data does not fit the record; the message says where."""


def read(kind: type[Record], data: object) -> Record:
    """The record of class `kind` in JSON data.

    Raises:
        Unreadable: Something is missing that has no default, or has another type.
    """
    return _record(kind, data, kind.__name__)


def _record(kind: type[Record], data: object, where: str) -> Record:
    if not isinstance(data, Mapping):
        raise Unreadable(f"{where} is no object")
    values: dict[str, Any] = {}
    for name, hint, required in _fields(kind):  # type: ignore[arg-type]
        if name in data:
            values[name] = _value(hint, data[name], f"{where}.{name}")
        elif required:
            raise Unreadable(f"{where} has no {name}")
    try:
        return kind(**values)
    except EasyPhotoError as error:
        raise Unreadable(f"{where}: {error}") from error


@functools.lru_cache(maxsize=256)
def _fields(kind: type) -> tuple[tuple[str, Any, bool], ...]:
    """(name, type hint, has no default) of each field; reading the hints takes longer than anything else here."""
    hints = get_type_hints(kind)
    missing = dataclasses.MISSING
    return tuple(
        (field.name, hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
    )


def _value(hint: Any, value: object, where: str) -> Any:  # noqa: ANN401 (a type hint and its value)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _value(next(part for part in inner if part is not type(None)), value, where)
    if origin is tuple:
        return _tuple(inner, value, where)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, where)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(hint, value, where)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return value
    return _plain(hint, value, where)


def _tuple(inner: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise Unreadable(f"{where} is no list")
    hints = (inner[0],) * len(value) if inner[1:] == (Ellipsis,) else inner
    return tuple(_value(hint, item, f"{where}[{place}]") for place, (hint, item) in enumerate(zip(hints, value)))


def _choice(kind: type[Enum], value: object, where: str) -> Enum:
    """The choice, or a stand-in of the same class for one that only a newer server knows.

    The stand-in has its `value`, equals its text and is in no list of the class's members.
    """
    try:
        return kind(value)
    except ValueError:
        if not isinstance(value, str) or not issubclass(kind, str):
            raise Unreadable(f"{where} is {value!r}") from None
    strange = str.__new__(kind, value)
    strange._name_, strange._value_ = value.upper(), value
    return strange


def _plain(hint: object, value: object, where: str) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is Any:
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and number:
        return float(value)  # type: ignore[arg-type]
    if hint is int and number and float(value).is_integer():  # type: ignore[arg-type]
        return int(value)  # type: ignore[call-overload]
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise Unreadable(f"{where} is {value!r}")
