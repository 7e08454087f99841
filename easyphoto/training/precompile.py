"""Kernels that the first step of a machine's first training would compile, compiled by others while the base model is read.

Some sixty of ours, by processes that need neither torch nor the GPU, into Triton's own cache; and cuDNN's, which it writes
for the attention and the convolutions that it is given, by processes that compute those once (`rehearsal`), into the driver's.
Their sizes follow from the family, so they can be known before anything is loaded; what was not foreseen is compiled when it
is met, as always.

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
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import TrainSpec
from easyphoto.training.fused import BLOCK, cut, power, row_cut

UNETS = {
    Family.EMBEDDED: ((96, 192, 288), 1), Family.SD15: ((320, 640, 1280, 1280), 2), Family.SDXL: ((320, 640, 1280), 2),
}  # fmt: skip
"""Channels of the UNet's levels, and residual blocks of a level on the way down; one more on the way up."""
_GROUPS = 32
LATENT = 8
"""Pixels along one side of a latent cell."""
_MOST = 8
_SPARE = 2
"""Cores that are left to what goes on meanwhile."""
_GIB = 2**30
_LEAST_GIB, _GIB_EACH = 11.0, 16.0
"""A GPU with less memory keeps it to itself: every process that computes on it holds some of it for a while."""
_PATIENCE = 120.0
_MAJOR, _MINOR = 75, 76
"""CUDA's numbers for the two halves of a compute capability."""
_HALF, _BRAIN, _FULL = "torch.float16", "torch.bfloat16", "torch.float32"
Chip = tuple[int, int]
"""Compute capability."""
Call = tuple[str, tuple[Any, ...], dict[str, int]]
"""A kernel, its arguments (a precision stands for a tensor of it), and what it is compiled with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gang:
    """Processes that share one list of kernels."""

    children: tuple[subprocess.Popen[bytes], ...]
    mark: Path
    """Made when all is compiled, so that the next training need not look."""

    def wait(self) -> None:
        """Wait for the end; what failed is compiled when it is met."""
        codes = []
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                codes.append(child.wait(_PATIENCE))
        if codes == [0] * len(self.children):
            with contextlib.suppress(OSError):
                self.mark.parent.mkdir(parents=True, exist_ok=True)
                self.mark.touch()


@dataclass(frozen=True, kw_only=True, eq=False)
class Compiling:
    """Compilation that is under way."""

    gangs: tuple[Gang, ...] = ()

    @property
    def children(self) -> tuple[subprocess.Popen[bytes], ...]:
        """All processes."""
        return tuple(child for gang in self.gangs for child in gang.children)

    def __enter__(self) -> Compiling:
        return self

    def __exit__(self, *_: object) -> None:
        """End what is still running."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()

    def wait(self) -> None:
        """Wait for the end."""
        for gang in self.gangs:
            gang.wait()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What the driver says of one."""

    chip: Chip
    gib: float
    """Memory."""
    driver: int = 0
    """The newest CUDA that the driver knows."""


def start(spec: TrainSpec, cores: int) -> Compiling:
    """Begin to compile what a training will need, if anything.

    Args:
        spec: The training; only CUDA devices have kernels that are compiled.
        cores: That may be used.
    """
    device = "cuda" if spec.device == "auto" else spec.device
    if not device.startswith("cuda") or importlib.util.find_spec("triton") is None:
        return Compiling()
    gpu = find_gpu(int(device.partition(":")[2] or 0))
    if gpu is None:
        return Compiling()
    sizes = [spec.family.value, str(spec.data.size)]
    most = max(1, min(_MOST, (cores - _SPARE) // 2))
    gangs = [_gang("precompile", [*sizes, *map(str, gpu.chip)], most, _mark(spec, gpu))]
    mark = _library_mark(spec, gpu)
    if mark is not None and gpu.gib >= _LEAST_GIB:
        words = [*sizes, str(spec.optim.batch_size), str(int(_trains_text(spec))), device]
        gangs.append(_gang("rehearsal", words, max(1, min(most, int(gpu.gib / _GIB_EACH))), mark))
    return Compiling(gangs=tuple(gang for gang in gangs if gang.children))


def _gang(module: str, words: list[str], parts: int, mark: Path) -> Gang:
    """Started where a worker runs: NVRTC's results are found again in the same working folder alone."""
    if mark.exists():
        return Gang(children=(), mark=mark)
    path = os.pathsep.join([str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", f"easyphoto.training.{module}", *words]
    children = tuple(
        subprocess.Popen(
            [*command, str(part), str(parts)], env={**os.environ, "PYTHONPATH": path}, cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for part in range(parts)
    )  # fmt: skip
    return Gang(children=children, mark=mark)


def capability(number: int = 0) -> Chip | None:
    """Compute capability of a GPU; None where there is none."""
    gpu = find_gpu(number)
    return gpu.chip if gpu else None


def find_gpu(number: int = 0) -> Gpu | None:
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
    memory = ctypes.c_size_t()
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device) or cuda.cuDriverGetVersion(ctypes.byref(value)):
        return None
    return Gpu(chip=(found[0], found[1]), gib=memory.value / _GIB, driver=value.value)


def _mark(spec: TrainSpec, gpu: Gpu) -> Path:
    """The file in Triton's cache that says: compiled, by this Triton from this source."""
    source = (Path(__file__).parent / "gpu_kernels.py").read_bytes()
    version, sizes = importlib.metadata.version("triton"), (spec.family.value, spec.data.size)
    return _marked(version, *sizes, gpu.chip, hashlib.sha256(source).hexdigest())


def _library_mark(spec: TrainSpec, gpu: Gpu) -> Path | None:
    """The file beside it that says: computed once, with this torch and driver, whose cache is still there; None without one."""
    if os.environ.get("CUDA_CACHE_DISABLE", "0") != "0":
        return None
    kept = Path(os.environ.get("CUDA_CACHE_PATH") or Path.home() / ".nv" / "ComputeCache")
    try:
        kept.mkdir(parents=True, exist_ok=True)
        place = kept.stat().st_ino
    except OSError:
        return None
    sizes = (spec.family.value, spec.data.size, spec.optim.batch_size, _trains_text(spec))
    return _marked(importlib.metadata.version("torch"), *sizes, gpu.chip, gpu.driver, str(kept), place)


def _trains_text(spec: TrainSpec) -> bool:
    return spec.lora.text_encoder and spec.optim.text_learning_rate > 0


def _marked(*facts: object) -> Path:
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
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
    for channels, rows in sorted(norm_shapes(*UNETS[family], side // LATENT), reverse=True):
        for call in _norm_calls(channels, rows, x):
            found.setdefault(repr((call[0], call[2])), call)
    fixed = {"BLOCK": BLOCK}
    for width in UNETS[family][0]:
        whole = row_cut(width)
        found.setdefault(f"add_norm {whole}", ("add_norm", (*[x] * 7, _FULL, _FULL, width, 1e-5), whole))
        found.setdefault(f"add_norm_back {whole}", ("add_norm_back", (x, x, _FULL, _FULL, x, x, x, width), whole))
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
    kernels = []
    for name, arguments, fixed in wanted:
        like = [_Like(value) if isinstance(value, str) else value for value in arguments]
        kernels.append(getattr(gpu_kernels, name).warmup(*like, grid=(1,), **fixed))
    # How Triton calls a kernel is its own affair: where it is done otherwise, the training compiles that itself.
    with contextlib.suppress(ImportError, AttributeError, TypeError, AssertionError):
        _write_launchers(kernels)


def _write_launchers(kernels: list[Any]) -> None:
    """The lines of C by which kernels are called, one for each list of arguments, compiled into the cache as well."""
    from triton.backends.nvidia.driver import CudaLauncher, CudaUtils

    CudaUtils()
    for kernel in kernels:
        CudaLauncher(kernel.src, kernel.metadata)


def main(words: list[str]) -> int:
    """Compile one part of the list."""
    family, side, chip = Family(words[0]), int(words[1]), (int(words[2]), int(words[3]))
    part, parts = int(words[4]), int(words[5])
    compile_all(calls(family, side, chip)[part::parts], chip)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
