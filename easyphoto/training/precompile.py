"""Triton's kernels, compiled while the base model is read: by processes that need neither torch nor the GPU.

A training meets some sixty kernels in its first step and would compile them one after the other. Their sizes follow from the
family, so they can be known before anything is loaded. What is compiled lies in Triton's own cache, where the training finds
it; a kernel that was not foreseen is compiled when it is met, as always.

    python -m easyphoto.training.precompile FAMILY SIDE MAJOR MINOR PART PARTS
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyphoto.families import Family
from easyphoto.training.fused import BLOCK, cut, power

_UNETS = {
    Family.EMBEDDED: ((96, 192, 288), 1), Family.SD15: ((320, 640, 1280, 1280), 2), Family.SDXL: ((320, 640, 1280), 2),
}  # fmt: skip
"""Channels of the UNet's levels, and residual blocks of a level on the way down; one more on the way up."""
_GROUPS = 32
_LATENT = 8
"""Pixels along one side of a latent cell."""
_MOST = 8
_SPARE = 2
"""Cores that are left to what goes on meanwhile."""
_PATIENCE = 120.0
_MAJOR, _MINOR = 75, 76
"""CUDA's numbers for the two halves of a compute capability."""
_HALF, _BRAIN, _FULL = "torch.float16", "torch.bfloat16", "torch.float32"
Chip = tuple[int, int]
"""Compute capability."""
Call = tuple[str, tuple[Any, ...], dict[str, int]]
"""A kernel, its arguments (a precision stands for a tensor of it), and what it is compiled with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Compiling:
    """Compilation that is under way."""

    children: tuple[subprocess.Popen[bytes], ...] = ()
    mark: Path | None = None
    """Made when all is compiled, so that the next training need not look."""

    def __enter__(self) -> Compiling:
        return self

    def __exit__(self, *_: object) -> None:
        """End what is still running."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()

    def wait(self) -> None:
        """Wait for the end; what failed is compiled when it is met."""
        codes = []
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                codes.append(child.wait(_PATIENCE))
        if self.mark and codes == [0] * len(self.children):
            with contextlib.suppress(OSError):
                self.mark.touch()


def start(family: Family, side: int, device: str, cores: int) -> Compiling:
    """Begin to compile what a training will need, if anything.

    Args:
        family: Of the base model.
        side: Of a training picture, in px.
        device: As in the spec; only CUDA devices have kernels of ours.
        cores: That may be used.
    """
    if device not in ("auto", "cuda") and not device.startswith("cuda:"):
        return Compiling()
    number = int(device.partition(":")[2] or 0)
    chip = capability(number) if importlib.util.find_spec("triton") is not None else None
    if chip is None or (mark := _mark(family, side, chip)).exists():
        return Compiling()
    parts = max(1, min(_MOST, cores - _SPARE))
    words = [family.value, str(side), str(chip[0]), str(chip[1])]
    command = [sys.executable, "-m", "easyphoto.training.precompile", *words]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    children = tuple(
        subprocess.Popen(
            [*command, str(part), str(parts)], env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for part in range(parts)
    )  # fmt: skip
    return Compiling(children=children, mark=mark)


def capability(number: int = 0) -> Chip | None:
    """What the driver says of a GPU; None where there is none. torch would take seconds to say the same."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, value, found = ctypes.c_int(), ctypes.c_int(), []
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), number):
        return None
    for half in (_MAJOR, _MINOR):
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), half, device):
            return None
        found.append(value.value)
    return found[0], found[1]


def _mark(family: Family, side: int, chip: Chip) -> Path:
    """The file in Triton's cache that says: compiled, by this Triton from this source."""
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
    source = (Path(__file__).parent / "gpu_kernels.py").read_bytes()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    facts = (importlib.metadata.version("triton"), family.value, side, chip, hashlib.sha256(source).hexdigest())
    return folder / f"easyphoto-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def norm_shapes(widths: tuple[int, ...], layers: int, side: int) -> set[tuple[int, int]]:
    """(channels, rows x columns) of every group norm in a UNet.

    Args:
        widths: Channels of its levels.
        layers: Residual blocks of a level on the way down.
        side: Of the latents.
    """
    found, kept, channels = set(), [widths[0]], widths[0]
    for level, width in enumerate(widths):
        for _ in range(layers):
            found |= {(channels, side**2), (width, side**2)}
            channels = width
            kept.append(channels)
        if level + 1 < len(widths):
            side //= 2
            kept.append(channels)
    for level, width in enumerate(reversed(widths)):
        for _ in range(layers + 1):
            found |= {(channels + kept.pop(), side**2), (width, side**2)}
            channels = width
        side *= 2 if level + 1 < len(widths) else 1
    return found


def calls(family: Family, side: int, chip: Chip) -> list[Call]:
    """Every kernel that a training of that family calls, each once."""
    x = _BRAIN if chip >= (8, 0) else _HALF
    found: dict[str, Call] = {}
    for channels, rows in sorted(norm_shapes(*_UNETS[family], side // _LATENT), reverse=True):
        for call in _norm_calls(channels, rows, x):
            found.setdefault(repr((call[0], call[2])), call)
    fixed = {"BLOCK": BLOCK}
    return [
        *found.values(),
        ("gate", (x, x, x, 1280), fixed), ("gate_back", (x, x, x, x, 1280), fixed),
        ("add_bias", (x, x, x, x, 1024, 320), fixed), ("add_change", (_HALF, x, x, 0.5, 1024), fixed),
    ]  # fmt: skip


def _norm_calls(channels: int, rows: int, x: str) -> Iterator[Call]:
    plan, f, eps = cut(channels, rows, _GROUPS), _FULL, 1e-5
    sizes = (rows, channels, 0, 1.0)
    if plan.whole:
        yield "norm_whole", (x, x, x, x, x, f, f, *sizes, eps), plan.fixed
        yield "norm_whole_back", (x, x, x, x, x, x, f, f, *sizes), plan.fixed
        return
    joined = {**plan.fixed, "CHUNKS": power(plan.chunks)}
    yield "norm_apply", (x, x, x, x, x, f, f, f, f, *sizes, plan.chunks, eps), joined
    yield "norm_apply_back", (x, x, x, x, x, x, f, f, f, f, *sizes, plan.chunks), joined
    yield "norm_stats", (x, x, f, f, *sizes, plan.chunks), plan.fixed
    yield "norm_stats_back", (x, x, x, x, x, f, f, f, f, *sizes, plan.chunks), plan.fixed


class _Like:
    """Stands for a tensor of a precision, at an address that is a multiple of 16 as all of torch's are."""

    def __init__(self, precision: str) -> None:
        self.dtype = precision

    def data_ptr(self) -> int:
        return 0


class _Chip:
    """Stands for Triton's driver: tells what to compile for."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int = 0) -> int:
        return 0

    def get_current_target(self) -> Any:  # noqa: ANN401 (Triton's GPUTarget)
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 10 * self._chip[0] + self._chip[1], 32)


def compile_all(wanted: list[Call], chip: Chip) -> None:
    """Compile into Triton's cache, the way a call would."""
    from triton.runtime import driver

    from easyphoto.training import gpu_kernels

    driver.set_active(_Chip(chip))
    for name, arguments, fixed in wanted:
        like = [_Like(value) if isinstance(value, str) else value for value in arguments]
        getattr(gpu_kernels, name).warmup(*like, grid=(1,), **fixed)


def main(words: list[str]) -> int:
    """Compile one part of the list."""
    family, side, chip = Family(words[0]), int(words[1]), (int(words[2]), int(words[3]))
    part, parts = int(words[4]), int(words[5])
    compile_all(calls(family, side, chip)[part::parts], chip)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
