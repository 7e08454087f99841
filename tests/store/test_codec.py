from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.errors import SpecError
from easyphoto.families import Family
from easyphoto.records import Photo, PhotoScores, Reason, Verdict
from easyphoto.specs import CheckpointScore, OptimSpec, PassRequest, PassSettings, Person, TrainResult, TrainSpec
from easyphoto.store.codec import dumps, from_json, loads, to_json

SPEC = TrainSpec(person="王小明", base_model=Path("/models/base"), family=Family.SD15, optim=OptimSpec(snr_gamma=5.0), seed=7)
RESULT = TrainResult(
    lora=Path("a.safetensors"),
    steps=4,
    photos=2,
    chosen=0,
    face_id_picture=None,
    seconds=1.5,
    losses=(0.5, 0.25),
    checkpoints=(CheckpointScore(step=4, score=0.5, pictures=(Path("v/a.png"),), picture_scores=(0.5,), merged=True),),
)
PERSON = Person(
    name="👩🏽‍🚀",
    person_id="person-1",
    folder=Path("f"),
    family=Family.EMBEDDED,
    lora=Path("l"),
    reference=Path("r"),
    face_id_picture=Path("i"),
    embedding=(0.1, -0.2),
    created="2026-11-21T00:00:00+00:00",
)
VERDICT = Verdict(
    photo="ä.jpg", accepted=False, reason=Reason.BLURRED, sentence="Too soft.", scores=PhotoScores(faces=1, sharpness=0.1)
)


PASSES = (
    PassSettings(strength=0.5, steps=3, weights=(("canny", 0.5),)),
    PassRequest(),
    PassRequest(steps=3, weights=(("canny", 0.5),)),
)


@pytest.mark.parametrize("record", [SPEC, RESULT, PERSON, VERDICT, *PASSES])
def test_records_survive_the_round_trip(record: object) -> None:
    assert loads(type(record), dumps(record)) == record


def test_json_is_plain() -> None:
    data = json.loads(dumps(SPEC))
    assert data["family"] == "sd15"
    assert data["base_model"] == "/models/base"
    assert data["optim"]["snr_gamma"] == 5.0
    assert to_json((VERDICT, VERDICT))[1]["reason"] == "blurred"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "no setting 'colour'"),
        ({"seed": "1"}, "TrainSpec.seed must be of type int, got '1'"),
        ({"seed": True}, "TrainSpec.seed must be of type int"),
        ({"family": "sd9"}, "must be one of embedded, sd15, sdxl, got 'sd9'"),
        ({"lora": {"rank": 0}}, "rank must be within 1-512"),
        ({"lora": {"ranks": 4}}, "TrainSpec.lora has no setting 'ranks'"),
        ({"lora": 3}, "TrainSpec.lora must be a JSON object"),
        ({"optim": {"learning_rate": float("nan")}}, "finite"),
        ({"schema_version": 99}, "newer version"),
    ],
)
def test_what_does_not_belong_is_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_json(TrainSpec, {**to_json(SPEC), **change})


def test_missing_and_broken_are_refused() -> None:
    with pytest.raises(SpecError, match="lacks person"):
        from_json(TrainSpec, {"base_model": "x"})
    with pytest.raises(SpecError, match="no JSON"):
        loads(TrainSpec, '{"person": ')
    with pytest.raises(SpecError, match="must have 2 entries, got 1"):
        from_json(PassSettings, {"strength": 0.5, "steps": 1, "weights": [["canny"]]})


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(SpecError, match="finite"):
        dumps(replace(RESULT, seconds=float("inf")))
    with pytest.raises(TypeError):
        to_json(Photo(pixels=np.zeros((2, 2, 3), np.uint8), name="x"))


def test_defaults_fill_what_an_older_version_did_not_write() -> None:
    spec = from_json(TrainSpec, {"person": "Anna", "base_model": "/m", "optim": {"batch_size": 2}})
    assert spec == TrainSpec(person="Anna", base_model=Path("/m"), optim=OptimSpec(batch_size=2))
