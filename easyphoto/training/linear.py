"""A layer with its LoRA as one step of autograd: the factors' gradients go straight into their block."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from easyphoto.errors import LoraError
from easyphoto.training.factors import Bundle, FactorBlock

if TYPE_CHECKING:
    from torch import Tensor


@cache
def _function() -> Any:  # noqa: ANN401 (a class that needs torch to be written down)
    import torch

    class WithLora(torch.autograd.Function):
        """y = x (W + scale up down)^T + bias; W and bias are frozen."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, _anchor: Tensor, bundle: Bundle, bias: Tensor | None) -> Tensor:  # noqa: ANN401
            ctx.save_for_backward(x)
            ctx.bundle = bundle
            return bundle.forward(x, bias)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:  # noqa: ANN401
            (x,) = ctx.saved_tensors
            grad = grad.contiguous()
            ctx.bundle.learn(x, grad)
            # Below the first layer that learns nothing needs a gradient.
            return ctx.bundle.pull(grad) if ctx.needs_input_grad[0] else None, None, None, None

    return WithLora


class LoraLinear:
    """One or several layers that read the same input, to be called in their place."""

    def __init__(self, block: FactorBlock, modules: tuple[Any, ...]) -> None:
        """Args: neighbours of one shape in the block; more than one only where none has a bias."""
        group, first = block.place[modules[0]]
        places = [block.place[module] for module in modules]
        if places != [(group, first + number) for number in range(len(modules))]:
            raise LoraError("layers that are computed together must be neighbours of one shape")
        if len(modules) > 1 and any(module.bias is not None for module in modules):
            raise LoraError("layers with a bias are computed one by one")
        self._bundle = Bundle(block=block, group=group, first=first, count=len(modules))
        self._people = block.people
        self._module = modules[0]
        self._anchor = block.values

    @property
    def bias(self) -> Tensor:
        """For whoever asks for the result without it."""
        found: Tensor = self._module.bias
        return found

    def __call__(self, x: Tensor, biased: bool = True) -> Tensor:
        """(rows, ..., inputs) to (rows, ..., count * outputs); rows of the first person first."""
        flat = x.reshape(self._people, -1, x.shape[-1])
        bias = self._module.bias if biased else None
        # The anchor has the result ask for a gradient even where the input does not.
        result: Tensor = _function().apply(flat, self._anchor, self._bundle, bias)
        return result.view(*x.shape[:-1], result.shape[-1])

    def point(self, x: Tensor) -> Tensor:
        """In place of a 1x1 convolution: (rows, inputs, height, width), channels last."""
        return self(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
