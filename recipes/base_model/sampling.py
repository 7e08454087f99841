"""Draw pictures with the parts of the model in plain torch, on any device: text to picture, or picture to picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DPMSolverMultistepScheduler

from recipes.base_model.architecture import SCHEDULE
from recipes.base_model.captioning import tokenize
from recipes.base_model.training import half_precision, to_pictures

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A batch of pictures to draw; every list has one entry a picture."""

    prompts: list[str]
    seeds: list[int]
    size: tuple[int, int] = (256, 256)
    """Height and width, pixels."""
    steps: int = 25
    guidance: float = 2.5
    negative: str = ""
    start: Pixels | None = None
    """N x height x width x 3 RGB: pictures to change instead of noise to begin with."""
    strength: float = 1.0
    """How far `start` is taken back towards noise, 0..1."""
    controls: list[tuple[str, Pixels, float]] = field(default_factory=list)
    """ControlNet name, N x height x width x 3 pictures, weight."""


def _pictures_to(device: str, pictures: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float()


def _noise(job: Job, device: str) -> torch.Tensor:
    shape = (4, job.size[0] // 8, job.size[1] // 8)
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in job.seeds]
    return torch.stack(drawn).to(device)


@torch.no_grad()
def draw(parts: dict[str, Any], job: Job, device: str = "cpu") -> Pixels:
    """Draw a job's pictures, N x height x width x 3 RGB; the same seeds give the same noise on every device."""
    scale = parts["vae"].config.scaling_factor
    scheduler = DPMSolverMultistepScheduler(**SCHEDULE, steps_offset=1)
    scheduler.set_timesteps(job.steps)
    first = job.steps - max(1, round(job.steps * job.strength))
    scheduler.set_begin_index(first)
    levels = scheduler.timesteps[first:]
    tokens = torch.from_numpy(tokenize(parts["tokenizer"], [job.negative] * len(job.prompts) + job.prompts))
    with half_precision(device):
        text = parts["text_encoder"](tokens.long().to(device))[0]
        x = _noise(job, device)
        if job.start is not None:
            code = parts["vae"].encode(_pictures_to(device, job.start) / 127.5 - 1).latent_dist.mean.float() * scale
            x = scheduler.add_noise(code.cpu(), x.cpu(), levels[:1]).to(device)
        shown = [
            (parts[f"controlnet_{name}"], _pictures_to(device, pictures).repeat(2, 1, 1, 1) / 255, weight)
            for name, pictures, weight in job.controls
        ]
        for level in levels:
            guess = denoise(parts["unet"], torch.cat([x, x]), level.to(device), text, shown).float()
            without, with_text = guess.chunk(2)
            x = scheduler.step(without + job.guidance * (with_text - without), level, x).prev_sample
        return to_pictures(torch.cat([parts["vae"].decode(code / scale).sample for code in x.split(8)]))


def denoise(
    unet: Any, x: torch.Tensor, level: torch.Tensor, text: torch.Tensor, shown: list[tuple[Any, torch.Tensor, float]]
) -> torch.Tensor:
    """Guess the noise, with the ControlNets' residuals added up."""
    down: list[torch.Tensor] | None = None
    middle: torch.Tensor | None = None
    for net, control, weight in shown:
        more, center = net(x, level, text, control, conditioning_scale=weight, return_dict=False)
        down = more if down is None else [a + b for a, b in zip(down, more, strict=True)]
        middle = center if middle is None else middle + center
    return unet(  # type: ignore[no-any-return]
        x, level, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
