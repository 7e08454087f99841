"""The training's own environment, made with real venv and pip beside a host that is one itself; packages are stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from easyphoto.settings import PROJECT_ROOT
from easyphoto.training import worker_env
from tests.test_install import write_wheel

HOST = ("torch==2.13.0", "transformers==4.30.2")
ASK = """
import sys
from pathlib import Path
from easyphoto.training.worker_env import worker_python
print(worker_python(Path(sys.argv[1]), lambda line: print("told:", line)))
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host with torch and an old transformers; `network` beside it is all that pip can reach."""
    folder = tmp_path_factory.mktemp("host")
    network = folder / "network"
    network.mkdir()
    for pin in (*HOST, *worker_env.NEWEST, *worker_env.NEWEST_ON_310):
        write_wheel(network, pin, [f"{pin.split('==')[0]}/__init__.py"])
    venv.create(folder / "venv", with_pip=True)
    python = worker_env.python_in(folder / "venv")
    run(folder, [str(python), "-m", "pip", "install", "--no-deps", *HOST], check=True)
    # Our own code needs the real numpy.
    there, here = worker_env._paths_of(python), Path(np.__file__).parent.parent
    for part in here.glob("numpy*"):
        (there / part.name).symlink_to(part)
    return folder


def run(host: Path, command: list[str], check: bool = False) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(host / "network"), "PIP_CONFIG_FILE": os.devnull}
    asks_us = {"PYTHONPATH": str(PROJECT_ROOT)} if command[1] == "-c" else {}
    return subprocess.run(command, env={**env, **own, **asks_us}, capture_output=True, text=True, check=check, timeout=300)


def test_where_everything_is_there_the_interpreter_at_hand_is_taken(tmp_path: Path) -> None:
    told: list[str] = []
    assert worker_env.worker_python(tmp_path, told.append) == Path(sys.executable)
    assert (told, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize(("torch", "pins"), [
    ("2.13.0+cpu", worker_env.NEWEST if sys.version_info >= (3, 11) else worker_env.NEWEST_ON_310),
    ("2.1.2+cu121", worker_env.OLDER), ("2.0.1", worker_env.OLDER),
])  # fmt: skip
def test_the_hosts_torch_decides_what_goes_with_it(torch: str, pins: tuple[str, ...]) -> None:
    assert worker_env.pins_for(torch) == pins


class TestMaking:
    @pytest.fixture()
    def ask(self, host: Path, tmp_path: Path) -> Asking:
        return Asking(host, tmp_path / "home")

    def test_the_host_keeps_its_packages_and_the_worker_sees_both(self, ask: Asking, host: Path) -> None:
        first = ask()
        assert first.returncode == 0, first.stdout + first.stderr
        python = Path(first.stdout.splitlines()[-1])
        assert python.is_relative_to(ask.home)
        assert "told: the environment for training is ready" in first.stdout
        seen = "from importlib.metadata import version as v; print(v('transformers'), v('torch'), v('diffusers'))"
        newest = {pin.split("==")[0]: pin.split("==")[1] for pin in worker_env.pins_for("2.13.0")}
        inside = subprocess.run([str(python), "-c", seen], capture_output=True, text=True, check=True).stdout.split()
        assert inside == [newest["transformers"], "2.13.0", newest["diffusers"]]
        seen = "from importlib.metadata import version as v; print(v('transformers'))"
        outside = [str(worker_env.python_in(host / "venv")), "-I", "-c", seen]
        assert subprocess.run(outside, capture_output=True, text=True, check=True).stdout.strip() == "4.30.2"
        # The second training asks nobody.
        again = ask()
        assert again.stdout.splitlines() == [str(python)]

    def test_one_that_was_cut_off_is_made_again(self, ask: Asking) -> None:
        python = Path(ask().stdout.splitlines()[-1])
        (python.parent.parent / "easyphoto-ready.txt").unlink()
        assert "told: the environment for training is ready" in ask().stdout

    def test_a_failure_says_what_to_do_and_leaves_nothing(self, ask: Asking, host: Path) -> None:
        (wheel,) = (host / "network").glob("accelerate-*.whl")
        aside = wheel.rename(host / wheel.name)
        try:
            done = ask()
        finally:
            aside.rename(wheel)
        assert "ToolMissing: the environment for training could not be made" in done.stderr
        assert "accelerate" in done.stderr
        assert not list(ask.home.glob("worker-env-*/"))


class Asking:
    """Calls `worker_python` in the host's interpreter."""

    def __init__(self, host: Path, home: Path) -> None:
        self.host, self.home = host, home

    def __call__(self) -> subprocess.CompletedProcess[str]:
        python = str(worker_env.python_in(self.host / "venv"))
        return run(self.host, [python, "-c", ASK, str(self.home)])
