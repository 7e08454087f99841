"""The people who have been trained: one folder each, published and removed in one atomic step.

people/<id>/person.json          who, when, family, embedding; file names relative, so the folder may be moved
            <name>.safetensors   the LoRA
            reference.png        the reference photo's crop
            face_id.png          the best validation picture, if one was rendered
            verdicts.json        what became of each photo handed in
            training.json        checkpoints, scores and losses; its pictures in validation/
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.errors import EasyPhotoError, InputError, NotFound, SpecError
from easyphoto.files import storage_error
from easyphoto.records import PreparedSet
from easyphoto.specs import Person, TrainResult, TrainSpec
from easyphoto.store.codec import from_json, loads
from easyphoto.store.locks import locked
from easyphoto.store.paths import Home, check_name, make_folder, person_id
from easyphoto.store.publishing import PERSON, TRAINING, VERDICTS, fill_folder

_STAGING, _OLD, _DELETED = ".staging-", ".old-", ".deleted-"
"""Beginnings of folder names: being built; replaced by a newer one; being removed."""


class PeopleStore:
    """Reads and writes the people of one home."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def list(self) -> tuple[Person, ...]:
        """All published people, by name; folders that cannot be read are left out."""
        people = (self._person(identifier) for identifier in self._identifiers())
        return tuple(sorted((person for person in people if person is not None), key=lambda person: person.name.casefold()))

    def get(self, name: str) -> Person:
        """The person of that name.

        Raises:
            NotFound: Nobody of that name has been trained; the message lists who has.
            NameRefused: Nobody can have that name.
            InputError: The person's folder is broken.
        """
        folder = self._folder(person_id(name))
        if folder is not None:
            return _read(folder)
        known = ", ".join(person.name for person in self.list()) or "nobody yet"
        raise NotFound(f"{check_name(name)!r} has not been trained; trained: {known}")

    def training(self, name: str) -> TrainResult:
        """How the person was trained, with the validation pictures where they lie now.

        Raises:
            NotFound: Nobody of that name has been trained.
        """
        folder = self.get(name).folder
        return _placed(loads(TrainResult, (folder / TRAINING).read_text(encoding="utf-8")), folder)

    def verdicts_path(self, name: str) -> Path:
        """The file with the verdict on each photo handed in."""
        return self.get(name).folder / VERDICTS

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold this while training a person.

        Raises:
            Conflict: Somebody else holds it.
        """
        return locked(self._locks / f"{person_id(name)}.lock", f"a training of {check_name(name)!r}")

    def _swap_lock(self, name: str) -> AbstractContextManager[None]:
        """Held for a moment while a person's folder is swapped or removed."""
        return locked(self._locks / f"{person_id(name)}.swap.lock", f"a change of {check_name(name)!r}")

    @property
    def _locks(self) -> Path:
        return self.home.people / ".locks"

    def publish(self, spec: TrainSpec, prepared: PreparedSet, result: TrainResult) -> Person:
        """Make a training's result the person's own, in place of any earlier one.

        The folder is built beside its place, flushed, and swapped in by renaming. At every moment a reader finds the
        whole old person or the whole new one, and so it is after a crash or on a full disk.

        Raises:
            StorageError: The disk is full or cannot be written; the earlier person is untouched.
            Conflict: The same person is being published or deleted at this very moment.
        """
        identifier = person_id(spec.person)
        with self._swap_lock(spec.person):
            self._publish(identifier, spec, prepared, result)
        return self.get(spec.person)

    def _publish(self, identifier: str, spec: TrainSpec, prepared: PreparedSet, result: TrainResult) -> None:
        staging = make_folder(self.home.people) / f"{_STAGING}{identifier}-{secrets.token_hex(4)}"
        try:
            staging.mkdir()
            fill_folder(staging, spec, prepared, result, created=datetime.now(timezone.utc).isoformat(timespec="seconds"))
            self._swap(staging, identifier)
        except OSError as error:
            raise storage_error(staging, error) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def delete(self, name: str) -> tuple[Path, ...]:
        """Remove the person and all jobs of that name; returns every file that was removed.

        Raises:
            NotFound: Nobody of that name has been trained, and no job of that name is left.
            Conflict: A training of that name is running.
            StorageError: A file cannot be removed.
        """
        identifier = person_id(name)
        with self.lock(name), self._swap_lock(name):
            folders = [*self._copies(identifier), *self._jobs(identifier)]
            if not folders:
                self.get(name)
            return tuple(file for folder in folders for file in _remove(folder))

    def _identifiers(self) -> set[str]:
        if not self.home.people.is_dir():
            return set()
        names = [path.name for path in self.home.people.iterdir() if path.is_dir()]
        # .old-<id>-<8 hex>: a swap that a crash cut off between its two renames.
        torn = {name[len(_OLD) : -9] for name in names if name.startswith(_OLD)}
        return {name for name in names if not name.startswith(".")} | torn

    def _person(self, identifier: str) -> Person | None:
        folder = self._folder(identifier)
        with suppress(EasyPhotoError, OSError):
            return None if folder is None else _read(folder)
        return None

    def _folder(self, identifier: str) -> Path | None:
        """Where the person lies; twice, because a swap may happen between the two looks."""
        place = self.home.people / identifier
        for _ in range(2):
            if (place / PERSON).is_file():
                return place
            if old := sorted(self.home.people.glob(f"{_OLD}{identifier}-*")):
                return old[-1]
        return None

    def _swap(self, staging: Path, identifier: str) -> None:
        place = self.home.people / identifier
        old = self.home.people / f"{_OLD}{identifier}-{secrets.token_hex(4)}"
        if place.exists():
            place.rename(old)
        try:
            staging.rename(place)
        except OSError:
            with suppress(OSError):
                old.rename(place)
            raise
        for leftover in self.home.people.glob(f"{_OLD}{identifier}-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _copies(self, identifier: str) -> Iterator[Path]:
        if (self.home.people / identifier).is_dir():
            yield self.home.people / identifier
        for beginning in (_STAGING, _OLD, _DELETED):
            yield from sorted(self.home.people.glob(f"{beginning}{identifier}-*"))

    def _jobs(self, identifier: str) -> tuple[Path, ...]:
        return tuple(sorted(self.home.jobs.glob(f"{identifier}-*")))


def _read(folder: Path) -> Person:
    path = folder / PERSON
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        person = from_json(Person, data)
    except (OSError, ValueError, SpecError) as error:
        raise InputError(f"{path} cannot be read ({error}); train the person again or delete them") from error
    return replace(
        person, folder=folder, lora=_inside(folder, person.lora), reference=_inside(folder, person.reference),
        face_id_picture=_inside(folder, person.face_id_picture),
    )  # fmt: skip


def _inside(folder: Path, relative: Path) -> Path:
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"{folder / PERSON} points outside its folder ({relative}); train the person again")
    return folder / relative


def _placed(result: TrainResult, folder: Path) -> TrainResult:
    """The result with its relative paths made absolute."""
    checkpoints = tuple(
        replace(checkpoint, pictures=tuple(_inside(folder, path) for path in checkpoint.pictures))
        for checkpoint in result.checkpoints
    )
    face_id = None if result.face_id_picture is None else _inside(folder, result.face_id_picture)
    return replace(result, lora=_inside(folder, result.lora), checkpoints=checkpoints, face_id_picture=face_id)


def _remove(folder: Path) -> tuple[Path, ...]:
    """Remove a folder whole, out of sight first; returns its files as they were called."""
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink()))
    doomed = folder.with_name(f"{_DELETED}{folder.name.removeprefix('.')}-{secrets.token_hex(4)}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise storage_error(folder, error) from error
    _flush(folder.parent)
    return files


def _flush(folder: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
