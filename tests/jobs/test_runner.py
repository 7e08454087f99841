"""Running jobs: in order, one at the GPU, stopped, killed and begun again. The worker is a real process where it is killed."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from easyphoto.errors import Cancelled, Conflict, InputError
from easyphoto.events import Event
from easyphoto.jobs import handlers
from easyphoto.jobs.desk import Desk, Gate
from easyphoto.jobs.folders import End, QueueFolder, now
from easyphoto.jobs.handlers import DRILLS
from easyphoto.jobs.results import ResultFolder
from easyphoto.jobs.runner import runner_lock
from easyphoto.jobs.store import Input, JobQuery, JobStore, NewJob, input_name
from easyphoto.jobs.turns import MOST_ATTEMPTS, WAITING, Turns
from easyphoto.orders import CheckOrder, DrillOrder, PortraitOrder
from easyphoto.records import Reason
from easyphoto.settings import Settings
from easyphoto.store.paths import Home, owner_home
from easyphoto.work import Job, JobKind, JobResult, JobState
from tests.jobs.conftest import drill, ended, kill, runner, running, until, worker


def finished(home: Path) -> list[str]:
    """The drills that came to their end, in that order, as they say themselves."""
    path = home / "queue" / DRILLS
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def test_jobs_are_taken_by_priority_and_then_in_the_order_they_came(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easyphoto.jobs.store.now", lambda: f"20{99 - len(store.list())}-01-01T00:00:00+00:00")
    ordinary = [drill(store), drill(store)]
    late = drill(store, priority=-1)
    soon = [drill(store, priority=5), drill(store, priority=5)]
    assert ordinary[0].created > soon[1].created, "the clock goes backwards, and nobody cares"
    turns = Turns(store)
    taken = [turns.claim() for _ in range(5)]
    assert [turn.job.id for turn in taken if turn] == [job.id for job in [*soon, *ordinary, late]]
    assert turns.claim() is None


def test_what_a_job_leaves_can_be_read(settings: Settings, store: JobStore, home: Path) -> None:
    with runner(settings, store):
        (job,) = ended(store, drill(store, steps=3, owner="ann"))
    assert (job.attempt, job.progress.step, job.progress.total) == (1, 3, 3)
    assert job.started
    assert job.ended
    assert store.result(job.id).owner == "ann"
    assert (owner_home(home, "ann").results / job.id / "result.json").is_file()
    assert [result.id for result in store.results("ann")] == [job.id]
    assert store.results("local") == ()
    assert [event.step for _, event in store.events(job.id)] == [1, 3]
    assert store.forget_result(job.id, "ann")
    assert store.results() == ()


def test_a_failure_has_a_code_a_sentence_and_the_end_of_its_own_log(settings: Settings, store: JobStore) -> None:
    with runner(settings, store):
        (failed,) = ended(store, drill(store, fail=True))
        (fine,) = ended(store, drill(store))
    assert failed.failure is not None
    assert failed.failure.code == "job_failed"
    assert "ordered to fail" in failed.failure.sentence
    assert "failed (job_failed)" in failed.failure.log_tail[-1]
    assert "failed" not in (store.folder(fine.id) / "log.txt").read_text()


def test_an_error_nobody_foresaw_fails_its_job_alone(
    settings: Settings, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "run_drill", lambda _desk, _order: 1 / 0)
    with runner(settings, store):
        (failed,) = ended(store, drill(store))
        monkeypatch.undo()
        (fine,) = ended(store, drill(store))
    assert failed.failure is not None
    assert "ZeroDivisionError" in failed.failure.sentence
    assert any("Traceback" in line for line in failed.failure.log_tail)
    assert fine.state is JobState.DONE


def test_only_one_job_is_at_the_gpu_while_the_next_ones_other_work_goes_on(
    settings: Settings, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_gpu, most, before, together = 0, 0, 0, 0
    guard = threading.Lock()

    def work(desk: Desk, _order: DrillOrder) -> JobResult:
        nonlocal at_gpu, most, before, together
        with guard:
            before += 1
            together += at_gpu
        time.sleep(0.05)
        with desk.gate.hold(desk.cancel):
            with guard:
                before, at_gpu = before - 1, at_gpu + 1
                most = max(most, at_gpu)
            time.sleep(0.05)
            with guard:
                at_gpu -= 1
        return ResultFolder(desk.app.home, desk.turn.job.id).commit(
            JobResult(id=desk.turn.job.id, kind=JobKind.DRILL, owner="local", created=now())
        )

    monkeypatch.setattr(handlers, "run_drill", work)
    jobs = [drill(store) for _ in range(8)]
    with runner(settings, store):
        assert {job.state for job in ended(store, *jobs)} == {JobState.DONE}
    assert most == 1
    assert together > 0, "some job began while another was at the GPU"


def test_a_running_job_is_cancelled_within_a_step(settings: Settings, store: JobStore, home: Path) -> None:
    with runner(settings, store):
        job = drill(store, steps=1, seconds=60)
        running(store, job)
        assert store.cancel(job.id).cancel_asked
        (job,) = ended(store, job, seconds=5)
    assert (job.state, job.failure) == (JobState.CANCELLED, None)
    assert not list(home.glob("results/*"))


def test_a_job_that_waits_for_the_gpu_is_cancelled_there(settings: Settings, store: JobStore) -> None:
    with runner(settings, store):
        first = drill(store, steps=1, seconds=60)
        running(store, first)
        second = drill(store)
        running(store, second)
        store.cancel(second.id)
        assert ended(store, second, seconds=5)[0].state is JobState.CANCELLED
        assert store.get(first.id).state is JobState.RUNNING
        store.cancel(first.id)


def test_a_queue_that_is_stopped_in_order_goes_on_later_and_no_attempt_is_counted(
    settings: Settings, store: JobStore, home: Path
) -> None:
    job = drill(store, steps=3, seconds=0.3)
    with runner(settings, store):
        running(store, job)
    assert (store.get(job.id).state, store.get(job.id).attempt) == (JobState.QUEUED, 0)
    with runner(settings, store):
        (job,) = ended(store, job)
    assert (job.state, job.attempt) == (JobState.DONE, 1)
    assert finished(home) == [job.id]


def test_a_home_has_one_runner(home: Path, store: JobStore) -> None:
    with runner_lock(home):
        with pytest.raises(Conflict), runner_lock(home):
            pass
        with worker(home) as second:
            assert second.wait(30) == Conflict.exit_status
            assert b"done already" in second.stderr.read()
        with worker(home, "--wait") as waiting:
            job = drill(store)
            time.sleep(0.5)
            assert waiting.poll() is None
            assert store.get(job.id).state is JobState.QUEUED
    with worker(home, "--wait"):
        assert ended(store, job)[0].state is JobState.DONE


def test_kill_9_of_the_worker_loses_nothing_and_doubles_nothing(store: JobStore, home: Path) -> None:
    jobs = [drill(store, steps=4, seconds=0.01, owner=owner) for owner in ("local", "ann") * 30]
    for _ in range(5):
        with worker(home) as process:
            until(lambda: any(job.state is JobState.RUNNING for job in store.list(JobQuery(limit=100))))
            time.sleep(0.15)
            kill(process)
    with worker(home):
        done = ended(store, *jobs)
    assert {job.state for job in done} == {JobState.DONE}
    assert len(set(finished(home))) == len(finished(home))
    assert all(store.result(job.id).id == job.id for job in jobs)
    assert not list(home.glob("**/.making-*"))


def test_a_killed_workers_job_is_begun_again_first(store: JobStore, home: Path) -> None:
    with worker(home) as process:
        first = drill(store, steps=1, seconds=20)
        running(store, first)
        second = drill(store, priority=0)
        kill(process)
    assert store.get(first.id).state is JobState.RUNNING, "nobody has looked yet"
    with worker(home):
        until(lambda: store.get(first.id).attempt == 2)
        store.cancel(first.id)
        assert [job.state for job in ended(store, first, second)] == [JobState.CANCELLED, JobState.DONE]


def test_the_worker_goes_with_its_parent_and_its_job_waits_again(store: JobStore, home: Path) -> None:
    with worker(home, "--watch-parent") as process:
        job = drill(store, steps=1, seconds=30)
        running(store, job)
        process.stdin.close()
        process.stdin = None
        assert process.wait(20) == 0
    assert (store.get(job.id).state, store.get(job.id).attempt) == (JobState.QUEUED, 0)


@pytest.mark.skipif(not hasattr(os, "nice"), reason="there is no nice here")
def test_the_worker_steps_back_behind_a_server(home: Path, store: JobStore) -> None:
    with worker(home) as process:
        ended(store, drill(store))
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)


def claimed(store: JobStore, **said) -> Job:
    """A job that a runner took and did not end before it was killed."""
    job = drill(store, **said)
    turn = Turns(store).claim(only=job.id)
    assert turn is not None
    return turn.job


def test_an_end_that_was_written_down_is_not_run_again(settings: Settings, store: JobStore, home: Path) -> None:
    job = claimed(store)
    QueueFolder(store.folder(job.id)).write_end(End(state=JobState.CANCELLED, ended=now()))
    with runner(settings, store):
        assert ended(store, job)[0].state is JobState.CANCELLED
    assert finished(home) == []


def test_what_a_power_cut_left_without_content_is_nobodys(settings: Settings, store: JobStore, home: Path) -> None:
    promised, unheard = drill(store), drill(store)
    QueueFolder(store.folder(unheard.id)).order.write_bytes(b"")
    with closing(sqlite3.connect(store.database.path)) as connection, connection:
        connection.execute("DELETE FROM jobs WHERE id = ?", (unheard.id,))
    cut = Home(home).results / promised.id
    cut.mkdir(parents=True)
    (cut / "result.json").write_bytes(b"")
    with runner(settings, store):
        assert ended(store, promised)[0].state is JobState.DONE
    assert not store.folder(unheard.id).exists()
    assert store.result(promised.id).id == promised.id


def test_a_result_that_was_put_in_place_is_an_end(settings: Settings, store: JobStore, home: Path) -> None:
    job = claimed(store)
    result = JobResult(id=job.id, kind=job.kind, owner=job.owner, created=now(), warnings=("the first",))
    ResultFolder(Home(home), job.id).commit(result)
    with runner(settings, store):
        assert ended(store, job)[0].state is JobState.DONE
    assert store.result(job.id).warnings == ("the first",)
    assert finished(home) == []


def test_a_second_result_never_takes_the_place_of_the_first(home: Path) -> None:
    def result(word: str) -> JobResult:
        return JobResult(id="0" * 16, kind=JobKind.DRILL, owner="local", created=now(), warnings=(word,))

    place = Home(home)
    assert ResultFolder(place, "0" * 16).commit(result("first")).warnings == ("first",)
    assert ResultFolder(place, "0" * 16).commit(result("second")).warnings == ("first",)
    assert [path.name for path in place.results.iterdir()] == ["0" * 16]


def test_half_made_folders_of_a_killed_runner_and_a_killed_client_go(settings: Settings, store: JobStore, home: Path) -> None:
    for owner in ("local", "ann"):
        making = owner_home(home, owner).results / f".making-{'0' * 16}"
        making.mkdir(parents=True)
        (making / "001.png").write_bytes(b"half")
    for mark in ("killed00", "gone0000"):
        (home / "queue" / f".making-{mark}-{'1' * 16}").mkdir()
    (home / "queue" / ".builder-killed00").write_bytes(b"\x00" * 64 + b"4711")
    (home / "queue" / f".deleted-{'2' * 16}-abcd").mkdir()
    with runner(settings, store):
        ended(store, drill(store))
    assert not [path for path in home.glob("**/.*") if path.is_dir()]
    assert not (home / "queue" / ".builder-killed00").exists()


def test_a_folder_that_nobody_signed_goes_when_it_is_old(store: JobStore, home: Path) -> None:
    new, old = (home / "queue" / f".making-{letter * 16}" for letter in "ab")
    for folder in (new, old):
        folder.mkdir()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    Turns(store).recover()
    assert (new.exists(), old.exists()) == (True, False)


def test_a_folder_that_a_client_is_building_right_now_is_left_alone(
    settings: Settings, store: JobStore, home: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "slow upload"
    os.mkfifo(pipe)
    name = input_name(0, "slow.jpg")
    order = CheckOrder(photos=(Path("inputs") / name,), person="Ada")
    taken: list[Job] = []
    client = threading.Thread(target=lambda: taken.append(store.submit(NewJob(order=order), [Input(name=name, data=pipe)])))
    client.start()
    with pipe.open("wb") as upload:
        upload.write(b"half")
        upload.flush()
        with runner(settings, store):
            ended(store, drill(store))
        upload.write(b" and half")
    client.join(30)
    assert (store.folder(taken[0].id) / "inputs" / name).read_bytes() == b"half and half"


def test_runners_that_start_while_jobs_are_handed_in_disturb_none(store: JobStore, home: Path) -> None:
    stop = threading.Event()

    def recover() -> None:
        while not stop.is_set():
            Turns(store).recover()

    starting = threading.Thread(target=recover)
    starting.start()
    try:
        jobs = [drill(store) for _ in range(200)]
    finally:
        stop.set()
        starting.join()
    assert [job.id for job in reversed(store.list(JobQuery(limit=1000)))] == [job.id for job in jobs]
    assert sorted(path.name for path in (home / "queue").iterdir() if path.is_dir()) == sorted(job.id for job in jobs)
    assert not list(home.glob("queue/*/.*")), "nothing of the making is left"


def test_a_whole_folder_without_a_row_is_a_job(settings: Settings, store: JobStore) -> None:
    """Its client was killed between the folder and the row."""
    job = drill(store)
    store.database.write(lambda connection: connection.execute("DELETE FROM jobs") and None)
    with runner(settings, store):
        assert ended_again(store, job.id).state is JobState.DONE


def ended_again(store: JobStore, job_id: str) -> Job:
    until(lambda: any(job.id == job_id and job.state.ended for job in store.list()))
    return store.get(job_id)


def test_a_request_that_came_again_after_a_crash_is_run_once(settings: Settings, store: JobStore, home: Path) -> None:
    new = NewJob(order=DrillOrder(), idempotency_key="k")
    orphan = store.submit(new)
    store.database.write(lambda connection: connection.execute("DELETE FROM jobs") and None)
    again = store.submit(new)
    with runner(settings, store):
        ended(store, again)
    assert finished(home) == [again.id]
    assert not store.folder(orphan.id).exists()


def test_a_job_whose_folder_is_gone_fails_with_a_sentence(settings: Settings, store: JobStore) -> None:
    job = drill(store)
    for path in store.folder(job.id).iterdir():
        path.unlink()
    store.folder(job.id).rmdir()
    with runner(settings, store):
        (job,) = ended(store, job)
    assert job.failure is not None
    assert "hand it in again" in job.failure.sentence


def test_a_job_that_kills_its_runner_each_time_is_given_up(settings: Settings, store: JobStore, home: Path) -> None:
    job = drill(store)
    turns = Turns(store)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        turn = turns.claim()
        assert turn is not None
        assert turn.job.attempt == attempt
        turns.recover()
    with runner(settings, store):
        (job,) = ended(store, job)
    assert job.failure is not None
    assert "killed each time" in job.failure.sentence
    assert finished(home) == []


def test_a_job_that_only_waited_for_the_gpu_is_not_blamed_for_a_kill(store: JobStore, home: Path) -> None:
    with worker(home) as process:
        first, second = drill(store, seconds=60), drill(store)
        until(lambda: store.get(second.id).progress.stage == WAITING)
        kill(process)
    Turns(store).recover()
    assert [store.get(job.id).attempt for job in (first, second)] == [1, 0]


def test_a_job_that_was_to_be_cancelled_when_the_runner_died_is(settings: Settings, store: JobStore, home: Path) -> None:
    job = claimed(store)
    store.cancel(job.id)
    with runner(settings, store):
        assert ended(store, job)[0].state is JobState.CANCELLED
    assert finished(home) == []


def test_a_database_lost_while_a_job_runs_does_not_run_it_twice(settings: Settings, store: JobStore, home: Path) -> None:
    with runner(settings, store):
        job = drill(store, steps=20, seconds=0.05)
        running(store, job)
        for path in (home / "queue").glob("jobs.sqlite*"):
            path.unlink()
        assert ended_again(store, job.id).state is JobState.DONE
    assert finished(home) == [job.id]


def fails() -> JobResult:
    raise InputError("nothing of this can be used")


def test_inputs_go_when_the_job_is_done_and_stay_when_it_failed(
    settings: Settings, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = input_name(0, "a.jpg")
    monkeypatch.setattr(handlers, "run_check", lambda desk, _order: handlers.run_drill(desk, DrillOrder()))
    order = CheckOrder(photos=(Path("inputs") / name,), person="Ada")
    with runner(settings, store):
        (done,) = ended(store, store.submit(NewJob(order=order), [Input(name=name, data=b"x")]))
        until(lambda: not (store.folder(done.id) / "inputs").exists())
        monkeypatch.setattr(handlers, "run_check", lambda _desk, _order: fails())
        (failed,) = ended(store, store.submit(NewJob(order=order), [Input(name=name, data=b"x")]))
    assert failed.failure is not None
    assert (store.folder(failed.id) / "inputs").exists()


def test_a_check_says_of_every_photo_why_it_cannot_be_used(settings: Settings, store: JobStore) -> None:
    names = [input_name(index, label) for index, label in enumerate(("a.jpg", "b.jpg"))]
    order = CheckOrder(photos=tuple(Path("inputs") / name for name in names), person="")
    with runner(settings, store):
        (job,) = ended(store, store.submit(NewJob(order=order), [Input(name=name, data=b"x") for name in names]))
    result = store.result(job.id)
    assert [(verdict.photo, verdict.reason) for verdict in result.verdicts] == [
        ("a.jpg", Reason.UNREADABLE), ("b.jpg", Reason.UNREADABLE)
    ]  # fmt: skip
    assert result.files == ()
    assert "none of the 2 photos can be used" in result.warnings[0]


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "link.jpg", "inputs/../../x"])
def test_an_order_reads_nothing_outside_its_folder(settings: Settings, store: JobStore, path: str) -> None:
    job = store.submit(NewJob(order=CheckOrder(photos=(Path(path),), person="Ada")))
    (store.folder(job.id) / "link.jpg").symlink_to("/etc/passwd")
    with runner(settings, store):
        (job,) = ended(store, job)
    assert job.failure is not None
    assert job.failure.code in {"bad_input", "not_found"}
    assert "root:" not in job.failure.sentence


def test_a_portrait_of_nobody_known_fails_without_loading_a_model(settings: Settings, store: JobStore) -> None:
    with runner(settings, store):
        job = store.submit(NewJob(order=PortraitOrder(templates=(Path("t.jpg"),), people=("Nobody",)), owner="ann"))
        (job,) = ended(store, job)
    assert job.failure is not None
    assert job.failure.code == "not_found"


def test_an_end_on_a_full_disk_is_written_when_there_is_room(
    settings: Settings, store: JobStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.jobs.test_store import full

    real, refused = QueueFolder.write_end, []

    def write_end(folder: QueueFolder, end: End) -> End:
        if len(refused) < 2:
            refused.append(end)
            monkeypatch.setattr(Path, "open", full)
        else:
            monkeypatch.undo()
        return real(folder, end)

    monkeypatch.setattr("easyphoto.jobs.runner._DISK_PAUSE", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(QueueFolder, "write_end", write_end)
        with runner(settings, store):
            (job,) = ended(store, drill(store))
    assert (job.state, len(refused)) == (JobState.DONE, 2)
    assert finished(home) == [job.id]


def test_progress_is_noted_a_few_times_a_second_and_every_stage_is_told(settings: Settings, store: JobStore) -> None:
    from easyphoto.app import App

    drill(store)
    turns = Turns(store)
    turn = turns.claim()
    assert turn is not None
    desk = Desk(turn=turn, turns=turns, app=App(settings), gate=Gate())
    for step in range(1, 1001):
        desk.listen(Event(kind="progress", stage="one", step=step, total=1000))
    desk.listen(Event(kind="progress", stage="two", step=1, total=5))
    told = [(event.stage, event.step) for _, event in store.events(turn.job.id)]
    assert told[0] == ("one", 1)
    assert told[-2:] == [("one", 1000), ("two", 1)]
    assert len(told) < 12
    assert store.get(turn.job.id).progress.stage == "two"
    desk.cancel.set()
    with pytest.raises(Cancelled):
        desk.listen(Event(kind="progress", stage="two", step=2, total=5))
