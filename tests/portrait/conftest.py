"""Templates and people for the portrait's tests: the gallery that ships, or development data beside the project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.fake import FakeEngine
from easyphoto.faces.tools import FaceTools
from easyphoto.families import Family
from easyphoto.imaging.io import load_photo, save_png
from easyphoto.records import Face, Photo
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import Person
from tests.conftest import SHARED_DATA


def _pictures() -> list[Path]:
    """Portraits of four different people, one face each."""
    gallery = sorted((PROJECT_ROOT / "templates").glob("*.jpg")) + sorted((PROJECT_ROOT / "templates").glob("*.png"))
    if len(gallery) >= 4:
        return gallery[:4]
    beside = [SHARED_DATA / "portraits_cc0" / f"{name}.jpg" for name in ("f11", "m11", "f24", "m24")]
    return beside if all(path.is_file() for path in beside) else []


@pytest.fixture(scope="session")
def portraits() -> tuple[Photo, ...]:
    """Four portraits, 512 px wide, of different people."""
    paths = _pictures()
    if not paths:
        pytest.skip("no portraits are here: neither templates/ nor development data")
    import cv2

    photos = []
    for path in paths:
        pixels = load_photo(path).pixels
        height = round(pixels.shape[0] * 512 / pixels.shape[1])
        photos.append(Photo(pixels=cv2.resize(pixels, (512, height), interpolation=cv2.INTER_AREA), name=path.name))
    return tuple(photos)


@pytest.fixture(scope="session")
def template(portraits: tuple[Photo, ...]) -> Photo:
    return portraits[0]


@pytest.fixture(scope="session")
def pair(portraits: tuple[Photo, ...]) -> Photo:
    """Two portraits side by side: a template with two faces."""
    height = min(portraits[0].height, portraits[1].height)
    return Photo(pixels=np.hstack([photo.pixels[:height] for photo in portraits[:2]]), name="pair.png")


@pytest.fixture(scope="session")
def person(portraits: tuple[Photo, ...], tools: FaceTools, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return make_person("Ada", portraits[2], tools, tmp_path_factory.mktemp("ada"))


@pytest.fixture(scope="session")
def other_person(portraits: tuple[Photo, ...], tools: FaceTools, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return make_person("Ben", portraits[3], tools, tmp_path_factory.mktemp("ben"))


def make_person(name: str, photo: Photo, tools: FaceTools, folder: Path) -> Person:
    """A published person whose reference is `photo`; the LoRA is only bytes, which the fake engine is content with."""
    save_png(folder / "reference.png", photo.pixels)
    (folder / f"{name}.safetensors").write_bytes(name.encode())
    face = tools.with_embedding(photo, tools.faces(photo)[0])
    assert face.embedding is not None
    return Person(
        name=name, person_id=name.lower(), folder=folder, family=Family.EMBEDDED, lora=folder / f"{name}.safetensors",
        reference=folder / "reference.png", face_id_picture=folder / "reference.png",
        embedding=tuple(map(float, face.embedding)), created="2026-01-01T00:00:00Z",
    )  # fmt: skip


@dataclass
class StubTools:
    """Face tools that say what they are told to see; for tests of decisions, not of pixels."""

    seen: tuple[Face, ...]

    def faces(self, _photo: Photo) -> tuple[Face, ...]:
        return self.seen

    def body(self, _photo: Photo, face: Face) -> Face:
        return face


@pytest.fixture()
def stub_tools() -> Callable[..., StubTools]:
    return lambda *faces: StubTools(seen=faces)


@pytest.fixture()
def engine() -> FakeEngine:
    return FakeEngine()
