"""The queue's index in SQLite: opened by many processes and threads, checked, and made anew where it is broken.

WAL mode (sqlite.org/wal.html); what must outlive a power cut is committed with synchronous=FULL, mere progress without.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from easyphoto.errors import StorageError
from easyphoto.store.locks import waiting_lock
from easyphoto.store.paths import make_folder

__all__ = ["GENERATION", "BrokenRow", "Database", "next_version", "waiting_lock"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

SCHEMA_VERSION = 1
GENERATION = 1 << 40
"""Versions of a database made anew begin beyond all those of the one it replaces."""
_PATIENCE = 30.0
"""Seconds to wait for another process that writes or repairs."""
_KEPT_OPEN = 8
_SCHEMA = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, kind TEXT NOT NULL,
    state TEXT NOT NULL, priority INTEGER NOT NULL, created TEXT NOT NULL, started TEXT, ended TEXT,
    attempt INTEGER NOT NULL DEFAULT 0, progress TEXT NOT NULL DEFAULT '{}', failure TEXT, person TEXT,
    people TEXT NOT NULL DEFAULT '', idempotency_key TEXT, fingerprint TEXT NOT NULL DEFAULT '', webhook TEXT,
    webhook_tries INTEGER NOT NULL DEFAULT 0, cancel_asked INTEGER NOT NULL DEFAULT 0, age_at_end REAL,
    version INTEGER NOT NULL);
CREATE UNIQUE INDEX jobs_key ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_turn ON jobs (state, priority DESC, seq);
CREATE INDEX jobs_version ON jobs (version);
CREATE INDEX jobs_owner ON jobs (owner, seq);
CREATE INDEX jobs_webhook ON jobs (webhook) WHERE webhook IS NOT NULL;
CREATE TABLE results (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, kind TEXT NOT NULL,
    people TEXT NOT NULL, age_at_end REAL NOT NULL);
CREATE INDEX results_owner ON results (owner, seq);
CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""
_BROKEN = ("malformed", "not a database", "disk i/o error", "no such table", "no such column", "unsupported file format")
"""What SQLite says of a file that is no sound database of ours; Python 3.10 gives no error codes."""


class BrokenRow(sqlite3.DatabaseError):
    """A row holds what none of ours can hold: the file was damaged."""


class _Failed(Exception):
    """SQLite refused, in the file of that inode."""

    def __init__(self, inode: int, error: sqlite3.Error) -> None:
        super().__init__(str(error))
        self.inode, self.error = inode, error


class _Connection(sqlite3.Connection):
    """A connection that knows whether its commits are flushed."""

    _flushed: bool | None = None

    def flush_commits(self, flushed: bool) -> None:
        """Whether a commit waits for the disk from now on."""
        if flushed is not self._flushed:
            self.execute(f"PRAGMA synchronous={'FULL' if flushed else 'NORMAL'}")
            self._flushed = flushed


class Database:
    """Runs pieces of work on the database at `path`; `fill` writes a new one's rows from the truth on the disk."""

    def __init__(self, path: Path, fill: Work[None]) -> None:
        self.path = path
        self._name = str(path)
        self._fill = fill
        self._idle: list[tuple[int, _Connection]] = []
        self._guard = threading.Lock()
        self._closed = False
        make_folder(path.parent)
        self._heal()

    def read(self, work: Work[T]) -> T:
        """Run `work`, which only reads."""
        return self._healing(work)[1]

    def write(self, work: Work[T], durable: bool = True) -> T:
        """Run `work` in one transaction; `durable` flushes it to the disk before this returns. It may be run twice.

        Raises:
            StorageError: The disk is full or cannot be written, or another process holds the database too long.
        """

        def transaction(connection: _Connection) -> T:
            connection.flush_commits(durable)
            connection.execute("BEGIN IMMEDIATE")
            try:
                value = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            return value

        while True:
            inode, value = self._healing(transaction)
            # Set aside by another process meanwhile: what was written went into the old file.
            if inode == self._inode():
                return value

    def close(self) -> None:
        """Close every connection."""
        with self._guard:
            self._closed = True
            for _, connection in self._idle:
                connection.close()
            self._idle.clear()

    def _run(self, work: Callable[[_Connection], T]) -> tuple[int, T]:
        """What `work` returns, behind the inode of the file that it was done in."""
        inode, connection = self._take()
        try:
            value = work(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise _Failed(inode, error) from error
            raise
        with self._guard:
            if not self._closed and len(self._idle) < _KEPT_OPEN:
                self._idle.append((inode, connection))
                return inode, value
        connection.close()
        return inode, value

    def _take(self) -> tuple[int, _Connection]:
        inode = self._inode()
        with self._guard:
            while self._idle:
                known, connection = self._idle.pop()
                if known == inode:
                    return known, connection
                connection.close()
        try:
            return inode, _connect(self.path)
        except sqlite3.Error as error:
            raise _Failed(inode, error) from error

    def _inode(self) -> int:
        try:
            return os.stat(self._name).st_ino  # noqa: PTH116 (asked several times for each job)
        except OSError:
            return 0

    def _healing(self, work: Callable[[_Connection], T]) -> tuple[int, T]:
        try:
            return self._run(work)
        except _Failed as failed:
            if not _is_broken(failed.error, self.path):
                raise _storage_error(self.path, failed.error) from failed.error
            # What SQLite's own check may not find: it is not to be trusted, unless another process has replaced it already.
            distrusted = failed.inode if "malformed" in str(failed.error) else None
        self._heal(distrusted)
        try:
            return self._run(work)
        except _Failed as failed:
            raise _storage_error(self.path, failed.error) from failed.error

    def _heal(self, distrusted: int | None = None) -> None:
        """Leave a sound database at the path, whatever is there now; a file of the inode `distrusted` is none."""
        lock = self.path.with_name(".store.lock")
        with waiting_lock(lock, "the check of the queue's database", _PATIENCE, pause=0.005):
            try:
                if self._inode() == distrusted or not _is_sound(self.path):
                    _set_aside(self.path)
                    self._make()
            except sqlite3.Error as error:
                raise _storage_error(self.path, error) from error

    def _make(self) -> None:
        """Build the database under another name, so that at its own there is never one without its rows."""
        new = self.path.with_name(f".{self.path.name}.new")
        for leftover in (new, *_companions(new)):
            leftover.unlink(missing_ok=True)
        aside = len(list(self.path.parent.glob(f"{self.path.name}.broken-*")))
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN")
            connection.execute("INSERT INTO facts VALUES ('version', ?)", (aside * GENERATION,))
            self._fill(connection)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode=WAL")
        new.replace(self.path)


def next_version(connection: sqlite3.Connection) -> int:
    """The next version number, larger than all before."""
    connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'version'")
    row = connection.execute("SELECT value FROM facts WHERE name = 'version'").fetchone()
    if row is None:
        raise BrokenRow("malformed: the version is gone")
    return int(row[0])


def _connect(path: Path) -> _Connection:
    """A connection that any one thread at a time may use; never makes a file."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    connection.row_factory = sqlite3.Row
    return connection


def _is_sound(path: Path) -> bool:
    """Whether there is a whole database of ours; raises StorageError for one of a newer version."""
    if not path.exists():
        return False
    try:
        with closing(_connect(path)) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            whole = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
            connection.execute("SELECT seq, age_at_end FROM jobs LIMIT 1")
            whole = whole and connection.execute("SELECT value FROM facts WHERE name = 'version'").fetchone() is not None
    except sqlite3.Error as error:
        if _is_broken(error, path):
            return False
        raise
    if version > SCHEMA_VERSION:
        raise StorageError(f"{path} was written by a newer version of easyphoto; update, or choose another home")
    return whole and version == SCHEMA_VERSION


def _is_broken(error: sqlite3.Error, path: Path) -> bool:
    text = str(error).lower()
    return any(words in text for words in _BROKEN) or not path.exists() or _is_empty(path)


def _is_empty(path: Path) -> bool:
    with suppress(OSError):
        return path.stat().st_size == 0
    return False


def _set_aside(path: Path) -> None:
    """Keep a broken database under a name with the time; the write-ahead log first, or a new file would swallow it."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
    for old in (*_companions(path), path):
        with suppress(FileNotFoundError):
            old.rename(path.with_name(f"{path.name}.broken-{stamp}{old.name[len(path.name) :]}"))


def _companions(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal"))


def _storage_error(path: Path, error: sqlite3.Error) -> StorageError:
    text = str(error)
    if "full" in text:
        return StorageError(f"{path} cannot be written: the disk is full; free some space and try again")
    if "locked" in text or "busy" in text:
        return StorageError(f"{path} is held by another process for too long; end that one and try again")
    if "readonly" in text or "unable to open" in text:
        return StorageError(f"{path} cannot be written ({text}); change its permissions or choose another home")
    return StorageError(f"{path} cannot be used ({text}); see whether the disk is sound")
