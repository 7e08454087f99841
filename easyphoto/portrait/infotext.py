"""The text that a PNG carries under "parameters", in the form that the Stable Diffusion WebUI writes and reads back.

Three parts, as in the WebUI: the prompt; a line "Negative prompt: ..." if there is one; one line "key: value, key: value".
A value with a comma, colon or line break is written as a JSON string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE = "Negative prompt: "


def write_infotext(prompt: str, negative: str, fields: Mapping[str, object]) -> str:
    """Join prompt, negative prompt and fields into one infotext."""
    pairs = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in fields.items())
    lines = (_one_line(prompt), f"{_NEGATIVE}{_one_line(negative)}" if negative else "", pairs)
    return "\n".join(line for line in lines if line)


def read_infotext(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, fields) of an infotext."""
    *head, last = text.strip().split("\n")
    fields = {key: _unquoted(value) for key, value in _PAIR.findall(last)}
    cut = next((place for place, line in enumerate(head) if line.startswith(_NEGATIVE)), len(head))
    negative = "\n".join(head[cut:])[len(_NEGATIVE) :]
    return "\n".join(head[:cut]), negative, fields


def lora_tags(names: Sequence[tuple[str, float]]) -> str:
    """The WebUI's prompt tags of the LoRAs used, <lora:name:weight>, joined by commas."""
    return ", ".join(f"<lora:{name}:{weight:g}>" for name, weight in names)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',\n:"') else value


def _unquoted(value: str) -> str:
    if not value.startswith('"') or not value.endswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
