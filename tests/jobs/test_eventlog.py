"""Events in a file: numbered, whole, and readable while somebody writes."""

from __future__ import annotations

from pathlib import Path

from easyphoto.events import Event
from easyphoto.jobs.eventlog import EventReader, append_event


def step(number: int) -> Event:
    return Event(kind="progress", stage="training", step=number, total=9)


def test_events_are_numbered_from_one_and_read_from_anywhere(tmp_path: Path) -> None:
    path, reader = tmp_path / "events.jsonl", EventReader()
    assert reader.read(path) == ()
    for number in range(1, 6):
        append_event(path, step(number))
    assert reader.read(path) == tuple((number, step(number)) for number in range(1, 6))
    assert reader.read(path, 3) == ((4, step(4)), (5, step(5)))
    assert reader.read(path, 5) == ()
    assert reader.read(path, 99) == ()
    assert reader.read(path, -1) == reader.read(path, 0)
    append_event(path, step(6))
    assert reader.read(path, 5) == ((6, step(6)),)
    assert EventReader().read(path, 5) == ((6, step(6)),)


def test_half_a_line_of_a_killed_writer_disturbs_no_other_and_no_number(tmp_path: Path) -> None:
    path, reader = tmp_path / "events.jsonl", EventReader()
    append_event(path, step(1))
    with path.open("ab") as file:
        file.write(b'{"kind": "progr')
    assert reader.read(path) == ((1, step(1)),), "it is not whole yet"
    append_event(path, step(3))
    assert reader.read(path) == ((1, step(1)), (3, step(3)))
    assert EventReader().read(path, 2) == ((3, step(3)),)


def test_a_file_that_was_begun_anew_is_read_anew(tmp_path: Path) -> None:
    path, reader = tmp_path / "events.jsonl", EventReader()
    for number in range(1, 4):
        append_event(path, step(number))
    assert len(reader.read(path)) == 3
    path.unlink()
    assert reader.read(path) == ()
    append_event(path, step(1))
    assert reader.read(path) == ((1, step(1)),)


def test_a_line_break_of_unicode_breaks_no_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    said = Event(kind="log", message="one\u2028two\x85three\r\nfour")
    append_event(path, said)
    append_event(path, step(1))
    assert EventReader().read(path) == ((1, said), (2, step(1)))
