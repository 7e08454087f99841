"""A state is on the disk as safetensors, whole, in the order in which states were begun."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from easyphoto.errors import NotFound
from easyphoto.training.saving import StateWriter


def some(value: float) -> dict[str, np.ndarray]:
    return {
        "a": np.full((2, 3), value, np.float32), "scale": np.array(value, np.float32), "losses": np.array([[value]]),
        "good": np.array(3, np.int32), "none": np.zeros((0, 1)),
    }  # fmt: skip


def test_what_is_written_is_read_as_safetensors(tmp_path: Path) -> None:
    writer = StateWriter(tmp_path / "state", lent=False)
    writer.write(some(0.5))
    writer.wait()
    found = load_file(tmp_path / "state")
    assert found.keys() == some(0.5).keys()
    for key, wanted in some(0.5).items():
        assert (found[key].dtype, found[key].shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(found[key], wanted)


def test_lent_arrays_may_change_as_soon_as_writing_has_begun(tmp_path: Path) -> None:
    writer, state, go = StateWriter(tmp_path / "state", lent=True), some(1.0), threading.Event()
    writer.write(state, go.wait)
    state["a"][:] = 7.0
    go.set()
    writer.wait()
    assert load_file(tmp_path / "state")["a"].max() == 1.0


def test_what_must_be_there_first_is_there_first(tmp_path: Path) -> None:
    writer, seen = StateWriter(tmp_path / "state", lent=False), []
    writer.write(some(1.0), lambda: seen.append((tmp_path / "state").exists()))
    writer.write(some(2.0), lambda: seen.append(float(load_file(tmp_path / "state")["scale"])))
    writer.wait()
    assert seen == [False, 1.0]
    writer.drop()
    assert not (tmp_path / "state").exists()


def test_what_went_wrong_is_told_at_the_next_occasion(tmp_path: Path) -> None:
    writer = StateWriter(tmp_path / "gone" / "state", lent=False)
    writer.write(some(1.0))
    with pytest.raises(NotFound, match="gone"):
        writer.wait()
    writer.wait()
