"""Where AUTOMATIC1111 1.6 to 1.10, Forge and reForge differ, each difference in one function.

Every one is told by what the host has, not by its version's number: forks number as they like. Nothing here imports the
host's modules; `engine.webui` hands them over.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from easyphoto.engine.webui_controlnet import ControlNets
from easyphoto.families import PROFILES, Family

_NEUTRAL: Mapping[str, object] = {
    "CLIP_stop_at_last_layers": 1, "eta_noise_seed_delta": 0, "img2img_color_correction": False, "img2img_extra_noise": 0.0,
    "img2img_fix_steps": False, "initial_noise_multiplier": 1.0, "randn_source": "CPU", "return_mask": False,
    "return_mask_composite": False, "save_init_img": False, "sd_lora": "None", "sd_vae_decode_method": "Full",
    "sd_vae_encode_method": "Full",
}  # fmt: skip
"""Settings of the host that would change our pictures or leave files behind; the host puts the person's own back."""


_RELOAD_BEGINS = 1.0
"""Seconds from the interrupt to the pages' end at "Reload UI", at most."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The host's modules, as `engine.webui.connect` found them."""

    processing: ModuleType
    shared: ModuleType
    sd_models: ModuleType
    scripts: ModuleType
    ui: ModuleType
    queue_lock: Any
    """Held by whoever computes."""
    networks: Mapping[str, object]
    """What `<name:...>` in a prompt can ask for; "lora" is one."""
    controlnet: tuple[ModuleType, ModuleType | None] | None
    """external_code and, on Forge, global_state; None where the extension is not installed."""


def sampler(host: Host, family: Family, steps: int, lcm: bool = False) -> dict[str, str]:
    """The keywords that name the family's sampler; from 1.9 on (and on Forge) the noise levels are a field of their own.

    k-diffusion's DPM++ 2M SDE breaks on a single step, where it would do exactly what Euler does.
    """
    karras = PROFILES[family].karras
    if lcm:
        return _lcm_sampler(host)
    if steps == 1:
        return {"sampler_name": "Euler"}
    if any(field.name == "scheduler" for field in fields(host.processing.StableDiffusionProcessing)):
        return {"sampler_name": "DPM++ 2M SDE", "scheduler": "Karras" if karras else "Uniform"}
    return {"sampler_name": PROFILES[family].sampler}


def _lcm_sampler(host: Host) -> dict[str, str]:
    """LCM's own from 1.8 on; before, Euler a comes nearest, which also starts anew from noise at every step."""
    known = getattr(getattr(host.processing, "sd_samplers", None), "all_samplers_map", {})
    newer = any(field.name == "scheduler" for field in fields(host.processing.StableDiffusionProcessing))
    return {"sampler_name": "LCM" if "LCM" in known else "Euler a", **({"scheduler": "Automatic"} if newer else {})}


def neutral_settings(host: Host) -> dict[str, object]:
    """Settings for one call, as the host's own `override_settings`; only such as this host has."""
    return {key: value for key, value in _NEUTRAL.items() if key in host.shared.opts.data}


def runner(host: Host, for_images: bool) -> Any:  # noqa: ANN401 (the host's own class)
    """The host's runner of scripts, with its scripts loaded.

    With --nowebui nothing has been loaded; the host's own API then builds the interface without showing it, and so do we.
    """
    found = host.scripts.scripts_img2img if for_images else host.scripts.scripts_txt2img
    if not found.scripts:
        host.ui.create_ui()
    if not found.scripts:
        found.initialize_scripts(for_images)
    return found


def controlnets(host: Host, for_images: bool = True) -> tuple[ControlNets, Any] | None:
    """The ControlNet extension and its script in the runner; None where it is missing or failed to load.

    Its `external_code` can be imported, and lists models, even where its script failed: then units would be ignored.
    """
    if host.controlnet is None:
        return None
    code, listing = host.controlnet
    script = next((one for one in runner(host, for_images).alwayson_scripts if one.title().lower() == "controlnet"), None)
    return None if script is None else (ControlNets(code=code, listing=listing), script)


def private_runner(whole: Any, script: Any | None) -> Any:  # noqa: ANN401 (the host's own classes)
    """A runner with ControlNet alone: no other extension takes part in our pictures, and none is changed by us."""
    own = copy.copy(whole)
    own.alwayson_scripts = [] if script is None else [script]
    own.scripts, own.selectable_scripts = list(own.alwayson_scripts), []
    if hasattr(own, "callback_map"):  # from 1.9 on: remembers which scripts listen to what
        own.callback_map = {}
    return own


def script_arguments(script: Any | None, units: list[Any], idle: Any) -> list[Any]:  # noqa: ANN401
    """Arguments for a private runner: the units in ControlNet's own slots.

    The extension's helper would add slots and move those of every script behind it, for good; we stay within them.
    """
    if script is None:
        return [0]
    arguments: list[Any] = [0, *[None] * (script.args_to - 1)]
    slots = script.args_to - script.args_from
    arguments[script.args_from : script.args_to] = [*units, *[idle] * (slots - len(units))]
    return arguments


def slots(script: Any) -> int:  # noqa: ANN401 (the host's own class)
    """How many units the extension was started with, 3 unless somebody changed it."""
    return int(script.args_to - script.args_from)


def controlnet_runs(script: Any, units: int) -> bool:  # noqa: ANN401 (the extension's own class)
    """Whether the extension, now that steps are run, holds the picture by so many units.

    The host only prints what goes wrong in an extension and paints on without it.
    """
    if hasattr(script, "current_params"):  # Forge
        return len(script.current_params) == units
    return getattr(script, "latest_network", None) is not None


def unload(host: Host) -> None:
    """Give the checkpoint's memory on the GPU free.

    AUTOMATIC1111's own `unload_model_weights` leaves 1.6 with a model that it takes up again half undone; what the later
    versions do in it does well there too.
    """
    if _is_forge(host) or _is_reforge(host):
        host.sd_models.unload_model_weights()
    elif (loaded := _loaded(host)) is not None:
        host.sd_models.send_model_to_cpu(loaded)


def reload(host: Host) -> None:
    """Have the checkpoint where it was before `unload`."""
    if _is_reforge(host):
        host.sd_models.load_model_to_device()
    elif not _is_forge(host) and (loaded := _loaded(host)) is not None:  # Forge loads by itself at the next picture
        host.sd_models.send_model_to_device(loaded)


def _loaded(host: Host) -> Any | None:  # noqa: ANN401 (the host's own class)
    """The model that AUTOMATIC1111 has loaded; None for none yet. Its `shared.sd_model` would load one to answer that."""
    data = getattr(host.sd_models, "model_data", None)
    return host.shared.sd_model if data is None else data.sd_model


def reload_chosen(host: Host) -> None:
    """Load the checkpoint that the settings name, after another one was used; Forge does so at its next picture."""
    if not _is_forge(host):
        host.sd_models.reload_model_weights()


def _is_forge(host: Host) -> bool:
    return hasattr(host.sd_models, "forge_model_reload")


def _is_reforge(host: Host) -> bool:
    return hasattr(host.sd_models, "load_model_to_device")


def interrupted(host: Host) -> bool:
    """Whether somebody pressed Interrupt; from 1.9 on it can also mean "after this picture"."""
    state = host.shared.state
    return bool(state.interrupted or getattr(state, "stopping_generation", False))


def remembering_hash(host: Host) -> Callable[[], None]:
    """Puts back what the settings say of the loaded checkpoint's hash; Forge leaves the one that it loaded for us."""
    data, key = host.shared.opts.data, "sd_checkpoint_hash"
    known, before = key in data, data.get(key)

    def put_back() -> None:
        if known:
            data[key] = before
        else:
            data.pop(key, None)  # the host then says its own default again

    return put_back


@contextmanager
def leaving_settings(host: Host, used: Mapping[str, object]) -> Iterator[None]:
    """Take settings out again that a call put in: the hosts put back only those that they had before.

    One that somebody has changed meanwhile stays.
    """
    data = host.shared.opts.data
    missing = [key for key in used if key not in data]
    try:
        yield
    finally:
        for key in missing:
            if data.get(key) == used[key]:
                data.pop(key, None)


def show_progress(host: Host, step: int, total: int) -> None:
    """Let the host's progress bar show something that is not painting."""
    state = host.shared.state
    state.sampling_step, state.sampling_steps = step, total


class InterruptWatch:
    """Tells a press of Interrupt from "Reload UI", which every host begins with one; only the first is meant for a training."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._page = self._now()
        self._since: float | None = None

    def pressed(self) -> bool:
        """Whether somebody wants the training to stop; asked again and again, it says so a second after the press."""
        if not interrupted(self._host):
            self._page, self._since = self._now(), None
            return False
        page = self._now()
        if page is not self._page or not getattr(page, "is_running", True):
            _forget_interrupt(self._host)
            return False
        moment = time.monotonic()
        self._since = moment if self._since is None else self._since
        return moment - self._since >= _RELOAD_BEGINS

    def _now(self) -> Any:  # noqa: ANN401 (the host's own class)
        """The host's pages, made anew by a reload; None under --nowebui."""
        return getattr(self._host.shared, "demo", None)


def _forget_interrupt(host: Host) -> None:
    state = host.shared.state
    state.interrupted = False
    if hasattr(state, "stopping_generation"):
        state.stopping_generation = False
