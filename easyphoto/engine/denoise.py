"""The denoising loop: DPM-Solver++ with guidance, ControlNets and a kept region, on any loaded `Models`.

An explicit loop instead of diffusers' ControlNet inpaint pipeline, because it skips the negative half when guidance is 1,
embeds each control map once instead of at every step, takes its noise from one CPU generator (the same picture on every
device) and can be stopped after any step; the scheduler and the networks are diffusers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easyphoto.engine.base import StepListener
from easyphoto.engine.models import Models
from easyphoto.families import PROFILES
from easyphoto.records import Condition

if TYPE_CHECKING:
    from torch import Generator, Tensor

LATENT_FACTOR = 8
"""Pixels along one side of a latent cell."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Guide:
    """What the UNet sees besides the latents."""

    states: Tensor
    """(2, tokens, width): negative and positive text states; (1, tokens, width) positive alone when guidance is 1."""
    guidance: float
    controls: tuple[tuple[Any, Tensor, float], ...]
    """(ControlNet, map as (1, 3, height, width) in 0-1, weight)."""
    added: dict[str, Tensor] | None = None
    """SDXL's pooled text and sizes, as many rows as `states` has (see `text.added_conditions`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """What stays as it is while the rest is painted."""

    latents: Tensor
    """(1, 4, height / 8, width / 8) of the whole picture."""
    painted: Tensor
    """(1, 1, height / 8, width / 8): 1 where painted anew, 0 where kept."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How much of the noise schedule is run."""

    steps: int
    strength: float
    """1 starts from noise alone."""

    @property
    def executed(self) -> int:
        """Steps that are really run, at least one."""
        # The small term keeps 0.55 * 20 from becoming 10 by rounding.
        return max(1, min(self.steps, int(self.steps * self.strength + 1e-6)))


def make_scheduler(models: Models) -> Any:  # noqa: ANN401 (diffusers ships no types)
    """DPM-Solver++ 2M SDE (arXiv 2211.01095, section 5) on the family's noise levels."""
    from diffusers import DPMSolverMultistepScheduler

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
    noise: Generator,
    start: Tensor | Kept,
    on_step: StepListener | None = None,
) -> Tensor:
    """Run the schedule and return clean latents.

    Args:
        models: UNet and scheduler.
        guide: Text states and control maps.
        schedule: How many steps, and from which noise level.
        noise: CPU generator of all randomness.
        start: A picture to repaint in part, or latents whose shape alone counts (a picture from words).
        on_step: Called after every step; what it raises ends the loop.
    """
    from diffusers.utils.torch_utils import randn_tensor

    kept = start if isinstance(start, Kept) else None
    original = start.latents if isinstance(start, Kept) else start
    scheduler = make_scheduler(models)
    scheduler.set_timesteps(schedule.steps, device=models.device)
    first = len(scheduler.timesteps) - schedule.executed
    scheduler.set_begin_index(first)
    timesteps = scheduler.timesteps[first:]
    fixed = randn_tensor(original.shape, generator=noise, device=original.device, dtype=original.dtype)
    latents: Tensor = scheduler.add_noise(original, fixed, timesteps[:1]) if kept else fixed * scheduler.init_noise_sigma
    for done, timestep in enumerate(timesteps, start=1):
        predicted = predict_noise(models, guide, latents, timestep)
        latents = scheduler.step(predicted, timestep, latents, generator=noise).prev_sample
        if kept:
            # After `step` the scheduler stands at the next noise level, zero after the last.
            level = scheduler.add_noise(original, fixed, timestep[None])
            latents = level + kept.painted * (latents - level)
        if on_step:
            on_step(done, len(timesteps))
    return latents


def predict_noise(models: Models, guide: Guide, latents: Tensor, timestep: Tensor) -> Tensor:
    """The guided prediction in float32: negative + guidance * (positive - negative) (arXiv 2207.12598, equation 6)."""
    import torch

    batch = latents.to(models.dtype).expand(len(guide.states), -1, -1, -1).contiguous(memory_format=torch.channels_last)
    down, middle = _control_residuals(guide, batch, timestep)
    predicted: Tensor = models.unet(
        batch, timestep, encoder_hidden_states=guide.states, added_cond_kwargs=guide.added,
        down_block_additional_residuals=down, mid_block_additional_residual=middle, return_dict=False,
    )[0].float()  # fmt: skip
    if len(guide.states) == 1:
        return predicted
    negative, positive = predicted[:1], predicted[1:]
    return negative + guide.guidance * (positive - negative)


def _control_residuals(guide: Guide, batch: Tensor, timestep: Tensor) -> tuple[list[Tensor] | None, Tensor | None]:
    """The sum of all ControlNets' weighted residuals (arXiv 2302.05543, section 3.4), None without ControlNets."""
    down: list[Tensor] | None = None
    middle: Tensor | None = None
    for net, image, weight in guide.controls:
        # A net without cross-attention never sees the words: both halves of a guided step get the same from it.
        seen = slice(None) if _reads_text(net) else slice(1)
        added = {name: rows[seen] for name, rows in guide.added.items()} if guide.added else None
        more, center = net(
            batch[seen], timestep, guide.states[seen], controlnet_cond=image, conditioning_scale=weight,
            added_cond_kwargs=added, return_dict=False,
        )  # fmt: skip
        down = more if down is None else [a + b for a, b in zip(down, more)]
        middle = center if middle is None else middle + center
    return down, middle


def _reads_text(net: Any) -> bool:  # noqa: ANN401 (diffusers ships no types)
    """Whether any block of a ControlNet attends to the text states, or it sees the pooled text."""
    if net.config.addition_embed_type is not None:
        return True
    return any(getattr(block, "has_cross_attention", False) for block in (*net.down_blocks, net.mid_block))
