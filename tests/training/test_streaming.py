"""Weights that come to the device block by block: the same numbers, few copies, and nothing left changed."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.denoise import Guide, predict_noise
from easyphoto.engine.models import Models, load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.engine.text import added_conditions, encode_prompts, encode_tokens
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, InpaintJob, Photo, PreparedSet
from easyphoto.specs import LoraSpec, TrainSpec, ValidateSpec
from easyphoto.store.lora_file import read_lora
from easyphoto.training import blocks, loading, run
from easyphoto.training.dataset import cache_latents
from easyphoto.training.draws import Learner
from easyphoto.training.job import JobOrder, new_job
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.memory import in_turn, placed, rendering, set_aside
from easyphoto.training.planner import Course
from easyphoto.training.prepared_files import write_prepared
from easyphoto.training.progress import Reporter, Stop
from easyphoto.training.streaming import blocks_of
from easyphoto.training.trainer import Training
from easyphoto.training.validation import Judge, Trial
from tests.tiny_xl import make_tiny_sdxl

LEAN = Course(micro=1, merged=False, checkpointing=True, offload=True, graphed=False)
XL_BLOCKS, TEXT_BLOCKS = 17, 4
"""Blocks of the tiny SDXL: of (2 + 3) transformers of depth 1 and of depth 2 on the way, and the middle's two."""


@pytest.fixture
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Its own in every test, as its weights move."""
    return load_models(make_tiny_sdxl(tmp_path_factory.getbasetemp() / "streamed" / "base"), "cpu")


@pytest.fixture
def steady(spec: TrainSpec) -> TrainSpec:
    optim = replace(spec.optim, learning_rate=1e-4, text_learning_rate=1e-4, max_steps=20)
    return replace(spec, family=Family.SDXL, optim=optim, lora=LoraSpec(rank=2, alpha=1.0))


def begun(models: Models, prepared: PreparedSet, spec: TrainSpec, *rungs: Course) -> Training:
    with placed(models, [models.vae]):
        learner = Learner(cache=cache_latents(models, prepared, spec, lambda _done, _total: None), spec=spec)
    network = LoraNetwork(models, spec.lora, (spec.seed,), rungs[0].merged)
    training = Training(models, network, (learner,), rungs, lambda _said: None)
    network.attach()
    return training


def weights(models: Models) -> dict[str, torch.Tensor]:
    parts = {"unet": models.unet, "one": models.text_encoder, "two": models.text_encoder_2, "vae": models.vae}
    return {f"{name}.{key}": value.clone() for name, part in parts.items() for key, value in part.state_dict().items()}


def test_a_streamed_training_learns_bit_for_bit_what_one_with_all_weights_there_learns(
    models: Models, prepared: PreparedSet, steady: TrainSpec
) -> None:
    found = []
    for slots in (0, 2, 3, 100):
        training = begun(models, prepared, steady, replace(LEAN, streamed=slots))
        for _ in range(3):
            training.update()
        training.network.detach()
        found.append((training.losses, [block.values.detach().clone() for block in training.network.blocks]))
    for losses, values in found[1:]:
        assert losses == found[0][0]
        assert all(torch.equal(own, wanted) for own, wanted in zip(values, found[0][1]))


def test_the_weights_are_afterwards_what_they_were(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    before = weights(models)
    training = begun(models, prepared, steady, replace(LEAN, streamed=2))
    training.update()
    training.network.detach()
    after = weights(models)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_every_layer_travels_once_and_a_transformers_ends_with_its_blocks(models: Models) -> None:
    network = LoraNetwork(models, LoraSpec(rank=2, alpha=1.0))
    for block, networks, count in zip(
        network.blocks, ((models.unet,), models.text_encoders), (XL_BLOCKS, TEXT_BLOCKS)
    ):
        found = blocks_of(networks, list(block.place))
        layers = [layer for travelling in found for layer in travelling]
        assert len(found) == count
        assert len(layers) == len(set(layers)) == len(block.place)
    first = models.unet.down_blocks[1].attentions[0]
    together = next(each for each in blocks_of((models.unet,), list(network.blocks[0].place)) if first.proj_in in each)
    assert together[0] is first.proj_in
    assert together[-1] is first.proj_out
    assert first.transformer_blocks[0].attn2.to_k in together


@pytest.mark.parametrize("slots", [2, 3, 6, 17])
def test_a_step_copies_each_block_twice_but_for_those_that_are_still_there(
    models: Models, prepared: PreparedSet, steady: TrainSpec, slots: int
) -> None:
    optim = replace(steady.optim, batch_size=1, text_learning_rate=0.0)
    spec = replace(steady, optim=optim, lora=replace(steady.lora, text_encoder=False))
    training = begun(models, prepared, spec, replace(LEAN, streamed=slots))
    stream = training.network.blocks[0].stream
    assert stream is not None
    brought: list[int] = []
    touch = stream._touch

    def counted(block: int) -> None:
        if block not in stream._held:
            brought.append(block)
        touch(block)

    stream._touch = counted
    training.update()
    training.update()
    brought.clear()
    copied = stream.copied
    training.update()
    assert len(brought) == 2 * (XL_BLOCKS - slots)
    assert (stream.copied > copied) == bool(brought)
    assert stream.slots == slots


def test_what_is_needed_next_has_been_sent_for(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    training = begun(models, prepared, steady, replace(LEAN, streamed=3))
    stream = training.network.blocks[0].stream
    assert stream is not None
    training.update()
    late: list[int] = []
    turn = stream._turn_to

    def watched(block: int) -> None:
        if block not in stream._held:
            late.append(block)
        turn(block)

    stream._turn_to = watched
    training.update()
    assert not late


def test_running_out_of_memory_leads_to_streaming_and_to_fewer_slots(
    models: Models, prepared: PreparedSet, steady: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = begun(models, prepared, steady, LEAN)
    for _ in range(4):
        wanted.update()
    wanted.network.detach()
    training = begun(models, prepared, steady, LEAN, replace(LEAN, streamed=4), replace(LEAN, streamed=2))
    real, full = Training._whole_step, {1: 0, 2: 4}

    def whole_step(self: Training) -> torch.Tensor:
        if full.get(self.step) == self.course.streamed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self)

    monkeypatch.setattr(Training, "_whole_step", whole_step)
    for _ in range(4):
        training.update()
    assert training.course.streamed == 2
    assert [block.stream.slots for block in training.network.blocks if block.stream] == [2, 2]
    training.network.detach()
    assert training.losses == wanted.losses


@pytest.mark.parametrize("course", [LEAN, replace(LEAN, streamed=2)], ids=["there", "streamed"])
def test_what_a_timestep_adds_is_computed_anew_with_each_block(
    models: Models, prepared: PreparedSet, steady: TrainSpec, monkeypatch: pytest.MonkeyPatch, course: Course
) -> None:
    """SDXL's text is in there, so that it needs a gradient where the text encoders are trained."""
    plain = begun(models, prepared, steady, course)
    plain.update()
    plain.network.detach()
    monkeypatch.setattr(blocks, "_fuses", lambda _unet: True)
    fused = begun(models, prepared, steady, course)
    assert "forward" in vars(models.unet.down_blocks[0].resnets[0])
    fused.update()
    fused.network.detach()
    np.testing.assert_allclose(fused.losses, plain.losses, rtol=1e-5)
    wanted, found = (training.network.blocks[1].grad for training in (plain, fused))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def job() -> InpaintJob:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 16:48] = 1
    return InpaintJob(
        image=image, mask=mask, prompt="a person", negative="blurry", strength=0.6, steps=5, guidance=5.0,
        conditions=(Condition(kind=ConditionKind.CANNY, image=image, weight=0.8),), seed=3,
    )  # fmt: skip


@pytest.mark.parametrize("text", [True, False], ids=["text trained", "text frozen"])
def test_a_checkpoint_is_rendered_alike_with_everything_there_and_part_by_part(
    models: Models, prepared: PreparedSet, steady: TrainSpec, text: bool
) -> None:
    spec = replace(steady, optim=replace(steady.optim, learning_rate=1e-2, text_learning_rate=1e-2 * text))
    pictures = []
    for course in (Course(micro=1), replace(LEAN, streamed=5)):
        training = begun(models, prepared, spec, course)
        for _ in range(2):
            training.update()
        with rendering(models, training.waiting, {ConditionKind.CANNY}), training.network.fused():
            assert all(not block.stream or block.stream.slots == 2 for block in training.network.blocks)
            with StandaloneEngine(models) as engine:
                pictures.append(engine.inpaint(job()).astype(int))
        slots = [block.stream.slots for block in training.network.blocks if block.stream]
        assert slots == ([5, 4][: 1 + text] if course.streamed else [])
        training.update()
        training.network.detach()
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert models.controlnets_on == "cpu"
    left = [name for net in models.loaded_controlnets for name, module in net.named_modules() if "forward" in vars(module)]
    assert left == ["controlnet_cond_embedding"], "as it was loaded"
    assert not any("forward" in vars(module) for module in models.vae.modules())
    assert not vars(models.vae).keys() & {"encode", "decode"}


class Blind:
    """Face tools that find no face: every picture scores nothing."""

    def faces(self, _photo: Photo) -> tuple[()]:
        """None."""
        return ()


def test_a_worker_on_a_small_card_loads_trains_judges_and_writes_its_file(
    tmp_path: Path, prepared: PreparedSet, steady: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_tiny_sdxl(tmp_path / "base")
    optim = replace(steady.optim, max_steps=4)
    spec = replace(steady, base_model=base, optim=optim, validate=ValidateSpec(every=2, templates=1), device="cpu")
    trials = [Trial(name="one", job=job())]
    monkeypatch.setattr(run, "make_judge", lambda models, *_: Judge(models, Blind(), np.ones(128), trials))
    files = []
    for course in (Course(micro=1), replace(LEAN, streamed=3)):
        monkeypatch.setattr(loading, "choose", lambda *_, course=course: (course,))
        folder = new_job(tmp_path / "jobs", spec, JobOrder(templates=(), created=time.time()))
        write_prepared(prepared, folder.prepared)
        result = run.run_job(folder, Reporter(folder.events, io.StringIO()), Stop(folder.cancel))
        assert [score.step for score in result.checkpoints][:2] == [2, 4]
        assert all(path.exists() for score in result.checkpoints for path in score.pictures)
        files.append(read_lora(folder.checkpoint(4)).tensors)
    for key, tensor in files[0].items():
        np.testing.assert_allclose(files[1][key], tensor, atol=2e-3 * float(np.abs(tensor).max()), err_msg=key)


def elsewhere(models: Models) -> list[torch.nn.Module]:
    """The modules with a weight that is not in main memory; "meta" is a device without numbers that meets no other."""
    parts = (models.unet, models.vae, *models.text_encoders, *models.loaded_controlnets)
    return [module for part in parts for module in part.modules() for own in module.parameters(recurse=False) if own.is_meta]


def test_a_lean_training_has_everything_it_computes_with_on_the_device_and_no_more(models: Models) -> None:
    network = LoraNetwork(models, LoraSpec(rank=2, alpha=1.0))
    models.device = "meta"
    network.follow(replace(LEAN, streamed=2))
    network.attach()
    tokens = torch.zeros(1, 77, dtype=torch.int64, device="meta")
    states = encode_tokens(models, (tokens, tokens))
    assert states.pooled is not None
    added = {"text_embeds": states.pooled, "time_ids": torch.zeros(1, 6, device="meta")}
    models.unet.train()
    found = models.unet(
        torch.zeros(1, 4, 8, 8, device="meta"), torch.zeros(1, device="meta"), states.states, added_cond_kwargs=added
    ).sample
    found.sum().backward()
    models.unet.eval()
    for block in network.blocks:
        assert all(group.down_grad.is_meta and not group.down.is_meta for group in block.groups)
        assert not any(layer.weight.is_meta for layer in block.place)
    assert all(own.is_meta for own in models.unet.conv_in.parameters())
    assert not any(own.is_meta for own in models.vae.parameters())


def test_rendering_part_by_part_meets_only_what_is_on_the_device(models: Models) -> None:
    network = LoraNetwork(models, LoraSpec(rank=2, alpha=1.0))
    models.controlnet(ConditionKind.CANNY)
    models.device = "meta"
    network.follow(replace(LEAN, streamed=4), trains_text=False)
    network.attach()
    set_aside(models, [models.vae, *models.text_encoders])
    before = elsewhere(models)
    assert set(before) <= set(models.unet.modules())
    with rendering(models, [models.vae, *models.text_encoders], {ConditionKind.CANNY}), network.fused():
        states = encode_prompts(models, ["a person"])
        added = added_conditions(models, states, (64, 64))
        latents = models.vae.encode(torch.zeros(1, 3, 64, 64, device="meta")).latent_dist.mode()
        control = models.controlnet(ConditionKind.CANNY), torch.zeros(1, 3, 64, 64, device="meta"), 0.5
        guide = Guide(states=states.states, guidance=1.0, controls=(control,), added=added)
        predicted = predict_noise(models, guide, latents, torch.zeros((), device="meta"))
        picture = models.vae.decode(predicted).sample
        assert elsewhere(models) == before, "nothing stays"
    assert picture.is_meta
    assert picture.shape == (1, 3, 64, 64)


def test_an_autoencoder_that_does_not_fit_works_in_tiles(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, latents = models.vae, torch.randn(1, 4, 128, 128, generator=torch.Generator().manual_seed(0))
    whole = vae.decode(latents).sample
    vae.tile_latent_min_size, vae.tile_sample_min_size = 128, 1024
    sizes: list[int] = []
    decoder = type(vae.decoder).forward

    def small(self: torch.nn.Module, sample: torch.Tensor, *more: object) -> torch.Tensor:
        if sample.shape[-1] > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(sample.shape[-1])
        return decoder(self, sample, *more)

    monkeypatch.setattr(type(vae.decoder), "forward", small)
    with in_turn(models, [vae]):
        found = vae.decode(latents).sample
    assert max(sizes) == 32
    assert found.shape == whole.shape
    assert float((found - whole).abs().mean()) < 0.5 * float(whole.std())
    monkeypatch.setattr(type(vae.decoder), "forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with in_turn(models, [vae]), pytest.raises(torch.OutOfMemoryError):
        vae.decode(latents)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("slots", [2, 3, 6])
def test_a_gpu_computes_with_what_has_arrived(models: Models, prepared: PreparedSet, steady: TrainSpec, slots: int) -> None:
    models.device, found = "cuda", []
    for streamed in (0, slots):
        training = begun(models, prepared, steady, replace(LEAN, streamed=streamed))
        for _ in range(6):
            training.update()
        training.flush()
        training.network.detach()
        found.append(training.losses)
    stream = training.network.blocks[0].stream
    assert stream is not None
    assert stream.locked
    # Convolutions in TF32 differ from run to run; a block's weights in another's place differ by far more.
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)
