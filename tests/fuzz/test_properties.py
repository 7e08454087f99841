"""The fuzzers' checks on inputs drawn by hypothesis: short, and the same on every machine."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import types
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import base_models, checkpoints, loras, photos, records
from benchmarks.fuzz.broken_json import spoil
from benchmarks.fuzz.target import Target
from easyphoto.errors import SpecError
from easyphoto.imaging.io import photo_files
from easyphoto.store.codec import dumps, loads

TARGETS = {
    "photos": photos.TARGET, "loras": loras.TARGET, "records": records.TARGET, "base models": base_models.TARGET,
    "checkpoints": checkpoints.TARGET,
}  # fmt: skip
TEXT = st.text(st.characters(), max_size=12)
PLAIN: dict[object, st.SearchStrategy[Any]] = {
    str: TEXT, int: st.integers(-(2**63) + 1, 2**63 - 1), float: st.floats(), bool: st.booleans(),
    Path: TEXT.map(lambda text: Path(text.replace("\0", "") or ".")),
}  # fmt: skip


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Anything a field of this type can hold."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of(*(st.none() if part is type(None) else values(part) for part in inner))
    if origin is tuple and inner[1:] == (Ellipsis,):
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, inner))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    if dataclasses.is_dataclass(hint):
        fields = {key: values(part) for key, part in get_type_hints(hint).items() if key != "schema_version"}
        return st.fixed_dictionaries(fields).map(lambda fields: _made(hint, fields))
    return PLAIN[hint]


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except SpecError:  # out of its range: as it is by default
        example = next((example for example in records.EXAMPLES if type(example) is kind), None)
        return example if example is not None else kind()


@pytest.mark.parametrize("kind", [type(example) for example in records.EXAMPLES])
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_record_survives_the_round_trip_or_is_not_written(kind: type, data: st.DataObject) -> None:
    record = data.draw(values(kind))
    try:
        text = dumps(record)
    except SpecError:
        return  # it holds what JSON or a file cannot
    assert loads(kind, text.encode("utf-8").decode("utf-8")) == record


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_break_nothing(name: str) -> None:
    target = TARGETS[name]
    draw = random.Random(7)  # noqa: S311 (no secret)
    seeds = list(target.seeds().values())
    for _ in range(250):
        target.check(_changed(draw.choice(seeds), target, draw))


def _changed(data: bytes, target: Target, draw: random.Random) -> bytes:
    assert target.mutate is not None
    return target.mutate(data, target.longest, draw, lambda part, longest: _mutated(part, draw)[:longest])


def _mutated(data: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut, doubled or put in: what libFuzzer does, without its memory of what was new."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randint(0, len(changed))
        end = min(len(changed), place + draw.choice((1, 2, 4, 16)))
        part = changed[place:end]
        new = draw.choice((b"", bytes(part) * 2, b"\xff" * len(part), draw.randbytes(len(part)), draw.randbytes(4)))
        changed[place:end] = new
    return bytes(changed)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_bytes_are_a_picture_or_refused(data: bytes) -> None:
    photos.check(data)


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20), min_size=1, max_size=6, unique=True))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_names_of_any_letters_and_digits_can_be_sorted(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = {Path(folder) / f"a{name}.png" for name in names if _may_be_named(name)}
        for path in made:
            path.touch()
        assert not made or set(photo_files([Path(folder)])) == made


def _may_be_named(name: str) -> bool:
    return not any(0xD800 <= ord(letter) < 0xE000 for letter in name)


def test_spoiling_changes_json_and_leaves_the_rest() -> None:
    draw = random.Random(1)  # noqa: S311 (no secret)
    text = b'{"a": [1, {"b": "c"}]}'
    assert len({spoil(text, draw) for _ in range(200)}) > 50
    assert spoil(b"no json", draw) == b"no json"
