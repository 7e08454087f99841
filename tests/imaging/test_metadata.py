"""What a picture says beside its pixels is gone after import, and its pixels are the same."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from string import ascii_letters

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from easyphoto.errors import EasyPhotoError, PhotoError
from easyphoto.imaging.io import decode_photo
from easyphoto.imaging.metadata import without_private_metadata
from easyphoto.settings import PROJECT_ROOT

SECRET = b"48.8584N-2.2945E"
"""Stands in every private place of the test pictures."""
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d" dc:creator="' + SECRET + b'"/></x:xmpmeta>'
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SAMPLE = PROJECT_ROOT / "models" / "sample-people" / "woman" / "00.jpg"
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIC", "MPO")


def exif(orientation: int) -> Image.Exif:
    """EXIF as a phone writes it: camera, time, place, and a thumbnail's worth of maker's notes."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F], tags[0x0110], tags[0x013B] = SECRET.decode(), "Phone 9", "Anna " + SECRET.decode()
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.24), 3: "E", 4: (2.0, 17.0, 40.2), 29: "2026:11:21"})
    tags.get_ifd(0x8769)[0x927C] = SECRET * 40
    return tags


def picture() -> Image.Image:
    """A real portrait, not square, so that turning it shows."""
    with Image.open(SAMPLE) as image:
        return image.convert("RGB").resize((96, 128))


def written(kind: str, orientation: int, icc: bytes | None = None) -> bytes:
    """A picture file of that format with private things in every place that Pillow can write."""
    image, stream = picture(), io.BytesIO()
    tags, xmp = exif(orientation).tobytes(), XMP % orientation
    if kind == "HEIC":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(image).save(stream, exif=tags, xmp=xmp)
        return stream.getvalue()
    if kind == "PNG":
        words = PngImagePlugin.PngInfo()
        words.add_text("Comment", SECRET.decode())
        words.add_text("Author", SECRET.decode(), zip=True)
        words.add_itxt("XML:com.adobe.xmp", (XMP % orientation).decode())
        image.save(stream, kind, exif=tags, pnginfo=words, icc_profile=icc)
        return stream.getvalue() + SECRET
    if kind == "MPO":
        image.save(stream, kind, exif=tags, save_all=True, append_images=[image.rotate(90)])
        return stream.getvalue()
    if kind == "JPEG":
        image.save(stream, kind, exif=tags, xmp=xmp, comment=SECRET, icc_profile=icc, quality=90)
        return stream.getvalue() + b"film" + SECRET
    if kind == "WEBP":
        image.save(stream, kind, exif=tags, xmp=xmp, icc_profile=icc, quality=80)
        return stream.getvalue()
    image.save(stream, kind, exif=exif(orientation))
    return stream.getvalue()


def says(data: bytes) -> dict[int, object]:
    """Every EXIF tag that Pillow still finds."""
    with Image.open(io.BytesIO(data)) as image:
        tags = image.getexif()
        return {**dict(tags), **tags.get_ifd(0x8825), **tags.get_ifd(0x8769)}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_place_time_camera_and_words_are_gone_and_the_pixels_stay(kind: str, orientation: int) -> None:
    before = written(kind, orientation)
    assert SECRET in before
    after = without_private_metadata(before)
    assert SECRET not in after
    assert np.array_equal(decode_photo(after, "a").pixels, decode_photo(before, "b").pixels)
    if kind == "HEIC":
        assert after[4:12] == before[4:12], "not decoded, overwritten in place"
    else:
        assert set(says(after)) <= {0x0112}
    assert len(after) <= len(before) or kind == "TIFF"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_colour_profile_stays(kind: str) -> None:
    with Image.open(io.BytesIO(without_private_metadata(written(kind, 6, ICC)))) as image:
        assert image.info["icc_profile"] == ICC


@pytest.mark.parametrize("kind", FORMATS)
def test_stripping_twice_changes_nothing_more(kind: str) -> None:
    once = without_private_metadata(written(kind, 6))
    assert without_private_metadata(once) == once


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_xmp_alone_turns_is_still_turned(kind: str) -> None:
    stream, xmp = io.BytesIO(), XMP % 6
    words = PngImagePlugin.PngInfo()
    words.add_itxt("XML:com.adobe.xmp", xmp.decode())
    picture().save(stream, kind, **({"pnginfo": words} if kind == "PNG" else {"xmp": xmp}))
    before = stream.getvalue()
    after = without_private_metadata(before)
    assert SECRET not in after
    assert np.array_equal(decode_photo(after, "a").pixels, decode_photo(before, "b").pixels)


def test_transparency_grey_and_deep_pictures_keep_their_pixels() -> None:
    grey = Image.fromarray(np.arange(96 * 96, dtype=np.uint16).reshape(96, 96) * 7)
    for image in (picture().convert("RGBA"), picture().convert("L"), picture().convert("P"), grey):
        stream = io.BytesIO()
        image.save(stream, "PNG", exif=exif(8).tobytes())
        after = without_private_metadata(stream.getvalue())
        assert SECRET not in after
        assert np.array_equal(decode_photo(after, "a").pixels, decode_photo(stream.getvalue(), "b").pixels)


def test_an_animation_keeps_its_first_frame() -> None:
    stream = io.BytesIO()
    picture().save(stream, "WEBP", save_all=True, append_images=[picture().rotate(9)], exif=exif(1).tobytes(), xmp=XMP % 1)
    after = without_private_metadata(stream.getvalue())
    assert SECRET not in after
    assert np.array_equal(decode_photo(after, "a").pixels, decode_photo(stream.getvalue(), "b").pixels)


def test_exif_as_text_in_a_png_goes_too() -> None:
    words = PngImagePlugin.PngInfo()
    words.add_text("Raw profile type exif", f"\nexif\n{len(exif(6).tobytes())}\n{exif(6).tobytes().hex()}\n")
    stream = io.BytesIO()
    picture().save(stream, "PNG", pnginfo=words)
    after = without_private_metadata(stream.getvalue())
    assert SECRET.hex().encode() not in after
    assert np.array_equal(decode_photo(after, "a").pixels, decode_photo(stream.getvalue(), "b").pixels)


def test_what_is_no_picture_is_refused() -> None:
    for data in (b"", b"hello", b"GIF89a", b"II*\0" + SECRET):
        with pytest.raises(PhotoError):
            without_private_metadata(data)


JUNK = st.lists(st.tuples(st.sampled_from([*range(0xE0, 0xF0), 0xFE]), st.binary(max_size=40)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(junk=JUNK, orientation=st.integers(1, 8), tail=st.binary(max_size=60))
def test_no_segment_of_a_jpeg_outlives_but_those_the_pixels_need(
    junk: list[tuple[int, bytes]], orientation: int, tail: bytes
) -> None:
    plain = written("JPEG", orientation)
    parts = b"".join(bytes([0xFF, kind]) + struct.pack(">H", len(body) + 18) + SECRET + body for kind, body in junk)
    data = plain[:2] + parts + plain[2:] + tail
    after = without_private_metadata(data)
    assert SECRET not in after
    assert np.array_equal(decode_photo(after, "a").pixels, decode_photo(data, "b").pixels)


@settings(max_examples=60, deadline=None)
@given(junk=st.lists(st.text(ascii_letters, min_size=4, max_size=4), max_size=5))
def test_no_chunk_of_a_png_outlives_but_those_the_pixels_need(junk: list[str]) -> None:
    plain = written("PNG", 3)
    private = [kind.encode() for kind in junk if kind[0].islower() and kind not in ("tRNS", "fdAT", "fcTL", "acTL")]
    chunks = b"".join(
        struct.pack(">I", len(SECRET)) + kind + SECRET + struct.pack(">I", zlib.crc32(kind + SECRET)) for kind in private
    )
    data = plain[:33] + chunks + plain[33:]
    after = without_private_metadata(data)
    assert SECRET not in after
    assert np.array_equal(decode_photo(after, "a").pixels, decode_photo(data, "b").pixels)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_give_an_error_of_ours_or_a_stripped_file_never_a_crash(kind: str) -> None:
    whole, draw = written(kind, 6), random.Random(7)  # noqa: S311 (the same bytes every time)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(min(len(data), 900))] = draw.randrange(256)
        cut = bytes(data[: draw.randint(0, len(data))]) if draw.random() < 0.4 else bytes(data)
        try:
            without_private_metadata(cut)
        except EasyPhotoError as error:
            assert str(error)


def test_real_photos_are_left_as_they_are_to_the_bit(sample_people: Path) -> None:
    for path in sorted(sample_people.rglob("*.jpg"))[:4]:
        data = path.read_bytes()
        assert np.array_equal(decode_photo(without_private_metadata(data), "a").pixels, decode_photo(data, "a").pixels)
