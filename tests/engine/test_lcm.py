"""LCM: few steps with its own sampler, in our engine and in the hosts, and LoRAs that change convolutions too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.denoise import Guide, Kept, Schedule, denoise, make_scheduler
from easyphoto.engine.lora_patch import lora_layers, patched
from easyphoto.engine.models import Models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.engine.text import encode_prompts
from easyphoto.engine.webui import WebuiEngine
from easyphoto.records import InpaintJob, LoraUse
from easyphoto.store.lora_file import LoraFile, write_lora
from tests.engine.contract import picture, square_mask
from tests.engine.host_standin import StandIn
from tests.engine.test_webui import HOSTS, write_checkpoint


@pytest.fixture()
def job() -> InpaintJob:
    return InpaintJob(
        image=picture(64), mask=square_mask(64), prompt="a woman", strength=0.5, steps=12, guidance=2.0, seed=3, lcm=True
    )


def test_half_of_twelve_steps_are_run_and_the_rest_of_the_picture_stays(tiny_models: Models, job: InpaintJob) -> None:
    told: list[tuple[int, int]] = []
    with StandaloneEngine(tiny_models) as engine:
        painted = engine.inpaint(job, lambda *step: told.append(step))
        assert (engine.inpaint(job) == painted).all()
        assert (engine.inpaint(replace(job, lcm=False)) != painted).any()
        assert (engine.inpaint(replace(job, seed=4)) != painted).any()
    assert told == [(done, 6) for done in range(1, 7)]
    assert (painted[job.mask == 0] == job.image[job.mask == 0]).all()


def test_what_is_kept_has_the_noise_of_the_next_step_and_none_after_the_last(tiny_models: Models) -> None:
    text = encode_prompts(tiny_models, ["a woman"])
    guide = Guide(states=text.states, guidance=1.0, controls=())
    kept = Kept(latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)), painted=torch.zeros(1, 1, 8, 8))
    scheduler = make_scheduler(tiny_models, lcm=True)
    scheduler.set_timesteps(8, original_inference_steps=50)
    seen: list[torch.Tensor] = []

    def predict(_models: object, _guide: object, latents: torch.Tensor, _time: torch.Tensor) -> torch.Tensor:
        seen.append(latents.clone())
        return torch.zeros_like(latents)

    schedule = Schedule(steps=8, strength=0.5, lcm=True)
    with torch.inference_mode():
        last = denoise(tiny_models, guide, schedule, torch.Generator().manual_seed(2), kept, predict=predict)
    assert torch.equal(last, kept.latents)
    times = scheduler.timesteps[4:]
    fixed = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    for latents, time in zip(seen, times, strict=True):
        assert torch.allclose(latents, scheduler.add_noise(kept.latents, fixed, time[None]), atol=1e-6)


def test_a_lora_of_convolutions_adds_what_its_two_convolutions_do(tiny_models: Models, tmp_path: Path) -> None:
    name, layer = next(
        (name, layer) for name, layer in lora_layers(tiny_models).items()
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3) and "resnets" in name
    )  # fmt: skip
    chance = torch.Generator().manual_seed(0)
    down = torch.randn(2, layer.in_channels, 3, 3, generator=chance)
    up = torch.randn(layer.out_channels, 2, 1, 1, generator=chance)
    tensors = {
        f"{name}.lora_down.weight": down.numpy(), f"{name}.lora_up.weight": up.numpy(),
        f"{name}.alpha": np.array(1.0, np.float32),
    }  # fmt: skip
    write_lora(tmp_path / "lcm.safetensors", LoraFile(tensors=tensors, metadata={}))
    image = torch.randn(1, layer.in_channels, 8, 8, generator=chance)
    with torch.no_grad():
        plain = layer(image)
        added = torch.nn.functional.conv2d(torch.nn.functional.conv2d(image, down, padding=1), up)
        with patched(tiny_models, (LoraUse(path=tmp_path / "lcm.safetensors", weight=0.8),)):
            assert torch.allclose(layer(image), plain + 0.8 * 0.5 * added, atol=1e-3, rtol=1e-3)
        assert torch.equal(layer(image), plain)


@pytest.mark.parametrize("version", HOSTS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_a_host_takes_its_own_lcm_sampler_and_the_nearest_where_it_has_none(
    version: tuple[str, str], job: InpaintJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = StandIn(*version, tmp_path, write_checkpoint(tmp_path / "plain.safetensors"))
    host.install(monkeypatch)
    WebuiEngine().inpaint(job)
    assert host.asked[-1].sampler_name == ("Euler a" if version[0] == "1.6" else "LCM")
    assert getattr(host.asked[-1], "scheduler", "Automatic") == "Automatic"
    WebuiEngine().inpaint(replace(job, lcm=False))
    assert host.asked[-1].sampler_name.startswith("DPM++ 2M SDE")
