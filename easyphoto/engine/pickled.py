"""Weights in torch's own files (`.ckpt`, `.pth`), read without running what they hold."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from easyphoto.errors import InputError, NotFound
from easyphoto.store.ldm_header import Shapes

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = frozenset({".ckpt", ".pth", ".pt"})
_INSIDE = ("state_dict", "params_ema", "params")
"""What trainers call the weights among other things in a file, the best of several first."""


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by name, mapped from the disk where its layout allows it.

    torch rebuilds tensors and plain containers alone (`weights_only`); a file that wants anything else is refused.

    Raises:
        NotFound: There is no such file.
        InputError: It is no such file, is cut off, or wants to run code.
    """
    try:
        loaded = _load(path)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; point to a base model's folder or file") from None
    except UnpicklingError as error:
        raise InputError(
            f"{path} holds more than weights and could run code when it is read, so it was not; "
            "fetch the model as .safetensors, or convert it with a tool that you trust"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a checkpoint, or is cut off; fetch it again as .safetensors") from error
    return loaded


def _load(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # Files from before torch 1.6 cannot be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    found = next((loaded[name] for name in _INSIDE if name in loaded), loaded) if isinstance(loaded, dict) else None
    if not isinstance(found, dict):
        raise ValueError("no names")  # noqa: TRY004 (the file's fault, not a caller's)
    return {str(name): tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}


def pickled_shapes(path: Path) -> Shapes:
    """The shape of each tensor; looked up once for each state of the file, because torch is slow to look."""
    try:
        found = path.stat()
    except OSError:
        raise NotFound(f"{path} does not exist; point to a base model's folder or file") from None
    return _shapes(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _shapes(path: Path, _size: int, _changed: int) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in read_pickled(path).items()}
