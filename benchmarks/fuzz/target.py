"""What a fuzzer says of itself, and what must hold of every refusal."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Mutate = Callable[[bytes, int], bytes]
"""The fuzzer's own mutation: bytes and the most bytes that may come out."""
LONGEST_SENTENCE = 1000


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing that is fuzzed."""

    check: Callable[[bytes], None]
    """Try one input; whatever it raises is a finding."""
    seeds: Callable[[], Mapping[str, bytes]]
    """Inputs to begin with, by name; made in code."""
    mutate: Callable[[bytes, int, random.Random, Mutate], bytes] | None = None
    """Changes that keep an input's frame whole (lengths, checksums); None leaves all to the fuzzer."""
    words: tuple[bytes, ...] = ()
    """What inputs are made of, for the fuzzer's dictionary."""
    longest: int = 4096
    """Bytes of the longest input that is tried."""
    memory_mb: int = 100
    """What one input may take beyond what the process holds already."""
    seconds: float = 5.0
    """What one input may take."""
    instrumented: tuple[str, ...] = ("easyphoto",)
    """Packages whose branches guide the search."""


def check_sentence(error: Exception) -> None:
    """A refusal is one line that fits on a screen and can be written to a log.

    Raises:
        AssertionError: It is not.
    """
    text = str(error)
    assert text.strip(), "the refusal says nothing"
    assert len(text) <= LONGEST_SENTENCE, f"the refusal has {len(text)} characters"
    assert not any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text), "the refusal has control characters"
