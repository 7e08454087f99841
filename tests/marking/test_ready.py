"""What cannot be marked is refused before anything is painted."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyphoto.errors import InputError
from easyphoto.marking import MarkingSettings
from easyphoto.marking.marks import ready


def test_nothing_switched_on_is_always_ready() -> None:
    ready(MarkingSettings())


def test_a_certificate_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    with pytest.raises(InputError, match="cannot be read"):
        ready(MarkingSettings(certificate=tmp_path / "a.pem", key=tmp_path / "b.pem"))
