"""One job from folder to result, in this process, with a judge that makes up its scores."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.errors import Cancelled, InputError, JobFailed, SpecError
from easyphoto.families import Family
from easyphoto.records import PreparedSet
from easyphoto.specs import CheckpointScore, TrainSpec, ValidateSpec
from easyphoto.store.lora_file import read_lora
from easyphoto.store.lora_meta import spec_of
from easyphoto.training import run
from easyphoto.training.job import JobFolder, JobOrder, new_job
from easyphoto.training.prepared_files import write_prepared
from easyphoto.training.progress import Reporter, Stop
from easyphoto.training.trainer import Training


class MadeUpJudge:
    """Renders nothing; a checkpoint is worth what `worth` says for its step, the merge 0.9."""

    templates, kinds = 2, frozenset()

    def __init__(self, worth: dict[int, float]) -> None:
        self.worth = worth

    def fetch(self, _dtype) -> None:
        """Nothing to do beside the training on a CPU."""

    def steps_go(self, _training) -> None:
        """Nothing either."""

    def rest(self) -> None:
        """Nothing was begun."""

    def paint_together(self, _network, _hooks) -> None:
        """Not on a CPU."""

    def judge(self, folder: Path, step: int, merged: bool, hooks) -> CheckpointScore:
        hooks.before_step()
        value = 0.9 if merged else self.worth[step]
        pictures = tuple(folder / f"{'merged' if merged else step}-{number}.png" for number in range(2))
        for path in pictures:
            path.write_bytes(b"png")
            hooks.after_picture(path, value, 0.01)
        return CheckpointScore(step=step, score=value, pictures=pictures, picture_scores=(value, value), merged=merged)


@pytest.fixture
def job(tmp_path: Path, spec: TrainSpec, prepared: PreparedSet):
    """Makes job folders."""

    def make(spec: TrainSpec = spec) -> JobFolder:
        made = new_job(tmp_path / "jobs", spec, JobOrder(templates=(), created=time.time()))
        write_prepared(prepared, made.prepared)
        return made

    return make


@pytest.fixture
def judged(spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> TrainSpec:
    """A spec whose checkpoints after 2, 4 and 6 steps are judged."""
    worth = {2: 0.2, 4: 0.6, 6: 0.5}
    monkeypatch.setattr(run, "make_judge", lambda *_: MadeUpJudge(worth))
    return replace(spec, validate=ValidateSpec(every=2, merge_best=2))


def go(job: JobFolder, stop: Stop | None = None):
    return run.run_job(job, Reporter(job.events, io.StringIO()), stop or Stop(job.cancel))


def events(job: JobFolder) -> list[dict]:
    return [json.loads(line) for line in job.events.read_text(encoding="utf-8").splitlines()]


def test_without_judging_the_last_step_is_kept(job, spec: TrainSpec) -> None:
    folder = job()
    result = go(folder)
    assert (result.steps, result.photos, result.chosen, result.checkpoints) == (6, 3, -1, ())
    assert result == folder.read_result()
    assert not folder.state.exists(), "nothing is left to go on with"
    file = read_lora(result.lora)
    assert spec_of(file) == spec
    assert file.metadata["ss_steps"] == "6"
    assert file.metadata["ss_network_dim"] == "2"
    assert len(file.metadata["sshs_model_hash"]) == 64
    assert {tensor.dtype for key, tensor in file.tensors.items() if "lora_" in key.split(".")[1]} == {np.dtype(np.float16)}
    last = read_lora(folder.checkpoint(6))
    assert all(np.array_equal(last.tensors[key], file.tensors[key]) for key in file.tensors)


def test_the_events_tell_the_whole_story(job, judged: TrainSpec) -> None:
    folder = job(judged)
    go(folder)
    told = events(folder)
    kinds = [event["kind"] for event in told]
    assert kinds[0] == "started"
    assert kinds.count("checkpoint") == 3
    assert kinds.count("sample") == 3 * 2 + 2
    assert kinds.count("merged") == 1
    stages = list(dict.fromkeys(event["stage"] for event in told if event["kind"] == "progress"))
    assert stages == ["loading", "looking at templates", "caching", "training", "validating", "merging"]
    training = [event for event in told if event["kind"] == "progress" and event["stage"] == "training"]
    assert training[-1]["step"] == training[-1]["total"] == 6
    assert all({"loss", "rate", "seconds", "seconds_left", "memory_mb"} <= set(event) for event in training)
    samples = [event for event in told if event["kind"] == "sample"]
    assert all(Path(event["path"]).is_absolute() and "score" in event for event in samples)


def test_the_merge_of_the_best_is_kept_and_the_best_picture_is_the_face_id(job, judged: TrainSpec) -> None:
    folder = job(judged)
    result = go(folder)
    assert [score.step for score in result.checkpoints] == [2, 4, 6, 6]
    assert result.checkpoints[result.chosen].merged
    assert result.face_id_picture == folder.validation / "merged-0.png"
    file = read_lora(result.lora)
    assert json.loads(file.metadata["easyphoto_merged_steps"]) == [4, 6]
    name = file.module_names()[0]
    parts = [(0.6 / 1.1, read_lora(folder.checkpoint(4))), (0.5 / 1.1, read_lora(folder.checkpoint(6)))]
    wanted = sum(weight * part.module(name).delta() for weight, part in parts)
    assert np.linalg.norm(file.module(name).delta() - wanted) <= 0.7 * np.linalg.norm(wanted)


def test_stopping_is_heard_within_a_step_and_nothing_is_lost(job, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = job()
    go(whole)
    folder, real = job(), Training.update
    stop = Stop(folder.cancel)

    def update(self: Training) -> float:
        loss = real(self)
        if self.step == 3:
            stop.ask()
        return loss

    monkeypatch.setattr(Training, "update", update)
    with pytest.raises(Cancelled, match="--resume"):
        go(folder, stop)
    assert len(read_lora(folder.state).tensors["losses"]) == 3
    assert not folder.result.exists()
    monkeypatch.undo()
    result = go(folder)
    assert result.losses == whole.read_result().losses
    _same_lora(whole, folder)


@pytest.mark.parametrize("crash", [1, 3, 5])
def test_a_crash_at_any_step_and_going_on_gives_the_same_result(
    job, judged: TrainSpec, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    whole = job(judged)
    go(whole)
    folder, real = job(judged), Training.update

    def update(self: Training) -> float:
        if self.step == crash:
            raise RuntimeError("the power went")
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", update)
        with pytest.raises(RuntimeError):
            go(folder)
    result = go(folder)
    again = whole.read_result()
    assert result.losses == again.losses
    assert [score.score for score in result.checkpoints] == [score.score for score in again.checkpoints]
    _same_lora(whole, folder)


def _same_lora(one: JobFolder, other: JobFolder) -> None:
    first, second = read_lora(one.lora).tensors, read_lora(other.lora).tensors
    assert set(first) == set(second)
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_the_cancel_file_stops_too(job) -> None:
    folder = job()
    folder.cancel.write_text("", encoding="utf-8")
    with pytest.raises(Cancelled):
        go(folder)


def _spoil(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    real = Training._losses
    monkeypatch.setattr(Training, "_losses", lambda self, draw: real(self, draw) * (float("nan") if self.step >= at else 1.0))


def test_a_loss_that_is_no_number_keeps_the_checkpoints_until_then(
    job, judged: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(monkeypatch, 5)
    folder = job(judged)
    result = go(folder)
    assert result.steps == 5
    assert [score.step for score in result.checkpoints] == [2, 4, 4]
    assert any("no number any more" in event.get("message", "") for event in events(folder))
    assert all(np.isfinite(tensor).all() for tensor in read_lora(result.lora).tensors.values())


def test_a_loss_that_is_no_number_from_the_start_is_an_error(job, judged: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    _spoil(monkeypatch, 0)
    with pytest.raises(JobFailed, match="lower learning rate"):
        go(job(judged))


def test_a_base_model_of_another_family_is_refused(job, spec: TrainSpec) -> None:
    with pytest.raises(SpecError, match="embedded family and the training was ordered for sd15"):
        go(job(replace(spec, family=Family.SD15)))


def test_a_broken_base_model_is_told(job, spec: TrainSpec, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        go(job(replace(spec, base_model=Path(__file__).parent)))


def test_nothing_global_is_changed(job) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    go(job())
    assert torch.equal(before, torch.random.get_rng_state())
