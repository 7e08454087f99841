"""One training shared by several processes learns what one process learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.errors import JobFailed, SpecError
from easyphoto.records import PreparedSet
from easyphoto.specs import TrainSpec
from easyphoto.store.lora_file import read_lora
from easyphoto.store.people import PeopleStore
from easyphoto.training import launch
from easyphoto.training.launch import LaunchOptions
from easyphoto.training.team import check_team

PROCESSES = 2


def test_two_processes_learn_what_one_learns(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore) -> None:
    """Each has one of a step's two pictures; over gloo, as between CPUs."""
    steady = replace(spec, optim=replace(spec.optim, learning_rate=1e-4, text_learning_rate=1e-4))
    results = [launch.train(steady, prepared, store, LaunchOptions(gpus=gpus)) for gpus in (1, PROCESSES)]
    alone, shared = results
    np.testing.assert_allclose(shared.losses, alone.losses, rtol=2e-5)
    ours, theirs = (read_lora(result.lora).tensors for result in results)
    assert ours.keys() == theirs.keys()
    for key, wanted in ours.items():
        distance = np.linalg.norm(theirs[key].astype(np.float32) - wanted.astype(np.float32))
        assert distance <= 2e-3 * np.linalg.norm(wanted.astype(np.float32)) + 1e-6, key


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < PROCESSES, reason="needs two CUDA devices")
def test_two_gpus_learn_what_one_learns(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore) -> None:
    """Over NCCL; both trainings end by themselves."""
    optim = replace(spec.optim, learning_rate=1e-4, text_learning_rate=1e-4)
    steady = replace(spec, optim=optim, device="cuda")
    alone, shared = (launch.train(steady, prepared, store, LaunchOptions(gpus=gpus)) for gpus in (1, PROCESSES))
    np.testing.assert_allclose(shared.losses, alone.losses, rtol=5e-3)


def test_a_step_that_cannot_be_shared_evenly_is_refused(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore) -> None:
    with pytest.raises(SpecError, match="cannot be shared evenly by 3"):
        check_team(spec.optim, 3, "cpu")


def test_a_lost_mate_ends_the_training_with_a_sentence(
    spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mate's environment is broken: the worker must not wait for it for ever."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import os\nif os.environ.get('RANK') == '1': os._exit(3)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(JobFailed, match="one of the 2 processes"):
        launch.train(spec, prepared, store, LaunchOptions(gpus=PROCESSES))
