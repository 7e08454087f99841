"""Tone transfer and the seam measure do what their numbers say."""

from __future__ import annotations

import numpy as np
import pytest

from easyphoto.imaging import color

RANDOM = np.random.default_rng(0)


def textured(base: tuple[int, int, int], spread: float = 12.0) -> np.ndarray:
    grain = RANDOM.normal(0, spread, (64, 64, 1))
    return np.clip(np.array(base) + grain, 0, 255).astype(np.uint8)


def test_lab_round_trip_is_exact_to_one_level() -> None:
    pixels = RANDOM.integers(0, 255, (40, 40, 3), np.uint8)
    assert np.abs(color.from_lab(color.to_lab(pixels)).astype(int) - pixels).max() <= 1


def test_lab_of_known_colours() -> None:
    white, red = color.to_lab(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8))[0]
    assert np.allclose(white, [100, 0, 0], atol=0.1)
    assert np.allclose(red, [53.2, 80.1, 67.2], atol=0.3)


def test_reinhard_takes_mean_and_spread_over() -> None:
    source, reference = textured((90, 60, 50), 8), textured((190, 150, 130), 12)
    mask = np.ones((64, 64), np.float32)
    moved = color.reinhard(source, reference, mask)
    got, wanted = (color.lab_statistics(color.to_lab(each), mask) for each in (moved, reference))
    assert np.allclose(got[0], wanted[0], atol=0.6)
    assert got[1][0] == pytest.approx(wanted[1][0], rel=0.1)


def test_reinhard_onto_itself_changes_nothing_and_nothing_outside_the_mask() -> None:
    source, reference = textured((90, 60, 50)), textured((190, 150, 130))
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 16:48] = 1
    assert np.abs(color.reinhard(source, source, mask).astype(int) - source).max() <= 1
    moved = color.reinhard(source, reference, mask)
    assert (moved[mask == 0] == source[mask == 0]).all()
    assert (color.reinhard(source, reference, np.zeros_like(mask)) == source).all()


def test_reinhard_does_not_blow_up_a_flat_picture() -> None:
    flat = np.full((64, 64, 3), 120, np.uint8)
    moved = color.reinhard(flat, textured((120, 120, 120), 40), np.ones((64, 64), np.float32))
    assert np.ptp(moved) <= 2


def square_mask() -> np.ndarray:
    mask = np.zeros((100, 100), np.float32)
    mask[30:70, 30:70] = 1
    return mask


def test_seam_of_an_unchanged_picture_is_zero() -> None:
    picture = RANDOM.integers(0, 255, (100, 100, 3), np.uint8)
    assert color.seam(picture, picture, 40) == 0


def test_seam_is_the_colour_step_in_delta_e() -> None:
    template = np.full((100, 100, 3), 128, np.uint8)
    picture = template.copy()
    picture[30:70, 30:70] = 160
    step = float(np.linalg.norm(color.to_lab(picture)[50, 50] - color.to_lab(template)[50, 50]))
    # Each sample is averaged over a little disc, and the edge of what is seen lies a little outside the square.
    assert color.seam(picture, template, 60) == pytest.approx(step, rel=0.2)


def test_seam_grows_with_the_step_and_falls_with_feathering() -> None:
    template = np.full((100, 100, 3), 128, np.uint8)
    mask = square_mask()
    soft = color.cv2.GaussianBlur(mask, (0, 0), 8)

    def pasted(alpha: np.ndarray, level: int) -> np.ndarray:
        return np.rint(template + alpha[..., None] * (level - 128)).astype(np.uint8)

    steps = [color.seam(pasted(mask, level), template, 50) for level in (128, 140, 160, 200)]
    assert steps == sorted(steps)
    assert color.seam(pasted(soft, 200), template, 50) < 0.5 * steps[-1]


def test_an_edge_that_was_there_before_is_no_seam() -> None:
    template = np.full((100, 100, 3), 60, np.uint8)
    template[30:70, 30:70] = 180
    picture = template.copy()
    picture[30:70, 30:70] = 160  # less of a step than before
    assert color.seam(picture, template, 40) < 0.2


def test_a_seam_is_found_wherever_it_is() -> None:
    template = np.full((100, 100, 3), 128, np.uint8)
    for side in (10, 20, 30):
        picture = template.copy()
        picture[50 - side : 50 + side, 50 - side : 50 + side] = 160
        assert color.seam(picture, template, 60) > 8


def test_an_edge_that_vanished_does_not_make_up_for_a_new_one() -> None:
    template = np.full((100, 100, 3), 128, np.uint8)
    template[30:70, 30:50] = 60
    picture = np.full((100, 100, 3), 128, np.uint8)
    picture[30:70, 50:70] = 190
    assert color.seam(picture, template, 60) > 5


def test_what_is_known_in_one_place_is_spread_to_all() -> None:
    weight = np.zeros((40, 60), np.float32)
    weight[10:14, 10:14] = 1
    values = np.full((40, 60, 3), (3.0, -2.0, 5.0), np.float32)
    spread = color.spread(values * weight[..., None], weight, 6)
    assert spread.shape == (40, 60, 3)
    np.testing.assert_allclose(spread, values, rtol=1e-3)
