"""Fewer steps by LCM-LoRA (arXiv 2311.05556): a distilled LoRA of the user's, with a sampler that leaps to the clean picture.

The LoRA is latent-consistency's for SD1.5 or SDXL, under its own licence; it is never fetched, only found.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from easyphoto.errors import ToolMissing
from easyphoto.families import Family, PassRow
from easyphoto.records import LoraUse

GUIDANCE = 2.0
"""More burns colours: the LoRA has learnt a guided model's pictures."""
_FIRST, _SECOND = (0.50, 12), 8
"""Strength and steps of the first pass, steps of the second."""
BACKGROUND_STEPS = 12
_WEIGHTS = {Family.SD15: 0.8, Family.SDXL: 0.4}
_NAMES = {Family.SD15: re.compile(r"lcmlora.*sd(v?15|1)"), Family.SDXL: re.compile(r"lcmlora.*(sdxl|xl)")}
"""Of files, without `-`, `_` and `.`: lcm_lora_sd15, lcm-lora-sdv1-5, lcm-lora-sdxl."""
_WANTED = {Family.SD15: "lcm_lora_sd15.safetensors", Family.SDXL: "lcm_lora_sdxl.safetensors"}


def lcm_lora(family: Family, folder: Path | None) -> LoraUse:
    """The family's LCM-LoRA with its usual weight.

    Args:
        family: The base model's.
        folder: Of LoRA files.

    Raises:
        ToolMissing: There is none for the family, or it is not in the folder.
    """
    if family not in _WEIGHTS:
        raise ToolMissing(
            f"LCM needs a LoRA that was distilled for the base model, and there is none for the {family.value} family; "
            "turn LCM off, or choose an SD1.5 or SDXL base model"
        )
    files = sorted(folder.rglob("*.safetensors")) if folder is not None and folder.is_dir() else []
    found = next((path for path in files if _NAMES[family].match(re.sub(r"[-_. ]", "", path.stem.lower()))), None)
    if found is None:
        where = f"put it into {folder}" if folder is not None else "name its folder with EASYPHOTO_LORA_DIR or --lora-dir"
        raise ToolMissing(f"LCM needs the LoRA {_WANTED[family]} (latent-consistency's own), which is not here; {where}")
    return LoraUse(path=found, weight=_WEIGHTS[family])


def faster(first: PassRow, second: PassRow) -> tuple[PassRow, PassRow]:
    """A family's passes with the few steps that LCM needs, for whatever a request leaves open."""
    return replace(first, strength=_FIRST[0], steps=_FIRST[1]), replace(second, steps=_SECOND)
