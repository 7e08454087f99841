"""The contract on the base model that ships, at half its size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from easyphoto.engine.models import Models, load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.families import Family
from easyphoto.store.lora_file import write_lora
from tests.engine.conftest import random_lora
from tests.engine.contract import EngineContract

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(base_model: Path) -> Models:
    return load_models(base_model, "cpu")


@pytest.fixture()
def engine(models: Models) -> Iterator[StandaloneEngine]:
    with StandaloneEngine(models) as engine:
        yield engine


@pytest.fixture(scope="module")
def lora(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "person.safetensors"
    write_lora(path, random_lora(models))
    return path


class TestEmbeddedModel(EngineContract):
    side = 128

    def test_is_of_its_own_family(self, engine: StandaloneEngine) -> None:
        assert engine.family is Family.EMBEDDED
