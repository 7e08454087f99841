"""Kernels of ours compute what torch computes, forwards and backwards."""

from __future__ import annotations

import pytest
import torch

from easyphoto.training import fused

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def made(device: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1])).to(device)


def same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for own, other in zip(found, wanted, strict=True):
        assert float((own - other).norm() / other.norm()) < 1e-5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [192, 320, 1280])
def test_a_sum_and_its_norm(device: str, channels: int) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    norm = torch.nn.LayerNorm(channels, device=device).requires_grad_(False)
    norm.weight.copy_(made(device, channels))
    norm.bias.copy_(made(device, 1, channels)[0])
    bias, sums, norms = (made(device, *shape) for shape in ((channels,), (2, 7, channels), (1, 2, 7, channels)))
    runs = []
    for apart in (False, True):
        x, residual = (made(device, *shape).requires_grad_() for shape in ((2, 7, channels), (1, 1, 2, 7, channels)))
        residual_in = residual.view(2, 7, channels)
        if apart:
            total = x + residual_in + bias
            normed = norm(total)
        else:
            total, normed = fused.add_norm(x, residual_in, bias, norm)
        torch.autograd.backward([total, normed], [sums, norms[0]])
        runs.append([total.detach(), normed.detach(), x.grad, residual.grad])
    same(*runs)
