"""Kohya LoRA files put into a base model's weights, and taken out again without a trace.

The scaled product up x down is added to the weights themselves (arXiv 2106.09685, section 4.1), so a step costs nothing
more. The originals are set aside and put back as the very same tensors: restoring cannot lose a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from easyphoto.engine.models import Models
from easyphoto.errors import NotFound
from easyphoto.records import LoraUse
from easyphoto.store.lora_file import TEXT_PREFIX, UNET_PREFIX, Weights, check_lora, kohya_key, read_lora


def lora_key(loras: tuple[LoraUse, ...]) -> tuple[object, ...]:
    """What tells two sets of LoRAs apart: path, weight, and the file's size and time of change.

    Raises:
        NotFound: A file is not there.
    """
    try:
        return tuple((str(use.path), use.weight, use.path.stat().st_size, use.path.stat().st_mtime_ns) for use in loras)
    except OSError as error:
        raise NotFound(f"the LoRA {error.filename} cannot be read ({error.strerror}); train the person again") from error


@contextmanager
def patched(models: Models, loras: tuple[LoraUse, ...]) -> Iterator[None]:
    """Hold `loras` in the weights of UNet and text encoder; on leaving, the weights are the original tensors again.

    Raises:
        NotFound: A file is not there.
        LoraError: A file is broken, or has layers or shapes of another model; nothing has been touched then.
    """
    layers = lora_layers(models) if loras else {}
    changes = _changes(models, loras, layers)
    originals = {name: layers[name].weight.data for name in changes}
    try:
        for name, change in changes.items():
            layers[name].weight.data = _added(originals[name], change)
        yield
    finally:
        for name, original in originals.items():
            layers[name].weight.data = original


def lora_layers(models: Models) -> dict[str, Any]:
    """Every Linear and Conv2d of UNet and text encoder by its kohya name, such as lora_unet_mid_block_..._to_q."""
    import torch

    return {
        kohya_key(prefix, name): layer
        for prefix, network in ((UNET_PREFIX, models.unet), (TEXT_PREFIX, models.text_encoder))
        for name, layer in network.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }


def _changes(models: Models, loras: tuple[LoraUse, ...], layers: dict[str, Any]) -> dict[str, Weights]:
    """The sum of all weighted LoRAs for each layer; every file is checked before the first is used."""
    files = [(use.weight, read_lora(use.path)) for use in loras]
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    for _, file in files:
        check_lora(file, shapes, models.family)
    changes: dict[str, Weights] = {}
    for weight, file in files:
        for name in file.module_names():
            change = np.float32(weight) * file.module(name).delta().reshape(shapes[name])
            changes[name] = changes[name] + change if name in changes else change
    return changes


def _added(weight: Any, change: Weights) -> Any:  # noqa: ANN401 (torch.Tensor)
    """A new tensor; summed in float32, so that half precision rounds once."""
    import torch

    with torch.no_grad():
        return (weight.float() + torch.from_numpy(change).to(weight.device)).to(weight.dtype)
