"""Weighted sums of LoRAs, taken where they act: on the products of the factors, not on the factors.

Averaging the factors themselves gives the cross terms up_i @ down_j of different checkpoints too, which nobody trained.
Here each module's sum of products is formed exactly and then cut back to the rank of the files, by the truncated singular
value decomposition, which is the nearest matrix of that rank (Eckart and Young, 1936).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from easyphoto.errors import LoraError, SpecError
from easyphoto.store.lora_file import DOWN, UP, Array, LoraFile, LoraModule, Weights, module_tensors


def merge_loras(files: Sequence[LoraFile], weights: Sequence[float]) -> LoraFile:
    """The LoRA whose products are the weighted sum of the files' products, at the largest rank among the files.

    A module that a file lacks counts as zero in it. Metadata and precision are the first file's.

    Raises:
        SpecError: There are no files, or not one weight for each.
        LoraError: A module has different shapes in different files.
    """
    check_merge(files, weights)
    names = sorted({name for file in files for name in file.module_names()})

    def merged(name: str) -> dict[str, Array]:
        parts = [(file.module(name), weight) for file, weight in zip(files, weights) if f"{name}.{DOWN}" in file.tensors]
        module = merge_modules([part for part, _ in parts], [weight for _, weight in parts])
        return module_tensors(name, module, files[0].tensors.get(f"{name}.{DOWN}", module.down).dtype)

    tensors: dict[str, Array] = {}
    # numpy leaves the interpreter to others while it decomposes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(merged, names):
            tensors |= found
    return LoraFile(tensors=tensors, metadata=dict(files[0].metadata))


def check_merge(files: Sequence[LoraFile], weights: Sequence[float]) -> None:
    """Refuse what cannot be merged; raises as `merge_loras`."""
    if not files or len(files) != len(weights):
        raise SpecError(f"merging needs one weight for each file, got {len(files)} files and {len(weights)} weights")
    first: dict[str, tuple[object, ...]] = {}
    for file in files:
        for name in file.module_names():
            down, up = file.tensors.get(f"{name}.{DOWN}"), file.tensors.get(f"{name}.{UP}")
            if down is None or up is None:
                continue
            shape = (down.shape[1:], up.shape[0])
            if first.setdefault(name, shape) != shape:
                raise LoraError(f"the LoRAs to merge have different shapes in {name}; merge checkpoints of one training only")


def merge_modules(modules: Sequence[LoraModule], weights: Sequence[float]) -> LoraModule:
    """The weighted sum of one module's products, cut back to the largest rank among them.

    With U = [w_1 s_1 up_1 | w_2 s_2 up_2 | ...] and D the downs above each other, the sum is U @ D. Both are tall and
    thin, so their QR decompositions leave a square core of (number of files x rank), and only that needs an SVD.
    """
    first = modules[0]
    rank = max(module.rank for module in modules)
    up = np.concatenate([weight * module.scale * _matrix_up(module) for module, weight in zip(modules, weights)], axis=1)
    down = np.concatenate([_matrix_down(module) for module in modules], axis=0)
    q_up, r_up = np.linalg.qr(up)
    q_down, r_down = np.linalg.qr(down.T)
    left, strength, right = np.linalg.svd(r_up @ r_down.T, full_matrices=False)
    # Half of each singular value on either side keeps the factors alike in size, as half precision wants them.
    half = np.sqrt(strength[:rank])
    new_up = _widen(q_up @ left[:, :rank] * half, rank, axis=1)
    new_down = _widen(half[:, None] * (right[:rank] @ q_down.T), rank, axis=0)
    return LoraModule(
        down=new_down.reshape(rank, *first.down.shape[1:]).astype(np.float32),
        up=(new_up / first.scale).reshape(first.up.shape[0], rank, *first.up.shape[2:]).astype(np.float32),
        alpha=first.scale * rank,
    )


def _matrix_up(module: LoraModule) -> Weights:
    return module.up.reshape(module.up.shape[0], module.rank).astype(np.float64)


def _matrix_down(module: LoraModule) -> Weights:
    return module.down.reshape(module.rank, -1).astype(np.float64)


def _widen(matrix: Array, rank: int, axis: int) -> Array:
    """Zeros up to the rank, where the base weight itself has fewer rows or columns than that."""
    missing = rank - matrix.shape[axis]
    widths = [(0, 0), (0, 0)]
    widths[axis] = (0, missing)
    return np.pad(matrix, widths)
