"""Pictures: whatever the bytes, a `Photo` or a refusal, in little memory and time."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.fuzz.target import Mutate, Target, check_sentence
from easyphoto.errors import EasyPhotoError
from easyphoto.imaging import io as photos
from easyphoto.imaging.metadata import without_private_metadata

MAX_PIXELS, MAX_SIDE = 250_000, 4_000
"""Far below the true limits, so that whatever slips past them shows in the memory."""
Image.init()  # now, while imports are being instrumented
with contextlib.suppress(ImportError):
    import pillow_heif
_PNG = b"\x89PNG\r\n\x1a\n"


def check(data: bytes) -> None:
    """Decode `data` under small limits; what comes out must keep them, and survive being written."""
    with mock.patch.multiple(photos, MAX_PIXELS=MAX_PIXELS, MAX_SIDE=MAX_SIDE):
        stripped = _stripped(data)
        try:
            size = photos.picture_size(data, "photo")
            photo = photos.decode_photo(data, "photo")
        except EasyPhotoError as error:
            assert not isinstance(error.__cause__, MemoryError), "memory was asked for before the size was refused"
            check_sentence(error)
            return
    assert sorted(size) == sorted((photo.width, photo.height)), "the header was believed, and the picture is another"
    assert stripped is not None, "a picture that can be read cannot be rid of what it says"
    with mock.patch.multiple(photos, MAX_PIXELS=MAX_PIXELS, MAX_SIDE=MAX_SIDE):
        again = photos.decode_photo(stripped, "stripped")
    assert (again.pixels == photo.pixels).all(), "the pixels changed with the metadata"
    assert photo.width * photo.height <= MAX_PIXELS
    assert max(photo.width, photo.height) <= MAX_SIDE
    if photo.width * photo.height <= 1024:
        assert (photos.decode_photo(photos.encode_png(photo.pixels), "again").pixels == photo.pixels).all()


def _stripped(data: bytes) -> bytes | None:
    try:
        return without_private_metadata(data)
    except EasyPhotoError as error:
        check_sentence(error)
        return None


def seeds() -> dict[str, bytes]:
    """A small picture of every kind that people hand in, and cut ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = dict(_seeds())
    for name in ("exif.jpg", "rgb.png", "animated.webp", "grid.heic"):
        if name in made:
            made[f"cut.{name}"] = made[name][: len(made[name]) * 2 // 3]
    return made


def _seeds() -> Iterator[tuple[str, bytes]]:
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8))
    frames: dict[str, object] = {"save_all": True, "append_images": [rgb.rotate(180), rgb.convert("L").convert("RGB")]}
    yield from _jpegs(rgb, frames)
    deep = Image.fromarray(np.linspace(0, 65535, 192).astype(np.uint16).reshape(12, 16))
    yield "rgb.png", _saved(rgb, "PNG")
    yield "grey.png", _saved(rgb.convert("L"), "PNG")
    yield "deep.png", _saved(deep, "PNG")
    yield "palette.png", _saved(rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=8), "PNG", transparency=0)
    yield "rgba.png", _saved(rgb.convert("RGBA"), "PNG")
    yield "bilevel.png", _saved(rgb.convert("1"), "PNG")
    yield "animated.png", _saved(rgb, "PNG", **frames)
    yield "lossy.webp", _saved(rgb, "WEBP", exif=_exif(6))
    yield "lossless.webp", _saved(rgb.convert("RGBA"), "WEBP", lossless=True)
    yield "animated.webp", _saved(rgb, "WEBP", **frames)
    yield "one.gif", _saved(rgb, "GIF")
    yield "animated.gif", _saved(rgb, "GIF", **frames)
    yield "rgb.bmp", _saved(rgb, "BMP")
    yield "palette.bmp", _saved(rgb.convert("P"), "BMP")
    yield "colour.ppm", _saved(rgb, "PPM")
    yield "plain.ppm", b"P3\n2 1\n255\n255 0 0 0 0 255\n"
    yield "float.pfm", _saved(Image.fromarray(np.zeros((2, 3), np.float32)), "PPM")
    yield from _tiffs(rgb, deep)
    yield from _modern(rgb)


def _jpegs(rgb: Image.Image, frames: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
    yield "exif.jpg", _saved(rgb, "JPEG", exif=_exif(5))
    yield "progressive.jpg", _saved(rgb, "JPEG", progressive=True, exif=_exif(8))
    yield "grey.jpg", _saved(rgb.convert("L"), "JPEG")
    yield "cmyk.jpg", _saved(rgb.convert("CMYK"), "JPEG")
    yield "two.mpo", _saved(rgb, "MPO", **frames)


def _tiffs(rgb: Image.Image, deep: Image.Image) -> Iterator[tuple[str, bytes]]:
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"{compression}.tif", _saved(rgb, "TIFF", compression=compression)
    yield "deep.tif", _saved(deep, "TIFF")
    yield "float.tif", _saved(Image.fromarray(np.linspace(0, 1, 12).astype(np.float32).reshape(3, 4)), "TIFF")
    yield "lab.tif", _saved(Image.frombytes("LAB", (4, 3), bytes(36)), "TIFF")
    yield "fax.tif", _saved(rgb.convert("1"), "TIFF", compression="group4")
    yield "tiled.tif", _tiled(16)
    yield "huge-tiles.tif", _tiled(16_384)
    yield "exif.tif", _saved(rgb, "TIFF", exif=_exif(3))


def _tiled(side: int) -> bytes:
    """A TIFF of 16 x 16 px in one compressed tile; Pillow writes none."""
    tile = zlib.compress(bytes(range(256)) * 3)
    # Width, height, bits, deflate, RGB, samples, sides of a tile, where it lies, its length.
    numbers = {256: 16, 257: 16, 258: 8, 259: 8, 262: 2, 277: 3, 322: side, 323: side, 324: 8, 325: len(tile)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in numbers.items())
    return b"II*\x00" + struct.pack("<I", 8 + len(tile)) + tile + struct.pack("<H", len(numbers)) + entries + b"\x00" * 4


def _modern(rgb: Image.Image) -> Iterator[tuple[str, bytes]]:
    if "AVIF" in Image.SAVE:
        yield "one.avif", _saved(rgb.resize((16, 16)), "AVIF", exif=_exif(6))
    if "pillow_heif" not in sys.modules:
        return
    for name, side in (("one.heic", 16), ("grid.heic", 64)):
        buffer = io.BytesIO()
        pillow_heif.from_pillow(rgb.resize((side, side))).save(buffer, quality=40, exif=_exif(6).tobytes())
        yield name, buffer.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A Camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 0.5), 3: "E", 4: (13.0, 24.0, 0.0)})
    return exif


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def mutate(data: bytes, longest: int, draw: random.Random, native: Mutate) -> bytes:
    """A native mutation, after which a PNG's checksums are true again and, at times, a size says something large."""
    changed = bytearray(native(data, longest))
    if draw.random() < 0.05 and len(changed) > 40:
        place = draw.randrange(4, len(changed) - 4)
        changed[place : place + 4] = struct.pack(draw.choice("<>") + "I", draw.choice((2**31 - 1, 2**32 - 1, 60_000, 2**24)))
    if changed.startswith(_PNG) and draw.random() < 0.8:
        _mend_png(changed)
    if changed[:4] == b"RIFF" and draw.random() < 0.5:
        changed[4:8] = struct.pack("<I", max(0, len(changed) - 8))
    return bytes(changed[:longest])


def _mend_png(data: bytearray) -> None:
    """Every chunk's checksum over what it holds now, as far as the lengths lead."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4


_WORDS = (
    b"\xff\xd8\xff", b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xe1", b"Exif\x00\x00", b"II*\x00", b"MM\x00*", b"II+\x00",
    b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"gAMA",
    b"cHRM", b"VP8 ", b"VP8L", b"VP8X", b"ANMF", b"ANIM", b"EXIF", b"XMP ", b"ICCP", b"GIF89a", b"\x21\xf9\x04", b"NETSCAPE2.0",
    b"BM", b"P6\n", b"P3\n", b"Pf\n", b"P7\n", b"ftypheic", b"ftypavif", b"ftypmif1", b"ispe", b"iloc", b"iinf", b"hvcC",
    b"av01", b"grid", b"iref", b"irot", b"MPF\x00", b"\x12\x01\x03\x00", b"\x01\x12\x00\x03",
)  # fmt: skip

TARGET = Target(
    check=check, seeds=seeds, mutate=mutate, words=_WORDS, longest=8192, memory_mb=64, seconds=3.0,
    instrumented=("easyphoto", "PIL", "pillow_heif"),
)  # fmt: skip
