"""The people who have been trained: one folder each, published and removed in one atomic step.

people/<id>/person.json          who, when, family, embedding; file names relative, so the folder may be moved
            <name>.safetensors   the LoRA
            reference.png        the reference photo's crop
            face_id.png          the best validation picture, if one was rendered
            verdicts.json        what became of each photo handed in
            training.json        checkpoints, scores and losses; its pictures in validation/
            consent.json         who said that the photos may be used
            names.json           what the person was called before
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.errors import Conflict, EasyPhotoError, InputError, NotFound, SpecError
from easyphoto.files import storage_error, write_text
from easyphoto.orders import Consent
from easyphoto.records import PreparedSet
from easyphoto.specs import Person, TrainResult, TrainSpec
from easyphoto.store.codec import dumps, from_json, loads
from easyphoto.store.locks import locked
from easyphoto.store.notes import CONSENT, FormerName, Identity, Notes, identities, read_notes
from easyphoto.store.paths import Home, check_name, make_folder, person_id
from easyphoto.store.publishing import PERSON, TRAINING, VERDICTS, Finished, fill_folder, fill_renamed
from easyphoto.store.removal import DELETED, flush, remove

_STAGING, _OLD, _MOVING = ".staging-", ".old-", ".moving-"
"""Beginnings of names: a folder being built; one replaced by a newer one; the file that says who is being renamed to whom."""
_STAMP = re.compile(r"-(\d{8}-\d{6})(-\d+)?(-[0-9a-f]{8})?$")
"""End of a training job's folder name: when it was made."""


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

    def identities(self, name: str) -> tuple[Identity, ...]:
        """All names of a person, today's first, each with the time in which it was theirs; of nobody's name, that name."""
        everyone = [former for person in self.list() for former in read_notes(person.folder).former]
        folder = self._folder(person_id(name))
        own = read_notes(folder).former if folder else ()
        return identities(check_name(name), own, everyone)

    def consent(self, name: str) -> Consent | None:
        """Who said that this person's photos may be used; None where nobody did.

        Raises:
            NotFound: Nobody of that name has been trained.
        """
        return read_notes(self.get(name).folder).consent

    def set_consent(self, name: str, consent: Consent | None) -> None:
        """Write down who said that this person's photos may be used, or take it back.

        Raises:
            NotFound: Nobody of that name has been trained.
            Conflict: The person is being changed at this very moment.
            StorageError: The disk is full or cannot be written.
        """
        with self._swap_lock(name):
            path = self.get(name).folder / CONSENT
            if consent is not None:
                write_text(path, dumps(consent))
            elif path.exists():
                remove(path)

    def lock(self, name: str, forget: bool = False) -> AbstractContextManager[None]:
        """Hold this while training a person; with `forget` the lock's file, which bears the name, goes afterwards.

        Raises:
            Conflict: Somebody else holds it.
        """
        return locked(self._locks / f"{person_id(name)}.lock", f"a training of {check_name(name)!r}", forget)

    def _swap_lock(self, name: str, forget: bool = False) -> AbstractContextManager[None]:
        """Held for a moment while a person's folder is swapped or removed."""
        return locked(self._locks / f"{person_id(name)}.swap.lock", f"a change of {check_name(name)!r}", forget)

    @property
    def _locks(self) -> Path:
        return self.home.people / ".locks"

    def publish(
        self, spec: TrainSpec, prepared: PreparedSet, result: TrainResult, consent: Consent | None = None
    ) -> Person:
        """Make a training's result the person's own, in place of any earlier one.

        The folder is built beside its place, flushed, and swapped in by renaming. At every moment a reader finds the
        whole old person or the whole new one, and so it is after a crash or on a full disk. A consent given earlier
        stays unless a new one comes.

        Raises:
            StorageError: The disk is full or cannot be written; the earlier person is untouched.
            Conflict: The same person is being published or deleted at this very moment.
        """
        identifier = person_id(spec.person)
        with self._swap_lock(spec.person):
            self._settle(identifier)
            earlier = self._folder(identifier)
            notes = read_notes(earlier) if earlier else Notes()
            finished = Finished(
                spec=spec, prepared=prepared, result=result, created=_now("seconds"),
                notes=replace(notes, consent=consent or notes.consent),
            )  # fmt: skip
            with self._staging(identifier) as staging:
                fill_folder(staging, finished)
                self._swap(staging, identifier)
        return self.get(spec.person)

    def rename(self, name: str, new: str) -> Person:
        """Give a person another name: folder, LoRA file and what stands in both.

        The renamed folder is built beside the old one and appears by one rename, which is when the old one stops counting.
        What was made under the old name (jobs, results) keeps it, and is known to be this person's until now.

        Raises:
            NotFound: Nobody of that name has been trained.
            Conflict: The new name is taken, or a training of either name is running.
            StorageError: The disk is full or cannot be written; the person keeps the old name.
        """
        old, fresh = person_id(name), person_id(new)
        with ExitStack() as locks:
            for called in dict.fromkeys((old, fresh)):
                locks.enter_context(self.lock(name if called == old else new, forget=called == old != fresh))
                locks.enter_context(self._swap_lock(name if called == old else new, forget=called == old != fresh))
                self._settle(called)
            person = self.get(name)
            if fresh != old and self._folder(fresh) is not None:
                raise Conflict(f"{check_name(new)!r} has been trained already; choose another name or delete that person first")
            notes = read_notes(person.folder)
            former = FormerName(name=person.name, until=_now("microseconds"))
            kept = notes if fresh == old else replace(notes, former=(*notes.former, former))
            with self._staging(fresh) as staging:
                fill_renamed(staging, person, new, kept)
                self._swap(staging, old) if fresh == old else self._move(staging, old, fresh)
        return self.get(new)

    def delete(self, name: str) -> tuple[Path, ...]:
        """Remove the person and all training jobs of theirs; returns every file that was removed.

        Raises:
            NotFound: Nobody of that name has been trained, and no job of that name is left.
            Conflict: A training of that name is running.
            StorageError: A file cannot be removed.
        """
        identifier = person_id(name)
        with self.lock(name, forget=True), self._swap_lock(name, forget=True):
            self._settle(identifier)
            folders = [*self.job_folders(name), *self._copies(identifier)]
            if not folders:
                self.get(name)
            return tuple(file for folder in folders for file in remove(folder))

    def job_folders(self, name: str) -> tuple[Path, ...]:
        """The folders of this person's trainings, under every name they had."""
        found = (
            (identity, folder)
            for identity in self.identities(name)
            for folder in sorted(self.home.jobs.glob(f"*{identity.person_id}-*"))
        )
        return tuple(folder for identity, folder in found if _is_job_of(folder, identity))

    @contextmanager
    def _staging(self, identifier: str) -> Iterator[Path]:
        """A folder to build a person in; gone at the end unless it was moved to its place."""
        staging = make_folder(self.home.people) / f"{_STAGING}{identifier}-{secrets.token_hex(4)}"
        try:
            staging.mkdir()
            yield staging
        except OSError as error:
            raise storage_error(staging, error) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _move(self, staging: Path, old: str, fresh: str) -> None:
        """Let the folder in `staging` be the person `fresh`, and the person `old` be no more."""
        # Not through `write_text`: what a crash leaves of it must bear the name of who is renamed.
        with (self.home.people / f"{_MOVING}{old}").open("x", encoding="utf-8") as marker:
            marker.write(fresh)
            marker.flush()
            os.fsync(marker.fileno())
        staging.rename(self.home.people / fresh)
        flush(self.home.people)
        self._settle(old)

    def _settle(self, identifier: str) -> None:
        """Clear away what a crash left of a publishing or renaming of that person, or bring it to its end."""
        for half_made in self.home.people.glob(f"{_STAGING}{identifier}-*"):
            shutil.rmtree(half_made, ignore_errors=True)
        for marker in self.home.people.glob(f"{_MOVING}*"):
            old, fresh = marker.name.removeprefix(_MOVING), marker.read_text(encoding="utf-8")
            if identifier in (old, fresh):
                for folder in self._copies(old) if self._moved(old) else ():
                    remove(folder)
                remove(marker)

    def _moved(self, identifier: str) -> bool:
        """Whether that person now has another name: the renamed folder is in place and the old one only waits to go."""
        with suppress(FileNotFoundError):
            fresh = (self.home.people / f"{_MOVING}{identifier}").read_text(encoding="utf-8")
            return (self.home.people / fresh / PERSON).is_file()
        return False

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
        if self._moved(identifier):
            return None
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
        for beginning in (_STAGING, _OLD, DELETED):
            yield from sorted(self.home.people.glob(f"{beginning}{identifier}-*"))


def _read(folder: Path) -> Person:
    path = folder / PERSON
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        person = from_json(Person, data)
    except (OSError, ValueError, RecursionError, SpecError) as error:
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


def _is_job_of(folder: Path, identity: Identity) -> bool:
    """Whether a training's folder, `<person>-<time>` or one being removed, is of that person in their time of that name."""
    name = folder.name.removeprefix(DELETED)
    if not name.startswith(f"{identity.person_id}-"):
        return False
    stamp = _STAMP.search(name[len(identity.person_id) :])
    made = datetime.strptime(f"{stamp[1]}+0000", "%Y%m%d-%H%M%S%z") if stamp else None
    return identity.holds(made)


def _now(precision: str) -> str:
    return datetime.now(timezone.utc).isoformat(timespec=precision)
