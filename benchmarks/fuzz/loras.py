"""LoRA files: whatever the bytes, factors that fit or a refusal."""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.fuzz.broken_json import spoil
from benchmarks.fuzz.target import Mutate, Target, check_sentence
from easyphoto.errors import EasyPhotoError
from easyphoto.families import Family
from easyphoto.specs import LoraSpec, TrainSpec
from easyphoto.store.lora_file import LoraFile, check_lora, read_lora, serialize
from easyphoto.store.lora_meta import TrainingFacts, kohya_metadata, spec_of, with_hashes

NAME = "lora_unet_mid_proj_in"
_MEMORY = Path("/dev/shm")  # noqa: S108 (where it exists, it spares the disk)
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-loras-", dir=_MEMORY if _MEMORY.is_dir() else None)


def check(data: bytes) -> None:
    """Read `data` as a LoRA and ask everything of it that the project asks."""
    path = Path(_FOLDER.name) / "a.safetensors"
    path.write_bytes(data)
    file = _allowed(lambda: read_lora(path))
    if file is None:
        return
    assert file.family is None or isinstance(file.family, Family)
    _allowed(lambda: spec_of(file))
    for name in file.module_names():
        _allowed(lambda name=name: file.module(name))  # type: ignore[misc]
    if _allowed(lambda: check_lora(file) or True):
        for name in file.module_names():
            _check_module(file, name)
    path.write_bytes(serialize(file.tensors, file.metadata))
    again = read_lora(path)
    assert dict(again.metadata) == dict(file.metadata)
    assert {key: value.tobytes() for key, value in again.tensors.items()} == {
        key: value.tobytes() for key, value in file.tensors.items()
    }
    with_hashes(file.tensors, file.metadata)


def _check_module(file: LoraFile, name: str) -> None:
    module = file.module(name)
    assert np.isfinite(module.scale)
    if module.up.shape[0] * module.down[0].size <= 10_000:
        assert module.delta().shape == (module.up.shape[0], *module.down.shape[1:])


def _allowed(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except EasyPhotoError as error:
        check_sentence(error)
        return None


def seeds() -> dict[str, bytes]:
    """Ours, foreign ones, convolutions, half precision."""
    return dict(_seeds())


def _seeds() -> Iterator[tuple[str, bytes]]:
    spec = TrainSpec(person="Anna", base_model=Path("/models/base-256"), lora=LoraSpec(rank=2, alpha=1.0))
    metadata = kohya_metadata(spec, TrainingFacts(steps=3, photos=2))
    for name, inputs in (("linear", (3,)), ("convolution", (3, 3, 3))):
        for kind in (np.float32, np.float16):
            yield f"{name}-{kind.__name__}", serialize(_tensors(inputs, kind), metadata)
    yield "no-alpha", serialize({key: value for key, value in _tensors((3,), np.float32).items() if "alpha" not in key}, {})
    yield "foreign", serialize(_tensors((3,), np.float32), {"ss_base_model_version": "sdxl_base_v1-0", "ss_network_dim": "2"})
    plain = serialize(_tensors((3,), np.float16), {})
    yield "bfloat16", plain.replace(b'"F16"', b'"BF16"')[:8] + plain[8:].replace(b'"F16"', b'"BF16"')
    yield "empty", struct.pack("<Q", 2) + b"{}"
    short = {f"{NAME}.lora_down.weight": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}
    yield "no-shape", _framed(json.dumps(short).encode(), b"\x00" * 4)


def _tensors(inputs: tuple[int, ...], kind: type) -> dict[str, np.ndarray]:
    ones = (1,) * (len(inputs) - 1)
    return {
        f"{NAME}.lora_down.weight": np.ones((2, *inputs), kind),
        f"{NAME}.lora_up.weight": np.ones((4, 2, *ones), kind),
        f"{NAME}.alpha": np.array(1.0, kind),
    }


def _framed(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def mutate(data: bytes, longest: int, draw: random.Random, native: Mutate) -> bytes:
    """Mostly changes of the header alone, whose length is then told truly; the body is cut or filled to its length."""
    length = int.from_bytes(data[:8], "little")
    if draw.random() < 0.2 or not 0 < length <= len(data) - 8:
        return native(data, longest)
    header, body = data[8 : 8 + length], data[8 + length :]
    choice = draw.random()
    if choice < 0.15:
        header = _spoilt_spec(header, draw)
    elif choice < 0.5:
        header = spoil(header, draw, (b"F32", b"BF16", b"F64", b"I64", b"U8", b"F8_E4M3", b"easyphoto_spec", b"__metadata__"))
    elif choice < 0.8:
        header = native(header, max(2, longest - len(body) - 8))
    else:
        body = native(body, max(1, longest - length - 8)) if body else b"\x00"
    return _framed(header, _fitting(header, body, draw))[:longest]


def _spoilt_spec(header: bytes, draw: random.Random) -> bytes:
    """The spec is JSON inside a string of the JSON; one thing in it made wrong."""
    try:
        loaded = json.loads(header)
        spec = loaded["__metadata__"]["easyphoto_spec"]
        loaded["__metadata__"]["easyphoto_spec"] = spoil(spec.encode(), draw).decode("utf-8", "replace")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return header
    return json.dumps(loaded).encode()


def _fitting(header: bytes, body: bytes, draw: random.Random) -> bytes:
    """The body as long as the header's offsets say, most of the time."""
    try:
        entries = [entry for entry in json.loads(header).values() if isinstance(entry, dict)]
        end = max(int(entry["data_offsets"][1]) for entry in entries if "data_offsets" in entry)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return body
    return body[:end].ljust(end, b"\x01") if 0 <= end <= 4096 and draw.random() < 0.9 else body


TARGET = Target(
    check=check, seeds=seeds, mutate=mutate, longest=8192, memory_mb=64,
    words=(b"lora_down.weight", b"lora_up.weight", b".alpha", b"dtype", b"shape", b"data_offsets", b"__metadata__", b'"F32"',
           b'"F16"', b'"BF16"', b'"F64"', b'"I64"', b'"BOOL"', b"easyphoto_spec", b"ss_base_model_version", b"family",
           b"embedded", b"sdxl", b"[0,0]", b"NaN", b"[]", b"{}"),
)  # fmt: skip
