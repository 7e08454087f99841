"""The composition root: the one place that builds tools, store and engine, and joins them for callers above."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from easyphoto.errors import Conflict, NotFound
from easyphoto.events import Listener, ignore
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES
from easyphoto.imaging.io import photo_files, save_png
from easyphoto.orders import TrainOrder
from easyphoto.records import PreparedSet
from easyphoto.settings import Settings
from easyphoto.specs import Person, PortraitRequest, PortraitResult, TrainResult
from easyphoto.store.paths import Home, check_name, person_id
from easyphoto.store.people import PeopleStore
from easyphoto.store.templates import list_templates
from easyphoto.training.launch import LaunchOptions, train
from easyphoto.training.preprocess import PrepareOptions, prepare

if TYPE_CHECKING:
    from easyphoto.engine.standalone import StandaloneEngine


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A person, freshly published, with everything that led there."""

    person: Person
    prepared: PreparedSet
    result: TrainResult


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a caller follows and stops long work."""

    listener: Listener = ignore
    cancel: threading.Event = field(default_factory=threading.Event)


class App:
    """Everything a front end needs; heavy parts are built when they are first used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.people = PeopleStore(Home(settings.home))

    @cached_property
    def tools(self) -> FaceTools:
        """The face tools, models loaded on first use."""
        return FaceTools()

    @cached_property
    def engine(self) -> StandaloneEngine:
        """The diffusers engine with the settings' base model."""
        from easyphoto.engine.models import load_models
        from easyphoto.engine.standalone import StandaloneEngine

        return StandaloneEngine(load_models(self.settings.base_model, self.settings.device))

    def check(self, order: TrainOrder, listener: Listener = ignore) -> PreparedSet:
        """Judge every photo without training; raises PhotoError if none can be used."""
        check_name(order.spec.person)
        options = PrepareOptions(
            override=frozenset(order.take),
            retouch=order.retouch,
            size=PROFILES[order.spec.family].second_size,
            crop_ratio=PROFILES[order.spec.family].crop_ratio,
            templates=tuple(template.path for template in list_templates(self.settings.templates)),
            listener=listener,
        )
        return prepare(photo_files(order.photos), self.tools, options)

    def train(self, order: TrainOrder, watch: Watch | None = None) -> Trained:
        """Check the photos, train in a worker process, publish the person in one step."""
        watch = watch or Watch()
        self._refuse_known(order)
        prepared = self.check(order, watch.listener)
        options = LaunchOptions(
            listener=watch.listener, cancel=watch.cancel, resume=order.resume, templates=self.settings.templates
        )
        result = train(order.spec, prepared, self.people, options)
        return Trained(person=self.people.publish(order.spec, prepared, result), prepared=prepared, result=result)

    def _refuse_known(self, order: TrainOrder) -> None:
        """A trained person is not overwritten by a slip of the pen."""
        identity = person_id(order.spec.person)
        if not order.replace and any(person.person_id == identity for person in self.people.list()):
            raise Conflict(
                f"{order.spec.person} was trained already; say --replace to train again, or choose another name"
            )

    def portraits(self, request: PortraitRequest, watch: Watch | None = None) -> tuple[PortraitResult, ...]:
        """Put the request's people into its template; one result for each of `request.count`."""
        from easyphoto.portrait.pipeline import run

        return run(request, self.engine, self.tools, (watch or Watch()).listener)


def save_results(results: Sequence[PortraitResult], folder: Path, label: str) -> tuple[Path, ...]:
    """Write each result as a PNG with its infotext; names hold the label, the time and the seed, none is replaced."""
    if not folder.parent.is_dir():
        raise NotFound(f"{folder} cannot be made: {folder.parent} does not exist")
    folder.mkdir(exist_ok=True)
    stamp = datetime.fromtimestamp(time.time(), tz=timezone.utc).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    paths = []
    for result in results:
        path = folder / f"{label}-{stamp}-{result.seed}.png"
        save_png(path, result.picture.pixels, {"parameters": result.infotext})
        paths.append(path)
    return tuple(paths)
