"""Jobs followed as server-sent events, by real connections to a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from easyphoto.api import stream
from easyphoto.events import Event
from easyphoto.jobs.folders import End, now
from easyphoto.jobs.store import NewJob
from easyphoto.jobs.turns import Turn, Turns
from easyphoto.orders import DrillOrder
from easyphoto.store.codec import to_json
from easyphoto.work import Job, JobState
from tests.api.rig import Rig, fields_of, served


def begun(rig: Rig) -> Turn:
    job = rig.service.store.submit(NewJob(order=DrillOrder()))
    turn = Turns(rig.service.store).claim(only=job.id)
    assert turn is not None
    return turn


def say(rig: Rig, turn: Turn, *steps: int) -> None:
    for step in steps:
        Turns(rig.service.store).say(turn, Event(kind="progress", stage="drill", step=step, total=9))


def end(rig: Rig, turn: Turn) -> None:
    Turns(rig.service.store).finish(turn, End(state=JobState.DONE, ended=now(), started=turn.job.started, attempt=1))


def messages(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    found: dict[str, Any] = {}
    for line in lines:
        if not line:
            if "data" in found:
                yield found
            found = {}
        name, _, value = line.partition(": ")
        found[name] = json.loads(value) if name == "data" else value


def followed(rig: Rig, job_id: str, **more: Any) -> list[dict[str, Any]]:
    """Every message until the server ends the stream."""
    with rig.mine.stream("GET", f"/jobs/{job_id}/events", **more) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(messages(answer.iter_lines()))


def test_events_come_with_numbers_and_the_job_at_the_end(rig: Rig) -> None:
    turn = begun(rig)
    say(rig, turn, 1)

    def go_on() -> None:
        time.sleep(0.4)
        say(rig, turn, 2, 3)
        time.sleep(0.4)
        end(rig, turn)

    thread = threading.Thread(target=go_on)
    thread.start()
    found = followed(rig, turn.job.id)
    thread.join()
    *events, last = found
    assert [(message["id"], message["event"], message["data"]["step"]) for message in events] == [
        ("1", "progress", 1), ("2", "progress", 2), ("3", "progress", 3),
    ]  # fmt: skip
    assert last["event"] == "end"
    assert "id" not in last
    assert last["data"] == to_json(rig.service.store.get(turn.job.id))


def test_a_stream_goes_on_where_it_was_cut_off(rig: Rig) -> None:
    turn = begun(rig)
    say(rig, turn, 1, 2, 3, 4)
    end(rig, turn)
    by_header = {"headers": {"Last-Event-ID": "2"}}
    for more in (by_header, {"params": {"after": 2}}, {"params": {"after": 0}, **by_header}):
        assert [message["event"] for message in followed(rig, turn.job.id, **more)] == ["progress", "progress", "end"]
    assert [message["event"] for message in followed(rig, turn.job.id, params={"after": 99})] == ["end"]
    assert len(followed(rig, turn.job.id, headers={"Last-Event-ID": "nonsense"})) == 5
    assert fields_of(rig.mine.get(f"/jobs/{turn.job.id}/events", params={"after": -1})) == ["after"]


def test_of_paths_only_the_name_is_told(rig: Rig) -> None:
    turn = begun(rig)
    Turns(rig.service.store).say(turn, Event(kind="sample", path="/home/somebody/secret/preview.jpg"))
    end(rig, turn)
    assert followed(rig, turn.job.id)[0]["data"]["path"] == "preview.jpg"


def test_more_events_than_memory_keeps_come_all_and_in_order(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_KEPT", 10)
    turn = begun(rig)
    say(rig, turn, *range(1, 101))
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.extend(followed(rig, turn.job.id)))
    reader.start()
    time.sleep(0.4)
    say(rig, turn, *range(101, 151))
    end(rig, turn)
    reader.join(10)
    assert [message["data"]["step"] for message in found[:-1]] == list(range(1, 151))


def test_silence_is_broken_by_comments(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING", 0.1)
    turn = begun(rig)
    with rig.mine.stream("GET", f"/jobs/{turn.job.id}/events") as answer:
        lines = answer.iter_lines()
        assert any(line == ": ping" for line in lines)


def test_a_stream_ends_when_its_job_is_deleted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING", 0.2)
    turn = begun(rig)
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.extend(followed(rig, turn.job.id)))
    reader.start()
    time.sleep(0.3)
    rig.service.store.database.write(lambda connection: connection.execute("DELETE FROM jobs") and None)
    reader.join(10)
    assert not reader.is_alive()
    assert found == []


def test_many_streams_are_one_look_at_the_queue(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = rig.service.store.changes

    def counted(since: int) -> tuple[Job, ...]:
        nonlocal looks
        looks += 1
        return look(since)

    monkeypatch.setattr(rig.service.store, "changes", counted)
    turn = begun(rig)
    counts: list[int] = []
    readers = [threading.Thread(target=lambda: counts.append(len(followed(rig, turn.job.id)))) for _ in range(40)]
    for reader in readers:
        reader.start()
    time.sleep(1.0)
    say(rig, turn, 1, 2)
    time.sleep(0.3)
    began, before = time.monotonic(), looks
    time.sleep(0.6)
    most = (time.monotonic() - began) / stream.TICK + 2
    assert looks - before <= most
    end(rig, turn)
    for reader in readers:
        reader.join(10)
    assert counts == [3] * 40
    assert rig.service.hub._feeds == {}


def test_whoever_hangs_up_is_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING", 0.1)
    turn = begun(rig)
    with rig.mine.stream("GET", f"/jobs/{turn.job.id}/events") as answer:
        lines = answer.iter_lines()
        assert ": ping" in lines
        assert list(rig.service.hub._feeds) == [turn.job.id]
    until = time.monotonic() + 5
    while rig.service.hub._feeds and time.monotonic() < until:
        time.sleep(0.02)
    assert rig.service.hub._feeds == {}


def test_a_server_that_stops_ends_its_streams(tmp_path: Path) -> None:
    with served(tmp_path / "home") as rig:
        turn = begun(rig)
        left: list[object] = []

        def read() -> None:
            try:
                left.extend(followed(rig, turn.job.id))
            except httpx.TransportError as error:
                left.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.3)
        rig.service.hub.close()
        reader.join(5)
        assert not reader.is_alive()
        assert left == []
