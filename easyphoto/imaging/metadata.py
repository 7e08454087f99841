"""Pictures without what they say beside their pixels: no place, no time, no camera, no thumbnail, no words.

JPEG, PNG and WebP lose their private parts without being decoded, HEIC has them overwritten with zeros; what is left decodes
to the same pixels, bit for bit. Only what the pixels need stays: sizes, colour profile, transparency, and which side is up.
Every other format, and what cannot be taken apart, is decoded and written anew as PNG.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image

from easyphoto.imaging.heif_metadata import Unstrippable, blank_heif
from easyphoto.imaging.io import decode_photo, encode_png

_ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held (EXIF 2.32, 4.6.4)."""
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_EXIF_HEAD = b"Exif\0\0"
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD hIST pHYs cICP mDCV cLLI acTL fcTL fdAT".split()
)
_WEBP_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_WEBP_EXIF_FLAG, _WEBP_XMP_FLAG = 0x08, 0x04
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers without a length: TEM and the restarts."""
_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE


def without_private_metadata(data: bytes) -> bytes:
    """The same picture with nothing but its pixels, its colour profile and which side is up.

    Args:
        data: A picture file of any format that `imaging.io` reads.

    Returns:
        A file that decodes to the same pixels; of the same format, or PNG.

    Raises:
        PhotoError: It is no picture that can be read, or it is too large.
        ToolMissing: A HEIC file that has to be decoded, and pillow-heif is not installed.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:8] == _PNG_HEAD:
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[4:8] == b"ftyp":
            return blank_heif(data)
    except (Unstrippable, struct.error, IndexError):
        pass
    return encode_png(decode_photo(data, "the picture").pixels)


def _jpeg(data: bytes) -> bytes:
    """A JPEG's own segments (ITU-T T.81, B.1): application data and comments go, all after its end goes too.

    Phones append films and further pictures behind the end, and place their own thumbnails in APP1 and APP2.
    """
    kept, orientation, xmp = [b"\xff\xd8"], 1, b""
    for marker, part in _jpeg_parts(data):
        body = part[4:]
        if marker == _APP1 and body.startswith(_EXIF_HEAD) and orientation == 1:
            orientation = _orientation(body)
        elif marker == _APP1 and body.startswith(_XMP_HEAD):
            xmp = xmp or body
        elif marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            kept.append(b"\xff\xe0\0\x10" + body[:12] + b"\0\0")  # without its thumbnail
        elif _jpeg_needs(marker, body):
            kept.append(part)
    exif = _small_exif(orientation if orientation != 1 else _from_xmp(xmp))
    if exif:
        block = _EXIF_HEAD + exif
        # behind JFIF, which has to come first where there is one
        place = 2 if len(kept) > 1 and kept[1][1] == _APP0 else 1
        kept.insert(place, b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)
    return b"".join(kept)


def _jpeg_needs(marker: int, body: bytes) -> bool:
    """Whether the pixels need a segment: all but comments and application data, of which colours need two kinds."""
    if marker == _APP2:
        return body.startswith(b"ICC_PROFILE\0")
    if marker == _APP14:
        return body.startswith(b"Adobe")
    return not _APP0 <= marker <= _APP0 + 15 and marker != _COM


def _jpeg_parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, bytes) of everything between start and end; a file that is cut short ends where it ends."""
    place = 2
    while place + 1 < len(data):
        if data[place] != 0xFF:
            raise Unstrippable("something lies between the segments")
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == _EOI:
            yield marker, b"\xff\xd9"
            return
        if marker in _BARE_MARKERS:
            end = place + 2
        elif marker in (0x00, _SOI):
            raise Unstrippable("a marker that cannot stand here")
        else:
            end = place + 2 + max(2, struct.unpack(">H", data[place + 2 : place + 4])[0])
        if marker == _SOS:
            end = _scan_end(data, end)
        yield marker, data[place:end]
        place = end


_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def _scan_end(data: bytes, start: int) -> int:
    """Where the compressed pixels that begin at `start` end: at the next marker that is no restart."""
    found = _MARKER_IN_SCAN.search(data, start)
    return found.start() if found else len(data)


def _png(data: bytes) -> bytes:
    """A PNG's own chunks (PNG 3rd edition, 5.3): text, time, EXIF and what we do not know go."""
    kept, exif, xmp, place = [_PNG_HEAD], b"", b"", 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        if kind in _PNG_KEPT:
            kept.append(data[place : place + 12 + length])
        elif kind == b"eXIf":
            exif = exif or body
        elif kind == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0"):
            xmp = xmp or body
        elif body.startswith((b"Raw profile type exif\0", b"Raw profile type APP1\0", b"Raw profile type xmp\0")):
            raise Unstrippable("EXIF as text")
        if kind == b"IEND":
            break
        place += 12 + length
    if xmp and xmp[18:19] != b"\0":
        raise Unstrippable("compressed XMP")
    small = _small_exif(_orientation(exif) if exif and _orientation(exif) != 1 else _from_xmp(xmp))
    if small and len(kept) > 1:
        kept.insert(2, struct.pack(">I", len(small)) + b"eXIf" + small + struct.pack(">I", zlib.crc32(b"eXIf" + small)))
    return b"".join(kept)


def _webp(data: bytes) -> bytes:
    """A WebP's own chunks (RFC 9649, 2.7): EXIF, XMP and what we do not know go."""
    chunks = list(_riff(data[12 : 8 + struct.unpack("<I", data[4:8])[0]]))
    exif = next((body for kind, body in chunks if kind == b"EXIF"), b"")
    xmp = next((body for kind, body in chunks if kind == b"XMP "), b"")
    orientation = _orientation(exif) if exif else 1
    small = _small_exif(orientation if orientation != 1 else _from_xmp(xmp))
    kept = [(kind, _frame(body) if kind == b"ANMF" else body) for kind, body in chunks if kind in _WEBP_KEPT]
    if kept and kept[0][0] == b"VP8X":
        flags = kept[0][1][0] & ~(_WEBP_EXIF_FLAG | _WEBP_XMP_FLAG) | (_WEBP_EXIF_FLAG if small else 0)
        kept[0] = (b"VP8X", bytes([flags]) + kept[0][1][1:])
    if small:
        kept.append((b"EXIF", small))
    body = b"WEBP" + b"".join(_riff_chunk(kind, content) for kind, content in kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _frame(body: bytes) -> bytes:
    """A frame of an animation: 16 bytes of its own, then chunks."""
    return body[:16] + b"".join(_riff_chunk(kind, part) for kind, part in _riff(body[16:]) if kind in _WEBP_KEPT)


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[place : place + 8])
        yield kind, data[place + 8 : place + 8 + length]
        place += 8 + length + (length & 1)


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def _orientation(exif: bytes) -> int:
    """What the EXIF says, 1 to 8; 1 (upright) where it says nothing that can be read, as for the decoder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files
            tags = Image.Exif()
            tags.load(exif)
            found = tags.get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, AttributeError, OverflowError, struct.error):
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _from_xmp(xmp: bytes) -> int:
    """What the XMP says of the orientation where the EXIF does not."""
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1


def _small_exif(orientation: int) -> bytes:
    """EXIF with the orientation alone: a TIFF head and one entry; nothing for an upright picture."""
    if orientation == 1:
        return b""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, _ORIENTATION, 3, 1, orientation, 0, 0)
