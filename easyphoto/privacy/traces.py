"""What a file under the home holds of a person, told by where it lies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from easyphoto.errors import EasyPhotoError, NameRefused
from easyphoto.records import TrainKind
from easyphoto.store.notes import Identity
from easyphoto.store.paths import Home, owner_homes, person_id
from easyphoto.store.people import PeopleStore
from easyphoto.store.removal import files_of
from easyphoto.work import LOCAL_OWNER


class Kind(str, Enum):
    """What something of a person is. Latents are missing: they live in memory alone."""

    PHOTO = "photo"
    CROP = "crop"
    EMBEDDING = "embedding"
    LORA = "LoRA"
    VALIDATION = "validation picture"
    PORTRAIT = "portrait"
    RECORD = "record"
    """Names, settings, verdicts, consent."""
    LOG = "log line"
    JOB_ROW = "job row"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One file, or one row, that holds something of a person."""

    path: str
    """Relative to the home, with slashes; absolute outside of it."""
    kind: Kind
    owner: str
    person: str
    """Today's name of the person; the name it was made under, for somebody who was never published."""
    note: str = ""
    subject: TrainKind = TrainKind.PERSON
    """What `person` names: pictures of a scene may show people too, and a scene goes by itself."""


@dataclass(frozen=True, kw_only=True)
class Census:
    """Everybody of one owner, under all their names; or all scenes, or all clothes, by the shelf of `home`."""

    owner: str
    home: Home
    people: tuple[tuple[str, tuple[Identity, ...]], ...]
    """(today's name, all names)."""

    @property
    def subject(self) -> TrainKind:
        """What is counted."""
        return self.home.kind

    @staticmethod
    def take_all(root: Path) -> tuple[Census, ...]:
        """People, scenes and clothes of every owner."""
        return tuple(Census.take(root, home.shelf(kind)) for home in owner_homes(root) for kind in TrainKind)

    @staticmethod
    def take(root: Path, home: Home) -> Census:
        """Count the people of an owner's home."""
        store = PeopleStore(home)
        found = tuple((person.name, store.identities(person.name)) for person in store.list())
        return Census(owner=LOCAL_OWNER if home.root == root else home.root.name, home=home, people=found)

    def holder(self, name: str, made: datetime | None) -> str:
        """Who was called so when something was made: today's name; the name itself if nobody of ours was."""
        identifier = _id(name)
        for today, names in self.people:
            if any(identity.person_id == identifier and identity.holds(made) for identity in names):
                return today
        return name

    def holder_of_id(self, identifier: str) -> str:
        """Today's name of whoever has that id; the id itself if nobody of ours has."""
        return next((today for today, names in self.people if names[0].person_id == identifier), identifier)


def same(one: str, other: str) -> bool:
    """Whether two names are one person's."""
    return _id(one) == _id(other)


def person_traces(root: Path, census: Census) -> Iterator[Trace]:
    """Everything in the folder of people: published ones, and what crashes left."""
    people = census.home.people
    for folder in sorted(people.iterdir()) if people.is_dir() else ():
        if folder.name == ".locks":
            continue
        name = _named(folder / "person.json", "name") or census.holder_of_id(_bare(folder.name))
        name = census.holder(name, None)
        for file in files_of(folder):
            yield Trace(path=relative(root, file), kind=person_kind(file), owner=census.owner, person=name)
    for lock in sorted((people / ".locks").glob("*.lock")):
        identifier = lock.name.removesuffix(".lock").removesuffix(".swap")
        person = census.holder_of_id(identifier)
        yield Trace(path=relative(root, lock), kind=Kind.RECORD, owner=census.owner, person=person, note="lock")


def training_traces(root: Path, census: Census) -> Iterator[Trace]:
    """Everything in the folders of trainings."""
    jobs = census.home.jobs
    held = {folder: today for today, _ in census.people for folder in PeopleStore(census.home).job_folders(today)}
    for folder in sorted(jobs.iterdir()) if jobs.is_dir() else ():
        name = held.get(folder) or _named(folder / "spec.json", "person")
        if name:
            for file in files_of(folder):
                yield Trace(path=relative(root, file), kind=training_kind(file), owner=census.owner, person=name)


def person_kind(file: Path) -> Kind:
    """What a file of a person's folder is."""
    if file.suffix == ".safetensors":
        return Kind.LORA
    if file.parent.name == "validation" or file.name == "face_id.png":
        return Kind.VALIDATION
    return {"reference.png": Kind.CROP, "person.json": Kind.EMBEDDING}.get(file.name, Kind.RECORD)


def training_kind(file: Path) -> Kind:
    """What a file of a training's folder is."""
    if file.parent.name == "prepared":
        endings = {".original.png": Kind.PHOTO, ".crop.png": Kind.CROP, ".safetensors": Kind.EMBEDDING}
        return next((kind for ending, kind in endings.items() if file.name.endswith(ending)), Kind.RECORD)
    if file.name in ("log.txt", "events.jsonl"):
        return Kind.LOG
    return person_kind(file)


def queue_kind(file: Path, training: bool) -> Kind:
    """What a file of a queued job's folder is."""
    if "inputs" in file.parts[-3:]:
        return Kind.PHOTO
    if file.suffix in (".png", ".jpg", ".jpeg", ".webp"):
        return Kind.VALIDATION if training else Kind.PORTRAIT
    return Kind.LOG if file.name in ("log.txt", "events.jsonl") else Kind.RECORD


def result_kind(file: Path, training: bool) -> Kind:
    """What a file of a result is."""
    if file.suffix == ".json":
        return Kind.RECORD
    if file.name == "reference.png":
        return Kind.CROP
    return Kind.VALIDATION if training else Kind.PORTRAIT


def relative(root: Path, path: Path) -> str:
    """The path as people are told it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def names_now(census: Census, names: Sequence[str], made: datetime | None) -> tuple[str, ...]:
    """Today's names of people, each once."""
    return tuple(dict.fromkeys(census.holder(name, made) for name in names))


def at(seconds: float) -> datetime:
    """A moment from seconds since 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def _named(path: Path, field: str) -> str | None:
    """The name in a record; None where it cannot be read."""
    with suppress(OSError, ValueError, AttributeError, RecursionError, EasyPhotoError):
        found = json.loads(path.read_text(encoding="utf-8")).get(field)
        return found if isinstance(found, str) and _id(found) else None
    return None


def _bare(name: str) -> str:
    """The person's id in a folder's name such as .old-<id>-<8 hex>."""
    for beginning in (".staging-", ".old-", ".deleted-"):
        if name.startswith(beginning):
            return name.removeprefix(beginning)[:-9]
    return name.removeprefix(".moving-")


def _id(name: str) -> str:
    try:
        return person_id(name)
    except NameRefused:
        return ""
