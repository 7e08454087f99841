"""The bar and the JSON lines."""

from __future__ import annotations

import io
import json

import pytest

from easyphoto.cli.progress import ProgressLine, watching
from easyphoto.events import Event, parse

STEP = Event(kind="progress", stage="training", step=50, total=200, loss=0.25, seconds_left=95.4)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_share_loss_and_time_left_on_one_line() -> None:
    terminal = Terminal()
    line = ProgressLine(terminal)
    line(STEP)
    line.close()
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert "[#######....................." in shown
    assert "50/200  loss 0.2500  1:35 left" in shown


def test_a_file_gets_one_line_for_each_stage() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for step in range(5):
        line(Event(kind="progress", stage="caching", step=step, total=5))
    line(STEP)
    assert stream.getvalue() == "caching\ntraining\n"


def test_json_lines_come_back_as_the_same_events(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(as_json=True) as listener:
        listener(STEP)
    line = capsys.readouterr().out
    assert json.loads(line)["loss"] == 0.25
    assert parse(line) == STEP


@pytest.mark.parametrize("line", ["", "noise", "[1]", '{"kind": "unheard of"}', '{"no": "kind"}'])
def test_other_output_is_no_event(line: str) -> None:
    assert parse(line) is None
