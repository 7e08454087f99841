"""LoRA files merged into the weights and taken out again: exact, complete, and refused before anything is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.lora_patch import lora_layers, patched
from easyphoto.engine.models import Models
from easyphoto.errors import LoraError, NotFound
from easyphoto.records import LoraUse
from easyphoto.store.lora_file import LoraFile, read_lora, write_lora
from tests.engine.conftest import random_lora


def weights(models: Models) -> dict[str, np.ndarray]:
    return {name: layer.weight.detach().numpy().copy() for name, layer in lora_layers(models).items()}


def write(folder: Path, file: LoraFile, name: str = "lora.safetensors") -> Path:
    write_lora(folder / name, file)
    return folder / name


def test_names_are_kohyas(tiny_models: Models) -> None:
    names = lora_layers(tiny_models)
    assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q" in names
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj" in names


def test_weights_are_the_base_plus_the_scaled_product(tiny_models: Models, tiny_lora: Path) -> None:
    before, file = weights(tiny_models), read_lora(tiny_lora)
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    down, up = file.tensors[f"{name}.lora_down.weight"], file.tensors[f"{name}.lora_up.weight"]
    with patched(tiny_models, (LoraUse(path=tiny_lora, weight=0.5),)):
        now = weights(tiny_models)
    np.testing.assert_allclose(now[name], before[name] + 0.5 * (4.0 / 2) * up @ down, rtol=1e-5, atol=1e-6)
    touched = {key for key in now if (now[key] != before[key]).any()}
    assert touched == set(file.module_names())


def test_leaving_restores_the_very_same_tensors(tiny_models: Models, tiny_lora: Path) -> None:
    before = {name: layer.weight.data_ptr() for name, layer in lora_layers(tiny_models).items()}
    values = weights(tiny_models)
    with pytest.raises(KeyboardInterrupt), patched(tiny_models, (LoraUse(path=tiny_lora),)):
        raise KeyboardInterrupt
    assert {name: layer.weight.data_ptr() for name, layer in lora_layers(tiny_models).items()} == before
    after = weights(tiny_models)
    assert all((after[name] == values[name]).all() for name in values)


def test_two_loras_add_up(tiny_models: Models, tiny_lora: Path, tmp_path: Path) -> None:
    other = write(tmp_path, random_lora(tiny_models, rank=3, seed=7))
    before = weights(tiny_models)
    single = []
    for path, weight in ((tiny_lora, 0.5), (other, 0.25)):
        with patched(tiny_models, (LoraUse(path=path, weight=weight),)):
            single.append(weights(tiny_models))
    with patched(tiny_models, (LoraUse(path=tiny_lora, weight=0.5), LoraUse(path=other, weight=0.25))):
        both = weights(tiny_models)
    for name, base in before.items():
        np.testing.assert_allclose(both[name] - base, single[0][name] + single[1][name] - 2 * base, rtol=1e-4, atol=1e-5)


def refused(models: Models, path: Path, words: str) -> None:
    before = weights(models)
    with pytest.raises(LoraError, match=words), patched(models, (LoraUse(path=path),)):
        pytest.fail("a broken LoRA was let in")
    after = weights(models)
    assert all((after[name] == before[name]).all() for name in before)


def test_an_unknown_layer_is_refused(tiny_models: Models, tmp_path: Path) -> None:
    tensors = dict(random_lora(tiny_models).tensors)
    tensors["lora_unet_mid_block_elsewhere.lora_down.weight"] = np.zeros((2, 8), np.float32)
    tensors["lora_unet_mid_block_elsewhere.lora_up.weight"] = np.zeros((8, 2), np.float32)
    refused(tiny_models, write(tmp_path, LoraFile(tensors=tensors)), "lora_unet_mid_block_elsewhere")


def test_a_wrong_shape_is_refused(tiny_models: Models, tmp_path: Path) -> None:
    tensors = dict(random_lora(tiny_models).tensors)
    key = next(key for key in tensors if key.endswith("attn2_to_k.lora_down.weight"))
    tensors[key] = np.zeros((2, 768), np.float32)
    refused(tiny_models, write(tmp_path, LoraFile(tensors=tensors)), "768")


def test_another_family_is_refused(tiny_models: Models, tmp_path: Path) -> None:
    file = replace(random_lora(tiny_models), metadata={"ss_base_model_version": "sd_v1"})
    refused(tiny_models, write(tmp_path, file), "sd15")


def test_a_truncated_file_is_refused(tiny_models: Models, tiny_lora: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(tiny_lora.read_bytes()[:-100])
    refused(tiny_models, path, "cut")


def test_a_file_that_is_no_lora_is_refused(tiny_models: Models, tmp_path: Path) -> None:
    path = tmp_path / "letter.safetensors"
    path.write_text("Dear Sir or Madam")
    refused(tiny_models, path, "letter")


def test_the_second_file_is_checked_before_the_first_is_used(tiny_models: Models, tiny_lora: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\0" * 64)
    before = weights(tiny_models)
    with pytest.raises(LoraError), patched(tiny_models, (LoraUse(path=tiny_lora), LoraUse(path=broken))):
        pytest.fail("a broken LoRA was let in")
    assert all((now == before[name]).all() for name, now in weights(tiny_models).items())


def test_a_missing_file_is_named(tiny_models: Models, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="gone"), patched(tiny_models, (LoraUse(path=tmp_path / "gone.safetensors"),)):
        pytest.fail("a missing LoRA was let in")
