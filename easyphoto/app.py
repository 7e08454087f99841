"""The composition root: the one place that builds tools, store and engine, and joins them for callers above."""

from __future__ import annotations

import filecmp
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from easyphoto.engine.detect import detect_family
from easyphoto.engine.upscalers import find_upscalers
from easyphoto.errors import Cancelled, Conflict, LoraError, NotFound, StorageError
from easyphoto.events import Event, Listener, ignore
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES
from easyphoto.imaging.io import photo_files, save_png
from easyphoto.kinds import spec_for
from easyphoto.orders import CheckOrder, TrainOrder
from easyphoto.portrait.lcm import lcm_lora
from easyphoto.records import Pixels, PreparedSet, TrainKind
from easyphoto.settings import Settings
from easyphoto.specs import Person, PortraitRequest, PortraitResult, TrainResult
from easyphoto.store.lora_file import check_lora, read_lora
from easyphoto.store.named_loras import take_out
from easyphoto.store.paths import check_name, owner_home, person_id
from easyphoto.store.people import PeopleStore
from easyphoto.store.shelf import LoraShelf
from easyphoto.store.templates import list_templates
from easyphoto.training.captions import captions_beside, settle_captions
from easyphoto.training.launch import LaunchOptions, find_begun, train
from easyphoto.training.prepared_files import read_prepared
from easyphoto.training.preprocess import PrepareOptions, prepare
from easyphoto.training.scenes import SceneOptions, prepare_scene
from easyphoto.training.slot import WorkerSlot
from easyphoto.work import LOCAL_OWNER

if TYPE_CHECKING:
    from easyphoto.engine.base import Engine
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
    """May raise Cancelled."""
    cancel: threading.Event = field(default_factory=threading.Event)
    gpu: Callable[[], AbstractContextManager[WorkerSlot | None]] = nullcontext
    """Held while the GPU is used; what needs none goes on without. Says at which place that is, where there are places."""
    show: Callable[[str, Pixels], None] | None = None
    """Shown each face of a portrait after every stage."""


@contextmanager
def waited_for(lock: threading.Lock, cancel: threading.Event) -> Iterator[None]:
    """Hold a lock, waiting for it as long as nobody asks to stop; raises Cancelled then."""
    while not lock.acquire(timeout=0.05):
        if cancel.is_set():
            raise Cancelled("stopped because you asked, while it waited for another job; nothing half-made was kept")
    try:
        yield
    finally:
        lock.release()


class Shared:
    """The heavy parts, made when they are first used: one set for all owners."""

    reads_tags = False
    """Whether the engine itself follows a prompt's tags for LoRAs of other makers."""
    keeps_workers = True
    """Whether a worker may stay at the GPU between two trainings: nobody but us uses it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._tools: FaceTools | None = None
        self._engine: StandaloneEngine | None = None
        self._in_training: dict[Path, threading.Lock] = {}

    def in_training(self, folder: Path) -> threading.Lock:
        """Held while the person of that folder is trained, from the first look at their photos until they are published."""
        with self._lock:
            return self._in_training.setdefault(folder, threading.Lock())

    @property
    def tools(self) -> FaceTools:
        """The face tools, models loaded on first use."""
        with self._lock:
            self._tools = self._tools or FaceTools()
            return self._tools

    @property
    def engine(self) -> Engine:
        """Who paints: the diffusers engine with the settings' base model, where no host does it."""
        from easyphoto.engine.models import load_models
        from easyphoto.engine.standalone import StandaloneEngine

        with self._lock:
            if self._engine is None:
                self._engine = StandaloneEngine(load_models(self._settings.base_model, self._settings.device))
            return self._engine

    def enlargers(self) -> tuple[str, ...]:
        """The upscalers of whoever paints, told without loading anything."""
        return tuple(find_upscalers(self._settings.base_model, self._settings.upscalers))

    def worker_python(self, _tell: Callable[[str], None]) -> Path | None:
        """The interpreter that trains; None for the one that runs now. A host's may have to be made first."""
        return None

    @contextmanager
    def training(self, watch: Watch, beside: bool = False) -> Iterator[Listener]:
        """Held while a worker process trains, with the listener to tell; the base model makes room for it.

        `beside`: it trains on another GPU than the engine's.
        """
        if not beside:
            self.free_engine()
        yield watch.listener

    @contextmanager
    def painting(self, _people: Sequence[Person], _passes: int, _watch: Watch) -> Iterator[Sequence[str]]:
        """Held while portraits of these people are painted; what is in the list in the end was done otherwise than asked."""
        yield ()

    def infotext(self, text: str, _people: Sequence[Person]) -> str:
        """A portrait's infotext, its LoRAs named as whoever reads it knows them."""
        return text

    def free_engine(self) -> None:
        """Let go of the base model, so that a training has the GPU's memory; it is loaded again when it is asked for."""
        with self._lock:
            if self._engine is None:
                return
            self._engine = None
        gc.collect()
        # Whoever built the engine has imported torch; nobody else shall.
        torch = sys.modules["torch"]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class App:
    """Everything a front end needs for one owner."""

    def __init__(self, settings: Settings, owner: str = LOCAL_OWNER, shared: Shared | None = None) -> None:
        self.settings = settings
        self.owner = owner
        self.home = owner_home(settings.home, owner)
        self.people = PeopleStore(self.home)
        self.shared = shared or Shared(settings)

    def for_owner(self, owner: str) -> App:
        """The same for somebody else: their own people, the same models."""
        return App(self.settings, owner, self.shared)

    @property
    def tools(self) -> FaceTools:
        """The face tools, models loaded on first use."""
        return self.shared.tools

    @property
    def engine(self) -> Engine:
        """Who paints."""
        return self.shared.engine

    def check(self, order: TrainOrder | CheckOrder, listener: Listener = ignore) -> PreparedSet:
        """Judge every photo without training; raises NoUsablePhoto, with the verdicts, if none can be used."""
        if isinstance(order, TrainOrder):
            check_name(order.spec.person)
        if (order.spec.kind if isinstance(order, TrainOrder) else order.kind) is not TrainKind.PERSON:
            return self._check_scene(order, listener)
        profile = PROFILES[order.spec.family if isinstance(order, TrainOrder) else detect_family(self.settings.base_model)]
        options = PrepareOptions(
            override=frozenset(order.take),
            retouch=order.retouch,
            size=profile.second_size,
            crop_ratio=profile.crop_ratio,
            templates=tuple(template.path for template in list_templates(self.settings.templates)),
            listener=listener,
        )
        return prepare(photo_files(order.photos), self.tools, options)

    def _check_scene(self, order: TrainOrder | CheckOrder, listener: Listener) -> PreparedSet:
        """Judge the pictures of a scene or a garment."""
        files = photo_files(order.photos)
        if isinstance(order, TrainOrder):
            spec, said = order.spec, order.captions or captions_beside(files)
        else:
            spec, said = spec_for(order.kind, detect_family(self.settings.base_model), "checked", self.settings.base_model), ()
        options = SceneOptions(
            kind=spec.kind, override=frozenset(order.take), size=spec.data.size, crop_ratio=spec.data.crop_ratio or 0.0,
            captions=settle_captions(spec, [path.name for path in files], said), listener=listener,
        )  # fmt: skip
        return prepare_scene(files, self.tools, options)

    def shelf(self, kind: TrainKind) -> PeopleStore:
        """Where what is learnt of a kind lies: people, scenes or clothes."""
        return PeopleStore(self.home.shelf(kind))

    def train(self, order: TrainOrder, watch: Watch | None = None, queued_as: str | None = None) -> Trained:
        """Check the photos, train in a worker process, publish the person in one step.

        A training that was begun for the same job of the queue (`queued_as`) goes on from its last checkpoint, or is
        published if it had come to its end.
        """
        watch = watch or Watch()
        check_name(order.spec.person)
        # A second training of the same person begins when the first has been published, and is refused then.
        shelf = self.home.shelf(order.spec.kind)
        with waited_for(self.shared.in_training(shelf.people / person_id(order.spec.person)), watch.cancel):
            return self._train(order, watch, queued_as)

    def _train(self, order: TrainOrder, watch: Watch, queued_as: str | None) -> Trained:
        store = self.shelf(order.spec.kind)
        begun = find_begun(store, order.spec.person, queued_as)
        if begun is None:
            self.refuse_known(order)
        prepared = self.check(order, watch.listener) if begun is None else read_prepared(begun.prepared)
        python = self.shared.worker_python(lambda line: watch.listener(Event(kind="log", message=line)))
        with watch.gpu() as slot, self.shared.training(watch, slot is not None and slot.number > 0) as listener:
            options = LaunchOptions(
                listener=listener, cancel=watch.cancel, resume=order.resume, templates=self.settings.templates,
                queued_as=queued_as, python=python, gpus=self.settings.gpus, slot=slot,
            )  # fmt: skip
            result = train(order.spec, prepared, store, options)
        person = self._publish(order, prepared, result)
        self._copy_out(person, watch.listener)
        return Trained(person=person, prepared=prepared, result=result)

    def _copy_out(self, person: Person, listener: Listener) -> None:
        """Put the LoRA where other programs look for theirs, if somebody named a folder; a person is not lost over it."""
        if self.settings.lora_folder is None:
            return
        try:
            LoraShelf(self.settings.lora_folder).put(person.lora, person.family)
        except (OSError, LoraError, StorageError) as error:
            listener(Event(kind="log", message=f"the LoRA could not be copied to {self.settings.lora_folder} ({error})"))

    def refuse_known(self, order: TrainOrder) -> None:
        """A trained person is not overwritten by a slip of the pen; raises Conflict."""
        identity = person_id(order.spec.person)
        known = self.shelf(order.spec.kind).list()
        if not order.replace and any(person.person_id == identity for person in known):
            raise Conflict(f"{order.spec.person} was trained already; say --replace to train again, or choose another name")

    def _publish(self, order: TrainOrder, prepared: PreparedSet, result: TrainResult) -> Person:
        """Publish, unless this very result was published before somebody was killed."""
        with suppress(NotFound, OSError):
            person = self.shelf(order.spec.kind).get(order.spec.person)
            if filecmp.cmp(person.lora, result.lora, shallow=False):
                return person
        return self.shelf(order.spec.kind).publish(order.spec, prepared, result, order.consent)

    def portraits(self, request: PortraitRequest, watch: Watch | None = None) -> tuple[PortraitResult, ...]:
        """Put the request's people into its template; one result for each of `request.count`.

        A prompt may name scenes as the WebUI's prompts name LoRAs; raises NotFound for one that is not there.
        """
        from easyphoto.portrait.pipeline import run
        from easyphoto.portrait.progress import show_nobody

        watch = watch or Watch()
        request = self._with_named_loras(request)
        with watch.gpu():
            return run(request, self.engine, self.tools, watch.listener, watch.show or show_nobody)

    def _with_named_loras(self, request: PortraitRequest) -> PortraitRequest:
        """The request with what its prompt names: scenes and clothes of ours, and files where no host looks for them itself."""
        shelves = (self.shelf(TrainKind.SCENE), self.shelf(TrainKind.CLOTH))
        prompt, uses = take_out(request.prompt, shelves, self.settings.lora_folder, self.shared.reads_tags)
        if request.lcm:
            fast = lcm_lora(self.engine.family, self.settings.lora_folder)
            if self.shared.reads_tags:  # it lies where the host reads it from; a copy of ours would only take space
                prompt = ", ".join(filter(None, (prompt, f"<lora:{fast.path.stem}:{fast.weight:g}>")))
            else:
                uses = (*uses, fast)
        for use in uses:
            check_lora(read_lora(use.path), family=self.engine.family)
        return replace(request, prompt=prompt, loras=(*request.loras, *uses))


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
