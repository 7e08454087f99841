"""Triton kernels for an autoencoder's group norms: few channels, so many rows that a group's are spread over the whole chip.

Activations lie as (pictures, rows * columns, channels), channels last. Import this module only where `fused.available` says so.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def moments(x, sums, rows, channels, chunks, ROWS: tl.constexpr, LOOPS: tl.constexpr, CP: tl.constexpr):
    """Each channel's sum and sum of squares over a chunk of rows: (pictures, chunks, 2, channels)."""
    n = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1)
    c = tl.arange(0, CP)
    first = tl.zeros([CP], tl.float32)
    second = tl.zeros([CP], tl.float32)
    for turn in range(LOOPS):
        r = (k * LOOPS + turn) * ROWS + tl.arange(0, ROWS)[:, None]
        ok = (r < rows) & (c[None, :] < channels)
        value = tl.load(x + n * rows * channels + r * channels + c[None, :], ok, 0.0).to(tl.float32)
        first += tl.sum(value, 0)
        second += tl.sum(value * value, 0)
    at = (n * chunks + k) * 2 * channels + c
    tl.store(sums + at, first, c < channels)
    tl.store(sums + at + channels, second, c < channels)


@triton.jit
def scaled(x, scale, shift, y, size, channels, total, silu, BLOCK: tl.constexpr):
    """y = x * scale + shift by picture (of `size` values) and channel, then SiLU."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = at < total
    of = (at // size) * channels + at % channels
    value = tl.load(x + at, ok, 0.0).to(tl.float32) * tl.load(scale + of, ok, 0.0) + tl.load(shift + of, ok, 0.0)
    tl.store(y + at, value * (silu * tl.sigmoid(value) + (1 - silu)), ok)
