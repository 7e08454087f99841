"""Every switch of the recipe does what its paper or its name says: compared with the plain recipe written out beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.lora_patch import patched
from easyphoto.engine.models import Models, load_models
from easyphoto.errors import JobFailed, LoraError, SpecError
from easyphoto.imaging.mesh import OVAL
from easyphoto.records import LoraUse, PreparedSet
from easyphoto.specs import LoraSpec, OptimSpec, RateSchedule, TrainSpec
from easyphoto.store.codec import from_json, to_json
from easyphoto.store.lora_file import LoraFile, read_lora, write_lora
from easyphoto.store.lora_meta import TrainingFacts, kohya_metadata
from easyphoto.training.dataset import cache_latents, crop_weights, training_crops
from easyphoto.training.draws import Learner
from easyphoto.training.focus import face_of
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.pace import newest_share, pace
from easyphoto.training.planner import Course
from easyphoto.training.trainer import Training
from tests.training.plain import PlainTraining

STEPS = 5
WHOLE = Course()
LOW = Course(micro=1, merged=False, checkpointing=True, offload=True)
SWITCHES = {
    "min-SNR": {"snr_gamma": 1.0},
    "timesteps": {"timestep_power": 2.0},
    "warm-up": {"warmup": 0.5},
    "cosine": {"schedule": RateSchedule.COSINE},
    "LoRA+": {"loraplus_ratio": 8.0},
    "face": {"face_weight": 4.0},
    "average": {"ema": 0.9},
}
ALL = {name: value for switch in SWITCHES.values() for name, value in switch.items()}


@pytest.fixture
def steady(spec: TrainSpec) -> TrainSpec:
    """Ten steps of which half are done, at rates that leave rounding small."""
    optim = OptimSpec(
        learning_rate=1e-4, text_learning_rate=1e-4, batch_size=2, accumulation=2, steps_per_photo=10, max_steps=10
    )
    return replace(spec, optim=optim)


@pytest.fixture
def prepared(prepared: PreparedSet) -> PreparedSet:
    """Photos whose mesh is a small circle in the middle: a crop of 64 px shows it and what is beside it."""
    turn = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    photos = []
    for photo in prepared.photos:
        mesh = np.zeros((478, 2), np.float32)
        mesh[list(OVAL)] = np.array(photo.own_face.box.center) + 4 * np.column_stack([np.cos(turn), np.sin(turn)])
        photos.append(replace(photo, face=replace(photo.own_face, mesh=mesh)))
    return replace(prepared, photos=tuple(photos))


def learner(models: Models, prepared: PreparedSet, spec: TrainSpec) -> Learner:
    return Learner(cache=cache_latents(models, prepared, spec, lambda _done, _total: None), spec=spec)


def trained(models: Models, learners: list[Learner], course: Course = WHOLE, steps: int = STEPS) -> Training:
    network = LoraNetwork(models, learners[0].spec.lora, [each.spec.seed for each in learners], course.merged)
    network.attach()
    try:
        training = Training(models, network, learners, (course,))
        for _ in range(steps):
            training.update()
    finally:
        network.detach()
        models.unet.disable_gradient_checkpointing()
    return training


def plain_run(models: Models, one: Learner) -> PlainTraining:
    with PlainTraining(models, one) as plain:
        for _ in range(STEPS):
            plain.update()
    return plain


def near(own: torch.Tensor, wanted: torch.Tensor) -> bool:
    return float((own - wanted).norm()) <= 2e-3 * float(wanted.norm()) + 1e-6


def moved(training: Training) -> float:
    """How far the ups have come from nothing, where they began."""
    return sum(float(layer.up.norm()) for layer in training.network.unet_layers)


@pytest.mark.parametrize("course", [Course(), LOW], ids=str)
@pytest.mark.parametrize("switch", [*SWITCHES, "all"])
def test_every_switch_is_the_plain_recipes(
    models: Models, prepared: PreparedSet, steady: TrainSpec, switch: str, course: Course
) -> None:
    optim = replace(steady.optim, **(ALL if switch == "all" else SWITCHES[switch]))
    one = learner(models, prepared, replace(steady, optim=optim))
    training, plain = trained(models, [one], course), plain_run(models, one)
    np.testing.assert_allclose(training.losses, plain.losses, rtol=2e-5)
    for layer in training.network.layers:
        assert near(layer.down[0], plain.factors[layer.name][0].detach()), layer.name
        assert near(layer.up[0], plain.factors[layer.name][1].detach()), layer.name
    if optim.ema:
        with training.averaged():
            for layer in training.network.layers:
                assert near(layer.down[0], plain.averages[layer.name][0]), layer.name
                assert near(layer.up[0], plain.averages[layer.name][1]), layer.name


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_something(models: Models, prepared: PreparedSet, steady: TrainSpec, switch: str) -> None:
    """Else the test above would hold for a switch that nobody reads."""
    runs = []
    for optim in (steady.optim, replace(steady.optim, **SWITCHES[switch])):
        training = trained(models, [learner(models, prepared, replace(steady, optim=optim))])
        with training.averaged():
            runs.append(training.network.state_dict(np.float32))
    assert any(not np.array_equal(runs[0][key], runs[1][key]) for key in runs[0])


def test_all_of_them_are_resumed_bit_for_bit(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    one = learner(models, prepared, replace(steady, optim=replace(steady.optim, **ALL)))
    whole, half = trained(models, [one], steps=6), trained(models, [one], steps=3)
    network = LoraNetwork(models, steady.lora, (9,))
    network.attach()
    again = Training(models, network, [one])
    again.load_state_dict(half.state_dict())
    for _ in range(3):
        again.update()
    network.detach()
    wanted, got = whole.state_dict(), again.state_dict()
    assert "optimizer.0.average" in wanted
    for key, value in wanted.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


def test_a_state_without_the_average_is_refused(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    state = trained(models, [learner(models, prepared, steady)], steps=1).state_dict()
    averaging = replace(steady, optim=replace(steady.optim, ema=0.9))
    with pytest.raises(LoraError, match="start it anew"):
        trained(models, [learner(models, prepared, averaging)], steps=1).load_state_dict(state)


def test_the_state_of_a_plain_recipe_is_what_it_was(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    """Trainings that were cut off before the switches came go on."""
    training = trained(models, [learner(models, prepared, steady)], steps=1)
    kinds = {key.split(".")[-1] for key in training.state_dict() if key.startswith("optimizer.")}
    assert kinds == {"scale", "good", "exp_avg", "exp_avg_sq", "step"}
    assert training.optimizer._before == []


def test_no_number_leaves_factors_and_their_average_alone(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    training = trained(models, [learner(models, prepared, replace(steady, optim=replace(steady.optim, **ALL)))], steps=2)
    before = {key: value for key, value in training.state_dict().items() if "loss" not in key}
    training._dealer.mean[:] = float("nan")
    training.network.attach()
    with pytest.raises(JobFailed, match="no number"):
        training.update()
    training.network.detach()
    after = training.state_dict()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


def test_people_side_by_side_have_weights_of_their_own(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    fewer = replace(prepared, photos=prepared.photos[1:], verdicts=prepared.verdicts[1:])
    specs = [replace(steady, seed=seed, optim=replace(steady.optim, **ALL)) for seed in (3, 4)]
    people = [learner(models, photos, spec) for photos, spec in zip((prepared, fewer), specs)]
    together = trained(models, people)
    for number, one in enumerate(people):
        alone = trained(models, [one])
        np.testing.assert_allclose([row[number] for row in together.history], alone.losses, rtol=1e-6)


def test_the_average_stands_in_only_as_long_as_it_is_asked_to(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    training = trained(models, [learner(models, prepared, replace(steady, optim=replace(steady.optim, ema=0.9)))])
    before = training.network.state_dict(np.float32)
    with training.averaged():
        inside = training.network.state_dict(np.float32)
    after = training.network.state_dict(np.float32)
    assert all(np.array_equal(after[key], value) for key, value in before.items())
    assert any(not np.array_equal(inside[key], value) for key, value in before.items())


def test_the_pace_grows_and_falls() -> None:
    cosine = OptimSpec(schedule=RateSchedule.COSINE, warmup=0.1)
    paces = [pace(cosine, step, 100) for step in range(100)]
    assert paces[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert paces[10] == 1.0
    assert paces[55] == pytest.approx(0.5)
    assert 0 < paces[99] < 0.001
    assert [pace(OptimSpec(), step, 7) for step in range(7)] == [1.0] * 7
    assert [pace(OptimSpec(warmup=0.5), step, 4) for step in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_an_average_begins_with_the_newest_and_grows_as_long_as_asked() -> None:
    shares = [newest_share(OptimSpec(ema=0.98), step) for step in (0, 10, 10_000)]
    assert shares == pytest.approx([1.0, 0.5, 0.02])


def test_weights_lie_on_the_face_and_have_a_mean_of_one(prepared: PreparedSet, spec: TrainSpec) -> None:
    heavy = replace(spec, optim=replace(spec.optim, face_weight=5.0))
    photo = prepared.photos[0]
    found = list(crop_weights(photo, heavy, 0))
    assert len(found) == len(list(training_crops(photo, heavy, 0)))
    for weights in found:
        assert weights.shape == (8, 8)
        assert float(weights.mean()) == pytest.approx(1.0, abs=1e-6)
        assert weights[4, 4] > 1.2 * weights[0, 0]
    np.testing.assert_array_equal(found[1], found[0][:, ::-1])
    assert float(found[0].max() / found[0].min()) == pytest.approx(5.0, rel=0.01)
    boxed = list(crop_weights(replace(photo, face=replace(photo.own_face, mesh=None)), heavy, 0))
    assert float(boxed[0].min()) == pytest.approx(1.0), "the crop lies inside the face's box"
    assert face_of(replace(photo, face=None)).min() == 1, "a scene is alike all over"


def test_a_file_of_rslora_needs_no_loader_of_its_own(
    models: Models, tiny_base: Path, prepared: PreparedSet, steady: TrainSpec, tmp_path: Path
) -> None:
    """The scale of alpha / sqrt(rank) is folded into the file's alpha, which every loader divides by the rank."""
    spec = replace(steady, lora=LoraSpec(rank=4, alpha=2.0, rslora=True))
    training = trained(models, [learner(models, prepared, spec)])
    layer = training.network.unet_layers[0]
    assert layer.scale == 1.0
    training.network.refresh()
    wanted = layer.fused_weight()
    path = tmp_path / "lora.safetensors"
    facts = TrainingFacts(steps=STEPS, photos=3)
    write_lora(path, LoraFile(tensors=training.network.state_dict(np.float32), metadata=kohya_metadata(spec, facts)))
    file = read_lora(path)
    assert file.tensors[f"{layer.name}.alpha"] == 4.0
    assert file.metadata["ss_network_alpha"] == "4.0"
    assert float(file.module(layer.name).scale) == 1.0
    fresh = load_models(tiny_base, "cpu")
    module = LoraNetwork(fresh, spec.lora).unet_layers[0].module
    with patched(fresh, (LoraUse(path=path, weight=1.0),)):
        torch.testing.assert_close(module.weight, wanted.view(module.weight.shape), rtol=1e-5, atol=1e-6)


def test_ranks_learn_alike_with_rslora(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    scales = [LoraSpec(rank=rank, alpha=1.0, rslora=True).scale for rank in (4, 16, 64)]
    assert scales == [1 / 2, 1 / 4, 1 / 8]
    one = learner(models, prepared, replace(steady, lora=LoraSpec(rank=4, alpha=2.0, rslora=True)))
    plain = learner(models, prepared, replace(steady, lora=LoraSpec(rank=4, alpha=4.0)))
    a, b = (trained(models, [each]).network.state_dict(np.float32) for each in (one, plain))
    assert all(np.array_equal(a[key], b[key]) for key in a), "the same scale, the same training"


def test_the_rates_of_a_warm_up_are_small(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    slow, fast = (replace(steady, optim=replace(steady.optim, warmup=share)) for share in (0.5, 0.0))
    a, b = (trained(models, [learner(models, prepared, spec)], steps=1) for spec in (slow, fast))
    assert moved(a) == pytest.approx(moved(b) / 6, rel=0.01), "the first of five steps of growth"


@pytest.mark.parametrize(
    ("name", "value"),
    [("warmup", 0.6), ("loraplus_ratio", 0.5), ("face_weight", 0.0), ("face_weight", 17.0), ("ema", 1.0), ("snr_gamma", 0.0)],
)
def test_numbers_that_make_no_sense_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(SpecError, match=rf"{name} must be within .*got {value}"):
        OptimSpec(**{name: value})


def test_the_metadata_names_the_schedule_as_kohya_does(spec: TrainSpec) -> None:
    facts = TrainingFacts(steps=6, photos=3)

    def told(**changes: object) -> tuple[str, str]:
        fields = kohya_metadata(replace(spec, optim=replace(spec.optim, **changes)), facts)
        return fields["ss_lr_scheduler"], fields["ss_lr_warmup_steps"]

    assert told() == ("constant", "0")
    assert told(warmup=0.5) == ("constant_with_warmup", "3")
    assert told(schedule=RateSchedule.COSINE) == ("cosine", "0")


def test_specs_from_before_the_switches_are_read(spec: TrainSpec) -> None:
    data = to_json(spec)
    for name in ("schedule", "warmup", "loraplus_ratio", "face_weight", "ema"):
        del data["optim"][name]
    del data["lora"]["rslora"]
    assert from_json(TrainSpec, data) == spec
    assert from_json(TrainSpec, to_json(spec)) == spec


def test_blocks_that_are_put_back_are_the_same_ones(models: Models, steady: TrainSpec) -> None:
    """A captured graph goes on reading what they hold, after a checkpoint was rendered without them."""
    network = LoraNetwork(models, steady.lora, (0,))
    network.attach()
    before = network._fast
    with network.fused():
        assert network._fast is None
    assert network._fast is before
    network.detach()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rendering_between_steps_does_not_reach_a_graph(tiny_base: Path, prepared: PreparedSet, steady: TrainSpec) -> None:
    models = load_models(tiny_base, "cuda", torch.float32)
    one, runs = learner(models, prepared, steady), []
    for disturbed in (False, True):
        network = LoraNetwork(models, steady.lora, (0,))
        network.attach()
        training = Training(models, network, [one])
        for step in range(6):
            training.update()
            if disturbed and step == 2:
                training.flush()
                with network.fused():
                    torch.cuda.empty_cache()
                    torch.full((2**26,), float("nan"), device="cuda")
        training.flush()
        network.detach()
        runs.append(training.losses)
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-4)
