"""What every engine promises (`easyphoto.engine.base`), as one class of tests; a subclass brings the fixtures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.base import Engine
from easyphoto.errors import Cancelled, EasyPhotoError, ToolMissing
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, InpaintJob, LoraUse, Pixels, TextJob


def picture(side: int, seed: int = 0) -> Pixels:
    """Smooth colours, so that an autoencoder can hold them."""
    coarse = np.random.default_rng(seed).uniform(40, 215, (4, 4, 3))
    grid = np.linspace(0, 3, side)
    low = np.clip(grid.astype(int), 0, 2)
    part = grid - low
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    both = rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    return both.astype(np.uint8)


def square_mask(side: int) -> np.ndarray:
    mask = np.zeros((side, side), np.float32)
    mask[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    return mask


class EngineContract:
    """Subclass with fixtures `engine` (an Engine with all four ControlNets) and `lora` (path of a LoRA that fits)."""

    side = 64
    tolerance = 0
    """Levels by which two pictures of one job may differ; what is promised is 1."""

    def same(self, one: Pixels, other: Pixels) -> bool:
        return bool(np.abs(one.astype(int) - other).max() <= self.tolerance)

    @pytest.fixture()
    def job(self) -> InpaintJob:
        maps = tuple(
            Condition(kind=kind, image=picture(self.side, seed), weight=0.5)
            for seed, kind in enumerate((ConditionKind.CANNY, ConditionKind.OPENPOSE, ConditionKind.COLOR))
        )
        return InpaintJob(
            image=picture(self.side), mask=square_mask(self.side), prompt="a woman", strength=0.5, steps=8, guidance=3.0,
            conditions=maps, seed=1,
        )

    def test_names_itself_its_family_and_its_controlnets(self, engine: Engine) -> None:
        assert engine.name
        assert isinstance(engine.family, Family)
        assert engine.conditions == frozenset(ConditionKind)

    def test_result_has_the_size_of_the_job(self, engine: Engine, job: InpaintJob) -> None:
        wide = replace(job, image=job.image[: self.side // 2], mask=job.mask[: self.side // 2], conditions=())
        painted = engine.inpaint(wide)
        assert painted.shape == wide.image.shape
        assert painted.dtype == np.uint8

    def test_paints_inside_the_mask_and_keeps_the_rest_bit_for_bit(self, engine: Engine, job: InpaintJob) -> None:
        painted = engine.inpaint(job)
        assert (painted[job.mask == 0] == job.image[job.mask == 0]).all()
        assert (painted[job.mask == 1] != job.image[job.mask == 1]).mean() > 0.5

    def test_an_empty_mask_gives_the_picture_back(self, engine: Engine, job: InpaintJob) -> None:
        assert (engine.inpaint(replace(job, mask=np.zeros_like(job.mask))) == job.image).all()

    def test_same_job_same_picture(self, engine: Engine, job: InpaintJob) -> None:
        first, second = engine.inpaint(job), engine.inpaint(job)
        assert np.abs(first.astype(int) - second).max() <= 1

    def test_another_seed_gives_another_picture(self, engine: Engine, job: InpaintJob) -> None:
        assert (engine.inpaint(job) != engine.inpaint(replace(job, seed=2))).any()

    @pytest.mark.parametrize("change", [{"prompt": "a man"}, {"guidance": 6.0}, {"strength": 1.0}, {"conditions": ()}])
    def test_each_setting_counts(self, engine: Engine, job: InpaintJob, change: dict) -> None:
        assert (engine.inpaint(job) != engine.inpaint(replace(job, **change))).any()

    def test_a_job_before_leaves_no_trace(self, engine: Engine, job: InpaintJob, lora: Path) -> None:
        alone = engine.inpaint(job)
        other = replace(job, seed=9, prompt="another", conditions=job.conditions[:1], loras=(LoraUse(path=lora, weight=1.0),))
        assert (engine.inpaint(other) != alone).any()
        assert self.same(engine.inpaint(job), alone)

    def test_a_lora_counts_by_its_weight(self, engine: Engine, job: InpaintJob, lora: Path) -> None:
        plain = engine.inpaint(job)
        full = engine.inpaint(replace(job, loras=(LoraUse(path=lora, weight=1.0),)))
        half = engine.inpaint(replace(job, loras=(LoraUse(path=lora, weight=0.5),)))
        none = engine.inpaint(replace(job, loras=(LoraUse(path=lora, weight=0.0),)))
        assert (full != plain).any()
        assert (half != full).any()
        assert self.same(none, plain)

    def test_a_missing_lora_is_refused_and_the_next_job_runs(self, engine: Engine, job: InpaintJob, tmp_path: Path) -> None:
        plain = engine.inpaint(job)
        with pytest.raises(EasyPhotoError, match="nobody"):
            engine.inpaint(replace(job, loras=(LoraUse(path=tmp_path / "nobody.safetensors"),)))
        assert self.same(engine.inpaint(job), plain)

    def test_steps_are_told_and_counted(self, engine: Engine, job: InpaintJob) -> None:
        told: list[tuple[int, int]] = []
        engine.inpaint(job, lambda done, total: told.append((done, total)))
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def test_a_short_schedule_runs_one_step_at_least(self, engine: Engine, job: InpaintJob) -> None:
        told: list[int] = []
        engine.inpaint(replace(job, steps=2, strength=0.1), lambda done, _total: told.append(done))
        assert told == [1]

    def test_cancelling_stops_at_once_and_leaves_no_trace(self, engine: Engine, job: InpaintJob) -> None:
        plain = engine.inpaint(job)
        told: list[int] = []

        def stop_at_two(done: int, _total: int) -> None:
            told.append(done)
            if done == 2:
                raise Cancelled("stopped")

        with pytest.raises(Cancelled):
            engine.inpaint(job, stop_at_two)
        assert told == [1, 2]
        assert self.same(engine.inpaint(job), plain)

    def test_a_picture_from_words(self, engine: Engine) -> None:
        job = TextJob(width=self.side, height=self.side + 32, prompt="a woman", steps=4, guidance=3.0)
        told: list[int] = []
        drawn = engine.text(job, lambda done, _total: told.append(done))
        assert drawn.shape == (self.side + 32, self.side, 3)
        assert drawn.dtype == np.uint8
        assert told == [1, 2, 3, 4]
        assert self.same(engine.text(job), drawn)
        assert (engine.text(replace(job, seed=5)) != drawn).any()


class MissingControlNet:
    """Subclass with a fixture `bare_engine`: an Engine without any ControlNet."""

    def test_a_missing_controlnet_is_named(self, bare_engine: Engine) -> None:
        image = picture(64)
        job = InpaintJob(
            image=image, mask=square_mask(64), prompt="a woman", steps=2, strength=1.0,
            conditions=(Condition(kind=ConditionKind.TILE, image=image),),
        )
        assert bare_engine.conditions == frozenset()
        with pytest.raises(ToolMissing, match="tile"):
            bare_engine.inpaint(job)
        assert bare_engine.inpaint(replace(job, conditions=())).shape == image.shape


__all__ = ["EngineContract", "MissingControlNet", "picture", "square_mask"]
