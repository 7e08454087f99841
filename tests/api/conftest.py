from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.rig import Rig, served


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A server with two owners and nobody who runs jobs."""
    with served(tmp_path / "home") as rig:
        yield rig
