"""What is on the GPU while a training runs, and how much of it is ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from easyphoto.engine.models import Models
from easyphoto.records import ConditionKind
from easyphoto.training.planner import GIB

_FIRST_TILE, _LEAST_TILE = 64, 32
"""Sides in latent cells: the largest tile that is tried, and one that is not made smaller."""
_PICTURE_GIB = 1.5
"""What rendering one picture takes besides the networks."""


def wake(device: str) -> None:
    """Have a GPU begin to work for this process: takes a second or more, in which a thread waits and others import."""
    import torch

    if device == "auto" or device.startswith("cuda"):
        place = "cuda" if device == "auto" else device
        threading.Thread(target=lambda: torch.cuda.is_available() and torch.zeros(1, device=place), daemon=True).start()


def gpu_memory_gib(device: str) -> float | None:
    """What this process may still take or has taken of a GPU's memory; None for other devices.

    What others hold is left to them; a limit that was set for the process counts.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    number = torch.device(device).index or 0
    free, total = torch.cuda.mem_get_info(number)
    share = torch.cuda.get_per_process_memory_fraction(number)
    return float(min(free + torch.cuda.memory_reserved(number), share * total) / GIB)


def waiting_parts(models: Models, trains_text: bool) -> list[Any]:
    """What the steps do not need: the autoencoder, and text encoders that are not trained."""
    parts = [] if models.vae is None else [models.vae]
    return parts if trains_text else [*parts, *models.text_encoders]


@contextmanager
def placed(models: Models, parts: Sequence[Any]) -> Iterator[None]:
    """Have parts on the models' device; they go back to where they came from."""
    from torch.nn import Module

    homes = [next(part.parameters()).device for part in parts]
    for part in parts:
        Module.to(part, models.device)
    try:
        yield
    finally:
        for part, home in zip(parts, homes):
            Module.to(part, home)
        if parts:
            give_back(models.device)


def set_aside(models: Models, parts: Sequence[Any]) -> None:
    """Move parts to main memory, and with them ControlNets."""
    from torch.nn import Module

    if parts:
        models.controlnets_on = "cpu"
    for part in [*parts, *(models.loaded_controlnets if parts else ())]:
        Module.to(part, "cpu")
    give_back(models.device)


def bring(network: Any, device: str, but: Collection[Any] = ()) -> None:  # noqa: ANN401 (torch Module)
    """Move a network to the device, all but the weights of some layers."""
    for module in network.modules():
        for name, tensor in _own(module):
            if module not in but or name != "weight":
                _put(module, name, tensor.to(device))


@contextmanager
def rendering(models: Models, waiting: Sequence[Any], kinds: Collection[ConditionKind]) -> Iterator[None]:
    """Let everything be used that a picture needs, where memory is short: each part in its turn.

    Args:
        models: Whose.
        waiting: Parts in main memory; where there are none, everything is on the device, and nothing is done.
        kinds: Of the ControlNets that will be used; they are on the device as a whole, if it has room for all of them.
    """
    nets = [models.controlnet(kind) for kind in kinds] if waiting else []
    whole = nets if _have_room(models.device, nets) else []
    with placed(models, whole), in_turn(models, waiting if whole else [*waiting, *nets]):
        yield


def _have_room(device: str, parts: Sequence[Any]) -> bool:
    """For parts and a picture."""
    ours = gpu_memory_gib(device)
    if ours is None:
        return False
    import torch

    size = sum(tensor.numel() * tensor.itemsize for part in parts for tensor in part.parameters())
    left = ours - torch.cuda.memory_allocated(device) / GIB
    return bool(left > size / GIB + _PICTURE_GIB)


@contextmanager
def in_turn(models: Models, parts: Sequence[Any]) -> Iterator[None]:
    """Let parts that wait in main memory be used: each of their layers is on the device while it computes, and only then."""
    if not parts:
        yield
        return
    import torch

    layers = {layer for part in parts for layer in part.modules() if any(_own(layer))}
    changed = [(layer, "forward", partial(_visit, layer, layer.forward, models.device)) for layer in layers]
    if any(part is models.vae for part in parts):
        changed += [(models.vae, name, partial(_in_tiles, models, name)) for name in ("encode", "decode")]
    before = {(thing, name): vars(thing).get(name) for thing, name, _ in changed}
    for thing, name, function in changed:
        vars(thing)[name] = function
    try:
        # It decides by itself when to be quick; what is computed once or a few times is not worth a search.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True):
            yield
    finally:
        for (thing, name), function in before.items():
            vars(thing).pop(name)
            if function is not None:
                vars(thing)[name] = function
        give_back(models.device)


def _own(module: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 (torch Module)
    """Parameters and buffers of a module itself, by name."""
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _put(module: Any, name: str, tensor: Any) -> None:  # noqa: ANN401 (torch Module, Tensor)
    """Have a frozen weight or a buffer replaced."""
    from torch.nn import Parameter

    if name in module._buffers:
        module._buffers[name] = tensor
    else:
        module._parameters[name] = tensor if isinstance(tensor, Parameter) else Parameter(tensor, requires_grad=False)


def _visit(layer: Any, forward: Callable[..., Any], device: str, *given: Any, **named: Any) -> Any:  # noqa: ANN401
    """The layer's result, computed on the device; its weights stay where they are."""
    import torch

    homes = _own(layer)
    with torch.no_grad():
        for name, home in homes:
            _put(layer, name, home.to(device))
    try:
        return forward(*given, **named)
    finally:
        for name, home in homes:
            _put(layer, name, home)


def _in_tiles(models: Models, name: str, *given: Any, **named: Any) -> Any:  # noqa: ANN401
    """The autoencoder's own, or where memory does not hold that, in tiles."""
    import torch

    function = getattr(type(models.vae), name)
    while True:
        try:
            return function(models.vae, *given, **named)
        except torch.OutOfMemoryError:
            if not smaller_tiles(models.vae):
                raise
        give_back(models.device)


def smaller_tiles(vae: Any) -> bool:  # noqa: ANN401 (AutoencoderKL)
    """Have the autoencoder work in tiles, or in smaller ones; False where they are as small as makes sense."""
    if vae.tile_latent_min_size <= _LEAST_TILE:
        return False
    if vae.use_tiling or vae.tile_latent_min_size > _FIRST_TILE:
        vae.tile_latent_min_size //= 2
        vae.tile_sample_min_size //= 2
    vae.enable_tiling()
    return True


def give_back(device: str) -> None:
    """Return what the allocator keeps for later."""
    if device.startswith("cuda"):
        import gc

        import torch

        gc.collect()
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether a GPU's memory ran out, also while a graph was captured, which ends with another error."""
    import torch

    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__context__
    return False
