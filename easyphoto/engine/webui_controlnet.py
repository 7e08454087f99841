"""Our conditions as units of the ControlNet extension: which of its models, in which order of use, how many at most."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from easyphoto.engine.webui_id import (
    Held,
    choose_face_model,
    face_module,
    name_of,
    names_of,
    refuse_without_file,
    usefulness,
)
from easyphoto.errors import ToolMissing
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, Pixels
from easyphoto.store.ldm_checkpoint import CONTROLNET_PREFIX

_WORDS = {
    ConditionKind.CANNY: "canny", ConditionKind.OPENPOSE: "openpose", ConditionKind.COLOR: "color", ConditionKind.TILE: "tile",
}  # fmt: skip
_BEST = (
    "control_v11p_sd15_canny", "control_v11p_sd15_openpose", "control_sd15_random_color", "control_v11f1e_sd15_tile",
    "diffusers_xl_canny_mid", "diffusers_xl_canny_full", "thibaud_xl_openpose", "ttplanetsdxlcontrolnet_tile",
)  # fmt: skip
_FOREIGN = ("lllite", "ip-adapter", "instant_id", "flux", "sd21", "sd2.1", "2.1-", "sd3")


def choose_model(kind: ConditionKind, names: Sequence[str], family: Family) -> str | None:
    """The best installed model of a kind; None where there is none.

    Args:
        kind: What it shall be held by.
        names: Full names as the extension lists them, hash included.
        family: The checkpoint's; a model of another one would be refused, or paint noise.
    """
    fitting = [name for name in names if _WORDS[kind] in name.lower() and _family(name) is family]
    return min(fitting, key=_rank, default=None)


def _family(name: str) -> Family | None:
    """The family that a ControlNet's name speaks of; SD1.5 where it says nothing."""
    lower = name.lower()
    if lower.startswith(CONTROLNET_PREFIX):
        return Family.EMBEDDED
    if any(word in lower for word in _FOREIGN):
        return None
    return Family.SDXL if re.search(r"xl", re.sub(r"\[.*\]", "", lower)) else Family.SD15


def _rank(name: str) -> tuple[int, int, str]:
    """The well-known ones first, then other ControlNets, then the weaker adapters."""
    plain = re.sub(r"\s*\[.*\]$", "", name.lower())
    known = [place for place, best in enumerate(_BEST) if plain.startswith(best)]
    return (known[0] if known else len(_BEST), int("adapter" in plain), name)


def fit(wanted: Sequence[Held], limit: int) -> tuple[tuple[Held, ...], str]:
    """What fits into so many units, in its own order, and a sentence where something does not."""
    useful = [held for held in wanted if held.weight > 0]
    if len(useful) <= limit:
        return tuple(useful), ""
    dropped = sorted(useful, key=usefulness)[limit:]
    sentence = (
        f"the WebUI allows {limit} ControlNet {'unit' if limit == 1 else 'units'}, so {names_of(dropped)} was left out; "
        f"set Multi-ControlNet to {len(useful)} in its settings and restart it to have all"
    )
    return tuple(held for held in useful if held not in dropped), sentence


@dataclass(frozen=True, kw_only=True)
class ControlNets:
    """The extension as it is installed, behind one face for its versions."""

    code: ModuleType
    """`external_code`, of the extension or of Forge."""
    listing: ModuleType | None
    """Forge's `global_state`; the extension lists its models by `code`."""

    def names(self, update: bool = False) -> tuple[str, ...]:
        """Full names of the installed models.

        Args:
            update: Look at the disk again.
        """
        if self.listing is None:
            found = self.code.get_models(update)
        else:
            if update:
                self.listing.update_controlnet_filenames()
            found = self.listing.get_all_controlnet_names()
        return tuple(str(name) for name in found if name != "None")

    def model_for(self, held: Held, family: Family) -> str:
        """The model that holds by it; raises ToolMissing where none of the family is installed."""
        for update in (False, True):
            names = self.names(update)
            found = choose_model(held.kind, names, family) if isinstance(held, Condition) else choose_face_model(names, family)
            if found is not None:
                return found
        if not isinstance(held, Condition):
            raise refuse_without_file(family, "put it into the WebUI's folder models/ControlNet, or turn the ID control off")
        raise ToolMissing(
            f"the WebUI has no {name_of(held)} ControlNet for {family.value} checkpoints; "
            "put one into models/ControlNet, or leave it out"
        )

    def unit(self, held: Held, model: str) -> Any:  # noqa: ANN401 (the extension's own class)
        """One enabled unit, no map handed back.

        A map is ready: nothing is preprocessed or downloaded. A face goes through the host's own CLIP.
        """
        is_map = isinstance(held, Condition)
        return self.code.ControlNetUnit(
            enabled=True, module=self._no_module if is_map else face_module(model, self.listing is not None), model=model,
            weight=float(held.weight), image=self._picture(held.image), resize_mode=self.code.ResizeMode.RESIZE,
            control_mode=self.code.ControlMode.BALANCED, guidance_start=0.0, guidance_end=1.0, pixel_perfect=False,
            save_detected_map=False,
        )  # fmt: skip

    def idle_unit(self) -> Any:  # noqa: ANN401 (the extension's own class)
        """A unit that does nothing, for the slots that are left."""
        return self.code.ControlNetUnit(enabled=False, module=self._no_module, model="None")

    def _picture(self, image: Pixels) -> object:
        """The map as the unit wants it: reForge, like Forge before Gradio 4, takes a picture and a mask of nothing."""
        whole = np.ascontiguousarray(image)
        fields = getattr(self.code.ControlNetUnit, "__dataclass_fields__", {})
        paired = self.listing is not None and not {"image_fg", "mask_image_fg"} & fields.keys()
        return {"image": whole, "mask": np.zeros_like(whole)} if paired else whole

    @property
    def _no_module(self) -> str:
        return "none" if self.listing is None else "None"


# Six of the seven blocks are idle: see `store.ldm_layout`.
_EMBEDDED_SIZES: dict[str, Any] = {
    "model_channels": 96, "num_res_blocks": [7, 1, 1], "channel_mult": [1, 2, 3], "attention_resolutions": [4],
    "transformer_depth": [0, 0, 1], "transformer_depth_middle": 1, "num_heads": -1, "num_head_channels": 32,
}  # fmt: skip


@contextmanager
def sizes_for(family: Family) -> Iterator[None]:
    """Let the extension build ControlNets of the embedded model's size; for the other families nothing is touched.

    The extension has SD1's sizes in a table; Forge reads them from the file. The table is put back at once, so that
    nobody else's ControlNet is ever built from it.
    """
    guess = sys.modules.get("scripts.controlnet_model_guess")
    table: dict[str, Any] | None = getattr(guess, "controlnet_default_config", None)
    if family is not Family.EMBEDDED or table is None:
        yield
        return
    before = dict(table)
    try:
        table.update(_EMBEDDED_SIZES)
        yield
    finally:
        table.clear()
        table.update(before)
