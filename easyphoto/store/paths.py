"""Names of people, the folders made of them, and where everything of ours lies."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from easyphoto.errors import NameRefused
from easyphoto.files import storage_error
from easyphoto.records import TrainKind
from easyphoto.work import LOCAL_OWNER

_SHELVES = {
    TrainKind.PERSON: ("people", "jobs"),
    TrainKind.SCENE: ("scenes", "scene-jobs"),
    TrainKind.CLOTH: ("clothes", "cloth-jobs"),
}
"""Folders of what is published, and of trainings."""
LONGEST_NAME = 64
"""Characters a person's name may have."""
_SLUG_LENGTH = 24
_HASH_LENGTH = 10
_OWNER = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Co", "Zl", "Zp"})
"""Unicode: control, lone surrogate, private use, line and paragraph separator."""
_JOINERS = frozenset({"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))})
"""Invisible characters that emoji and some scripts are written with; all other format characters are refused."""


@dataclass(frozen=True)
class Home:
    """The one folder that everything of ours lies in."""

    root: Path
    kind: TrainKind = TrainKind.PERSON
    """Whose shelf is meant by `people` and `jobs`."""

    def shelf(self, kind: TrainKind) -> Home:
        """The same home, with the shelf of scenes or clothes in the place of people's."""
        return replace(self, kind=kind)

    @property
    def people(self) -> Path:
        """One folder for each published person, scene or garment."""
        return self.root / _SHELVES[self.kind][0]

    @property
    def jobs(self) -> Path:
        """One folder for each training."""
        return self.root / _SHELVES[self.kind][1]

    @property
    def results(self) -> Path:
        """Finished portraits."""
        return self.root / "results"

    def make(self) -> Home:
        """Make the folders that are missing.

        Raises:
            StorageError: They cannot be made.
        """
        for folder in (self.people, self.jobs, self.results):
            make_folder(folder)
        return self


def check_owner(owner: str) -> str:
    """The owner's id, if a folder can be named so.

    Raises:
        NameRefused: It cannot.
    """
    if not _OWNER.fullmatch(owner):
        raise NameRefused(f"an owner's id has 1 to 64 of a-z, 0-9, - and _, got {owner!r}; choose another one")
    return owner


def owner_home(root: Path, owner: str) -> Home:
    """Where an owner's people and results lie: "local" has the home itself, every other one a home of their own in it."""
    return Home(root) if owner == LOCAL_OWNER else Home(root / "owners" / check_owner(owner))


def owner_homes(root: Path) -> tuple[Home, ...]:
    """The home of every owner that has one, "local" first."""
    others = root / "owners"
    found = sorted(path for path in others.iterdir() if path.is_dir()) if others.is_dir() else []
    return (Home(root), *map(Home, found))


def make_folder(folder: Path) -> Path:
    """Make a folder with all its parents; one that is there already is fine.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    return folder


def check_name(name: str) -> str:
    """The name as we keep it: NFC, without space at its ends.

    Raises:
        NameRefused: It is empty, too long, or holds something that no name has.
    """
    kept = unicodedata.normalize("NFC", name).strip()
    if not kept:
        raise NameRefused("a person's name may not be empty; give a name such as Anna")
    if len(kept) > LONGEST_NAME:
        raise NameRefused(f"a person's name may have {LONGEST_NAME} characters, this one has {len(kept)}; shorten it")
    if "/" in kept or "\\" in kept:
        raise NameRefused(f"a person's name may not contain a slash, got {kept!r}; leave it out")
    if not kept.strip(". "):
        raise NameRefused(f"a person's name may not be made of dots alone, got {kept!r}; add a letter")
    strange = [letter for letter in kept if _is_strange(letter)]
    if strange:
        raise NameRefused(f"a person's name may not contain the invisible character U+{ord(strange[0]):04X}; leave it out")
    return kept


def _is_strange(letter: str) -> bool:
    category = unicodedata.category(letter)
    return category in _REFUSED_CATEGORIES or (category == "Cf" and letter not in _JOINERS)


def person_id(name: str) -> str:
    """The folder name of a person, safe on every file system: an ASCII slug and ten hex digits.

    Names that differ only in case or in how accents are encoded give the same id, because some disks cannot tell them
    apart; the digits keep all others apart, and keep a person called "con" from being a device on Windows.
    """
    kept = check_name(name)
    letters = unicodedata.normalize("NFKD", kept).encode("ascii", "ignore").decode("ascii").lower()
    slug = re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:_SLUG_LENGTH].strip("-") or "person"
    return f"{slug}-{_digits(kept)[:_HASH_LENGTH]}"


def lora_name(name: str) -> str:
    """The stem of a person's LoRA file: readable, and free of what the prompt syntax `<lora:NAME:1>` or a disk forbids.

    A name that had to be changed gets four hex digits, so that two people never share one file name.
    """
    kept = check_name(name)
    readable = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in kept)
    plain = readable == kept and not re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", kept)
    return readable if plain else f"{readable}_{_digits(kept)[:4]}"


def _digits(kept: str) -> str:
    folded = unicodedata.normalize("NFC", kept.casefold())
    return hashlib.sha256(folded.encode("utf-8")).hexdigest()
