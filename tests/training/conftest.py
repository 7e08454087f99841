"""What the tests of this room share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.models import Models, load_models
from easyphoto.families import Family
from easyphoto.records import Box, Face, Photo, PhotoScores, PreparedPhoto, PreparedSet, Reason, Verdict
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, TrainSpec, ValidateSpec
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
from tests.tiny import make_tiny_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model with random weights."""
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def models(tiny_base: Path) -> Models:
    return load_models(tiny_base, "cpu")


@pytest.fixture
def spec(tiny_base: Path) -> TrainSpec:
    """Six steps on 64 px crops, a checkpoint every two, nothing rendered."""
    return TrainSpec(
        person="Anna",
        base_model=tiny_base,
        family=Family.EMBEDDED,
        lora=LoraSpec(rank=2, alpha=1.0),
        optim=OptimSpec(learning_rate=1e-2, text_learning_rate=1e-2, steps_per_photo=2, max_steps=6, batch_size=2),
        data=DataSpec(size=64, crops=1),
        validate=ValidateSpec(every=0),
        device="cpu",
    )


@pytest.fixture
def store(tmp_path: Path) -> PeopleStore:
    return PeopleStore(Home(tmp_path / "home").make())


def prepared_photo(number: int, side: int = 96) -> PreparedPhoto:
    """Coloured noise with a "face" in the middle third; nobody looks for a real one here."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((side // 8, side // 8, 1), np.uint8))
    photo = Photo(pixels=pixels, name=f"{number}.jpg")
    box = Box(left=side / 3, top=side / 3, right=side * 2 / 3, bottom=side * 2 / 3)
    face = Face(
        box=box, score=0.9, landmarks=rng.random((5, 2), np.float32), mesh=rng.random((478, 2), np.float32),
        embedding=rng.random(128, np.float32),
    )  # fmt: skip
    return PreparedPhoto(name=photo.name, original=photo, crop=photo, face=face, scores=PhotoScores(faces=1, identity=0.5))


@pytest.fixture
def prepared() -> PreparedSet:
    photos = tuple(prepared_photo(number) for number in range(3))
    verdicts = tuple(Verdict(photo=photo.name, accepted=True, reason=Reason.GOOD, sentence="Taken.") for photo in photos)
    verdicts = (replace(verdicts[0], is_reference=True), *verdicts[1:])
    return PreparedSet(photos=photos, verdicts=verdicts, reference=0, embedding=np.ones(128, np.float32), warnings=("few",))
