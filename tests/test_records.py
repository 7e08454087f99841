"""Records refuse what cannot be meant, at once and in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from easyphoto import errors
from easyphoto.errors import EasyPhotoError, InputError, PhotoError, SpecError
from easyphoto.families import PROFILES, Family
from easyphoto.records import Box, Condition, ConditionKind, InpaintJob, LoraUse, Photo
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, PassRequest, PortraitRequest, TrainSpec

PICTURE = np.zeros((64, 64, 3), np.uint8)
MASK = np.ones((64, 64), np.float32)


def test_equal_pixels_have_equal_digests_and_shape_counts() -> None:
    assert Photo(pixels=PICTURE, name="a").digest == Photo(pixels=PICTURE.copy(), name="b").digest
    assert Photo(pixels=PICTURE[:32], name="a").digest != Photo(pixels=PICTURE[:, :32], name="a").digest


@pytest.mark.parametrize("pixels", [PICTURE[..., 0], PICTURE.astype(np.float32), PICTURE[:0]])
def test_a_photo_is_rgb_bytes(pixels: np.ndarray) -> None:
    with pytest.raises(PhotoError, match="uint8 HxWx3"):
        Photo(pixels=pixels, name="odd")


def test_a_box_has_an_inside() -> None:
    with pytest.raises(InputError):
        Box(left=3, top=0, right=3, bottom=5)


@pytest.mark.parametrize(
    "change",
    [
        {"image": PICTURE[:60], "mask": MASK[:60]},
        {"mask": MASK[:32]},
        {"strength": 0.0},
        {"strength": 1.5},
        {"steps": 0},
        {"conditions": (Condition(kind=ConditionKind.TILE, image=PICTURE[:32]),)},
    ],
)
def test_a_job_that_cannot_run_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        InpaintJob(**{"image": PICTURE, "mask": MASK, "prompt": "", **change})  # type: ignore[arg-type]


def test_settings_out_of_range_name_themselves() -> None:
    with pytest.raises(SpecError, match=r"alpha must be within 0\.01-4, got 8"):
        LoraSpec(rank=4, alpha=8)
    with pytest.raises(SpecError, match="size must be a multiple of 32"):
        DataSpec(size=100)
    with pytest.raises(SpecError, match="weight"):
        LoraUse(path=Path("x"), weight=3)
    with pytest.raises(SpecError, match=r"strength must be within 0\.01-1\.0, got 0"):
        PassRequest(strength=0.0)
    with pytest.raises(SpecError, match="steps must be within 1-1000, got 0"):
        PassRequest(steps=0)
    with pytest.raises(SpecError, match="at least one person"):
        PortraitRequest(template=Photo(pixels=PICTURE, name="t"), people=(None,))


@pytest.mark.parametrize(("photos", "steps"), [(1, 200), (4, 800), (20, 800)])
def test_steps_are_the_smaller_of_photos_times_share_and_the_most(photos: int, steps: int) -> None:
    assert OptimSpec(steps_per_photo=200, max_steps=800).steps_for(photos) == steps


@pytest.mark.parametrize("family", list(Family))
def test_every_family_has_a_profile_that_makes_a_valid_training(family: Family) -> None:
    spec = TrainSpec.for_family("a", Path("m"), family)
    row = PROFILES[family]
    assert spec.data.size == row.train_size
    assert row.first_size % 32 == row.second_size % 32 == 0
    assert row.second_size >= row.first_size


def test_every_error_has_a_code_of_its_own_and_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EasyPhotoError)]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert all(kind.exit_status > 0 and 400 <= kind.http_status < 600 for kind in kinds)
