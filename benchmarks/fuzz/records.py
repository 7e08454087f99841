"""Records as JSON: whatever the text, a record that survives the round trip or a refusal."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.fuzz.broken_json import spoil
from benchmarks.fuzz.target import Mutate, Target, check_sentence
from easyphoto.errors import EasyPhotoError
from easyphoto.families import Family
from easyphoto.orders import CheckOrder, Consent, DrillOrder, PortraitOrder, TrainOrder
from easyphoto.records import PhotoScores, Reason, Verdict
from easyphoto.specs import CheckpointScore, PassRequest, PassSettings, Person, PortraitSettings, TrainResult, TrainSpec
from easyphoto.store.codec import dumps, loads
from easyphoto.work import FaceScore, Failure, Job, JobKind, JobProgress, JobResult, JobState, Missed, Picture, ResultFile

_SPEC = TrainSpec.for_family("Anna", Path("/models/base-256"), Family.EMBEDDED)
_TIME = "2026-11-21T00:00:00+00:00"
_VERDICT = Verdict(photo="ä.jpg", accepted=False, reason=Reason.BLURRED, sentence="Too soft.", scores=PhotoScores(faces=1))
_CONSENT = Consent(given_by="Anna", given_at=_TIME, note="by letter")
_PICTURE = Picture(file="a.png", template="t.jpg", seed=1, infotext="x", faces=(FaceScore(person="Anna", similarity=0.5),))

EXAMPLES = (
    _SPEC,
    _CONSENT,
    CheckOrder(photos=(Path("inputs/0.jpg"),), person="Anna", take=("0.jpg",)),
    TrainOrder(photos=(Path("inputs/0.jpg"), Path("inputs/1.jpg")), spec=_SPEC, consent=_CONSENT),
    PortraitOrder(templates=(Path("inputs/0.jpg"),), people=("Anna", None), first=PassRequest(weights=(("canny", 0.5),))),
    PortraitSettings(second=None, guidance=3.0, crop_ratio=2.0),
    PassSettings(strength=0.5, steps=3, weights=(("canny", 0.5),)),
    DrillOrder(steps=3, seconds=0.5),
    Person(
        name="Anna", person_id="anna", folder=Path("f"), family=Family.SD15, lora=Path("l"), reference=Path("r"),
        face_id_picture=Path("i"), embedding=(0.1, -0.2), created=_TIME, score=0.5,
    ),
    TrainResult(
        lora=Path("a.safetensors"), steps=4, photos=2, chosen=0, face_id_picture=None, seconds=1.5, losses=(0.5,),
        checkpoints=(CheckpointScore(step=4, score=0.5, pictures=(Path("v/a.png"),), picture_scores=(0.5,)),),
    ),
    JobResult(
        id="j", kind=JobKind.PORTRAITS, owner="local", created=_TIME, verdicts=(_VERDICT,), pictures=(_PICTURE,),
        missed=(Missed(template="t", code="bad_template", sentence="No face."),),
        files=(ResultFile(name="a.png", media_type="image/png", size=3, sha256="0" * 64),),
    ),
    Job(
        id="j", kind=JobKind.TRAINING, owner="local", state=JobState.FAILED, created=_TIME, person="Anna",
        progress=JobProgress(stage="training", step=1, total=2, seconds_left=1.5, preview="p.png"),
        failure=Failure(code="storage", sentence="The disk is full.", log_tail=("a", "b")),
    ),
)  # fmt: skip
"""One of each kind; an input's first byte says which kind the rest is read as."""


def check(data: bytes) -> None:
    """Read the text as a record; what comes out must read back the same after it was written."""
    kind = type(EXAMPLES[data[0] % len(EXAMPLES)] if data else EXAMPLES[0])
    try:
        record = loads(kind, data[1:].decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return  # whoever reads the file or the body has refused it
    except EasyPhotoError as error:
        check_sentence(error)
        return
    text = dumps(record)
    assert loads(kind, text.encode("utf-8").decode("utf-8")) == record
    assert dumps(loads(kind, text)) == text


def seeds() -> dict[str, bytes]:
    """Every example."""
    return {type(example).__name__: bytes((place,)) + dumps(example).encode() for place, example in enumerate(EXAMPLES)}


def mutate(data: bytes, longest: int, draw: random.Random, native: Mutate) -> bytes:
    """Half native, half one thing of the JSON made wrong."""
    if draw.random() < 0.5:
        return native(data, longest)
    return (data[:1] + spoil(data[1:], draw, TARGET.words))[:longest]


TARGET = Target(
    check=check, seeds=seeds, mutate=mutate, longest=8_192,
    words=(b"person", b"base_model", b"schema_version", b"family", b"embedded", b"sd15", b"sdxl", b"photos", b"spec", b"seed",
           b"lora", b"rank", b"weights", b"first", b"second", b"people", b"templates", b"NaN", b"Infinity", b"1e999",
           b"\\ud800", b"\\u0000", b"null", b"true", b"[[[[", b'{"', b"99999999999999999999"),
)  # fmt: skip
