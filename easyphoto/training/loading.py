"""The base model as a training wants it: where it lies, in which precision it is computed with, and by which course."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyphoto.engine.models import Models, load_models, resolve_device
from easyphoto.errors import SpecError
from easyphoto.specs import TrainSpec
from easyphoto.training.memory import gpu_memory_gib
from easyphoto.training.planner import Course, choose
from easyphoto.training.trainer import check_prediction

if TYPE_CHECKING:
    import torch


def load_training_models(spec: TrainSpec) -> Models:
    """The base model, on a GPU in half precision: `LoraNetwork.settle` turns it into what training wants.

    Raises:
        SpecError: The base model is of another family than the spec says, or cannot be trained.
    """
    models = _load(spec, resolve_device(spec.device))
    if models.family is not spec.family:
        raise SpecError(
            f"the base model {spec.base_model.name} is of the {models.family.value} family and the training was ordered for "
            f"{spec.family.value}; order it for {models.family.value}"
        )
    check_prediction(models)
    return models


def _load(spec: TrainSpec, device: str) -> Models:
    """Everything on the device, or all in main memory, where that does not hold it: `LoraNetwork.follow` brings what it can."""
    import torch

    if device.startswith("cuda:"):
        torch.cuda.set_device(device)  # streams and kernels of ours go to the current one
    if not choose(spec, gpu_memory_gib(device))[0].offload:
        return load_models(spec.base_model, device)
    models = load_models(spec.base_model, "cpu", training_dtype(device))
    models.device, models.controlnets_on = device, "cpu"
    return models


def courses(spec: TrainSpec, models: Models) -> tuple[Course, ...]:
    """How to train; what was loaded into main memory stays there, also if there is more room by now."""
    rungs = choose(spec, gpu_memory_gib(models.device))
    return tuple(rung for rung in rungs if rung.offload) if models.controlnets_on else rungs


def training_dtype(device: str) -> torch.dtype:
    """bfloat16 on GPUs that compute in it, as it cannot overflow; float16 on others; float32 elsewhere."""
    import torch

    if not device.startswith("cuda"):
        return torch.float32
    torch.backends.cuda.matmul.allow_tf32 = True
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
