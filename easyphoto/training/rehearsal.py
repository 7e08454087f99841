"""Attention and convolutions of a training step, each computed once beside the training, so that cuDNN's kernels are there.

For attention, and for some of the ways to compute a convolution that it tries, cuDNN writes kernels when it is asked and has
them compiled, half a second to a second each: 13 s of the first step on a machine. The driver keeps them on the disk. Here
several processes ask at once while the training still reads its base model.

    python -m easyphoto.training.rehearsal FAMILY SIDE PICTURES TEXT DEVICE PART PARTS
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyphoto.families import Family
from easyphoto.training.precompile import LATENT, UNETS

if TYPE_CHECKING:
    import torch

_TOKENS = 77
_HEADS: dict[Family, tuple[int | None, ...]] = {
    Family.EMBEDDED: (None, 6, 9), Family.SD15: (8, 8, 8), Family.SDXL: (None, 10, 20),
}  # fmt: skip
"""Heads of the attention on each level of the UNet; none, or nothing, where there is no attention."""
_TEXTS = {Family.EMBEDDED: ((4, 64),), Family.SD15: ((12, 64),), Family.SDXL: ((12, 64), (20, 64))}
"""Heads and numbers a head of each text encoder."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Attention of one shape in the UNet."""

    heads: int
    width: int
    """Of all heads."""
    tokens: int
    words: bool = False
    """To the caption, not to the picture itself."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Attention of one shape in a text encoder: no word sees a later one."""

    heads: int
    each: int
    """Numbers a head."""
    learning: bool


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One of three by three."""

    inputs: int
    outputs: int
    side: int
    """Of what comes in."""
    stride: int = 1


Work = Attention | Reading | Convolution


def work_of(family: Family, side: int, learning: bool) -> list[Work]:
    """Everything that a step computes by cuDNN, each once, the longest first.

    Args:
        family: Of the base model.
        side: Of a training picture, in px.
        learning: Whether the text encoders learn.
    """
    widths, layers = UNETS[family]
    readings = [Reading(heads=heads, each=each, learning=learning) for heads, each in _TEXTS[family]]
    return [*attentions(family, side // LATENT), *readings, *convolutions(widths, layers, side // LATENT)]


def attentions(family: Family, side: int) -> list[Attention]:
    """Every attention of a UNet.

    Args:
        family: Of the base model.
        side: Of the latents.
    """
    widths, _ = UNETS[family]
    found = []
    for level, heads in enumerate(_HEADS[family]):
        if heads:
            tokens = (side >> level) ** 2
            found += [Attention(heads=heads, width=widths[level], tokens=tokens, words=words) for words in (False, True)]
    return found


def convolutions(widths: tuple[int, ...], layers: int, side: int) -> list[Convolution]:
    """Every convolution of a UNet, as `precompile.norm_shapes` walks through it."""
    return list(dict.fromkeys(_convolutions(widths, layers, side)))


def _convolutions(widths: tuple[int, ...], layers: int, side: int) -> Iterator[Convolution]:
    kept, channels, cells = [widths[0]], widths[0], 4
    yield Convolution(inputs=cells, outputs=channels, side=side)
    yield Convolution(inputs=channels, outputs=cells, side=side)
    for level, width in enumerate(widths):
        for _ in range(layers):
            yield Convolution(inputs=channels, outputs=width, side=side)
            yield Convolution(inputs=width, outputs=width, side=side)
            channels = width
            kept.append(channels)
        if level + 1 < len(widths):
            yield Convolution(inputs=channels, outputs=channels, side=side, stride=2)
            side //= 2
            kept.append(channels)
    for level, width in enumerate(reversed(widths)):
        for _ in range(layers + 1):
            yield Convolution(inputs=channels + kept.pop(), outputs=width, side=side)
            yield Convolution(inputs=width, outputs=width, side=side)
            channels = width
        if level + 1 < len(widths):
            side *= 2
            yield Convolution(inputs=channels, outputs=channels, side=side)


def compute(work: Work, pictures: int, device: str, precision: torch.dtype) -> None:
    """Forwards and backwards, on random numbers.

    Args:
        work: What.
        pictures: A step.
        device: Where.
        precision: Of everything.
    """
    if isinstance(work, Reading):
        _read(work, device, precision)
    elif isinstance(work, Attention):
        _attend(work, pictures, device, precision)
    else:
        _convolve(work, pictures, device, precision)


def _attend(work: Attention, pictures: int, device: str, precision: torch.dtype) -> None:
    import torch

    from easyphoto.training.blocks import attend

    def made(tokens: int, parts: int) -> tuple[torch.Tensor, ...]:
        whole = torch.randn(pictures, tokens, parts, work.width, device=device, dtype=precision, requires_grad=True)
        return whole.unbind(2)

    three = (*made(work.tokens, 1), *made(_TOKENS, 2)) if work.words else made(work.tokens, 3)
    result = attend(three[0], three[1], three[2], work.heads)
    torch.autograd.backward(result, torch.randn_like(result))


def _read(work: Reading, device: str, precision: torch.dtype) -> None:
    """With the flag, and with the mask that transformers makes in its place while a graph is captured."""
    import torch
    import torch.nn.functional as F

    shape = (1, _TOKENS, work.heads, work.each)
    q, k, v = (torch.randn(shape, device=device, dtype=precision, requires_grad=work.learning) for _ in range(3))
    mask = torch.ones(1, 1, _TOKENS, _TOKENS, dtype=torch.bool, device=device).tril()
    for given in ({"is_causal": True}, {"attn_mask": mask}):
        result = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **given)
        if not work.learning:
            return
        result = result.transpose(1, 2).contiguous()
        torch.autograd.backward(result, torch.randn_like(result))


def _convolve(work: Convolution, pictures: int, device: str, precision: torch.dtype) -> None:
    import torch
    import torch.nn.functional as F

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=precision).contiguous(memory_format=torch.channels_last)

    x = made(pictures, work.inputs, work.side, work.side).requires_grad_()
    result = F.conv2d(x, made(work.outputs, work.inputs, 3, 3), None, stride=work.stride, padding=1)
    torch.autograd.backward(result, made(*result.shape))


def main(words: list[str]) -> int:
    """Compute one part of the list."""
    import torch

    family, side, pictures, learning, device = Family(words[0]), int(words[1]), int(words[2]), words[3] == "1", words[4]
    part, parts = int(words[5]), int(words[6])
    torch.backends.cudnn.benchmark = True
    half = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    for work in work_of(family, side, learning)[part::parts]:
        compute(work, pictures, device, half)
    torch.cuda.synchronize(device)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
