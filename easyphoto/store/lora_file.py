"""LoRA files in kohya's format: reading, checking, writing.

A module `lora_unet_down_blocks_1_attentions_0_proj_in` has three tensors: `.lora_down.weight` (rank, in[, kh, kw]),
`.lora_up.weight` (out, rank[, 1, 1]) and `.alpha` (a scalar). Its change of the base weight is alpha / rank * up @ down
(arXiv 2106.09685, section 4.1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from easyphoto.errors import LoraError, NotFound
from easyphoto.families import Family
from easyphoto.files import write_bytes
from easyphoto.wording import one_line, shown

UNET_PREFIX = "lora_unet"
TEXT_PREFIX = "lora_te"
DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"
SPEC_KEY = "easyphoto_spec"
"""Metadata key of our whole training spec as JSON."""
BASE_VERSIONS = {Family.EMBEDDED: "easyphoto_embedded", Family.SD15: "sd_v1", Family.SDXL: "sdxl_base_v1-0"}
"""What `ss_base_model_version` says for each family; the WebUI tells SDXL by the beginning of this word."""

_LARGEST_CHANGE = 1e6
Array = NDArray[Any]
Weights = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoraModule:
    """The two factors of one module, as float32."""

    down: Weights
    """(rank, in[, kh, kw])"""
    up: Weights
    """(out, rank[, 1, 1])"""
    alpha: float

    @property
    def rank(self) -> int:
        """Inner dimension of the two factors."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied with."""
        return self.alpha / self.rank

    def delta(self) -> Weights:
        """The change of the base weight, in the base weight's shape: (out, in[, kh, kw])."""
        up, down = self.up.reshape(self.up.shape[0], self.rank), self.down.reshape(self.rank, -1)
        change = np.float32(self.scale) * (up @ down)
        return change.reshape(self.up.shape[0], *self.down.shape[1:]).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoraFile:
    """What a LoRA file holds."""

    tensors: Mapping[str, Array]
    """Tensors by kohya's keys, in the file's precision (bfloat16 becomes float32)."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def module_names(self) -> tuple[str, ...]:
        """Names of the modules that are changed, sorted."""
        return tuple(sorted({key.split(".", 1)[0] for key in self.tensors}))

    def module(self, name: str) -> LoraModule:
        """The factors of one module; a file without alpha means alpha = rank.

        Raises:
            LoraError: One of the factors is missing, or there is no rank to speak of.
        """
        down, up = self.tensors.get(f"{name}.{DOWN}"), self.tensors.get(f"{name}.{UP}")
        if down is None or up is None:
            missing = DOWN if down is None else UP
            raise LoraError(f"the LoRA's module {one_line(name)} has no {missing}; the file is of another kind or broken")
        alpha = self.tensors.get(f"{name}.{ALPHA}")
        if down.ndim < 1 or down.shape[0] < 1 or (alpha is not None and alpha.size != 1):
            raise LoraError(f"the LoRA's module {one_line(name)} has no rank or no single alpha; the file is broken")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as that
            return LoraModule(
                down=down.astype(np.float32), up=up.astype(np.float32),
                alpha=float(down.shape[0] if alpha is None else alpha.reshape(-1)[0]),
            )  # fmt: skip

    @property
    def family(self) -> Family | None:
        """The family its metadata names; None where it does not say."""
        spec = _object(self.metadata.get(SPEC_KEY, ""))
        named = spec.get("family")
        if isinstance(named, str) and named in {family.value for family in Family}:
            return Family(named)
        version = self.metadata.get("ss_base_model_version", "")
        if version.startswith("sdxl_"):
            return Family.SDXL
        return next((family for family, word in BASE_VERSIONS.items() if version.startswith(word)), None)


def _object(text: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def kohya_key(prefix: str, module_name: str) -> str:
    """kohya's name of a module: `lora_unet` and `down_blocks.1.proj_in` give `lora_unet_down_blocks_1_proj_in`.

    transformers 5 dropped the level `text_model` from its CLIP text encoder; files keep the name that kohya, the WebUI
    and diffusers know, so it is put back for `lora_te`.
    """
    if prefix.startswith(TEXT_PREFIX) and not module_name.startswith(("text_model.", "text_projection")):
        module_name = f"text_model.{module_name}"
    return f"{prefix}.{module_name}".replace(".", "_")


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA file whole; nothing in it is run.

    Raises:
        NotFound: There is no such file.
        LoraError: It is no safetensors file, is cut off, or holds no LoRA.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"the LoRA {path} does not exist; train the person again or name another file") from None
    except OSError as error:
        raise LoraError(f"the LoRA {path} cannot be read ({error.strerror}); check its permissions") from error
    return LoraFile(tensors=_tensors(path, data), metadata=_metadata(data))


def _tensors(path: Path, data: bytes) -> dict[str, Array]:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call, unused-ignore]
        tensors = {name: _array(entry) for name, entry in entries}
    except (SafetensorError, ValueError) as error:
        raise LoraError(f"{path} is no LoRA we can read, or is cut off ({one_line(error)}); copy or train it again") from error
    if not any(name.endswith(DOWN) for name in tensors):
        raise LoraError(f"{path} holds no LoRA (no tensor ends in {DOWN}); choose a file in kohya's format")
    return tensors


def _array(entry: Mapping[str, Any]) -> Array:
    """One tensor of a safetensors file; numpy has no bfloat16, whose bits are the upper half of a float32's."""
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32}
    shape, kind, data = tuple(entry["shape"]), str(entry["dtype"]), bytes(entry["data"])
    if kind == "BF16":
        wide = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    if kind not in kinds:
        raise ValueError(f"tensors of type {shown(kind)} are not LoRA weights")
    return np.frombuffer(data, dtype=np.dtype(kinds[kind]).newbyteorder("<")).reshape(shape)


def _metadata(data: bytes) -> dict[str, str]:
    """The header's text fields; its length stands in the first eight bytes (safetensors format, section "Format")."""
    length = int.from_bytes(data[:8], "little")
    found = _object(data[8 : 8 + length].decode("utf-8", "replace")).get("__metadata__")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def module_tensors(name: str, module: LoraModule, kind: Any) -> dict[str, Array]:  # noqa: ANN401 (a numpy dtype)
    """A module's three tensors under kohya's keys, all of one precision as kohya saves them, alpha without dimensions."""
    parts = {DOWN: module.down, UP: module.up, ALPHA: np.array(module.alpha)}
    return {f"{name}.{end}": tensor.astype(kind) for end, tensor in parts.items()}


def write_lora(path: Path, file: LoraFile) -> None:
    """Write the file in one atomic step.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    write_bytes(path, serialize(file.tensors, file.metadata))


def serialize(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file."""
    from safetensors.numpy import save

    # A copy of zero-dimensional arrays too: ascontiguousarray would turn an alpha into a vector of one.
    return save({key: np.array(tensor, order="C") for key, tensor in tensors.items()}, metadata=dict(metadata) or None)


def check_lora(file: LoraFile, shapes: Mapping[str, tuple[int, ...]] | None = None, family: Family | None = None) -> None:
    """Refuse a LoRA that cannot work on the base model at hand.

    Args:
        file: The LoRA.
        shapes: Shape of the base weight, (out, in[, kh, kw]), of each module of the base model by kohya's name.
        family: The base model's family.

    Raises:
        LoraError: It is of another family or kind, or a tensor has the wrong shape or is not finite.
    """
    if family is not None and file.family not in (None, family):
        raise LoraError(
            f"the LoRA was trained for the {file.family.value if file.family else 'unknown'} family and the base model is "
            f"{family.value}; choose the base model it was trained on"
        )
    for name in file.module_names():
        module = file.module(name)
        _check_factors(name, module)
        if shapes is not None:
            _check_shape(name, module, shapes)


def _check_factors(name: str, module: LoraModule) -> None:
    down, up, label = module.down, module.up, one_line(name)
    if down.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[1] != module.rank or set(up.shape[2:]) - {1}:
        raise LoraError(f"the LoRA's module {label} has factors {up.shape} and {down.shape} that do not fit; it is broken")
    if not (np.isfinite(down).all() and np.isfinite(up).all() and np.isfinite(module.alpha)):
        raise LoraError(f"the LoRA's module {label} holds numbers that are not finite; train it again")
    # No entry of the change can be larger than this; a model's weights are below ten.
    if _largest(down) * _largest(up) * abs(module.alpha) > _LARGEST_CHANGE:
        raise LoraError(f"the LoRA's module {label} changes weights beyond all measure; it is broken, train it again")


def _largest(factor: Weights) -> float:
    return float(np.abs(factor).max(initial=0.0))


def _check_shape(name: str, module: LoraModule, shapes: Mapping[str, tuple[int, ...]]) -> None:
    shape, label = shapes.get(name), one_line(name)
    if shape is None:
        raise LoraError(f"the LoRA changes {label}, which the base model does not have; choose the model it was trained on")
    got = (module.up.shape[0], *module.down.shape[1:])
    # Older trainers write a 1x1 convolution as a matrix and the other way round; both mean the same product.
    if _without_ones(got) != _without_ones(shape):
        raise LoraError(f"the LoRA's module {label} has shape {got}, the base model's {shape}; they do not belong together")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if shape[2:] == (1, 1) else shape
