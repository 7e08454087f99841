"""The factors of a LoRA as one block of numbers, and the frozen weights that they change.

A layer's change is scale * up @ down (arXiv 2106.09685, section 4.1). All factors of a network lie in one float32 tensor, so
that clipping, the optimiser and rounding to half precision are one kernel each. Layers of one shape lie beside each other
(a `Group`): their products are one batched product. Several people trained together each have a row of the block.

A layer can run in two ways, with the same result but for rounding:

- merged: the change is added to the frozen weight once a step, in float32, then rounded. A forward pass costs what the base
  model's costs. The factors' gradients come from the gradient of the whole weight (`dense`) where
  2 * inputs * outputs is not much more than 4 * rank * (inputs + outputs), and from both thin products otherwise.
- beside: the change is computed beside the frozen weight, which takes no second copy of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easyphoto.training.fused import add_change
from easyphoto.training.memory import bring
from easyphoto.training.streaming import Stream, blocks_of

if TYPE_CHECKING:
    from torch import Tensor

_DENSE_LEAN, _DENSE_LEAN_MANY = 2.6, 1.25
"""One product over the whole weight is one large kernel instead of four or more thin ones, so it may take so many times their
operations; less where several people fill the GPU anyway."""


@dataclass(kw_only=True, eq=False)
class Group:
    """Layers of one shape; P people, n layers."""

    outputs: int
    inputs: int
    modules: list[Any]
    """The Linear or 1x1 convolution of each layer."""
    down: Tensor = field(init=False)
    """(P, n, rank, inputs) float32, a view of the block; so are all below but the weights."""
    up: Tensor = field(init=False)
    """(P, n, outputs, rank)"""
    down_used: Tensor = field(init=False)
    """The same in the precision of the network's activations, as of the last `refresh`."""
    up_used: Tensor = field(init=False)
    down_grad: Tensor = field(init=False)
    """Gradient of the last backward pass, in the precision of the activations."""
    up_grad: Tensor = field(init=False)
    frozen: Tensor | None = None
    """(n, outputs, inputs): the base weights as they were loaded, where layers are merged."""
    merged: Tensor | None = None
    """(P, n, outputs, inputs): base weights with the change."""
    products: Tensor | None = None
    """(P, n, outputs, inputs): gradients of the whole weights, where that is the cheaper way."""


class FactorBlock:
    """The factors of some layers of one network, for one or several people."""

    def __init__(self, modules: Sequence[Any], rank: int, scale: float, people: int = 1, merged: bool = True) -> None:
        """Lay the block out; factors begin as zero.

        Args:
            modules: Linear layers and 1x1 convolutions; neighbours of one shape stay neighbours.
            rank: Inner dimension.
            scale: Of the product.
            people: How many LoRAs side by side.
            merged: See above.
        """
        import torch

        self.rank, self.scale, self.people, self.merged = rank, scale, people, merged
        shapes: dict[tuple[int, int], list[Any]] = {}
        for module in modules:
            shapes.setdefault((module.weight.shape[0], module.weight.shape[1]), []).append(module)
        self.groups = [Group(outputs=o, inputs=i, modules=found) for (o, i), found in shapes.items()]
        self.place = {module: (group, at) for group in self.groups for at, module in enumerate(group.modules)}
        size = sum(len(group.modules) * rank * (group.inputs + group.outputs) for group in self.groups)
        self._device, self.dtype = modules[0].weight.device, modules[0].weight.dtype
        self.values = torch.nn.Parameter(torch.zeros(people, size, device=self._device))
        self.grad = torch.zeros(people, size, device=self._device)
        """Gradient of the whole step, float32."""
        self.stream: Stream | None = None
        """Where the frozen weights are had from, where they are not on the device."""
        self._used = self._fresh = self.values.detach()
        self._between: Tensor | None = None
        """Where factors and gradients pass through on their way, rounded, where values and products lie apart."""
        self.settle(self.dtype)

    def settle(self, dtype: Any) -> None:  # noqa: ANN401 (torch.dtype)
        """Work with activations of this precision from now on; frozen weights keep the precision they were loaded in."""
        import torch

        self.dtype = dtype
        with torch.no_grad():
            data = self.values.detach()
            same = dtype == data.dtype and self._device == data.device
            self._used = data if same else torch.empty_like(data, dtype=dtype, device=self._device)
            self._fresh = torch.zeros_like(data, dtype=dtype, device=self._device)
            self._between = None
            if self._device != data.device:
                self._between = torch.empty_like(data, dtype=dtype, pin_memory=self._device.type == "cuda")
            start = 0
            for group in self.groups:
                start = self._lay(group, start)
                self._weigh(group, dtype)

    def marked_ups(self) -> Tensor:
        """(size,) 1 where the block holds ups, 0 where it holds downs."""
        import torch

        parts: list[Tensor] = []
        for group in self.groups:
            parts += (torch.zeros(group.down[0].numel()), torch.ones(group.up[0].numel()))
        return torch.cat(parts).to(self.values.device)

    def move(self, device: Any, home: Any) -> None:  # noqa: ANN401 (torch.device)
        """Compute on a device, and keep values and gradient of the step at home: main memory, where the GPU's is short."""
        import torch

        self._device = torch.device(device)
        self.values.data, self.grad = self.values.data.to(home), self.grad.to(home)
        self.settle(self.dtype)

    def follow(self, networks: Sequence[Any], device: Any, slots: int) -> None:  # noqa: ANN401 (torch.device)
        """Compute on a device with what is not kept in main memory: the factors are.

        Args:
            networks: All of the layers are theirs.
            device: Where they are computed with.
            slots: How many blocks' frozen weights are there at a time; 0: all.
        """
        layers = list(self.place)
        if slots and self.stream is None:
            self.stream = Stream(blocks_of(networks, layers), device, slots)
        elif self.stream is not None:
            self.stream.resize(slots)
        for network in networks:
            bring(network, device, but=self.place if self.stream else ())
        self.move(device, "cpu")

    @contextmanager
    def narrow(self) -> Iterator[None]:
        """As few blocks' weights on the device as will do, where they are streamed."""
        slots = self.stream.slots if self.stream else 0
        if self.stream:
            self.stream.resize(0)
        try:
            yield
        finally:
            if self.stream:
                self.stream.resize(slots)

    def weight(self, module: Any) -> Tensor:  # noqa: ANN401 (Linear or 1x1 convolution)
        """(outputs, inputs): the frozen weight of a layer, on the device, to be computed with at once."""
        own: Tensor = module.weight.flatten(1) if self.stream is None else self.stream.weight(module)
        return own

    def _lay(self, group: Group, start: int) -> int:
        count, people = len(group.modules), self.people
        middle = start + count * self.rank * group.inputs
        end = middle + count * group.outputs * self.rank
        down, up = (people, count, self.rank, group.inputs), (people, count, group.outputs, self.rank)
        data = self.values.detach()
        group.down, group.up = data[:, start:middle].view(down), data[:, middle:end].view(up)
        group.down_used, group.up_used = self._used[:, start:middle].view(down), self._used[:, middle:end].view(up)
        group.down_grad, group.up_grad = self._fresh[:, start:middle].view(down), self._fresh[:, middle:end].view(up)
        return end

    def _weigh(self, group: Group, dtype: Any) -> None:  # noqa: ANN401 (torch.dtype)
        import torch

        group.merged = group.products = None
        if not self.merged:
            group.frozen = None
            return
        if group.frozen is None:
            group.frozen = torch.stack([module.weight.detach().flatten(1) for module in group.modules])
        shape = (self.people, *group.frozen.shape)
        group.merged = torch.empty(shape, dtype=dtype, device=group.frozen.device)
        full, thin = 2 * group.inputs * group.outputs, 4 * self.rank * (group.inputs + group.outputs)
        lean = _DENSE_LEAN if self.people == 1 else _DENSE_LEAN_MANY
        group.products = torch.empty_like(group.merged) if full < lean * thin else None

    def refresh(self) -> None:
        """Bring what the network computes with up to date with the factors."""
        import torch

        with torch.no_grad():
            if self._between is not None:
                self._used.copy_(self._between.copy_(self.values), non_blocking=True)
            elif self._used.data_ptr() != self.values.data_ptr():
                self._used.copy_(self.values)
            for group in self.groups:
                if group.merged is not None and group.frozen is not None:
                    change = torch.matmul(group.up_used, group.down_used)
                    add_change(group.frozen, change, self.scale, group.merged)

    def collect(self, first: bool) -> None:
        """Take the last backward pass into the gradient of the step.

        Args:
            first: It is the first of the step: it replaces what was there.
        """
        import torch

        with torch.no_grad():
            for group in self.groups:
                if group.products is not None:
                    torch.matmul(group.products, group.down_used.mT, out=group.up_grad)
                    torch.matmul(group.up_used.mT, group.products, out=group.down_grad)
            fresh = self._fresh if self._between is None else self._between.copy_(self._fresh)
            if first:
                self.grad.copy_(fresh).mul_(self.scale)
            else:
                # A processor adds numbers of two precisions ten times as slowly as it turns them into one.
                self.grad.add_(fresh if self._between is None else fresh.to(self.grad.dtype), alpha=self.scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """Neighbouring layers of one group that read the same input: one product for all of them."""

    block: FactorBlock
    group: Group
    first: int
    count: int

    @property
    def _slots(self) -> slice:
        return slice(self.first, self.first + self.count)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(P, rows, inputs) to (P, rows, count * outputs)."""
        import torch
        import torch.nn.functional as F

        if self.group.merged is None:
            return self._beside(x, bias)
        weight = self.group.merged[:, self._slots].flatten(1, 2)
        if len(x) == 1:
            return F.linear(x[0], weight[0], bias)[None]
        result = torch.bmm(x, weight.mT)
        return result if bias is None else result.add_(bias)

    def _beside(self, x: Tensor, bias: Tensor | None) -> Tensor:
        import torch
        import torch.nn.functional as F

        parts = []
        for at in range(self.first, self.first + self.count):
            weight = self.block.weight(self.group.modules[at])
            thin = torch.bmm(x, self.group.down_used[:, at].mT)
            parts.append(torch.baddbmm(F.linear(x, weight, bias), thin, self.group.up_used[:, at].mT, alpha=self.block.scale))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def pull(self, grad: Tensor) -> Tensor:
        """Gradient by the input: (P, rows, count * outputs) to (P, rows, inputs)."""
        import torch

        if self.group.merged is not None:
            weight = self.group.merged[:, self._slots].flatten(1, 2)
            return (grad[0] @ weight[0])[None] if len(grad) == 1 else torch.bmm(grad, weight)
        parts = []
        for number in range(self.count):
            at, part = self.first + number, self._part(grad, number)
            one = torch.baddbmm(
                part @ self.block.weight(self.group.modules[at]), part @ self.group.up_used[:, at], self.group.down_used[:, at],
                alpha=self.block.scale,
            )  # fmt: skip
            parts.append(one)
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def learn(self, x: Tensor, grad: Tensor) -> None:
        """Write the gradients of this layer's factors (without the scale) or of its whole weight."""
        import torch

        group = self.group
        if group.products is not None:
            out = group.products[:, self._slots].flatten(1, 2)
            if len(x) == 1:
                torch.mm(grad[0].T, x[0], out=out[0])
            else:
                torch.bmm(grad.mT, x, out=out)
            return
        thin = torch.bmm(x, group.down_used[:, self._slots].flatten(1, 2).mT)
        for number in range(self.count):
            at, part = self.first + number, self._part(grad, number)
            low = thin[..., number * self.block.rank : (number + 1) * self.block.rank]
            torch.bmm(part.mT, low, out=group.up_grad[:, at])
            torch.bmm((part @ group.up_used[:, at]).mT, x, out=group.down_grad[:, at])

    def _part(self, grad: Tensor, number: int) -> Tensor:
        return grad[..., number * self.group.outputs : (number + 1) * self.group.outputs]
