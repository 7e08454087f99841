"""Networks that run beside the training and do not learn, computed with the training's own larger kernels.

`blocks` puts its forward passes in place of a network's own. Where the network is trained, layers are computed with their
LoRA (`linear`); here they are computed as they are, and layers that read the same input become one product all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easyphoto.training.factors import FactorBlock
from easyphoto.training.linear import LoraLinear

if TYPE_CHECKING:
    from torch import Tensor

_PARENT = "Transformer2DModel"


class FrozenBlock:
    """In place of a `FactorBlock`: which layers there are, and where each stands among those of its shape."""

    def __init__(self, network: Any) -> None:  # noqa: ANN401 (torch Module)
        """Args: a network whose transformers are to be run by `blocks`."""
        import torch

        self.place: dict[Any, tuple[tuple[int, ...], int]] = {}
        self._linears: dict[tuple[Any, ...], FrozenLinear] = {}
        counts: dict[tuple[int, ...], int] = {}
        for parent in network.modules():
            if type(parent).__name__ != _PARENT:
                continue
            for layer in parent.modules():
                point = isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (1, 1)
                if point or isinstance(layer, torch.nn.Linear):
                    shape = tuple(layer.weight.shape[:2])
                    self.place[layer] = shape, counts.get(shape, 0)
                    counts[shape] = counts.get(shape, 0) + 1

    def linear(self, modules: tuple[Any, ...]) -> FrozenLinear:
        """The layers as one; the same each time, as a captured graph goes on reading its weights."""
        if modules not in self._linears:
            self._linears[modules] = FrozenLinear(modules)
        return self._linears[modules]


class FrozenLinear:
    """One or several layers that read the same input, to be called in their place."""

    def __init__(self, modules: tuple[Any, ...]) -> None:
        """Args: layers of one shape; more than one only where none has a bias."""
        import torch

        weights = [module.weight.detach().flatten(1) for module in modules]
        self._weight: Tensor = weights[0] if len(weights) == 1 else torch.cat(weights)
        self.bias: Any = modules[0].bias

    def __call__(self, x: Tensor, biased: bool = True) -> Tensor:
        """(rows, ..., inputs) to (rows, ..., count * outputs)."""
        import torch.nn.functional as F

        return F.linear(x, self._weight, self.bias if biased else None)


Block = FactorBlock | FrozenBlock
Linear = LoraLinear | FrozenLinear


def linear_of(block: Block, modules: tuple[Any, ...]) -> Linear:
    """The layers as the block computes them."""
    return LoraLinear(block, modules) if isinstance(block, FactorBlock) else block.linear(modules)
