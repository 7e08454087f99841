"""What strangers wrote, as one short line that is safe in a sentence, a log and a terminal."""

from __future__ import annotations

_MOST = 160


def one_line(value: object, most: int = _MOST) -> str:
    """`value` as text of at most `most` characters, with "?" for every character that cannot be shown."""
    text = str(value)
    cut = text if len(text) <= most else f"{text[: most - 4]} ..."
    return "".join(letter if letter.isprintable() else "?" for letter in cut)


def shown(value: object, most: int = _MOST) -> str:
    """A value of JSON as Python writes it, cut to `most` characters; of lists and objects only how many entries they have."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return one_line(repr(value[:most] if isinstance(value, str) else value), most)
