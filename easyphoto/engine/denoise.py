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
Found = tuple["list[Tensor] | None", "Tensor | None"]
"""What ControlNets add to the UNet's way down and to its middle; None without any."""
Residuals = Callable[["Guide", "Tensor", "Tensor", int], Found]
"""Runs the ControlNets on a batch of so many halves at a timestep."""


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """What schedule and chance decide of a run, before anything is predicted: the same for all runs with the same seeds."""

    schedule: Schedule
    times: Tensor
    """(steps,) timesteps."""
    start: Tensor
    """Latents to begin with."""
    noises: tuple[Tensor, ...]
    """What each step adds; none where the sampler draws by itself (LCM's)."""
    levels: tuple[Tensor, ...]
    """The kept picture with as much noise as the painted one has after each step; none where nothing is kept."""


def lay_track(models: Models, schedule: Schedule, noise: Generator | list[Generator], start: Tensor | Kept) -> Track:
    """Draw and compute what a run needs of chance and schedule.

    Args:
        models: The scheduler's settings.
        schedule: How many steps, and from which noise level.
        noise: CPU generator of all randomness; one for each picture, where there are several.
        start: A picture to repaint in part, or latents whose shape alone counts (a picture from words).
    """
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    original = start.latents if isinstance(start, Kept) else start
    scheduler, times = _begun(models, schedule)

    def draw(precision: Any) -> Tensor:  # noqa: ANN401 (torch.dtype)
        drawn: Tensor = randn_tensor(original.shape, generator=noise, device=original.device, dtype=precision)
        return drawn

    fixed = draw(original.dtype)
    kept = isinstance(start, Kept)
    first: Tensor = scheduler.add_noise(original, fixed, times[:1]) if kept else fixed * scheduler.init_noise_sigma
    levels: list[Tensor] = []
    for done in range(1, len(times) + 1 if kept else 0):
        if hasattr(scheduler, "sigmas"):
            # DPM-Solver's noise levels go on to one of none, behind the last step.
            scheduler.set_begin_index(len(scheduler.timesteps) - len(times) + done)
            levels.append(scheduler.add_noise(original, fixed, times[:1]))
        else:
            levels.append(scheduler.add_noise(original, fixed, times[done : done + 1]) if done < len(times) else original)
    noises = () if schedule.lcm else tuple(draw(torch.float32) for _ in times)
    return Track(schedule=schedule, times=times, start=first, noises=noises, levels=tuple(levels))


def _begun(models: Models, schedule: Schedule) -> tuple[Any, Tensor]:
    """A scheduler before its first step, and the timesteps that are run."""
    scheduler = make_scheduler(models, schedule.lcm)
    more = {"original_inference_steps": max(_DISTILLED, schedule.steps)} if schedule.lcm else {}
    scheduler.set_timesteps(schedule.steps, device=models.device, **more)
    first = len(scheduler.timesteps) - schedule.executed
    scheduler.set_begin_index(first)
    return scheduler, scheduler.timesteps[first:]


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
        schedule: As for `lay_track`, like the next two.
        noise: Read to its end.
        start: What is repainted.
        on_step: Called after every step; what it raises ends the loop.
        predict: In place of `predict_noise`.
    """
    track = lay_track(models, schedule, noise, start)
    painted = start.painted if isinstance(start, Kept) else None
    return follow(models, guide, track, painted, on_step, predict, noise)


def follow(
    models: Models, guide: Guide, track: Track, painted: Tensor | None, on_step: StepListener | None = None,
    predict: Predict | None = None, noise: Generator | list[Generator] | None = None,
) -> Tensor:  # fmt: skip
    """Run along a track and return clean latents; on a GPU it waits for nothing.

    Args:
        models: UNet and the scheduler's settings.
        guide: Text states and control maps.
        track: From `lay_track`.
        painted: As in `Kept`; None where all is.
        on_step: As for `denoise`, like the next.
        predict: In place of `predict_noise`.
        noise: For a sampler that draws by itself.
    """
    scheduler, _ = _begun(models, track.schedule)
    latents = track.start
    for done, time in enumerate(track.times, start=1):
        chance = {"variance_noise": track.noises[done - 1]} if track.noises else {"generator": noise}
        predicted = (predict or predict_noise)(models, guide, latents, time)
        latents = scheduler.step(predicted, time, latents, **chance).prev_sample
        if painted is not None:
            level = track.levels[done - 1]
            latents = level + painted * (latents - level)
        if on_step:
            on_step(done, len(track.times))
    return latents


def predict_noise(
    models: Models, guide: Guide, latents: Tensor, timestep: Tensor, residuals: Residuals | None = None
) -> Tensor:
    """The guided prediction in float32: negative + guidance * (positive - negative) (arXiv 2207.12598, equation 6).

    Args:
        models: The UNet.
        guide: What it sees besides the latents.
        latents: (pictures, 4, height / 8, width / 8).
        timestep: () int64.
        residuals: How the ControlNets are run; None: one after the other.
    """
    import torch

    halves = len(guide.states) // len(latents)
    batch = latents.to(models.dtype).repeat(halves, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    down, middle = (residuals or _control_residuals)(guide, batch, timestep, halves)
    added = guide.added if guide.likeness is None else {**(guide.added or {}), "image_embeds": [guide.likeness]}
    predicted: Tensor = models.unet(
        batch, timestep, encoder_hidden_states=guide.states, added_cond_kwargs=added,
        down_block_additional_residuals=down, mid_block_additional_residual=middle, return_dict=False,
    )[0].float()  # fmt: skip
    if halves == 1:
        return predicted
    negative, positive = predicted.chunk(2)
    return negative + guide.guidance * (positive - negative)


def _control_residuals(guide: Guide, batch: Tensor, timestep: Tensor, halves: int) -> Found:
    """The sum of all ControlNets' weighted residuals (arXiv 2302.05543, section 3.4), None without ControlNets."""
    down: list[Tensor] | None = None
    middle: Tensor | None = None
    for control in guide.controls:
        more, center = net_residuals(guide, control, batch, timestep, halves)
        down = more if down is None else [a + b for a, b in zip(down, more)]
        middle = center if middle is None else middle + center
    return down, middle


def net_residuals(
    guide: Guide, control: tuple[Any, Tensor, float], batch: Tensor, timestep: Tensor, halves: int
) -> tuple[list[Tensor], Tensor]:
    """What one ControlNet adds to the UNet's way down and to its middle."""
    net, image, weight = control
    # A net without cross-attention never sees the words: both halves of a guided step get the same from it.
    seen = slice(None) if reads_text(net) else slice(len(batch) // halves)
    added = {name: rows[seen] for name, rows in guide.added.items()} if guide.added else None
    more, center = net(
        batch[seen], timestep, guide.states[seen], controlnet_cond=image, conditioning_scale=weight,
        added_cond_kwargs=added, return_dict=False,
    )  # fmt: skip
    if len(image) > 1 and len(more[0]) < len(batch):
        more, center = [part.repeat(halves, 1, 1, 1) for part in more], center.repeat(halves, 1, 1, 1)
    return more, center


def reads_text(net: Any) -> bool:  # noqa: ANN401 (diffusers ships no types)
    """Whether any block of a ControlNet attends to the text states, or it sees the pooled text."""
    if net.config.addition_embed_type is not None:
        return True
    return any(getattr(block, "has_cross_attention", False) for block in (*net.down_blocks, net.mid_block))
