"""Base model folders: whatever their config says, a family or a refusal."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from benchmarks.fuzz.broken_json import spoil
from benchmarks.fuzz.target import Mutate, Target, check_sentence
from easyphoto.engine.detect import detect_family
from easyphoto.errors import EasyPhotoError
from easyphoto.families import Family

_MEMORY = Path("/dev/shm")  # noqa: S108 (where it exists, it spares the disk)
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-models-", dir=_MEMORY if _MEMORY.is_dir() else None)
_PARTS = ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
          "scheduler/scheduler_config.json", "tokenizer/vocab.json")  # fmt: skip


def check(data: bytes) -> None:
    """Ask for the family of a folder whose UNet says `data` of itself."""
    root = Path(_FOLDER.name)
    for part in _PARTS:
        if not (root / part).exists():
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            (root / part).write_bytes(b"{}")
    (root / "unet" / "config.json").write_bytes(data)
    try:
        family = detect_family(root)
    except EasyPhotoError as error:
        check_sentence(error)
        return
    assert isinstance(family, Family)


def seeds() -> dict[str, bytes]:
    """The families we know, and some that we do not."""
    sizes = {"embedded": (4, 256), "sd15": (4, 768), "sd2": (4, 1024), "inpainting": (9, 768)}
    return {
        name: f'{{"in_channels": {channels}, "cross_attention_dim": {width}, "sample_size": 64}}'.encode()
        for name, (channels, width) in sizes.items()
    }


def mutate(data: bytes, longest: int, draw: random.Random, native: Mutate) -> bytes:
    """Half native, half one thing of the JSON made wrong."""
    return native(data, longest) if draw.random() < 0.5 else spoil(data, draw, TARGET.words)[:longest]


TARGET = Target(
    check=check, seeds=seeds, mutate=mutate, longest=8_192,
    words=(b"in_channels", b"cross_attention_dim", b"[320, 640]", b"NaN", b"1e999", b"null", b"true"),
)  # fmt: skip
