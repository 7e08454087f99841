from __future__ import annotations

import io
import mmap
from pathlib import Path

import pytest

from easyphoto.events import parse
from easyphoto.training.progress import Clock, Reporter, Stop, memory_mb


def test_the_time_left_is_steps_and_renderings_at_their_measured_pace() -> None:
    clock = Clock(steps=10, renderings=4)
    assert clock.seconds_left == 0, "nothing is known yet"
    for _ in range(4):
        clock.tick("step", 2.0)
    assert clock.seconds_left == pytest.approx(6 * 2 + 4 * 6 * 2), "a rendering counts as six steps until one was seen"
    clock.tick("rendering", 5.0)
    assert clock.seconds_left == pytest.approx(6 * 2 + 3 * 5)
    for _ in range(20):
        clock.tick("step", 2.0)
    assert clock.seconds_left == pytest.approx(3 * 5), "never below zero"


def test_the_first_step_does_not_spoil_the_guess() -> None:
    clock = Clock(steps=100, renderings=0)
    clock.tick("step", 30.0)
    clock.tick("step", 1.0)
    assert clock.seconds_left == pytest.approx(98)


def test_events_go_to_both_places(tmp_path: Path) -> None:
    out = io.StringIO()
    reporter = Reporter(tmp_path / "events.jsonl", out)
    reporter.say("started", stage="loading", message="王小明")
    assert out.getvalue() == (tmp_path / "events.jsonl").read_text(encoding="utf-8")
    event = parse(out.getvalue())
    assert event is not None
    assert (event.kind, event.message) == ("started", "王小明")
    assert event.seconds is not None
    assert event.memory_mb is not None
    assert event.memory_mb > 1


def test_progress_is_not_told_more_often_than_anyone_can_read(tmp_path: Path) -> None:
    out = io.StringIO()
    reporter = Reporter(tmp_path / "events.jsonl", out)
    for step in range(1, 101):
        reporter.progress("training", step, 100)
    steps = [event.step for line in out.getvalue().splitlines() if (event := parse(line))]
    assert steps[0] == 1
    assert steps[-1] == 100, "the end is always told"
    assert len(steps) < 20


def test_a_stop_comes_by_call_or_by_file(tmp_path: Path) -> None:
    stop = Stop(tmp_path / "cancel")
    assert not stop.wanted()
    (tmp_path / "cancel").touch()
    assert stop.wanted()
    other = Stop(tmp_path / "none")
    other.ask(15, None)
    assert other.wanted()


def test_memory_is_this_processes() -> None:
    before = memory_mb()
    # A mapping of its own: what Python allocates may lie in memory that the process had already.
    held = mmap.mmap(-1, 64 * 2**20)
    for _ in range(64):
        held.write(b"x" * 2**20)
    after = memory_mb()
    assert before is not None
    assert after is not None
    assert after - before > 48
    held.close()
