"""The command line and the queue: what is handed in, what comes back, and looking after jobs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from easyphoto.cli.main import main
from easyphoto.errors import Cancelled, NotFound, TemplateError
from easyphoto.families import Family
from easyphoto.jobs import handlers
from easyphoto.jobs.desk import Desk
from easyphoto.jobs.folders import now
from easyphoto.jobs.results import ResultFolder
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.orders import DrillOrder, PortraitOrder
from easyphoto.specs import Person
from easyphoto.store.people import PeopleStore
from easyphoto.work import FaceScore, Job, JobKind, JobResult, JobState, Missed, Picture


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with closing(JobStore(tmp_path / "home")) as opened:
        yield opened


def run(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, str, str]:
    status = main([*words, "--home", str(home)])
    said = capsys.readouterr()
    return status, said.out, said.err


def drill(store: JobStore, **said) -> Job:
    return store.submit(NewJob(order=DrillOrder(**said)))


def test_jobs_are_listed_newest_first_and_filtered(capsys, store: JobStore) -> None:
    first, second = drill(store), drill(store)
    store.cancel(first.id)
    status, out, _ = run(capsys, store.root, "jobs", "list")
    assert (status, [line.split()[0] for line in out.splitlines()]) == (0, [second.id, first.id])
    _, out, _ = run(capsys, store.root, "jobs", "list", "--state", "cancelled", "--json")
    assert [(job["id"], job["state"]) for job in json.loads(out)] == [(first.id, "cancelled")]
    _, out, _ = run(capsys, store.root, "jobs", "list", "--kind", "training")
    assert "no jobs" in out


def test_a_job_is_shown_with_why_it_failed(capsys, store: JobStore) -> None:
    job = drill(store, fail=True)
    status, out, _ = run(capsys, store.root, "jobs", "watch", job.id)
    assert status == 7
    status, out, _ = run(capsys, store.root, "jobs", "show", job.id)
    assert status == 0
    assert "ordered to fail" in out
    assert f"{job.id}  failed" in out
    _, out, _ = run(capsys, store.root, "jobs", "show", job.id, "--json")
    assert json.loads(out)["failure"]["code"] == "job_failed"


def test_watching_a_job_that_nobody_runs_runs_it(capsys, store: JobStore) -> None:
    job = drill(store, steps=2)
    status, out, _ = run(capsys, store.root, "jobs", "watch", job.id, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [line.get("step") for line in lines[:-1]] == [1, 2]
    assert (lines[-1]["id"], lines[-1]["state"]) == (job.id, "done")


def test_cancelling(capsys, store: JobStore) -> None:
    job = drill(store)
    status, out, _ = run(capsys, store.root, "jobs", "cancel", job.id)
    assert (status, "cancelled" in out) == (0, True)
    assert store.get(job.id).state is JobState.CANCELLED


@pytest.mark.parametrize("verb", ["show", "cancel", "watch"])
def test_an_unknown_job_is_status_3(capsys, store: JobStore, verb: str) -> None:
    status, _, err = run(capsys, store.root, "jobs", verb, "../../etc")
    assert status == NotFound.exit_status
    assert "no job" in err


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Somebody who was trained."""
    somebody = Person(
        name="Ada", person_id="ada", folder=tmp_path, family=Family.EMBEDDED, lora=tmp_path, reference=tmp_path,
        face_id_picture=tmp_path, embedding=(), created="",
    )  # fmt: skip
    monkeypatch.setattr(PeopleStore, "get", lambda _people, _name: somebody)


def paint(desk: Desk, order: PortraitOrder) -> JobResult:
    """Stands in for the handler: the first template gives a picture, each other one an error."""
    assert [path.read_bytes() for path in map(desk.input, order.templates)] == [b"one", b"two"]
    folder = ResultFolder(desk.app.home, desk.turn.job.id)
    file = folder.add("001-one-5.png", b"picture")
    folder.add("001-one-5-face0-first-pass.png", b"stage")
    picture = Picture(
        file=file, template="one.jpg", seed=5, infotext="Seed: 5", faces=(FaceScore(person="Ada", similarity=0.5),),
        seconds=(("plan", 0.25),), warnings=("small",),
    )  # fmt: skip
    missed = Missed(template="two.jpg", code=TemplateError.code, sentence="two.jpg shows no face.")
    result = JobResult(id=desk.turn.job.id, kind=JobKind.PORTRAITS, owner="local", created=now(), person="Ada")
    return folder.commit(replace(result, pictures=(picture,), missed=(missed,)))


def portrait(capsys, tmp_path: Path, *words: str) -> tuple[int, str, str]:
    for name in ("one", "two"):
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    files = [str(tmp_path / "one.jpg"), str(tmp_path / "two.jpg")]
    said = ("portrait", "--person", "Ada", "--template", *files, "--output", str(tmp_path / "out" / "new"), *words)
    return run(capsys, tmp_path / "home", *said)


@pytest.mark.usefixtures("ada")
def test_portraits_come_through_the_queue_as_programs_know_them(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(handlers, "run_portraits", paint)
    status, out, _ = portrait(capsys, tmp_path, "--json")
    picture, missed = [json.loads(line) for line in out.splitlines()]
    path = Path(picture["path"])
    assert path.read_bytes() == b"picture"
    assert path.name.startswith("one-20")
    assert path.name.endswith("-5.png")
    assert path.with_name(f"{path.stem}-face0-first-pass.png").read_bytes() == b"stage"
    assert picture == {
        "kind": "portrait", "path": str(path), "seed": 5, "similarity": {"Ada": 0.5}, "seconds": {"plan": 0.25},
        "warnings": ["small"], "job": missed["job"],
    }  # fmt: skip
    assert (missed["kind"], missed["template"], missed["code"]) == ("missed", "two.jpg", "bad_template")
    assert status == TemplateError.exit_status


@pytest.mark.usefixtures("ada")
def test_a_template_that_gave_no_picture_is_told_beside_those_that_did(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(handlers, "run_portraits", paint)
    status, out, err = portrait(capsys, tmp_path)
    assert status == TemplateError.exit_status
    assert "(Ada 0.500)" in out
    assert "two.jpg shows no face." in err


@pytest.mark.usefixtures("ada")
def test_a_job_that_fails_is_the_error_it_was(capsys, tmp_path: Path, monkeypatch) -> None:
    def refuse(_desk: Desk, _order: PortraitOrder) -> JobResult:
        raise TemplateError("one.jpg shows no face.")

    monkeypatch.setattr(handlers, "run_portraits", refuse)
    status, out, _ = portrait(capsys, tmp_path, "--json")
    assert status == TemplateError.exit_status
    assert json.loads(out) == {"kind": "failed", "code": "bad_template", "message": "one.jpg shows no face."}


@pytest.mark.usefixtures("ada")
def test_a_cancelled_job_is_status_130(capsys, tmp_path: Path, monkeypatch) -> None:
    def stop(_desk: Desk, _order: PortraitOrder) -> JobResult:
        raise Cancelled("stopped")

    monkeypatch.setattr(handlers, "run_portraits", stop)
    assert portrait(capsys, tmp_path)[0] == Cancelled.exit_status


def test_photos_are_copied_so_that_the_job_needs_the_originals_no_more(
    capsys, tmp_path: Path, monkeypatch, sample_people: Path
) -> None:
    seen: list[list[str]] = []

    def keep(desk: Desk, order) -> JobResult:
        shutil.rmtree(tmp_path / "photos")
        seen.append([desk.input(path).name for path in order.photos])
        raise Cancelled("enough seen")

    monkeypatch.setattr(handlers, "run_training", keep)
    (tmp_path / "photos").mkdir()
    for name in ("2.jpg", "10.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"photo")
    assert run(capsys, tmp_path / "home", "train", str(tmp_path / "photos"), "--person", "Ada")[0] == 130
    assert seen == [["2.jpg", "10.jpg"]]
