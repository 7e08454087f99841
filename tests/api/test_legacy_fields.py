"""What the fields of the older extension's requests mean here: its defaults are the family's, the rest is as sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyphoto.api.legacy_fields import (
    Answered,
    Fields,
    gallery_name,
    portrait_notes,
    portrait_settings,
    scene_prompt,
    tab,
    train_kind,
    train_notes,
    train_spec,
    user_id,
    user_ids,
    wants_scores,
)
from easyphoto.errors import SpecError
from easyphoto.extras import IdControl, SuperResolution
from easyphoto.families import Family
from easyphoto.kinds import spec_for
from easyphoto.records import TrainKind
from easyphoto.specs import PassRequest, PortraitSettings, TrainSpec
from tests.api.legacy_bodies import infer_body, train_body

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3)
)


def own(family: Family) -> TrainSpec:
    return TrainSpec.for_family("test", Path("/models/base"), family, seed=7)


def trained(family: Family = Family.EMBEDDED, **changes: Any) -> TrainSpec:
    return train_spec(Fields(train_body(**changes)), own(family))


def made(family: Family = Family.EMBEDDED, **changes: Any) -> PortraitSettings:
    return portrait_settings(Fields(infer_body(**changes)), family)


@pytest.mark.parametrize("family", [Family.EMBEDDED, Family.SD15])
def test_what_the_clients_send_by_themselves_is_the_familys_own_training(family: Family) -> None:
    assert trained(family) == own(family)
    assert train_spec(Fields({}), own(family)) == own(family)


def test_the_defaults_of_sd15_are_kept_out_of_sdxl_too() -> None:
    assert trained(Family.SDXL) == own(Family.SDXL)


def test_what_was_chosen_is_taken_as_sent() -> None:
    spec = trained(
        resolution=256, val_and_checkpointing_steps=50, max_train_steps=300, steps_per_photos=20, train_batch_size=2,
        gradient_accumulation_steps=2, learning_rate=2e-4, rank=16, network_alpha=8,
    )  # fmt: skip
    assert (spec.data.size, spec.validate.every, spec.optim.max_steps, spec.optim.steps_per_photo) == (256, 50, 300, 20)
    assert (spec.optim.batch_size, spec.optim.accumulation) == (2, 2)
    assert (spec.optim.learning_rate, spec.optim.text_learning_rate) == (2e-4, 1e-4)
    assert (spec.lora.rank, spec.lora.alpha) == (16, 8)


def test_numbers_written_as_text_are_numbers() -> None:
    assert trained(rank="16", network_alpha="8.0", max_train_steps="300", learning_rate="2e-4") == trained(
        rank=16, network_alpha=8, max_train_steps=300, learning_rate=2e-4
    )


def test_rank_and_alpha_are_taken_together() -> None:
    spec = trained(rank=128, network_alpha=100)
    assert (spec.lora.rank, spec.lora.alpha) == (128, 100)


def test_an_alpha_above_the_rank_is_refused_in_that_extensions_words() -> None:
    with pytest.raises(
        Answered, match=r"^The network alpha 64 must not exceed rank 32\. It will result in an unintended LoRA\.$"
    ):
        trained(rank=32)


def test_without_validation_no_checkpoint_is_judged() -> None:
    assert trained(validation=False).validate.every == 0


@pytest.mark.parametrize("value", ["many", "nan", "inf", [1], {"a": 1}, float("inf"), "1" * 400])
def test_what_is_no_number_is_told_with_its_field(value: object) -> None:
    with pytest.raises(SpecError, match="max_train_steps must be a number"):
        trained(max_train_steps=value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"user_id": ""}, "User id cannot be set to empty."),
        ({"user_id": None}, "User id cannot be set to empty."),
        ({"user_id": "  "}, "User id cannot be set to empty."),
        ({"user_id": "none"}, "User id cannot be set to none."),
    ],
)
def test_user_ids_that_cannot_be_are_refused_in_that_extensions_words(body: dict[str, Any], message: str) -> None:
    with pytest.raises(Answered) as refused:
        user_id(Fields(body))
    assert str(refused.value) == message


def test_a_training_without_user_id_is_called_tmp() -> None:
    assert user_id(Fields({})) == "tmp"


@pytest.mark.parametrize(
    ("sent", "people"),
    [
        (["anna"], ("anna",)),
        ("anna", ("anna",)),
        (["none", "anna", "none"], (None, "anna", None)),
        ([7], ("7",)),
        (["anna", None, ""], ("anna", None, None)),
    ],
)
def test_users_are_named_by_a_list_or_a_text_and_none_leaves_a_face(sent: object, people: tuple[str | None, ...]) -> None:
    assert user_ids(Fields({"user_ids": sent})) == people


@pytest.mark.parametrize("sent", [[], ["none"], "", None, "none"])
def test_nobody_at_all_is_refused_in_that_extensions_words(sent: object) -> None:
    with pytest.raises(Answered, match=r"^Please choose a user id\.$"):
        user_ids(Fields({"user_ids": sent}))


def test_what_the_clients_send_by_themselves_leaves_a_portrait_to_the_family() -> None:
    usual = PortraitSettings(seed=12345, super_resolution=SuperResolution())
    assert made() == usual
    assert portrait_settings(Fields({"seed": 12345}), Family.EMBEDDED) == usual
    assert made(super_resolution=False) == PortraitSettings(seed=12345)


def test_on_sd15_the_passes_are_as_sent() -> None:
    settings = made(Family.SD15)
    assert settings.first == PassRequest(strength=0.45, steps=50)
    assert settings.second == PassRequest(strength=0.35, steps=20)


def test_portrait_settings_that_were_chosen_are_taken() -> None:
    settings = made(
        first_denoising_strength="0.5", first_diffusion_steps=30, second_denoising_strength=0.2, second_diffusion_steps=15,
        before_face_fusion_ratio=0.3, apply_face_fusion_after=False, color_shift_middle=False, color_shift_last="false",
        lora_weights=1.1, batch_size=3, additional_prompt="smiling, <lora:age_sd1_sliders:1>", additional_neg_prompt="hat",
    )  # fmt: skip
    assert settings == PortraitSettings(
        prompt="smiling", negative="hat", seed=12345, count=3, lora_weight=1.1,
        first=PassRequest(strength=0.5, steps=30), second=PassRequest(strength=0.2, steps=15),
        fuse_before=0.3, fuse_after=0.0, color_shift_first=False, color_shift_last=False, super_resolution=SuperResolution(),
    )  # fmt: skip


def test_the_further_steps_are_as_sent() -> None:
    settings = made(
        super_resolution_method="realesrgan", super_resolution_ratio="0.8", skin_retouching_bool=True, background_restore="yes",
        background_restore_denoising_strength=0.2, makeup_transfer=True, makeup_transfer_ratio=0.7, face_shape_match=1,
        crop_face_preprocess=False,
    )  # fmt: skip
    assert settings.super_resolution == SuperResolution(way="auto", ratio=0.8)
    assert (settings.retouch, settings.background, settings.makeup) == (0.5, 0.2, 0.7)
    assert (settings.face_shape_match, settings.crop_face) == (True, False)
    off = made(background_restore_denoising_strength=0.2, makeup_transfer_ratio=0.7)
    assert (off.retouch, off.background, off.makeup, off.face_shape_match, off.crop_face) == (0, 0, 0, False, True)


def test_the_id_control_is_on_where_somebody_says_so() -> None:
    for name in ("id_control", "ipa_control"):
        sent = {name: True, "ipa_weight": "0.4"}
        assert made(Family.SD15, **sent).id_control == IdControl(weight=0.4)
        assert made(Family.EMBEDDED, **sent).id_control is None
        assert portrait_notes(Fields(sent), Family.SD15) == ()
        (left,) = portrait_notes(Fields(sent), Family.EMBEDDED)
        assert "embedded" in left
    instant = {"id_control": True, "id_control_method": "InstantID"}
    assert made(Family.SDXL, **instant).id_control is None
    assert portrait_notes(Fields(instant), Family.SDXL) == ("InstantID is not available and was left out.",)
    assert made(Family.SD15).id_control is None


def test_without_second_diffusion_there_is_one_pass() -> None:
    assert made(enable_second_diffusion=False).second is None


def test_seed_minus_one_is_drawn_anew_each_time() -> None:
    seeds = {made(seed=-1).seed for _ in range(20)} | {made(seed="-1").seed}
    assert len(seeds) > 10
    assert max(seeds) < 65536


def test_switches_without_counterpart_are_told_when_asked_for() -> None:
    assert portrait_notes(Fields(infer_body()), Family.EMBEDDED) == ()
    assert train_notes(Fields(train_body())) == ()
    asked = infer_body(makeup_transfer=True, background_restore="yes", crop_face_preprocess=False, lcm_accelerate=True)
    assert [note.partition(" ")[0] for note in portrait_notes(Fields(asked), Family.EMBEDDED)] == ["lcm_accelerate"]
    assert portrait_notes(Fields(asked), Family.SD15) == ()
    assert not made(lcm_accelerate=True).lcm
    fast = made(Family.SD15, lcm_accelerate=True, second_diffusion_steps=6)
    assert (fast.lcm, fast.first, fast.second) == (True, PassRequest(), PassRequest(steps=6))
    assert train_notes(Fields(train_body(enable_rl=True))) == ("enable_rl is not available here and was left out.",)


def scene_of(family: Family, **changes: object) -> TrainSpec:
    fields = Fields(train_body(train_mode_choose="Train Scene Lora", **changes))
    assert train_kind(fields) is TrainKind.SCENE
    return train_spec(fields, spec_for(TrainKind.SCENE, family, "test", Path("/models/base"), scene_prompt(fields)))


def test_a_scene_of_that_extensions_page_is_as_that_extension_trains_it() -> None:
    scene = scene_of(Family.SD15, resolution=768, rank=256, network_alpha=128, training_prefix_prompt="a harbour")
    assert (scene.data.size, scene.lora.rank, scene.lora.alpha) == (768, 256, 128)
    assert scene.data.caption == "a harbour, special_scene, scene"
    assert scene.data.crop_ratio == 3


def test_a_scene_sent_with_the_routes_own_defaults_has_a_scenes() -> None:
    assert scene_of(Family.SD15) == scene_of(Family.SD15, resolution=768, rank=256, network_alpha=128)
    assert scene_of(Family.EMBEDDED).data.size == 256
    chosen = scene_of(Family.EMBEDDED, resolution=640, crop_ratio=0.5)
    assert (chosen.data.size, chosen.data.crop_ratio) == (640, 0.5)


def test_a_person_has_no_crop_ratio_of_a_scene() -> None:
    assert train_kind(Fields(train_body())) is TrainKind.PERSON
    assert train_spec(Fields(train_body(crop_ratio=3)), own(Family.SD15)).data.crop_ratio is None


def test_scores_are_shown_as_there_whenever_id_control_is_on_which_is_the_default() -> None:
    assert wants_scores(Fields(infer_body()))
    assert not wants_scores(Fields(infer_body(id_control=False)))
    assert wants_scores(Fields(infer_body(id_control=False, display_score=True)))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("garden-arch", "garden-arch"),
        ("garden-arch.jpg", "garden-arch"),
        ("/home/me/models/infer_templates/1.jpg", "1"),
        ("..\\..\\infer_templates\\2.jpg", "2"),
        ("../../../etc/passwd", "passwd"),
        ("['/models/infer_templates/3.jpg']", "3"),
    ],
)
def test_of_a_gallery_path_only_the_files_name_counts(path: str, name: str) -> None:
    assert gallery_name(path) == name


@pytest.mark.parametrize(("sent", "number"), [(1, 1), ("2", 2), (None, 1), ("x", -1), ([], -1)])
def test_tabs_may_be_text(sent: object, number: int) -> None:
    assert tab(Fields({"tabs": sent})) == number


@given(body=st.dictionaries(st.sampled_from(sorted({*train_body(), *infer_body(), "seed", "batch_size", "user_ids"})), JUNK))
def test_no_body_of_any_shape_leads_to_anything_but_settings_or_a_sentence(body: dict[str, Any]) -> None:
    fields = Fields(body)
    for read in READERS:
        _reads(read, fields)


READERS: tuple[Callable[[Fields], object], ...] = (
    user_id, user_ids, tab, train_notes, wants_scores, train_kind, scene_prompt,
    lambda fields: portrait_notes(fields, Family.SDXL),
    lambda fields: train_spec(fields, own(Family.EMBEDDED)), lambda fields: portrait_settings(fields, Family.EMBEDDED),
)  # fmt: skip


def _reads(read: Callable[[Fields], object], fields: Fields) -> None:
    try:
        read(fields)
    except (Answered, SpecError) as error:
        assert str(error).encode("utf-8")
