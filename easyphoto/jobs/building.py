"""Folders on their way into place: built under a name that nobody looks at, renamed when they are whole, then flushed.

What a killed process leaves half built is known by the builder's mark in its name: a lock file that the builder holds as long
as it lives.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from easyphoto.errors import NotFound, PhotoError, SpecError, ToolMissing
from easyphoto.files import flush_file, flush_folder, storage_error, write_new
from easyphoto.imaging.metadata import without_private_metadata
from easyphoto.jobs.folders import DELETED, MAKING, ORDER, Input, Slip, input_name, job_folders
from easyphoto.orders import Order
from easyphoto.store.codec import to_json
from easyphoto.store.locks import abandoned, locked
from easyphoto.store.paths import make_folder

_BUILDER = ".builder-"
"""Beginning of the name of a builder's lock file; its mark follows."""
_SURELY_FORSAKEN = 3600.0
"""Seconds without any change after which a folder without a living builder is nobody's: it may be of an older version of ours,
which signed its folders in another way."""


_PLACE_KEPT = 1.0
"""Seconds for which places are counted on from the last that was looked up."""


class Places:
    """About which place in the row comes next: what other processes hand in is heard of once a second."""

    def __init__(self, last: Callable[[], int]) -> None:
        """`last` looks up the last place that was taken."""
        self._last = last
        self._place, self._until = 0, float("-inf")

    def next(self) -> int:
        """The next place."""
        now = time.monotonic()
        if now > self._until:
            self._place, self._until = max(self._place, self._last()), now + _PLACE_KEPT
        self._place += 1
        return self._place


class Builder:
    """Builds the job folders of one queue for one process. Safe from many threads."""

    def __init__(self, queue: Path) -> None:
        self._queue = queue
        self._mark = ""
        self._held = ExitStack()
        self._guard = threading.Lock()

    def build(self, slip: Slip, order: Order, inputs: Sequence[Input]) -> tuple[Path, Slip]:
        """Build a job's folder; returns it with the slip, the request's digest filled in.

        Raises:
            SpecError: An input's name is none of `input_name`.
            StorageError: The disk is full or cannot be written; nothing is left.
        """
        making = self._begin(slip.id)
        try:
            return making, _fill(making, slip, order, inputs)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    def close(self) -> None:
        """Let go of the mark; the next folder is signed by a new one."""
        with self._guard:
            self._mark = ""
            self._held.close()

    def _begin(self, job_id: str) -> Path:
        with suppress(FileNotFoundError):
            return self._make(job_id)
        # Somebody removed the queue, and the mark with it.
        self.close()
        make_folder(self._queue)
        return self._make(job_id)

    def _make(self, job_id: str) -> Path:
        with self._guard:
            if not self._mark:
                mark = secrets.token_hex(4)
                self._held.enter_context(locked(self._queue / f"{_BUILDER}{mark}", "the building of jobs", remove=True))
                self._mark = mark
        folder = self._queue / f"{MAKING}{self._mark}-{job_id}"
        _make_one(folder)
        return folder


def _make_one(folder: Path) -> None:
    """Make a folder that is not there in one that is; raises StorageError, FileNotFoundError."""
    try:
        folder.mkdir()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(folder, error) from error


def _fill(making: Path, slip: Slip, order: Order, inputs: Sequence[Input]) -> Slip:
    if inputs:
        _make_one(making / "inputs")
    digests = sorted((item.name, _copy(item, making / "inputs")) for item in inputs)
    ordered = to_json(order)
    request = json.dumps([slip.kind.value, ordered, digests], sort_keys=True)
    slip = replace(slip, fingerprint=slip.fingerprint or hashlib.sha256(request.encode()).hexdigest())
    text = json.dumps({"slip": to_json(slip), "order": ordered}, ensure_ascii=False)
    write_new(making / ORDER, text.encode("utf-8"))
    return slip


def _copy(item: Input, folder: Path) -> str:
    """Copy one input in, a picture without all it says beside its pixels; returns the digest of what was written."""
    number, slash, name = item.name.partition("/")
    if not (slash and number.isdigit() and item.name == input_name(int(number), name)):
        raise SpecError(f"the input {item.name!r} has a name that is not safe; name it with input_name")
    content = _content(item.data)
    # What is no picture is taken as it is: the job will say so in its verdict.
    with suppress(PhotoError, ToolMissing):
        content = without_private_metadata(content)
    _make_one(folder / number)
    write_new(folder / number / name, content)
    return hashlib.sha256(content).hexdigest()


def _content(data: bytes | Path) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return data.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"{data} does not exist; check the name") from error
    except OSError as error:
        raise storage_error(data, error) from error


def put_in_place(folder: Path, place: Path, files: Sequence[str]) -> None:
    """Rename a finished folder to its place and flush it with its files, in the order they are named.

    The rename comes first, for a journalling file system then writes all of it at once, where it would take one turn for each
    file and one for the name. What a power cut leaves in between is known by its last file: see `is_cut_off`.

    Raises:
        StorageError: The disk is full or broken; nothing is left at the place.
    """
    try:
        folder.rename(place)
    except OSError as error:
        raise storage_error(place, error) from error
    try:
        for name in files:
            flush_file(place / name)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise storage_error(place, error) from error
    flush_folder(place.parent)


def is_cut_off(last: Path) -> bool:
    """Whether a folder was put in place without being flushed before a power cut: its last file never reached the disk."""
    with suppress(FileNotFoundError):
        return last.stat().st_size == 0
    return False


def remove_forsaken(queue: Path) -> None:
    """Remove what a killed process or a power cut left half made or half removed; what one is building right now stays."""
    for folder in queue.glob(f"{DELETED}*"):
        shutil.rmtree(folder, ignore_errors=True)
    left = [mark for mark in queue.glob(f"{_BUILDER}*") if abandoned(mark)]
    for folder in queue.glob(f"{MAKING}*"):
        if _is_forsaken(folder):
            shutil.rmtree(folder, ignore_errors=True)
    for mark in left:
        mark.unlink(missing_ok=True)
    for job in job_folders(queue):
        if is_cut_off(job.order):
            shutil.rmtree(job.root, ignore_errors=True)


def _is_forsaken(folder: Path) -> bool:
    """Whether nobody builds the folder any more."""
    mark = folder.with_name(_BUILDER + folder.name.removeprefix(MAKING).partition("-")[0])
    if mark.exists():
        return abandoned(mark)
    with suppress(OSError):
        return "-" in folder.name.removeprefix(MAKING) or time.time() - folder.stat().st_mtime > _SURELY_FORSAKEN
    return False
