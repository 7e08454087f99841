"""A queued job as files: what was ordered, its inputs, its events and log, and how it ended. These files are the truth.

The database beside them is an index that can be made anew from them (`recovery`). A folder with a job's name always holds its
order and its inputs (`building`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.errors import NotFound, SpecError
from easyphoto.files import flush_folder, storage_error, write_plainly, write_text
from easyphoto.orders import CheckOrder, DrillOrder, Order, PortraitOrder, TrainOrder
from easyphoto.store.codec import dumps, from_json, loads
from easyphoto.work import Failure, JobKind, JobState

KIND_OF: dict[type, JobKind] = {
    TrainOrder: JobKind.TRAINING, PortraitOrder: JobKind.PORTRAITS, CheckOrder: JobKind.CHECK, DrillOrder: JobKind.DRILL,
}  # fmt: skip
ORDER = "order.json"
MAKING, DELETED = ".making-", ".deleted-"
"""Beginnings of the names of folders that are being built, and that are being removed."""
_ID = re.compile(r"[0-9a-f]{16}")
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

        That a job is done is told by its result's folder too, which has been flushed: its end need not be, nor be whole.
        """
        known = self.read_end()
        if known is None and end.state is JobState.DONE:
            write_plainly(self.end, dumps(end).encode("utf-8"))
        elif known is None:
            write_text(self.end, dumps(end))
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
