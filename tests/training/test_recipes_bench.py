"""The comparison of recipes: its pictures are the product's own, and its table counts steps as it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recipe_list import OLD, RECIPES
from benchmarks.recipe_runs import render_all
from benchmarks.recipe_scores import steps_to
from easyphoto.engine.models import Models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.records import Condition, ConditionKind, InpaintJob


def made_job(number: int) -> InpaintJob:
    rng = np.random.default_rng(number)
    pictures = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 8 + number * 8 : 40] = 1.0
    canny = Condition(kind=ConditionKind.CANNY, image=pictures[1], weight=0.5)
    return InpaintJob(
        image=pictures[0], mask=mask, prompt="a face", guidance=1.0, steps=6, strength=0.65, seed=number, conditions=(canny,)
    )


def test_pictures_rendered_together_are_the_engines(models: Models) -> None:
    jobs = [made_job(number) for number in range(3)]
    with StandaloneEngine(models) as engine:
        alone = [engine.inpaint(job) for job in jobs]
    for job, one, together in zip(jobs, alone, render_all(models, jobs)):
        assert int(np.abs(one.astype(int) - together.astype(int)).max()) <= 1
        assert not np.array_equal(together, job.image)
        np.testing.assert_array_equal(together[job.mask == 0], job.image[job.mask == 0])


def test_steps_are_counted_in_a_straight_line_between_two_checkpoints() -> None:
    curve = {40: 0.30, 80: 0.40, 200: 0.40}
    assert steps_to(curve, 0.35) == pytest.approx(60)
    assert steps_to(curve, 0.40) == pytest.approx(80)
    assert steps_to(curve, 0.25) == 40
    assert steps_to(curve, 0.45) is None


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_training_of_its_own_length(name: str) -> None:
    spec = RECIPES[name].spec(Path("base"), 200)
    assert spec.optim.steps_for(3) == (RECIPES[name].steps or 200)
    if name == "today":
        assert replace(spec.optim, steps_per_photo=16) == OLD
