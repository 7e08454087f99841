"""Pictures of faces to test on: the development portraits where they are, else the templates that ship with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyphoto.imaging.io import load_photo
from easyphoto.records import Photo
from tests.conftest import SHARED_DATA


@pytest.fixture(scope="session")
def portraits(templates: Path) -> tuple[Photo, ...]:
    """Six portraits with one face each."""
    folder = SHARED_DATA / "portraits_cc0"
    names = ("f01", "f15", "f47", "m01", "m33", "m62")
    files = [folder / f"{name}.jpg" for name in names] if folder.is_dir() else sorted(templates.glob("*.*g"))[:6]
    if len(files) < 6:
        pytest.skip("needs the development portraits or the template gallery")
    return tuple(load_photo(path) for path in files)
