"""A person goes, with everything that was made of them.

What goes: the folder with reference, crops, embedding, LoRA and validation pictures; the trainings with the photos; every job
of theirs in the queue with photos handed in, previews and logs, and its row; the LoRA copied to a WebUI; if asked, every result
that shows them, also one that shows somebody else beside them. What stays: results where nobody asked, which are told. In logs
the name is struck out. A job that waits is cancelled; one that runs is asked to stop and waited for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from easyphoto.app import App
from easyphoto.errors import Conflict, EasyPhotoError
from easyphoto.jobs.folders import QueueFolder, job_folders
from easyphoto.jobs.results import read_result
from easyphoto.jobs.rows import names_of
from easyphoto.jobs.store import JobStore
from easyphoto.privacy.audit import log_files
from easyphoto.privacy.host_loras import is_of, loras_in
from easyphoto.privacy.lines import Eraser, scrub, strike_out, strike_out_of_failures
from easyphoto.privacy.traces import Census, relative, same
from easyphoto.records import TrainKind
from easyphoto.store.notes import Identity, moment
from easyphoto.store.paths import check_name, owner_homes
from easyphoto.store.removal import files_of, remove
from easyphoto.work import Job, JobResult

_PATIENCE = 30.0
"""Seconds a running job gets to stop."""
_PAUSE = 0.1
_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""What `files.write_bytes` leaves where it is killed."""
_SURELY_LEFT = 3600.0
"""Seconds after which such a file is nobody's work any more."""


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What became of everything."""

    person: str
    removed: tuple[str, ...]
    """Files, relative to the home (absolute outside of it), and rows, as "queue/jobs.sqlite: job <id>"."""
    struck: tuple[str, ...] = ()
    """Files in which the name was struck out."""
    kept: tuple[str, ...] = ()
    """Results that show the person and were not asked to go."""


def erase_person(
    app: App, store: JobStore, name: str, results: bool = False, patience: float = _PATIENCE,
    subject: TrainKind = TrainKind.PERSON,
) -> Erased:  # fmt: skip
    """Remove everything of a person of the app's owner; done again after a crash it goes on where it was.

    Args:
        app: The owner's.
        store: The queue.
        name: Today's name, or the one of trainings that were never published.
        results: Remove the finished pictures that show them too.
        patience: Seconds a running job of theirs gets to stop.
        subject: What the name is of: a scene or a garment goes in the same way, with its photos and what it left.

    Raises:
        NotFound: There is nothing of anybody of that name.
        Conflict: A job of theirs still runs after so long, or a training that is in no queue; nothing was removed yet.
        StorageError: Something cannot be removed; what was removed until then stays removed.
    """
    work = _Erasure(app, store, check_name(name), subject)
    work.refuse_unknown()
    work.stop(patience)
    locks = work.locks()
    with work.shelf.lock(work.person, forget=True):
        pass  # a training outside of the queue is refused before anything goes
    removed = [*work.host_loras(), *work.jobs(), *(work.results() if results else ())]
    struck = tuple(work.strike_out(results))
    removed += [*work.broken_databases(), *work.people(), *work.leftovers()]
    removed += [relative(work.root, lock) for lock in locks if not lock.exists()]
    scrub(store.database.path)
    kept = () if results else tuple(work.shown_files())
    return Erased(person=work.person, removed=tuple(dict.fromkeys(removed)), struck=struck, kept=kept)


class _Erasure:
    """One person's erasure; each step can be done again."""

    def __init__(self, app: App, store: JobStore, name: str, subject: TrainKind) -> None:
        self.app, self.store, self.root = app, store, store.root
        self.subject, self.shelf = subject, app.shelf(subject)
        homes = owner_homes(self.root)
        self.others = tuple(Census.take(self.root, home.shelf(subject)) for home in homes if home.root != app.home.root)
        self.census = Census.take(self.root, self.shelf.home)
        self.person = next((today for today, _ in self.census.people if same(today, name)), name)
        self.names = self.shelf.identities(self.person)

    def refuse_unknown(self) -> None:
        """Raise NotFound where there is nothing to erase."""
        found = self._jobs() or self.shelf.job_folders(self.person) or any(self._shown()) or any(self._copies())
        if not found:
            self.shelf.get(self.person)

    def stop(self, patience: float) -> None:
        """Cancel every job of theirs and wait for those that run."""
        for job in self._jobs():
            if not job.state.ended:
                self.store.cancel(job.id, self.app.owner)
        ends = time.monotonic() + patience
        while busy := [job for job in self._jobs() if not job.state.ended]:
            if time.monotonic() > ends:
                told = "has been asked to stop; delete them once it has"
                raise Conflict(f"the job {busy[0].id} of {self.person} still runs and {told}")
            time.sleep(_PAUSE)

    def locks(self) -> tuple[Path, ...]:
        """Lock files, which bear their name."""
        return tuple((self.shelf.home.people / ".locks").glob(f"{self.names[0].person_id}.*lock"))

    def jobs(self) -> Iterator[str]:
        """Every job of theirs: folder and row."""
        jobs = self._jobs()
        for file in self.store.forget([job.id for job in jobs]) if jobs else ():
            yield relative(self.root, file)
        for job in jobs:
            yield f"{relative(self.root, self.store.database.path)}: job {job.id}"

    def results(self) -> Iterator[str]:
        """Every result that shows them."""
        known = {result.id for result in self._rows()}
        for folder, result in tuple(self._shown()):
            files = files_of(folder)
            if result.id in known:
                self.store.forget_result(result.id, self.app.owner)
            if folder.exists():
                remove(folder)
            yield from (relative(self.root, file) for file in files)

    def host_loras(self) -> Iterator[str]:
        """Their LoRA in a WebUI's folder."""
        for lora in tuple(loras_in(self.app.settings.lora_folder)):
            if is_of(lora, self.person, self.census, self.others):
                remove(lora.path)
                yield relative(self.root, lora.path)

    def people(self) -> Iterator[str]:
        """Their own folder and their trainings."""
        if any(self._copies()) or self.shelf.job_folders(self.person):
            yield from (relative(self.root, file) for file in self.shelf.delete(self.person))

    def strike_out(self, results: bool) -> Iterator[str]:
        """Their names in logs, in what is told of other jobs, and, if results go, in other results."""
        others = [today for today, _ in self.census.people if today != self.person]
        shelves = (Census.take(self.root, self.app.home.shelf(kind)) for kind in TrainKind if kind is not self.subject)
        others += [today for census in shelves for today, _ in census.people]
        gone = [identity.name for identity in self.names if not any(same(identity.name, other) for other in others)]
        eraser = Eraser.of(gone, others)
        self.store.database.write(lambda connection: strike_out_of_failures(connection, self.app.owner, eraser))
        for path in (*log_files(self.root), *self._told(results)):
            if strike_out(path, eraser):
                yield relative(self.root, path)

    def broken_databases(self) -> Iterator[str]:
        """Damaged databases that were set aside: mere indexes, which hold the rows of everybody's jobs."""
        place = self.store.database.path
        for path in sorted(place.parent.glob(f"{place.name}.broken-*")):
            remove(path)
            yield relative(self.root, path)

    def leftovers(self) -> Iterator[str]:
        """Half-written files of killed processes, of which nobody can say whose they are."""
        for path in files_of(self.root):
            if _LEFTOVER.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _SURELY_LEFT:
                remove(path)
                yield relative(self.root, path)

    def shown_files(self) -> Iterator[str]:
        """Files of results that show them."""
        for folder, _ in self._shown():
            yield from (relative(self.root, file) for file in files_of(folder))

    def _jobs(self) -> tuple[Job, ...]:
        found = {
            job.id: job
            for identity in self.names
            for job in self.store.jobs_of(self.app.owner, identity.name, self.subject)
            if identity.holds(moment(job.created))
        }
        return tuple(found.values())

    def _rows(self) -> Sequence[JobResult]:
        found: list[JobResult] = []
        for identity in self.names:
            before: str | None = None
            while page := self.store.results(self.app.owner, identity.name, before, subject=self.subject):
                found += page
                before = self.store.result_cursor(page[-1])
        return found

    def _shown(self) -> Iterator[tuple[Path, JobResult]]:
        results = self.app.home.results
        for folder in sorted(results.iterdir()) if results.is_dir() else ():
            result = read_result(folder)
            named = names_of(result, self.subject) if result is not None else ()
            if result is not None and any(_is_one_of(name, result.created, self.names) for name in named):
                yield folder, result

    def _copies(self) -> Iterator[Path]:
        for identity in self.names[:1]:
            yield from self.shelf.home.people.glob(identity.person_id)
            for beginning in (".staging-", ".old-", ".deleted-", ".moving-"):
                yield from self.shelf.home.people.glob(f"{beginning}{identity.person_id}*")

    def _told(self, results: bool) -> Iterator[Path]:
        """Texts of this owner's other jobs and results that may name the person."""
        for folder in job_folders(self.store.queue):
            if self._is_own(folder):
                yield from (folder.end, folder.events, folder.log)
        if results:
            yield from self.app.home.results.glob("*/result.json")

    def _is_own(self, folder: QueueFolder) -> bool:
        with suppress(EasyPhotoError):
            return folder.read_order()[0].owner == self.app.owner
        return False


def _is_one_of(name: str, created: str, names: Sequence[Identity]) -> bool:
    return any(same(name, identity.name) and identity.holds(moment(created)) for identity in names)
