"""What lies in a person's folder, written file by file into a folder that nobody looks at yet."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from easyphoto.files import write_bytes, write_text
from easyphoto.records import Photo, PreparedSet, TrainKind
from easyphoto.specs import Person, TrainResult, TrainSpec
from easyphoto.store.codec import dumps, loads
from easyphoto.store.lora_file import read_lora, write_lora
from easyphoto.store.lora_meta import renamed
from easyphoto.store.notes import CONSENT, NAMES, Notes, write_notes
from easyphoto.store.paths import check_name, lora_name, make_folder, person_id

PERSON, VERDICTS, TRAINING = "person.json", "verdicts.json", "training.json"
_REFERENCE, _FACE_ID, _VALIDATION = "reference.png", "face_id.png", "validation"


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """Everything a person's folder is made of."""

    spec: TrainSpec
    prepared: PreparedSet
    result: TrainResult
    notes: Notes
    created: str
    """ISO 8601, UTC."""


def fill_folder(folder: Path, finished: Finished) -> None:
    """Write a person's whole folder; every path inside its JSON files is relative to it.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    spec, prepared, result = finished.spec, finished.prepared, finished.result
    lora = f"{lora_name(spec.person)}.safetensors"
    write_bytes(folder / lora, result.lora.read_bytes())
    write_bytes(folder / _REFERENCE, _png(prepared.photos[prepared.reference].crop))
    if result.face_id_picture is not None:
        write_bytes(folder / _FACE_ID, result.face_id_picture.read_bytes())
    write_text(folder / VERDICTS, dumps(prepared.verdicts))
    write_text(folder / TRAINING, dumps(_keep_pictures(folder, result, lora)))
    write_notes(folder, finished.notes)
    # Last, because a folder with it counts as whole.
    write_text(folder / PERSON, dumps(_person(finished, lora)))


def fill_renamed(folder: Path, person: Person, name: str, notes: Notes) -> None:
    """Write the folder of a person under another name: every file of the old one, with the new name wherever one stands.

    Raises:
        LoraError: The LoRA cannot be read.
        StorageError: The disk is full or cannot be written.
    """
    lora = f"{lora_name(name)}.safetensors"
    left = {PERSON, TRAINING, person.lora.name, CONSENT, NAMES}
    for source in sorted(path for path in person.folder.rglob("*") if path.is_file()):
        target = folder / source.relative_to(person.folder)
        if source.parent != person.folder or source.name not in left:
            write_bytes(make_folder(target.parent) / target.name, source.read_bytes())
    write_lora(folder / lora, renamed(read_lora(person.lora), name))
    if (person.folder / TRAINING).is_file():
        result = loads(TrainResult, (person.folder / TRAINING).read_text(encoding="utf-8"))
        write_text(folder / TRAINING, dumps(replace(result, lora=Path(lora))))
    write_notes(folder, notes)
    record = replace(
        person, name=check_name(name), person_id=person_id(name), folder=Path(), lora=Path(lora),
        reference=person.reference.relative_to(person.folder),
        face_id_picture=person.face_id_picture.relative_to(person.folder),
    )  # fmt: skip
    write_text(folder / PERSON, dumps(record))


def _person(finished: Finished, lora: str) -> Person:
    spec, prepared, result = finished.spec, finished.prepared, finished.result
    return Person(
        name=check_name(spec.person), person_id=person_id(spec.person), folder=Path(), family=spec.family,
        lora=Path(lora), reference=Path(_REFERENCE),
        face_id_picture=Path(_REFERENCE if result.face_id_picture is None else _FACE_ID),
        embedding=tuple(float(value) for value in prepared.embedding), created=finished.created,
        score=result.checkpoints[result.chosen].score if result.chosen >= 0 else None, photos=len(prepared.photos),
        kind=spec.kind, prompt=_prompt(spec, prepared),
    )  # fmt: skip


def _prompt(spec: TrainSpec, prepared: PreparedSet) -> str:
    """What calls a scene up: its first picture's caption."""
    if spec.kind is TrainKind.PERSON:
        return ""
    return prepared.photos[prepared.reference].caption or spec.data.caption


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
