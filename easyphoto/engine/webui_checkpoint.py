"""What kind of model a WebUI checkpoint is, read from the head of the file alone: nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyphoto.errors import InputError, NotFound
from easyphoto.families import Family

_UNET = "model.diffusion_model."
_LARGEST_HEAD = 100_000_000
"""Bytes; safetensors' own limit."""
_SD15_WIDTH, _SD2_WIDTH, _SDXL_WIDTH = 768, 1024, 2048
"""Widths of the text states."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What must be known of a checkpoint before anything is computed."""

    family: Family


def read_facts(path: Path) -> CheckpointFacts:
    """The facts of a .safetensors checkpoint.

    Raises:
        NotFound: There is no such file.
        InputError: It is broken, or of a kind that we do not run.
    """
    return facts_of(path.name, _shapes(path))


def facts_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> CheckpointFacts:
    """The facts that follow from the shapes of a checkpoint's tensors; raises InputError for what we do not run."""
    first = shapes.get(f"{_UNET}input_blocks.0.0.weight")
    widths = [shape[1] for key, shape in shapes.items() if key.startswith(_UNET) and key.endswith("attn2.to_k.weight")]
    if first is None or not widths:
        raise InputError(f"{name} is no Stable Diffusion 1.5 or XL checkpoint; choose one of these in the WebUI")
    if first[1] != 4:
        raise InputError(f"{name} is a checkpoint for inpainting or the like ({first[1]} input channels); choose a plain one")
    return CheckpointFacts(family=family_of(name, widths[0]))


def family_of(name: str, width: int) -> Family:
    """The family by the width of the text states; raises InputError for SD2 and what nobody knows."""
    if width == _SD2_WIDTH:
        raise InputError(f"{name} is a Stable Diffusion 2 checkpoint, which is not supported; choose an SD1.5 or SDXL one")
    known = {_SD15_WIDTH: Family.SD15, _SDXL_WIDTH: Family.SDXL}
    if width not in known and width > _SD15_WIDTH:
        raise InputError(f"{name} is of an unknown family (text width {width}); choose an SD1.5 or SDXL checkpoint")
    return known.get(width, Family.EMBEDDED)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head: Any = json.loads(file.read(length)) if length <= _LARGEST_HEAD else None
    except FileNotFoundError:
        raise NotFound(f"the checkpoint {path} does not exist; choose another in the WebUI") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the checkpoint {path.name} cannot be read ({error}); fetch it again") from error
    if not isinstance(head, dict):
        raise InputError(f"the checkpoint {path.name} has no readable head; fetch it again")
    entries = {key: entry.get("shape") for key, entry in head.items() if isinstance(entry, dict)}
    return {key: tuple(shape) for key, shape in entries.items() if isinstance(shape, list)}
