"""Our LoRA files are what kohya's trainer writes; kohya's own code is the judge, where a checkout of it is at hand.

    EASYPHOTO_KOHYA_DIR=.../sd-scripts EASYPHOTO_KOHYA_PYTHON=.../its/venv/bin/python make test

The whole-size models have no weights here (shapes alone); outputs are compared on small models of the same structure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyphoto.engine.lora_patch import lora_layers, patched
from easyphoto.engine.models import load_models
from easyphoto.engine.text import TextStates, added_conditions, encode_tokens
from easyphoto.families import Family
from easyphoto.records import LoraUse
from easyphoto.settings import Settings
from easyphoto.specs import LoraSpec, TrainSpec
from easyphoto.store.lora_file import LoraFile, check_lora, read_lora, write_lora
from easyphoto.store.lora_meta import TrainingFacts, kohya_metadata, legacy_hash, with_hashes
from tests.engine.ldm_files import ldm_tensors, make_sd15, weights, write, write_vae
from tests.engine.whole import FIRST, SECOND, whole_models
from tests.tiny_xl import Sizes, make_tiny_sdxl

KOHYA = os.environ.get("EASYPHOTO_KOHYA_DIR", "")
pytestmark = pytest.mark.skipif(not KOHYA, reason="EASYPHOTO_KOHYA_DIR names no checkout of sd-scripts")
WIDE = Sizes(channels=(32, 64, 128), depth=(1, 2, 10), words=(768, 1280), pooled=1280, waves=256)
"""Everything that kohya's SDXL has in its code instead of in constants."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    family: Family
    folder: Path
    report: dict[str, Any]
    ours: LoraFile


@pytest.fixture(scope="module", params=[Family.SD15, Family.SDXL], ids=lambda family: family.value)
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    family, folder = request.param, tmp_path_factory.mktemp(request.param.value)
    base = make_base(family, folder / "base")
    write(folder / "base.safetensors", ldm_tensors(base))
    write(folder / "unet.safetensors", weights(base / "unet"))
    noise = np.random.default_rng(0)
    words = np.array([[512, 40, 41, 42, *[513] * 73]], np.int64)
    np.savez(folder / "words.npz", words=words, latents=noise.normal(size=(1, 4, 8, 8)).astype(np.float32))
    (folder / "sizes.json").write_text(json.dumps([FIRST, SECOND]))
    ours = whole_lora(family)
    write_lora(folder / "ours.safetensors", ours)
    python = os.environ.get("EASYPHOTO_KOHYA_PYTHON") or sys.executable
    child = [python, str(Path(__file__).with_name("kohya_child.py")), KOHYA, family.value, str(folder)]
    done = subprocess.run(child, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return Compared(family=family, folder=folder, report=json.loads((folder / "report.json").read_text()), ours=ours)


def make_base(family: Family, folder: Path) -> Path:
    if family is Family.SD15:
        return make_sd15(folder, layers=2)
    make_tiny_sdxl(folder, sizes=WIDE)
    write_vae(folder, 0.13025)
    return folder


def whole_lora(family: Family) -> LoraFile:
    """A LoRA as our trainer names and shapes it, for the whole-size model."""
    tensors = {}
    for name, layer in lora_layers(whole_models(family)).items():
        if not any(word in name for word in ("transformer_blocks", "_proj_in", "_proj_out", "self_attn", "_mlp_fc")):
            continue
        outputs, inputs, *kernel = layer.weight.shape
        tensors[f"{name}.lora_down.weight"] = np.zeros((4, inputs, *kernel), np.float16)
        tensors[f"{name}.lora_up.weight"] = np.zeros((outputs, 4, *kernel), np.float16)
        tensors[f"{name}.alpha"] = np.array(2.0, np.float16)
    spec = replace(TrainSpec.for_family("Ada", Path("/models/a.safetensors"), family), lora=LoraSpec(rank=4, alpha=2.0))
    return with_hashes(tensors, kohya_metadata(spec, TrainingFacts(steps=3, photos=2)))


def test_keys_shapes_and_types_are_kohyas(compared: Compared) -> None:
    theirs = read_lora(compared.folder / "theirs.safetensors").tensors
    assert set(compared.ours.tensors) == set(theirs)
    for key, tensor in theirs.items():
        assert compared.ours.tensors[key].shape == tensor.shape, key
        assert compared.ours.tensors[key].dtype == tensor.dtype, key


def test_kohya_loads_ours_without_a_key_too_many_or_too_few(compared: Compared) -> None:
    assert compared.report["missing"] == []
    assert compared.report["unexpected"] == []


def test_kohyas_file_fits_our_model(compared: Compared) -> None:
    shapes = {name: tuple(layer.weight.shape) for name, layer in lora_layers(whole_models(compared.family)).items()}
    check_lora(read_lora(compared.folder / "theirs.safetensors"), shapes, compared.family)


def test_hashes_are_those_kohya_computes(compared: Compared) -> None:
    own = compared.ours.metadata
    assert [own["sshs_model_hash"], own["sshs_legacy_hash"]] == compared.report["hashes"]


def test_the_base_models_hash_is_kohyas(compared: Compared) -> None:
    assert legacy_hash(compared.folder / "base.safetensors") == compared.report["base"]
    assert legacy_hash(compared.folder) == ""


def test_metadata_has_kohyas_fields_and_words(compared: Compared) -> None:
    ours, theirs = compared.ours.metadata, read_lora(compared.folder / "theirs.safetensors").metadata
    assert {field for field in ours if field.startswith("ss_")} <= set(compared.report["fields"])
    when_and_by_whom = {"modelspec.date", "modelspec.implementation_version"}
    same = {field for field in theirs if field.startswith(("ss_", "modelspec."))} - when_and_by_whom
    assert {field: ours.get(field) for field in same} == {field: theirs[field] for field in same}


def test_kohyas_lora_does_in_our_engine_what_it_does_in_kohyas(compared: Compared) -> None:
    import torch

    seen, wanted = np.load(compared.folder / "words.npz"), np.load(compared.folder / "outputs.npz")
    settings = replace(Settings.from_env({}), tokenizer=compared.folder / "base" / "tokenizer")
    models = load_models(compared.folder / "base.safetensors", "cpu", settings=settings)
    words = torch.from_numpy(seen["words"])

    def outputs() -> tuple[TextStates, Any]:
        with torch.no_grad():
            text = encode_tokens(models, (words, words))
            out = models.unet(
                torch.from_numpy(seen["latents"]), torch.tensor(300), text.states, return_dict=False,
                added_cond_kwargs=added_conditions(models, text, (64, 64)),
            )[0]  # fmt: skip
        return text, out

    with patched(models, (LoraUse(path=compared.folder / "small.safetensors", weight=1.0),)):
        text, out = outputs()
    np.testing.assert_allclose(text.states, wanted["words"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(out, wanted["out"], rtol=1e-3, atol=1e-3)
    assert np.abs(outputs()[1].numpy() - wanted["out"]).max() > 0.05, "the LoRA does something"
    shutil.rmtree(compared.folder / "base")
