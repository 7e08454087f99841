"""Files of a few bytes that promise enormous pictures: refused by their headers, in words, before memory is taken."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from easyphoto.errors import PhotoError
from easyphoto.imaging.io import decode_photo, load_photo
from easyphoto.settings import PROJECT_ROOT

NOTHING = b"\x00" * 200


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\x00" * 10)) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, start_of_frame: int = 0xC0) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
    scan = bytes((3, 1, 0, 2, 0, 3, 0, 0, 63, 0))
    parts = [(0xE0, b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"), (start_of_frame, frame), (0xDA, scan)]
    segments = (bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data for marker, data in parts)
    return b"\xff\xd8" + b"".join(segments) + NOTHING + b"\xff\xd9"


def progressive_jpeg(width: int, height: int) -> bytes:
    return jpeg(width, height, 0xC2)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data + b"\x00" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp(width: int, height: int) -> bytes:
    tag = 1 << 4 | len(NOTHING) << 5  # a key frame that is shown, and the size of its first partition
    return riff((b"VP8 ", struct.pack("<I", tag)[:3] + b"\x9d\x01\x2a" + struct.pack("<HH", width, height) + NOTHING))


def lossless_webp(width: int, height: int) -> bytes:
    return riff((b"VP8L", _lossless(width, height)))


def animated_webp(width: int, height: int) -> bytes:
    """A canvas of any size around a frame of 16 x 16."""
    frame = _lossless(16, 16)
    frame = b"VP8L" + struct.pack("<I", len(frame)) + frame + b"\x00" * (len(frame) % 2)
    canvas = struct.pack("<I", 0x02) + _three_bytes(width - 1) + _three_bytes(height - 1)
    place = b"\x00" * 6 + _three_bytes(15) + _three_bytes(15) + b"\x00" * 4
    return riff((b"VP8X", canvas), (b"ANIM", b"\x00" * 6), (b"ANMF", place + frame))


def _lossless(width: int, height: int) -> bytes:
    return b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + NOTHING


def _three_bytes(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(NOTHING), 0, 0, 14 + len(info)) + info + NOTHING


def upside_down_bmp(width: int, height: int) -> bytes:
    return bmp(width, -height)


def tiff(width: int, height: int) -> bytes:
    # Width, height, bits, compression, black is 0, where the strip lies, samples, rows of the strip, bytes of the strip.
    numbers = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(NOTHING)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in numbers.items())
    return b"II*\x00" + struct.pack("<I", 8 + len(NOTHING)) + NOTHING + struct.pack("<H", len(numbers)) + entries + b"\x00" * 4


def gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff"
    return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"


def ppm(width: int, height: int) -> bytes:
    return f"P6 {width} {height} 255\n".encode() + NOTHING


KINDS: dict[str, tuple[Callable[[int, int], bytes], int]] = {
    "png": (png, 30_000), "jpg": (jpeg, 30_000), "progressive.jpg": (progressive_jpeg, 30_000),
    "webp": (webp, 16_383), "lossless.webp": (lossless_webp, 16_384), "animated.webp": (animated_webp, 30_000),
    "bmp": (bmp, 30_000), "upside-down.bmp": (upside_down_bmp, 30_000), "tif": (tiff, 30_000), "gif": (gif, 30_000),
    "ppm": (ppm, 30_000),
}  # fmt: skip
"""How to make such a header, and 30,000 px or the largest side that the format can say."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [None, (8_001, 8_001), (9_500, 9_500)])
def test_a_header_too_large_is_refused_in_one_sentence(kind: str, size: tuple[int, int] | None) -> None:
    make, largest = KINDS[kind]
    with pytest.raises(PhotoError) as caught:
        decode_photo(make(*(size or (largest, largest))), f"bomb.{kind}")
    message = str(caught.value)
    assert message.startswith(f"bomb.{kind} is too large: ")
    assert message.endswith("more than 64 megapixels or 20,000 px on a side; make it smaller")
    assert "\n" not in message


@pytest.mark.parametrize("kind", [kind for kind, (_, largest) in KINDS.items() if largest > 20_000])
def test_few_pixels_on_a_side_too_long_are_refused(kind: str) -> None:
    with pytest.raises(PhotoError, match=r"20001 x 10 px is more than .* 20,000 px on a side"):
        decode_photo(KINDS[kind][0](20_001, 10), "ribbon")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_header_with_a_fair_size_is_read_as_what_it_says(kind: str) -> None:
    """The headers are true ones: shrunken, they pass the check of size, and only what follows them is found wanting."""
    try:
        photo = decode_photo(KINDS[kind][0](30, 20), "small")
    except PhotoError as error:
        assert "damaged" in str(error)
    else:
        assert (photo.width, photo.height) == (30, 20)


def test_a_webp_as_large_as_it_may_be_is_not_refused_for_its_size(tmp_path: Path) -> None:
    for number, options in enumerate(({"lossless": True}, {"quality": 50})):
        path = tmp_path / f"{number}.webp"
        Image.new("RGB", (16_383, 2), (90, 120, 150)).save(path, **options)
        assert load_photo(path).width == 16_383


_WATCH = """
import resource, sys
from pathlib import Path
from PIL import Image
from easyphoto.errors import PhotoError
from easyphoto.imaging.io import load_photo
Image.init()
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, resource.RLIM_INFINITY))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    try:
        load_photo(path)
        print("read", path.name)
    except PhotoError as error:
        assert "too large" in str(error), error
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
def test_no_header_takes_memory(tmp_path: Path) -> None:
    """In a process of its own that may not reserve 1.5 GB either, which two canvases of 16,383 x 16,383 px would."""
    paths = []
    for kind, (make, largest) in KINDS.items():
        paths.append(tmp_path / f"bomb.{kind}")
        paths[-1].write_bytes(make(largest, largest))
    command = [sys.executable, "-c", _WATCH, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100, "MB"
