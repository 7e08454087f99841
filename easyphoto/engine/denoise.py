"""The denoising loop: DPM-Solver++ with guidance, ControlNets and a kept region, on any loaded `Models`.

An explicit loop instead of diffusers' ControlNet inpaint pipeline, because it skips the negative half when guidance is 1,
embeds each control map once instead of at every step, takes its noise from one CPU generator (the same picture on every
device) and can be stopped after any step; the scheduler and the networks are diffusers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easyphoto.engine.base import StepListener
from easyphoto.engine.models import Models
from easyphoto.families import PROFILES
from easyphoto.records import Condition

if TYPE_CHECKING:
    from torch import Generator, Tensor

_DISTILLED = 50
"""Steps of the schedule that LCM's few are picked from."""
LATENT_FACTOR = 8
"""Pixels along one side of a latent cell."""
Predict = Callable[[Models, "Guide", "Tensor", "Tensor"], "Tensor"]
"""Like `predict_noise`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Guide:
    """What the UNet sees besides the latents."""

    states: Tensor
    """(2, tokens, width): negative and positive text states; (1, tokens, width) positive alone when guidance is 1. For several
    pictures at once, each row as often as there are pictures."""
    guidance: float
    controls: tuple[tuple[Any, Tensor, float], ...]
    """(ControlNet, map as (1, 3, height, width) in 0-1, weight); of several pictures a map for each row the net is given."""
    added: dict[str, Tensor] | None = None
    """SDXL's pooled text and sizes, as many rows as `states` has (see `text.added_conditions`)."""
    likeness: Tensor | None = None
    """(rows of `states`, 1, patches, width): what the IP-Adapter that is in the UNet reads of a face; None without one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """What stays as it is while the rest is painted."""

    latents: Tensor
    """(pictures, 4, height / 8, width / 8) of the whole picture."""
    painted: Tensor
    """(pictures, 1, height / 8, width / 8): 1 where painted anew, 0 where kept."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How much of the noise schedule is run."""

    steps: int
    strength: float
    """1 starts from noise alone."""
    lcm: bool = False
    """Sample as an LCM-LoRA wants it."""

    @property
    def executed(self) -> int:
        """Steps that are really run, at least one."""
        # The small term keeps 0.55 * 20 from becoming 10 by rounding.
        return max(1, min(self.steps, int(self.steps * self.strength + 1e-6)))


def make_scheduler(models: Models, lcm: bool = False) -> Any:  # noqa: ANN401 (diffusers ships no types)
    """DPM-Solver++ 2M SDE (arXiv 2211.01095, section 5) on the family's noise levels; else LCM's (arXiv 2310.04378)."""
    from diffusers import DPMSolverMultistepScheduler, LCMScheduler

    if lcm:
        known = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
        return LCMScheduler(**{key: models.scheduler_config[key] for key in known if key in models.scheduler_config})
    kept = {key: value for key, value in models.scheduler_config.items() if not key.startswith("_")}
    return DPMSolverMultistepScheduler.from_config(
        kept, algorithm_type="sde-dpmsolver++", solver_order=2, use_karras_sigmas=PROFILES[models.family].karras,
        final_sigmas_type="zero", lower_order_final=True, thresholding=False,
    )  # fmt: skip


def embed_controls(models: Models, conditions: Sequence[Condition]) -> tuple[tuple[Any, Tensor, float], ...]:
    """The ControlNets of a job with their maps as tensors; raises ToolMissing for one that is not there."""
    import torch

    controls = []
    for condition in conditions:
        if condition.weight == 0:
            continue
        pixels = torch.from_numpy(condition.image.copy()).permute(2, 0, 1)[None]
        controls.append((models.controlnet(condition.kind), (pixels / 255).to(models.device, models.dtype), condition.weight))
    return tuple(controls)


def denoise(
    models: Models,
    guide: Guide,
    schedule: Schedule,
    noise: Generator | list[Generator],
    start: Tensor | Kept,
    on_step: StepListener | None = None,
    predict: Predict | None = None,
) -> Tensor:
    """Run the schedule and return clean latents.

    Args:
        models: UNet and scheduler.
        guide: Text states and control maps.
        schedule: How many steps, and from which noise level.
        noise: CPU generator of all randomness; one for each picture, where there are several.
        start: A picture to repaint in part, or latents whose shape alone counts (a picture from words).
        on_step: Called after every step; what it raises ends the loop.
        predict: In place of `predict_noise`.
    """
    from diffusers.utils.torch_utils import randn_tensor

    kept = start if isinstance(start, Kept) else None
    original = start.latents if isinstance(start, Kept) else start
    scheduler = make_scheduler(models, schedule.lcm)
    more = {"original_inference_steps": max(_DISTILLED, schedule.steps)} if schedule.lcm else {}
    scheduler.set_timesteps(schedule.steps, device=models.device, **more)
    first = len(scheduler.timesteps) - schedule.executed
    scheduler.set_begin_index(first)
    timesteps = scheduler.timesteps[first:]
    fixed = randn_tensor(original.shape, generator=noise, device=original.device, dtype=original.dtype)
    latents: Tensor = scheduler.add_noise(original, fixed, timesteps[:1]) if kept else fixed * scheduler.init_noise_sigma
    for done, timestep in enumerate(timesteps, start=1):
        predicted = (predict or predict_noise)(models, guide, latents, timestep)
        latents = scheduler.step(predicted, timestep, latents, generator=noise).prev_sample
        if kept:
            level = _next_level(scheduler, original, fixed, timesteps[done - 1 :])
            latents = level + kept.painted * (latents - level)
        if on_step:
            on_step(done, len(timesteps))
    return latents


def _next_level(scheduler: Any, original: Tensor, fixed: Tensor, ahead: Tensor) -> Tensor:  # noqa: ANN401
    """The kept picture with as much noise as the painted one has after a step; `ahead` begins with that step's time."""
    if hasattr(scheduler, "sigmas"):
        # After `step` DPM-Solver's stands at the next noise level, zero after the last.
        return scheduler.add_noise(original, fixed, ahead[:1])  # type: ignore[no-any-return]
    return scheduler.add_noise(original, fixed, ahead[1:2]) if len(ahead) > 1 else original


def predict_noise(models: Models, guide: Guide, latents: Tensor, timestep: Tensor) -> Tensor:
    """The guided prediction in float32: negative + guidance * (positive - negative) (arXiv 2207.12598, equation 6)."""
    import torch

    halves = len(guide.states) // len(latents)
    batch = latents.to(models.dtype).repeat(halves, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    down, middle = _control_residuals(guide, batch, timestep, halves)
    added = guide.added if guide.likeness is None else {**(guide.added or {}), "image_embeds": [guide.likeness]}
    predicted: Tensor = models.unet(
        batch, timestep, encoder_hidden_states=guide.states, added_cond_kwargs=added,
        down_block_additional_residuals=down, mid_block_additional_residual=middle, return_dict=False,
    )[0].float()  # fmt: skip
    if halves == 1:
        return predicted
    negative, positive = predicted.chunk(2)
    return negative + guide.guidance * (positive - negative)


def _control_residuals(guide: Guide, batch: Tensor, timestep: Tensor, halves: int) -> tuple[list[Tensor] | None, Tensor | None]:
    """The sum of all ControlNets' weighted residuals (arXiv 2302.05543, section 3.4), None without ControlNets."""
    down: list[Tensor] | None = None
    middle: Tensor | None = None
    for net, image, weight in guide.controls:
        # A net without cross-attention never sees the words: both halves of a guided step get the same from it.
        seen = slice(None) if reads_text(net) else slice(len(batch) // halves)
        added = {name: rows[seen] for name, rows in guide.added.items()} if guide.added else None
        more, center = net(
            batch[seen], timestep, guide.states[seen], controlnet_cond=image, conditioning_scale=weight,
            added_cond_kwargs=added, return_dict=False,
        )  # fmt: skip
        if len(image) > 1 and len(more[0]) < len(batch):
            more, center = [part.repeat(halves, 1, 1, 1) for part in more], center.repeat(halves, 1, 1, 1)
        down = more if down is None else [a + b for a, b in zip(down, more)]
        middle = center if middle is None else middle + center
    return down, middle


def reads_text(net: Any) -> bool:  # noqa: ANN401 (diffusers ships no types)
    """Whether any block of a ControlNet attends to the text states, or it sees the pooled text."""
    if net.config.addition_embed_type is not None:
        return True
    return any(getattr(block, "has_cross_attention", False) for block in (*net.down_blocks, net.mid_block))
