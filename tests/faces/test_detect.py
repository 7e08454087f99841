"""Faces are found where they are: small ones, several, half ones, and none where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from easyphoto.errors import ToolMissing
from easyphoto.faces.detect import MediaPipeDetector
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import geometry, mesh
from easyphoto.imaging.head import head_turn
from easyphoto.imaging.io import load_photo
from easyphoto.records import Face, Photo


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(pixels=np.ascontiguousarray(pixels), name="made")


def the_face(tools: FaceTools, photo: Photo) -> Face:
    faces = tools.faces(photo)
    assert len(faces) == 1
    return faces[0]


def test_each_portrait_shows_one_face_with_everything(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    for photo in portraits:
        face = the_face(tools, photo)
        assert face.mesh is not None
        assert face.depth is not None
        assert 0.5 <= face.score <= 1
        right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
        assert right_eye[0] < nose[0] < left_eye[0]
        assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
        assert right_mouth[0] < left_mouth[0]
        assert face.box == geometry.box_of(face.mesh[list(mesh.OVAL)])


def test_nothing_is_found_where_nothing_is(tools: FaceTools) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    assert tools.faces(photo_of(noise)) == ()
    assert tools.faces(photo_of(np.full((240, 240, 3), 128, np.uint8))) == ()
    assert tools.faces(photo_of(np.zeros((1, 1, 3), np.uint8))) == ()


def test_the_mesh_moves_with_the_picture(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    """Detecting in a turned and shrunken picture gives the turned and shrunken mesh."""
    photo = portraits[0]
    face = the_face(tools, photo)
    angle = np.radians(12)
    turn = 0.6 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turn, [0.3 * photo.width, 0.05 * photo.height]])
    # White around it: mirrored edges would show a second, mirrored face.
    turned = photo_of(geometry.warp(photo.pixels, matrix, (photo.width, photo.height), geometry.WHITE))
    found, wanted = the_face(tools, turned), geometry.move_face(face, matrix)
    assert found.mesh is not None
    assert wanted.mesh is not None
    away = np.linalg.norm(found.mesh - wanted.mesh, axis=1)
    assert np.median(away) < 0.02 * wanted.box.width


@pytest.mark.parametrize("width", [24, 40, 80])
def test_small_faces_in_a_large_picture(tools: FaceTools, portraits: tuple[Photo, ...], width: int) -> None:
    canvas = np.full((900, 1400, 3), 200, np.uint8)
    places = [(100, 80), (600, 500), (1100, 120)]
    for photo, (left, top) in zip(portraits[:3], places):
        scale = width / the_face(tools, photo).box.width
        small = cv2.resize(photo.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    faces = tools.faces(photo_of(canvas))
    assert len(faces) == 3
    assert [face.box.center[0] for face in faces] == sorted(face.box.center[0] for face in faces)
    for face in faces:
        assert face.mesh is not None
        assert face.box.width == pytest.approx(width, rel=0.2)


def test_a_face_half_out_of_the_picture(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    photo = portraits[1]
    face = the_face(tools, photo)
    left = round(face.box.left + 0.3 * face.box.width)
    cut = photo_of(photo.pixels[:, left:])
    found = the_face(tools, cut)
    assert abs(found.landmarks[1, 0] + left - face.landmarks[1, 0]) < 0.15 * face.box.width


def test_a_face_that_fills_the_picture(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    photo = portraits[2]
    box = the_face(tools, photo).box
    close = photo.pixels[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]
    assert the_face(tools, photo_of(close)).mesh is not None


def test_pictures_of_any_shape(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    pixels = portraits[3].pixels
    wide = np.concatenate([pixels, np.zeros((pixels.shape[0], 5 * pixels.shape[1], 3), np.uint8)], axis=1)
    assert len(tools.faces(photo_of(wide))) == 1


def test_people_of_news_photos_are_found_in_every_one(tools: FaceTools, shared_people: Path) -> None:
    for path in sorted(shared_people.glob("person_*/*[05].jpg")):
        photo = load_photo(path)
        middle = min(tools.faces(photo), key=lambda face: abs(face.box.center[0] - photo.width / 2))
        assert middle.mesh is not None, path
        assert np.hypot(middle.box.center[0] - 125, middle.box.center[1] - 125) < 30, path


def test_a_turned_head_is_measured_as_turned(tools: FaceTools, shared_people: Path) -> None:
    photo = load_photo(shared_people / "person_c" / "11.jpg")  # looks to her right, almost in profile
    turn = head_turn(the_face(tools, photo))
    assert turn is not None
    assert turn.yaw < -30


def test_the_body_belongs_to_the_face(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    left, right = (cv2.resize(photo.pixels, (512, 512)) for photo in portraits[3:5])
    both = photo_of(np.concatenate([left, right], axis=1))
    faces = tools.faces(both)
    assert len(faces) == 2
    for face in faces:
        body = tools.body(both, face).body
        assert body is not None
        assert body.shape == (33, 3)
        assert face.box.left < body[0, 0] < face.box.right
        assert face.box.top < body[0, 1] < face.box.bottom
        shoulders = body[[11, 12], :2]
        assert (shoulders[:, 1] > face.box.center[1]).all()
    assert tools.body(both, tools.body(both, faces[0])).body is not None


def test_a_protobuf_too_old_for_mediapipe_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with protobuf 3.20, which lacks the function that newer MediaPipes read their answers by."""
    reader = pytest.importorskip("mediapipe.python.packet_getter")
    if not hasattr(reader, "message_factory"):
        pytest.skip("this MediaPipe works with protobuf 3")
    monkeypatch.delattr(reader.message_factory, "GetMessageClass", raising=False)
    with pytest.raises(ToolMissing, match=r"mediapipe==0\.10\.9"):
        MediaPipeDetector()


def test_the_libraries_are_silent(portraits: tuple[Photo, ...], tmp_path: Path) -> None:
    """No banner of TensorFlow Lite or absl reaches the terminal."""
    path = tmp_path / "a.npy"
    np.save(path, portraits[0].pixels)
    code = (
        "import sys, numpy as np\n"
        "from easyphoto.faces.tools import FaceTools\n"
        "from easyphoto.records import Photo\n"
        "tools = FaceTools()\n"
        "photo = Photo(pixels=np.load(sys.argv[1]), name='a')\n"
        "face = tools.with_embedding(photo, tools.body(photo, tools.faces(photo)[0]))\n"
        "tools.segmenter.person_mask(photo)\n"
        "tools.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
