"""Every common photo becomes upright RGB; everything else becomes one clear sentence."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from easyphoto.errors import NotFound, PhotoError, StorageError, ToolMissing
from easyphoto.imaging.io import decode_photo, encode_png, load_photo, photo_files, save_jpeg, save_png

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def marked() -> Image.Image:
    """4 x 2, red, its top left pixel blue."""
    image = Image.new("RGB", (4, 2), RED)
    image.putpixel((0, 0), BLUE)
    return image


def test_plain_png_is_read_exactly() -> None:
    photo = decode_photo(encoded(marked()), "a.png")
    assert (photo.width, photo.height, photo.name) == (4, 2, "a.png")
    assert tuple(photo.pixels[0, 0]) == BLUE
    assert tuple(photo.pixels[1, 3]) == RED
    assert not photo.pixels.flags.writeable


@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [(1, (4, 2), (0, 0)), (2, (4, 2), (0, 3)), (3, (4, 2), (1, 3)), (4, (4, 2), (1, 0)),
     (5, (2, 4), (0, 0)), (6, (2, 4), (0, 1)), (7, (2, 4), (3, 1)), (8, (2, 4), (3, 0))],
)  # fmt: skip
def test_exif_turns_the_picture_upright(orientation: int, size: tuple[int, int], corner: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode_photo(encoded(marked(), exif=exif.tobytes()), "a")
    assert (photo.width, photo.height) == size
    assert tuple(photo.pixels[corner]) == BLUE


def test_damaged_exif_turns_nothing() -> None:
    photo = decode_photo(encoded(marked(), exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff"), "a")
    assert (photo.width, photo.height) == (4, 2)


def test_grey_palette_and_bilevel_become_rgb() -> None:
    assert decode_photo(encoded(Image.new("L", (3, 3), 77)), "a").pixels.tolist() == [[[77] * 3] * 3] * 3
    assert (decode_photo(encoded(Image.new("1", (3, 3), 1)), "a").pixels == 255).all()
    assert (decode_photo(encoded(marked().convert("P", palette=Image.Palette.ADAPTIVE)), "a").pixels[1, 3] == RED).all()


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 128))
    pixels = decode_photo(encoded(image), "a").pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert np.abs(pixels[0, 1].astype(int) - [227, 127, 127]).max() <= 1
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    assert decode_photo(encoded(palette, transparency=0), "a").pixels.tolist() == [[[255] * 3, [255, 0, 0]]]
    assert decode_photo(encoded(Image.new("LA", (1, 1), (9, 0))), "a").pixels.tolist() == [[[255] * 3]]


def test_cmyk_jpeg_becomes_rgb() -> None:
    pixels = decode_photo(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), "a").pixels
    assert np.abs(pixels[4, 4].astype(int) - [255, 0, 0]).max() <= 6


def test_sixteen_bit_grey_is_scaled_not_cut() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = decode_photo(encoded(Image.fromarray(values), kind), "a").pixels
        assert pixels[0, :, 0].tolist() == [0, 1, 128, 255], kind


def test_float_tiff_is_scaled() -> None:
    pixels = decode_photo(encoded(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), "TIFF"), "a").pixels
    assert pixels[0, :, 2].tolist() == [0, 128, 255]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (GREEN, RED, BLUE)]
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_photo(data, "a").pixels[2, 2].tolist() == list(GREEN)


def test_heic_is_read_upright() -> None:
    heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    heif.from_pillow(image).save(buffer, quality=95, exif=exif.tobytes())
    photo = decode_photo(buffer.getvalue(), "a.heic")
    assert (photo.width, photo.height) == (32, 64)
    assert photo.pixels[4, 28, 2] > 200
    assert photo.pixels[60, 4, 0] > 200


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ToolMissing, match="pip install --no-deps pillow-heif"):
        decode_photo(b"\x00\x00\x00\x18ftypheic" + b"\x00" * 40, "a.heic")


def test_colours_go_through_their_own_profile() -> None:
    """A profile equal to sRGB changes nothing; one that cannot be read is passed over."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    assert np.abs(decode_photo(encoded(image, icc_profile=profile), "a").pixels[0, 0].astype(int) - [200, 100, 50]).max() <= 1
    assert decode_photo(encoded(image, icc_profile=b"nonsense"), "a").pixels[0, 0].tolist() == [200, 100, 50]


def test_text_named_jpg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "me.jpg"
    path.write_text("I am a text")
    with pytest.raises(PhotoError, match=r"me\.jpg is no picture"):
        load_photo(path)


def test_truncated_jpeg_is_refused_everywhere_it_is_cut() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG")
    for share in (0.05, 0.3, 0.6, 0.95):
        with pytest.raises(PhotoError, match=r"cut\.jpg"):
            decode_photo(whole[: int(len(whole) * share)], "cut.jpg")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_no_damage_escapes_as_another_error(kind: str) -> None:
    random = np.random.default_rng(1)
    whole = encoded(Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)), kind)
    for _ in range(60):
        broken = bytearray(whole[: random.integers(1, len(whole))])
        broken[random.integers(0, len(broken))] ^= 0xFF
        try:
            decode_photo(bytes(broken), "x")
        except PhotoError as error:
            assert "x" in str(error)


def test_postscript_is_never_run() -> None:
    with pytest.raises(PhotoError, match="no picture"):
        decode_photo(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "a.jpg")


def test_empty_and_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="empty"):
        decode_photo(b"", "a.jpg")
    with pytest.raises(NotFound, match="does not exist"):
        load_photo(tmp_path / "no.jpg")
    with pytest.raises(PhotoError, match="folder"):
        load_photo(tmp_path)


@pytest.mark.parametrize("name", ["照片 1.png", "émile's [1] #%.png", "😀.png", "x" * 200 + ".png"])
def test_any_name_works(tmp_path: Path, name: str) -> None:
    save_png(tmp_path / name, np.full((3, 5, 3), 7, np.uint8))
    assert load_photo(tmp_path / name).name == name


def test_png_round_trip_keeps_pixels_and_text_and_nothing_else(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (9, 7, 3), np.uint8)
    save_png(tmp_path / "a.png", pixels, {"parameters": "a face\nSteps: 20, 人"})
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"] == "a face\nSteps: 20, 人"
    assert (load_photo(tmp_path / "a.png").pixels == pixels).all()
    assert (decode_photo(encode_png(pixels[..., 0]), "grey").pixels[..., 1] == pixels[..., 0]).all()


def test_saved_pictures_hold_no_place_and_no_camera(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A Camera"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 0.0)
    photo = decode_photo(encoded(marked(), "JPEG", exif=exif), "a.jpg")
    save_jpeg(tmp_path / "b.jpg", photo.pixels)
    assert b"Exif" not in (tmp_path / "b.jpg").read_bytes()
    assert b"Camera" not in (tmp_path / "b.jpg").read_bytes()


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        save_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_folders_are_expanded_in_natural_order_and_files_taken_as_named(tmp_path: Path) -> None:
    for name in ("10.jpg", "2.JPG", "1.png", "note.txt", ".hidden.jpg", "a.heic"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deeper.jpg").mkdir()
    found = photo_files([tmp_path / "note.txt", tmp_path, tmp_path / "1.png"])
    assert [path.name for path in found] == ["note.txt", "1.png", "2.JPG", "10.jpg", "a.heic"]


def test_no_photos_are_told(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no photos in"):
        photo_files([tmp_path])
    with pytest.raises(PhotoError, match="no photos"):
        photo_files([])
    with pytest.raises(NotFound, match="does not exist"):
        photo_files([tmp_path / "no"])
