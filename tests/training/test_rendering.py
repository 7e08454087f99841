"""Templates rendered at once are those that the plain engine renders one after the other."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.denoise import Guide, predict_noise
from easyphoto.engine.models import Models, load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.imaging.io import load_photo
from easyphoto.records import Condition, ConditionKind, InpaintJob
from easyphoto.settings import PROJECT_ROOT
from easyphoto.training import rendering
from easyphoto.training.branches import Branches
from easyphoto.training.decoding import Decoder
from tests.tiny import make_tiny_base
from tests.tiny_xl import make_tiny_sdxl

EMBEDDED, TEMPLATES = PROJECT_ROOT / "models" / "base-256", PROJECT_ROOT / "templates"


def job_of(number: int, kinds: tuple[ConditionKind, ...], guidance: float) -> InpaintJob:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[8 : 40 + 8 * number, 16:48] = 1
    conditions = tuple(Condition(kind=kind, image=np.roll(image, number, 0), weight=0.8) for kind in kinds)
    return InpaintJob(
        image=image, mask=mask, prompt="a person", negative="blurry", strength=0.6, steps=6, guidance=guidance,
        conditions=conditions, seed=number,
    )  # fmt: skip


@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_all_at_once_is_one_after_the_other(models: Models, guidance: float) -> None:
    kinds = tuple(sorted(models.conditions, key=lambda kind: kind.value))[:2]
    assert kinds, "the tiny model has ControlNets"
    jobs = [job_of(number, kinds, guidance) for number in range(3)]
    with StandaloneEngine(models) as engine:
        wanted = [engine.inpaint(job).astype(int) for job in jobs]
    renderer = rendering.Renderer(models, jobs)
    for _ in range(2):
        found = renderer.render("here")
        for own, other, job in zip(found, wanted, jobs):
            assert np.abs(own - other).max() <= 1
            assert np.array_equal(own[job.mask == 0], job.image[job.mask == 0])
    with StandaloneEngine(models) as engine:
        again = [engine.inpaint(job) for job in jobs]
    assert all(np.array_equal(one, other) for one, other in zip(again, wanted)), "the ControlNets are as they were"


def test_sdxl_reads_zeros_for_no_words_here_too(tmp_path: Path) -> None:
    models = load_models(make_tiny_sdxl(tmp_path / "base"), "cpu")
    jobs = [replace(job_of(number, (), 5.0), negative="") for number in range(2)]
    with StandaloneEngine(models) as engine:
        wanted = [engine.inpaint(job).astype(int) for job in jobs]
    found = rendering.Renderer(models, jobs).render("here")
    assert all(np.abs(own - other).max() <= 1 for own, other in zip(found, wanted))


def test_a_nets_blocks_run_our_way_give_what_its_own_give(models: Models) -> None:
    kinds = tuple(sorted(models.conditions, key=lambda kind: kind.value))[:2]
    rng = torch.Generator().manual_seed(3)
    latents, words = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(4, 77, 32, generator=rng)
    controls = tuple(
        (models.controlnet(kind), torch.rand(4, 3, 64, 64, generator=rng), 0.5 + at) for at, kind in enumerate(kinds)
    )
    guide = Guide(states=words, guidance=3.0, controls=controls)
    branches = Branches(models.unet, controls)
    with torch.inference_mode():
        wanted = predict_noise(models, guide, latents, torch.tensor(400))
        with branches.fast():
            assert any("forward" in module.__dict__ for net, _, _ in controls for module in net.modules())
            assert branches._ends is not None, "the tiny nets read words, so that their last layers are one product each"
            found = predict_noise(models, guide, latents, torch.tensor(400), branches.residuals)
    own = [module for net, _, _ in controls for module in net.modules() if module is not net.controlnet_cond_embedding]
    assert not any("forward" in module.__dict__ for module in own)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_nets_that_read_no_words_are_summed_as_they_are(tmp_path: Path) -> None:
    """They see half of the rows of a guided step."""
    models = load_models(make_tiny_base(tmp_path / "base"), "cpu")
    kind = ConditionKind.TILE
    net = models.controlnet(kind)
    for block in (*net.down_blocks, net.mid_block):
        block.has_cross_attention = False
    jobs = [job_of(number, (kind,), 6.0) for number in range(2)]
    controls = rendering.Renderer(models, jobs)._controls(2, torch.float32)
    assert len(controls[0][1]) == 2
    assert Branches(models.unet, controls)._ends is None


def test_only_another_place_is_prepared_for_anew(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(rendering._Steps):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            made.append(given[2])

    monkeypatch.setattr(rendering, "_Steps", Counted)
    renderer = rendering.Renderer(models, [job_of(0, (), 1.0)])
    renderer.prepare("a")
    for place in ("a", "a", "b"):
        renderer.render(place)
    assert made == ["a", "b"]


def test_words_are_read_anew_for_each_judgement(models: Models) -> None:
    """The text encoder may have learnt since the last."""
    renderer = rendering.Renderer(models, [job_of(0, (), 1.0)])
    (before,) = renderer.render("here")
    weight = models.text_encoder.get_input_embeddings().weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    try:
        (changed,) = renderer.render("here")
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    (after,) = renderer.render("here")
    assert np.array_equal(before, after)
    assert not np.array_equal(before, changed)


def test_a_decoder_that_half_precision_does_not_hold_is_asked_again_in_full(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(0, (), 1.0)
    wanted = rendering.Renderer(models, [job]).render("here")[0].astype(int)

    class Overflowing(rendering.Decoder):
        def __call__(self, latents: torch.Tensor) -> torch.Tensor:
            return self.fully(latents) * float("inf")

    monkeypatch.setattr(rendering, "Decoder", Overflowing)
    found = rendering.Renderer(models, [job]).render("here")[0]
    assert np.array_equal(found, wanted)


@pytest.mark.slow
def test_half_a_precision_is_not_seen_in_a_decoded_picture() -> None:
    """On the true autoencoder of the embedded base, with latents of a true picture."""
    models = load_models(EMBEDDED, "cpu")
    photo = load_photo(next(TEMPLATES.glob("*.jpg"))).pixels[:256, :256]
    with torch.inference_mode(), StandaloneEngine(models) as engine:
        latents = engine._encode(np.ascontiguousarray(photo))
        full = Decoder(models.vae, halved=False)(latents)
        half = Decoder(models.vae, halved=True)(latents).float()
    away = (half - full).abs() * 127.5
    assert float(away.max()) <= 2
    assert float(away.mean()) < 0.3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("side", [8, 40])
def test_a_decoder_with_norms_of_ours_decodes_what_torchs_decodes(side: int) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, layers_per_block=1, norm_num_groups=16, sample_size=16,
    ).cuda().requires_grad_(False).eval()  # fmt: skip
    latents = torch.randn(3, 4, side, side, device="cuda")
    with torch.inference_mode():
        wanted, found = Decoder(vae, halved=False)(latents), Decoder(vae, halved=True)(latents)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), wanted, rtol=0.02, atol=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_thread_captured_is_what_the_plain_engine_paints(tiny_base: Path) -> None:
    models = load_models(tiny_base, "cuda", torch.float32)
    kinds = tuple(sorted(models.conditions, key=lambda kind: kind.value))[:2]
    jobs = [job_of(number, kinds, 6.0) for number in range(3)]
    renderer = rendering.Renderer(models, jobs)

    def ahead() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            renderer.prepare("here", beside=True)
            torch.cuda.current_stream().synchronize()

    thread = threading.Thread(target=ahead)
    thread.start()
    busy = torch.randn(512, 512, device="cuda")
    while thread.is_alive():
        busy = torch.tanh(busy @ busy)
    thread.join()
    found = [renderer.render("here") for _ in range(2)]
    assert all(np.array_equal(one, other) for one, other in zip(*found))
    with StandaloneEngine(models) as engine:
        wanted = [engine.inpaint(job).astype(int) for job in jobs]
    for own, other, job in zip(found[0], wanted, jobs):
        assert np.abs(own - other).max() <= 2
        assert np.array_equal(own[job.mask == 0], job.image[job.mask == 0])
