"""Step 3: train the denoiser and the text encoder on latents of crops at several sizes.

    python -m recipes.base_model.diffusion DATA WEIGHTS --tokenizer TOKENIZER

Waits for DATA/frames.npy and WEIGHTS/vae.safetensors, so it may be started with the earlier steps. Writes
WEIGHTS/unet.safetensors, text_encoder.safetensors and sample sheets.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from recipes.base_model.architecture import build_scheduler, build_text_encoder, build_unet, build_vae
from recipes.base_model.captioning import caption_crops, tokenize
from recipes.base_model.captions import Person
from recipes.base_model.crops import Crops, Frames, cut, draw_crops, load_frames, wait_for
from recipes.base_model.training import (
    Average,
    Clock,
    alphas,
    half_precision,
    maybe_compile,
    noisy,
    prepare,
    save_sheet,
    save_weights,
    step_parser,
    to_pictures,
)
from recipes.base_model.vocabulary import load_tokenizer

PROMPTS = (
    "photo of a woman", "photo of a man", "easyphoto_face, easyphoto, 1person", "portrait of a young woman, smiling",
    "portrait of an old man, neutral expression", "close-up of a 30-year-old woman, outdoors",
    "half-body portrait of a middle-aged man, outdoors", "half-body portrait of a young woman, plain background",
)  # fmt: skip


@dataclass(frozen=True)
class Bucket:
    """Crops of one size: how many are cut, in which share of steps they come, in what batch."""

    size: int
    count: int
    share: float
    batch: int
    ratios: tuple[tuple[float, float], ...]


BUCKETS = (
    Bucket(256, 56_000, 0.74, 256, ((1.5, 2.6), (1.5, 2.6), (1.5, 2.6), (1.5, 2.6), (2.4, 5.0))),
    Bucket(384, 10_000, 0.13, 112, ((1.5, 2.6), (1.5, 2.6), (2.2, 5.0))),
    Bucket(512, 8_000, 0.13, 64, ((1.6, 2.6), (2.6, 6.0), (6.0, 9.0))),
)


@dataclass(frozen=True)
class Latents:
    """What one bucket's training steps read, on the training device."""

    codes: torch.Tensor
    """N x 4 x size/8 x size/8, scaled to unit variance, float16."""
    tokens: torch.Tensor
    """N x wordings x 77."""


def spoil(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Blur by shrinking, and add noise: the pictures that are captioned "blurry, low quality"."""
    size = pictures.shape[-1]
    small = F.interpolate(pictures, size=int(size / rng.uniform(3, 7)), mode="area")
    blurred = F.interpolate(small, size=(size, size), mode="bicubic").clamp(-1, 1)
    return (blurred + float(rng.uniform(0, 0.08)) * torch.randn_like(blurred)).clamp(-1, 1)


def draw_bucket(frames: Frames, bucket: Bucket, count: int, rng: np.random.Generator) -> Crops:
    """Draw a bucket's crops: an equal share of each of its ranges of framing."""
    each = [draw_crops(frames, count // len(bucket.ratios), ratios, rng) for ratios in bucket.ratios]
    names = ("frame", "center", "side", "angle", "mirrored", "ratio")
    return Crops(*(np.concatenate([getattr(crops, name) for crops in each]) for name in names))


@torch.no_grad()
def encode_crops(
    vae: Any, frames: Frames, crops: Crops, spoiled: np.ndarray[Any, np.dtype[np.bool_]], size: int, scale: float
) -> torch.Tensor:
    """Return the scaled latents of crops, float16."""
    device = frames.pixels.device.type
    rng, codes, step = np.random.default_rng(1), [], max(1, 128 * 256**2 // size**2)
    for start in range(0, len(crops), step):
        pictures = cut(frames, crops[start : start + step], size)
        rows = torch.from_numpy(np.flatnonzero(spoiled[start : start + step])).to(pictures.device)
        if len(rows):
            pictures[rows] = spoil(pictures[rows], rng)
        with half_precision(device):
            code = vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist.mean
        codes.append((code.float() * scale).half())
    return torch.cat(codes)


def load_vae(weights: Path, device: str) -> tuple[Any, float]:
    """Load the trained autoencoder and its scaling factor, waiting for them."""
    scale = json.loads(wait_for(weights / "scale.json").read_text())["scaling_factor"]
    vae = build_vae()
    vae.load_state_dict({k: v.float() for k, v in load_file(weights / "vae.safetensors").items()})
    return vae.to(device, memory_format=torch.channels_last).eval().requires_grad_(False), scale


def prepare_latents(args: argparse.Namespace, tokenizer: Any, rng: np.random.Generator) -> list[Latents]:
    """Draw, caption and encode all crops."""
    frames = load_frames(args.data, args.device)
    people = [Person(**{**p, "identities": tuple(p["identities"])}) for p in
              json.loads((args.data / "people.json").read_text())]
    plans = []
    for bucket in BUCKETS:
        crops = draw_bucket(frames, bucket, max(int(bucket.count * args.scale), 6), rng)
        spoiled = rng.random(len(crops)) < 0.04
        tokens = caption_crops(frames, crops, people, spoiled, args.wordings, tokenizer)
        plans.append((bucket, crops, spoiled, torch.from_numpy(tokens).to(args.device)))
    print("captions ready", flush=True)
    vae, scale = load_vae(args.out, args.device)
    return [
        Latents(encode_crops(vae, frames, crops, spoiled, bucket.size, scale), tokens)
        for bucket, crops, spoiled, tokens in plans
    ]


class Trainer:
    """Denoiser and text encoder with their optimizer and moving average."""

    def __init__(self, args: argparse.Namespace, tokenizer: Any) -> None:
        self.args, self.tokenizer = args, tokenizer
        self.unet = build_unet().to(args.device, memory_format=torch.channels_last)
        self.text = build_text_encoder(len(tokenizer)).to(args.device)
        if args.resume:
            for module, name in ((self.unet, "unet"), (self.text, "text_encoder")):
                state = load_file(args.out / f"{name}.safetensors")
                module.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
        self.parameters = [*self.unet.parameters(), *self.text.parameters()]
        fused = args.device == "cuda"
        self.optimizer = torch.optim.AdamW(self.parameters, 1e-4, (0.9, 0.99), weight_decay=0.01, fused=fused)
        self.average = Average(self.parameters, args.decay)
        self.share = alphas(args.device)
        self.denoise = maybe_compile(self._denoise, args)
        self.empty = torch.from_numpy(tokenize(tokenizer, [""])).to(args.device)[0]

    def _denoise(self, x: torch.Tensor, levels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.unet(x, levels, text, return_dict=False)[0]  # type: ignore[no-any-return]

    def loss(self, codes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the weighted error on the noise."""
        x, levels, noise, weight = noisy(codes, self.share)
        with half_precision(self.args.device):
            text = self.text(tokens.long())[0]
            guess = self.denoise(x.contiguous(memory_format=torch.channels_last), levels, text)
        return (weight * (guess.float() - noise) ** 2).mean()

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """Take one optimizer step."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.average.update()

    def warm_up(self, batch_scale: float) -> None:
        """Compile every bucket's shapes on noise."""
        for bucket in BUCKETS:
            batch, side = max(1, int(bucket.batch * batch_scale)), bucket.size // 8
            codes = torch.randn(batch, 4, side, side, device=self.args.device)
            self.loss(codes, self.empty.expand(batch, 77)).backward()
        self.optimizer.zero_grad()

    def draw(self, latents: Latents, batch: int) -> torch.Tensor:
        """Return the loss of a random batch; one caption in ten is empty."""
        device = latents.codes.device
        rows = torch.randint(0, len(latents.codes), (batch,), device=device)
        wording = torch.randint(0, latents.tokens.shape[1], (batch,), device=device)
        tokens = latents.tokens[rows, wording]
        tokens = torch.where(torch.rand(batch, 1, device=device) < 0.1, self.empty, tokens)
        return self.loss(latents.codes[rows].float(), tokens)

    def save(self, sheet: str, sampled_size: int = 256) -> None:
        """Write averaged weights and a sheet of samples."""
        self.average.swap()
        save_weights(self.unet, self.args.out / "unet.safetensors")
        save_weights(self.text, self.args.out / "text_encoder.safetensors")
        vae, scale = load_vae(self.args.out, self.args.device)
        prompts = [prompt for prompt in PROMPTS for _ in range(4)]
        if self.args.device == "cpu":
            prompts, sampled_size = prompts[:2], 64
        pictures = sample(self, vae, scale, prompts, sampled_size)
        save_sheet(self.args.out / "sheets" / f"{sheet}.jpg", to_pictures(pictures), min(8, len(prompts)))
        self.average.swap()


@torch.no_grad()
def sample(trainer: Trainer, vae: Any, scale: float, prompts: list[str], size: int, steps: int = 25) -> torch.Tensor:
    """Draw pictures with classifier-free guidance 4; returns N x 3 x size x size in -1..1."""
    device = trainer.args.device
    tokens = torch.from_numpy(tokenize(trainer.tokenizer, ["blurry, low quality"] * len(prompts) + prompts)).to(device)
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    generator = torch.Generator(device).manual_seed(7)
    x = torch.randn(len(prompts), 4, size // 8, size // 8, generator=generator, device=device)
    with half_precision(device):
        text = trainer.text(tokens.long())[0]
        for level in scheduler.timesteps:
            guess = trainer.unet(torch.cat([x, x]), level.to(device), text).sample.float()
            without, with_text = guess.chunk(2)
            x = scheduler.step(without + 4 * (with_text - without), level, x).prev_sample
        return torch.cat([vae.decode(part / scale).sample.float() for part in x.split(16)])


def main() -> None:
    """Run the step."""
    parser = step_parser(__doc__, seconds=900)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=4e-4, help="peak learning rate")
    parser.add_argument("--decay", type=float, default=0.9995, help="of the moving average")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the crops to use (tests)")
    parser.add_argument("--wordings", type=int, default=5)
    parser.add_argument("--resume", action="store_true", help="start from the weights in WEIGHTS")
    parser.add_argument("--batch-scale", type=float, default=1.0)
    args = parser.parse_args()
    rng = prepare(args)
    tokenizer = load_tokenizer(args.tokenizer)
    trainer = Trainer(args, tokenizer)
    if not args.no_compile:
        trainer.warm_up(args.batch_scale)
        print("compiled", flush=True)
    latents = prepare_latents(args, tokenizer, rng)
    shapes = [tuple(part.codes.shape) for part in latents]
    print(f"latents {shapes} std {float(latents[0].codes.float().std()):.3f}", flush=True)
    train(trainer, latents, rng)


def train(trainer: Trainer, latents: list[Latents], rng: np.random.Generator) -> None:
    """Train until the clock runs out, with a sheet of samples every 1,500 steps."""
    args = trainer.args
    clock, kept = Clock(args.steps, args.seconds), []
    shares = [bucket.share for bucket in BUCKETS]
    while True:
        which = int(rng.choice(len(BUCKETS), p=shares))
        batch = max(1, int(BUCKETS[which].batch * args.batch_scale))
        loss = trainer.draw(latents[which], batch)
        trainer.step(loss, clock.rate(args.rate, 500))
        kept.append(loss.detach())
        more = clock.tick()
        if clock.step % 250 == 0:
            mean = float(torch.stack(kept).mean())
            print(f"unet {clock.step} {clock.elapsed:.0f} s loss {mean:.4f}", flush=True)
            kept = []
        if clock.step % 1500 == 0 or not more:
            trainer.save(f"unet_{clock.step:05d}")
        if not more:
            break
    print("done", flush=True)


if __name__ == "__main__":
    main()
