"""What is on the GPU while a training runs, and how much of it is ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from easyphoto.engine.models import Models
from easyphoto.training.planner import GIB


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
        give_back(models.device)


def set_aside(models: Models, parts: Sequence[Any]) -> None:
    """Move parts to main memory."""
    from torch.nn import Module

    for part in parts:
        Module.to(part, "cpu")
    give_back(models.device)


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
