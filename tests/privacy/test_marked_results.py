"""The marks of a finished job: its pictures bear them, and what is not safe is not among them."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from easyphoto.app import App
from easyphoto.imaging.io import load_photo
from easyphoto.jobs.follow import run_order
from easyphoto.jobs.store import JobStore, NewJob, input_name
from easyphoto.marking import safety, watermark
from easyphoto.work import Job, JobState
from tests.privacy.conftest import ZOE, inputs, order_portrait, two_faces


def portrait(app: App) -> Job:
    order = replace(order_portrait(ZOE), templates=(Path("inputs") / input_name(0, "0.png"),))
    return run_order(app.settings, NewJob(order=order), inputs((two_faces(),), "png"))


@pytest.fixture(autouse=True)
def installed() -> None:
    if safety.model_path() is None or find_spec("blind_watermark") is None:
        pytest.skip("the packages of the marks are not installed")


def test_a_shown_picture_bears_its_jobs_id_and_the_verdict(
    app: App, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYPHOTO_WATERMARK", "on")
    monkeypatch.setenv("EASYPHOTO_SAFETY", "on")
    job = portrait(app)
    assert job.state is JobState.DONE
    [picture] = store.result(job.id).pictures
    mark = watermark.find(load_photo(store.result_folder(job.id) / picture.file))
    assert mark is not None
    assert mark.tag == job.id[:8]
    assert picture.safety is not None
    assert picture.safety.label in ("safe", "unsure")


def test_a_refused_picture_is_not_kept_and_the_reason_is_told(
    app: App, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYPHOTO_SAFETY", "on")
    monkeypatch.setenv("EASYPHOTO_SAFETY_LIMIT", "0.000001")
    job = portrait(app)
    assert job.state is JobState.FAILED
    assert job.failure
    assert "kept back" in job.failure.sentence
    assert not (app.home.results / job.id).exists()
    assert list(store.folder(job.id).glob("preview*")) == []
