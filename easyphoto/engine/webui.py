"""The engine inside the Stable Diffusion WebUI: the host's img2img and txt2img with its ControlNet extension.

The one file that imports the host's modules; `webui_versions` holds where the hosts differ, and `docs/hosts.md` what was run on
them. Whatever is touched is put back: settings, checkpoint, scripts' slots, the random generator, the host's state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from easyphoto.engine import webui_upscale
from easyphoto.engine import webui_versions as versions
from easyphoto.engine.base import StepListener
from easyphoto.engine.denoise import Schedule
from easyphoto.engine.webui_checkpoint import CheckpointFacts, facts_of, family_of, read_facts
from easyphoto.engine.webui_controlnet import ControlNets, choose_model, fit, sizes_for
from easyphoto.engine.webui_id import LIKENESS, NO_FACE, Held, held_by, names_of
from easyphoto.engine.webui_pass import Steps, cells, seeded
from easyphoto.engine.webui_queue import Waiting, in_line
from easyphoto.engine.webui_versions import Host
from easyphoto.errors import Cancelled, EasyPhotoError, JobFailed, LoraError, NotFound, ToolMissing
from easyphoto.families import Family
from easyphoto.records import ConditionKind, InpaintJob, Pixels, TextJob
from easyphoto.store.shelf import LoraShelf

HOW_TO_GET_CONTROLNET = "install the extension sd-webui-controlnet (Forge has it built in) and restart the WebUI"


def connect() -> Host:
    """The host that this process is.

    Raises:
        ToolMissing: This process is no WebUI.
    """
    try:
        from modules import call_queue, extra_networks, processing, scripts, sd_models, shared, ui
    except ImportError as error:
        raise ToolMissing(f"this is not a Stable Diffusion WebUI ({error}); use the diffusers engine") from error
    return Host(
        processing=processing, shared=shared, sd_models=sd_models, scripts=scripts, ui=ui, queue_lock=call_queue.queue_lock,
        networks=extra_networks.extra_network_registry, controlnet=_find_controlnet(),
    )  # fmt: skip


def _find_controlnet() -> tuple[ModuleType, ModuleType | None] | None:
    try:
        from lib_controlnet import external_code, global_state  # Forge, reForge
    except ImportError:
        pass
    else:
        return external_code, global_state
    try:
        from internal_controlnet import external_code
    except ImportError:
        return None
    return external_code, None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Settled:
    """A job with all its open ends tied."""

    prompt: str
    facts: CheckpointFacts
    units: tuple[tuple[Held, str], ...] = ()
    """(condition or face, ControlNet model)."""
    warning: str = ""
    """What is done otherwise than asked."""


@dataclass(kw_only=True, eq=False)
class WebuiEngine:
    """Runs jobs in the host; see `engine.base` for the contract.

    One job at a time, from any thread that does not hold the host's queue lock itself (a handler that the host wraps does).
    """

    host: Host = field(default_factory=connect)
    checkpoint: str = ""
    """Name of the checkpoint to work with, as the host lists it; empty takes the one that is chosen there."""
    vae: str = ""
    """Name of the VAE, as the host lists it; empty takes the one that is chosen there."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about what the last session did otherwise than asked."""
    _own: threading.RLock = field(default_factory=threading.RLock)
    _inside: bool = False
    _facts: dict[object, CheckpointFacts] = field(default_factory=dict)
    _shelf: LoraShelf | None = None

    @property
    def name(self) -> str:
        """The checkpoint's name, without folder and ending."""
        return str(self._info().name_for_extra)

    @property
    def family(self) -> Family:
        """The checkpoint's family; raises InputError for one that we do not run."""
        return self.facts.family

    @property
    def facts(self) -> CheckpointFacts:
        """What the checkpoint's file says of it."""
        info = self._info()
        path = Path(info.filename)
        if path.suffix.lower() != ".safetensors":
            return self._facts_of_loaded(path.name)
        key = (path, path.stat().st_mtime_ns if path.is_file() else 0)
        if key not in self._facts:
            self._facts[key] = read_facts(path)
        return self._facts[key]

    @property
    def conditions(self) -> frozenset[ConditionKind]:
        """For which kinds a ControlNet of the checkpoint's family is installed."""
        found = versions.controlnets(self.host)
        if found is None:
            return frozenset()
        family, names = self.family, found[0].names(update=True)
        return frozenset(kind for kind in ConditionKind if choose_model(kind, names, family))

    @property
    def unit_limit(self) -> int:
        """How many conditions a job can have at once."""
        found = versions.controlnets(self.host)
        return 0 if found is None else versions.slots(found[1])

    @property
    def interrupted(self) -> bool:
        """Whether somebody pressed Interrupt in the host since the session began."""
        return versions.interrupted(self.host)

    @property
    def shelf(self) -> LoraShelf:
        """Our copies in the host's LoRA folder."""
        self._shelf = self._shelf or LoraShelf(Path(self.host.shared.cmd_opts.lora_dir))
        return self._shelf

    @contextmanager
    def session(self, text: str = "easyphoto", passes: int = 1, waiting: Waiting | None = None) -> Iterator[None]:
        """Have the host to ourselves for several jobs that belong together; a job outside of one makes its own.

        Args:
            text: What the host's progress bar says.
            passes: How many jobs will come, for its length.
            waiting: How to wait while the host is busy; raises Cancelled where that says so.
        """
        with self._own, ExitStack() as stack:
            if not self._inside:
                self.warnings.clear()
                stack.enter_context(in_line(self.host.queue_lock, waiting or Waiting()))
                state = self.host.shared.state
                state.begin(job=text)
                stack.callback(state.end)
                stack.callback(versions.remembering_hash(self.host))
                stack.callback(self._leave)
                state.job_count, state.textinfo, self._inside = passes, text, True
            yield

    def _leave(self) -> None:
        self._inside = False
        self.host.shared.state.textinfo = None
        if self.checkpoint:
            versions.reload_chosen(self.host)

    @contextmanager
    def lent(self, text: str = "easyphoto: training", waiting: Waiting | None = None) -> Iterator[None]:
        """Hold the GPU for a training: the host waits, and its checkpoint is off the GPU until this ends."""
        with self.session(text, waiting=waiting):
            versions.unload(self.host)
            try:
                yield
            finally:
                versions.reload(self.host)

    def inpaint(self, job: InpaintJob, on_step: StepListener | None = None) -> Pixels:
        """(height, width, 3) uint8 RGB; outside the mask the job's own pixels."""
        settled = self._settle(job)
        if not job.mask.any():
            return job.image.copy()
        schedule = Schedule(steps=job.steps, strength=job.strength)
        height, width = job.mask.shape
        steps = Steps(state=self.host.shared.state, total=schedule.executed, listener=on_step)

        def make() -> Any:  # noqa: ANN401 (the host's own class)
            return self.host.processing.StableDiffusionProcessingImg2Img(
                **self._common(job, settled, steps.total), width=width, height=height, init_images=[Image.fromarray(job.image)],
                mask=Image.fromarray(cells(job.mask)), mask_blur=0, inpainting_fill=1, inpaint_full_res=False, resize_mode=0,
                initial_noise_multiplier=1.0,
                # The host runs int(strength * steps) + 1 steps; the half keeps rounding from adding or losing one.
                denoising_strength=(schedule.executed - 0.5) / job.steps,
            )  # fmt: skip

        painted = self._run(make, settled, steps, job.seed, for_images=True)
        share = job.mask[..., None].astype(np.float32)
        return np.asarray(np.rint(job.image + share * (painted.astype(np.float32) - job.image)), np.uint8)

    def text(self, job: TextJob, on_step: StepListener | None = None) -> Pixels:
        """(height, width, 3) uint8 RGB."""
        settled = self._settle(job)
        steps = Steps(state=self.host.shared.state, total=job.steps, listener=on_step)

        def make() -> Any:  # noqa: ANN401 (the host's own class)
            return self.host.processing.StableDiffusionProcessingTxt2Img(
                **self._common(job, settled, steps.total), width=job.width, height=job.height
            )

        return self._run(make, settled, steps, job.seed, for_images=False)

    def check_likeness(self) -> None:
        """Refuse the ID control where the host has no IP-Adapter for it."""
        self._controlnets(LIKENESS)[0].model_for(NO_FACE, self.family)

    @property
    def enlargers(self) -> tuple[str, ...]:
        """The host's upscalers whose files are here."""
        return webui_upscale.names(self.host)

    def enlarge(self, pixels: Pixels, way: str, on_step: StepListener | None = None) -> Pixels:  # noqa: ARG002 (it tells none)
        """(2 x height, 2 x width, 3) uint8 RGB."""
        with self.session():
            return webui_upscale.upscale(self.host, pixels, way)

    def _common(self, job: InpaintJob | TextJob, settled: _Settled, total: int) -> dict[str, Any]:
        overrides: dict[str, object] = versions.neutral_settings(self.host)
        if self.checkpoint:
            overrides["sd_model_checkpoint"] = self._info().title
        if self.vae:
            overrides["sd_vae"] = self.vae
        return {
            "prompt": settled.prompt, "negative_prompt": job.negative, "styles": [], "seed": job.seed, "steps": job.steps,
            "cfg_scale": job.guidance, "batch_size": 1, "n_iter": 1, "restore_faces": False, "tiling": False,
            "do_not_save_samples": True, "do_not_save_grid": True, "override_settings": overrides,
            **versions.sampler(self.host, settled.facts.family, total, isinstance(job, InpaintJob) and job.lcm),
        }  # fmt: skip

    def _settle(self, job: InpaintJob | TextJob) -> _Settled:
        """Refuse what cannot be done, with the remedy, before anything is computed."""
        facts = self.facts
        if self.host.networks.get("lora") is None and any(use.weight for use in job.loras):
            raise ToolMissing("the WebUI's built-in extension Lora is switched off; switch it on in Extensions and restart")
        tags = [self.shelf.tag(use, facts.family) for use in job.loras if use.weight]
        # A LoRA of weight zero does nothing, but one that is missing is refused all the same.
        for use in job.loras:
            if not use.path.is_file():
                raise NotFound(f"the LoRA {use.path} does not exist; train the person again")
        settled = _Settled(prompt=" ".join((job.prompt, *tags)), facts=facts)
        wanted = held_by(job)
        return self._with_units(settled, wanted) if wanted else settled

    def _with_units(self, settled: _Settled, wanted: list[Held]) -> _Settled:
        nets, script = self._controlnets(names_of(wanted))
        kept, warning = fit(wanted, versions.slots(script))
        units = tuple((held, nets.model_for(held, settled.facts.family)) for held in kept)
        return replace(settled, units=units, warning=warning)

    def _controlnets(self, for_what: str) -> tuple[ControlNets, Any]:
        found = versions.controlnets(self.host)
        if found is None:
            raise ToolMissing(f"the WebUI's ControlNet, which is to hold {for_what}, is missing; {HOW_TO_GET_CONTROLNET}")
        return found

    def _run(self, make: Callable[[], Any], settled: _Settled, steps: Steps, seed: int, for_images: bool) -> Pixels:
        with self.session(), sizes_for(settled.facts.family), seeded(seed):
            if versions.interrupted(self.host):
                raise Cancelled("stopped in the WebUI")
            if settled.warning and settled.warning not in self.warnings:
                self.warnings.append(settled.warning)
            processing = make()
            steps.follow(processing)
            try:
                steps.check = self._put_scripts(processing, settled, for_images)
                with versions.leaving_settings(self.host, processing.override_settings):
                    result = self.host.processing.process_images(processing)
            except EasyPhotoError:
                raise
            except Exception as error:  # the host's border: anything may come from there
                what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise JobFailed(f"the WebUI could not paint: {what}; its console says more") from error
            finally:
                processing.close()
            return self._picture(result, steps)

    def _put_scripts(self, processing: Any, settled: _Settled, for_images: bool) -> Callable[[], None]:  # noqa: ANN401
        """Give it our ControlNet units; what is returned raises ToolMissing if they turn out not to work."""
        found = versions.controlnets(self.host, for_images) if settled.units else None
        nets, script = found or (None, None)
        units = [nets.unit(held, model) for held, model in settled.units] if nets else []
        # Before the scripts: else the host's own seed script puts its default over our seed.
        processing.is_api = True
        processing.scripts = versions.private_runner(versions.runner(self.host, for_images), script)
        processing.script_args = versions.script_arguments(script, units, nets.idle_unit() if nets else None)

        def check() -> None:
            if units and not versions.controlnet_runs(script, len(units)):
                names = ", ".join(model for _, model in settled.units)
                raise ToolMissing(f"the WebUI's ControlNet failed on {names}; its console says why")

        return check

    def _picture(self, result: Any, steps: Steps) -> Pixels:  # noqa: ANN401 (the host's own class)
        if steps.wish is not None:
            raise steps.wish
        if versions.interrupted(self.host):
            raise Cancelled("stopped in the WebUI")
        comments = str(getattr(result, "comments", "") or "")
        if "not found" in comments.lower() or "networks with errors" in comments.lower():
            raise LoraError(f"the WebUI could not use the person's LoRA ({comments.strip()}); train the person again")
        pictures = result.images[result.index_of_first_image :]
        if not pictures:
            raise JobFailed("the WebUI gave no picture back; its console says why")
        return np.array(pictures[0].convert("RGB"), np.uint8)

    def _info(self) -> Any:  # noqa: ANN401 (the host's own class)
        """The host's record of the checkpoint that is worked with."""
        models = self.host.sd_models
        if self.checkpoint:
            info = models.checkpoint_aliases.get(self.checkpoint)
            if info is None:
                raise NotFound(f"the WebUI has no checkpoint {self.checkpoint}; refresh its list, or choose another")
            return info
        try:
            info = models.select_checkpoint()
        except FileNotFoundError:
            info = None
        if info is None:
            raise NotFound("the WebUI has no checkpoint; put one into models/Stable-diffusion and refresh its list")
        return info

    def _facts_of_loaded(self, name: str) -> CheckpointFacts:
        """The facts of a checkpoint in an old format: only the loaded model can say, since we open no pickle ourselves."""
        model = self.host.shared.sd_model
        if getattr(model, "is_sdxl", False):
            return CheckpointFacts(family=Family.SDXL)
        if getattr(model, "is_sd2", False):
            return CheckpointFacts(family=family_of(name, 1024))
        if not getattr(model, "is_sd1", False):
            return facts_of(name, {})
        return CheckpointFacts(family=Family.SD15)
