"""Names struck out of logs, and out of the queue's index.

A letter becomes a star in its very place: the file keeps its length and a process that is writing to it goes on undisturbed,
which a new file under the old name would not allow.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
import unicodedata
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import StorageError
from easyphoto.files import storage_error
from easyphoto.store.paths import lora_name, person_id

_PATIENCE = 30.0
"""Seconds to wait for others to let go of the database."""


@dataclass(frozen=True)
class Eraser:
    """Finds a person's names in text."""

    pattern: re.Pattern[str]

    @staticmethod
    def of(names: Iterable[str], spared: Iterable[str] = ()) -> Eraser:
        """For these names; a longer name of somebody else (`spared`) that contains one of them is left whole."""
        wanted = {form for name in names for form in _forms(name)}
        others = {form for name in spared for form in _forms(name)} - wanted
        kept, struck = _any_of(others), _any_of(wanted)
        return Eraser(re.compile(f"(?:{kept})|(?P<struck>{struck})" if kept else f"(?P<struck>{struck})", re.IGNORECASE))

    def struck(self, text: str) -> str:
        """The text with stars for the names, as many as the name has bytes in UTF-8."""
        return self.pattern.sub(lambda found: "*" * len(found["struck"].encode()) if found["struck"] else found[0], text)

    def names(self, text: str) -> bool:
        """Whether the text names the person."""
        return any(found["struck"] for found in self.pattern.finditer(text))


def strike_out(path: Path, eraser: Eraser) -> int:
    """Strike the names out of a file, in place; returns how many.

    Raises:
        StorageError: It cannot be written.
    """
    count = 0
    try:
        with path.open("r+b") as file:
            place = 0
            for line in file.readlines():
                text = line.decode("utf-8", "surrogateescape")
                for found in eraser.pattern.finditer(text):
                    if found["struck"]:
                        file.seek(place + len(text[: found.start()].encode("utf-8", "surrogateescape")))
                        file.write(b"*" * len(found["struck"].encode("utf-8", "surrogateescape")))
                        count += 1
                place += len(line)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise storage_error(path, error) from error
    return count


def names_in_file(path: Path, eraser: Eraser) -> bool:
    """Whether a text file names the person."""
    with suppress(OSError):
        return eraser.names(path.read_text(encoding="utf-8", errors="surrogateescape"))
    return False


def strike_out_of_failures(connection: sqlite3.Connection, owner: str, eraser: Eraser) -> int:
    """Strike the names out of what is told of an owner's other jobs that failed; returns in how many."""
    rows = connection.execute("SELECT id, failure FROM jobs WHERE owner = ? AND failure IS NOT NULL", (owner,)).fetchall()
    named = [(eraser.struck(str(text)), identifier) for identifier, text in map(tuple, rows) if eraser.names(str(text))]
    connection.executemany("UPDATE jobs SET failure = ? WHERE id = ?", named)
    return len(named)


def scrub(database: Path) -> None:
    """Write the database anew, so that nothing of removed rows is left in free pages or in the write-ahead log.

    Raises:
        StorageError: Others hold it for too long, or the disk is full.
    """
    ends = time.monotonic() + _PATIENCE
    try:
        with closing(sqlite3.connect(database, timeout=_PATIENCE, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("VACUUM")
            # busy, pages in the log, pages moved: readers of another process may hold the log for a moment
            while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > ends:
                    raise StorageError(f"{database} is held by another process for too long; end that one and try again")
                time.sleep(0.05)
    except sqlite3.Error as error:
        raise StorageError(f"{database} cannot be written anew ({error}); free some space and try again") from error


def _forms(name: str) -> set[str]:
    """How a name stands in text: as it is, as JSON and Python escape it, as file names have it."""
    forms = {name, unicodedata.normalize("NFD", name), person_id(name), lora_name(name)}
    return forms | {json.dumps(form, ensure_ascii=ascii_only)[1:-1] for form in forms for ascii_only in (True, False)}


def _any_of(forms: Iterable[str]) -> str:
    """A pattern of whole words, the longest first; scripts without spaces have no whole words."""

    def whole(form: str) -> str:
        left = r"(?<!\w)" if form[0].isascii() and form[0].isalnum() else ""
        right = r"(?!\w)" if form[-1].isascii() and form[-1].isalnum() else ""
        return f"{left}{re.escape(form)}{right}"

    return "|".join(map(whole, sorted(forms, key=len, reverse=True)))
