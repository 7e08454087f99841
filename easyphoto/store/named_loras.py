"""LoRAs that a prompt asks for as the WebUI's prompts do: `<lora:NAME:WEIGHT>`.

A name is that of a scene or garment of ours, or of a file in the folder of LoRAs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from easyphoto.errors import NotFound, SpecError
from easyphoto.records import LoraUse
from easyphoto.store.paths import lora_name
from easyphoto.store.people import PeopleStore
from easyphoto.wording import one_line

_TAG = re.compile(r"<lora:([^<>]*)>", re.IGNORECASE)
_ENDING = ".safetensors"


def tags_in(prompt: str) -> tuple[tuple[str, float], ...]:
    """(name, weight) of every tag in a prompt, in order; a tag without a weight means 1, as in the WebUI.

    Raises:
        SpecError: A tag has no name, or a weight that is no number.
    """
    return tuple(_read(found[1]) for found in _TAG.finditer(prompt))


def without_tags(prompt: str, names: Sequence[str]) -> str:
    """The prompt without the tags of some names, and without the commas that stood around them."""

    def kept(found: re.Match[str]) -> str:
        return "" if found[1].split(":")[0].strip() in names else found[0]

    parts = (part.strip() for part in _TAG.sub(kept, prompt).split(","))
    return ", ".join(part for part in parts if part)


def find_lora(name: str, shelves: Sequence[PeopleStore], folder: Path | None) -> Path | None:
    """The file that a name means: a scene's or garment's of ours, else one of that name in the folder; None for neither."""
    wanted = name.casefold()
    for shelf in shelves:
        for scene in shelf.list():
            if wanted in (scene.name.casefold(), lora_name(scene.name).casefold()):
                return scene.lora
    if folder is None or not folder.is_dir():
        return None
    return next((path for path in sorted(folder.rglob(f"*{_ENDING}")) if path.stem == name), None)


def take_out(
    prompt: str, shelves: Sequence[PeopleStore], folder: Path | None, leave_others: bool = False
) -> tuple[str, tuple[LoraUse, ...]]:  # fmt: skip
    """The prompt without the tags that are followed here, and the LoRAs that they ask for.

    Args:
        prompt: As somebody wrote it.
        shelves: Scenes and clothes.
        folder: LoRA files of other makers.
        leave_others: Tags that name none of ours stay in the prompt, for an engine that follows them itself.

    Raises:
        NotFound: There is no LoRA of that name.
        SpecError: A tag cannot be read.
    """
    names, uses = [], []
    for name, weight in tags_in(prompt):
        path = find_lora(name, shelves, None if leave_others else folder)
        if path is not None:
            names.append(name)
            uses.append(LoraUse(path=path, weight=weight))
        elif not leave_others:
            known = ", ".join(lora_name(scene.name) for shelf in shelves for scene in shelf.list()) or "none yet"
            raise NotFound(f"the prompt asks for the LoRA {one_line(name)!r} and there is none of that name; scenes: {known}")
    return (without_tags(prompt, names) if names else prompt), tuple(uses)


def _read(inside: str) -> tuple[str, float]:
    name, *weights = (part.strip() for part in inside.split(":"))
    try:
        numbers = {float(weight.partition("=")[2] or weight) for weight in weights} or {1.0}
    except ValueError:
        numbers = set()
    if not name or len(numbers) != 1:
        raise SpecError(f"<lora:{one_line(inside)}> is no tag we can follow; write <lora:NAME:0.8>, with one weight")
    return name, numbers.pop()
