"""An invisible mark in the pixels: by blind_watermark (MIT), which needs no download and no torch; trustmark fetches weights
at first use, and invisible-watermark lost bits at JPEG 90 on 256 px portraits, where this one lost none even at JPEG 75."""

from __future__ import annotations

import importlib
import io
import multiprocessing
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from easyphoto.errors import InputError, ToolMissing
from easyphoto.imaging.io import encode_png
from easyphoto.records import Photo

SMALLEST = 128
"""Shorter side in px from which a picture has room for the mark."""
REMEDY = "pip install PyWavelets==1.8.0 and then pip install --no-deps blind-watermark==0.4.4"
_SYNC = np.unpackbits(np.frombuffer(b"ezPh", np.uint8)).astype(bool)
"""32 bits that say the mark is ours."""
_SYNC_MISSES = 3
"""Bits of it that may be wrong: chance alone comes so near once in 780,000 pictures."""
_TAG_BITS = 32
_STRENGTH = (24, 12)
"""Steps of the two largest singular values: 41 dB PSNR. The library's own (36, 20) gives 38 dB."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a picture's watermark says."""

    tag: str
    """The first eight hex digits of the result's id."""
    errors: int
    """Wrong bits among the 32 known ones: a measure of how much the picture went through."""


def put_in(picture: bytes, identifier: str) -> bytes:
    """The PNG with eight hex digits of the id hidden in its pixels; text chunks stay. One too small is left as it is.

    Raises:
        InputError: The id has fewer than eight hex digits.
        ToolMissing: blind-watermark is not installed.
    """
    bits = np.concatenate([_SYNC, _tag_bits(identifier)])
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        text = {key: value for key, value in getattr(image, "text", {}).items() if isinstance(value, str)}
        pixels = np.asarray(image.convert("RGB"))
    if min(pixels.shape[:2]) < SMALLEST:
        return picture
    marker = _marker()
    marker.read_img(img=np.ascontiguousarray(pixels[:, :, ::-1]))
    marker.read_wm(bits, mode="bit")
    marked = np.clip(np.rint(marker.embed()), 0, 255).astype(np.uint8)[:, :, ::-1]
    return encode_png(np.ascontiguousarray(marked), text)


def find(photo: Photo) -> Mark | None:
    """The mark in a picture of its original size, whatever format it was saved in; None if there is none of ours.

    Raises:
        ToolMissing: blind-watermark is not installed.
    """
    marker = _marker()
    if min(photo.pixels.shape[:2]) < SMALLEST:
        return None
    bgr = np.ascontiguousarray(photo.pixels[:, :, ::-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes the mean of nothing where a picture is of one colour
        found = np.asarray(marker.extract(embed_img=bgr, wm_shape=_SYNC.size + _TAG_BITS, mode="bit")) > 0.5
    errors = int(np.count_nonzero(found[: _SYNC.size] != _SYNC))
    if errors > _SYNC_MISSES:
        return None
    return Mark(tag=np.packbits(found[_SYNC.size :]).tobytes().hex(), errors=errors)


def _tag_bits(identifier: str) -> NDArray[np.bool_]:
    if not re.match(r"[0-9a-f]{8}", identifier):
        raise InputError(f"a watermark needs an id of at least 8 hex digits, got {identifier!r}; name another")
    return np.unpackbits(np.frombuffer(bytes.fromhex(identifier[:8]), np.uint8)).astype(bool)


def _marker() -> Any:  # noqa: ANN401 (the library has no types)
    try:
        with _own_start_method():
            library = importlib.import_module("blind_watermark")
    except ImportError as error:
        raise ToolMissing(f"the watermark needs blind-watermark: {REMEDY}, or switch EASYPHOTO_WATERMARK off") from error
    library.bw_notes.close()  # it would print a greeting
    marker = library.WaterMark(password_img=1, password_wm=1)
    marker.bwm_core.d1, marker.bwm_core.d2 = _STRENGTH
    return marker


@contextmanager
def _own_start_method() -> Iterator[None]:
    """Keep how this program starts processes: the library chooses "fork" for all of it when it is imported."""
    kept = multiprocessing.set_start_method
    multiprocessing.set_start_method = lambda *_args, **_kwargs: None
    try:
        yield
    finally:
        multiprocessing.set_start_method = kept
