"""Judging on real faces; the base model is tiny and draws noise, so what is scored is chosen by the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.models import Models
from easyphoto.errors import Cancelled
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES
from easyphoto.imaging.io import load_photo
from easyphoto.records import InpaintJob, Pixels
from easyphoto.specs import LoraSpec, TrainSpec, ValidateSpec
from easyphoto.training import validation
from easyphoto.training.gallery import largest_face
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.validation import Judge, JudgeHooks, make_judge

QUIET = JudgeHooks(before_step=lambda: None, after_picture=lambda _path, _score, _seconds: None)


class Mirror:
    """An engine that gives every picture back untouched."""

    def __init__(self, _models: Models) -> None:
        pass

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inpaint(self, job: InpaintJob, on_step) -> Pixels:
        on_step(1, 1)
        return job.image


@pytest.fixture(scope="session")
def gallery(templates: Path, request: pytest.FixtureRequest) -> tuple[Path, ...]:
    folder = templates if templates.is_dir() else request.getfixturevalue("shared_portraits")
    found = sorted(path for path in folder.iterdir() if path.suffix in {".jpg", ".png"})
    return tuple(found[:: max(1, len(found) // 4)][:4])


@pytest.fixture
def judged(spec: TrainSpec) -> TrainSpec:
    return replace(spec, validate=ValidateSpec(every=2, templates=2, steps=2))


def embedding_of(tools: FaceTools, path: Path) -> np.ndarray:
    photo = load_photo(path)
    face = largest_face(tools, photo)
    assert face is not None
    return np.asarray(tools.with_embedding(photo, face).embedding)


def judge_for(models: Models, tools: FaceTools, judged: TrainSpec, gallery: tuple[Path, ...], who: int = 1) -> Judge:
    made = make_judge(models, tools, embedding_of(tools, gallery[who]), judged, gallery)
    assert made is not None
    return made


def test_the_nearest_templates_are_taken_and_looked_at_once(
    models: Models, tools: FaceTools, judged: TrainSpec, gallery: tuple[Path, ...]
) -> None:
    for who in range(len(gallery)):
        judge = judge_for(models, tools, judged, gallery, who)
        assert judge.templates == 2
        assert judge._trials[0].name == gallery[who].stem, "a face is nearest to itself"
    looked = tools.detections
    judge_for(models, tools, judged, gallery)
    assert tools.detections == looked


def test_a_job_is_the_first_pass_of_inference_without_the_persons_photo(
    models: Models, tools: FaceTools, judged: TrainSpec, gallery: tuple[Path, ...]
) -> None:
    first, second = (trial.job for trial in judge_for(models, tools, judged, gallery)._trials)
    own = PROFILES[models.family].first
    assert own is not None
    assert tuple((condition.kind.value, condition.weight) for condition in first.conditions) == own.weights
    assert (first.strength, first.steps, first.prompt, first.loras) == (0.65, 2, judged.data.caption, ())
    assert first.image.shape == (256, 256, 3)
    assert 0.05 < first.mask.mean() < 0.6
    assert (first.seed, second.seed) == (judged.seed, judged.seed + 1)


def test_the_score_is_one_minus_the_distance(
    models: Models,
    tools: FaceTools,
    judged: TrainSpec,
    gallery: tuple[Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture given back untouched scores near 1 for the person it shows, and low for somebody else."""
    monkeypatch.setattr(validation, "StandaloneEngine", Mirror)
    told: list[tuple[Path, float]] = []
    hooks = JudgeHooks(before_step=lambda: None, after_picture=lambda path, score, _seconds: told.append((path, score)))
    score = judge_for(models, tools, judged, gallery).judge(tmp_path, 4, False, hooks)
    assert score.picture_scores[0] > 0.75
    assert score.picture_scores[1] < score.picture_scores[0] - 0.2
    assert score.score == pytest.approx(np.mean(score.picture_scores), abs=1e-6)
    assert told == list(zip(score.pictures, score.picture_scores))
    assert score.pictures[0].name == f"step-000004-{gallery[1].stem}.png"
    shown = load_photo(score.pictures[0])
    face = largest_face(tools, shown)
    assert face is not None
    distance = np.linalg.norm(tools.with_embedding(shown, face).embedding - embedding_of(tools, gallery[1]))
    assert score.picture_scores[0] == pytest.approx(1 - distance, abs=1e-5)


def test_a_picture_without_a_face_scores_nothing(
    models: Models,
    tools: FaceTools,
    judged: TrainSpec,
    gallery: tuple[Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Mirror, "inpaint", lambda _self, job, _on_step: np.zeros_like(job.image))
    monkeypatch.setattr(validation, "StandaloneEngine", Mirror)
    assert judge_for(models, tools, judged, gallery).judge(tmp_path, 1, False, QUIET).picture_scores == (0.0, 0.0)


def test_the_lora_under_training_is_what_is_rendered(
    models: Models, tools: FaceTools, judged: TrainSpec, gallery: tuple[Path, ...], tmp_path: Path
) -> None:
    import torch

    judge = judge_for(models, tools, judged, gallery)
    job = judge._trials[0].job

    def rendered(label: str) -> Pixels:
        (tmp_path / label).mkdir()
        return load_photo(judge.judge(tmp_path / label, 1, label == "merged", QUIET).pictures[0]).pixels

    network = LoraNetwork(models, LoraSpec(rank=2, alpha=2.0))
    plain = rendered("plain")
    network.attach()
    with torch.no_grad():
        for layer in network.layers:
            layer.up.fill_(0.05)
    try:
        with network.fused():
            changed, again = rendered("changed"), rendered("again")
    finally:
        network.detach()
    np.testing.assert_array_equal(changed, again)
    np.testing.assert_array_equal(plain, rendered("after"))
    assert (changed != plain)[job.mask > 0.5].mean() > 0.5
    np.testing.assert_array_equal(changed[job.mask == 0], job.image[job.mask == 0])


def test_what_cannot_be_a_template_is_left_out(
    models: Models, tools: FaceTools, judged: TrainSpec, gallery: tuple[Path, ...], tmp_path: Path
) -> None:
    from easyphoto.imaging.io import save_png

    save_png(tmp_path / "blank.png", np.full((256, 256, 3), 127, np.uint8))
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    bad = (tmp_path / "blank.png", tmp_path / "text.jpg", tmp_path / "gone.png")
    person = embedding_of(tools, gallery[0])
    assert make_judge(models, tools, person, judged, bad) is None
    assert make_judge(models, tools, person, judged, ()) is None
    mixed = make_judge(models, tools, person, judged, (*bad, gallery[0]))
    assert mixed is not None
    assert mixed.templates == 1


def test_judging_can_be_stopped_within_a_step(
    models: Models, tools: FaceTools, judged: TrainSpec, gallery: tuple[Path, ...], tmp_path: Path
) -> None:
    def stop() -> None:
        raise Cancelled("stop")

    hooks = JudgeHooks(before_step=stop, after_picture=lambda _path, _score, _seconds: None)
    with pytest.raises(Cancelled):
        judge_for(models, tools, judged, gallery).judge(tmp_path, 1, False, hooks)
    assert list(tmp_path.iterdir()) == []
