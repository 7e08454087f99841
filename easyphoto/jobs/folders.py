"""A queued job as files: what was ordered, its inputs, its events and log, and how it ended. These files are the truth.

The database beside them is an index that can be made anew from them (`recovery`). A folder is built under a name that
nobody looks at and renamed when it is whole, so a folder with a job's name always holds its order and its inputs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from easyphoto.errors import NotFound, PhotoError, SpecError, ToolMissing
from easyphoto.files import begin_writing, flush_file, flush_folder, storage_error, write_new, write_text
from easyphoto.imaging.metadata import without_private_metadata
from easyphoto.orders import CheckOrder, DrillOrder, Order, PortraitOrder, TrainOrder
from easyphoto.store.codec import dumps, from_json, loads, to_json
from easyphoto.store.locks import abandoned, locked
from easyphoto.store.paths import make_folder
from easyphoto.work import Failure, JobKind, JobState

KIND_OF: dict[type, JobKind] = {
    TrainOrder: JobKind.TRAINING, PortraitOrder: JobKind.PORTRAITS, CheckOrder: JobKind.CHECK, DrillOrder: JobKind.DRILL,
}  # fmt: skip
ORDER = "order.json"
MAKING, DELETED = ".making-", ".deleted-"
"""Beginnings of the names of folders that are being built, and that are being removed."""
_ID = re.compile(r"[0-9a-f]{16}")
_BUILDER = ".builder"
"""Locked in a folder that is being built, by the process that builds it."""
_SURELY_FORSAKEN = 3600.0
"""Seconds without any change after which a folder is nobody's, whose builder died between two steps of its making."""
_TAIL = 20
"""Lines of the log that a failure carries."""
_LONGEST_INPUT = 120
"""UTF-8 bytes of an input's name."""
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One file that is handed in with an order."""

    name: str
    """As `input_name` gives it; the order names the file as `inputs/<name>`."""
    data: bytes | Path
    """The content, or the file that holds it."""


@dataclass(frozen=True, kw_only=True)
class Slip:
    """What is written down of a job besides the order itself."""

    id: str
    kind: JobKind
    owner: str
    created: str
    priority: int = 0
    place: int = 0
    """About where in the row it came; says nothing but the order of jobs whose database was lost."""
    idempotency_key: str | None = None
    fingerprint: str = ""
    """Digest of the request, to tell whether two with one key are the same."""
    webhook: str | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """How a job ended."""

    state: JobState
    ended: str
    started: str | None = None
    attempt: int = 0
    failure: Failure | None = None


@dataclass(frozen=True)
class QueueFolder:
    """Where each thing of one job lies."""

    root: Path

    @property
    def order(self) -> Path:
        """Slip and order as JSON; the last thing that is flushed of a new job."""
        return self.root / ORDER

    @property
    def inputs(self) -> Path:
        """Folder of what was handed in."""
        return self.root / "inputs"

    @property
    def events(self) -> Path:
        """Every event, one JSON object a line."""
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        """What was said while it ran."""
        return self.root / "log.txt"

    @property
    def end(self) -> Path:
        """The End as JSON; a job with it is over, whatever the database says."""
        return self.root / "end.json"

    @property
    def cancel(self) -> Path:
        """As soon as this file exists somebody wants the job to stop."""
        return self.root / "cancel"

    @property
    def told(self) -> Path:
        """Exists once the webhook has been told, or given up."""
        return self.root / "told"

    def write_order(self, slip: Slip, order: Order) -> None:
        """Write down what was ordered, in a folder that is being made; raises StorageError."""
        text = json.dumps({"slip": to_json(slip), "order": to_json(order)}, ensure_ascii=False, indent=1)
        write_new(self.order, text.encode("utf-8"))

    def read_order(self) -> tuple[Slip, Order]:
        """What was ordered.

        Raises:
            NotFound: The folder or the file is gone.
            SpecError: The file is broken.
        """
        try:
            data = json.loads(self.order.read_text(encoding="utf-8"))
            slip = from_json(Slip, data["slip"])
            record = next(record for record, kind in KIND_OF.items() if kind is slip.kind)
            order: Order = from_json(record, data["order"])
        except FileNotFoundError as error:
            raise NotFound(f"the job {self.root.name} has no order any more; hand it in again") from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise SpecError(f"{self.order} cannot be read ({error}); hand the job in again") from error
        return slip, order

    def write_end(self, end: End) -> End:
        """Write down how the job ended, once: an end that is there already stays, and is returned.

        That a job is done is told by its result's folder too, which has been flushed: its end need not be.
        """
        known = self.read_end()
        if known is None:
            write_text(self.end, dumps(end), flushed=end.state is not JobState.DONE)
        return known or end

    def read_end(self) -> End | None:
        """How the job ended; None while it has not (or the file is broken)."""
        with suppress(OSError, ValueError, SpecError):
            return loads(End, self.end.read_text(encoding="utf-8"))
        return None

    def log_tail(self) -> tuple[str, ...]:
        """The last lines of the log."""
        with suppress(OSError):
            return tuple(self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_TAIL:])
        return ()

    def drop_inputs(self) -> None:
        """Remove what was handed in."""
        shutil.rmtree(self.inputs, ignore_errors=True)

    def drop_previews(self) -> None:
        """Remove the pictures that showed how far it was."""
        for path in self.root.glob("preview-*"):
            path.unlink(missing_ok=True)


def new_id() -> str:
    """A name for a job that nobody can guess."""
    return secrets.token_hex(8)


def is_id(name: str) -> bool:
    """Whether a job could be called so."""
    return _ID.fullmatch(name) is not None


def now() -> str:
    """The time as it is written down: ISO 8601, UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def input_name(index: int, original: str) -> str:
    """The name of the input number `index`: a folder of its own, so that the file keeps the name people know it by.

    `original` may be anything that a client says; only its last part is kept, without what a disk or a shell dislikes.
    """
    last = unicodedata.normalize("NFC", original).replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join("_" if letter in '<>:"|?*' or unicodedata.category(letter)[0] == "C" else letter for letter in last)
    kept = kept.strip(" .") or "file"
    if _DEVICES.match(kept):
        kept = f"_{kept}"
    return f"{index:04d}/{_shortened(kept)}"


def _shortened(name: str) -> str:
    """At most so many bytes, with the ending kept."""
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending) > 8:
        stem, dot, ending = name, "", ""
    room = _LONGEST_INPUT - len((dot + ending).encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + dot + ending


def make_job_folder(queue: Path, slip: Slip, order: Order, inputs: Sequence[Input]) -> tuple[Path, Slip]:
    """Build a job's folder under a name that nobody looks at; returns it with the slip, the request's digest filled in.

    Raises:
        SpecError: An input's name is none of `input_name`.
        StorageError: The disk is full or cannot be written; nothing is left.
    """
    making = QueueFolder(make_folder(queue / f"{MAKING}{slip.id}"))
    try:
        with locked(making.root / _BUILDER, f"the job {slip.id}", remove=True):
            slip = _fill(making, slip, order, inputs)
    except BaseException:
        shutil.rmtree(making.root, ignore_errors=True)
        raise
    return making.root, slip


def _fill(making: QueueFolder, slip: Slip, order: Order, inputs: Sequence[Input]) -> Slip:
    digests = [(item.name, _copy(item, making.inputs)) for item in inputs]
    request = json.dumps([slip.kind.value, to_json(order), sorted(digests)], sort_keys=True)
    slip = replace(slip, fingerprint=slip.fingerprint or hashlib.sha256(request.encode()).hexdigest())
    making.write_order(slip, order)
    return slip


def remove_forsaken(queue: Path) -> None:
    """Remove what a killed process or a power cut left half made or half removed; what one is building right now stays."""
    for folder in queue.glob(f"{DELETED}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in queue.glob(f"{MAKING}*"):
        if abandoned(folder / _BUILDER) or _surely_forsaken(folder):
            shutil.rmtree(folder, ignore_errors=True)
    for job in job_folders(queue):
        if is_cut_off(job.order):
            shutil.rmtree(job.root, ignore_errors=True)


def _surely_forsaken(folder: Path) -> bool:
    """Whether nobody says that they build the folder, and nobody touched it for long."""
    with suppress(OSError):
        mark = folder / _BUILDER
        signed = mark.exists() and mark.stat().st_size > 0
        return not signed and time.time() - folder.stat().st_mtime > _SURELY_FORSAKEN
    return False


def _copy(item: Input, folder: Path) -> str:
    """Copy one input in; returns the digest of its content."""
    number, slash, name = item.name.partition("/")
    if not (slash and number.isdigit() and item.name == input_name(int(number), name)):
        raise SpecError(f"the input {item.name!r} has a name that is not safe; name it with input_name")
    path = make_folder(folder / number) / name
    try:
        with path.open("xb") as target:
            digest = _pour(item.data, target)
            target.flush()
            begin_writing(target.fileno())
    except FileNotFoundError as error:
        raise NotFound(f"{item.data if isinstance(item.data, Path) else path} does not exist; check the name") from error
    except OSError as error:
        raise storage_error(path, error) from error
    return digest


def _pour(data: bytes | Path, target: IO[bytes]) -> str:
    """Write what was handed in, a picture without all it says beside its pixels; returns the digest of what was written."""
    content = data if isinstance(data, bytes) else data.read_bytes()
    # What is no picture is taken as it is: the job will say so in its verdict.
    with suppress(PhotoError, ToolMissing):
        content = without_private_metadata(content)
    target.write(content)
    return hashlib.sha256(content).hexdigest()


def put_in_place(folder: Path, place: Path, last: str) -> None:
    """Rename a finished folder to its place and flush it with all its files, the one called `last` after the others.

    The rename comes first, for a journalling file system then writes all of it at once, where it would take one turn for each
    file and one for the name. What a power cut leaves in between is known by `is_cut_off`.

    Raises:
        StorageError: The disk is full or broken; nothing is left at the place.
    """
    try:
        folder.rename(place)
    except OSError as error:
        raise storage_error(place, error) from error
    try:
        for path in sorted((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.name == last):
            flush_file(path)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise storage_error(place, error) from error
    flush_folder(place.parent)


def is_cut_off(last: Path) -> bool:
    """Whether a folder was put in place without being flushed before a power cut: its last file never reached the disk."""
    with suppress(FileNotFoundError):
        return last.stat().st_size == 0
    return False


def remove_folder(folder: Path) -> tuple[Path, ...]:
    """Remove a folder whole, out of sight first; returns its files as they were called. One that is gone is fine."""
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink()))
    doomed = folder.with_name(f"{DELETED}{folder.name.lstrip('.')}-{secrets.token_hex(4)}")
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise storage_error(folder, error) from error
    shutil.rmtree(doomed, ignore_errors=True)
    flush_folder(folder.parent)
    return files


def job_folders(queue: Path) -> Iterable[QueueFolder]:
    """Every whole job folder of a queue."""
    if queue.is_dir():
        with os.scandir(queue) as entries:
            yield from (QueueFolder(Path(entry.path)) for entry in entries if is_id(entry.name))
