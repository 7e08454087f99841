"""Reading what another version of the server says."""

from __future__ import annotations

from typing import Any

import pytest

from easyphoto.client.reading import Unreadable, read
from easyphoto.client.records import PersonView
from easyphoto.events import Event
from easyphoto.records import PhotoScores, Reason, Verdict
from easyphoto.store.codec import to_json
from easyphoto.work import Failure, Job, JobKind, JobProgress, JobResult, JobState
from tests.client import made

FULL = Job(
    id="j", kind=JobKind.CHECK, owner="local", state=JobState.FAILED, created="2026", priority=3, started="2026", ended="2026",
    attempt=2, progress=JobProgress(stage="training", step=3, total=9, seconds_left=1.5, preview="a.png"),
    failure=Failure(code="bad_photo", sentence="no", log_tail=("a", "b")), person="Ä", idempotency_key="k", version=7,
)  # fmt: skip
VERDICT = Verdict(photo="a.jpg", accepted=True, reason=Reason.GOOD, sentence="good", scores=PhotoScores(sharpness=0.5, faces=1))


RESULT = JobResult(id="j", kind=JobKind.CHECK, owner="o", created="c", verdicts=(VERDICT,))


@pytest.mark.parametrize("record", [FULL, VERDICT, RESULT, Event(kind="progress", step=3, loss=0.1, extra={"a": [1]})])
def test_what_our_own_server_writes_is_read_back_unchanged(record: Any) -> None:
    assert read(type(record), _json(record)) == record


def _json(record: Any) -> Any:
    import dataclasses

    return dataclasses.asdict(record) if isinstance(record, Event) else to_json(record)


def test_unknown_fields_are_passed_over_at_every_depth() -> None:
    data = made.job(progress=JobProgress(step=2))
    data["new"] = {"a": 1}
    data["progress"]["newer"] = [1]
    assert read(Job, data).progress.step == 2


def test_what_an_older_server_does_not_say_is_default() -> None:
    job = read(Job, {"id": "j", "kind": "check", "owner": "local", "state": "done", "created": "2026"})
    assert (job.version, job.progress, job.failure) == (0, JobProgress(), None)


def test_a_choice_that_only_a_newer_server_knows_keeps_its_text_and_is_no_member() -> None:
    job = read(Job, made.job() | {"kind": "video", "state": "paused"})
    assert (job.kind, job.kind.value, job.state.ended) == ("video", "video", False)
    assert job.kind not in list(JobKind)
    assert isinstance(job.kind, JobKind)
    assert read(Job, made.job() | {"kind": "video"}).kind == job.kind


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"id": None}, "Job.id"), ({"id": 3}, "Job.id"), ({"priority": 1.5}, "Job.priority"),
        ({"priority": True}, "Job.priority"), ({"priority": float("nan")}, "Job.priority"), ({"progress": []}, "Job.progress"),
        ({"cancel_asked": 1}, "Job.cancel_asked"), ({"failure": {"code": "x"}}, "Job.failure has no sentence"),
        ({"state": 3}, "Job.state"),
        ({"failure": {"code": "x", "sentence": "y", "log_tail": "z"}}, "Job.failure.log_tail"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_by_its_place(change: dict[str, Any], where: str) -> None:
    with pytest.raises(Unreadable, match=where.replace(".", r"\.")):
        read(Job, made.job() | change)


def test_whole_numbers_may_come_as_floats_and_the_other_way() -> None:
    person = read(PersonView, made.person(score=1, photos=10.0))
    assert (person.score, type(person.score), person.photos, type(person.photos)) == (1.0, float, 10, int)
