"""Every file that holds something of somebody, and every file of which nobody can say whose it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from easyphoto.errors import EasyPhotoError
from easyphoto.jobs.folders import QueueFolder, job_folders
from easyphoto.jobs.results import read_result
from easyphoto.jobs.rows import names_in, names_of
from easyphoto.jobs.store import JobQuery, JobStore
from easyphoto.privacy.host_loras import is_of, loras_in
from easyphoto.privacy.lines import Eraser, names_in_file
from easyphoto.privacy.traces import (
    Census,
    Kind,
    Trace,
    names_now,
    person_traces,
    queue_kind,
    relative,
    result_kind,
    same,
    training_traces,
)
from easyphoto.records import TrainKind
from easyphoto.store.notes import moment
from easyphoto.store.removal import files_of
from easyphoto.work import JobKind

_OURS = re.compile(r"queue/(jobs\.sqlite(-wal|-shm)?|\.store\.lock|worker\.(lock|log(\.\d+)?)|drills\.txt)"
                   r"|tokens\.json|\.tokens\.lock|(owners/[^/]+/)?secrets/[^/]+")  # fmt: skip
"""Files of the program itself that speak of nobody; what the database holds is told row by row."""
_LOGS = ("*.log", "*.log.*")
_PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found."""

    traces: tuple[Trace, ...]
    unattributed: tuple[str, ...]
    """Files under the home that hold nothing of anybody known, relative to it."""

    def of(self, person: str, owner: str | None = None, subject: TrainKind = TrainKind.PERSON) -> tuple[Trace, ...]:
        """What there is of one person, scene or garment."""
        found = (one for one in self.traces if one.subject is subject and owner in (None, one.owner))
        return tuple(one for one in found if same(one.person, person))


def audit(root: Path, store: JobStore, lora_folder: Path | None = None) -> Audit:
    """Look at every file under a home, all owners', and at a WebUI's folder of LoRA files.

    Raises:
        StorageError: The queue's database cannot be read.
    """
    censuses = Census.take_all(root)
    traces = [replace(trace, subject=census.subject) for census in censuses for trace in _of_owner(root, census, store)]
    traces += _hosted(censuses, lora_folder)
    traces += _logged(root, censuses)
    known = {trace.path for trace in traces}
    everything = (relative(root, file) for file in files_of(root)) if root.is_dir() else ()
    unknown = tuple(sorted(path for path in everything if path not in known and not _OURS.fullmatch(path)))
    return Audit(traces=tuple(traces), unattributed=unknown)


def _of_owner(root: Path, census: Census, store: JobStore) -> Iterator[Trace]:
    yield from person_traces(root, census)
    yield from training_traces(root, census)
    yield from queue_traces(root, census, store)
    yield from result_traces(root, census)
    yield from row_traces(root, census, store)


def queue_traces(root: Path, census: Census, store: JobStore) -> Iterator[Trace]:
    """Everything in the folders of an owner's jobs."""
    for folder in job_folders(store.queue):
        with suppress(EasyPhotoError):
            slip, order = folder.read_order()
            if slip.owner != census.owner:
                continue
            training = slip.kind is JobKind.TRAINING
            for name in names_now(census, names_in(order, census.subject), moment(slip.created)):
                for file in files_of(folder.root):
                    kind = queue_kind(file, training)
                    yield Trace(path=relative(root, file), kind=kind, owner=census.owner, person=name, note=f"job {slip.id}")


def result_traces(root: Path, census: Census) -> Iterator[Trace]:
    """Everything in the folders of an owner's results."""
    results = census.home.results
    for folder in sorted(results.iterdir()) if results.is_dir() else ():
        result = read_result(folder)
        if result is None:
            continue
        training = result.kind is not JobKind.PORTRAITS
        for name in names_now(census, names_of(result, census.subject), moment(result.created)):
            for file in files_of(folder):
                kind = result_kind(file, training)
                yield Trace(path=relative(root, file), kind=kind, owner=census.owner, person=name, note=f"result {result.id}")


def row_traces(root: Path, census: Census, store: JobStore) -> Iterator[Trace]:
    """Every row of an owner's jobs that names somebody."""
    before: str | None = None
    while True:
        page = store.list(JobQuery(owner=census.owner, before=before, limit=_PAGE))
        for job in page:
            names: tuple[str, ...] = (job.person,) if job.person and job.subject is census.subject else ()
            with suppress(EasyPhotoError):
                names = names_in(QueueFolder(store.folder(job.id)).read_order()[1], census.subject)
            for name in names_now(census, names, moment(job.created)):
                path = relative(root, store.database.path)
                yield Trace(path=path, kind=Kind.JOB_ROW, owner=census.owner, person=name, note=f"job {job.id}")
        if len(page) < _PAGE:
            return
        before = store.cursor(page[-1])


def _hosted(censuses: tuple[Census, ...], folder: Path | None) -> Iterator[Trace]:
    for lora in loras_in(folder):
        for census in censuses:
            person = census.holder(lora.person, lora.made)
            others = tuple(other for other in censuses if other is not census)
            if any(person == name for name, _ in census.people) and is_of(lora, person, census, others):
                path, note = lora.path.as_posix(), "copy for a WebUI"
                yield Trace(
                    path=path, kind=Kind.LORA, owner=census.owner, person=person, note=note, subject=census.subject
                )  # fmt: skip


def log_files(root: Path) -> Iterator[Path]:
    """The logs of the program itself."""
    for folder in (root, root / "queue"):
        for pattern in _LOGS:
            yield from (path for path in sorted(folder.glob(pattern)) if path.is_file())


def _logged(root: Path, censuses: tuple[Census, ...]) -> Iterator[Trace]:
    for path in log_files(root):
        for census in censuses:
            for today, names in census.people:
                others = [name for name, _ in census.people if name != today]
                if names_in_file(path, Eraser.of([identity.name for identity in names], others)):
                    note = "lines that name them"
                    yield Trace(
                        path=relative(root, path), kind=Kind.LOG, owner=census.owner, person=today, note=note,
                        subject=census.subject,
                    )  # fmt: skip
