"""The engine on real networks: the contract on a tiny model, and the truths of its mathematics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.denoise import Guide, Kept, Schedule, denoise, embed_controls, make_scheduler, predict_noise
from easyphoto.engine.models import Models, load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, InpaintJob, LoraUse, TextJob
from tests.engine.contract import EngineContract, MissingControlNet, picture, square_mask


class TestTinyModel(EngineContract, MissingControlNet):
    @pytest.fixture()
    def bare_engine(self, bare_base: Path) -> StandaloneEngine:
        return StandaloneEngine(load_models(bare_base, "cpu"))

    @pytest.fixture()
    def lora(self, tiny_lora: Path) -> Path:
        return tiny_lora


@pytest.fixture()
def engine(tiny_models: Models) -> Iterator[StandaloneEngine]:
    with StandaloneEngine(tiny_models) as engine:
        yield engine


def guide_of(engine: StandaloneEngine, guidance: float, conditions: tuple[Condition, ...] = ()) -> Guide:
    job = TextJob(width=64, height=64, prompt="a woman", negative="a man", guidance=guidance, conditions=conditions)
    return engine._guide(job)


def test_guidance_is_linear_between_the_two_prompts(engine: StandaloneEngine) -> None:
    import torch

    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    time = torch.tensor(300)
    with torch.inference_mode():
        positive = predict_noise(engine.models, guide_of(engine, 1.0), latents, time)
        negative = predict_noise(engine.models, replace(guide_of(engine, 2.0), guidance=0.0), latents, time)
        guided = predict_noise(engine.models, guide_of(engine, 2.5), latents, time)
    torch.testing.assert_close(guided, negative + 2.5 * (positive - negative), rtol=1e-4, atol=1e-4)


def test_guidance_one_runs_half_the_batch(engine: StandaloneEngine) -> None:
    assert len(guide_of(engine, 1.0).states) == 1
    assert len(guide_of(engine, 1.5).states) == 2


def test_controlnet_residuals_add_up_by_weight(engine: StandaloneEngine) -> None:
    import torch

    from easyphoto.engine.denoise import _control_residuals

    maps = [Condition(kind=kind, image=picture(64, seed), weight=0.7) for seed, kind in enumerate(ConditionKind)][:2]
    latents, time = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(300)
    with torch.inference_mode():
        _, both = _control_residuals(guide_of(engine, 2.0, tuple(maps)), latents, time, 2)
        _, one = _control_residuals(guide_of(engine, 2.0, (replace(maps[0], weight=1.4),)), latents, time, 2)
        _, other = _control_residuals(guide_of(engine, 2.0, (maps[1],)), latents, time, 2)
    torch.testing.assert_close(both, one / 2 + other, rtol=1e-4, atol=1e-5)


def test_a_controlnet_that_reads_no_words_runs_once_for_both_halves(
    engine: StandaloneEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from diffusers import ControlNetModel

    import easyphoto.engine.denoise as room
    from tests.tiny import _wake

    config = dict(engine.models.controlnet(ConditionKind.CANNY).config)
    blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "mid_block_type": "UNetMidBlock2D"}
    net = ControlNetModel(**{key: value for key, value in config.items() if not key.startswith("_")} | blocks).eval()
    _wake(net)
    monkeypatch.setitem(engine.models._controlnets, ConditionKind.CANNY, net)
    seen: list[int] = []
    handle = net.conv_in.register_forward_hook(lambda _net, inputs, _out: seen.append(len(inputs[0])))
    guide = guide_of(engine, 2.5, (Condition(kind=ConditionKind.CANNY, image=picture(64)),))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        once = predict_noise(engine.models, guide, latents, torch.tensor(300))
        monkeypatch.setattr(room, "reads_text", lambda _net: True)
        twice = predict_noise(engine.models, guide, latents, torch.tensor(300))
    handle.remove()
    assert seen == [1, 2]
    torch.testing.assert_close(once, twice, rtol=1e-4, atol=1e-5)


def test_a_control_map_is_embedded_once_for_all_steps(engine: StandaloneEngine) -> None:
    net = engine.models.controlnet(ConditionKind.CANNY)
    calls = []
    handle = net.controlnet_cond_embedding.conv_in.register_forward_hook(lambda *_: calls.append(1))
    job = InpaintJob(
        image=picture(64), mask=square_mask(64), prompt="x", steps=6, strength=1.0,
        conditions=(Condition(kind=ConditionKind.CANNY, image=picture(64)),),
    )
    engine.inpaint(job)
    handle.remove()
    assert len(calls) == 1


def test_controlnets_are_loaded_when_first_asked_for(tiny_base: Path) -> None:
    models = load_models(tiny_base, "cpu")
    assert not models._controlnets
    first = models.controlnet(ConditionKind.TILE)
    assert list(models._controlnets) == [ConditionKind.TILE]
    assert models.controlnet(ConditionKind.TILE) is first


def test_a_condition_of_weight_zero_costs_and_changes_nothing(engine: StandaloneEngine) -> None:
    idle = Condition(kind=ConditionKind.CANNY, image=picture(64), weight=0.0)
    assert embed_controls(engine.models, (idle,)) == ()


@pytest.mark.parametrize(
    ("steps", "strength", "executed"), [(50, 0.45, 22), (20, 0.30, 6), (20, 0.55, 11), (4, 0.1, 1), (9, 1, 9)]
)
def test_executed_steps_are_those_of_the_webui(steps: int, strength: float, executed: int) -> None:
    assert Schedule(steps=steps, strength=strength).executed == executed


def test_noise_levels_are_the_familys(tiny_models: Models) -> None:
    even = make_scheduler(tiny_models)
    even.set_timesteps(10)
    assert np.ptp(np.diff(even.timesteps.numpy())) <= 1
    scheduler = make_scheduler(replace(tiny_models, family=Family.SD15))
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas[:-1].double().numpy()
    high, low = sigmas[0] ** (1 / 7), sigmas[-1] ** (1 / 7)
    np.testing.assert_allclose(sigmas, np.linspace(high, low, 10) ** 7, rtol=1e-4)
    assert scheduler.sigmas[-1] == 0


def test_a_perfect_prediction_brings_the_picture_back(engine: StandaloneEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that always names the noise exactly, any schedule must end at the original latents."""
    import torch

    from easyphoto.engine import denoise as room

    original = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    scheduler = make_scheduler(engine.models)

    def exact(_models: Models, _guide: Guide, latents: object, time: object) -> object:
        kept = scheduler.alphas_cumprod[int(time)]
        return (latents - kept.sqrt() * original) / (1 - kept).sqrt()

    monkeypatch.setattr(room, "predict_noise", exact)
    kept = Kept(latents=original, painted=torch.ones(1, 1, 8, 8))
    guide = guide_of(engine, 1.0)
    clean = denoise(engine.models, guide, Schedule(steps=12, strength=0.6), torch.Generator().manual_seed(0), kept)
    torch.testing.assert_close(clean, original, rtol=1e-2, atol=2e-2)


def test_noise_depends_on_the_seed_alone_not_on_torchs_global_state(engine: StandaloneEngine) -> None:
    import torch

    job = TextJob(width=64, height=64, prompt="x", steps=3)
    torch.manual_seed(1)
    first = engine.text(job)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert (engine.text(job) == first).all()
    torch.set_rng_state(state)


def test_prompts_are_encoded_once(engine: StandaloneEngine) -> None:
    calls = []
    handle = engine.models.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    job = TextJob(width=64, height=64, prompt="x", negative="y", steps=1)
    engine.text(job)
    engine.text(replace(job, seed=1))
    handle.remove()
    assert len(calls) == 2


def test_one_lora_is_merged_once_for_a_batch(
    engine: StandaloneEngine, tiny_lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from easyphoto.engine import lora_patch

    reads = []
    read = lora_patch.read_lora
    monkeypatch.setattr(lora_patch, "read_lora", lambda path: reads.append(path) or read(path))
    job = TextJob(width=64, height=64, prompt="x", steps=1, loras=(LoraUse(path=tiny_lora, weight=0.8),))
    for seed in range(3):
        engine.text(replace(job, seed=seed))
    assert reads == [tiny_lora]


def test_closing_gives_the_base_weights_back(tiny_models: Models, tiny_lora: Path) -> None:
    before = {name: weight.data_ptr() for name, weight in tiny_models.unet.state_dict().items()}
    with StandaloneEngine(tiny_models) as engine:
        engine.text(TextJob(width=64, height=64, prompt="x", steps=1, loras=(LoraUse(path=tiny_lora),)))
        assert {name: weight.data_ptr() for name, weight in tiny_models.unet.state_dict().items()} != before
    assert {name: weight.data_ptr() for name, weight in tiny_models.unet.state_dict().items()} == before
