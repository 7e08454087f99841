"""The checkpoint for the WebUI computes what the diffusers folder computes; diffusers' own reader is the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyphoto.errors import EasyPhotoError
from easyphoto.store import ldm_layout
from easyphoto.store.ldm_checkpoint import LdmFiles, controlnet_file, ldm_lora, write_ldm
from easyphoto.store.lora_file import LoraFile
from tests.tiny import make_tiny_base


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("ldm") / "base")


@pytest.fixture(scope="module", params=["tiny", "embedded"])
def model(request: pytest.FixtureRequest, tiny: Path, base_model: Path) -> Path:
    return tiny if request.param == "tiny" else base_model


@pytest.fixture(scope="module")
def written(model: Path, tmp_path_factory: pytest.TempPathFactory) -> LdmFiles:
    folder = tmp_path_factory.mktemp("host")
    return write_ldm(model, folder / "Stable-diffusion", folder / "ControlNet", name="easyphoto")


def parts(path: Path, prefix: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {key.removeprefix(prefix): tensor.float() for key, tensor in load_file(path).items() if key.startswith(prefix)}


def test_the_unet_is_the_same(model: Path, written: LdmFiles) -> None:
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    ours = UNet2DConditionModel.from_pretrained(model / "unet").float().eval()
    ldm = {f"model.diffusion_model.{key}": value for key, value in parts(written.checkpoint, "model.diffusion_model.").items()}
    back = convert_ldm_unet_checkpoint(ldm, dict(ours.config))
    assert set(back) == set(ours.state_dict())
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.state_dict().items())


def test_the_autoencoder_gives_the_same_pictures(model: Path, written: LdmFiles) -> None:
    import torch
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    ours = AutoencoderKL.from_pretrained(model / "vae").float().eval()
    config = json.loads(written.config.read_text())["model"]["params"]["first_stage_config"]["params"]["ddconfig"]
    wide = dict(ours.config) | {
        "norm_num_groups": 32, "mid_block_add_attention": True,
        "block_out_channels": [config["ch"] * factor for factor in config["ch_mult"]],
    }  # fmt: skip
    theirs = AutoencoderKL(**{key: value for key, value in wide.items() if not key.startswith("_")}).eval()
    ldm = {f"first_stage_model.{key}": value for key, value in parts(written.checkpoint, "first_stage_model.").items()}
    theirs.load_state_dict(convert_ldm_vae_checkpoint(ldm, dict(theirs.config)))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        latents = ours.encode(picture).latent_dist.mode()
        torch.testing.assert_close(theirs.encode(picture).latent_dist.mode(), latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(theirs.decode(latents).sample, ours.decode(latents).sample, rtol=1e-4, atol=1e-4)


def without_idle_blocks(path: Path) -> dict[str, Any]:
    """A ControlNet's tensors with the blocks that add nothing taken out again, which diffusers has no config for."""
    tensors = parts(path, "")
    tensors.pop(ldm_layout.CONTEXT_KEY)
    assert sum(name.startswith("zero_convs.") for name in tensors) == 2 * ldm_layout.LDM_CONTROLS
    idle = next(block for block in range(12) if tensors[f"zero_convs.{block}.0.weight"].any())
    kept = {}
    for name, tensor in tensors.items():
        head, *rest = name.split(".")
        if head in ("zero_convs", "input_blocks"):
            block = int(rest[0])
            if block < idle and head == "zero_convs":
                assert not tensor.any()
                continue
            if 0 < block <= idle and head == "input_blocks":
                assert not tensor.any() or ".out_layers.3." not in name
                continue
            rest[0] = str(block - idle if head == "zero_convs" or block else 0)
        kept[".".join((head, *rest))] = tensor
    return kept


@pytest.mark.parametrize("extension", [True, False])
def test_the_controlnets_say_the_same(model: Path, written: LdmFiles, extension: bool) -> None:
    import torch
    from diffusers import ControlNetModel
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    assert [path.stem for path in written.controlnets] == [
        f"easyphoto_embedded_{kind}" for kind in ("canny", "color", "openpose", "tile")
    ]
    ours = ControlNetModel.from_pretrained(model / "controlnet" / "canny").float().eval()
    levels = len(ours.config.block_out_channels)
    wide = dict(ours.config) | {
        "conditioning_embedding_out_channels": ldm_layout.LDM_HINT_WIDTHS, "mid_block_type": "UNetMidBlock2DCrossAttn",
        "down_block_types": ("DownBlock2D",) * (levels - 1) + ("CrossAttnDownBlock2D",),
    }  # fmt: skip
    theirs = ControlNetModel(**{key: value for key, value in wide.items() if not key.startswith("_")}).eval()
    plain = controlnet_file(model / "controlnet" / "canny", extension=False)
    tensors = without_idle_blocks(written.controlnets[0]) if extension else {
        name: torch.from_numpy(tensor).float() for name, tensor in plain.items()
    }  # fmt: skip
    theirs.load_state_dict(convert_controlnet_checkpoint(tensors, dict(theirs.config)))
    noise = torch.Generator().manual_seed(0)
    words = torch.randn(1, 5, ours.config.cross_attention_dim, generator=noise)
    seen = torch.randn(1, 4, 16, 16, generator=noise), torch.tensor(300), words, torch.rand(1, 3, 128, 128, generator=noise)
    with torch.inference_mode():
        for left, right in zip(ours(*seen, return_dict=False), theirs(*seen, return_dict=False)):
            for one, other in zip(left if isinstance(left, list) else [left], right if isinstance(right, list) else [right]):
                torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


def test_the_words_become_the_same_tokens_and_states(model: Path, written: LdmFiles) -> None:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    ours, theirs = CLIPTokenizer.from_pretrained(model / "tokenizer"), CLIPTokenizer.from_pretrained(written.text)
    words = "easyphoto_face, easyphoto, 1person, a smiling woman of 41, München"
    assert theirs(words).input_ids == ours(words).input_ids
    encoder = CLIPTextModel.from_pretrained(model / "text_encoder").float()
    named = parts(written.checkpoint, "cond_stage_model.transformer.")
    assert named.pop("text_model.embeddings.position_ids").shape == (1, 77)
    state = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    assert {key.removeprefix("text_model.") for key in named} == set(state)
    assert all(torch.equal(named[f"text_model.{key}"], value) for key, value in state.items())


def test_the_config_gives_the_sizes_of_the_embedded_model(base_model: Path, tmp_path: Path) -> None:
    files = write_ldm(base_model, tmp_path / "sd", tmp_path / "cn")
    assert files.checkpoint.name == "easyphoto-base-256.safetensors"
    params = json.loads(files.config.read_text())["model"]["params"]
    unet = params["unet_config"]["params"]
    assert (unet["model_channels"], unet["channel_mult"], unet["num_res_blocks"]) == (96, [1, 2, 3], 1)
    assert (unet["attention_resolutions"], unet["num_head_channels"], unet["context_dim"]) == ([2, 4], 32, 256)
    assert params["scale_factor"] == pytest.approx(0.42168)
    assert params["first_stage_config"]["params"]["ddconfig"]["ch"] == 96


def test_a_lora_finds_its_modules_in_ldms_blocks() -> None:
    file = LoraFile(tensors={f"{name}.alpha": np.array(1.0) for name in (
        "lora_unet_down_blocks_1_attentions_0_proj_in", "lora_unet_up_blocks_0_attentions_1_proj_out",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", "lora_te_text_model_encoder_layers_0_mlp_fc1",
    )})  # fmt: skip
    assert set(ldm_lora(file, 1).module_names()) == {
        "lora_unet_input_blocks_3_1_proj_in", "lora_unet_output_blocks_1_1_proj_out",
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q", "lora_te_text_model_encoder_layers_0_mlp_fc1",
    }  # fmt: skip
    # With SD's two blocks a level it is what kohya and the WebUI make of it.
    assert "lora_unet_input_blocks_4_1_proj_in" in ldm_lora(file, 2).module_names()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EasyPhotoError, match="nowhere"):
        write_ldm(tmp_path / "nowhere", tmp_path / "sd", tmp_path / "cn")
