"""Tiny base models and LoRAs for the engine's tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.lora_patch import lora_layers
from easyphoto.engine.models import Models, load_models
from easyphoto.store.lora_file import LoraFile, write_lora
from tests.tiny import make_tiny_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of the embedded family with random weights."""
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_models(tiny_base: Path) -> Models:
    """The tiny base model, loaded; tests must leave its weights as they found them."""
    return load_models(tiny_base, "cpu")


@pytest.fixture()
def bare_base(tiny_base: Path, tmp_path: Path) -> Path:
    """The tiny base model without ControlNets, free to be damaged."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("controlnet"))
    return folder


@pytest.fixture(scope="session")
def tiny_lora(tiny_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA for every attention layer of the tiny base model, with random factors."""
    path = tmp_path_factory.mktemp("lora") / "person.safetensors"
    write_lora(path, random_lora(tiny_models))
    return path


def random_lora(models: Models, rank: int = 2, alpha: float = 4.0, seed: int = 0) -> LoraFile:
    """Random factors for all that kohya's trainer changes: the UNet's transformers, the text encoders' attention and MLP."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, layer in lora_layers(models).items():
        if not any(word in name for word in ("transformer_blocks", "_proj_in", "_proj_out", "self_attn", "_mlp_fc")):
            continue
        shape = tuple(layer.weight.shape)
        ones = (1,) * (len(shape) - 2)
        tensors[f"{name}.lora_down.weight"] = rng.normal(0, 0.3, (rank, *shape[1:])).astype(np.float32)
        tensors[f"{name}.lora_up.weight"] = rng.normal(0, 0.3, (shape[0], rank, *ones)).astype(np.float32)
        tensors[f"{name}.alpha"] = np.array(alpha, np.float32)
    return LoraFile(tensors=tensors, metadata={})


def edit_json(path: Path, **changes: object) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
