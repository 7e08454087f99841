"""Fixtures every room uses; data that a clone does not have makes its tests skip themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from easyphoto.settings import PROJECT_ROOT, calm_threads

os.environ.setdefault("HF_HUB_OFFLINE", "1")
calm_threads()
with suppress(ImportError):  # a WebUI's environment has none
    from hypothesis import HealthCheck, settings

    # How quick the machine is, and what else runs there, is no property of the code.
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")
SHARED_DATA = PROJECT_ROOT.parent / "shared" / "data"


def _need(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not here: development data lies beside the project, never in it")
    return folder


@pytest.fixture(scope="session")
def shared_people() -> Path:
    """Real people, 20 photos each; development only."""
    return _need(SHARED_DATA / "people")


@pytest.fixture(scope="session")
def shared_portraits() -> Path:
    """CC0 portraits; development only."""
    return _need(SHARED_DATA / "portraits_cc0")


@pytest.fixture(scope="session")
def base_model() -> Path:
    """The embedded base model that ships with the project."""
    folder = PROJECT_ROOT / "models" / "base-256"
    assert folder.is_dir(), "models/base-256 belongs to the project"
    return folder


@pytest.fixture(scope="session")
def sample_people() -> Path:
    """The two sample people that ship with the project: woman/ and man/, 10 photos each."""
    return PROJECT_ROOT / "models" / "sample-people"


@pytest.fixture(scope="session")
def templates() -> Path:
    """The template gallery that ships with the project."""
    return PROJECT_ROOT / "templates"


@pytest.fixture(scope="session")
def tools() -> Iterator[object]:
    """The real face tools, loaded once."""
    from easyphoto.faces.tools import FaceTools

    bundle = FaceTools()
    yield bundle
    bundle.close()
