"""Identity vectors tell people apart, and do not care for size, place or light."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from easyphoto.faces import embed
from easyphoto.faces.embed import distance, face_chip, median_embedding
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging.io import load_photo
from easyphoto.records import Floats, Photo


def vector(tools: FaceTools, photo: Photo) -> Floats:
    face = min(tools.faces(photo), key=lambda one: abs(one.box.center[0] - photo.width / 2))
    embedding = tools.with_embedding(photo, face).embedding
    assert embedding is not None
    return embedding


def test_vector_has_its_shape_and_comes_again(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    photo = portraits[0]
    first = vector(tools, photo)
    assert first.shape == (128,)
    assert first.dtype == np.float32
    assert (tools.recognizer.embed(photo, tools.faces(photo)[0]) == first).all()


def test_size_light_and_place_hardly_matter(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    for photo in portraits[:3]:
        first = vector(tools, photo)
        small = cv2.resize(photo.pixels, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
        dim = np.clip(small * 0.7, 0, 255).astype(np.uint8)
        framed = cv2.copyMakeBorder(dim, 30, 10, 60, 5, cv2.BORDER_CONSTANT)
        assert distance(first, vector(tools, Photo(pixels=framed, name="b"))) < 0.3


def test_different_portraits_are_different_people(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    vectors = [vector(tools, photo) for photo in portraits]
    for index, first in enumerate(vectors):
        for second in vectors[index + 1 :]:
            assert distance(first, second) > tools.recognizer.same_person_below


def test_real_people_are_told_apart(tools: FaceTools, shared_people: Path) -> None:
    """On 32 news photos: nearly all pairs of one person lie below the threshold, all pairs of two people above."""
    vectors, names = [], []
    for path in sorted(shared_people.glob("person_*/1[2-9].jpg")):
        vectors.append(vector(tools, load_photo(path)))
        names.append(path.parent.name)
    points, who = np.stack(vectors), np.array(names)
    away = np.linalg.norm(points[:, None] - points[None], axis=2)
    pairs = np.triu(np.ones_like(away, bool), 1)
    same = (who[:, None] == who[None]) & pairs
    other = (who[:, None] != who[None]) & pairs
    assert (away[same] < 0.6).mean() >= 0.97
    assert (away[other] > 0.6).all()
    assert away[other].mean() - away[same].mean() > 0.4


def test_chip_is_upright_and_centred(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    photo = portraits[0]
    turned = Photo(pixels=np.ascontiguousarray(photo.pixels[::-1, ::-1]), name="upside down")
    face = tools.faces(photo)[0]
    chip = face_chip(photo, face)
    assert chip.shape == (150, 150, 3)
    flipped = type(face)(
        box=face.box, score=1.0, landmarks=np.array([photo.width, photo.height]) - face.landmarks,
        mesh=(np.array([photo.width, photo.height]) - face.mesh).astype(np.float32),
    )  # fmt: skip
    assert np.abs(face_chip(turned, flipped).astype(int) - chip).mean() < 1.5


def test_a_face_without_mesh_is_aligned_by_its_landmarks(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    for photo in portraits[:3]:
        face = tools.faces(photo)[0]
        plain = type(face)(box=face.box, score=1.0, landmarks=face.landmarks)
        assert distance(tools.recognizer.embed(photo, plain), vector(tools, photo)) < 0.3


def test_median_of_vectors_ignores_a_stranger() -> None:
    random = np.random.default_rng(0)
    own = random.normal(0, 0.1, (9, 128))
    middle = median_embedding(np.concatenate([own, own[:1] + 5.0]).astype(np.float32))
    assert distance(middle, own.mean(0).astype(np.float32)) < 0.2
    assert np.allclose(median_embedding(own[:1].astype(np.float32)), own[0], atol=1e-6)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "_model_path", lambda: None)
    assert not embed.is_installed()
    with pytest.raises(embed.ToolMissing, match="pip install dlib-bin"):
        embed.DlibRecognizer()
