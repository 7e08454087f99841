"""The queue's database made anew from the folders: every job in its state, every result in its place."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from easyphoto.errors import EasyPhotoError
from easyphoto.jobs.folders import QueueFolder, is_id, job_folders
from easyphoto.jobs.rows import Entry, insert, insert_result, is_known, result_path
from easyphoto.store.codec import loads
from easyphoto.store.paths import owner_homes
from easyphoto.work import JobResult

logger = logging.getLogger(__name__)


def refill(connection: sqlite3.Connection, root: Path) -> None:
    """Write rows for every job and result under the home `root` into an empty database."""
    entries = sorted(_entries(root / "queue"), key=lambda entry: (entry.slip.place, entry.slip.created, entry.slip.id))
    for entry in entries:
        insert(connection, entry)
        if not is_known(connection, entry.slip.id):
            # Two with one key: one of them was never told to anybody, but which? Both are kept.
            insert(connection, replace(entry, slip=replace(entry.slip, idempotency_key=None)))
    for result in sorted(found_results(root), key=lambda result: (result.created, result.id)):
        insert_result(connection, result)


def read_entry(folder: QueueFolder) -> Entry | None:
    """What a job's folder says about it; None where it cannot be read."""
    try:
        slip, order = folder.read_order()
    except EasyPhotoError as error:
        logger.warning("%s is left out of the queue: %s", folder.root, error)
        return None
    return Entry(slip=slip, order=order, end=folder.read_end(), told=folder.told.exists(), cancel_asked=folder.cancel.exists())


def found_results(root: Path) -> Iterator[JobResult]:
    """Every whole result of every owner."""
    for home in owner_homes(root):
        for folder in home.results.iterdir() if home.results.is_dir() else ():
            if is_id(folder.name):
                with suppress(EasyPhotoError, OSError):
                    yield loads(JobResult, result_path(folder).read_text(encoding="utf-8"))


def _entries(queue: Path) -> Iterator[Entry]:
    for folder in job_folders(queue):
        entry = read_entry(folder)
        if entry is not None:
            yield entry
