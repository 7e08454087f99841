"""SDXL: two encoders, pooled text and sizes, LoRAs in LDM's blocks; diffusers' own pipeline is the judge."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyphoto.engine.denoise import predict_noise
from easyphoto.engine.detect import detect_family
from easyphoto.engine.lora_patch import lora_layers, patched
from easyphoto.engine.models import Models, load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.engine.text import added_conditions, encode_prompts, encode_tokens, tokenize
from easyphoto.errors import InputError
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, InpaintJob, LoraUse, TextJob
from easyphoto.store.lora_file import LoraFile, write_lora
from tests.engine.conftest import edit_json, random_lora
from tests.engine.contract import EngineContract, MissingControlNet, picture, square_mask
from tests.tiny_xl import make_tiny_sdxl


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sdxl(tmp_path_factory.mktemp("sdxl") / "base")


@pytest.fixture(scope="module")
def models(base: Path) -> Models:
    return load_models(base, "cpu")


@pytest.fixture(scope="module")
def pipeline(base: Path) -> Any:
    """diffusers' own, from the same folder."""
    from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    return StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(base / "vae"), unet=UNet2DConditionModel.from_pretrained(base / "unet"),
        text_encoder=CLIPTextModel.from_pretrained(base / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(base / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(base / "tokenizer_2"),
        scheduler=DDPMScheduler.from_pretrained(base / "scheduler"), add_watermarker=False,
    )


@pytest.fixture()
def engine(models: Models) -> Iterator[StandaloneEngine]:
    with StandaloneEngine(models) as engine:
        yield engine


@pytest.fixture(scope="module")
def lora(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "person.safetensors"
    write_lora(path, random_lora(models))
    return path


class TestTinySdxl(EngineContract, MissingControlNet):
    @pytest.fixture()
    def bare_engine(self, base: Path, tmp_path: Path) -> StandaloneEngine:
        shutil.copytree(base, tmp_path / "bare", ignore=shutil.ignore_patterns("controlnet"))
        return StandaloneEngine(load_models(tmp_path / "bare", "cpu"))


def test_the_family_is_told_by_the_unet(base: Path, tmp_path: Path) -> None:
    assert detect_family(base) is Family.SDXL
    shutil.copytree(base, tmp_path / "half", ignore=shutil.ignore_patterns("text_encoder_2", "controlnet"))
    with pytest.raises(InputError, match=r"text_encoder_2/config\.json missing"):
        load_models(tmp_path / "half", "cpu")
    edit_json(tmp_path / "half" / "unet" / "config.json", in_channels=9)
    with pytest.raises(InputError, match="9 input channels"):
        detect_family(tmp_path / "half")


def test_prompts_become_what_diffusers_makes_of_them(models: Models, pipeline: Any) -> None:
    import torch

    words = ["a woman of 41, smiling", "x " * 100]
    with torch.no_grad():
        ours = encode_prompts(models, words)
        states, _, pooled, _ = pipeline.encode_prompt(words, device="cpu", do_classifier_free_guidance=False)
    assert torch.equal(ours.states, states)
    assert torch.equal(ours.pooled, pooled)
    first, second = tokenize(models, words)
    assert not torch.equal(first, second), "the second tokenizer fills up with another token"


def test_prompts_are_differentiable_in_both_encoders(models: Models) -> None:
    weights = [encoder.get_input_embeddings().weight for encoder in models.text_encoders]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        text = encode_tokens(models, tokenize(models, ["a woman"]))
        text.states.square().sum().backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in weights)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None


def test_sizes_are_those_of_diffusers(models: Models, pipeline: Any) -> None:
    import torch

    text = encode_prompts(models, ["a", "b"])
    added = added_conditions(models, text, (1000, 832))
    theirs = pipeline._get_add_time_ids((1000, 832), (0, 0), (1000, 832), torch.float32, text_encoder_projection_dim=16)
    assert torch.equal(added["time_ids"], theirs.expand(2, -1))
    assert added["text_embeds"] is text.pooled


def test_other_families_add_nothing(tiny_models: Models) -> None:
    text = encode_prompts(tiny_models, ["a woman"])
    assert text.pooled is None
    assert added_conditions(tiny_models, text, (64, 64)) is None


def test_a_guided_step_is_diffusers(engine: StandaloneEngine, pipeline: Any) -> None:
    """Nothing asked against: diffusers puts zeros there, and so do we."""
    import torch

    job = TextJob(width=64, height=96, prompt="a woman", guidance=3.0)
    latents, time = torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(300)
    with torch.inference_mode():
        ours = predict_noise(engine.models, engine._guide(job), latents, time)
        positive, negative, pooled, without = pipeline.encode_prompt("a woman", device="cpu")
        assert not negative.any()
        ids = pipeline._get_add_time_ids((96, 64), (0, 0), (96, 64), torch.float32, text_encoder_projection_dim=16)
        low, high = (
            pipeline.unet(latents, time, states, added_cond_kwargs={"text_embeds": row, "time_ids": ids}, return_dict=False)[0]
            for states, row in ((negative, without), (positive, pooled))
        )
    torch.testing.assert_close(ours, low + 3.0 * (high - low), rtol=1e-4, atol=1e-5)


def test_lora_modules_have_ldms_blocks_and_two_text_encoders(models: Models) -> None:
    names = set(lora_layers(models))
    assert {
        "lora_unet_input_blocks_4_1_proj_in", "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_output_blocks_5_1_proj_out", "lora_unet_label_emb_0_0", "lora_unet_input_blocks_3_0_op",
        "lora_unet_output_blocks_2_2_conv", "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1", "lora_te2_text_projection",
    } <= names


def test_a_lora_in_diffusers_blocks_changes_the_same(models: Models, lora: Path, tmp_path: Path) -> None:
    """Some tools write `down_blocks_1_attentions_0` for SDXL too."""
    from easyphoto.store.lora_file import read_lora
    from easyphoto.store.lora_names import other_keys

    file = read_lora(lora)
    own, ldm = other_keys([name for name, module in models.unet.named_modules() if hasattr(module, "weight")
                           and "norm" not in name], 2)  # fmt: skip
    names = {ldm[name]: own[name] for name in own}
    tensors = {".".join((names.get(key.split(".", 1)[0], key.split(".", 1)[0]), key.split(".", 1)[1])): tensor
               for key, tensor in file.tensors.items()}  # fmt: skip
    assert any("down_blocks_1" in key for key in tensors)
    assert not any("input_blocks" in key for key in tensors)
    write_lora(tmp_path / "other.safetensors", LoraFile(tensors=tensors))
    changed = []
    for path in (lora, tmp_path / "other.safetensors"):
        with patched(models, (LoraUse(path=path),)):
            changed.append({name: weight.clone() for name, weight in models.unet.state_dict().items()})
    assert all(np.array_equal(changed[0][name], changed[1][name]) for name in changed[0])


def test_diffusers_reads_our_lora_and_computes_the_same(models: Models, lora: Path, pipeline: Any) -> None:
    import torch

    pytest.importorskip("peft")
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    try:
        with torch.no_grad(), patched(models, (LoraUse(path=lora, weight=1.0),)):
            ours = encode_prompts(models, ["a woman"])
            states, _, pooled, _ = pipeline.encode_prompt("a woman", device="cpu", do_classifier_free_guidance=False)
            torch.testing.assert_close(ours.states, states, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.pooled, pooled, rtol=1e-4, atol=1e-5)
            added = added_conditions(models, ours, (64, 64))
            latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            seen = {"encoder_hidden_states": ours.states, "added_cond_kwargs": added, "return_dict": False}
            one, other = (unet(latents, torch.tensor(300), **seen)[0] for unet in (models.unet, pipeline.unet))
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    finally:
        pipeline.unload_lora_weights()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_paints_nearly_the_same(base: Path, models: Models, lora: Path, name: str) -> None:
    """Everything that the UNet is handed must go together in half precision too."""
    import torch

    half = load_models(base, "cpu", getattr(torch, name))
    maps = (Condition(kind=ConditionKind.CANNY, image=picture(64), weight=0.7),)
    job = InpaintJob(
        image=picture(64), mask=square_mask(64), prompt="a woman", strength=0.5, steps=4, guidance=3.0, conditions=maps,
        loras=(LoraUse(path=lora, weight=0.3),),
    )
    with StandaloneEngine(half) as one, StandaloneEngine(models) as other:
        rough, exact = one.inpaint(job).astype(int), other.inpaint(job)
    assert (exact != job.image).any()
    assert np.abs(rough - exact).mean() < 3


def test_a_merge_leaves_half_precision_weights_as_they_were(base: Path, lora: Path) -> None:
    import torch

    half = load_models(base, "cpu", torch.float16)
    before = {name: weight.clone() for name, weight in half.unet.state_dict().items()}
    with patched(half, (LoraUse(path=lora, weight=1.0),)):
        assert {weight.dtype for weight in half.unet.state_dict().values()} == {torch.float16}
        assert any(not torch.equal(weight, before[name]) for name, weight in half.unet.state_dict().items())
    assert all(torch.equal(weight, before[name]) for name, weight in half.unet.state_dict().items())
