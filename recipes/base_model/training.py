"""What every training step shares: schedules, moving averages, picture sheets, saving."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from recipes.base_model.architecture import SCHEDULE


@dataclass
class Clock:
    """Progress of a run that ends after `steps` steps or `seconds` seconds, whichever comes first."""

    steps: int
    seconds: float
    step: int = 0
    _start: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """Share of the run that is over, 0..1."""
        return min(1.0, max(self.step / self.steps, self.elapsed / self.seconds))

    def rate(self, peak: float, warm_up: int = 300, floor: float = 0.01) -> float:
        """Learning rate now: a linear start, then half a cosine down to `floor` of the peak."""
        cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * self.progress))
        return peak * min(1.0, (self.step + 1) / warm_up) * cosine

    def tick(self) -> bool:
        """Count a step; returns whether another follows."""
        self.step += 1
        return self.progress < 1.0


class Average:
    """Exponential moving average of a module's parameters, slow to trust the first steps."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float) -> None:
        self._live = list(parameters)
        self._mean = [p.detach().clone() for p in self._live]
        self._decay, self._step = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters of one more step in."""
        self._step += 1
        decay = min(self._decay, (1 + self._step) / (10 + self._step))
        torch._foreach_lerp_(self._mean, [p.detach() for p in self._live], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averaged and live values (call again to change back)."""
        for mean, live in zip(self._mean, self._live, strict=True):
            kept = live.detach().clone()
            live.copy_(mean)
            mean.copy_(kept)


def alphas(device: str) -> torch.Tensor:
    """Return the cumulative signal share of each of the 1000 noise levels."""
    count = int(SCHEDULE["num_train_timesteps"])
    betas = torch.linspace(SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5, count, device=device) ** 2
    return torch.cumprod(1 - betas, 0)


def noisy(latents: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add noise of a random level; returns noisy latents, levels, the noise and min-SNR-5 weights (2303.09556)."""
    levels = torch.randint(0, len(share), (len(latents),), device=latents.device)
    noise = torch.randn_like(latents)
    signal = share[levels].view(-1, 1, 1, 1)
    ratio = signal / (1 - signal)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise, levels, noise, ratio.clamp(max=5) / ratio


def to_pictures(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Turn N x 3 x H x W in -1..1 into N x H x W x 3 uint8."""
    scaled = ((tensor.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.asarray(scaled.permute(0, 2, 3, 1).cpu().numpy(), np.uint8)


def save_sheet(path: Path, pictures: np.ndarray[Any, np.dtype[np.uint8]], columns: int) -> None:
    """Write equal pictures (N x H x W x 3 RGB) as one sheet; N is a multiple of `columns`."""
    rows = [np.hstack(list(pictures[i : i + columns])) for i in range(0, len(pictures), columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(path, quality=90)


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Write a module's weights as fp16 safetensors, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().half().contiguous().cpu() for key, value in plain_state(module).items()}
    partial = path.with_suffix(".partial")
    save_file(state, partial)
    partial.rename(path)


def plain_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's state without non-float buffers (position ids)."""
    return {key: value for key, value in module.state_dict().items() if value.is_floating_point()}


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Write facts as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n")


def step_parser(description: str | None, seconds: float) -> argparse.ArgumentParser:
    """Return a parser with what every training step takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder written by the data step")
    parser.add_argument("out", type=Path, help="folder of the weights")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=0, help="0: the step's own default")
    parser.add_argument("--no-compile", action="store_true")
    return parser


def prepare(args: argparse.Namespace) -> np.random.Generator:
    """Seed everything and choose fast kernels; returns the random generator for data."""
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    return np.random.default_rng(args.seed)


def maybe_compile(function: Any, args: argparse.Namespace) -> Any:
    """Compile a function unless told not to."""
    return function if args.no_compile else torch.compile(function, dynamic=False)


def half_precision(device: str) -> torch.autocast:
    """Return a bfloat16 autocast for the GPU; a CPU stays in float32 (there bfloat16 is slow)."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
