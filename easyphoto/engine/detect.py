"""Which family a base model belongs to: from a folder's config files, or from the header of a file. No weights are read.

A `.safetensors` file takes milliseconds whatever its size; a `.ckpt` needs torch to look into it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easyphoto.engine.pickled import ENDINGS, pickled_shapes
from easyphoto.errors import InputError, NotFound
from easyphoto.families import Family
from easyphoto.store.ldm_family import Refused, ldm_family
from easyphoto.store.ldm_header import read_header
from easyphoto.wording import shown

_ENDING = ".safetensors"
_SD15_WIDTH = 768
"""Width of SD1.5's text states (CLIP ViT-L/14); ours are narrower, SD2's (1024) and SDXL's (2048) wider."""
_PARTS = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json", "tokenizer")

_SDXL_PARTS = ("text_encoder_2/config.json", "tokenizer_2")
_WIDTHS = {1024: "a Stable Diffusion 2 model, whose LoRAs and ControlNets fit no other"}
CHOOSE = "choose an SD1.5 or SDXL model or the embedded one"


def detect_family(path: Path) -> Family:
    """The family of the base model in a diffusers folder, or in a file in LDM layout.

    Raises:
        NotFound: There is no such folder or file.
        InputError: It is no base model, or of a family that we do not run.
    """
    return _file_family(path) if path.is_file() else _folder_family(path)


def _file_family(path: Path) -> Family:
    ending = path.suffix.lower()
    if ending not in (_ENDING, *ENDINGS):
        raise InputError(f"{path} is no checkpoint (its name ends in neither .safetensors nor .ckpt); {CHOOSE}")
    shapes = read_header(path).shapes if ending == _ENDING else pickled_shapes(path)
    try:
        return ldm_family(shapes)
    except Refused as reason:
        raise InputError(f"{path} {reason}") from None


def _folder_family(folder: Path) -> Family:
    check_folder(folder)
    unet = read_config(folder / "unet" / "config.json")
    width = unet.get("cross_attention_dim")
    channels = unet.get("in_channels")
    if channels != 4:
        count = shown(channels)
        raise InputError(f"{folder} has a UNet of {count} input channels; choose a model that is not for inpainting only")
    if unet.get("addition_embed_type") == "text_time":
        _check_parts(folder, _SDXL_PARTS)
        return Family.SDXL
    if width == _SD15_WIDTH:
        return Family.SD15
    if isinstance(width, int) and width < _SD15_WIDTH:
        return Family.EMBEDDED
    what = _WIDTHS.get(width) if isinstance(width, int) else None
    raise InputError(f"{folder} is {what or 'of an unknown family'} (text width {shown(width)}); {CHOOSE}")


def check_folder(folder: Path) -> None:
    """Refuse what is not a whole diffusers folder, saying what is missing and what to do."""
    if not folder.is_dir():
        raise NotFound(f"the base model {folder} does not exist; point to a diffusers folder or a .safetensors file")
    _check_parts(folder, ("model_index.json", *_PARTS))


def _check_parts(folder: Path, parts: Sequence[str]) -> None:
    missing = [part for part in parts if not (folder / part).exists()]
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
