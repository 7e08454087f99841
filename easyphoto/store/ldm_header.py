"""What a safetensors file holds, from its header alone: names, shapes and metadata, without reading a single weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyphoto.errors import InputError, NotFound
from easyphoto.wording import one_line

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor by its name."""
_LONGEST = 100_000_000
"""The format allows no longer header (safetensors, section "Format")."""
_LARGEST = 2**48
"""No side and no offset is larger; a header that says so is broken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """A model file's table of contents."""

    shapes: Shapes
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The header of a safetensors file.

    Raises:
        NotFound: There is no such file.
        InputError: It is no safetensors file, or is cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LONGEST, size - 8):
                raise InputError(f"{path} is no safetensors file, or is cut off; fetch it again")
            loaded = json.loads(file.read(length))
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; point to a base model's folder or file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no safetensors file ({one_line(str(error))}); fetch it again") from error
    return _header(path, loaded, size - 8 - length)


def _header(path: Path, loaded: Any, weights: int) -> Header:  # noqa: ANN401 (whatever the file says)
    try:
        metadata = {str(key): str(value) for key, value in loaded.pop("__metadata__", {}).items()}
        shapes = {str(name): tuple(map(_sane, entry["shape"])) for name, entry in loaded.items()}
        end = max((_sane(entry["data_offsets"][1]) for entry in loaded.values()), default=0)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} has a header that is no safetensors header; fetch it again") from error
    if end > weights:
        raise InputError(f"{path} is cut off: {end - weights} bytes of its weights are missing; fetch it again")
    return Header(shapes=shapes, metadata=metadata)


def _sane(said: Any) -> int:  # noqa: ANN401 (whatever the file says)
    number = int(said)
    if not 0 <= number <= _LARGEST:
        raise ValueError("no file is so large")
    return number


def under(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    """The tensors below a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
