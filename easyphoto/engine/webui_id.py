"""The ID control's IP-Adapter as a unit of the ControlNet extension: which model, by which preprocessor, how useful."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from easyphoto.errors import ToolMissing
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, ImagePrompt, InpaintJob, TextJob

Held = Condition | ImagePrompt
"""What a pass is held by, a unit each."""
WANTED = {
    Family.SD15: "ip-adapter-plus-face_sd15.safetensors", Family.SDXL: "ip-adapter-plus-face_sdxl_vit-h.safetensors",
}  # fmt: skip
"""The likeliest file of each family, by its makers' name (h94/IP-Adapter)."""
LIKENESS = "the ID control"
NO_FACE = ImagePrompt(image=np.full((8, 8, 3), 255, np.uint8))
"""For asking what there is."""
_OTHERS = re.compile(r"face-?id|portrait|instant|pulid")
"""In the names of those that want insightface's models, which may not be used commercially."""
_USEFUL = (ConditionKind.CANNY, None, ConditionKind.TILE, ConditionKind.COLOR, ConditionKind.OPENPOSE)
"""The most useful first, None for the likeness: edges hold a face by themselves, and where they do the pose adds least."""


def choose_face_model(names: Sequence[str], family: Family) -> str | None:
    """The best IP-Adapter for faces; None where there is none.

    Args:
        names: Of files, or as the extension lists them, hash included.
        family: The checkpoint's.
    """
    fitting = [name for name in names if _is_for_faces(_plain(name)) and _family(_plain(name)) is family]
    return min(fitting, key=lambda name: ("plus" not in _plain(name), name), default=None)


def face_module(model: str, is_forge: bool) -> str:
    """What turns a picture into what an IP-Adapter of that name reads: CLIP ViT-H, by the host's own name for it."""
    if is_forge:
        return "CLIP-ViT-H (IPAdapter)"
    return "ip-adapter_clip_sd15" if _family(_plain(model)) is Family.SD15 else "ip-adapter_clip_sdxl_plus_vith"


def held_by(job: InpaintJob | TextJob) -> list[Held]:
    """Everything that really holds a job."""
    everything: list[Held] = [*job.conditions]
    if isinstance(job, InpaintJob) and job.likeness:
        everything.append(job.likeness)
    return [held for held in everything if held.weight > 0]


def name_of(held: Held) -> str:
    """What sentences call it."""
    return held.kind.value if isinstance(held, Condition) else LIKENESS


def names_of(several: Iterable[Held]) -> str:
    """What sentences call them all."""
    return ", ".join(map(name_of, several))


def usefulness(held: Held) -> int:
    """Its place among those that compete for a unit, 0 first."""
    return _USEFUL.index(held.kind if isinstance(held, Condition) else None)


def refuse_without_file(family: Family, where: str) -> ToolMissing:
    """The sentence for a family's IP-Adapter that is not here.

    Args:
        family: The base model's.
        where: What to do, as the end of the sentence.
    """
    if family not in WANTED:
        return ToolMissing(
            f"the ID control needs an IP-Adapter, and there is none for the {family.value} family; "
            "turn it off, or choose an SD1.5 or SDXL base model"
        )
    return ToolMissing(f"the ID control needs the file {WANTED[family]} (h94/IP-Adapter's own), which is not here; {where}")


def _plain(name: str) -> str:
    return re.sub(r"\s*\[.*\]$", "", name.lower()).replace("ip_adapter", "ip-adapter")


def _is_for_faces(name: str) -> bool:
    return "ip-adapter" in name and "face" in name and not _OTHERS.search(name)


def _family(name: str) -> Family | None:
    """Of an IP-Adapter; SDXL's plain ones read another CLIP than ViT-H, and are not taken."""
    if "xl" in name:
        return Family.SDXL if re.search(r"vit[-_]?h", name) else None
    return Family.SD15 if re.search(r"sd[-_]?v?1", name) else None
