"""The bundle: found by name, made when used, nothing looked at twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from easyphoto.errors import SpecError, ToolMissing
from easyphoto.faces import tools as bundle
from easyphoto.faces.tools import Backend, FaceTools, Role, ToolNames, available, register
from easyphoto.records import Face, Floats, Photo
from tests.made_faces import made_face


class CountingDetector:
    """Finds one made face in every picture."""

    name = "counting"

    def __init__(self) -> None:
        self.closed = False

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        return (made_face(photo.width / 2, photo.height / 2, 20, 30),)

    def close(self) -> None:
        self.closed = True


class CountingRecognizer:
    """Counts how often it is asked."""

    name = "counting"
    same_person_below = 0.6
    asked = 0

    def embed(self, photo: Photo, face: Face) -> Floats:
        CountingRecognizer.asked += 1
        return np.full(128, photo.width, np.float32)


@pytest.fixture
def own() -> Iterator[FaceTools]:
    register(Role.DETECTOR, Backend(name="counting", make=CountingDetector))
    register(Role.RECOGNIZER, Backend(name="counting", make=CountingRecognizer))
    CountingRecognizer.asked = 0
    yield FaceTools(ToolNames(detector="counting", recognizer="counting"))
    for role in (Role.DETECTOR, Role.RECOGNIZER):
        del bundle._BACKENDS[role]["counting"]


def picture(value: int, width: int = 60) -> Photo:
    return Photo(pixels=np.full((80, width, 3), value, np.uint8), name=f"{value}")


def test_a_picture_is_looked_at_once_whatever_it_is_called(own: FaceTools) -> None:
    first = own.faces(picture(1))
    assert own.faces(Photo(pixels=picture(1).pixels.copy(), name="another name")) == first
    assert own.detections == 1
    own.faces(picture(2))
    assert own.detections == 2


def test_an_embedding_is_computed_once_also_for_an_enriched_face(own: FaceTools) -> None:
    photo = picture(1)
    face = own.with_embedding(photo, own.faces(photo)[0])
    assert own.with_embedding(photo, face) is face
    own.with_embedding(photo, own.faces(photo)[0])
    assert CountingRecognizer.asked == 1


def test_what_is_told_is_not_looked_for(own: FaceTools) -> None:
    told = (made_face(), made_face(150, 100))
    own.remember(picture(9), told)
    assert own.faces(picture(9)) == told
    assert own.detections == 0


def test_memory_is_bounded(own: FaceTools) -> None:
    for width in range(1, bundle._REMEMBERED + 20):
        own.faces(picture(0, width))
    own.faces(picture(0, bundle._REMEMBERED + 19))
    seen = own.detections
    own.faces(picture(0, 1))
    assert own.detections == seen + 1


def test_threads_share_one_look(own: FaceTools) -> None:
    threads = [threading.Thread(target=own.faces, args=(picture(3),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert own.detections == 1


def test_close_frees_and_the_bundle_works_again(own: FaceTools) -> None:
    detector = own.detector
    own.close()
    assert isinstance(detector, CountingDetector)
    assert detector.closed
    assert len(own.faces(picture(1))) == 1


def test_unknown_and_missing_backends_are_told() -> None:
    with pytest.raises(ToolMissing, match="there is no recognizer named 'nobody'; there are: dlib"):
        _ = FaceTools(ToolNames(recognizer="nobody")).recognizer
    register(Role.FUSER, Backend(name="absent", make=object, is_installed=lambda: False, how_to_install="pip install absent"))
    try:
        with pytest.raises(ToolMissing, match="pip install absent"):
            _ = FaceTools(ToolNames(fuser="absent")).fuser
    finally:
        del bundle._BACKENDS[Role.FUSER]["absent"]


def test_a_name_is_taken_once() -> None:
    with pytest.raises(SpecError, match="already"):
        register(Role.DETECTOR, Backend(name="mediapipe", make=object))


def test_every_default_is_known() -> None:
    known = {role: {backend.name for backend in backends} for role, backends in available().items()}
    names = ToolNames()
    for role in Role:
        assert getattr(names, role.value) in known[role]


def test_the_bundle_imports_nothing_heavy() -> None:
    code = (
        "import sys, easyphoto.faces.tools as tools\n"
        "tools.FaceTools()\n"
        "[backend.is_installed() for backends in tools.available().values() for backend in backends]\n"
        "print([name for name in ('mediapipe', 'dlib', '_dlib_pybind11', 'torch', 'ncnn') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
