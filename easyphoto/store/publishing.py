"""What lies in a person's folder, written file by file into a folder that nobody looks at yet."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from PIL import Image

from easyphoto.files import write_bytes, write_text
from easyphoto.records import Photo, PreparedSet
from easyphoto.specs import Person, TrainResult, TrainSpec
from easyphoto.store.codec import dumps
from easyphoto.store.paths import check_name, lora_name, make_folder, person_id

PERSON, VERDICTS, TRAINING = "person.json", "verdicts.json", "training.json"
_REFERENCE, _FACE_ID, _VALIDATION = "reference.png", "face_id.png", "validation"


def fill_folder(folder: Path, spec: TrainSpec, prepared: PreparedSet, result: TrainResult, created: str) -> None:
    """Write a person's whole folder; every path inside its JSON files is relative to it.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    lora = f"{lora_name(spec.person)}.safetensors"
    write_bytes(folder / lora, result.lora.read_bytes())
    write_bytes(folder / _REFERENCE, _png(prepared.photos[prepared.reference].crop))
    if result.face_id_picture is not None:
        write_bytes(folder / _FACE_ID, result.face_id_picture.read_bytes())
    write_text(folder / VERDICTS, dumps(prepared.verdicts))
    write_text(folder / TRAINING, dumps(_keep_pictures(folder, result, lora)))
    # Last, because a folder with it counts as whole.
    write_text(folder / PERSON, dumps(_person(spec, prepared, result, lora, created)))


def _person(spec: TrainSpec, prepared: PreparedSet, result: TrainResult, lora: str, created: str) -> Person:
    return Person(
        name=check_name(spec.person), person_id=person_id(spec.person), folder=Path(), family=spec.family,
        lora=Path(lora), reference=Path(_REFERENCE),
        face_id_picture=Path(_REFERENCE if result.face_id_picture is None else _FACE_ID),
        embedding=tuple(float(value) for value in prepared.embedding), created=created,
        score=result.checkpoints[result.chosen].score if result.chosen >= 0 else None, photos=len(prepared.photos),
    )  # fmt: skip


def _keep_pictures(folder: Path, result: TrainResult, lora: str) -> TrainResult:
    """Copy the validation pictures in and return the result with paths relative to `folder`."""
    if result.checkpoints:
        make_folder(folder / _VALIDATION)
    checkpoints = []
    for checkpoint in result.checkpoints:
        kept = tuple(Path(_VALIDATION) / path.name for path in checkpoint.pictures)
        for source, target in zip(checkpoint.pictures, kept):
            write_bytes(folder / target, source.read_bytes())
        checkpoints.append(replace(checkpoint, pictures=kept))
    face_id = None if result.face_id_picture is None else Path(_FACE_ID)
    return replace(result, lora=Path(lora), checkpoints=tuple(checkpoints), face_id_picture=face_id)


def _png(photo: Photo) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo.pixels).save(stream, "PNG")
    return stream.getvalue()
