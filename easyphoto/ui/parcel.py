"""A person as one zip file: out, and in again. What comes in is taken apart at the border; nothing of it is believed unseen.

Only files that a person's folder has are read, each up to a limit, none by a path. Records are decoded and written anew,
pictures are decoded and encoded anew, the LoRA must be one that can be read.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from easyphoto.errors import Conflict, InputError, NotFound
from easyphoto.files import storage_error, write_bytes, write_text
from easyphoto.imaging.io import decode_photo, encode_png
from easyphoto.orders import Consent
from easyphoto.records import Verdict
from easyphoto.specs import Person, TrainResult
from easyphoto.store.codec import dumps, from_json, loads
from easyphoto.store.lora_file import read_lora
from easyphoto.store.notes import CONSENT
from easyphoto.store.paths import check_name, lora_name, make_folder, person_id
from easyphoto.store.people import PeopleStore
from easyphoto.store.publishing import PERSON, TRAINING, VERDICTS

_PICTURES = ("reference.png", "face_id.png")
_JUDGED = "validation/"
_RECORDS = (PERSON, TRAINING, VERDICTS, CONSENT)
_LORA = ".safetensors"
MIB = 1024 * 1024
_LARGEST = {".json": 16 * MIB, ".png": 64 * MIB, _LORA: 3072 * MIB}
"""Bytes of one file of each kind, unpacked."""
_MOST_FILES = 600
_EMBEDDING = 128
_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError, ValueError)
"""What Python's zipfile raises on damaged or encrypted files; they have no common root."""


@dataclass(frozen=True, kw_only=True)
class _Parcel:
    """An opened zip file and the folder it is unpacked into."""

    archive: zipfile.ZipFile
    folder: Path
    names: frozenset[str]

    def read(self, name: str) -> bytes:
        """A file's content; InputError if it is larger than such a file may be."""
        limit = _LARGEST[Path(name).suffix]
        with self.archive.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InputError(f"{name} in this file has more than {limit // MIB} MiB; export the person again")
        return data

    def text(self, name: str) -> str:
        """A record's text; NotFound if there is none."""
        if name not in self.names:
            raise NotFound(f"this file has no {name}; export the person again")
        try:
            return self.read(name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} in this file is no text; export the person again") from error


def export_person(people: PeopleStore, name: str, folder: Path) -> Path:
    """Write a person into a new zip file in `folder` and return its path.

    Raises:
        NotFound: Nobody of that name has been trained.
        StorageError: The disk is full or cannot be written.
    """
    person = people.get(name)
    path = make_folder(folder) / f"{lora_name(person.name)}.easyphoto.zip"
    try:
        # Stored, not deflated: neither weights nor pictures become smaller.
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(person.folder.rglob("*")):
                entry = file.relative_to(person.folder).as_posix()
                if file.is_file() and not file.is_symlink() and _is_known(entry, person.lora.name):
                    archive.write(file, entry)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise storage_error(path, error) from error
    return path


def import_person(people: PeopleStore, path: Path) -> Person:
    """Take in the person of an exported file.

    Raises:
        InputError: The file is none of ours, is damaged, or holds what has no place in it.
        Conflict: Somebody of that name has been trained already.
        StorageError: The disk is full or cannot be written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _take_in(people, archive)
    except NotFound as error:
        raise InputError(str(error)) from error
    except _BROKEN as error:
        raise InputError(f"this is no exported person, or is damaged ({error}); export the person again") from error
    except OSError as error:
        raise storage_error(people.home.people, error) from error


def _take_in(people: PeopleStore, archive: zipfile.ZipFile) -> Person:
    names = _check_entries(archive.infolist())
    person = _read_person(_Parcel(archive=archive, folder=Path(), names=names))
    # Named as the store names what it builds: what a crash leaves of it goes with that person's next change.
    staging = make_folder(people.home.people) / f".staging-{person.person_id}-{secrets.token_hex(4)}"
    with people.lock(person.name):
        place = people.home.people / person.person_id
        if place.exists() or any(other.person_id == person.person_id for other in people.list()):
            raise Conflict(f"{person.name} has been trained already; rename or delete that person first")
        try:
            staging.mkdir()
            _unpack(_Parcel(archive=archive, folder=staging, names=names), person)
            staging.rename(place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return people.get(person.name)


def _check_entries(entries: list[zipfile.ZipInfo]) -> frozenset[str]:
    """The names of all files in a zip file, if each is one that a person's folder has."""
    if len(entries) > _MOST_FILES:
        raise InputError(f"this file holds {len(entries)} files, a person has at most {_MOST_FILES}; export the person again")
    loras = [entry.filename for entry in entries if entry.filename.endswith(_LORA)]
    for entry in entries:
        mode = entry.external_attr >> 16
        plain = not entry.is_dir() and (mode == 0 or stat.S_IFMT(mode) in (0, stat.S_IFREG))
        if not plain or not _is_known(entry.filename, *loras) or "/" in entry.filename.removeprefix(_JUDGED):
            raise InputError(f"this file holds {entry.filename[:80]!r}, which no person has; export the person again")
    names = [entry.filename for entry in entries]
    if len(loras) != 1 or len(set(names)) != len(names):
        raise InputError("this file does not hold exactly one LoRA, or a file twice; export the person again")
    return frozenset(names)


def _is_known(entry: str, *loras: str) -> bool:
    if entry.startswith(_JUDGED):
        inside = entry.removeprefix(_JUDGED)
        return inside.endswith(".png") and inside.strip(".") == inside and "\\" not in inside and len(inside) <= 120
    return entry in (*_RECORDS, *_PICTURES) or (entry in loras and "\\" not in entry and ":" not in entry)


def _read_person(parcel: _Parcel) -> Person:
    """The person as they will stand here: every path by our own rules."""
    said = loads(Person, parcel.text(PERSON))
    name = check_name(said.name)
    if len(said.embedding) != _EMBEDDING or not all(map(math.isfinite, said.embedding)):
        raise InputError(f"the identity vector in this file is not {_EMBEDDING} numbers; export the person again")
    if _PICTURES[0] not in parcel.names:
        raise InputError(f"this file has no {_PICTURES[0]}; export the person again")
    face_id = _PICTURES[1] if _PICTURES[1] in parcel.names else _PICTURES[0]
    return replace(
        said, name=name, person_id=person_id(name), folder=Path(), lora=Path(f"{lora_name(name)}{_LORA}"),
        reference=Path(_PICTURES[0]), face_id_picture=Path(face_id),
    )  # fmt: skip


def _unpack(parcel: _Parcel, person: Person) -> None:
    """Write the person's folder; what counts as its being whole comes last."""
    lora = next(name for name in parcel.names if name.endswith(_LORA))
    path = parcel.folder / person.lora
    write_bytes(path, parcel.read(lora))
    family = read_lora(path).family
    if family is not None and family is not person.family:
        raise InputError(f"the LoRA in this file is for {family.value}, the person for {person.family.value}; export again")
    for name in sorted(parcel.names):
        if name.endswith(".png"):
            target = parcel.folder / name
            make_folder(target.parent)
            write_bytes(target, encode_png(decode_photo(parcel.read(name), name).pixels))
    if TRAINING in parcel.names:
        write_text(parcel.folder / TRAINING, dumps(_checked(loads(TrainResult, parcel.text(TRAINING)), parcel, person)))
    if VERDICTS in parcel.names:
        write_text(parcel.folder / VERDICTS, dumps(_verdicts(parcel.text(VERDICTS))))
    if CONSENT in parcel.names:
        write_text(parcel.folder / CONSENT, dumps(loads(Consent, parcel.text(CONSENT))))
    write_text(parcel.folder / PERSON, dumps(person))


def _checked(result: TrainResult, parcel: _Parcel, person: Person) -> TrainResult:
    """A training's record whose paths are those of this parcel."""
    named = {path.as_posix() for mark in result.checkpoints for path in mark.pictures}
    if not named <= parcel.names:
        raise InputError("the training's record names pictures that are not in this file; export the person again")
    face_id = person.face_id_picture if result.face_id_picture is not None else None
    return replace(result, lora=person.lora, face_id_picture=face_id)


def _verdicts(text: str) -> tuple[Verdict, ...]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, list):
        raise InputError(f"{VERDICTS} in this file is no list; export the person again")
    return tuple(from_json(Verdict, item) for item in data)


def size_of(person: Person) -> int:
    """Bytes of everything in a person's folder."""
    try:
        return sum(path.stat().st_size for path in person.folder.rglob("*") if path.is_file())
    except OSError:
        return 0


