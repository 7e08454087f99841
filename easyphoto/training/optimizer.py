"""AdamW over whole blocks of factors (arXiv 1711.05101), with clipping and, in half precision, a scaled loss.

Everything stays on the device: nothing waits for a number to come back, so a whole step can be one CUDA graph. A gradient that
is no number leaves factors and moments as they are; in float32 and bfloat16, which do not overflow, so do all steps after it.

Rates that change from step to step (`pace`) and rates of their own for the ups (LoRA+) stretch what AdamW did to the factors:
every one of its updates, weight decay too, is in proportion to the rate, so that AdamW itself stays one kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easyphoto.errors import LoraError
from easyphoto.store.lora_file import Array
from easyphoto.training.factors import FactorBlock

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "optimizer"
"""Beginning of the optimiser's keys in the state file."""
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_WEIGHT_DECAY = 0.01
_FIRST_SCALE, _GROWTH, _PATIENCE = 2.0**14, 2.0, 500
"""Of the loss in half precision: doubled after so many good steps, halved after a bad one."""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What is done besides AdamW; by default nothing, which costs nothing."""

    ups: float = 1.0
    """The rate of the ups in rates of the downs."""
    paced: bool = False
    """The rates change from step to step, as `Optimizer.begin` is told."""
    averaged: bool = False
    """A running average of the factors is kept beside them."""


class Optimizer:
    """One update of all blocks; people are clipped each by the length of their own gradient."""

    def __init__(
        self, blocks: Sequence[FactorBlock], rates: Sequence[float], most: float, half: bool, extras: Extras | None = None
    ) -> None:
        """Args: one learning rate a block; the longest gradient; whether activations are float16; what is done besides."""
        import torch

        self._blocks, self._most, self._half = blocks, most, half
        self._extras = extras or Extras()
        self._rates = rates
        device = blocks[0].values.device
        self.broken = torch.zeros((), device=device)
        """1 as soon as a gradient or loss was no number, where that is no overflow."""
        self.scale = torch.full((), _FIRST_SCALE if half else 1.0, device=device)
        self._good = torch.zeros((), dtype=torch.int32, device=device)
        moments = [
            (torch.zeros((), device=device), torch.zeros_like(block.values), torch.zeros_like(block.values)) for block in blocks
        ]
        self._adamw: Any = self._made(moments)
        self._pace, self._newest = torch.ones((), device=device), torch.ones((), device=device)
        self._averages = [block.values.detach().clone() for block in blocks] if self._extras.averaged else []

    def _made(self, moments: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Any:  # noqa: ANN401 (torch.optim.AdamW)
        import torch

        groups = [{"params": [block.values], "lr": rate} for block, rate in zip(self._blocks, self._rates)]
        kind = self._blocks[0].values.device.type
        adamw = torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY, fused=kind != "mps", capturable=kind == "cuda")
        for block, (step, mean, square) in zip(self._blocks, moments):
            block.values.grad = block.grad
            adamw.state[block.values] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
        stretched = self._extras.paced or self._extras.ups != 1
        self._before = [torch.empty_like(block.values) for block in self._blocks] if stretched else []
        self._stretch = [1 + (self._extras.ups - 1) * block.marked_ups() for block in self._blocks] if stretched else []
        return adamw

    def begin(self, pace: float, newest: float) -> None:
        """Before a step: what share of the rates it learns at, and how much of the running average the newest factors are."""
        if self._extras.paced:
            self._pace.fill_(pace)
        if self._extras.averaged:
            self._newest.fill_(newest)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the running averages in the factors' place, where they are kept."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for block, average in zip(self._blocks, self._averages):
            values = block.values.detach()
            kept = values.clone()
            values.copy_(average)
            average.copy_(kept)

    def follow(self) -> None:
        """Go to where the blocks are kept now."""
        device = self._blocks[0].values.device
        self.broken, self.scale, self._good = (number.to(device) for number in (self.broken, self.scale, self._good))
        states = [self._adamw.state[block.values] for block in self._blocks]
        moments = [(own["step"].to(device), own["exp_avg"].to(device), own["exp_avg_sq"].to(device)) for own in states]
        self._pace, self._newest = self._pace.to(device), self._newest.to(device)
        self._averages = [average.to(device) for average in self._averages]
        self._adamw = self._made(moments)

    def step(self, loss: Tensor) -> Tensor:
        """Clip and update from the blocks' gradients; (people,) lengths of the gradients before clipping.

        Args:
            loss: Any that is no number breaks the training.
        """
        import torch

        with torch.no_grad():
            if self._half:
                for block in self._blocks:
                    block.grad.div_(self.scale)
            lengths = torch.stack([torch.linalg.vector_norm(block.grad, dim=1) for block in self._blocks])
            length = torch.linalg.vector_norm(lengths, dim=0)
            overflow = 1 - torch.isfinite(length).all().float()
            self.broken.copy_(torch.maximum(self.broken, 1 - torch.isfinite(loss).all().float().to(self.broken.device)))
            if not self._half:
                self.broken.copy_(torch.maximum(self.broken, overflow))
            self._update((self._most / (length + 1e-6)).clamp(max=1.0), torch.maximum(self.broken, overflow))
        lengths_before: Tensor = length
        return lengths_before

    def _update(self, shorter: Tensor, skip: Tensor) -> None:
        import torch

        if self._blocks[0].values.device.type == "mps":
            if bool(skip):
                return
        else:
            self._adamw.found_inf = skip
        for block in self._blocks:
            block.grad.mul_(shorter[:, None])
        for block, before in zip(self._blocks, self._before):
            before.copy_(block.values)
        self._adamw.step()
        for block, before, stretch in zip(self._blocks, self._before, self._stretch):
            # A step that was left out moved nothing, and nothing stretched is nothing.
            torch.lerp(before, block.values.detach(), self._pace * stretch, out=block.values.detach())
        for block, average in zip(self._blocks, self._averages):
            average.lerp_(block.values.detach(), self._newest * (1 - skip))
        if self._half:
            torch._amp_update_scale_(self.scale, self._good, skip, _GROWTH, 1 / _GROWTH, _PATIENCE)

    def state_dict(self) -> dict[str, Array]:
        """Moments and scale, in full precision."""
        state = {f"{_KEY}.scale": self.scale.cpu().numpy(), f"{_KEY}.good": self._good.cpu().numpy()}
        for number, block in enumerate(self._blocks):
            own = self._adamw.state[block.values]
            state |= {f"{_KEY}.{number}.{name}": own[name].detach().cpu().numpy() for name in _MOMENTS}
        return state | {f"{_KEY}.{number}.average": average.cpu().numpy() for number, average in enumerate(self._averages)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on where a state was saved; the tensors stay the same ones.

        Raises:
            LoraError: It belongs to another training, or to an earlier version.
        """
        import torch

        places: dict[str, Any] = {f"{_KEY}.scale": self.scale, f"{_KEY}.good": self._good}
        for number, block in enumerate(self._blocks):
            places |= {f"{_KEY}.{number}.{name}": self._adamw.state[block.values][name] for name in _MOMENTS}
        places |= {f"{_KEY}.{number}.average": average for number, average in enumerate(self._averages)}
        for key, own in places.items():
            found = state.get(key)
            if found is None or found.shape != tuple(own.shape):
                raise LoraError(f"{key} does not fit this training; start it anew")
            own.copy_(torch.from_numpy(np.array(found)))
