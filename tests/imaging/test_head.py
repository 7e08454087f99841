"""A head turned by a known angle is measured at that angle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from easyphoto.imaging import head
from easyphoto.records import Face
from tests.made_faces import made_face


def posed(yaw: float, pitch: float, roll: float) -> Face:
    """The rigid mean face seen from afar after turning it: roll last, pitch first."""
    y, p, r = np.radians([yaw, pitch, roll])
    turn_pitch = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    turn_yaw = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    turn_roll = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    seen = (head._SHAPE @ (turn_roll @ turn_yaw @ turn_pitch).T)[:, :2] * 80 + 100
    points = np.zeros((478, 2), np.float32)
    points[list(head.RIGID)] = seen
    return replace(made_face(), mesh=points)


@pytest.mark.parametrize("yaw", [-50, -20, 0, 10, 40])
def test_yaw_is_measured(yaw: float) -> None:
    turn = head.head_turn(posed(yaw, 0, 0))
    assert turn is not None
    assert (turn.yaw, turn.pitch, turn.roll) == pytest.approx((yaw, 0, 0), abs=0.1)


@pytest.mark.parametrize("roll", [-80, 0, 30])
def test_roll_is_measured(roll: float) -> None:
    turn = head.head_turn(posed(0, 0, roll))
    assert turn is not None
    assert turn.roll == pytest.approx(roll, abs=0.1)
    assert turn.frontality == pytest.approx(1, abs=1e-3)


def test_pitch_is_measured_and_nodding_down_is_positive() -> None:
    turn = head.head_turn(posed(0, 20, 0))
    assert turn is not None
    assert turn.pitch == pytest.approx(20, abs=0.1)
    towards_camera = (head._SHAPE[4] - head._SHAPE[10:12].mean(0))[2]  # the nose's root lies before the ears
    assert towards_camera < 0
    nose, ears = (posed(0, 20, 0).mesh[list(where), 1].mean() for where in ((6,), (127, 356)))  # type: ignore[index]
    nose0, ears0 = (posed(0, 0, 0).mesh[list(where), 1].mean() for where in ((6,), (127, 356)))  # type: ignore[index]
    assert nose - ears > nose0 - ears0


def test_frontality_falls_with_the_turn() -> None:
    values = [head.head_turn(posed(yaw, 0, 0)).frontality for yaw in (0, 15, 30, 45, 70)]  # type: ignore[union-attr]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(1, abs=1e-3)
    assert values[-1] == 0


def test_no_mesh_no_turn() -> None:
    assert head.head_turn(replace(made_face(), mesh=None)) is None
