from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from easyphoto.errors import LoraError, NotFound, StorageError
from easyphoto.families import Family
from easyphoto.specs import LoraSpec, TrainSpec
from easyphoto.store.lora_file import LoraFile, check_lora, kohya_key, module_tensors, read_lora, write_lora
from easyphoto.store.lora_meta import TrainingFacts, kohya_metadata, spec_of, with_hashes

SPEC = TrainSpec(person="Anna", base_model=Path("/models/base-256"), lora=LoraSpec(rank=2, alpha=1.0))
NAME = "lora_unet_mid_block_attentions_0_proj_in"


def lora(outputs: int = 5, inputs: tuple[int, ...] = (6,), rank: int = 2, kind: type = np.float32, seed: int = 0) -> LoraFile:
    rng = np.random.default_rng(seed)
    ones = (1,) * (len(inputs) - 1)
    tensors = {
        f"{NAME}.lora_down.weight": rng.normal(size=(rank, *inputs)).astype(kind),
        f"{NAME}.lora_up.weight": rng.normal(size=(outputs, rank, *ones)).astype(kind),
        f"{NAME}.alpha": np.array(1.0, kind),
    }
    return LoraFile(tensors=tensors, metadata=kohya_metadata(SPEC, TrainingFacts(steps=3, photos=2)))


def test_keys_are_kohyas() -> None:
    module = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
    assert kohya_key("lora_unet", module) == "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0"
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    assert kohya_key("lora_te", "text_model.encoder.layers.0.self_attn.q_proj") == text
    assert kohya_key("lora_te", "encoder.layers.0.self_attn.q_proj") == text
    assert kohya_key("lora_te2", "encoder.layers.0.mlp.fc1") == "lora_te2_text_model_encoder_layers_0_mlp_fc1"


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_files_survive_the_round_trip(tmp_path: Path, kind: type) -> None:
    file = lora(kind=kind)
    write_lora(tmp_path / "a.safetensors", file)
    back = read_lora(tmp_path / "a.safetensors")
    assert dict(back.metadata) == dict(file.metadata)
    assert set(back.tensors) == set(file.tensors)
    for key, tensor in file.tensors.items():
        assert back.tensors[key].dtype == kind
        assert back.tensors[key].shape == tensor.shape
        np.testing.assert_array_equal(back.tensors[key], tensor)


def test_the_change_is_alpha_over_rank_times_up_down() -> None:
    module = lora().module(NAME)
    np.testing.assert_allclose(module.delta(), 0.5 * module.up @ module.down, rtol=1e-6)
    conv = lora(inputs=(6, 3, 3)).module(NAME)
    expected = 0.5 * np.einsum("or,rikl->oikl", conv.up[:, :, 0, 0], conv.down)
    np.testing.assert_allclose(conv.delta(), expected, rtol=1e-5)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    down, up = torch.randn(2, 6).bfloat16(), torch.randn(5, 2).bfloat16()
    save_file({f"{NAME}.lora_down.weight": down, f"{NAME}.lora_up.weight": up}, tmp_path / "b.safetensors")
    module = read_lora(tmp_path / "b.safetensors").module(NAME)
    np.testing.assert_array_equal(module.down, down.float().numpy())
    assert module.alpha == 2.0, "a file without alpha means alpha = rank"


def _broken_files(path: Path) -> dict[str, bytes]:
    write_lora(path, lora())
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    header[f"{NAME}.alpha"]["data_offsets"] = [0, 10**9]
    wrong = json.dumps(header).encode()
    return {
        "empty": b"",
        "text": b"This is no LoRA at all, but long enough to be taken for one.",
        "cut off": whole[:-7],
        "cut header": whole[:40],
        "huge header": struct.pack("<Q", 2**60) + whole[8:],
        "lying offsets": struct.pack("<Q", len(wrong)) + wrong + whole[8 + length :],
        "pickle": b"\x80\x04\x95" + b"\x00" * 60,
    }


@pytest.mark.parametrize("which", ["empty", "text", "cut off", "cut header", "huge header", "lying offsets", "pickle"])
def test_broken_files_are_refused_in_a_sentence(tmp_path: Path, which: str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(_broken_files(tmp_path / "whole.safetensors")[which])
    with pytest.raises(LoraError, match=r"broken\.safetensors"):
        read_lora(path)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_lora(tmp_path / "no.safetensors")
    write_lora(tmp_path / "unet.safetensors", LoraFile(tensors={"conv_in.weight": np.zeros((2, 2), np.float32)}))
    with pytest.raises(LoraError, match="holds no LoRA"):
        read_lora(tmp_path / "unet.safetensors")


def test_a_lora_of_another_model_is_refused() -> None:
    check_lora(lora(), {NAME: (5, 6)}, Family.EMBEDDED)
    check_lora(lora(inputs=(6, 1, 1)), {NAME: (5, 6)})
    with pytest.raises(LoraError, match=r"shape \(5, 6\), the base model's \(7, 6\)"):
        check_lora(lora(), {NAME: (7, 6)})
    with pytest.raises(LoraError, match="does not have"):
        check_lora(lora(), {"lora_unet_other": (5, 6)})
    with pytest.raises(LoraError, match="embedded family and the base model is sd15"):
        check_lora(lora(), {NAME: (5, 6)}, Family.SD15)


def test_factors_that_do_not_fit_are_refused() -> None:
    tensors = dict(lora().tensors)
    tensors[f"{NAME}.lora_up.weight"] = np.zeros((5, 3), np.float32)
    with pytest.raises(LoraError, match="do not fit"):
        check_lora(LoraFile(tensors=tensors))
    tensors[f"{NAME}.lora_up.weight"] = np.full((5, 2), np.nan, np.float32)
    with pytest.raises(LoraError, match="not finite"):
        check_lora(LoraFile(tensors=tensors))
    del tensors[f"{NAME}.lora_up.weight"]
    with pytest.raises(LoraError, match=r"no lora_up\.weight"):
        check_lora(LoraFile(tensors=tensors))


@pytest.mark.parametrize("end", ["lora_down.weight", "alpha"])
def test_a_lora_that_would_drown_the_model_is_refused(end: str) -> None:
    tensors = dict(lora().tensors)
    tensors[f"{NAME}.{end}"] = np.asarray(tensors[f"{NAME}.{end}"] * np.float32(1e28))
    with pytest.raises(LoraError, match="beyond all measure"):
        check_lora(LoraFile(tensors=tensors))


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        (Family.EMBEDDED, "easyphoto-embedded/lora"), (Family.SD15, "stable-diffusion-v1/lora"),
        (Family.SDXL, "stable-diffusion-xl-v1-base/lora"),
    ],
)  # fmt: skip
def test_newer_tools_find_stabilitys_fields(family: Family, architecture: str) -> None:
    spec = TrainSpec.for_family("Anna", Path("/models/a.safetensors"), family)
    facts = TrainingFacts(steps=3, photos=2, finished=1.7e9, prediction="v_prediction", base_digest="ab" * 32)
    meta = kohya_metadata(spec, facts)
    assert meta["modelspec.architecture"] == architecture
    assert (meta["modelspec.title"], meta["modelspec.prediction_type"]) == ("Anna", "v")
    assert meta["modelspec.resolution"] == f"{spec.data.size}x{spec.data.size}"
    assert meta["modelspec.date"] == "2023-11-14T22:13:20"
    assert meta["ss_new_sd_model_hash"] == "ab" * 32


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_modules_tensors_are_all_of_one_precision_as_kohya_saves_them(kind: type) -> None:
    tensors = module_tensors(NAME, lora().module(NAME), kind)
    assert set(tensors) == {f"{NAME}.lora_down.weight", f"{NAME}.lora_up.weight", f"{NAME}.alpha"}
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(kind)}
    assert tensors[f"{NAME}.alpha"].shape == ()


def test_the_file_carries_kohyas_metadata_and_the_whole_spec() -> None:
    file = with_hashes(lora().tensors, lora().metadata)
    meta = file.metadata
    assert meta["ss_network_module"] == "networks.lora"
    assert (meta["ss_network_dim"], meta["ss_network_alpha"]) == ("2", "1.0")
    assert (meta["ss_steps"], meta["ss_num_train_images"], meta["ss_resolution"]) == ("3", "2", "(512, 512)")
    assert json.loads(meta["ss_tag_frequency"]) == {"easyphoto": {SPEC.data.caption: 2}}
    assert json.loads(meta["ss_dataset_dirs"]) == {"easyphoto": {"n_repeats": 1, "img_count": 2}}
    assert (meta["ss_network_dropout"], meta["ss_v2"]) == ("None", "False")
    assert not {"ss_sd_model_hash", "ss_new_sd_model_hash"} & set(meta), "no hash of a file that is not there"
    assert spec_of(file) == SPEC
    assert file.family is Family.EMBEDDED
    assert all(isinstance(value, str) for value in meta.values())


def test_family_is_read_from_other_makers_files() -> None:
    tensors = lora().tensors
    assert LoraFile(tensors=tensors, metadata={"ss_base_model_version": "sd_v1"}).family is Family.SD15
    assert LoraFile(tensors=tensors, metadata={"ss_base_model_version": "sdxl_base_v0-9"}).family is Family.SDXL
    assert LoraFile(tensors=tensors).family is None


def test_hashes_are_those_the_webui_computes(tmp_path: Path) -> None:
    """kohya: the new hash leaves the header out; the old one is 64 KiB from the first MiB on, eight digits of it."""
    big = lora(outputs=700, inputs=(800,), rank=200)
    file = with_hashes(big.tensors, big.metadata)
    write_lora(tmp_path / "a.safetensors", file)
    data = (tmp_path / "a.safetensors").read_bytes()
    body = data[8 + struct.unpack("<Q", data[:8])[0] :]
    assert file.metadata["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    immutable = {key: value for key, value in file.metadata.items() if key.startswith("ss_")}
    write_lora(tmp_path / "b.safetensors", LoraFile(tensors=file.tensors, metadata=immutable))
    window = (tmp_path / "b.safetensors").read_bytes()[0x100000:0x110000]
    assert len(window) > 0
    assert file.metadata["sshs_legacy_hash"] == hashlib.sha256(window).hexdigest()[:8]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="full"):
        write_lora(tmp_path / "a.safetensors", lora())
    assert list(tmp_path.iterdir()) == []
