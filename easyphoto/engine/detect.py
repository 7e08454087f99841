"""Which family a base model belongs to, read from its config files alone: no weights, no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from easyphoto.errors import InputError, NotFound
from easyphoto.families import Family
from easyphoto.wording import shown

_SINGLE_FILES = frozenset({".safetensors", ".ckpt", ".pth", ".pt"})
_SD15_WIDTH = 768
"""Width of SD1.5's text states (CLIP ViT-L/14); ours are narrower, SD2's (1024) and SDXL's (2048) wider."""
_PARTS = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json", "tokenizer")


def detect_family(folder: Path) -> Family:
    """The family of the base model in a diffusers folder.

    Raises:
        NotFound: There is no such folder.
        InputError: It is not a diffusers folder, or of a family that we do not run.
    """
    check_folder(folder)
    unet = read_config(folder / "unet" / "config.json")
    width = unet.get("cross_attention_dim")
    channels = unet.get("in_channels")
    if (folder / "text_encoder_2").is_dir():
        return Family.SDXL
    if channels != 4:
        count = shown(channels)
        raise InputError(f"{folder} has a UNet of {count} input channels; choose a model that is not for inpainting only")
    if width == _SD15_WIDTH:
        return Family.SD15
    if isinstance(width, int) and width < _SD15_WIDTH:
        return Family.EMBEDDED
    raise InputError(f"{folder} is of an unknown family (text width {shown(width)}); choose an SD1.5 model or the embedded one")


def check_folder(folder: Path) -> None:
    """Refuse what is not a whole diffusers folder, saying what is missing and what to do."""
    if folder.is_file():
        kind = "a single checkpoint file" if folder.suffix.lower() in _SINGLE_FILES else "a file"
        raise InputError(f"{folder} is {kind}; point to a base model in diffusers layout (a folder with model_index.json)")
    if not folder.is_dir():
        raise NotFound(f"the base model {folder} does not exist; point to a folder in diffusers layout")
    missing = [part for part in ("model_index.json", *_PARTS) if not (folder / part).exists()]
    if missing:
        raise InputError(f"{folder} is no base model in diffusers layout: {', '.join(missing)} missing; fetch the folder again")


def read_config(path: Path) -> dict[str, Any]:
    """One of the model's JSON files.

    Raises:
        InputError: It cannot be read or is no JSON object.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch the base model again") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deep to be a model's config; fetch the base model again") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path} holds no JSON object; fetch the base model again")
    return loaded
