"""The autoencoder's way out for pictures that are scored and looked at: in half precision where that holds them."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from easyphoto.training.fused import available, power

if TYPE_CHECKING:
    from torch import Tensor

_TILE, _LOOPS, _BLOCK = 8192, 4, 2048


class Decoder:
    """Decodes latents: in half precision all at once, which fills a GPU better, otherwise one by one, which takes less memory.

    float16 has float32's steps of half a level of 255 many times over; what it may lack is range, and then the result holds
    values that are no numbers, by which whoever asked can tell (SDXL's autoencoder is known for it, SD1.5's is not).
    """

    def __init__(self, vae: Any, halved: bool) -> None:  # noqa: ANN401 (diffusers ships no types)
        """Args: the autoencoder, in float32; whether a copy of its decoder shall compute in float16."""
        import torch

        self._vae, self.halved = vae, halved
        self._inward = self._decoder = None
        if halved:
            self._inward, self._decoder = (
                copy.deepcopy(part).half().to(memory_format=torch.channels_last) for part in (vae.post_quant_conv, vae.decoder)
            )
            if available() and next(self._decoder.parameters()).is_cuda:
                _quicken(self._decoder)

    def __call__(self, latents: Tensor) -> Tensor:
        """(pictures, 3, height, width), -1 to 1 and a little beyond, in float16 or float32."""
        import torch

        if self._inward is None or self._decoder is None:
            return self.fully(latents)
        scaled = (latents / self._vae.config.scaling_factor).half().contiguous(memory_format=torch.channels_last)
        picture: Tensor = self._decoder(self._inward(scaled))
        return picture

    def fully(self, latents: Tensor) -> Tensor:
        """The same in float32."""
        import torch

        return torch.cat([self._vae.decode(one[None] / self._vae.config.scaling_factor).sample for one in latents])


def _quicken(decoder: Any) -> None:  # noqa: ANN401 (torch Module)
    """Have a decoder's norms be ours, and SiLU a part of them: torch's copy a picture into the other order and back."""
    import torch

    blocks = [module for module in decoder.modules() if type(module).__name__ == "ResnetBlock2D"]
    for block in blocks:
        if type(block.nonlinearity).__name__ == "SiLU" and block.time_emb_proj is None:
            block.norm1.forward, block.norm2.forward = partial(_norm_silu, block.norm1), partial(_norm_silu, block.norm2)
            block.nonlinearity = torch.nn.Identity()
    if type(decoder.conv_norm_out).__name__ == "GroupNorm" and type(decoder.conv_act).__name__ == "SiLU":
        decoder.conv_norm_out.forward = partial(_norm_silu, decoder.conv_norm_out)
        decoder.conv_act = torch.nn.Identity()


def _norm_silu(norm: Any, x: Tensor) -> Tensor:  # noqa: ANN401 (GroupNorm)
    """Group norm and SiLU of (pictures, channels, height, width); sums in float32."""
    import torch

    from easyphoto.training import decoder_kernels as kernels

    x = x.contiguous(memory_format=torch.channels_last)
    pictures, channels, height, width = x.shape
    rows, padded = height * width, power(channels)
    tile = max(1, _TILE // padded)
    chunks = -(-rows // (tile * _LOOPS))
    sums = torch.empty(pictures, chunks, 2, channels, device=x.device)
    kernels.moments[(pictures, chunks)](x, sums, rows, channels, chunks, ROWS=tile, LOOPS=_LOOPS, CP=padded, num_warps=8)
    mean, square = (sums.sum(1).view(pictures, 2, norm.num_groups, -1).mean(3) / rows).unbind(1)
    rstd = (square - mean.square()).clamp_min(0).add(norm.eps).rsqrt()
    scale = rstd[..., None] * norm.weight.float().view(norm.num_groups, -1)
    shift = norm.bias.float().view(norm.num_groups, -1) - mean[..., None] * scale
    out = torch.empty_like(x)
    grid, size = (-(-x.numel() // _BLOCK),), rows * channels
    kernels.scaled[grid](
        x, scale.contiguous(), shift.contiguous(), out, size, channels, x.numel(), 1.0, BLOCK=_BLOCK, num_warps=8
    )
    return out
