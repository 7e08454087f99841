"""Kohya LoRA files put into a base model's weights, and taken out again without a trace.

The scaled product up x down is added to the weights themselves (arXiv 2106.09685, section 4.1), so a step costs nothing
more. The originals are set aside and put back as the very same tensors: restoring cannot lose a bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from easyphoto.engine.models import Models
from easyphoto.errors import NotFound
from easyphoto.families import Family
from easyphoto.records import LoraUse
from easyphoto.store.lora_file import DOWN, LoraFile, LoraModule, check_lora, read_lora
from easyphoto.store.lora_names import other_keys, text_key, unet_keys

_ROOM = 6 * 2**30
"""Bytes that must be free on a GPU for the originals to stay there: SDXL's transformers, and something to compute in."""


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
    """Hold `loras` in the weights of UNet and text encoders; on leaving, the weights are the original tensors again.

    Raises:
        NotFound: A file is not there.
        LoraError: A file is broken, or has layers or shapes of another model; nothing has been touched then.
    """
    layers = lora_layers(models) if loras else {}
    files = _checked(models, loras, layers)
    originals: dict[str, Any] = {}
    try:
        for name in sorted({name for _, file in files for name in file.module_names()}):
            weight = layers[name].weight.data
            modules = [(share, file.module(name)) for share, file in files if f"{name}.{DOWN}" in file.tensors]
            originals[name] = _set_aside(weight)
            layers[name].weight.data = _added(weight, modules)
        yield
    finally:
        for name, original in originals.items():
            layers[name].weight.data = original.to(layers[name].weight.device)


def lora_layers(models: Models) -> dict[str, Any]:
    """Every Linear and Conv2d of UNet and text encoders by its kohya name, such as lora_unet_mid_block_..._to_q."""
    unet = _weighted(models.unet)
    keys = unet_keys(unet, models.family, models.unet.config.layers_per_block)
    layers = {keys[name]: layer for name, layer in unet.items()}
    for number, encoder in enumerate(models.text_encoders):
        layers |= {text_key(name, models.family, number): layer for name, layer in _weighted(encoder).items()}
    return layers


def _weighted(network: Any) -> dict[str, Any]:  # noqa: ANN401 (torch Module)
    import torch

    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, kinds)}


def _checked(
    models: Models, loras: tuple[LoraUse, ...], layers: dict[str, Any]
) -> tuple[tuple[float, LoraFile], ...]:  # fmt: skip
    """Each LoRA with its weight; every file is checked before the first is used."""
    files = tuple((use.weight, _in_own_names(models, read_lora(use.path))) for use in loras)
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    for _, file in files:
        check_lora(file, shapes, models.family)
    return files


def _in_own_names(models: Models, file: LoraFile) -> LoraFile:
    """The file with its UNet modules under our names: some tools write LDM's blocks where others write diffusers'."""
    diffusers, ldm = other_keys(_weighted(models.unet), models.unet.config.layers_per_block)
    own, other = (ldm, diffusers) if models.family is Family.SDXL else (diffusers, ldm)
    names = {other[name]: own[name] for name in own}
    tensors = {}
    for key, tensor in file.tensors.items():
        module, end = key.split(".", 1)
        tensors[f"{names.get(module, module)}.{end}"] = tensor
    return LoraFile(tensors=tensors, metadata=file.metadata)


def _added(weight: Any, modules: Sequence[tuple[float, LoraModule]]) -> Any:  # noqa: ANN401 (torch.Tensor)
    """A new tensor; multiplied and summed in float32 where the weight lies, so that half precision rounds once."""
    import torch

    with torch.no_grad():
        whole = weight.float()
        for share, module in modules:
            up, down = (torch.from_numpy(np.array(factor)).to(weight.device) for factor in (module.up, module.down))
            change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
            whole = whole + share * module.scale * change
        return whole.to(weight.dtype)


def _set_aside(weight: Any) -> Any:  # noqa: ANN401 (torch.Tensor)
    """The original; on a GPU with little room left it waits in the machine's memory, where a copy loses no bit either."""
    import torch

    if weight.is_cuda and torch.cuda.mem_get_info(weight.device)[0] < _ROOM:
        return weight.cpu()
    return weight
