"""Base models: which are taken, which are refused and with what words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.detect import detect_family
from easyphoto.engine.models import load_models, resolve_device
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.errors import InputError, NotFound, ToolMissing
from easyphoto.families import Family
from easyphoto.records import InpaintJob
from tests.engine.conftest import edit_json
from tests.engine.contract import picture, square_mask


def test_the_tiny_base_is_of_the_embedded_family(tiny_base: Path) -> None:
    assert detect_family(tiny_base) is Family.EMBEDDED


def test_the_width_of_the_text_states_tells_sd15(bare_base: Path) -> None:
    edit_json(bare_base / "unet" / "config.json", cross_attention_dim=768)
    assert detect_family(bare_base) is Family.SD15


@pytest.mark.parametrize(
    ("changes", "words"), [({"cross_attention_dim": 1024}, "1024"), ({"in_channels": 9}, "9 input channels")]
)
def test_other_models_are_refused(bare_base: Path, changes: dict, words: str) -> None:
    edit_json(bare_base / "unet" / "config.json", **changes)
    with pytest.raises(InputError, match=words):
        load_models(bare_base, "cpu")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        load_models(tmp_path / "nowhere", "cpu")


def test_an_incomplete_folder_says_what_is_missing(bare_base: Path) -> None:
    (bare_base / "vae" / "config.json").unlink()
    with pytest.raises(InputError, match=r"vae/config\.json missing"):
        load_models(bare_base, "cpu")


@pytest.mark.parametrize("damage", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"not safetensors at all"])
def test_damaged_weights_are_refused_in_one_sentence(bare_base: Path, damage: bytes) -> None:
    next((bare_base / "unet").glob("*.safetensors")).write_bytes(damage)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_models(bare_base, "cpu")


def test_pickled_weights_are_never_opened(bare_base: Path) -> None:
    weights = next((bare_base / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="safetensors"):
        load_models(bare_base, "cpu")


def test_a_config_that_is_no_json_is_refused(bare_base: Path) -> None:
    (bare_base / "unet" / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_models(bare_base, "cpu")


def test_half_precision_files_run_as_float32_on_a_cpu(tiny_base: Path, bare_base: Path) -> None:
    import torch

    half = load_models(tiny_base, "cpu", torch.float16)
    half.unet.save_pretrained(bare_base / "unet")
    loaded = load_models(bare_base, "cpu")
    assert {parameter.dtype for parameter in loaded.unet.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in loaded.unet.parameters())


def test_auto_finds_a_device() -> None:
    assert resolve_device("auto").split(":")[0] in {"cuda", "mps", "cpu"}


def test_a_named_gpu_that_is_not_there_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ToolMissing, match="CUDA"):
        resolve_device("cuda")


def test_importing_the_engine_loads_no_torch() -> None:
    code = (
        "import sys, easyphoto.engine.standalone, easyphoto.engine.fake, easyphoto.portrait.pipeline;"
        "sys.exit(bool({'torch', 'diffusers', 'transformers', 'mediapipe', 'dlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_sd15_folder_of_reduced_width_runs_by_the_same_code(tiny_base: Path, tmp_path: Path) -> None:
    """SD1.5's own layout (four levels, 768-wide text states, CLIP-L's vocabulary layout) with random weights."""
    import shutil

    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path / "sd15"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("controlnet", "unet", "text_encoder"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=4, out_channels=4, block_out_channels=(16, 32, 32, 32), layers_per_block=2,
            norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, cross_attention_dim=768, attention_head_dim=8,
        )
        unet.save_pretrained(folder / "unet")
        ControlNetModel.from_unet(unet).save_pretrained(folder / "controlnet" / "canny")
        CLIPTextModel(CLIPTextConfig(
            hidden_size=768, intermediate_size=64, num_hidden_layers=1, num_attention_heads=12, vocab_size=514,
            max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=1,
        )).save_pretrained(folder / "text_encoder")
    models = load_models(folder, "cpu")
    assert models.family is Family.SD15
    assert {kind.value for kind in models.conditions} == {"canny"}
    job = InpaintJob(image=picture(64), mask=square_mask(64), prompt="a woman", negative="blurry", strength=0.5, steps=4)
    painted = StandaloneEngine(models).inpaint(job)
    assert painted.shape == (64, 64, 3)
    assert (painted != job.image).any()
    assert (np.asarray(painted)[job.mask == 0] == job.image[job.mask == 0]).all()
