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

from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind
from easyphoto.store.ldm_checkpoint import CONTROLNET_PREFIX

_WORDS = {
    ConditionKind.CANNY: "canny", ConditionKind.OPENPOSE: "openpose", ConditionKind.COLOR: "color", ConditionKind.TILE: "tile",
}  # fmt: skip
_BEST = (
    "control_v11p_sd15_canny", "control_v11p_sd15_openpose", "control_sd15_random_color", "control_v11f1e_sd15_tile",
    "diffusers_xl_canny_mid", "diffusers_xl_canny_full", "thibaud_xl_openpose", "ttplanetsdxlcontrolnet_tile",
)  # fmt: skip
_FOREIGN = ("lllite", "ip-adapter", "instant_id", "flux", "sd21", "sd2.1", "2.1-", "sd3")
_USEFUL = (ConditionKind.CANNY, ConditionKind.TILE, ConditionKind.COLOR, ConditionKind.OPENPOSE)
"""The most useful first: edges hold a face by themselves, and where they do the pose adds least."""


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


def fit(conditions: Sequence[Condition], limit: int) -> tuple[tuple[Condition, ...], str]:
    """The conditions that fit into so many units, in their own order, and a sentence where some do not."""
    useful = [condition for condition in conditions if condition.weight > 0]
    if len(useful) <= limit:
        return tuple(useful), ""
    by_use = sorted(useful, key=lambda condition: _USEFUL.index(condition.kind))
    dropped = by_use[limit:]
    names = ", ".join(condition.kind.value for condition in dropped)
    sentence = (
        f"the WebUI allows {limit} ControlNet {'unit' if limit == 1 else 'units'}, so {names} was left out; "
        f"set Multi-ControlNet to {len(useful)} in its settings and restart it to have all"
    )
    return tuple(condition for condition in useful if condition not in dropped), sentence


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

    def unit(self, condition: Condition, model: str) -> Any:  # noqa: ANN401 (the extension's own class)
        """One enabled unit with a map that is ready: nothing is preprocessed, nothing downloaded, no map handed back."""
        return self.code.ControlNetUnit(
            enabled=True, module=self._no_module, model=model, weight=float(condition.weight),
            image=np.ascontiguousarray(condition.image), resize_mode=self.code.ResizeMode.RESIZE,
            control_mode=self.code.ControlMode.BALANCED, guidance_start=0.0, guidance_end=1.0, pixel_perfect=False,
            save_detected_map=False,
        )  # fmt: skip

    def idle_unit(self) -> Any:  # noqa: ANN401 (the extension's own class)
        """A unit that does nothing, for the slots that are left."""
        return self.code.ControlNetUnit(enabled=False, module=self._no_module, model="None")

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
