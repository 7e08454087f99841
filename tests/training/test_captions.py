"""Several captions in one training: they decide what is learnt, and the quick trainer reads them as the plain recipe does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.models import Models, load_models
from easyphoto.errors import PhotoError
from easyphoto.families import Family
from easyphoto.kinds import spec_for
from easyphoto.records import PreparedSet, TrainKind
from easyphoto.specs import LoraSpec, OptimSpec, TrainSpec
from easyphoto.training.captions import caption_of, captions_beside, prompts_of, settle_captions
from easyphoto.training.dataset import cache_latents
from easyphoto.training.draws import Learner
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.planner import Course
from easyphoto.training.trainer import Training
from easyphoto.training.words import Captions
from tests.tiny_xl import make_tiny_sdxl
from tests.training.plain import PlainTraining

STEPS = 3
WHOLE = Course()
LOW = Course(micro=1, merged=False, checkpointing=True, offload=True)
TWO = ("a red door", "", "blue rain")
"""With the spec's own for the second photo: three different ones."""


@pytest.fixture
def steady(spec: TrainSpec) -> TrainSpec:
    optim = OptimSpec(learning_rate=1e-4, text_learning_rate=1e-4, batch_size=2, accumulation=2, steps_per_photo=10)
    return replace(spec, optim=optim)


def learner(models: Models, prepared: PreparedSet, spec: TrainSpec, captions: tuple[str, ...]) -> Learner:
    cache = cache_latents(models, prepared, spec, lambda _done, _total: None)
    return Learner(cache=cache, spec=spec, captions=captions)


def trained(models: Models, learners: list[Learner], course: Course = WHOLE) -> Training:
    network = LoraNetwork(models, learners[0].spec.lora, [each.spec.seed for each in learners], course.merged)
    network.attach()
    try:
        training = Training(models, network, learners, (course,))
        for _ in range(STEPS):
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


def compare(training: Training, plain: PlainTraining, person: int = 0) -> None:
    np.testing.assert_allclose([row[person] for row in training.history], plain.losses, rtol=2e-5)
    for layer in training.network.layers:
        for own, wanted in zip((layer.down[person], layer.up[person]), plain.factors[layer.name]):
            assert float((own - wanted.detach()).norm()) <= 2e-3 * float(wanted.detach().norm()) + 1e-6, layer.name


@pytest.mark.parametrize("text", [True, False], ids=["text trained", "text frozen"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("course", [WHOLE, LOW], ids=str)
def test_several_captions_are_the_plain_recipes(
    models: Models, prepared: PreparedSet, steady: TrainSpec, course: Course, batch: int, text: bool
) -> None:
    rate = steady.optim.text_learning_rate if text else 0.0
    spec = replace(steady, optim=replace(steady.optim, batch_size=batch, accumulation=4 // batch, text_learning_rate=rate))
    one = learner(models, prepared, spec, TWO)
    compare(trained(models, [one], course), plain_run(models, one))


@pytest.mark.parametrize("text", [True, False], ids=["text trained", "text frozen"])
def test_of_sdxl_too(
    tmp_path_factory: pytest.TempPathFactory, prepared: PreparedSet, steady: TrainSpec, text: bool
) -> None:
    models = load_models(make_tiny_sdxl(tmp_path_factory.mktemp("xl") / "base"), "cpu")
    optim = replace(steady.optim, text_learning_rate=1e-4 if text else 0.0)
    spec = replace(steady, family=Family.SDXL, optim=optim, lora=LoraSpec(rank=2, alpha=1.0, text_encoder=text))
    one = learner(models, prepared, spec, TWO)
    compare(trained(models, [one]), plain_run(models, one))


@pytest.mark.parametrize("text", [True, False], ids=["text trained", "text frozen"])
def test_several_people_with_captions_of_their_own_learn_as_if_alone(
    models: Models, prepared: PreparedSet, steady: TrainSpec, text: bool
) -> None:
    spec = replace(steady, optim=replace(steady.optim, text_learning_rate=1e-4 if text else 0.0))
    people = [
        learner(models, prepared, spec, TWO),
        learner(models, prepared, replace(spec, seed=9), ("green", "grey", "gold")),
    ]
    together = trained(models, people)
    for person, one in enumerate(people):
        compare(together, plain_run(models, one), person)


def test_each_picture_is_read_with_its_own_caption(models: Models, prepared: PreparedSet, spec: TrainSpec) -> None:
    one = learner(models, prepared, spec, TWO)
    variants = one.cache.variants
    rows = torch.tensor([0, 2 * variants, variants - 1])
    captions = Captions(models, [one], frozen=True)
    found = captions.read(rows).states
    assert torch.equal(found[0], found[2]), "both of the first photo"
    assert not torch.allclose(found[0], found[1])
    trained_text = Captions(models, [one], frozen=False).read(rows).states
    torch.testing.assert_close(trained_text.detach(), found, rtol=1e-4, atol=1e-5)


def test_captions_decide_what_is_learnt(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    same, other = (trained(models, [learner(models, prepared, steady, said)]) for said in (TWO, ("a", "b", "c")))
    assert same.losses != other.losses


def test_one_caption_for_all_is_one_row_and_bit_for_bit_the_training_without_any(
    models: Models, prepared: PreparedSet, steady: TrainSpec
) -> None:
    bare = learner(models, prepared, steady, ())
    said = learner(models, prepared, steady, (steady.data.caption,) * 3)
    assert len(Captions(models, [said], frozen=False).read(torch.tensor([0, 1, 2, 3]))) == 1
    one, two = trained(models, [bare]), trained(models, [said])
    assert one.history == two.history
    for key, value in one.network.state_dict(np.float32).items():
        assert np.array_equal(value, two.network.state_dict(np.float32)[key]), key


@pytest.fixture
def scene(tmp_path: Path) -> TrainSpec:
    return spec_for(TrainKind.SCENE, Family.EMBEDDED, "Harbour", tmp_path, "a harbour")


def test_a_caption_is_the_whole_text_beside_its_photo(tmp_path: Path, scene: TrainSpec) -> None:
    photos = [tmp_path / "a.jpg", tmp_path / "b.c.jpg"]
    assert captions_beside(photos) == ()
    (tmp_path / "b.c.txt").write_text("two boats,\n  at dusk\n", encoding="utf-8-sig")
    said = captions_beside(photos)
    assert said == ("", "two boats, at dusk")
    assert prompts_of(scene, said) == ("a harbour, special_scene, scene", "two boats, at dusk")


def test_with_one_caption_every_photo_needs_one_or_a_prompt(scene: TrainSpec, tmp_path: Path) -> None:
    bare = spec_for(TrainKind.SCENE, Family.EMBEDDED, "Harbour", tmp_path)
    names = ["a.jpg", "b.jpg"]
    with pytest.raises(PhotoError, match=r"b\.jpg has no caption .* b\.txt"):
        settle_captions(bare, names, ["boats", ""])
    assert settle_captions(scene, names, ["boats", ""]) == ("boats", "")
    assert settle_captions(bare, names, ["", ""]) == ()
    assert settle_captions(bare, names, ["boats", "a quay"]) == ("boats", "a quay")


def test_what_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(PhotoError, match=r"a\.txt is no text"):
        caption_of(b"\xff\xfe\x00", "a.txt")
    with pytest.raises(PhotoError, match=r"a\.txt has 9,000"):
        caption_of(b"x" * 9000, "a.txt")


@pytest.mark.parametrize("text", [True, False], ids=["text trained", "text frozen"])
def test_a_training_with_several_captions_goes_on_bit_for_bit(
    models: Models, prepared: PreparedSet, steady: TrainSpec, text: bool
) -> None:
    spec = replace(steady, optim=replace(steady.optim, text_learning_rate=1e-4 if text else 0.0))
    one = learner(models, prepared, spec, TWO)
    whole = trained(models, [one])
    network = LoraNetwork(models, spec.lora, (spec.seed,))
    network.attach()
    try:
        first = Training(models, network, (one,))
        first.update()
        state = first.state_dict()
    finally:
        network.detach()
    network = LoraNetwork(models, spec.lora, (spec.seed,))
    network.attach()
    try:
        rest = Training(models, network, (one,))
        rest.load_state_dict(state)
        for _ in range(STEPS - 1):
            rest.update()
    finally:
        network.detach()
    assert rest.history == whole.history
    wanted = whole.network.state_dict(np.float32)
    for key, value in rest.network.state_dict(np.float32).items():
        assert np.array_equal(value, wanted[key]), key
