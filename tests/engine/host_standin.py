"""A stand-in of the WebUI's interface, strict about it: every name, keyword and type is checked against the real hosts' tables.

    host = StandIn("1.8", "1.1.455", tmp_path)
    host.install(monkeypatch)      # `import modules` and the ControlNet extension now find it

It paints noise that everything in the request decides, runs as many steps as the hosts do, stops as they stop, and leaves
behind what they would leave behind, so that a test can look whether we put it back. Versions: 1.6, 1.8, 1.10 (AUTOMATIC1111),
forge, reforge. The tables were read off the hosts' own sources.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.engine.host_standin_controlnet import make_controlnet

BASE_FIELDS: dict[str, tuple[type, ...]] = {
    "sd_model": (object,), "outpath_samples": (str,), "outpath_grids": (str,), "prompt": (str,), "negative_prompt": (str,),
    "styles": (list,), "seed": (int,), "subseed": (int,), "subseed_strength": (float, int), "sampler_name": (str,),
    "batch_size": (int,), "n_iter": (int,), "steps": (int,), "cfg_scale": (float, int), "width": (int,), "height": (int,),
    "restore_faces": (bool,), "tiling": (bool,), "do_not_save_samples": (bool,), "do_not_save_grid": (bool,),
    "denoising_strength": (float, int), "override_settings": (dict,), "disable_extra_networks": (bool,),
}  # fmt: skip
IMAGE_FIELDS: dict[str, tuple[type, ...]] = {
    "init_images": (list,), "resize_mode": (int,), "mask": (Image.Image,), "mask_blur": (int,), "inpainting_fill": (int,),
    "inpaint_full_res": (bool,), "inpaint_full_res_padding": (int,), "inpainting_mask_invert": (int,),
    "initial_noise_multiplier": (float,), "latent_mask": (Image.Image,),
}  # fmt: skip
NEWER_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "1.6": {}, "1.8": {"firstpass_image": (Image.Image,)}, "1.10": {"firstpass_image": (Image.Image,), "scheduler": (str,)},
    "forge": {"firstpass_image": (Image.Image,), "scheduler": (str,), "distilled_cfg_scale": (float,)},
    "reforge": {"firstpass_image": (Image.Image,), "scheduler": (str,)},
}  # fmt: skip
OLD_SAMPLERS = {"Euler a", "Euler", "DPM++ 2M SDE", "DPM++ 2M SDE Karras", "DPM++ 2M SDE Exponential"}
NEW_SAMPLERS = {"Euler a", "Euler", "DPM++ 2M SDE"}
SCHEDULERS = {"Automatic", "Uniform", "Karras", "Exponential"}
OPTIONS = {
    "sd_model_checkpoint": "plain.safetensors", "sd_vae": "Automatic", "CLIP_stop_at_last_layers": 2,
    "eta_noise_seed_delta": 31337,
    "img2img_color_correction": True, "img2img_fix_steps": True, "initial_noise_multiplier": 0.9, "return_mask": True,
    "return_mask_composite": True, "save_init_img": True, "randn_source": "GPU", "sd_lora": "None",
    "sd_vae_encode_method": "TAESD", "control_net_unit_count": 3,
}  # fmt: skip


class State:
    """`modules.shared_state.State` as far as anybody outside uses it."""

    def __init__(self, newer: bool) -> None:
        self.job, self.job_count, self.job_no = "", 0, 0
        self.interrupted = self.skipped = False
        self.sampling_step = self.sampling_steps = 0
        self.textinfo: str | None = None
        self.begun: list[str] = []
        if newer:
            self.stopping_generation = False

    def begin(self, job: str = "(unknown)") -> None:
        assert isinstance(job, str)
        assert not self.job, "begun twice"
        self.job, self.job_count, self.job_no, self.interrupted, self.skipped, self.textinfo = job, -1, 0, False, False, None
        self.begun.append(job)

    def end(self) -> None:
        assert self.job, "ended before it began"
        self.job, self.job_count = "", 0

    def interrupt(self) -> None:
        self.interrupted = True

    def skip(self) -> None:
        self.skipped = True


class Options:
    """`modules.options.Options`: values by key and by attribute, unknown keys refused."""

    def __init__(self, data: dict[str, Any]) -> None:
        object.__setattr__(self, "data", data)

    def __getattr__(self, key: str) -> Any:
        return self.data[key]

    def __setattr__(self, key: str, value: Any) -> None:
        assert key in self.data, f"the host has no setting {key}"
        self.data[key] = value


@dataclass(eq=False)
class Script:
    """One entry of the host's script runner, with its slots of arguments."""

    name: str
    args_from: int
    args_to: int
    ran: int = 0

    def title(self) -> str:
        return self.name


@dataclass(eq=False)
class Runner:
    """`modules.scripts.ScriptRunner`."""

    newer: bool
    scripts: list[Script] = field(default_factory=list)
    alwayson_scripts: list[Script] = field(default_factory=list)
    selectable_scripts: list[Script] = field(default_factory=list)
    callback_map: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.newer:
            del self.callback_map

    def load(self, scripts: list[Script]) -> None:
        self.scripts, self.alwayson_scripts = list(scripts), list(scripts)

    def initialize_scripts(self, is_img2img: bool) -> None:
        raise AssertionError("create_ui loads the scripts")


class Upscaler:
    """`modules.upscaler.UpscalerData` and, as its own scaler, `modules.upscaler.Upscaler`."""

    def __init__(self, name: str, path: str | None) -> None:
        self.name, self.data_path, self.local_data_path, self.scale, self.scaler = name, path, path, 4, self
        self.fails: Exception | None = None
        self.is_broken = False
        """Whether its file cannot be read, which the hosts only print."""

    def upscale(self, img: Image.Image, scale: float, selected_model: str | None = None) -> Image.Image:
        """Sides are rounded down to multiples of 8, as there."""
        assert selected_model == self.data_path
        assert selected_model is not None, "a model that is to be downloaded"
        assert not selected_model.startswith("http"), "a model that is to be downloaded"
        if self.fails is not None:
            raise self.fails
        how = Image.Resampling.LANCZOS if self.is_broken else Image.Resampling.NEAREST
        return img.resize((int(img.width * scale // 8 * 8), int(img.height * scale // 8 * 8)), how)


class StandIn:
    """The host: its modules, what they hold, and what was asked of them."""

    def __init__(self, version: str, controlnet: str | None, folder: Path, checkpoint: Path, slots: int = 3) -> None:
        self.version, self.folder = version, folder
        newer = version in ("1.10", "forge", "reforge")
        self.state = State(newer)
        self.options = Options(dict(OPTIONS))
        self.lock = threading.Lock()
        self.lora_dir = folder / "Lora"
        self.asked: list[Any] = []
        """Every processing object that was painted."""
        self.calls: list[str] = []
        """What else was called, in order."""
        self.break_at: int | None = None
        """The step at which painting fails."""
        self.at_step: Any = None
        """Called with each step's number, as a person who presses a button would come in."""
        self.networks: dict[str, object] = {"lora": object()}
        self.samplers = (NEW_SAMPLERS if newer else OLD_SAMPLERS) | (set() if version == "1.6" else {"LCM"})
        self.upscalers = [Upscaler("None", None), Upscaler("Lanczos", None), Upscaler("R-ESRGAN 4x+", "https://example.org/x.pth")]
        self.code = make_controlnet(controlnet)
        self.runners = {"img": Runner(newer), "txt": Runner(newer)}
        self.slots = slots
        self.infos = {}
        self.add_checkpoint("plain.safetensors", checkpoint)
        self.load_scripts()

    def add_checkpoint(self, title: str, path: Path) -> None:
        self.infos[title] = SimpleNamespace(filename=str(path), title=title, name=title, name_for_extra=Path(title).stem)

    def load_scripts(self) -> None:
        """Seed, another extension, ControlNet, and one more behind it."""
        for runner in self.runners.values():
            scripts = [Script("Seed", 1, 3), Script("Other", 3, 5)]
            if self.code is not None:
                scripts.append(Script("ControlNet", 5, 5 + self.slots))
            runner.load([*scripts, Script("Behind", 5 + self.slots, 7 + self.slots)])

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let imports find it, until the test ends."""
        import sys

        parts = self._modules()
        package = ModuleType("modules")
        package.__path__ = []  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "modules", package)
        for name, part in parts.items():
            setattr(package, name, part)
            monkeypatch.setitem(sys.modules, f"modules.{name}", part)
        for name in ("internal_controlnet", "lib_controlnet"):
            monkeypatch.setitem(sys.modules, name, None)
        if self.code is not None:
            forge = self.version in ("forge", "reforge")
            self.code.install(monkeypatch, "lib_controlnet" if forge else "internal_controlnet")

    def _modules(self) -> dict[str, ModuleType]:
        parts = {name: ModuleType(f"modules.{name}") for name in (
            "call_queue", "extra_networks", "processing", "scripts", "sd_models", "shared", "ui",
        )}  # fmt: skip
        parts["call_queue"].queue_lock = self.lock
        parts["extra_networks"].extra_network_registry = self.networks
        parts["scripts"].scripts_img2img, parts["scripts"].scripts_txt2img = self.runners["img"], self.runners["txt"]
        parts["shared"].opts, parts["shared"].state = self.options, self.state
        parts["shared"].cmd_opts = SimpleNamespace(lora_dir=str(self.lora_dir), api_auth=None, listen=False, port=None)
        parts["shared"].sd_upscalers = self.upscalers
        parts["shared"].sd_model = SimpleNamespace(is_sdxl=False, is_sd2=False, is_sd1=True)
        parts["ui"].create_ui = lambda: (self.calls.append("create_ui"), self.load_scripts())
        self._fill_models(parts["sd_models"])
        for kind, own in (("Img2Img", IMAGE_FIELDS), ("Txt2Img", {})):
            setattr(parts["processing"], f"StableDiffusionProcessing{kind}", self._processing(kind, own))
        base = {**BASE_FIELDS, **NEWER_FIELDS[self.version]}
        parts["processing"].StableDiffusionProcessing = make_dataclass("Base", [(name, Any, None) for name in base])
        parts["processing"].sd_samplers = SimpleNamespace(all_samplers_map=dict.fromkeys(self.samplers, object()))
        parts["processing"].process_images = self.process_images
        return parts

    def _fill_models(self, models: ModuleType) -> None:
        models.checkpoint_aliases = models.checkpoints_list = self.infos
        models.model_path = str(self.folder / "models" / "Stable-diffusion")
        models.list_models = self._list_models
        models.select_checkpoint = lambda: self.infos[self.options.sd_model_checkpoint]

        def told(word: str) -> Any:
            return lambda *_: self.calls.append(word)

        models.unload_model_weights = told("unload")
        models.send_model_to_cpu = told("send to cpu")
        models.reload_model_weights = told("reload")
        models.send_model_to_device = told("send")
        if self.version == "forge":
            models.forge_model_reload = told("forge reload")
        if self.version == "reforge":
            models.load_model_to_device = told("load to device")

    def _list_models(self) -> None:
        """Find what lies in the folder of checkpoints by now."""
        self.calls.append("list models")
        root = self.folder / "models" / "Stable-diffusion"
        for path in root.rglob("*.safetensors"):
            self.add_checkpoint(path.relative_to(root).as_posix(), path)

    def _processing(self, kind: str, own: dict[str, tuple[type, ...]]) -> type:
        table = {**BASE_FIELDS, **NEWER_FIELDS[self.version], **own}

        def check(p: Any) -> None:
            for name, kinds in table.items():
                value = getattr(p, name)
                assert value is None or isinstance(value, kinds), f"{name} is a {type(value).__name__}"
            p.is_api, p.closed, p.sampler = False, False, None
            p.scripts_value = p.script_args_value = None

        made = make_dataclass(
            f"StableDiffusionProcessing{kind}", [(name, Any, None) for name in table], namespace={"__post_init__": check}
        )
        made.scripts = property(lambda p: p.scripts_value, self._take_scripts)
        made.script_args = property(lambda p: p.script_args_value, lambda p, value: setattr(p, "script_args_value", value))
        made.close = lambda p: setattr(p, "closed", True)
        # A function, not our own bound method: it is to be bound to the processing object.
        made.sample = lambda p: self._sample(p)  # noqa: PLW0108
        return made

    def _take_scripts(self, p: Any, runner: Runner) -> None:
        p.scripts_value = runner
        # The host's own seed script: without is_api it puts the interface's default over the seed.
        if not p.is_api:
            p.seed = -1

    def process_images(self, p: Any) -> Any:
        """`modules.processing.process_images`."""
        assert self.lock.locked(), "the queue's lock is not held"
        assert self.state.job, "state.begin was not called"
        assert p.scripts is not None
        assert isinstance(p.script_args, list | tuple)
        assert p.sampler_name in self.samplers, p.sampler_name
        assert getattr(p, "scheduler", None) in {None, *SCHEDULERS}
        for key in p.override_settings:
            assert key in self.options.data or key in ("sd_model_checkpoint", "sd_vae"), f"the host has no setting {key}"
        before = {key: self.options.data[key] for key in p.override_settings if key in self.options.data}
        try:
            self.options.data.update(p.override_settings)
            return self._paint(p)
        finally:
            self.options.data.update(before)

    def _paint(self, p: Any) -> Any:
        units = []
        for script in p.scripts.alwayson_scripts:
            script.ran += 1
            if script.name == "ControlNet":
                given = p.script_args[script.args_from : script.args_to]
                assert len(given) == script.args_to - script.args_from, "a slot of ControlNet is empty"
                units = self.code.take(script, given)
        self.asked.append(p)
        if hasattr(p, "init_images"):
            p.sampler = self._sampler()
        done = p.sample()
        image = self._picture(p, units, done)
        maps = [Image.fromarray(self.code.picture(unit)) for unit in units if unit.save_detected_map]
        grid = Image.new("RGB", (8, 8))
        comments, tags = [], re.findall(r"<lora:([^:>]+):([-\d.]+)>", p.prompt)
        for name, _ in tags:
            if not list(self.lora_dir.rglob(f"{name}.safetensors")):
                comments.append(f"Lora not found: {name}\n")
        return SimpleNamespace(images=[grid, image, *maps], index_of_first_image=1, comments="".join(comments))

    def _sampler(self) -> Any:
        return SimpleNamespace(callback_state=lambda step: setattr(self.state, "sampling_step", step["i"]))

    def _sample(self, p: Any) -> int:
        """Steps that were run; the same arithmetic as `setup_img2img_steps`, and a look at `interrupted` before each."""
        total = p.steps
        if not hasattr(p, "init_images"):
            p.sampler = self._sampler()  # txt2img makes its sampler only here
        if hasattr(p, "init_images"):
            assert not self.options.img2img_fix_steps
            total = int(min(p.denoising_strength, 0.999) * p.steps) + 1
        self.state.sampling_steps = total
        assert total > 1 or p.sampler_name == "Euler", "UnboundLocalError: h"
        for step in range(total):
            if self.state.interrupted or self.state.skipped:
                return step
            if self.break_at == step:
                raise RuntimeError("CUDA out of memory")
            if self.at_step is not None:
                self.at_step(step)
            p.sampler.callback_state({"i": step, "x": None, "sigma": 1.0, "denoised": None})
        return total

    def _picture(self, p: Any, units: list[Any], done: int) -> Image.Image:
        import torch

        # The autoencoder's own noise, from the generator that nobody seeds but us.
        jitter = torch.randint(0, 256, (p.height, p.width, 3)).numpy()
        words = [p.prompt, p.negative_prompt, p.steps, done, p.cfg_scale, p.seed, p.denoising_strength]
        digest = hashlib.sha256(repr(words).encode())
        for unit in units:
            digest.update(self.code.picture(unit).tobytes() + repr((unit.model, unit.weight)).encode())
        noise = np.random.default_rng(int.from_bytes(digest.digest()[:8], "little")).integers(0, 256, jitter.shape)
        painted = ((noise + jitter) % 256).astype(np.uint8)
        if not hasattr(p, "init_images"):
            return Image.fromarray(painted)
        kept, mask = np.asarray(p.init_images[0]), p.mask.convert("L")
        assert p.init_images[0].size == mask.size == (p.width, p.height)
        assert (p.mask_blur, p.inpainting_fill, p.inpaint_full_res) == (0, 1, False)
        cells = mask.resize((p.width // 8, p.height // 8), Image.Resampling.NEAREST)
        share = np.asarray(cells.resize(mask.size, Image.Resampling.NEAREST), np.float32)[..., None] / 255
        return Image.fromarray(np.rint(kept + share * (painted.astype(np.float32) - kept)).astype(np.uint8))
