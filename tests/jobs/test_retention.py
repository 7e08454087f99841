"""What is kept how long, whatever the clock says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from easyphoto.errors import NotFound, SpecError
from easyphoto.jobs.folders import End, now
from easyphoto.jobs.results import ResultFolder
from easyphoto.jobs.retention import DAY, Rule, sweep, tick
from easyphoto.jobs.store import Input, JobStore, NewJob, input_name
from easyphoto.jobs.turns import Turns
from easyphoto.orders import CheckOrder
from easyphoto.store.paths import Home
from easyphoto.work import Job, JobKind, JobResult, JobState


def job(store: JobStore, state: JobState) -> Job:
    """An ended job that had a photo handed in."""
    name = input_name(0, "a.jpg")
    new = NewJob(order=CheckOrder(photos=(Path("inputs") / name,), person="Ada"))
    taken = store.submit(new, [Input(name=name, data=b"a face")])
    turn = Turns(store).claim()
    assert turn is not None
    result = JobResult(id=taken.id, kind=JobKind.CHECK, owner="local", created=now()) if state is JobState.DONE else None
    if result is not None:
        result = ResultFolder(Home(store.root), taken.id).commit(result)
    Turns(store).finish(turn, End(state=state, ended=now()), result)
    return taken


def photo(store: JobStore, of: Job) -> Path:
    return store.folder(of.id) / "inputs" / "0000" / "a.jpg"


def later(store: JobStore, days: float) -> None:
    sweep(store, Rule(), tick(store, days * DAY))


def test_photos_go_at_once_from_what_is_done_and_after_a_week_from_the_rest(store: JobStore) -> None:
    done, failed, cancelled = (job(store, state) for state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED))
    later(store, 0)
    assert [photo(store, one).exists() for one in (done, failed, cancelled)] == [False, True, True]
    later(store, 6.9)
    assert photo(store, failed).exists()
    later(store, 0.2)
    assert not photo(store, failed).exists()
    assert not photo(store, cancelled).exists()


def test_ended_jobs_go_after_a_month_and_results_stay(store: JobStore) -> None:
    done = job(store, JobState.DONE)
    later(store, 29)
    assert store.get(done.id)
    later(store, 2)
    with pytest.raises(NotFound):
        store.get(done.id)
    assert not store.folder(done.id).exists()
    assert store.result(done.id).id == done.id


def test_results_go_only_when_somebody_said_so(store: JobStore) -> None:
    done = job(store, JobState.DONE)
    sweep(store, Rule(results=10), tick(store, 9 * DAY))
    assert store.result(done.id)
    sweep(store, Rule(results=10), tick(store, 2 * DAY))
    with pytest.raises(NotFound):
        store.result(done.id)
    assert store.get(done.id).state is JobState.DONE


def test_what_waits_is_never_too_old(store: JobStore) -> None:
    name = input_name(0, "a.jpg")
    order = CheckOrder(photos=(Path("inputs") / name,), person="Ada")
    waiting = store.submit(NewJob(order=order), [Input(name=name, data=b"a face")])
    later(store, 400)
    assert photo(store, waiting).exists()


@pytest.mark.parametrize("jump", [10 * 365 * DAY, -10 * 365 * DAY])
def test_a_clock_that_jumps_between_two_starts_makes_nothing_old(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    failed = job(store, JobState.FAILED)
    tick(store, None)
    wall = time.time()
    monkeypatch.setattr(time, "time", lambda: wall + jump)
    for _ in range(5):
        sweep(store, Rule(), tick(store, None))
    assert photo(store, failed).exists()
    monkeypatch.setattr(time, "time", lambda: wall)
    sweep(store, Rule(), tick(store, None))
    assert photo(store, failed).exists()


def test_days_of_ordinary_starts_are_counted(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = job(store, JobState.FAILED)
    wall = time.time()
    for day in range(9):
        monkeypatch.setattr(time, "time", lambda day=day: wall + 0.9 * day * DAY)
        sweep(store, Rule(), tick(store, None))
    assert not photo(store, failed).exists()


def test_the_rule_is_read_from_the_environment() -> None:
    assert Rule.from_env({}) == Rule(inputs=7, jobs=30, results=None)
    assert Rule.from_env({"EASYPHOTO_KEEP_RESULTS_DAYS": "90", "EASYPHOTO_KEEP_JOBS_DAYS": "1.5"}) == Rule(jobs=1.5, results=90)
    for wrong in ("soon", "-1", "nan"):
        with pytest.raises(SpecError, match="EASYPHOTO_KEEP_RESULTS_DAYS"):
            Rule.from_env({"EASYPHOTO_KEEP_RESULTS_DAYS": wrong})
