"""HEIC files without their private parts, overwritten in place: a HEIC says where everything lies by byte positions.

The boxes are those of ISO/IEC 14496-12 (8.11: meta, iinf, iloc) and 23008-12. What turns the picture upright is a property
of its own (irot, imir) and stays.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_TOP_KEPT = frozenset({b"ftyp", b"meta", b"mdat", b"free", b"skip", b"wide"})
_META_KEPT = frozenset({b"hdlr", b"dinf", b"pitm", b"iinf", b"iref", b"iprp", b"iloc", b"idat", b"grpl", b"free"})
_PICTURES = frozenset({b"hvc1", b"hev1", b"av01", b"avc1", b"jpeg", b"grid", b"iden", b"iovl", b"tmap", b"lhv1", b"unci"})
_WORDY = frozenset({b"udes", b"altt", b"crtt", b"mdft", b"uuid"})
"""Properties that hold words or times."""


_EMPTY_EXIF = b"\0\0\0\0II*\0\x08\0\0\0"
"""Where the TIFF begins, its head, and (zeros) a directory of nothing (ISO/IEC 23008-12, A.2.1)."""


class Unstrippable(Exception):
    """The file cannot be taken apart safely; it has to be decoded and written anew."""


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int
    """Where its content begins."""
    end: int


def blank_heif(data: bytes) -> bytes:
    """The file with the content of every item that is no picture set to zero.

    Raises:
        Unstrippable: It holds something else that may be private, or is not built as expected.
    """
    tops = list(_boxes(data, 0, len(data)))
    metas = [box for box in tops if box.kind == b"meta"]
    if len(metas) != 1 or any(box.kind not in _TOP_KEPT for box in tops):
        raise Unstrippable("more than pictures")
    parts = {box.kind: box for box in _boxes(data, metas[0].start + 4, metas[0].end)}
    if not {b"iinf", b"iloc", b"iprp"} <= set(parts) <= _META_KEPT or _has_words(data, parts[b"iprp"]):
        raise Unstrippable("more than pictures")
    private = {number: kind for number, kind in _items(data, parts[b"iinf"]) if kind not in _PICTURES}
    blank = bytearray(data)
    for number, method, offset, length in _places(data, parts[b"iloc"]):
        if number not in private:
            continue
        if method not in (0, 1) or (method == 1 and b"idat" not in parts) or length == 0:
            raise Unstrippable("data kept in another way")
        start = offset + (parts[b"idat"].start if method == 1 else 0)
        if start + length > len(data):
            raise Unstrippable("data behind the end")
        # An Exif item that is no EXIF at all makes libavif refuse the whole picture.
        said = _EMPTY_EXIF if private[number] == b"Exif" else b""
        blank[start : start + length] = said[:length].ljust(length, b"\0")
    for box in tops:
        if box.kind in (b"free", b"skip", b"wide"):
            blank[box.start : box.end] = bytes(box.end - box.start)
    return bytes(blank)


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", data[start + 8 : start + 16])[0], 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            raise Unstrippable("a box of impossible size")
        yield _Box(kind, start + head, start + size)
        start += size
    if start != end:
        raise Unstrippable("something behind the last box")


def _has_words(data: bytes, iprp: _Box) -> bool:
    inner = list(_boxes(data, iprp.start, iprp.end))
    return any(box.kind in _WORDY for part in inner if part.kind == b"ipco" for box in _boxes(data, part.start, part.end))


def _items(data: bytes, iinf: _Box) -> Iterator[tuple[int, bytes]]:
    """(number, kind) of every item."""
    wide = data[iinf.start] != 0
    for box in _boxes(data, iinf.start + (8 if wide else 6), iinf.end):
        version = data[box.start]
        if box.kind != b"infe" or version not in (2, 3):
            raise Unstrippable("items of an old kind")
        number = _number(data, box.start + 4, 4 if version == 3 else 2)
        place = box.start + (10 if version == 3 else 8)
        yield number, data[place : place + 4]


def _places(data: bytes, iloc: _Box) -> Iterator[tuple[int, int, int, int]]:
    """(number, construction method, offset, length) of every piece of every item."""
    version, sizes = data[iloc.start], _number(data, iloc.start + 4, 2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version in (1, 2) else 0
    wide = 4 if version == 2 else 2
    place = iloc.start + 6 + wide
    for _ in range(_number(data, iloc.start + 6, wide)):
        number, place = _number(data, place, wide), place + wide
        method = 0
        if version in (1, 2):
            method, place = _number(data, place, 2) & 15, place + 2
        reference, place = _number(data, place, 2), place + 2
        base, place = _number(data, place, base_size), place + base_size
        pieces, place = _number(data, place, 2), place + 2
        if reference or place > iloc.end:
            raise Unstrippable("data in another file")
        if pieces > 1 and not length_size:  # which take no bytes to say: a few thousand of them would take minutes
            raise Unstrippable("pieces without a length")
        for _ in range(pieces):
            place += index_size
            offset, place = _number(data, place, offset_size), place + offset_size
            length, place = _number(data, place, length_size), place + length_size
            yield number, method, base + offset, length


def _number(data: bytes, place: int, size: int) -> int:
    piece = data[place : place + size]
    if len(piece) != size:
        raise Unstrippable("cut short")
    return int.from_bytes(piece, "big")
