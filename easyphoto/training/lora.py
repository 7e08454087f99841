"""The LoRA under training: kohya's network, wrapped around a model's own layers and taken off again without a trace.

Which layers, how they begin and what they are called follow kohya's `networks.lora`: every Linear and 1x1 convolution
inside a `Transformer2DModel` of the UNet, every Linear of a `CLIPAttention` or `CLIPMLP` of the text encoders; down begins
as kaiming_uniform(a = sqrt 5), up as zero, so that training starts from the base model itself.

Names keep diffusers' blocks (`lora_unet_down_blocks_1_...`), as kohya's do, but for SDXL's (see `store.lora_names`). On a UNet
of SD1.5's shape the WebUI turns them into its own; the embedded base has three levels instead of four, which no WebUI release
knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from easyphoto.engine.models import Models
from easyphoto.errors import LoraError
from easyphoto.specs import LoraSpec
from easyphoto.store.lora_file import ALPHA, DOWN, UP, Array
from easyphoto.store.lora_names import text_key, unet_keys
from easyphoto.training.blocks import FastBlocks
from easyphoto.training.factors import FactorBlock
from easyphoto.training.linear import LoraLinear
from easyphoto.training.planner import Course

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

_UNET_PARENTS = ("Transformer2DModel",)
_TEXT_PARENTS = ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")


class LoraLayer:
    """The two factors beside one Linear or 1x1 convolution, of each person."""

    def __init__(self, name: str, module: Any, block: FactorBlock, spec: LoraSpec) -> None:  # noqa: ANN401 (a torch Module)
        self.name = name
        self.module = module
        self.alpha = spec.file_alpha
        self.scale = block.scale
        self._block = block
        self._ones = (1,) * (module.weight.ndim - 2)

    @property
    def down(self) -> Tensor:
        """(people, rank, inputs) float32, a view: writing into it changes the LoRA."""
        group, at = self._block.place[self.module]
        return group.down[:, at]

    @property
    def up(self) -> Tensor:
        """(people, outputs, rank) float32, a view as well."""
        group, at = self._block.place[self.module]
        return group.up[:, at]

    def begin(self, noises: Sequence[Generator]) -> None:
        """Give the downs their first values, each person's drawn from their own generator."""
        import torch

        _, rank, inputs = self.down.shape
        # kaiming_uniform with a = sqrt 5 is uniform within 1 / sqrt(inputs).
        bound = 1 / math.sqrt(inputs)
        for person, noise in enumerate(noises):
            self.down[person].copy_((torch.rand(rank, inputs, generator=noise) * 2 - 1) * bound)

    def attach(self) -> None:
        """Have the layer add its change to every result from now on."""
        whole = LoraLinear(self._block, (self.module,))
        point = bool(self._ones)
        self.module.forward = lambda x, *_, **__: whole.point(x) if point else whole(x)

    def detach(self) -> None:
        """Leave the layer as it was built."""
        self.module.__dict__.pop("forward", None)

    def fused_weight(self, person: int = 0) -> Tensor:
        """The layer's weight with a person's change added, in the model's precision."""
        import torch

        weight: Tensor = self.module.weight
        group, at = self._block.place[self.module]
        if group.merged is not None:
            return group.merged[person, at].view(weight.shape)
        with torch.no_grad():
            delta = (self.scale * self.up[person] @ self.down[person]).view(weight.shape).to(weight.device)
            return (weight.float() + delta).to(weight.dtype)

    def tensors(self, block: Array) -> dict[str, Array]:
        """The factors of one person under kohya's keys, as views.

        Args:
            block: (size,) all of that person's factors in the layer's block.
        """
        found = {f"{self.name}.{ALPHA}": np.array(self.alpha, dtype=block.dtype)}
        for end, factor in ((DOWN, self.down[0]), (UP, self.up[0])):
            start = factor.storage_offset()
            found[f"{self.name}.{end}"] = block[start : start + factor.numel()].reshape(*factor.shape, *self._ones)
        return found

    def take(self, tensors: Mapping[str, Array], person: int) -> None:
        """The factors of one person from a file; raises LoraError where they do not fit."""
        import torch

        for end, own in ((DOWN, self.down[person]), (UP, self.up[person])):
            found = tensors.get(f"{self.name}.{end}")
            if found is None or found.shape != (*own.shape, *self._ones):
                raise LoraError(f"{self.name}.{end} does not fit this training; start it anew")
            own.copy_(torch.from_numpy(np.array(found)).view(own.shape))


class LoraNetwork:
    """All layers of the LoRAs of one or several people; active between `attach` and `detach`."""

    def __init__(self, models: Models, spec: LoraSpec, seeds: Sequence[int] = (0,), merged: bool = True) -> None:
        """Prepare the factors; nothing is changed in the models yet.

        Args:
            models: UNet and text encoders.
            spec: Rank, alpha, and whether the text encoders have layers.
            seeds: One a person: decides the first values of the downs.
            merged: See `factors`.
        """
        import torch

        self.models = models
        self.people = len(seeds)
        self._checkpointing = self._lean = False
        self._idle: list[LoraLayer] = []
        """Layers that change nothing yet and never will, and whose factors lie elsewhere than their input."""
        unet = _targets(models.unet, _UNET_PARENTS)
        if not unet:
            raise LoraError("the base model's UNet has no Transformer2DModel to train; choose a Stable Diffusion model")
        keys = unet_keys([name for name, _ in unet], models.family, models.unet.config.layers_per_block)
        texts: list[tuple[str, Module]] = []
        if spec.text_encoder:
            for number, encoder in enumerate(models.text_encoders):
                found = _targets(encoder, _TEXT_PARENTS)
                texts += [(text_key(name, models.family, number), module) for name, module in found]
        parts = [[(keys[name], module) for name, module in unet], texts]
        self.blocks = [
            FactorBlock([module for _, module in part], spec.rank, spec.scale, self.people, merged)
            for part in parts if part
        ]  # fmt: skip
        self.unet_layers, self.text_layers = (
            [LoraLayer(name, module, block, spec) for name, module in part]
            for part, block in zip(parts, (*self.blocks, self.blocks[0]))
        )
        with torch.no_grad():
            noises = [torch.Generator().manual_seed(seed) for seed in seeds]
            for layer in self.layers:
                layer.begin(noises)
        self._fast: FastBlocks | None = None
        """While they are attached."""
        self._own: FastBlocks | None = None

    @property
    def layers(self) -> list[LoraLayer]:
        """UNet first, then text encoders."""
        return [*self.unet_layers, *self.text_layers]

    def settle(self, dtype: Any) -> None:  # noqa: ANN401 (torch.dtype)
        """Have models and factors work in this precision; what the factors are added to keeps the one it was loaded in.

        Weights in half precision have eight times bfloat16's digits: small changes move the sum where bfloat16 alone would
        swallow them.
        """
        from torch.nn import Module

        for network in (self.models.unet, *self.models.text_encoders):
            Module.to(network, dtype)  # diffusers' own `to` warns of layers that no UNet of ours has
        self.models.dtype, self._own = dtype, None
        for block in self.blocks:
            block.settle(dtype)

    def follow(self, course: Course, trains_text: bool = True) -> None:
        """Compute that way from now on.

        Args:
            course: The way.
            trains_text: Whether the text encoders' factors are trained; if not, a lean course leaves them alone.
        """
        attached = self._fast is not None
        if attached:
            self.detach()
        for block in self.blocks:
            if block.merged != course.merged:
                block.merged = course.merged
                block.settle(block.dtype)
        if course.offload:
            self._become_lean(course, trains_text)
        if course.checkpointing != self._checkpointing:
            self._checkpointing = course.checkpointing
            unet = self.models.unet
            (unet.enable_gradient_checkpointing if course.checkpointing else unet.disable_gradient_checkpointing)()
        if attached:
            self.attach()

    def _become_lean(self, course: Course, trains_text: bool) -> None:
        """Have on the device what is trained, but for what streams, and in main memory all else."""
        device = self.models.device
        unet, *text = self.blocks
        self._lean, self._idle = True, [] if trains_text else self.text_layers
        unet.follow((self.models.unet,), device, course.streamed)
        for block in text:
            if trains_text:
                block.follow(self.models.text_encoders, device, course.streamed)
            else:
                block.move("cpu", "cpu")

    def attach(self) -> None:
        """Let the models be trained."""
        self.refresh()
        for layer in self.layers:
            if layer not in self._idle:
                layer.attach()
        if self._own is None or self._own.whole == self._checkpointing:
            self._own = FastBlocks(unet=self.models.unet, block=self.blocks[0], whole=not self._checkpointing)
        self._fast = self._own
        self._fast.attach()

    def detach(self) -> None:
        """Leave the models as they were loaded, bit for bit."""
        for layer in self.layers:
            layer.detach()
        if self._fast:
            self._fast.detach()
            self._fast = None

    @property
    def place(self) -> tuple[int, ...]:
        """Where the factors and weights lie that are computed with: equal as long as they lie where they lay."""
        groups = [group for block in self.blocks for group in block.groups]
        used = [(group.up_used, group.down_used, group.merged) for group in groups]
        return tuple(tensor.data_ptr() for each in used for tensor in each if tensor is not None)

    def refresh(self) -> None:
        """Bring what the models compute with up to date with the factors."""
        for block in self.blocks:
            block.refresh()

    @contextmanager
    def fused(self, person: int = 0) -> Iterator[None]:
        """Have a person's changes in the weights themselves, so that rendering costs nothing more; attached again afterwards.

        Where they are not merged while training, bfloat16 weights are left alone and the changes stay beside them: its three
        digits would round off much of a small change. So are any weights where memory is short, as a second copy takes some.
        """
        import torch

        self.refresh()
        half = self.layers[0].module.weight.dtype == torch.bfloat16
        if not self.blocks[0].merged and (half or self._lean):
            with ExitStack() as narrow:
                for block in self.blocks:
                    narrow.enter_context(block.narrow())
                yield
            return
        originals = [layer.module.weight for layer in self.layers]
        self.detach()
        try:
            for layer in self.layers:
                layer.module.weight = torch.nn.Parameter(layer.fused_weight(person), requires_grad=False)
            yield
        finally:
            for layer, weight in zip(self.layers, originals):
                layer.module.weight = weight
            self.attach()

    def state_dict(self, kind: type[np.floating[Any]] = np.float16, person: int = 0) -> dict[str, Array]:
        """A person's factors under kohya's keys: a copy, rounded where they lie and brought over in one piece a network."""
        import torch

        tensors: dict[str, Array] = {}
        wanted = torch.from_numpy(np.zeros(0, kind)).dtype
        for block, layers in zip(self.blocks, (self.unet_layers, self.text_layers)):
            values = block.values.detach()[person].to(wanted)
            whole = values.to("cpu", copy=values.data_ptr() == block.values[person].data_ptr()).numpy()
            for layer in layers:
                tensors.update(layer.tensors(whole))
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Array], person: int = 0) -> None:
        """Take the factors from a file of the same training.

        Raises:
            LoraError: A tensor is missing or has another shape.
        """
        import torch

        with torch.no_grad():
            for layer in self.layers:
                layer.take(tensors, person)


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
