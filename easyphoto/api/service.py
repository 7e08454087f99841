"""What the routes work with: the queue, each owner's people and results, the models, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from easyphoto.api.metrics import Metrics
from easyphoto.api.options import ApiOptions
from easyphoto.api.stream import Hub
from easyphoto.api.uploads import UploadRoom
from easyphoto.app import App
from easyphoto.engine.detect import detect_family
from easyphoto.errors import EasyPhotoError, NotFound
from easyphoto.families import Family
from easyphoto.jobs.store import JobQuery, JobStore
from easyphoto.records import TrainKind
from easyphoto.settings import Settings
from easyphoto.specs import Person
from easyphoto.store.paths import Home, owner_home, person_id
from easyphoto.store.people import PeopleStore

_JOBS_LOOKED_AT = 1000
"""Newest jobs of an owner in which the name of somebody who was never trained is sought."""


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base model that is installed."""

    id: str
    family: Family
    path: Path


class Service:
    """One home, served."""

    def __init__(
        self,
        settings: Settings,
        options: ApiOptions | None = None,
        store: JobStore | None = None,
        worker_alive: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings
        self.options = options or ApiOptions()
        self.store = store or JobStore(settings.home)
        self.metrics = Metrics(self.store, worker_alive)
        self.hub = Hub(self.store, self.metrics)
        self.uploads = UploadRoom(settings.home)
        self._app = App(settings)

    def home(self, owner: str) -> Home:
        """Where an owner's people and results lie."""
        return owner_home(self.settings.home, owner)

    def people(self, owner: str) -> PeopleStore:
        """An owner's people."""
        return PeopleStore(self.home(owner))

    def app(self, owner: str) -> App:
        """The application as an owner sees it."""
        return self._app.for_owner(owner)

    def person(self, owner: str, identifier: str) -> Person:
        """The person of that id.

        Raises:
            NotFound: Nobody of that owner has it.
        """
        for person in self.people(owner).list():
            if person.person_id == identifier:
                return person
        raise NotFound("there is no person with this id; GET /easyphoto/v1/people lists those there are")

    def scenes(self, owner: str) -> tuple[Person, ...]:
        """An owner's scenes and clothes."""
        app = self.app(owner)
        return (*app.shelf(TrainKind.SCENE).list(), *app.shelf(TrainKind.CLOTH).list())

    def scene(self, owner: str, identifier: str) -> Person:
        """The scene or garment of that id.

        Raises:
            NotFound: That owner has none of it.
        """
        for scene in self.scenes(owner):
            if scene_id(scene) == identifier:
                return scene
        raise NotFound("there is no scene with this id; GET /easyphoto/v1/scenes lists those there are")

    def scene_for_deletion(self, owner: str, identifier: str) -> tuple[str, TrainKind]:
        """Name and kind behind an id, also of something of which only jobs are left.

        Raises:
            NotFound: That owner has none of it.
        """
        try:
            scene = self.scene(owner, identifier)
        except NotFound:
            for job in self.store.list(JobQuery(owner=owner, limit=_JOBS_LOOKED_AT)):
                if job.person and f"{job.subject.value}-{person_id(job.person)}" == identifier:
                    return job.person, job.subject
            raise
        return scene.name, scene.kind

    def name_of(self, owner: str, said: str) -> str:
        """The name of somebody who was named by id or by name, trained or not."""
        return next((person.name for person in self.people(owner).list() if person.person_id == said), said)

    def name_for_deletion(self, owner: str, identifier: str) -> str:
        """The name behind an id, also of somebody of whom only jobs are left.

        Raises:
            NotFound: Nobody of that owner has it.
        """
        try:
            return self.person(owner, identifier).name
        except NotFound:
            for job in self.store.list(JobQuery(owner=owner, limit=_JOBS_LOOKED_AT)):
                if job.person and job.subject is TrainKind.PERSON and person_id(job.person) == identifier:
                    return job.person
            raise

    def models(self) -> tuple[BaseModel, ...]:
        """The installed base models, the server's own first; what is no base model of ours is left out."""
        own, others = self.settings.base_model, self.options.models
        inside = sorted(others.iterdir()) if others is not None and others.is_dir() else []
        found = (_read_model(path) for path in (own, *(path for path in inside if path != own)))
        named = {model.id: model for model in reversed([model for model in found if model is not None])}
        return tuple(reversed(named.values()))

    def model(self, identifier: str | None) -> BaseModel:
        """A base model; the server's own for None.

        Raises:
            NotFound: There is none of that id.
        """
        for model in self.models():
            if identifier in (None, model.id):
                return model
        known = ", ".join(model.id for model in self.models())
        raise NotFound(f"there is no base model {identifier!r}; there are: {known}")

    def close(self) -> None:
        """Let go of everything."""
        self.hub.close()
        self.uploads.close()
        self.store.close()


def scene_id(scene: Person) -> str:
    """What a scene is asked for by: its kind is part of it, for a scene and a garment may have one name."""
    return f"{scene.kind.value}-{scene.person_id}"


def _read_model(path: Path) -> BaseModel | None:
    try:
        return BaseModel(id=path.name, family=detect_family(path), path=path)
    except EasyPhotoError:
        return None
