"""One recipe of `recipes.py`: train people side by side, and render what they have learnt at some steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.recipe_list import Recipe
from benchmarks.recipe_people import Subject
from easyphoto.engine.denoise import LATENT_FACTOR, Guide, Schedule, embed_controls, make_scheduler
from easyphoto.engine.models import Models
from easyphoto.engine.text import encode_prompts
from easyphoto.records import InpaintJob, Pixels
from easyphoto.training.dataset import cache_latents
from easyphoto.training.draws import Learner
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.trainer import Training

if TYPE_CHECKING:
    from torch import Tensor

_LOSSY = 90


def run_recipe(
    models: Models, recipe: Recipe, people: Sequence[Subject], folder: Path, steps: int, at: Sequence[int]
) -> dict[str, Any]:
    """Train, render, and tell how long the steps alone took; pictures are written as `<person>-<step>-<template>.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = recipe.spec(models.folder, steps)
    learners = []
    for number, one in enumerate(people):
        own = replace(spec, seed=number + 1000 * recipe.seed)
        learners.append(Learner(cache=cache_latents(models, one.prepared, own, lambda _done, _total: None), spec=own))
    network = LoraNetwork(models, spec.lora, [learner.spec.seed for learner in learners])
    network.settle(models.dtype)
    network.attach()
    training, trained = Training(models, network, learners), 0.0
    marks = sorted({*(step for step in at if step < training.total), training.total})
    try:
        for mark in marks:
            began = time.perf_counter()
            while training.step < mark:
                training.update()
            training.flush()
            trained += time.perf_counter() - began
            with training.averaged():
                for number, one in enumerate(people):
                    with network.fused(number):
                        _show(models, one, folder, mark)
    finally:
        network.detach()
    return {
        "people": [one.name for one in people], "steps": training.total, "seconds": round(trained, 3),
        "device": models.device, "losses": [round(float(loss), 5) for loss in training.losses],
    }  # fmt: skip


def _show(models: Models, one: Subject, folder: Path, step: int) -> None:
    pictures = render_all(models, [job for _, job in one.jobs])
    for (name, _), pixels in zip(one.jobs, pictures):
        Image.fromarray(pixels).save(folder / f"{one.name}-{step:04d}-{name}.jpg", quality=_LOSSY)


def render_all(models: Models, jobs: Sequence[InpaintJob]) -> list[Pixels]:
    """What the engine's `inpaint` makes of each job, all at once: one size, prompt and schedule, guidance 1, no LoRA."""
    import torch

    first = jobs[0]
    noises = [torch.Generator("cpu").manual_seed(job.seed) for job in jobs]
    with torch.inference_mode():
        original = torch.cat([_encode(models, job.image) for job in jobs])
        cells = torch.nn.functional.max_pool2d(torch.from_numpy(np.stack([job.mask for job in jobs]))[:, None], LATENT_FACTOR)
        painted = (cells > 0.1).float().to(models.device)
        states = encode_prompts(models, [first.prompt]).states.expand(len(jobs), -1, -1)
        parts = [embed_controls(models, job.conditions) for job in jobs]
        controls = tuple(
            (net, torch.cat([part[place][1] for part in parts]), weight) for place, (net, _, weight) in enumerate(parts[0])
        )
        guide = Guide(states=states, guidance=1.0, controls=controls)
        latents = _denoise(models, guide, Schedule(steps=first.steps, strength=first.strength), noises, original, painted)
        images = models.vae.decode(latents / models.vae.config.scaling_factor).sample
        pictures = ((images.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy()
    return [
        np.rint(job.image + job.mask[..., None] * (picture - job.image)).astype(np.uint8)
        for job, picture in zip(jobs, pictures)
    ]


def _encode(models: Models, pixels: Pixels) -> Tensor:
    import torch

    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(models.device) / 127.5 - 1
    found: Tensor = models.vae.encode(image.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
    return found * models.vae.config.scaling_factor


def _denoise(
    models: Models, guide: Guide, schedule: Schedule, noises: list[Any], original: Tensor, painted: Tensor
) -> Tensor:
    """`engine.denoise.denoise` for several pictures, each with noise of its own."""
    from diffusers.utils.torch_utils import randn_tensor

    scheduler = make_scheduler(models)
    scheduler.set_timesteps(schedule.steps, device=models.device)
    start = len(scheduler.timesteps) - schedule.executed
    scheduler.set_begin_index(start)
    fixed = randn_tensor(original.shape, generator=noises, device=original.device, dtype=original.dtype)
    latents: Tensor = scheduler.add_noise(original, fixed, scheduler.timesteps[start : start + 1])
    for timestep in scheduler.timesteps[start:]:
        latents = scheduler.step(_predict(models, guide, latents, timestep), timestep, latents, generator=noises).prev_sample
        level = scheduler.add_noise(original, fixed, timestep[None])
        latents = level + painted * (latents - level)
    return latents


def _predict(models: Models, guide: Guide, latents: Tensor, timestep: Tensor) -> Tensor:
    import torch

    batch = latents.to(models.dtype).contiguous(memory_format=torch.channels_last)
    down, middle = None, None
    for net, image, weight in guide.controls:
        more, center = net(
            batch, timestep, guide.states, controlnet_cond=image, conditioning_scale=weight, return_dict=False
        )
        down = more if down is None else [a + b for a, b in zip(down, more)]
        middle = center if middle is None else middle + center
    predicted: Tensor = models.unet(
        batch, timestep, encoder_hidden_states=guide.states, down_block_additional_residuals=down,
        mid_block_additional_residual=middle, return_dict=False,
    )[0].float()  # fmt: skip
    return predicted
