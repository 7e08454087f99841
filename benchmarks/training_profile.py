"""Where a step's time goes, kernel by kernel and kind by kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

_KINDS = (
    ("attention", r"sdpa|flash|fmha|attention|compute_dot_do_o|convert_dq"),
    ("convolutions", r"fprop|dgrad|wgrad|conv|cudnn.*engine|implicit_gemm"),
    ("products", r"gemm|nvjet|cutlass|cublas|splitk|gemv|dot_kernel"),
    ("group norms", r"^norm_"),
    ("layer norms", r"layer_?norm|LayerNorm|GammaBeta"),
    ("residual sums with their norm", r"^add_norm"),
    ("gates, residual sums", r"^gate|^add_bias"),
    ("merging", r"^add_change"),
    ("AdamW", r"adam|multi_tensor"),
    ("copies", r"memcpy|memset|copy_kernel|direct_copy|CatArray"),
    ("sums", r"reduce|norm_kernel|Norm"),
)
"""A kind of kernel and how its kernels are called; what is none of them is a small one of torch's."""


def profile(step: Callable[[], object], end: Callable[[], object], device: str, steps: int = 4) -> dict[str, Any]:
    """Kernels of some steps: prints the largest, returns milliseconds and number a step of each kind.

    Args:
        step: Starts a step.
        end: Waits for all of them.
        device: Where.
        steps: How many are looked at.
    """
    on_gpu = device != "cpu"
    kinds = [torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as seen:
        for _ in range(steps):
            step()
        end()
    found = []
    for event in seen.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found.append((spent / 1000 / steps, event.count / steps, event.key))
    found.sort(reverse=True)
    for spent, count, name in found[:40]:
        print(f"{spent:8.3f} ms {count:7.1f} x  {_kind(name):22} {name[:110]}")
    sums: dict[str, list[float]] = {}
    for spent, count, name in found:
        own = sums.setdefault(_kind(name), [0.0, 0.0])
        own[0], own[1] = own[0] + spent, own[1] + count
    largest = sorted(sums.items(), key=lambda pair: -pair[1][0])
    return {name: [round(spent, 3), round(count)] for name, (spent, count) in largest}


def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if re.search(pattern, name, re.IGNORECASE)), "small ones")
