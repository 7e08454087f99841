"""The bench's arithmetic: means over people, Student's interval, which face is measured, what counts as outside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from easyphoto.bench.measures import Score, nearest_face, over_people
from easyphoto.bench.portrait import BenchReport
from easyphoto.records import Box, Face


def face(left: float) -> Face:
    points = np.zeros((5, 2), np.float32)
    return Face(box=Box(left=left, top=0, right=left + 10, bottom=10), score=1, landmarks=points)


def test_people_count_and_not_their_pictures() -> None:
    joined = over_people([("a", 0.0), ("a", 0.0), ("a", 0.0), ("b", 1.0)])
    assert joined is not None
    assert joined.mean == 0.5
    assert joined.half == pytest.approx(12.706 * np.std([0, 1], ddof=1) / math.sqrt(2))


def test_one_person_has_no_interval_and_nobody_no_mean() -> None:
    assert str(over_people([("a", 0.25), ("a", None)])) == "0.250"
    assert over_people([("a", None)]) is None


def test_the_face_that_was_painted_is_measured() -> None:
    left, right = face(0), face(30)
    painted = np.zeros((20, 50), np.float32)
    painted[:10, 30:40] = 1
    assert nearest_face((left, right), painted) is right


def test_the_table_has_a_row_for_each_rival() -> None:
    scores = tuple(
        Score(person="a", rival=rival, template="t", identity=0.5, verified=1.0, copying=0.1, seam=0.2, outside=0, seconds=1.5)
        for rival in ("ours", "theirs")
    )
    table = BenchReport(scores=scores, stages=(("first pass", 4.2),)).table()
    assert "| ours | 0.500 | 1.000 | 0.100 | 0.200 | 0 | 1.5 |" in table
    assert "| theirs |" in table
    assert table.startswith("1 people, 1 portraits a rival")
