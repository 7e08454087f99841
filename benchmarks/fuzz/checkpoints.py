"""Base models that are one file: whatever the header says, a family and sizes for its networks, or a refusal."""

from __future__ import annotations

import json
import random
import struct
import tempfile
from pathlib import Path

from benchmarks.fuzz.broken_json import spoil
from benchmarks.fuzz.target import Mutate, Target, check_sentence
from easyphoto.engine.detect import detect_family
from easyphoto.engine.loading import readable
from easyphoto.errors import EasyPhotoError
from easyphoto.families import Family
from easyphoto.store.ldm_family import CLIP, CLIP_XL, OPEN_CLIP_XL, UNET, VAE
from easyphoto.store.ldm_header import read_header, under
from easyphoto.store.ldm_sizes import clip_sizes, open_clip_sizes, unet_sizes, vae_sizes

_MEMORY = Path("/dev/shm")  # noqa: S108 (where it exists, it spares the disk)
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-checkpoints-", dir=_MEMORY if _MEMORY.is_dir() else None)
_WEIGHTS = 64
"""Bytes behind the header of every input."""


def check(data: bytes) -> None:
    """Read `data` as a checkpoint's beginning, as far as is read before its weights are."""
    path = Path(_FOLDER.name) / "a.safetensors"
    path.write_bytes(data)
    try:
        family = detect_family(path)
        assert isinstance(family, Family)
        with readable(path):
            _sizes(path, family)
    except EasyPhotoError as error:
        check_sentence(error)


def _sizes(path: Path, family: Family) -> None:
    shapes = read_header(path).shapes
    unet_sizes(under(shapes, UNET), family, 0)
    vae_sizes(under(shapes, VAE), family)
    clip_sizes(under(shapes, CLIP_XL if family is Family.SDXL else CLIP))
    if family is Family.SDXL:
        open_clip_sizes(under(shapes, OPEN_CLIP_XL))


def seeds() -> dict[str, bytes]:
    """The beginnings of what people have, in small: SD1.5, SDXL, SD2, for inpainting, one network alone."""
    sd15 = _shapes(CLIP, 768)
    sdxl = _shapes(CLIP_XL, 2048) | _SECOND
    first = f"{UNET}input_blocks.0.0.weight"
    kinds = {
        "sd15": sd15, "sdxl": sdxl, "sd2": _shapes(CLIP, 1024), "inpainting": {**sd15, first: (320, 9, 3, 3)},
        "alone": {name: shape for name, shape in sd15.items() if name.startswith(VAE)}, "empty": {},
    }  # fmt: skip
    return {name: _file({key: list(shape) for key, shape in shapes.items()}) for name, shapes in kinds.items()}


_SECOND = {
    f"{UNET}label_emb.0.0.weight": (1280, 2816), f"{OPEN_CLIP_XL}token_embedding.weight": (49408, 1280),
    f"{OPEN_CLIP_XL}positional_embedding": (77, 1280), f"{OPEN_CLIP_XL}text_projection": (1280, 1280),
    f"{OPEN_CLIP_XL}transformer.resblocks.0.mlp.c_fc.weight": (5120, 1280),
}  # fmt: skip


def _shapes(clip: str, width: int) -> dict[str, tuple[int, ...]]:
    """What is asked about a checkpoint of two levels whose text states are so wide."""
    attention = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    return {
        f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3), f"{UNET}input_blocks.1.0.out_layers.3.weight": (320, 320, 3, 3),
        attention: (320, width), f"{UNET}input_blocks.2.0.op.weight": (320, 320, 3, 3),
        f"{UNET}input_blocks.3.0.out_layers.3.weight": (640, 640, 3, 3), f"{UNET}out.2.weight": (4, 320, 3, 3),
        f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight": (640, width),
        f"{VAE}encoder.conv_in.weight": (128, 3, 3, 3), f"{VAE}encoder.down.0.block.0.conv2.weight": (128, 128, 3, 3),
        f"{VAE}decoder.conv_in.weight": (512, 4, 3, 3), f"{VAE}decoder.conv_out.weight": (3, 128, 3, 3),
        f"{clip}text_model.embeddings.token_embedding.weight": (49408, 768),
        f"{clip}text_model.embeddings.position_embedding.weight": (77, 768),
        f"{clip}text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768),
    }  # fmt: skip


def _file(shapes: dict[str, list[int]]) -> bytes:
    entries = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, _WEIGHTS]} for name, shape in shapes.items()}
    return _framed(json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode())


def _framed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(_WEIGHTS)


def mutate(data: bytes, longest: int, draw: random.Random, native: Mutate) -> bytes:
    """A quarter native; else one thing of the header made wrong, behind a length that is right."""
    if draw.random() < 0.25 or len(data) < 8 + _WEIGHTS:
        return native(data, longest)
    header = data[8 : len(data) - _WEIGHTS]
    changed = spoil(header, draw, TARGET.words) if draw.random() < 0.7 else native(header, longest - 8 - _WEIGHTS)
    return _framed(changed)[:longest]


TARGET = Target(
    check=check, seeds=seeds, mutate=mutate, longest=16_384,
    words=(b"__metadata__", b"shape", b"data_offsets", b"[320, 4, 3, 3]", b"attn2.to_k.weight", b"label_emb.0.0.weight",
           b"first_stage_model.", b"cond_stage_model.", b"conditioner.embedders.1.model.", b"1e999", b"-1", b"null"),
)  # fmt: skip
