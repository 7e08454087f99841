"""Steps of a UNet that read their activations once where Triton is there, and are torch's own elsewhere.

Weights and biases are frozen: only the activations' gradients are computed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_WHOLE = 16_384
"""Values of a group that one program can hold in its registers: more, and they spill."""
_CHUNKS = 64
_TILE = 8192
BLOCK = 1024


@cache
def available() -> bool:
    """Whether this machine compiles Triton's kernels."""
    import torch

    return torch.cuda.is_available() and importlib.util.find_spec("triton") is not None


def norm_act(x: Tensor, norm: Any, shift: Tensor | None = None, silu: bool = True) -> Tensor:  # noqa: ANN401 (GroupNorm)
    """Group norm of x + shift, then SiLU.

    Args:
        x: (pictures, channels, height, width), channels last.
        norm: The torch GroupNorm.
        shift: (pictures, channels), or (1, channels) for all.
        silu: Whether SiLU follows.
    """
    import torch.nn.functional as F

    if x.is_cuda and available():
        if shift is not None and len(shift) == 1:
            shift = shift.expand(len(x), -1)
        result: Tensor = _norm_function().apply(x, shift, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)
        return result
    if shift is not None:
        x = x + shift[:, :, None, None]
    result = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return F.silu(result) if silu else result


def gated(both: Tensor, bias: Tensor | None) -> Tensor:
    """First half of the last dimension of both (+ bias), times gelu of the second half (arXiv 2002.05202)."""
    import torch.nn.functional as F

    if bias is not None and both.is_cuda and available():
        result: Tensor = _gate_function().apply(both, bias)
        return result
    value, door = (both if bias is None else both + bias).chunk(2, dim=-1)
    return value * F.gelu(door)


def add_bias(x: Tensor, residual: Tensor, bias: Tensor) -> Tensor:
    """x + residual + bias of (..., channels)."""
    if x.is_cuda and available():
        result: Tensor = _bias_function().apply(x, residual, bias)
        return result
    return x + residual + bias


def add_norm(x: Tensor, residual: Tensor, bias: Tensor, norm: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 (LayerNorm)
    """x + residual + bias of (..., channels), and the layer norm of that."""
    if x.is_cuda and available():
        both: tuple[Tensor, Tensor] = _add_norm_function().apply(x, residual, bias, norm.weight, norm.bias, norm.eps)
        return both
    result = x + residual + bias
    return result, norm(result)


def row_cut(channels: int) -> dict[str, int]:
    """What a kernel that has a row of so many channels is compiled with."""
    block = power(channels)
    return {"BLOCK": block, "num_warps": min(8, max(1, block // 256))}


def add_change(frozen: Tensor, change: Tensor, scale: float, out: Tensor) -> None:
    """out = frozen + scale * change, summed in float32; (n, ...), (P, n, ...) and (P, n, ...)."""
    import torch

    if frozen.is_cuda and available():
        from easyphoto.training import gpu_kernels as kernels

        total = frozen.numel()
        kernels.add_change[(-(-total // BLOCK), len(change))](frozen, change.contiguous(), out, scale, total, BLOCK=BLOCK)
    else:
        torch.add(frozen, change, alpha=scale, out=out)


def power(number: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << max(0, number - 1).bit_length()


def _last(x: Tensor) -> Tensor:
    import torch

    return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How a group norm's tensor of one shape is cut up; few different ones, as each is compiled."""

    whole: bool
    """A program has a whole group."""
    chunks: int
    """Programs to the rows of a picture, where none has all of them."""
    together: int
    """Groups that a program has at once."""
    fixed: dict[str, int]
    """What the kernel is compiled with."""


def cut(channels: int, rows: int, groups: int) -> Cut:
    """The cut for pictures of so many rows times columns and channels."""
    each = channels // groups
    padded = max(16, power(each))
    whole = power(rows) * padded <= _WHOLE
    tile = max(1, power(-(-rows // _CHUNKS)))
    together = min(groups & -groups, max(1, power(_TILE // (tile * padded) + 1) // 2))
    values = power(rows) * padded if whole else tile * together * padded
    warps = 4 if values <= 4096 else 8 if values <= 16_384 else 16
    fixed = {"GROUPS": groups, "CG": each, "CGP": padded, "num_warps": warps}
    fixed |= {"ROWS": power(rows)} if whole else {"ROWS": tile, "GB": together}
    return Cut(whole=whole, chunks=-(-rows // tile), together=together, fixed=fixed)


class _Plan:
    """What the kernels are told about one tensor."""

    def __init__(self, x: Tensor, shift: Tensor | None, groups: int, silu: bool) -> None:
        self.pictures, self.channels = x.shape[:2]
        self.rows = x.shape[2] * x.shape[3]
        self.groups = groups
        found = cut(self.channels, self.rows, groups)
        self.whole, self.chunks, self.shapes = found.whole, found.chunks, found.fixed
        self.grid = (self.pictures * groups,) if self.whole else (self.pictures * self.chunks, groups // found.together)
        self.shift = x.new_zeros(self.channels) if shift is None else shift
        self.sizes = (self.rows, self.channels, 0 if shift is None else shift.stride(0), float(silu))

    def part(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Room for two numbers of every chunk and group."""
        import torch

        first, second = torch.empty(2, self.pictures, self.chunks, self.groups, device=x.device)
        return first, second


@cache
def _norm_function() -> Any:  # noqa: ANN401 (a class that needs torch to be written down)
    import torch

    from easyphoto.training import gpu_kernels as kernels

    class NormAct(torch.autograd.Function):
        """Group norm, shift and SiLU."""

        @staticmethod
        def forward(
            ctx: Any, x: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool  # noqa: ANN401
        ) -> Tensor:
            x = _last(x)
            plan, y = _Plan(x, shift, groups, silu), torch.empty_like(x)
            mean, rstd = torch.empty(2, plan.pictures, groups, device=x.device)
            first = (x, plan.shift, weight, bias, y)
            if plan.whole:
                kernels.norm_whole[plan.grid](*first, mean, rstd, *plan.sizes, eps, **plan.shapes)
            else:
                parts = plan.part(x)
                kernels.norm_stats[plan.grid](x, plan.shift, *parts, *plan.sizes, plan.chunks, **plan.shapes)
                kernels.norm_apply[plan.grid](
                    *first, *parts, mean, rstd, *plan.sizes, plan.chunks, eps, **plan.shapes, CHUNKS=power(plan.chunks)
                )
            ctx.save_for_backward(x, shift, weight, bias, mean, rstd)
            ctx.silu, ctx.groups = silu, groups
            return y

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
            x, shift, weight, bias, mean, rstd = ctx.saved_tensors
            plan, dx = _Plan(x, shift, ctx.groups, ctx.silu), torch.empty_like(x)
            first = (x, plan.shift, weight, bias, _last(grad))
            if plan.whole:
                kernels.norm_whole_back[plan.grid](*first, dx, mean, rstd, *plan.sizes, **plan.shapes)
            else:
                parts = plan.part(x)
                kernels.norm_stats_back[plan.grid](*first, mean, rstd, *parts, *plan.sizes, plan.chunks, **plan.shapes)
                kernels.norm_apply_back[plan.grid](
                    *first, dx, mean, rstd, *parts, *plan.sizes, plan.chunks, **plan.shapes, CHUNKS=power(plan.chunks)
                )
            moved = dx.float().sum((2, 3)).to(shift.dtype) if ctx.needs_input_grad[1] else None
            return dx, moved, None, None, None, None, None

    return NormAct


@cache
def _gate_function() -> Any:  # noqa: ANN401 (a class that needs torch to be written down)
    import torch

    from easyphoto.training import gpu_kernels as kernels

    class Gate(torch.autograd.Function):
        """Gated GELU."""

        @staticmethod
        def forward(ctx: Any, both: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
            both = both.contiguous()
            ctx.save_for_backward(both, bias)
            width = both.shape[-1] // 2
            out = both.new_empty(*both.shape[:-1], width)
            kernels.gate[(out.numel() // width, -(-width // BLOCK))](both, bias, out, width, BLOCK=BLOCK)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
            both, bias = ctx.saved_tensors
            grad, back, width = grad.contiguous(), torch.empty_like(both), both.shape[-1] // 2
            kernels.gate_back[(grad.numel() // width, -(-width // BLOCK))](both, bias, grad, back, width, BLOCK=BLOCK)
            return back, None

    return Gate


@cache
def _bias_function() -> Any:  # noqa: ANN401 (a class that needs torch to be written down)
    import torch

    from easyphoto.training import gpu_kernels as kernels

    class AddBias(torch.autograd.Function):
        """Sum of two and a bias."""

        @staticmethod
        def forward(_ctx: Any, x: Tensor, residual: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
            x, residual = x.contiguous(), residual.contiguous()
            out = torch.empty_like(x)
            kernels.add_bias[(-(-x.numel() // BLOCK),)](x, residual, bias, out, x.numel(), x.shape[-1], BLOCK=BLOCK)
            return out

        @staticmethod
        def backward(_ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401
            return grad, grad, None

    return AddBias


@cache
def _add_norm_function() -> Any:  # noqa: ANN401 (a class that needs torch to be written down)
    import torch

    from easyphoto.training import gpu_kernels as kernels

    class AddNorm(torch.autograd.Function):
        """Sum of two and a bias, and its layer norm."""

        @staticmethod
        def forward(
            ctx: Any, x: Tensor, residual: Tensor, bias: Tensor, weight: Tensor, shift: Tensor, eps: float  # noqa: ANN401
        ) -> tuple[Tensor, Tensor]:
            x, residual = x.contiguous(), residual.contiguous()
            out, normed = torch.empty_like(x), torch.empty_like(x)
            channels = x.shape[-1]
            rows = x.numel() // channels
            mean, rstd = torch.empty(2, rows, device=x.device)
            kernels.add_norm[(rows,)](
                x, residual, bias, weight, shift, out, normed, mean, rstd, channels, eps, **row_cut(channels)
            )
            ctx.save_for_backward(out, weight, mean, rstd)
            return out, normed

        @staticmethod
        def backward(ctx: Any, grad: Tensor, grad_normed: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
            out, weight, mean, rstd = ctx.saved_tensors
            grad, grad_normed, dx, channels = grad.contiguous(), grad_normed.contiguous(), torch.empty_like(out), out.shape[-1]
            kernels.add_norm_back[(len(mean),)](
                out, weight, mean, rstd, grad, grad_normed, dx, channels, **row_cut(channels)
            )
            return dx, dx, None, None, None, None

    return AddNorm
