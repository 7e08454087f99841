"""Everything the tabs do, without any tab: photos and wishes become jobs of the queue, jobs become views, people are kept."""

from __future__ import annotations

import filecmp
import glob
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Lock

from easyphoto.app import App
from easyphoto.engine.detect import detect_family
from easyphoto.errors import Conflict, EasyPhotoError, NotFound
from easyphoto.families import Family
from easyphoto.imaging.io import load_photo
from easyphoto.jobs.store import Input, JobQuery, JobStore, NewJob
from easyphoto.orders import CheckOrder, Order, PortraitOrder, TrainOrder
from easyphoto.portrait.enlarge import AUTO, ways
from easyphoto.privacy.erase import Erased, erase_person
from easyphoto.records import Face, Photo, TrainKind
from easyphoto.specs import Person
from easyphoto.store.paths import person_id
from easyphoto.store.templates import Template, list_templates
from easyphoto.training.launch import find_resumable
from easyphoto.ui.story import Stories, View
from easyphoto.work import Job, JobKind, JobState

_PAGES = 512
"""Open pages whose last jobs are known."""
_SHOWN_FOR = timedelta(hours=12)
"""How long a page that is opened anew still shows a job that has ended."""
_FAMILIES = {Family.EMBEDDED: "embedded", Family.SD15: "SD1.5", Family.SDXL: "SDXL"}
_KINDS = {TrainOrder: JobKind.TRAINING, PortraitOrder: JobKind.PORTRAITS, CheckOrder: JobKind.CHECK}


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base model that people can be trained on."""

    id: str
    family: Family
    path: Path

    @property
    def label(self) -> str:
        """What lists show: its family beside its name."""
        return f"{self.id} ({_FAMILIES[self.family]})"


class Studio:
    """One owner's people, jobs and results, as the tabs see them."""

    def __init__(self, app: App, store: JobStore | None = None, models: Path | None = None) -> None:
        self.app = app
        self.store = store or JobStore(app.settings.home)
        self.stories = Stories(self.store.events)
        self._models = models
        self._families: dict[Path, Family | None] = {}
        self._last: OrderedDict[tuple[str, JobKind], str] = OrderedDict()
        self._clicks = Lock()
        self._copies: dict[tuple[TrainKind, str], set[Path]] = {}

    @property
    def owner(self) -> str:
        """Whose all this is."""
        return self.app.owner

    def people(self, kind: TrainKind = TrainKind.PERSON) -> tuple[Person, ...]:
        """Everybody who was trained, or every scene or garment, by name."""
        return self.app.shelf(kind).list()

    def templates(self) -> tuple[Template, ...]:
        """The gallery; empty where there is none."""
        with suppress(NotFound):
            return list_templates(self.app.settings.templates)
        return ()

    def models(self) -> tuple[BaseModel, ...]:
        """The base models that are installed, the settings' own first."""
        own = self.app.settings.base_model
        others = [path for path in checkpoints(self._models) if path != own] if self._models is not None else []
        found = [self._model(path) for path in (own, *others)]
        named = {model.id: model for model in reversed([model for model in found if model is not None])}
        return tuple(reversed(named.values()))

    def model(self, identifier: str | None = None) -> BaseModel:
        """A base model by its id or label, the settings' own for None; NotFound if it is none of ours."""
        for model in self.models():
            if identifier in (None, "", model.id, model.label):
                return model
        known = ", ".join(model.id for model in self.models()) or "none"
        raise NotFound(f"there is no base model {identifier!r}; there are: {known}")

    def labels(self) -> tuple[str, ...]:
        """The base models as a list shows them: the one that portraits are made with first, then family by family."""
        first, *others = self.models() or (None,)
        rest = sorted((model for model in others if model), key=lambda model: (list(Family).index(model.family), model.id))
        return tuple(model.label for model in (first, *rest) if model)

    @property
    def family(self) -> Family:
        """Of the settings' own base model; SD1.5 where it is none of ours."""
        models = self.models()
        return models[0].family if models else Family.SD15

    def upscalers(self) -> tuple[str, ...]:
        """Every way of super resolution that there is here, beginning with the choice of the best."""
        of_engine: tuple[str, ...] = ()
        with suppress(EasyPhotoError):  # a folder that is gone is told of where a portrait wants it
            of_engine = self.app.shared.enlargers()
        return (AUTO, *ways(of_engine))

    def faces(self, path: Path) -> tuple[Photo, tuple[Face, ...]]:
        """A picture and the faces in it from left to right; raises PhotoError."""
        photo = load_photo(path)
        return photo, self.app.tools.faces(photo)

    def submit(self, order: Order, inputs: Sequence[Input] = (), page: str = "") -> Job:
        """Hand in a job; a page whose last job of this kind has not ended gets that one, so that twenty clicks make one job."""
        key = (page, _KINDS[type(order)])
        with self._clicks:
            last = self._unended(self._last.get(key)) if page else None
            if last is not None:
                return last
            job = self.store.submit(NewJob(order=order, owner=self.owner), inputs)
            self._last[key] = job.id
            while len(self._last) > _PAGES:
                self._last.popitem(last=False)
            return job

    def resume(self, job_id: str, page: str = "") -> Job:
        """Go on with a training that was stopped or broke off.

        Raises:
            NotFound: The photos of that training are gone.
            Conflict: It has not ended.
        """
        job, order = self.job(job_id), self.store.order(job_id)
        if not isinstance(order, TrainOrder):
            raise NotFound("this was no training; start one in the Train tab")
        if not job.state.ended:
            raise Conflict("this training has not ended; stop it first")
        folder = self.store.folder(job_id)
        if not all((folder / path).is_file() for path in order.photos):
            raise NotFound("the photos of this training are not kept any more; hand them in again")
        inputs = [Input(name=path.relative_to("inputs").as_posix(), data=folder / path) for path in order.photos]
        return self.submit(replace(order, resume=True), inputs, page)

    def note_copies(self, name: str, files: Iterable[Path], kind: TrainKind = TrainKind.PERSON) -> None:
        """Remember files outside of the home that hold something of a person: uploads, exported parcels."""
        with self._clicks:
            self._copies.setdefault((kind, person_id(name)), set()).update(files)

    def erase(self, name: str, results: bool, kind: TrainKind = TrainKind.PERSON) -> Erased:
        """Remove everything of a person, and the copies that these tabs know of.

        Raises:
            NotFound: There is nothing of anybody of that name.
            Conflict: A job of theirs does not stop.
            StorageError: Something cannot be removed.
        """
        erased = erase_person(self.app, self.store, name, results=results, subject=kind)
        with self._clicks:
            copies = self._copies.pop((kind, person_id(name)), set())
        for path in copies:
            for copy in (*twins(path), path):
                with suppress(OSError):
                    copy.unlink(missing_ok=True)
        self.stories.forget()
        return erased

    def stop(self, job_id: str) -> Job:
        """Ask a job to stop."""
        return self.store.cancel(job_id, self.owner)

    def job(self, job_id: str) -> Job:
        """A job of this owner; NotFound."""
        return self.store.get(job_id, self.owner)

    def order(self, job_id: str) -> Order:
        """What was ordered; NotFound where nobody knows any more."""
        self.job(job_id)
        return self.store.order(job_id)

    def forget(self, job_id: str) -> tuple[Path, ...]:
        """Remove an ended job with its result; returns what was removed."""
        removed: tuple[Path, ...] = ()
        with suppress(NotFound):
            removed += self.store.forget_result(job_id, self.owner)
        with suppress(NotFound, Conflict):
            removed += self.store.forget([self.job(job_id).id])
        return removed

    def view(self, job_id: str) -> View:
        """A job as it stands now; NotFound if there is none."""
        job = self.job(job_id)
        story = self.stories.of(job_id)
        result = None
        if job.state is JobState.DONE:
            with suppress(NotFound):
                result = self.store.result(job_id, self.owner)
        before = self._before(job) if job.state is JobState.QUEUED else 0
        return View(job=job, story=story, before=before, result=result, can_resume=self._can_resume(job))

    def current(self, kind: JobKind) -> Job | None:
        """The job of this kind that a page shows when it is opened: one that is under way, else one that ended lately."""
        for state in (JobState.RUNNING, JobState.QUEUED):
            jobs = self.store.list(JobQuery(owner=self.owner, kind=kind, state=state, limit=1))
            if jobs:
                return jobs[0]
        jobs = self.store.list(JobQuery(owner=self.owner, kind=kind, limit=1))
        lately = (datetime.now(timezone.utc) - _SHOWN_FOR).isoformat()
        return jobs[0] if jobs and (jobs[0].ended or "") > lately else None

    def file(self, job_id: str, name: str) -> Path:
        """One of the pictures a job made on its way; NotFound."""
        self.job(job_id)
        return inside(self.store.folder(job_id), name)

    def result_file(self, job_id: str, name: str) -> Path:
        """One of a result's files; NotFound."""
        return inside(self.store.result_folder(job_id, self.owner), name)

    def _unended(self, job_id: str | None) -> Job | None:
        with suppress(NotFound):
            job = self.job(job_id) if job_id else None
            return job if job is not None and not job.state.ended else None
        return None

    def _before(self, job: Job) -> int:
        waiting = self.store.list(JobQuery(state=JobState.QUEUED, limit=1000))
        earlier = sum((-other.priority, other.created) < (-job.priority, job.created) for other in waiting)
        return earlier + len(self.store.list(JobQuery(state=JobState.RUNNING)))

    def _can_resume(self, job: Job) -> bool:
        if job.kind is not JobKind.TRAINING or job.state not in (JobState.CANCELLED, JobState.FAILED) or not job.person:
            return False
        with suppress(EasyPhotoError):
            begun = find_resumable(self.app.shelf(job.subject), job.person)
            return begun is not None and (self.store.folder(job.id) / "inputs").is_dir()
        return False

    def _model(self, path: Path) -> BaseModel | None:
        if path not in self._families:
            try:
                family: Family | None = detect_family(path)
            except EasyPhotoError:
                family = None
            self._families[path] = family  # noted when it is known: twenty pages may ask at once
        family = self._families[path]
        folder = self._models
        name = path.relative_to(folder).as_posix() if folder is not None and path.is_relative_to(folder) else path.name
        return None if family is None else BaseModel(id=name, family=family, path=path)


def checkpoints(folder: Path, depth: int = 3) -> Iterator[Path]:
    """What may be a base model in a folder and those below it, by name: diffusers folders and `.safetensors` files.

    A `.ckpt` file, which takes torch to look into, is used where it is named itself.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path.is_file() and path.suffix.lower() == ".safetensors") or (path / "model_index.json").is_file():
            yield path
        elif path.is_dir() and depth > 1:
            yield from checkpoints(path, depth - 1)


def twins(path: Path) -> Iterator[Path]:
    """Copies of an uploaded or offered file: Gradio keeps each under its own name in a folder of its own."""
    rooms = {path.parent.parent, Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")}
    for room in rooms if path.is_file() else ():
        for other in room.glob(f"*/{glob.escape(path.name)}"):
            with suppress(OSError):
                if other != path and filecmp.cmp(other, path, shallow=False):
                    yield other


def inside(folder: Path, name: str) -> Path:
    """The file of that name in a folder itself.

    Raises:
        NotFound: There is none, or the name leads elsewhere.
    """
    path = folder / name
    if Path(name).name != name or path.is_symlink() or not path.is_file():
        raise NotFound(f"there is no file {name[:80]!r} any more; reload the page")
    return path
