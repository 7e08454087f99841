"""What a picture's header says before a decoder is made for it: sizes and passes that Pillow does not look at."""

from __future__ import annotations

import re
import struct

_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Less those inside of compressed data: 0 is stuffing, D0 to D7 are restarts, FF fills."""
_START_OF_SCAN, _END_OF_IMAGE, _BARE = 0xDA, 0xD9, (0x01, 0xD8)
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_TIFF_SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
"""Bytes of a TIFF's whole numbers by their type."""


def webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) by a WebP's header, 1 x 1 where it says nothing (RFC 9649, section 2).

    Pillow's own answer comes late: older ones make the decoder first, which takes two canvases of that size.
    """
    kind, width, height = data[12:16], 0, 0
    if kind == b"VP8X":
        width, height = _little(data[24:27]) + 1, _little(data[27:30]) + 1
    elif kind == b"VP8L":
        both = _little(data[21:25])
        width, height = (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF
    return max(1, width), max(1, height)


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def jpeg_scans(data: bytes, enough: int) -> int:
    """Scans of a JPEG's first picture, counted no further than `enough` (ITU T.81, B.1.1: segments, each with its length)."""
    place, scans = 2, 0
    while scans < enough and (found := _JPEG_MARKER.search(data, place)):
        kind, place = found[0][1], found.end()
        if kind == _END_OF_IMAGE:
            break
        scans += kind == _START_OF_SCAN
        if kind not in _BARE:
            place += int.from_bytes(data[place : place + 2], "big")
    return scans


def tiff_tile(data: bytes) -> tuple[int, int]:
    """The largest (width, height) of a tile that a TIFF's first directory names, 0 x 0 where it has strips.

    A tag may stand there twice; Pillow takes the last, its decoder the first. (TIFF 6.0, section 2; BigTIFF the same, wider.)
    """
    order = "<" if data[:2] == b"II" else ">"
    wide = 43 in data[2:4]
    start, count, entry = ("8xQ", "Q", "HHQ8s") if wide else ("4xI", "H", "HHI4s")
    sides = {_TILE_WIDTH: 0, _TILE_HEIGHT: 0}
    try:
        (place,) = struct.unpack_from(order + start, data)
        (entries,) = struct.unpack_from(order + count, data, place)
        place += struct.calcsize(order + count)
        for number in range(entries):
            tag, kind, _, value = struct.unpack_from(order + entry, data, place + number * struct.calcsize(order + entry))
            if tag in sides:
                side = int.from_bytes(value[: _TIFF_SIZES.get(kind, 4)], "little" if order == "<" else "big")
                sides[tag] = max(sides[tag], side)
    except (struct.error, OverflowError):
        pass  # cut off: what was said before counts
    return sides[_TILE_WIDTH], sides[_TILE_HEIGHT]
