"""JSON with one thing in it made wrong: deep, huge, doubled, missing, of another kind, or no number at all."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class _Object:
    """A JSON object that may say a key twice."""

    pairs: list[tuple[str, object]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Raw:
    """Text that is written as it stands."""

    text: str


NASTY = (
    "[" * 960 + "]" * 960, "[" * 3000, '{"a":' * 600 + "1" + "}" * 600, "[[[[[[]]]]]]", "9" * 400, "-" + "9" * 400,
    "9" * 4299, "9" * 5000, "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e308", "5e-324", "-0.0", "-0", "0", "-1",
    "1.5", "true", "null", "{}", "[]", "[[]]", '""', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"a\\u0000b"',
    '"\\n\\r\\u2028"', '"../../x"', '"/dev/zero"', '"' + "x" * 3000 + '"', '"\\ud83d\\ude00"', "18446744073709551616",
    "4294967296", "2147483648", "01", "1.", '"1"', "[null]", '{"__proto__":1}', '"\\u202e"',
)  # fmt: skip
"""Values as they are written."""


def spoil(data: bytes, draw: random.Random, words: Sequence[bytes] = ()) -> bytes:
    """JSON text with a random place of it changed; `data` itself where it is no JSON."""
    try:
        tree = json.loads(data, object_pairs_hook=lambda pairs: _Object(pairs=pairs))
    except (ValueError, RecursionError):
        return data
    try:
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            tree = _changed(tree, draw, [word.decode("latin-1") for word in words])
        return _written(tree).encode("utf-8", "surrogatepass")
    except RecursionError:
        return data


def _changed(tree: object, draw: random.Random, words: Sequence[str]) -> object:
    """The tree with one node of it changed: a walk down that stops anywhere."""
    inside = tree.pairs if isinstance(tree, _Object) else tree if isinstance(tree, list) else []
    if not inside or draw.random() < 0.15:
        return _other(draw, words)
    place = draw.randrange(len(inside))
    if isinstance(tree, _Object):
        key, value = tree.pairs[place]
        tree.pairs[place : place + 1] = _pairs(key, value, draw, words)
    elif isinstance(tree, list):
        value = tree[place]
        copies = draw.choice((0, 1, 1, 1, 2))
        tree[place : place + 1] = [_changed(value, draw, words) if copies == 1 else value] * copies
    return tree


def _pairs(key: str, value: object, draw: random.Random, words: Sequence[str]) -> list[tuple[str, object]]:
    choice = draw.random()
    if choice < 0.1:
        return []
    if choice < 0.2:
        return [(key, value), (key, _other(draw, words))]
    if choice < 0.25:
        return [(draw.choice((key + "x", "", "\ud800", "a\nb", *words)), value)]
    return [(key, _changed(value, draw, words))]


def _other(draw: random.Random, words: Sequence[str]) -> object:
    if words and draw.random() < 0.3:
        return draw.choice(words)
    return _Raw(text=draw.choice(NASTY))


def _written(tree: object) -> str:
    if isinstance(tree, _Raw):
        return tree.text
    if isinstance(tree, _Object):
        return "{" + ",".join(f"{json.dumps(key)}:{_written(value)}" for key, value in tree.pairs) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(_written, tree)) + "]"
    return json.dumps(tree)
