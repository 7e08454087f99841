"""What lies beside a person's record: who consented, and what the person was called before.

people/<id>/consent.json    who said that the photos may be used, and when
            names.json      earlier names, each with the moment until which jobs of that name were this person's
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.errors import InputError, SpecError
from easyphoto.files import write_text
from easyphoto.orders import Consent
from easyphoto.store.codec import Record, dumps, loads
from easyphoto.store.paths import person_id

CONSENT, NAMES = "consent.json", "names.json"


@dataclass(frozen=True, kw_only=True)
class FormerName:
    """A name a person had before they were renamed."""

    name: str
    until: str
    """ISO 8601, UTC: whoever is called so later is somebody else."""


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Everything kept beside the record itself."""

    consent: Consent | None = None
    former: tuple[FormerName, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One name of a person and the time in which it was theirs."""

    name: str
    since: datetime | None = None
    until: datetime | None = None

    @property
    def person_id(self) -> str:
        """Folder name that belongs to the name."""
        return person_id(self.name)

    def holds(self, moment: datetime | None) -> bool:
        """Whether something of that name made at `moment` is this person's; an unknown moment belongs to today's holder."""
        if moment is None:
            return self.until is None
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)


def read_notes(folder: Path) -> Notes:
    """The notes in a person's folder; what was never written is empty.

    Raises:
        InputError: A note is there and cannot be read.
    """
    return Notes(consent=_read(Consent, folder / CONSENT), former=(_read(_Names, folder / NAMES) or _Names()).former)


def write_notes(folder: Path, notes: Notes) -> None:
    """Write the notes that are not empty; raises StorageError."""
    if notes.consent is not None:
        write_text(folder / CONSENT, dumps(notes.consent))
    if notes.former:
        write_text(folder / NAMES, dumps(_Names(former=notes.former)))


def identities(name: str, own: Sequence[FormerName], everyone: Sequence[FormerName]) -> tuple[Identity, ...]:
    """All names of a person, today's first.

    Args:
        name: Today's name.
        own: The person's earlier names.
        everyone: The earlier names of all people: a name that was freed by one may have been given to another.
    """

    def since(called: str, until: datetime | None) -> datetime | None:
        freed = [moment(other.until) for other in everyone if person_id(other.name) == person_id(called)]
        return max((end for end in freed if end and (until is None or end < until)), default=None)

    earlier = tuple(
        Identity(name=former.name, since=since(former.name, end), until=end)
        for former in own
        if (end := moment(former.until))
    )
    return (Identity(name=name, since=since(name, None)), *earlier)


def moment(text: str) -> datetime | None:
    """The moment an ISO 8601 text names, in UTC where it does not say; None for any other text."""
    try:
        # "Z" is read by Python 3.11 and newer alone
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


@dataclass(frozen=True, kw_only=True)
class _Names:
    former: tuple[FormerName, ...] = ()


def _read(kind: type[Record], path: Path) -> Record | None:
    try:
        return loads(kind, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, SpecError) as error:
        raise InputError(f"{path} cannot be read ({error}); write it anew or delete it") from error
