"""Step 4: train the ControlNets, one after the other, beside the frozen denoiser.

    python -m recipes.base_model.controlnet DATA WEIGHTS --tokenizer TOKENIZER --seconds 180

Reads WEIGHTS/vae, unet and text_encoder; writes WEIGHTS/controlnet_NAME.safetensors. `--seconds` is the mean of all.
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

from recipes.base_model.architecture import CONTROLS, build_controlnet, build_text_encoder, build_unet
from recipes.base_model.captioning import caption_crops, tokenize
from recipes.base_model.captions import Person
from recipes.base_model.controls import Scene, draw_controls, scene_of
from recipes.base_model.crops import Crops, Frames, cut, load_frames
from recipes.base_model.diffusion import Bucket, draw_bucket, load_vae
from recipes.base_model.training import (
    Average,
    Clock,
    alphas,
    half_precision,
    maybe_compile,
    noisy,
    prepare,
    save_weights,
    step_parser,
    to_pictures,
)
from recipes.base_model.vocabulary import load_tokenizer

BUCKETS = (
    Bucket(256, 14_000, 0.8, 160, ((1.5, 2.6), (1.5, 2.6), (1.5, 2.6), (2.4, 5.0))),
    Bucket(384, 4_000, 0.2, 72, ((1.5, 2.6), (2.2, 5.0))),
)

PATIENCE = {"canny": 1.25, "openpose": 1.25, "color": 0.75, "tile": 0.75}
"""Shares of the time: thin lines take longer to be understood than colours."""
EAGER = 3
"""How much faster a map's embedding learns than the rest of its net, which starts from the denoiser."""


@dataclass
class Examples:
    """One bucket's latents and tokens on the training device, and what controls are drawn from."""

    codes: torch.Tensor
    tokens: torch.Tensor
    scene: Scene
    controls: torch.Tensor | None = None
    """N x size x size x 3 uint8 of the ControlNet in training."""


@torch.no_grad()
def make_examples(
    frames: Frames, crops: Crops, tokens: torch.Tensor, vae: tuple[Any, float], size: int
) -> Examples:
    """Cut and encode crops (float16 latents of unit variance) and keep their pictures."""
    codes, pictures = [], np.empty((len(crops), size, size, 3), np.uint8)
    for start in range(0, len(crops), 64):
        batch = cut(frames, crops[start : start + 64], size)
        pictures[start : start + len(batch)] = to_pictures(batch)
        with half_precision(frames.pixels.device.type):
            code = vae[0].encode(batch.contiguous(memory_format=torch.channels_last)).latent_dist.mean
        codes.append((code.float() * vae[1]).half())
    return Examples(torch.cat(codes), tokens, scene_of(frames, crops, pictures))


def prepare_examples(args: argparse.Namespace, tokenizer: Any, rng: np.random.Generator) -> list[Examples]:
    """Draw, caption, cut and encode every bucket's crops."""
    frames = load_frames(args.data, args.device)
    people = [
        Person(**{**p, "identities": tuple(p["identities"])})
        for p in json.loads((args.data / "people.json").read_text())
    ]
    vae, examples = load_vae(args.out, args.device), []
    for bucket in BUCKETS:
        crops = draw_bucket(frames, bucket, max(int(bucket.count * args.scale), 4), rng)
        tokens = caption_crops(frames, crops, people, np.zeros(len(crops), bool), 2, tokenizer)
        examples.append(make_examples(frames, crops, torch.from_numpy(tokens).to(args.device), vae, bucket.size))
    return examples


@torch.no_grad()
def wake_embedding(embedding: Any, maps: torch.Tensor, strength: float = 0.5) -> None:
    """Give every convolution of a ControlNet's map embedding an output of unit variance, the last one `strength`.

    Layer-sequential unit variance (arXiv 1511.06422). The usual start shrinks thin lines on black to almost nothing
    (openpose: 3e-5), from where no training in minutes wakes them.

    Args:
        embedding: diffusers' `controlnet_cond_embedding`.
        maps: N x 3 x H x W of the maps that the net will see, 0..1.
        strength: Standard deviation of what the first convolution of the net gets added.
    """
    x = maps
    layers = (embedding.conv_in, *embedding.blocks, embedding.conv_out)
    for layer in layers:
        torch.nn.init.kaiming_normal_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        layer.weight.mul_((strength if layer is layers[-1] else 1.0) / layer(x).std().clamp(min=1e-6))
        x = F.silu(layer(x))


def as_maps(control: torch.Tensor) -> torch.Tensor:
    """Turn N x H x W x 3 uint8 into N x 3 x H x W in 0..1."""
    return (control.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


class Trainer:
    """A ControlNet beside the frozen denoiser; compiled once, then reused for every control."""

    def __init__(self, args: argparse.Namespace, tokenizer: Any) -> None:
        self.args = args
        self.unet = _load(build_unet(), args, "unet").to(memory_format=torch.channels_last)
        self.text = _load(build_text_encoder(len(tokenizer)), args, "text_encoder")
        self.start = {key: value.clone() for key, value in build_controlnet(self.unet).state_dict().items()}
        self.net = build_controlnet(self.unet).to(args.device, memory_format=torch.channels_last)
        self.share = alphas(args.device)
        self.empty = torch.from_numpy(tokenize(tokenizer, [""])).to(args.device)[0]
        self.denoise = maybe_compile(self._denoise, args)

    def _denoise(self, x: torch.Tensor, levels: torch.Tensor, text: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        down, middle = self.net(x, levels, text, control, return_dict=False)
        return self.unet(  # type: ignore[no-any-return]
            x, levels, text, down_block_additional_residuals=down, mid_block_additional_residual=middle,
            return_dict=False,
        )[0]  # fmt: skip

    def loss(self, codes: torch.Tensor, tokens: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        """Return the weighted error on the noise; `control` is N x H x W x 3 uint8."""
        x, levels, noise, weight = noisy(codes, self.share)
        shown = as_maps(control)
        with half_precision(self.args.device):
            with torch.no_grad():
                text = self.text(tokens.long())[0]
            guess = self.denoise(x.contiguous(memory_format=torch.channels_last), levels, text, shown)
        return (weight * (guess.float() - noise) ** 2).mean()

    def draw(self, examples: Examples, batch: int) -> torch.Tensor:
        """Return the loss of a random batch; half of the captions are empty (arXiv 2302.05543, section 3.3)."""
        assert examples.controls is not None
        device = examples.codes.device
        rows = torch.randint(0, len(examples.codes), (batch,), device=device)
        wording = torch.randint(0, examples.tokens.shape[1], (batch,), device=device)
        empty = torch.rand(batch, 1, device=device) < 0.5
        tokens = torch.where(empty, self.empty, examples.tokens[rows, wording])
        return self.loss(examples.codes[rows].float(), tokens, examples.controls[rows])

    def warm_up(self, batch_scale: float) -> None:
        """Compile both shapes."""
        for bucket in BUCKETS:
            batch, size = max(1, int(bucket.batch * batch_scale)), bucket.size
            codes = torch.randn(batch, 4, size // 8, size // 8, device=self.args.device)
            control = torch.zeros(batch, size, size, 3, dtype=torch.uint8, device=self.args.device)
            self.loss(codes, self.empty.expand(batch, 77), control).backward()
        self.net.zero_grad()

    def train(self, name: str, examples: list[Examples], rng: np.random.Generator) -> None:
        """Train one ControlNet from the denoiser's weights and write it."""
        self.net.load_state_dict(self.start)
        fused = self.args.device == "cuda"
        wake_embedding(self.net.controlnet_cond_embedding, as_maps(examples[0].controls[:256]))
        eager = [*self.net.controlnet_cond_embedding.parameters()]
        own = {id(parameter) for parameter in eager}
        groups = [{"params": [p for p in self.net.parameters() if id(p) not in own]}, {"params": eager}]
        optimizer = torch.optim.AdamW(groups, 1e-4, (0.9, 0.99), weight_decay=0.01, fused=fused)
        average, kept = Average(self.net.parameters(), 0.998), []
        clock, shares = Clock(self.args.steps, PATIENCE[name] * self.args.seconds), [bucket.share for bucket in BUCKETS]
        while True:
            which = int(rng.choice(len(BUCKETS), p=shares))
            loss = self.draw(examples[which], max(1, int(BUCKETS[which].batch * self.args.batch_scale)))
            for group, factor in zip(optimizer.param_groups, (1, EAGER), strict=True):
                group["lr"] = factor * clock.rate(self.args.rate, 100)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimizer.step()
            average.update()
            kept.append(loss.detach())
            more = clock.tick()
            if clock.step % 250 == 0 or not more:
                mean = float(torch.stack(kept).mean())
                print(f"control {name} {clock.step} {clock.elapsed:.0f} s loss {mean:.4f}", flush=True)
                kept = []
            if not more:
                break
        average.swap()
        save_weights(self.net, self.args.out / f"controlnet_{name}.safetensors")


def _load(module: Any, args: argparse.Namespace, name: str) -> Any:
    state = {key: value.float() for key, value in load_file(args.out / f"{name}.safetensors").items()}
    module.load_state_dict(state, strict=False)
    return module.to(args.device).eval().requires_grad_(False)


def main() -> None:
    """Run the step."""
    parser = step_parser(__doc__, seconds=180)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--controls", nargs="+", choices=CONTROLS, default=list(CONTROLS))
    parser.add_argument("--rate", type=float, default=3e-4, help="peak learning rate")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the crops to use (tests)")
    parser.add_argument("--batch-scale", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=16)
    args = parser.parse_args()
    rng = prepare(args)
    tokenizer = load_tokenizer(args.tokenizer)
    trainer = Trainer(args, tokenizer)
    if not args.no_compile:
        trainer.warm_up(args.batch_scale)
        print("compiled", flush=True)
    examples = prepare_examples(args, tokenizer, rng)
    for name in args.controls:
        for part in examples:
            drawn = draw_controls(name, part.scene, args.out / f"{name}.scratch.npy", args.processes)
            part.controls = torch.from_numpy(drawn).to(args.device)
        trainer.train(name, examples, rng)
    print("done", flush=True)


if __name__ == "__main__":
    main()
