"""Step 2: train the autoencoder; step 5: polish its decoder with a patch discriminator.

    python -m recipes.base_model.autoencoder DATA WEIGHTS --portraits PORTRAITS
    python -m recipes.base_model.autoencoder DATA WEIGHTS --portraits PORTRAITS --start OLD.safetensors --rate 5e-4
    python -m recipes.base_model.autoencoder DATA WEIGHTS --portraits PORTRAITS --polish

The first two write WEIGHTS/vae.safetensors and scale.json, the second from weights that exist. The third leaves the encoder
as it is (so latents, denoiser and ControlNets stay valid), sharpens the decoder, and keeps the result only where PSNR stays
above `--floor`.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from recipes.base_model.architecture import build_vae
from recipes.base_model.crops import Crops, Frames, cut, draw_crops, load_frames
from recipes.base_model.training import (
    Average,
    Clock,
    half_precision,
    maybe_compile,
    prepare,
    save_sheet,
    save_weights,
    step_parser,
    to_pictures,
    write_json,
)

PATCH = 128
NEAR_FACES = 0.8
"""Share of patches that lie on a face; the rest lie anywhere."""
SOFT = (1.4, 1.8, 2.3, 3.0)
"""Factors by which some patches are shrunken and enlarged again, as old or small photos are."""


def held_out_scene(portraits: Path, device: str, ratio: float = 1.8) -> tuple[Frames, Crops]:
    """Return the held-out portraits as frames, and straight crops of `ratio` face sizes around their faces."""
    from recipes.base_model.fusion import read_portraits, split_held_out  # needs scipy, which training does not

    held_out = split_held_out(read_portraits(portraits))[1]
    pixels = torch.from_numpy(np.stack([p.bgr[..., ::-1] for p in held_out])).to(device)
    index = np.arange(len(held_out))
    frames = Frames(
        pixels, np.stack([p.face for p in held_out]), np.stack([p.pose for p in held_out]),
        np.stack([index, index], 1).astype(np.int32),
    )  # fmt: skip
    center, size = frames.boxes
    side = np.minimum(ratio * size, frames.side).astype(np.float32)
    center = np.clip(center, side[:, None] / 2, frames.side - side[:, None] / 2).astype(np.float32)
    return frames, Crops(index, center, side, np.zeros_like(side), np.zeros(len(side), bool), side / size)


def held_out_crops(portraits: Path, device: str, size: int = 256, ratio: float = 1.8) -> torch.Tensor:
    """Cut the held-out portraits around their faces, N x 3 x size x size in -1..1."""
    return cut(*held_out_scene(portraits, device, ratio), size)


def draw_patches(frames: Frames, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Cut patches at the scales that matter: most on a face at 256 px a crop, the rest anywhere."""
    crops = draw_crops(frames, count, (1.4, 3.0), rng)
    scale = PATCH / 256
    anywhere = rng.random(count) > NEAR_FACES
    side = np.where(anywhere, rng.uniform(100, frames.side / 2, count), crops.side * scale).astype(np.float32)
    spread = rng.normal(0, 0.22, (count, 2)).clip(-0.5, 0.5) * (crops.side * (1 - scale))[:, None]
    center = crops.center + spread.astype(np.float32)
    center[anywhere] = rng.uniform(0, frames.side, (int(anywhere.sum()), 2))
    center = np.clip(center, side[:, None] / 2, frames.side - side[:, None] / 2).astype(np.float32)
    patches = cut(frames, Crops(crops.frame, center, side, crops.angle, crops.mirrored, crops.ratio), PATCH)
    return like_other_cameras(patches, rng).contiguous(memory_format=torch.channels_last)


def like_other_cameras(patches: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Soften the last half of a batch, then vary contrast, tint and light, so that real photos lie inside what was seen."""
    count = len(patches)
    parts, step = [patches[: count - len(SOFT) * (count // 8)]], count // 8
    for index, factor in enumerate(SOFT):
        part = patches[len(parts[0]) + index * step :][:step]
        small = F.interpolate(part, size=round(PATCH / factor), mode="bicubic", antialias=True)
        parts.append(F.interpolate(small, size=PATCH, mode="bicubic"))
    contrast, tint, light = (
        torch.from_numpy(rng.normal(mean, spread, (count, channels, 1, 1)).astype(np.float32)).to(patches)
        for mean, spread, channels in ((1, 0.12, 1), (1, 0.06, 3), (0, 0.1, 1))
    )
    return (torch.cat(parts) * contrast * tint + light).clamp(-1, 1)


def picture_error(error: torch.Tensor) -> torch.Tensor:
    """L1 and squared error, the latter also at half and a quarter of the size: there lies what tells people apart."""
    half = F.avg_pool2d(error, 2)
    squares = (error**2).mean() + (half**2).mean() + 2 * (F.avg_pool2d(half, 2) ** 2).mean()
    return 0.3 * error.abs().mean() + 4 * squares


@torch.no_grad()
def psnr(vae: Any, pictures: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return the mean PSNR (dB, over pictures) of encoding and decoding, and the decoded pictures."""
    decoded = torch.cat([vae.decode(vae.encode(x).latent_dist.mean).sample for x in pictures.split(16)]).clamp(-1, 1)
    error = (((decoded - pictures) / 2) ** 2).mean((1, 2, 3))
    return float((-10 * torch.log10(error)).mean()), decoded


def fit(args: argparse.Namespace) -> None:
    """Train encoder and decoder for low error."""
    rng = prepare(args)
    vae = build_vae()
    if args.start:
        vae.load_state_dict({key: value.float() for key, value in load_file(args.start).items()})
    vae = vae.to(args.device, memory_format=torch.channels_last)
    batch = args.batch or 128

    def loss_of(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with half_precision(args.device):
            code = vae.encode(x).latent_dist
            out = vae.decode(code.sample()).sample
        error = out.float() - x
        mean, logvar = code.mean.float(), code.logvar.float()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        return picture_error(error) + 1e-5 * kl, (error**2).mean()

    run = maybe_compile(loss_of, args)
    warm = torch.zeros(batch, 3, PATCH, PATCH, device=args.device).contiguous(memory_format=torch.channels_last)
    run(warm)[0].backward()
    vae.zero_grad()
    frames, held_out = load_frames(args.data, args.device), held_out_crops(args.portraits, args.device)
    print(f"{len(frames.face)} frames", flush=True)
    optimizer = torch.optim.AdamW(vae.parameters(), 1e-3, (0.9, 0.99), weight_decay=1e-4, fused=args.device == "cuda")
    average, clock = Average(vae.parameters(), 0.9995), Clock(args.steps, args.seconds)
    while True:
        optimizer.param_groups[0]["lr"] = clock.rate(args.rate)
        loss, square = run(draw_patches(frames, batch, rng))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 0.5)
        optimizer.step()
        average.update()
        more = clock.tick()
        if clock.step % 1000 == 0 or not more:
            average.swap()
            score, _ = psnr(vae, held_out)
            average.swap()
            train = -10 * float(torch.log10(square.detach() / 4))
            print(f"vae {clock.step} {clock.elapsed:.0f} s train {train:.2f} held out {score:.2f} dB", flush=True)
        if not more:
            break
    average.swap()
    _finish(vae, frames, held_out, args, rng)


def _finish(vae: Any, frames: Frames, held_out: torch.Tensor, args: argparse.Namespace, rng: np.random.Generator) -> None:
    score, decoded = psnr(vae, held_out)
    save_sheet(args.out / "sheets" / "vae.jpg", to_pictures(torch.cat([held_out[:8], decoded[:8]])), 8)
    with torch.no_grad():
        sample = cut(frames, draw_crops(frames, 256, (1.5, 2.6), rng), 256)
        codes = torch.cat([vae.encode(x).latent_dist.mean for x in sample.split(32)])
    save_weights(vae, args.out / "vae.safetensors")
    write_json(args.out / "scale.json", {"scaling_factor": round(1 / float(codes.std()), 5), "held_out_psnr": score})
    print(f"held out {score:.2f} dB, latent std {float(codes.std()):.3f}, mean {codes.mean((0, 2, 3)).tolist()}", flush=True)


def build_discriminator() -> torch.nn.Module:
    """Small patch discriminator: judges about 46 px of detail at a time."""

    def block(wide: int, out: int, stride: int) -> list[torch.nn.Module]:
        return [torch.nn.Conv2d(wide, out, 4, stride, 1), torch.nn.GroupNorm(8, out), torch.nn.LeakyReLU(0.2)]

    first = [torch.nn.Conv2d(3, 64, 4, 2, 1), torch.nn.LeakyReLU(0.2)]
    return torch.nn.Sequential(*first, *block(64, 128, 2), *block(128, 256, 1), torch.nn.Conv2d(256, 1, 4, 1, 1))


def polish(args: argparse.Namespace) -> None:
    """Sharpen the decoder against a discriminator while the encoder stays fixed."""
    rng = prepare(args)
    vae = build_vae()
    vae.load_state_dict({k: v.float() for k, v in load_file(args.out / "vae.safetensors").items()})
    vae = vae.to(args.device, memory_format=torch.channels_last)
    scale = float(json.loads((args.out / "scale.json").read_text())["scaling_factor"])
    judge = build_discriminator().to(args.device, memory_format=torch.channels_last)
    learned = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    frames, held_out = load_frames(args.data, args.device), held_out_crops(args.portraits, args.device)
    batch = args.batch or 64

    def decode(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            code = vae.encode(x).latent_dist.sample()
            # Denoised latents are never exact: a decoder that has met small errors draws cleaner skin.
            code = code + args.noise / scale * torch.randn_like(code)
        return vae.decode(code).sample  # type: ignore[no-any-return]

    run = maybe_compile(decode, args)
    ours = torch.optim.AdamW(learned, 1e-4, (0.5, 0.99), weight_decay=1e-4, fused=args.device == "cuda")
    theirs = torch.optim.AdamW(judge.parameters(), 2e-4, (0.5, 0.9), fused=args.device == "cuda")
    average, clock = Average(learned, 0.998), Clock(args.steps, args.seconds)
    print(f"before: {psnr(vae, held_out)[0]:.2f} dB", flush=True)
    while True:
        ours.param_groups[0]["lr"] = clock.rate(args.rate / 4, 100)
        weight = args.sharpness * min(1.0, max(0.0, (clock.step - 300) / 500))
        x = draw_patches(frames, batch, rng)
        with half_precision(args.device):
            out = run(x)
            opinion = judge(out).float().mean() if weight else out.new_zeros(())
        error = out.float() - x
        loss = 0.5 * error.abs().mean() + 4 * (error**2).mean() - weight * opinion
        ours.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 0.5)
        ours.step()
        average.update()
        with half_precision(args.device):
            real, made = judge(x).float(), judge(out.detach()).float()
        theirs.zero_grad()
        (F.relu(1 - real).mean() + F.relu(1 + made).mean()).backward()
        theirs.step()
        more = clock.tick()
        if clock.step % 500 == 0 or not more:
            average.swap()
            score, decoded = psnr(vae, held_out)
            print(f"polish {clock.step} {clock.elapsed:.0f} s {score:.2f} dB, judge {float(real.mean()):.2f} "
                  f"{float(made.mean()):.2f}", flush=True)
            if score >= args.floor:
                save_weights(copy.deepcopy(vae), args.out / "vae_polished.safetensors")
                save_sheet(args.out / "sheets" / "polish.jpg", to_pictures(torch.cat([held_out[:8], decoded[:8]])), 8)
            average.swap()
        if not more:
            break
    print("done", flush=True)


def main() -> None:
    """Run the step."""
    parser = step_parser(__doc__, seconds=480)
    parser.add_argument("--portraits", type=Path, required=True, help="folder written by the landmarks step")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--rate", type=float, default=8e-4, help="peak learning rate")
    parser.add_argument("--polish", action="store_true")
    parser.add_argument("--sharpness", type=float, default=0.01, help="weight of the discriminator")
    parser.add_argument("--noise", type=float, default=0.06, help="added to latents while polishing, in their std")
    parser.add_argument("--floor", type=float, default=28.6, help="dB on held-out portraits below which no result is kept")
    args = parser.parse_args()
    (polish if args.polish else fit)(args)


if __name__ == "__main__":
    main()
