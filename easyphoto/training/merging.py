"""Merging of LoRAs on a GPU: layers of one shape at once, by products and one decomposition of a small symmetric matrix.

The sum of a layer's products is U @ D.T with U = [w_1 s_1 up_1 | w_2 s_2 up_2 | ...] and D likewise of the downs. Its nearest
matrix of a smaller rank (Eckart and Young, 1936) needs its right singular vectors: with U.T @ U = L @ L.T (Cholesky), those are
B @ W / S for B = D @ L and the eigenvectors W of B.T @ B, whose eigenvalues are the squared singular values S. Squaring halves
the digits, so it is computed in float64; what is left is more than a file in half precision holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from easyphoto.store.lora_file import ALPHA, DOWN, UP, Array, LoraFile, LoraModule, module_tensors
from easyphoto.store.lora_merge import check_merge, merge_loras
from easyphoto.training.memory import give_back, is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

_TOGETHER, _AT_ONCE = 8, 8
"""Layers that are one batch, and batches on their way at once; each layer takes some 30 MB."""
_NOTHING = 1e-6
"""Singular values below this share of the largest are rounding."""
_LIFT = 1e-13
"""What is added to the diagonal, as a share of the largest entry, so that Cholesky's roots exist where columns repeat."""


def merge_for(device: str, begins: Callable[[], object]) -> Callable[[Sequence[LoraFile], Sequence[float]], LoraFile]:
    """How LoRAs are merged where a training ran; tells when it begins."""

    def merge(files: Sequence[LoraFile], weights: Sequence[float]) -> LoraFile:
        begins()
        if device.startswith("cuda"):
            try:
                return merge_on(device, files, weights)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            give_back(device)
        return merge_loras(files, weights)

    return merge


def merge_on(device: str, files: Sequence[LoraFile], weights: Sequence[float]) -> LoraFile:
    """As `store.lora_merge.merge_loras`, on a torch device.

    Raises:
        SpecError: There are no files, or not one weight for each.
        LoraError: A module has different shapes in different files.
    """
    import torch

    check_merge(files, weights)
    alike: dict[tuple[object, ...], list[_Layer]] = {}
    for name in sorted({name for file in files for name in file.module_names()}):
        layer = _Layer(name=name, parts=tuple(_parts(name, files, weights)))
        alike.setdefault(layer.shape, []).append(layer)
    parts = [layers[at : at + _TOGETHER] for layers in alike.values() for at in range(0, len(layers), _TOGETHER)]
    tensors: dict[str, Array] = {}
    # torch loads its decompositions at the first, which must not be two at a time.
    torch.linalg.eigh(torch.eye(2, device=device, dtype=torch.float64))
    # A decomposition of so small a matrix is one kernel after the other, none of which fills a GPU: several at a time.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for found in pool.map(partial(_merged, device), parts):
            for name, module in found:
                tensors |= module_tensors(name, module, module.up.dtype)
    return LoraFile(tensors=dict(sorted(tensors.items())), metadata=dict(files[0].metadata))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One file's factors of a layer, in the file's precision."""

    up: Array
    down: Array
    scale: float
    weight: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """A layer in all files that have it."""

    name: str
    parts: tuple[_Part, ...]

    @property
    def shape(self) -> tuple[object, ...]:
        """Layers with the same are computed together."""
        return tuple((part.up.shape, part.down.shape, part.up.dtype) for part in self.parts)


def _parts(name: str, files: Sequence[LoraFile], weights: Sequence[float]) -> Iterator[_Part]:
    for file, weight in zip(files, weights):
        down, up = file.tensors.get(f"{name}.{DOWN}"), file.tensors.get(f"{name}.{UP}")
        if down is None or up is None:
            continue
        alpha = file.tensors.get(f"{name}.{ALPHA}")
        yield _Part(up=up, down=down, scale=1.0 if alpha is None else float(alpha) / len(down), weight=weight)


def _merged(device: str, layers: Sequence[_Layer]) -> list[tuple[str, LoraModule]]:
    """Layers of one shape, on a stream of their own; factors in the precision of the first file."""
    import torch

    if not device.startswith("cuda"):
        return list(_merge(device, layers))
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        return list(_merge(device, layers))


def _merge(device: str, layers: Sequence[_Layer]) -> Iterator[tuple[str, LoraModule]]:
    import torch

    first = layers[0].parts
    rank = max(len(part.down) for part in first)
    ups, downs = [], []
    for at, part in enumerate(first):
        scales = [layer.parts[at].scale * layer.parts[at].weight for layer in layers]
        up = _on(device, [layer.parts[at].up.reshape(len(part.up), -1) for layer in layers])
        ups.append(up * torch.tensor(scales, device=device, dtype=torch.float64)[:, None, None])
        downs.append(_on(device, [layer.parts[at].down.reshape(len(part.down), -1) for layer in layers]))
    new_up, new_down = nearest(torch.cat(ups, dim=2), torch.cat(downs, dim=1).mT, rank)
    scale = torch.tensor([layer.parts[0].scale for layer in layers], device=device, dtype=torch.float64)
    kind = torch.from_numpy(np.zeros(0, first[0].up.dtype)).dtype
    all_up, all_down = (new_up / scale[:, None, None]).to(kind).cpu().numpy(), new_down.to(kind).cpu().numpy()
    for layer, up_of, down_of in zip(layers, all_up, all_down):
        one = layer.parts[0]
        yield layer.name, LoraModule(
            down=down_of.reshape(rank, *one.down.shape[1:]), up=up_of.reshape(len(one.up), rank, *one.up.shape[2:]),
            alpha=one.scale * rank,
        )  # fmt: skip


def _on(device: str, arrays: list[Array]) -> Tensor:
    """(layers, ...) float64."""
    import torch

    return torch.from_numpy(np.stack(arrays)).to(device).double()


def nearest(up: Tensor, down: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors of the matrix of that rank that is nearest to up @ down.T; half of each singular value on either side.

    Args:
        up: (layers, outputs, n) float64.
        down: (layers, inputs, n) float64.
        rank: At most n.

    Returns:
        (layers, outputs, rank) and (layers, rank, inputs).
    """
    import torch

    square = up.mT @ up
    largest = square.diagonal(dim1=1, dim2=2).amax(1)[:, None, None].clamp_min(torch.finfo(square.dtype).tiny ** 0.5)
    eye = torch.eye(square.shape[-1], device=up.device, dtype=up.dtype)
    root = torch.linalg.cholesky(square + _LIFT * largest * eye)
    wide = down @ root
    values, vectors = torch.linalg.eigh(wide.mT @ wide)
    values, vectors = values[:, -rank:].flip(1), vectors[:, :, -rank:].flip(2)
    strength = values.clamp_min(0).sqrt()
    sure = strength > _NOTHING * strength[:, :1].clamp_min(torch.finfo(square.dtype).tiny ** 0.5)
    inverse = torch.where(sure, strength, 1).pow(-0.5) * sure
    right = wide @ vectors
    # right is S times the right singular vectors; up @ down.T @ right is S squared times the left ones.
    new_up = up @ (down.mT @ right) * inverse.pow(3)[:, None, :]
    return new_up, (right * inverse[:, None, :]).mT
