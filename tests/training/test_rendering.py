"""Templates rendered at once are those that the plain engine renders one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.denoise import predict_noise
from easyphoto.engine.models import Models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.records import Condition, ConditionKind, InpaintJob
from easyphoto.training import rendering


class OnCpu:
    """In place of the captured graph, which needs a GPU: predicts from the same maps, words and latents."""

    def __init__(self, _models, guide, _latents, place) -> None:
        self.place, self._controls = place, guide.controls

    def __call__(self, models, guide, latents, timestep):
        return predict_noise(models, replace(guide, controls=self._controls), latents, timestep)


def job_of(number: int, kinds: tuple[ConditionKind, ...], guidance: float) -> InpaintJob:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[8 : 40 + 8 * number, 16:48] = 1
    conditions = tuple(Condition(kind=kind, image=np.roll(image, number, 0), weight=0.8) for kind in kinds)
    return InpaintJob(
        image=image, mask=mask, prompt="a person", negative="blurry", strength=0.6, steps=6, guidance=guidance,
        conditions=conditions, seed=number,
    )  # fmt: skip


@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_all_at_once_is_one_after_the_other(models: Models, guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_Graph", OnCpu)
    kinds = tuple(sorted(models.conditions, key=lambda kind: kind.value))[:2]
    assert kinds, "the tiny model has ControlNets"
    jobs = [job_of(number, kinds, guidance) for number in range(3)]
    with StandaloneEngine(models) as engine:
        wanted = [engine.inpaint(job).astype(int) for job in jobs]
    renderer = rendering.Renderer(models, jobs)
    for _ in range(2):
        found = renderer.render("here")
        for own, other, job in zip(found, wanted, jobs):
            assert np.abs(own - other).max() <= 1
            assert np.array_equal(own[job.mask == 0], job.image[job.mask == 0])


def test_a_graph_of_another_place_is_thrown_away(models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = []

    class Counted(OnCpu):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            made.append(given[-1])

    monkeypatch.setattr(rendering, "_Graph", Counted)
    renderer = rendering.Renderer(models, [job_of(0, (), 1.0)])
    for place in ("a", "a", "b"):
        renderer.render(place)
    assert made == ["a", "b"]
