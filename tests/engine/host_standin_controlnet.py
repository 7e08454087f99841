"""The ControlNet extension's `external_code` in its versions, as strict as each of them is."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import pytest

MODELS = (
    "control_v11p_sd15_canny [d14c016b]", "control_v11p_sd15_openpose [cab727d4]", "control_sd15_random_color [9a3b1c2d]",
    "control_v11f1e_sd15_tile [a371b31b]", "diffusers_xl_canny_mid [112a778d]",
)  # fmt: skip
ADAPTERS = (
    "ip-adapter_sd15 [6a3f6166]", "ip-adapter-faceid-plusv2_sd15 [6e14fc1a]", "ip-adapter-full-face_sd15 [852b9843]",
    "ip-adapter-plus-face_sd15 [71693645]", "ip-adapter-plus-face_sdxl_vit-h [c60d7d48]", "ip-adapter_sdxl [1d6ea8a3]",
)  # fmt: skip
"""IP-Adapters that somebody may have put beside the ControlNets."""
_EXTENSION = {"ip-adapter_clip_sd15": "sd15", "ip-adapter_clip_sdxl_plus_vith": "sdxl_vit-h"}
_FORGE = {"CLIP-ViT-H (IPAdapter)": ""}
CLIPS = {"1.1.441": _EXTENSION, "1.1.455": _EXTENSION, "forge": _FORGE, "reforge": _FORGE}
"""The preprocessors that are CLIP ViT-H, and what is in the names of the IP-Adapters each is for."""
MODULES = {"none", "None", "canny", "tile_resample", *_EXTENSION}


class ResizeMode(Enum):
    RESIZE = "Just Resize"
    INNER_FIT = "Crop and Resize"
    OUTER_FIT = "Resize and Fill"


class ControlMode(Enum):
    BALANCED = "Balanced"
    PROMPT = "My prompt is more important"
    CONTROL = "ControlNet is more important"


COMMON: dict[str, Any] = {
    "module": "none", "model": "None", "weight": 1.0, "image": None, "resize_mode": ResizeMode.INNER_FIT, "processor_res": -1,
    "threshold_a": -1, "threshold_b": -1, "guidance_start": 0.0, "guidance_end": 1.0, "pixel_perfect": False,
    "control_mode": ControlMode.BALANCED, "save_detected_map": True,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "1.1.441": {
        "enabled": True, "low_vram": False, "inpaint_crop_input_image": True, "hr_option": "Both", "advanced_weighting": None,
    },
    "1.1.455": {"enabled": False, "low_vram": False, "hr_option": "Both", "mask": None, "effective_region_mask": None},
    "forge": {
        "enabled": True, "input_mode": "simple", "use_preview_as_input": False, "generated_image": None, "mask_image": None,
        "mask_image_fg": None, "image_fg": None,
    },
    "reforge": {
        "enabled": True, "input_mode": "simple", "use_preview_as_input": False, "generated_image": None, "mask_image": None,
        "hr_option": "Both",
    },
}  # fmt: skip


def make_controlnet(version: str | None) -> ControlNetStandIn | None:
    """The extension of that version; None where it is not installed."""
    return None if version is None else ControlNetStandIn(version)


@dataclass(eq=False)
class ControlNetStandIn:
    """One version of the extension."""

    version: str
    models: list[str] = field(default_factory=lambda: ["None", *MODELS])
    updates: int = 0
    fails: bool = False
    """Whether it breaks when it is used; the host only prints that."""

    def __post_init__(self) -> None:
        self.unit = self._unit_class()

    def install(self, monkeypatch: pytest.MonkeyPatch, package_name: str) -> None:
        """Let imports find it."""
        package, code = ModuleType(package_name), ModuleType(f"{package_name}.external_code")
        package.__path__ = []  # type: ignore[attr-defined]
        code.ControlNetUnit, code.ResizeMode, code.ControlMode = self.unit, ResizeMode, ControlMode
        parts = {"": package, ".external_code": code}
        if self.version in ("forge", "reforge"):
            listing = ModuleType(f"{package_name}.global_state")
            listing.get_all_controlnet_names = lambda: list(self.models)
            listing.update_controlnet_filenames = self._count
            parts[".global_state"] = listing
        else:
            code.get_models = self._get_models
        for ending, part in parts.items():
            if ending:
                setattr(package, ending[1:], part)
            monkeypatch.setitem(sys.modules, package_name + ending, part)

    def take(self, script: Any, given: Any) -> list[Any]:
        """The units of a call that hold the picture; the host goes on without them where the extension fails."""
        units = self._enabled(given)
        kept = [] if self.fails else units
        if self.version in ("forge", "reforge"):
            script.current_params = dict(enumerate(kept))
        else:
            script.latest_network = object() if kept else None
        return kept

    def _enabled(self, given: Any) -> list[Any]:
        """The units that are switched on, checked as the extension checks them when it runs."""
        units = []
        for unit in given:
            assert isinstance(unit, self.unit), f"a {type(unit).__name__} in ControlNet's slots"
            if unit.enabled:
                assert unit.model in self.models[1:], f"no model {unit.model}"
                clips = CLIPS[self.version]
                assert unit.module in {*MODULES, *clips} - (set() if clips is _EXTENSION else {*_EXTENSION}), unit.module
                assert ("ip-adapter" in unit.model) == (unit.module in clips), f"{unit.module} for {unit.model}"
                assert clips.get(unit.module, "") in unit.model, f"{unit.module} for {unit.model}"
                image = self.picture(unit)
                assert isinstance(image, np.ndarray), "the picture of a unit is an array"
                assert image.dtype == np.uint8
                assert image.ndim == 3
                units.append(unit)
        return units

    def picture(self, unit: Any) -> Any:
        """What holds the picture; reForge has it beside a mask."""
        if self.version != "reforge":
            return unit.image
        assert (unit.image["image"] >= 5).any() or not (unit.image["mask"] > 5).any()
        assert not (unit.image["mask"] > 5).any(), "a mask of its own"
        return unit.image["image"]

    def _count(self) -> None:
        self.updates += 1

    def _get_models(self, update: bool = False) -> list[str]:
        assert isinstance(update, bool)
        self.updates += update
        return list(self.models)

    def _unit_class(self) -> type:
        """Unknown keywords are a TypeError; only 1.1.455 checks values when a unit is made."""
        table = {**COMMON, **OWN[self.version]}
        if self.version in ("forge", "reforge"):
            table["module"] = "None"
        strict = self.version == "1.1.455"

        def check(unit: Any) -> None:
            assert isinstance(unit.enabled, bool)
            if not strict:
                return
            if unit.module not in MODULES or not isinstance(unit.resize_mode, ResizeMode):
                raise ValueError("1.1.455: a known module and a member of ResizeMode, please")
            if not isinstance(unit.control_mode, ControlMode) or not 0 <= unit.weight <= 2:
                raise ValueError("1.1.455: a member of ControlMode and a weight of 0 to 2, please")

        return make_dataclass(
            "ControlNetUnit", [(name, Any, field(default=value)) for name, value in table.items()], eq=False,
            namespace={"__post_init__": check},
        )  # fmt: skip
