from __future__ import annotations

from pathlib import Path

import pytest

from easyphoto.errors import SpecError
from easyphoto.families import PROFILES, Family
from easyphoto.records import TrainKind
from easyphoto.specs import PortraitSettings, TrainSpec
from easyphoto.store.codec import from_json
from easyphoto.ui.knobs import (
    PORTRAIT_KNOBS,
    PORTRAIT_SWITCHES,
    SCENE_KNOBS,
    SWITCHED_ON,
    TRAIN_KNOBS,
    Knob,
    Shape,
    laid_over,
    portrait_data,
    portrait_defaults,
    switched,
    switches_of,
    train_data,
    train_defaults,
)

FAMILIES = list(Family)
PEER_TRAINING = {
    "size": 512, "every": 100, "max_steps": 800, "steps_per_photo": 200, "learning_rate": 1e-4, "rank": 128, "alpha": 64,
}  # fmt: skip
"""What people know from the older extension, with its defaults for SD1.5."""
PEER_PORTRAITS = {
    "lora_weight": 0.9, "first_steps": 50, "first_strength": 0.45, "second_steps": 20, "second_strength": 0.3, "count": 1,
    "seed": -1, "color_shift_first": True, "color_shift_last": True, "crop_face": True, "face_shape_match": False,
    "makeup_ratio": 0.5, "background_strength": 0.35, "super_resolution_ratio": 0.5, "id_weight": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_default_lies_in_its_range(family: Family) -> None:
    scene = train_defaults(family, TrainKind.SCENE)
    shown = ((SCENE_KNOBS, train_defaults(family)), (SCENE_KNOBS, scene), (PORTRAIT_KNOBS, portrait_defaults(family)))
    for knobs, values in shown:
        assert set(values) == {knob.name for knob in knobs}
        for knob in knobs:
            if knob.shape is Shape.SLIDER:
                assert knob.low <= values[knob.name] <= knob.high, knob.name


@pytest.mark.parametrize("family", FAMILIES)
def test_both_ends_of_every_range_can_be_ordered(family: Family) -> None:
    wide = {**train_defaults(family), "rank": 256, "alpha": 1}
    for knob in (knob for knob in TRAIN_KNOBS if knob.shape is Shape.SLIDER):
        for value in (knob.low, knob.high):
            from_json(TrainSpec, laid_over(train_data("Anna", Path("/m"), family), TRAIN_KNOBS, {**wide, knob.name: value}))
    still = {**portrait_defaults(family), "seed": 0}
    for knob in (knob for knob in PORTRAIT_KNOBS if knob.shape is Shape.SLIDER):
        for value in (knob.low, knob.high):
            from_json(PortraitSettings, laid_over(portrait_data(family), PORTRAIT_KNOBS, {**still, knob.name: value}))


@pytest.mark.parametrize("family", FAMILIES)
def test_untouched_controls_ask_for_what_the_family_wants(family: Family) -> None:
    data = laid_over(train_data("Anna", Path("/m"), family), TRAIN_KNOBS, train_defaults(family))
    assert from_json(TrainSpec, data) == TrainSpec.for_family("Anna", Path("/m"), family)
    shown = laid_over(portrait_data(family), PORTRAIT_KNOBS, {**portrait_defaults(family), "seed": 0})
    settings = from_json(PortraitSettings, shown)
    row = PROFILES[family]
    assert (settings.first.strength, settings.first.steps) == (row.first.strength, row.first.steps)
    assert settings.second is not None
    assert (settings.second.strength, settings.second.steps) == (row.second.strength, row.second.steps)
    assert (settings.guidance, settings.crop_ratio) == (row.guidance, row.crop_ratio)


def test_a_switch_turns_its_field_off_and_is_read_back() -> None:
    data = portrait_data(Family.SD15)
    assert switches_of(data) == {one.name: True for one in PORTRAIT_SWITCHES}, "every switch on"
    for one in PORTRAIT_SWITCHES:
        said = {**dict.fromkeys(SWITCHED_ON, True), one.name: False}
        off = switched(data, said)
        assert off[one.path] == one.off
        assert switches_of(off) == said
        from_json(PortraitSettings, off)
    usual = from_json(PortraitSettings, switched(data, SWITCHED_ON))
    assert (usual.makeup, usual.retouch, usual.background, usual.super_resolution) == (0, 0, 0, None)
    assert usual.id_control is None
    assert usual.second is not None
    assert usual.fuse_before > 0 < usual.fuse_after


def test_what_people_know_is_there_with_the_same_defaults() -> None:
    assert {name: train_defaults(Family.SD15)[name] for name in PEER_TRAINING} == PEER_TRAINING
    assert {name: portrait_defaults(Family.SD15)[name] for name in PEER_PORTRAITS} == PEER_PORTRAITS


def test_no_two_controls_share_a_name_or_a_field() -> None:
    for knobs in (TRAIN_KNOBS, PORTRAIT_KNOBS):
        assert len({knob.name for knob in knobs}) == len({knob.path for knob in knobs}) == len(knobs)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_steps", None), ("max_steps", "20"), ("max_steps", 20.5), ("max_steps", True), ("rank", [])],
)
def test_a_control_that_holds_no_fitting_number_is_named(name: str, value: object) -> None:
    values = {**train_defaults(Family.SD15), name: value}
    label = next(knob.label for knob in TRAIN_KNOBS if knob.name == name)
    with pytest.raises(SpecError, match=label):
        laid_over(train_data("Anna", Path("/m"), Family.SD15), TRAIN_KNOBS, values)


def test_a_whole_number_may_come_as_a_float_and_zero_turns_an_option_off() -> None:
    values = {**train_defaults(Family.SD15), "max_steps": 20.0, "snr_gamma": 0}
    data = laid_over(train_data("Anna", Path("/m"), Family.SD15), TRAIN_KNOBS, values)
    assert data["optim"]["max_steps"] == 20
    assert isinstance(data["optim"]["max_steps"], int)
    assert data["optim"]["snr_gamma"] is None
    assert laid_over(data, TRAIN_KNOBS, {**values, "snr_gamma": 5})["optim"]["snr_gamma"] == 5.0


def test_ten_million_letters_are_no_prompt() -> None:
    values = {**portrait_defaults(Family.SD15), "prompt": "a" * 10_000_000}
    with pytest.raises(SpecError, match="10,000,000 characters"):
        laid_over(portrait_data(Family.SD15), PORTRAIT_KNOBS, values)


def test_the_data_laid_over_is_left_as_it_was() -> None:
    data = train_data("Anna", Path("/m"), Family.SD15)
    laid_over(data, TRAIN_KNOBS, {**train_defaults(Family.SD15), "rank": 4, "alpha": 4})
    assert data["lora"]["rank"] == 128


def test_a_knob_knows_where_its_value_stands() -> None:
    for knobs, data in ((TRAIN_KNOBS, train_data("", Path(), Family.SDXL)), (PORTRAIT_KNOBS, portrait_data(Family.SDXL))):
        for knob in knobs:
            assert isinstance(knob, Knob)
            inside = data
            for key in knob.path.split("."):
                inside = inside[key]
