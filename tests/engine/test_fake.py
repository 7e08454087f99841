"""The fake engine keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyphoto.engine.fake import FakeEngine
from tests.engine.contract import EngineContract, MissingControlNet


class TestFakeEngine(EngineContract, MissingControlNet):
    @pytest.fixture()
    def engine(self) -> FakeEngine:
        return FakeEngine()

    @pytest.fixture()
    def bare_engine(self) -> FakeEngine:
        return FakeEngine(conditions=frozenset())

    @pytest.fixture()
    def lora(self, tmp_path: Path) -> Path:
        path = tmp_path / "person.safetensors"
        path.write_bytes(b"any bytes count")
        return path

    def test_remembers_its_jobs(self, engine: FakeEngine, job: object) -> None:
        engine.inpaint(job)
        assert engine.jobs == [job]
