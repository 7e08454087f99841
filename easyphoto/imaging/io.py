"""Pictures in and out: any common photo becomes an upright RGB `Photo`, or one clear sentence why not.

Nothing of a file but its pixels is kept: no EXIF, no place, no thumbnail.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from easyphoto import files
from easyphoto.errors import NotFound, PhotoError, ToolMissing
from easyphoto.imaging.headers import jpeg_scans, tiff_tile, webp_size
from easyphoto.records import Photo, Pixels

MAX_PIXELS = 64_000_000
MAX_SIDE = 20_000
MAX_SCANS = 100
"""Passes over a JPEG's pixels; cameras and the tightest packers stay below 20, and a file of 13 bytes a pass takes hours."""
EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif",
                        ".avif", ".mpo"})  # fmt: skip
"""Files of a folder that are taken for photos; a file named by itself is always tried."""

# A fixed list, because Pillow would otherwise start Ghostscript for a file that says it is EPS.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF")
_ROWS = 512
"""Rows that are converted at once, so that no second and third copy of a large picture is held."""
_FAIR_TILE = 2048 * 2048
"""Pixels of a TIFF's tile that are taken even where the picture is smaller."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, AttributeError, OverflowError,
           RuntimeError, struct.error)  # fmt: skip
"""What Pillow's decoders raise on damaged files; they have no common root."""


def load_photo(path: Path) -> Photo:
    """The picture in a file, upright by its EXIF, RGB, 8 bits; transparency on white, animations by their first frame.

    Raises:
        NotFound: There is no such file.
        PhotoError: The file is no picture, is damaged, or is too large.
        ToolMissing: A HEIC file, and pillow-heif is not installed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist; check the name") from error
    except IsADirectoryError as error:
        raise PhotoError(f"{path} is a folder, not a picture") from error
    except OSError as error:
        raise PhotoError(f"{path.name} cannot be opened: {error.strerror or error}") from error
    return decode_photo(data, path.name)


def decode_photo(data: bytes, name: str) -> Photo:
    """The picture in `data`; `name` is what people know it by. See `load_photo`."""
    if not data:
        raise PhotoError(f"{name} is empty; copy it again or leave it out")
    with _quiet_pillow():
        image = _open(data, name)
        try:
            image.load()
            pixels = _to_rgb(_upright(image))
        except Image.DecompressionBombError as error:
            raise _too_large(name) from error
        except MemoryError as error:
            raise PhotoError(f"{name} does not fit into memory; make it smaller") from error
        except _BROKEN as error:
            raise PhotoError(f"{name} is damaged or cut short ({error}); copy it again or leave it out") from error
    pixels.setflags(write=False)
    return Photo(pixels=pixels, name=name)


def picture_size(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) in px as the file lies, read from its header alone; `name` is what people know it by.

    Raises:
        PhotoError: This is no picture, or it is too large.
        ToolMissing: A HEIC file, and pillow-heif is not installed.
    """
    if not data:
        raise PhotoError(f"{name} is empty; copy it again or leave it out")
    with _quiet_pillow():
        return _open(data, name).size


def photo_files(inputs: Sequence[Path]) -> tuple[Path, ...]:
    """The photos named by files and folders: folders give their pictures in natural order ("2" before "10").

    Raises:
        NotFound: An input does not exist.
        PhotoError: Nothing was named, or a folder shows no picture.
    """
    found: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            inside = [entry for entry in path.iterdir() if _is_picture(entry)]
            found.update(dict.fromkeys(sorted(inside, key=_natural)))
        elif path.exists():
            found[path] = None
        else:
            raise NotFound(f"{path} does not exist; check the name")
    if not found:
        where = ", ".join(str(path) for path in inputs) or "nothing"
        raise PhotoError(f"no photos in {where}; name pictures or a folder with pictures (jpg, png, webp, heic ...)")
    return tuple(found)


def encode_png(pixels: Pixels, text: Mapping[str, str] | None = None) -> bytes:
    """A PNG of (height, width[, 3]) uint8 grey or RGB pixels, with text chunks ("parameters" is the WebUI's)."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=chunks, compress_level=4)
    return buffer.getvalue()


def encode_jpeg(pixels: Pixels, quality: int = 92) -> bytes:
    """A JPEG of (height, width[, 3]) uint8 grey or RGB pixels, with full colour resolution."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def save_png(path: Path, pixels: Pixels, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG in one atomic step; raises StorageError when the disk cannot take it."""
    files.write_bytes(path, encode_png(pixels, text))


def save_jpeg(path: Path, pixels: Pixels, quality: int = 92) -> None:
    """Write a JPEG in one atomic step; raises StorageError when the disk cannot take it."""
    files.write_bytes(path, encode_jpeg(pixels, quality))


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Pillow's remarks on odd files off; its warning of a decompression bomb becomes an error, as ours is stricter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _open(data: bytes, name: str) -> Image.Image:
    """The picture with its header read and its size refused if too large; HEIC is decoded already."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _refuse_large(webp_size(data), name)
    is_heif = data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis")
    try:
        image = _open_heif(data, name) if is_heif else Image.open(io.BytesIO(data), formats=_known_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except _BROKEN as error:
        raise PhotoError(f"{name} is no picture that can be read; save it as JPEG or PNG, or leave it out") from error
    _refuse_large(image.size, name)
    _refuse_costly(image, data, name)
    return image


def _refuse_costly(image: Image.Image, data: bytes, name: str) -> None:
    """Small pictures that would take the memory or the time of enormous ones."""
    if image.format in ("JPEG", "MPO") and jpeg_scans(data, MAX_SCANS + 1) > MAX_SCANS:
        raise PhotoError(f"{name} is a JPEG of more than {MAX_SCANS} passes, which no camera writes; save it anew")
    if image.format == "TIFF":
        width, height = tiff_tile(data)
        if width * height > max(_FAIR_TILE, 2 * image.width * image.height):
            raise PhotoError(f"{name} is a TIFF whose tiles, {width} x {height} px, are far larger than it is; save it anew")


def _known_formats() -> list[str]:
    Image.init()
    return [kind for kind in _FORMATS if kind in Image.OPEN]


def _open_heif(data: bytes, name: str) -> Image.Image:
    """A HEIC photo by pillow-heif's own functions: its plug-in for Pillow does not work with every Pillow."""
    try:
        import pillow_heif
    except ImportError as error:
        raise ToolMissing(f"{name} is a HEIC photo, which needs pillow-heif: pip install --no-deps pillow-heif") from error
    coded = pillow_heif.open_heif(io.BytesIO(data))
    _refuse_large(coded.size, name)
    image: Image.Image = coded.to_pillow()
    image.info.pop("exif", None)  # the decoder has turned the picture; turning it again by its EXIF would be wrong
    return image


def _refuse_large(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise _too_large(name, f"{width} x {height} px is")
    if min(width, height) < 1:
        raise PhotoError(f"{name} has no pixels; leave it out")


def _too_large(name: str, what: str = "it is") -> PhotoError:
    limit = f"{MAX_PIXELS // 1_000_000} megapixels or {MAX_SIDE:,} px on a side"
    return PhotoError(f"{name} is too large: {what} more than {limit}; make it smaller")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says; damaged EXIF says nothing."""
    xmp = image.info.get("xmp")
    if isinstance(xmp, bytes):  # where a WebP's lies; older Pillows look for an orientation under PNG's name alone
        image.info.setdefault("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    try:
        return ImageOps.exif_transpose(image) or image
    except _BROKEN:
        return image


def _to_rgb(image: Image.Image) -> Pixels:
    """(height, width, 3) uint8 RGB of a decoded picture of any mode."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(np.asarray(image))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _ROWS):
        strip = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
        pixels[top : top + _ROWS] = np.asarray(_strip_to_rgb(strip))
    return pixels


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layers).convert("RGB")
    return _to_srgb(image).convert("RGB")


def _from_deep_grey(values: NDArray[Any]) -> Pixels:
    """RGB of grey values deeper than 8 bits: 16-bit integers, or floats where 1 (or 255) is white."""
    strips = [values[top : top + _ROWS] for top in range(0, len(values), _ROWS)]
    top = max(float(_finite(strip).max(initial=0.0)) for strip in strips)
    if np.issubdtype(values.dtype, np.floating):
        scale = 255.0 if top <= 1.0 else 1.0
    else:
        scale = 1.0 if top <= 255 and values.dtype.itemsize > 2 else 1 / 257  # 65535 / 255
    pixels = np.empty((*values.shape, 3), np.uint8)
    for place, strip in enumerate(strips):
        grey = np.clip(np.rint(_finite(strip) * scale), 0, 255).astype(np.uint8)
        pixels[place * _ROWS : (place + 1) * _ROWS] = grey[:, :, None]
    return pixels


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Colours through the picture's own ICC profile (phones write Display P3); as they are where that fails."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, ImportError, *_BROKEN):
        return image


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that compares runs of digits as numbers."""
    parts = re.findall(r"\d+|\D+", path.name.casefold())
    return [(0, int(part), "") if part.isdecimal() and len(part) < 19 else (1, 0, part) for part in parts]
