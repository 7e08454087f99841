"""The base model of a process that trains one person after the other: lent to each training, as it was loaded, bit for bit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from easyphoto.engine.models import Models
from easyphoto.specs import TrainSpec
from easyphoto.training.memory import give_back, gpu_memory_gib
from easyphoto.training.planner import GIB, Course, choose, needed_gib

if TYPE_CHECKING:
    from torch import Tensor

_SPARE_GIB = 2.0
"""What must be left of a GPU's memory beside a training and the weights that wait for the next."""


class Lender:
    """Loads a base model once for all trainings that it fits, one at a time."""

    def __init__(self, keeps: bool = False) -> None:
        """`keeps`: there may be a next training."""
        self._keeps = keeps
        self._device = "cpu"
        self._kept: _AsLoaded | None = None

    @contextmanager
    def lent(self, spec: TrainSpec, load: Callable[[TrainSpec], Models]) -> Iterator[Models]:
        """A base model for one training; one that ends with an error gives nothing back.

        Args:
            spec: Of the training.
            load: Reads the base model anew.
        """
        if self._kept is not None and not self._kept.fits(spec):
            self._kept = None
            give_back(self._device)
        models = self._kept.models if self._kept else load(spec)
        self._device = models.device
        if self._kept is None and self._keeps and _has_room(models, spec):
            self._kept = _AsLoaded(models, spec)
        try:
            with _own_ways():
                yield models
        except BaseException:
            self._kept = None
            raise
        if self._kept is not None:
            self._kept.put_back()

    def forget(self) -> None:
        """Keep nothing of what is lent now: its memory is needed."""
        self._kept = None

    def tidy(self) -> None:
        """Free what a training that is over has left."""
        gc.collect()
        if self._device.startswith("cuda"):
            import torch

            # cuBLAS has 32 MiB and more of its own for each stream, and a captured step is on a stream of its own.
            torch._C._cuda_clearCublasWorkspaces()
        give_back(self._device)


class _AsLoaded:
    """A base model and its weights as they were read, which a training replaces by others of its own precision."""

    def __init__(self, models: Models, spec: TrainSpec) -> None:
        self.models = models
        self._of = (spec.base_model, spec.device)
        self._dtype = models.dtype
        self._weights = [(tensor, tensor.data) for part in _parts(models) for tensor in _tensors(part)]

    def fits(self, spec: TrainSpec) -> bool:
        """Whether a training can have this one: of the same model, all of it on the device."""
        return (spec.base_model, spec.device) == self._of and not _course(self.models, spec).offload

    def put_back(self) -> None:
        """Give every weight its value, precision and place again."""
        for tensor, data in self._weights:
            tensor.data = data
        self.models.dtype = self._dtype
        self.models.unet.disable_gradient_checkpointing()
        if self.models.vae is not None:
            self.models.vae.disable_tiling()


def _parts(models: Models) -> tuple[Any, ...]:
    """All networks but the ControlNets, which are read in the precision that trainings compute in."""
    return tuple(part for part in (models.unet, *models.text_encoders, models.vae) if part is not None)


def _tensors(part: Any) -> Iterator[Tensor]:  # noqa: ANN401 (torch Module)
    yield from part.parameters()
    yield from part.buffers()


def _has_room(models: Models, spec: TrainSpec) -> bool:
    """Whether the weights may lie beside the training's own copies of them."""
    memory, course = gpu_memory_gib(models.device), _course(models, spec)
    if memory is None:
        return True
    weights = sum(tensor.numel() * tensor.element_size() for part in _parts(models) for tensor in _tensors(part))
    return not course.offload and needed_gib(course, spec) + weights / GIB + _SPARE_GIB <= memory


def _course(models: Models, spec: TrainSpec) -> Course:
    return choose(spec, gpu_memory_gib(models.device))[0]


@contextmanager
def _own_ways() -> Iterator[None]:
    """Take back how torch was told to compute: a training starts in a process as if it were the first in it."""
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark = before
