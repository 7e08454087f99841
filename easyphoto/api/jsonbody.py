"""JSON bodies, read with limits: no endless nesting, no two fields of one name, no number that is none, no broken letters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from easyphoto.api.options import Limits
from easyphoto.api.problems import BadFields, Refused
from easyphoto.api.wire import FieldProblem

_UNLIMITED = frozenset({"data"})
"""Fields of base64, whose length is that of a file."""
_FILE_LISTS = frozenset({"photos", "templates"})
_STRANGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def parse(data: bytes, limits: Limits) -> Any:  # noqa: ANN401 (any JSON)
    """The value in a JSON text.

    Raises:
        Refused: 400 if it is no JSON, or more nested than anything of ours.
        BadFields: A text or a list is too long, or holds what no text of ours does.
    """
    # Counted before anything is built of it: a body of nothing but brackets takes fifty times its size in memory.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > limits.json_parts:
        raise Refused(413, f"the JSON has more than {limits.json_parts:,} parts; send less at once")
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise Refused(400, "the JSON is nested too deep; nothing here needs more than a few levels") from error
    except ValueError as error:
        raise Refused(400, f"the body is no JSON ({error}); send valid JSON in UTF-8") from error
    faults = list(_faults(value, "", limits, 0))
    if faults:
        raise BadFields(faults)
    return value


def text_fault(text: str, most: int) -> str | None:
    """What is wrong with a text that came in; None if nothing is."""
    if len(text) > most:
        return f"may have {most:,} characters, this one has {len(text):,}; shorten it"
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return "holds half of a surrogate pair; send whole letters"
    if strange := _STRANGE.search(text):
        return f"holds the control character U+{ord(strange[0]):04X}; leave it out"
    return None


def _faults(value: object, path: str, limits: Limits, depth: int) -> Iterator[FieldProblem]:
    if depth > limits.json_depth:
        raise Refused(400, f"the JSON is nested deeper than {limits.json_depth} levels; nothing here needs that")
    if isinstance(value, str):
        last = path.rpartition(".")[2]
        if last not in _UNLIMITED and (fault := text_fault(value, limits.text)):
            yield FieldProblem(field=path, message=fault)
    elif isinstance(value, list):
        most = limits.files if path in _FILE_LISTS else limits.list_items
        if len(value) > most:
            yield FieldProblem(field=path, message=f"may have {most} entries, this one has {len(value)}; send fewer")
            return
        for place, item in enumerate(value):
            yield from _faults(item, f"{path}[{place}]", limits, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if fault := text_fault(key, 100):
                yield FieldProblem(field=path, message=f"a field's name {fault}")
                return
            yield from _faults(item, f"{path}.{key}" if path else key, limits, depth + 1)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is there twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
