"""Triton kernels that read each activation once: group norm with SiLU and a shift, gated GELU, sums with bias and norm.

Activations lie as (pictures, rows * columns, channels), channels last, the order cuDNN's convolutions want. torch's own group
norm copies such a tensor into the other order and back, and SiLU, shift and biases each read and write it once more.
Import this module only where `fused.available` says so: Triton comes with torch's CUDA builds alone.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _normal(value, mean, rstd, weight, bias, silu):
    out = (value - mean) * rstd * weight + bias
    return out * (silu * tl.sigmoid(out) + (1 - silu))


@triton.jit
def _slope(value, grad, weight, bias, silu):
    """Gradient before weight and bias, from a value already normalised."""
    z = value * weight + bias
    s = tl.sigmoid(z)
    return grad * weight * (silu * s * (1 + z * (1 - s)) + (1 - silu))


@triton.jit
def norm_whole(
    x, shift, weight, bias, y, mean_out, rstd_out, rows, channels, shift_row, silu, eps,
    GROUPS: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr, ROWS: tl.constexpr,
):
    """One program a picture and group: all of it fits into one block's registers."""
    n = tl.program_id(0) // GROUPS
    g = tl.program_id(0) % GROUPS
    r = tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, CGP)[None, :]
    ok = (r < rows) & (c < CG)
    at = n * rows * channels + r * channels + g * CG + c
    value = tl.load(x + at, ok, 0.0).to(tl.float32)
    value += tl.load(shift + n * shift_row + g * CG + c, c < CG, 0.0).to(tl.float32)
    value = tl.where(ok, value, 0.0)
    count = rows * CG
    mean = tl.sum(tl.sum(value, 1), 0) / count
    away = tl.where(ok, value - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(tl.sum(away * away, 1), 0) / count + eps)
    w = tl.load(weight + g * CG + c, c < CG, 0.0).to(tl.float32)
    b = tl.load(bias + g * CG + c, c < CG, 0.0).to(tl.float32)
    tl.store(y + at, _normal(value, mean, rstd, w, b, silu), ok)
    tl.store(mean_out + n * GROUPS + g, mean)
    tl.store(rstd_out + n * GROUPS + g, rstd)


@triton.jit
def norm_whole_back(
    x, shift, weight, bias, grad, dx, mean_in, rstd_in, rows, channels, shift_row, silu,
    GROUPS: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr, ROWS: tl.constexpr,
):
    """The gradient of `norm_whole` by its input; weight and bias are frozen."""
    n = tl.program_id(0) // GROUPS
    g = tl.program_id(0) % GROUPS
    r = tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, CGP)[None, :]
    ok = (r < rows) & (c < CG)
    at = n * rows * channels + r * channels + g * CG + c
    value = tl.load(x + at, ok, 0.0).to(tl.float32)
    value += tl.load(shift + n * shift_row + g * CG + c, c < CG, 0.0).to(tl.float32)
    mean = tl.load(mean_in + n * GROUPS + g)
    rstd = tl.load(rstd_in + n * GROUPS + g)
    value = tl.where(ok, (value - mean) * rstd, 0.0)
    w = tl.load(weight + g * CG + c, c < CG, 0.0).to(tl.float32)
    b = tl.load(bias + g * CG + c, c < CG, 0.0).to(tl.float32)
    slope = _slope(value, tl.load(grad + at, ok, 0.0).to(tl.float32), w, b, silu)
    slope = tl.where(ok, slope, 0.0)
    count = rows * CG
    first = tl.sum(tl.sum(slope, 1), 0) / count
    second = tl.sum(tl.sum(slope * value, 1), 0) / count
    tl.store(dx + at, rstd * (slope - first - value * second), ok)


@triton.jit
def norm_stats(
    x, shift, part_mean, part_square, rows, channels, shift_row, silu, chunks,
    GROUPS: tl.constexpr, GB: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr, ROWS: tl.constexpr,
):
    """Mean and sum of squared distances of a chunk of rows, for `GB` groups at once."""
    n = tl.program_id(0) // chunks
    k = tl.program_id(0) % chunks
    r = k * ROWS + tl.arange(0, ROWS)[:, None, None]
    g = tl.program_id(1) * GB + tl.arange(0, GB)[None, :, None]
    c = tl.arange(0, CGP)[None, None, :]
    ok = (r < rows) & (c < CG) & (g >= 0)
    value = tl.load(x + n * rows * channels + r * channels + g * CG + c, ok, 0.0).to(tl.float32)
    value += tl.load(shift + n * shift_row + g * CG + c, (c < CG) & (g >= 0), 0.0).to(tl.float32)
    value = tl.where(ok, value, 0.0)
    count = (tl.minimum(ROWS, rows - k * ROWS) * CG).to(tl.float32)
    mean = tl.sum(tl.sum(value, 2), 0) / count
    away = tl.where(ok, value - mean[None, :, None], 0.0)
    square = tl.sum(tl.sum(away * away, 2), 0)
    at = (n * chunks + k) * GROUPS + tl.program_id(1) * GB + tl.arange(0, GB)
    tl.store(part_mean + at, mean)
    tl.store(part_square + at, square)


@triton.jit
def norm_apply(
    x, shift, weight, bias, y, part_mean, part_square, mean_out, rstd_out, rows, channels, shift_row, silu, chunks, eps,
    GROUPS: tl.constexpr, GB: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr,
):
    """Joins the chunks' moments (Chan, Golub and LeVeque's pairwise rule) and normalises."""
    n = tl.program_id(0) // chunks
    k = tl.program_id(0) % chunks
    part = tl.arange(0, CHUNKS)[:, None]
    gs = tl.program_id(1) * GB + tl.arange(0, GB)
    at = (n * chunks + part) * GROUPS + gs[None, :]
    here = (part < chunks) & (gs[None, :] >= 0)
    means = tl.load(part_mean + at, here, 0.0)
    counts = tl.where(here, (tl.minimum(ROWS, rows - part * ROWS) * CG).to(tl.float32), 0.0)
    total = (rows * CG).to(tl.float32)
    mean = tl.sum(means * counts, 0) / total
    away = means - mean[None, :]
    squares = tl.sum(tl.load(part_square + at, here, 0.0) + counts * away * away, 0)
    rstd = tl.rsqrt(squares / total + eps)
    if k == 0:
        tl.store(mean_out + n * GROUPS + gs, mean)
        tl.store(rstd_out + n * GROUPS + gs, rstd)
    r = k * ROWS + tl.arange(0, ROWS)[:, None, None]
    g = gs[None, :, None]
    c = tl.arange(0, CGP)[None, None, :]
    ok = (r < rows) & (c < CG) & (g >= 0)
    known = (c < CG) & (g >= 0)
    at_x = n * rows * channels + r * channels + g * CG + c
    value = tl.load(x + at_x, ok, 0.0).to(tl.float32)
    value += tl.load(shift + n * shift_row + g * CG + c, known, 0.0).to(tl.float32)
    w = tl.load(weight + g * CG + c, known, 0.0).to(tl.float32)
    b = tl.load(bias + g * CG + c, known, 0.0).to(tl.float32)
    tl.store(y + at_x, _normal(value, mean[None, :, None], rstd[None, :, None], w, b, silu), ok)


@triton.jit
def norm_stats_back(
    x, shift, weight, bias, grad, mean_in, rstd_in, part_first, part_second, rows, channels, shift_row, silu, chunks,
    GROUPS: tl.constexpr, GB: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The two sums that the gradient needs, of a chunk of rows."""
    n = tl.program_id(0) // chunks
    k = tl.program_id(0) % chunks
    r = k * ROWS + tl.arange(0, ROWS)[:, None, None]
    gs = tl.program_id(1) * GB + tl.arange(0, GB)
    g = gs[None, :, None]
    c = tl.arange(0, CGP)[None, None, :]
    ok = (r < rows) & (c < CG) & (g >= 0)
    known = (c < CG) & (g >= 0)
    at_x = n * rows * channels + r * channels + g * CG + c
    value = tl.load(x + at_x, ok, 0.0).to(tl.float32)
    value += tl.load(shift + n * shift_row + g * CG + c, known, 0.0).to(tl.float32)
    mean = tl.load(mean_in + n * GROUPS + gs)[None, :, None]
    rstd = tl.load(rstd_in + n * GROUPS + gs)[None, :, None]
    value = tl.where(ok, (value - mean) * rstd, 0.0)
    w = tl.load(weight + g * CG + c, known, 0.0).to(tl.float32)
    b = tl.load(bias + g * CG + c, known, 0.0).to(tl.float32)
    slope = tl.where(ok, _slope(value, tl.load(grad + at_x, ok, 0.0).to(tl.float32), w, b, silu), 0.0)
    at = (n * chunks + k) * GROUPS + gs
    tl.store(part_first + at, tl.sum(tl.sum(slope, 2), 0))
    tl.store(part_second + at, tl.sum(tl.sum(slope * value, 2), 0))


@triton.jit
def norm_apply_back(
    x, shift, weight, bias, grad, dx, mean_in, rstd_in, part_first, part_second, rows, channels, shift_row, silu, chunks,
    GROUPS: tl.constexpr, GB: tl.constexpr, CG: tl.constexpr, CGP: tl.constexpr,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr,
):
    """The gradient of `norm_apply` by its input."""
    n = tl.program_id(0) // chunks
    k = tl.program_id(0) % chunks
    part = tl.arange(0, CHUNKS)[:, None]
    gs = tl.program_id(1) * GB + tl.arange(0, GB)
    at = (n * chunks + part) * GROUPS + gs[None, :]
    here = (part < chunks) & (gs[None, :] >= 0)
    total = (rows * CG).to(tl.float32)
    first = (tl.sum(tl.load(part_first + at, here, 0.0), 0) / total)[None, :, None]
    second = (tl.sum(tl.load(part_second + at, here, 0.0), 0) / total)[None, :, None]
    r = k * ROWS + tl.arange(0, ROWS)[:, None, None]
    g = gs[None, :, None]
    c = tl.arange(0, CGP)[None, None, :]
    ok = (r < rows) & (c < CG) & (g >= 0)
    known = (c < CG) & (g >= 0)
    at_x = n * rows * channels + r * channels + g * CG + c
    value = tl.load(x + at_x, ok, 0.0).to(tl.float32)
    value += tl.load(shift + n * shift_row + g * CG + c, known, 0.0).to(tl.float32)
    mean = tl.load(mean_in + n * GROUPS + gs)[None, :, None]
    rstd = tl.load(rstd_in + n * GROUPS + gs)[None, :, None]
    value = (value - mean) * rstd
    w = tl.load(weight + g * CG + c, known, 0.0).to(tl.float32)
    b = tl.load(bias + g * CG + c, known, 0.0).to(tl.float32)
    slope = _slope(value, tl.load(grad + at_x, ok, 0.0).to(tl.float32), w, b, silu)
    tl.store(dx + at_x, rstd * (slope - first - value * second), ok)


@triton.jit
def gate(both, bias, out, width, BLOCK: tl.constexpr):
    """out = first half * gelu(second half) of both + bias, a row of (2 * width) a program."""
    row = tl.program_id(0)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = c < width
    start = row * 2 * width + c
    value = tl.load(both + start, ok, 0.0).to(tl.float32) + tl.load(bias + c, ok, 0.0).to(tl.float32)
    door = tl.load(both + start + width, ok, 0.0).to(tl.float32) + tl.load(bias + width + c, ok, 0.0).to(tl.float32)
    half = 0.5 * (1 + tl.erf(door * 0.7071067811865476))
    tl.store(out + row * width + c, value * door * half, ok)


@triton.jit
def gate_back(both, bias, grad, back, width, BLOCK: tl.constexpr):
    """The gradient of `gate` by both halves."""
    row = tl.program_id(0)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = c < width
    start = row * 2 * width + c
    value = tl.load(both + start, ok, 0.0).to(tl.float32) + tl.load(bias + c, ok, 0.0).to(tl.float32)
    door = tl.load(both + start + width, ok, 0.0).to(tl.float32) + tl.load(bias + width + c, ok, 0.0).to(tl.float32)
    g = tl.load(grad + row * width + c, ok, 0.0).to(tl.float32)
    half = 0.5 * (1 + tl.erf(door * 0.7071067811865476))
    bell = 0.3989422804014327 * tl.exp(-0.5 * door * door)
    tl.store(back + row * 2 * width + c, g * door * half, ok)
    tl.store(back + row * 2 * width + width + c, g * value * (half + door * bell), ok)


@triton.jit
def add_bias(x, residual, bias, out, total, channels, BLOCK: tl.constexpr):
    """out = x + residual + bias, channels last."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ok = at < total
    value = tl.load(x + at, ok, 0.0).to(tl.float32) + tl.load(residual + at, ok, 0.0).to(tl.float32)
    tl.store(out + at, value + tl.load(bias + at % channels, ok, 0.0).to(tl.float32), ok)


@triton.jit
def add_norm(
    x, residual, bias, weight, shift, out, normed, mean_out, rstd_out, channels, eps, BLOCK: tl.constexpr,
):
    """out = x + residual + bias, and its layer norm, a row a program."""
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    ok = c < channels
    at = row.to(tl.int64) * channels + c
    value = tl.load(x + at, ok, 0.0).to(tl.float32) + tl.load(residual + at, ok, 0.0).to(tl.float32)
    value += tl.load(bias + c, ok, 0.0).to(tl.float32)
    kept = value.to(out.dtype.element_ty)
    tl.store(out + at, kept, ok)
    # Of the rounded sum, which the backward pass sees too.
    value = kept.to(tl.float32)
    mean = tl.sum(value, 0) / channels
    away = tl.where(ok, value - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(away * away, 0) / channels + eps)
    w = tl.load(weight + c, ok, 0.0).to(tl.float32)
    tl.store(normed + at, away * rstd * w + tl.load(shift + c, ok, 0.0).to(tl.float32), ok)
    tl.store(mean_out + row, mean)
    tl.store(rstd_out + row, rstd)


@triton.jit
def add_norm_back(out, weight, mean_in, rstd_in, grad_out, grad_normed, dx, channels, BLOCK: tl.constexpr):
    """The gradient of `add_norm` by each summand: that of the sum itself and that of its norm."""
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    ok = c < channels
    at = row.to(tl.int64) * channels + c
    value = tl.load(out + at, ok, 0.0).to(tl.float32)
    rstd = tl.load(rstd_in + row)
    value = tl.where(ok, (value - tl.load(mean_in + row)) * rstd, 0.0)
    slope = tl.load(grad_normed + at, ok, 0.0).to(tl.float32) * tl.load(weight + c, ok, 0.0).to(tl.float32)
    first = tl.sum(slope, 0) / channels
    second = tl.sum(slope * value, 0) / channels
    whole = tl.load(grad_out + at, ok, 0.0).to(tl.float32) + rstd * (slope - first - value * second)
    tl.store(dx + at, whole, ok)


@triton.jit
def add_change(frozen, change, out, scale, total, BLOCK: tl.constexpr):
    """out = frozen + scale * change; frozen is the same for every row of the grid's second axis."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ok = at < total
    row = tl.program_id(1).to(tl.int64) * total
    value = tl.load(frozen + at, ok, 0.0).to(tl.float32) + scale * tl.load(change + row + at, ok, 0.0).to(tl.float32)
    tl.store(out + row + at, value, ok)
