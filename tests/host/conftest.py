"""What the tests of our half of a WebUI share: a stand-in host, our room in it, and a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from easyphoto.engine.webui import WebuiEngine
from easyphoto.jobs import host as rooms
from easyphoto.jobs.host import Room
from tests.engine.host_standin import StandIn
from tests.engine.test_webui import write_checkpoint
from tests.tiny import make_tiny_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(params=["1.8", "forge"])
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A host with one SD1.5 checkpoint, chosen."""
    controlnet = {"1.8": "1.1.455", "forge": "forge"}[request.param]
    folder = tmp_path / "webui"
    folder.mkdir()
    made = StandIn(request.param, controlnet, folder, write_checkpoint(folder / "plain.safetensors"))
    made.install(monkeypatch)
    return made


@pytest.fixture
def room(host: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """Our room in the host, its jobs being run."""
    monkeypatch.setenv("EASYPHOTO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EASYPHOTO_DEVICE", "cpu")
    yield rooms.room(WebuiEngine)
    rooms.leave()
