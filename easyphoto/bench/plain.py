"""The plain recipe, as a rival: DreamBooth-LoRA as the field's example scripts do it, and one inpaint pass.

Written with peft and a bare loop: nothing is validated, the last step is kept (the shape of diffusers'
`train_text_to_image_lora.py`: attention projections only, learning rate 1e-4, MSE on epsilon). That script encodes the
same squares anew at every step; encoding them once gives the same numbers, and the bench does not score training time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from easyphoto.engine.models import load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.errors import ToolMissing
from easyphoto.records import CAPTION, Photo

if TYPE_CHECKING:
    from torch import Tensor

    from easyphoto.engine.models import Models

LEARNING_RATE = 1e-4
RANK = 32


def train_plain(base_model: Path, device: str, photos: Sequence[Photo], steps: int, size: int) -> StandaloneEngine:
    """An engine whose UNet carries a LoRA trained the plain way on `photos` (batch 4, seed 0)."""
    import torch

    models = load_models(base_model, device)
    _add_adapter(models)
    trained = [value for value in models.unet.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(0)
    latents = _encode(models, torch.stack([_square(photo, size) for photo in photos]))
    states = _caption_states(models)
    for _ in range(steps):
        picked = latents[torch.randint(len(latents), (4,), generator=generator)]
        loss = _loss(models, picked, states, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    models.unet.requires_grad_(False)
    return StandaloneEngine(models)


def _add_adapter(models: Models) -> None:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ToolMissing("the plain rival needs peft, which is not installed; `make bench` installs it") from error
    models.unet.requires_grad_(False)
    models.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))


def _square(photo: Photo, size: int) -> Tensor:
    """(3, size, size) in -1..1: the middle square of the crop."""
    import cv2
    import torch

    side = min(photo.height, photo.width)
    top, left = (photo.height - side) // 2, (photo.width - side) // 2
    cut = cv2.resize(photo.pixels[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1).float() / 127.5 - 1.0


def _caption_states(models: Models) -> Tensor:
    import torch

    tokens = models.tokenizer(
        CAPTION, padding="max_length", truncation=True, max_length=models.tokenizer.model_max_length, return_tensors="pt"
    )
    with torch.no_grad():
        states: Tensor = models.text_encoder(tokens.input_ids.to(models.device)).last_hidden_state
    return states


def _encode(models: Models, pictures: Tensor) -> Tensor:
    """(n, 4, size / 8, size / 8) scaled latents of pictures in -1..1; the autoencoder is float32 on every device."""
    import torch

    with torch.no_grad():
        codes = [models.vae.encode(picture[None].to(models.device)).latent_dist.mean for picture in pictures]
        latents: Tensor = torch.cat(codes).to(models.dtype) * models.vae.config.scaling_factor
    return latents


def _loss(models: Models, latents: Tensor, states: Tensor, generator: object) -> Tensor:
    """MSE between the noise and the prediction at uniform timesteps (arXiv 2006.11239, equation 14)."""
    import torch
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(dict(models.scheduler_config))
    noise = torch.randn(latents.shape, generator=generator).to(latents)  # type: ignore[call-overload]
    steps = torch.randint(1000, (len(latents),), generator=generator)  # type: ignore[call-overload]
    noisy = scheduler.add_noise(latents, noise, steps).contiguous(memory_format=torch.channels_last)
    predicted = models.unet(noisy, steps.to(models.device), states.expand(len(latents), -1, -1)).sample
    return torch.nn.functional.mse_loss(predicted.float(), noise.float())


