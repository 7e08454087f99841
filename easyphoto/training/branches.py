"""ControlNets as the training's judgements run them: with larger kernels, and beside the UNet's way down.

A UNet needs what its ControlNets found only behind its way down. On a GPU each net has a stream of its own until then, so that
kernels too small to fill the chip, and those that wait for memory, run beside others. What all nets found at a place is summed
where it is made: each net's last layer there is a product that adds to the other nets', with the net's weight in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easyphoto.engine.denoise import Found, Guide, net_residuals, reads_text
from easyphoto.training.blocks import FastBlocks
from easyphoto.training.frozen import FrozenBlock

if TYPE_CHECKING:
    from torch import Tensor

Control = tuple[Any, "Tensor", float]
"""See `Guide.controls`."""


class Branches:
    """The ControlNets of a UNet; they are as they were but within `fast`."""

    def __init__(self, unet: Any, controls: tuple[Control, ...]) -> None:  # noqa: ANN401 (torch Module)
        """Args: the UNet, and what it is controlled by (see `Guide.controls`)."""
        import torch

        self._unet, self.controls = unet, controls
        self._blocks = [FastBlocks(unet=net, block=FrozenBlock(net)) for net, _, _ in controls]
        on_gpu = next(unet.parameters()).is_cuda
        self._streams: list[Any] = [torch.cuda.Stream() for _ in controls] if on_gpu else []  # type: ignore[no-untyped-call]
        # A graph reads the embedded maps, which are not embedded anew: they must outlive whatever else the nets are shown.
        self._maps = [net.controlnet_cond_embedding(image) for net, image, _ in controls]
        self._ends = _ends(controls)
        self._thread = 0

    @contextmanager
    def fast(self) -> Iterator[None]:
        """Have the ControlNets' blocks run our way, and the UNet wait for them where it needs them."""
        self._thread = threading.get_ident()
        hook = self._unet.down_blocks[-1].register_forward_hook(lambda *_: self._meet())
        try:
            with self.fast_nets():
                yield
        finally:
            hook.remove()

    @contextmanager
    def fast_nets(self) -> Iterator[None]:
        """Have the ControlNets' blocks run our way; the UNet is left alone."""
        for blocks in self._blocks:
            blocks.attach()
        try:
            yield
        finally:
            for blocks in self._blocks:
                blocks.detach()

    def residuals(self, guide: Guide, batch: Tensor, timestep: Tensor, halves: int) -> Found:
        """As the plain engine's; on a GPU the result is there once the UNet's last block on its way down has ended."""
        import torch

        if not self._streams:
            return self._sum([self._run(control, guide, batch, timestep, halves) for control in self.controls])
        found = []
        for control, stream in zip(self.controls, self._streams):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                found.append(self._run(control, guide, batch, timestep, halves))
        first = self._streams[0]
        for stream in self._streams[1:]:
            first.wait_stream(stream)
        with torch.cuda.stream(first):
            return self._sum(found)

    def _run(self, control: Control, guide: Guide, batch: Tensor, timestep: Tensor, halves: int) -> list[Tensor]:
        """What one net found at every place; without its last layers, if those are computed in the sum."""
        if self._ends is None:
            down, middle = net_residuals(guide, control, batch, timestep, halves)
            return [*down, middle]
        net, image, _ = control
        lasts = [*net.controlnet_down_blocks, net.controlnet_mid_block]
        for last in lasts:
            last.forward = lambda x: x
        try:
            # A weight of one is a product nevertheless; this one is none.
            down, middle = net_residuals(guide, (net, image, _Whole()), batch, timestep, halves)  # type: ignore[arg-type]
        finally:
            for last in lasts:
                del last.forward
        return [*down, middle]

    def _sum(self, found: list[list[Tensor]]) -> Found:
        """The sum of what several nets found at each place."""
        if not found:
            return None, None
        if self._ends is None:
            sums = [_plain_sum(parts) for parts in zip(*found)]
        else:
            sums = [end.sum(parts) for end, parts in zip(self._ends, zip(*found))]
        return sums[:-1], sums[-1]

    def _meet(self) -> None:
        import torch

        if self._streams and threading.get_ident() == self._thread:
            torch.cuda.current_stream().wait_stream(self._streams[0])


class _Whole:
    """In place of a net's weight: leaves what is multiplied with it as it is."""

    def __rmul__(self, other: Tensor) -> Tensor:
        return other


@dataclass(frozen=True, kw_only=True, eq=False)
class _End:
    """All nets' last layers at one place, 1 x 1 convolutions: one product each, their weights in them."""

    weights: tuple[Tensor, ...]
    """(channels, channels) of each net."""
    bias: Tensor
    """(channels,) the sum of all nets'."""

    def sum(self, found: tuple[Tensor, ...]) -> Tensor:
        """(rows, channels, height, width) of each net to their sum."""
        import torch

        rows, channels, height, width = found[0].shape
        flat = [part.permute(0, 2, 3, 1).reshape(-1, channels) for part in found]
        total = torch.addmm(self.bias, flat[0], self.weights[0].T)
        for part, weight in zip(flat[1:], self.weights[1:]):
            total.addmm_(part, weight.T)
        return total.view(rows, height, width, channels).permute(0, 3, 1, 2)


def _ends(controls: tuple[Control, ...]) -> list[_End] | None:
    """The last layers of all nets at each place; None where they must be computed by themselves.

    That is where a net reads no words, so that it runs for half of the rows, or one of its layers is no 1 x 1 convolution.
    """
    places = list(zip(*([*net.controlnet_down_blocks, net.controlnet_mid_block] for net, _, _ in controls)))
    layers = [layer for place in places for layer in place]
    if not all(reads_text(net) for net, _, _ in controls) or not all(tuple(layer.kernel_size) == (1, 1) for layer in layers):
        return None
    shares = [share for _, _, share in controls]
    return [
        _End(
            weights=tuple((layer.weight.detach().flatten(1) * share).contiguous() for layer, share in zip(place, shares)),
            bias=_plain_sum(tuple(layer.bias.detach() * share for layer, share in zip(place, shares))),
        )
        for place in places
    ]


def _plain_sum(parts: tuple[Tensor, ...]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
