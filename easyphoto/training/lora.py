"""The LoRA under training: kohya's network, wrapped around a model's own layers and taken off again without a trace.

Which layers, how they begin and what they are called follow kohya's `networks.lora`: every Linear and 1x1 convolution
inside a `Transformer2DModel` of the UNet, every Linear of a `CLIPAttention` or `CLIPMLP` of the text encoder; down begins
as kaiming_uniform(a = sqrt 5), up as zero, so that training starts from the base model itself.

Names keep diffusers' blocks (`lora_unet_down_blocks_1_...`), as kohya's do. On a UNet of SD1.5's shape the WebUI turns
them into its own; the embedded base has three levels instead of four, which no WebUI release knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from easyphoto.errors import LoraError
from easyphoto.specs import LoraSpec
from easyphoto.store.lora_file import ALPHA, DOWN, TEXT_PREFIX, UNET_PREFIX, UP, Array, kohya_key

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module, Parameter

_UNET_PARENTS = ("Transformer2DModel",)
_TEXT_PARENTS = ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")


class LoraLayer:
    """The two factors beside one Linear or 1x1 convolution."""

    def __init__(self, name: str, module: Any, spec: LoraSpec, noise: Generator) -> None:  # noqa: ANN401 (a torch Module)
        import torch

        weight: Tensor = module.weight
        self.name = name
        self.module = module
        self.scale = spec.alpha / spec.rank
        self.alpha = spec.alpha
        ones = (1,) * (weight.ndim - 2)
        # kaiming_uniform with a = sqrt 5 is uniform within 1 / sqrt(inputs).
        bound = 1 / math.sqrt(weight.shape[1])
        down = (torch.rand(spec.rank, weight.shape[1], *ones, generator=noise) * 2 - 1) * bound
        up = torch.zeros(weight.shape[0], spec.rank, *ones)
        self.down: Parameter = torch.nn.Parameter(down.to(weight.device))
        self.up: Parameter = torch.nn.Parameter(up.to(weight.device))
        self._forward: Callable[[Tensor], Tensor] = module.forward

    def attach(self) -> None:
        """Have the layer add its change to every result from now on."""
        self.module.forward = self._added

    def detach(self) -> None:
        """Leave the layer as it was built."""
        self.module.__dict__.pop("forward", None)

    def fused_weight(self) -> Tensor:
        """The layer's weight with the change added, in its own precision."""
        import torch

        weight: Tensor = self.module.weight
        with torch.no_grad():
            delta = (self.scale * self.up.flatten(1) @ self.down.flatten(1)).view(weight.shape)
            return (weight.float() + delta).to(weight.dtype)

    def _added(self, x: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ANN401 (diffusers may pass a scale of its own)
        import torch.nn.functional as F

        # The factors stay float32 and are rounded where they meet half-precision activations: their steps are too
        # small for half precision to add up.
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        if down.ndim == 2:
            return self._forward(x) + F.linear(F.linear(x, down), up) * self.scale
        return self._forward(x) + F.conv2d(F.conv2d(x, down), up) * self.scale


class LoraNetwork:
    """All layers of one LoRA; active between `attach` and `detach`."""

    def __init__(self, unet: Module, text_encoder: Module | None, spec: LoraSpec, seed: int) -> None:
        """Prepare the factors; nothing is changed in the models yet.

        Args:
            unet: diffusers' UNet2DConditionModel.
            text_encoder: transformers' CLIPTextModel; None leaves it out of the LoRA.
            spec: Rank and alpha.
            seed: Decides the first values of the downs.
        """
        import torch

        noise = torch.Generator().manual_seed(seed)
        self.unet_layers = [
            LoraLayer(kohya_key(UNET_PREFIX, name), module, spec, noise) for name, module in _targets(unet, _UNET_PARENTS)
        ]
        texts = [] if text_encoder is None or not spec.text_encoder else _targets(text_encoder, _TEXT_PARENTS)
        self.text_layers = [LoraLayer(kohya_key(TEXT_PREFIX, name), module, spec, noise) for name, module in texts]
        if not self.unet_layers:
            raise LoraError("the base model's UNet has no Transformer2DModel to train; choose a Stable Diffusion model")

    @property
    def layers(self) -> list[LoraLayer]:
        """UNet first, then text encoder."""
        return [*self.unet_layers, *self.text_layers]

    def attach(self) -> None:
        """Let the models be trained."""
        for layer in self.layers:
            layer.attach()

    def detach(self) -> None:
        """Leave the models as they were loaded, bit for bit."""
        for layer in self.layers:
            layer.detach()

    @contextmanager
    def fused(self) -> Iterator[None]:
        """Have the changes in the weights themselves, so that rendering costs nothing more; attached again afterwards.

        bfloat16 weights are left alone and the changes stay beside them: its three digits would round off much of a
        small change.
        """
        import torch

        if self.layers[0].module.weight.dtype == torch.bfloat16:
            yield
            return
        originals = [layer.module.weight for layer in self.layers]
        self.detach()
        try:
            for layer in self.layers:
                layer.module.weight = torch.nn.Parameter(layer.fused_weight(), requires_grad=False)
            yield
        finally:
            for layer, weight in zip(self.layers, originals):
                layer.module.weight = weight
            self.attach()

    def state_dict(self, kind: type[np.floating[Any]] = np.float16) -> dict[str, Array]:
        """The factors under kohya's keys."""
        tensors: dict[str, Array] = {}
        for layer in self.layers:
            tensors[f"{layer.name}.{DOWN}"] = layer.down.detach().cpu().numpy().astype(kind)
            tensors[f"{layer.name}.{UP}"] = layer.up.detach().cpu().numpy().astype(kind)
            tensors[f"{layer.name}.{ALPHA}"] = np.array(layer.alpha, dtype=np.float32)
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Array]) -> None:
        """Take the factors from a file of the same training.

        Raises:
            LoraError: A tensor is missing or has another shape.
        """
        import torch

        with torch.no_grad():
            for layer in self.layers:
                for end, own in ((DOWN, layer.down), (UP, layer.up)):
                    found = tensors.get(f"{layer.name}.{end}")
                    if found is None or found.shape != tuple(own.shape):
                        raise LoraError(f"{layer.name}.{end} does not fit this training; start it anew")
                    own.copy_(torch.from_numpy(np.array(found, dtype=np.float32)))


def _targets(network: Module, parents: tuple[str, ...]) -> list[tuple[str, Module]]:
    """(dotted name, layer) of every Linear and 1x1 convolution below modules of the named classes, each once, in order."""
    import torch

    found: dict[str, Module] = {}
    for name, parent in network.named_modules():
        if type(parent).__name__ not in parents:
            continue
        for inner, layer in parent.named_modules(prefix=name):
            point = isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (1, 1)
            if point or isinstance(layer, torch.nn.Linear):
                found[inner] = layer
    return list(found.items())
