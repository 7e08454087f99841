"""Our half of a WebUI's process: one set of models, one queue, one thread that runs its jobs; made once, however often the
WebUI reloads its pages and runs its scripts anew.

Portraits are painted by the host, trainings run in a process of their own while the host's checkpoint makes room. Whatever of
the host's or ours wants the GPU stands in the host's own line for it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from easyphoto.app import App, Shared, Watch
from easyphoto.engine import webui_versions as versions
from easyphoto.engine.webui_models import HostModel, HostModels
from easyphoto.engine.webui_queue import Waiting
from easyphoto.errors import Conflict, EasyPhotoError
from easyphoto.events import Event, Listener
from easyphoto.jobs.host_settings import marking_of, rule_of, settings_of
from easyphoto.jobs.retention import keep_sweeping
from easyphoto.jobs.runner import Runner, runner_lock
from easyphoto.jobs.store import JobStore
from easyphoto.jobs.turns import WAITING
from easyphoto.marking import MarkingSettings
from easyphoto.settings import Settings
from easyphoto.specs import Person
from easyphoto.training.worker_env import worker_python

if TYPE_CHECKING:
    from easyphoto.engine.base import Engine
    from easyphoto.engine.webui import WebuiEngine

logger = logging.getLogger(__name__)

PORTRAIT, TRAINING = "easyphoto: portraits", "easyphoto: training"
"""What the host's progress bar says."""
_PATIENCE = 20.0
"""Seconds that running jobs get to stop in order when the host ends."""
_LOCK_PAUSE, _PAUSE = 1.0, 5.0
"""Seconds between two tries to become the home's runner, and before a runner that broke is started again."""


class HostShared(Shared):
    """What all owners share inside a host: its engine instead of one of ours."""

    reads_tags = True
    keeps_workers = False
    """Whoever sits at the WebUI may want the GPU at any moment, and does not ask us."""

    def __init__(self, settings: Settings, engine: WebuiEngine, models: HostModels) -> None:
        super().__init__(settings)
        self._host_engine = engine
        self._models = models

    @property
    def engine(self) -> Engine:
        """The host's own."""
        return self._host_engine

    def enlargers(self) -> tuple[str, ...]:
        """The host's own."""
        return self._host_engine.enlargers

    def worker_python(self, tell: Callable[[str], None]) -> Path | None:
        """The training's environment, made where it is missing."""
        return worker_python(self._settings.home, tell)

    @contextmanager
    def training(self, watch: Watch, beside: bool = False) -> Iterator[Listener]:  # noqa: ARG002 (there is one line)
        """Hold the host's line with its checkpoint off the GPU; its Interrupt stops the training, which can be resumed."""
        host = self._host_engine.host

        def listen(event: Event) -> None:
            if event.kind == "progress":
                versions.show_progress(host, event.step, event.total)
            if buttons.pressed():
                watch.cancel.set()
            watch.listener(event)

        with self._host_engine.lent(TRAINING, self._waiting(watch)):
            buttons = versions.InterruptWatch(host)
            yield listen

    @contextmanager
    def painting(self, people: Sequence[Person], passes: int, watch: Watch) -> Iterator[Sequence[str]]:
        """Hold the host's line, with the checkpoint that the people want; the engine's warnings are seen while it is held."""
        engine = self._host_engine
        engine.checkpoint = self._models.fitting({person.family for person in people})
        with engine.session(PORTRAIT, passes, self._waiting(watch)):
            if engine.checkpoint:
                engine.warnings.append(f"painted with {engine.name}: the training fits no other kind of checkpoint")
            yield engine.warnings

    def infotext(self, text: str, people: Sequence[Person]) -> str:
        """With the names of our copies in the host's LoRA folder, so that its other tabs can paint the same people."""
        for person in people:
            copy = self._host_engine.shelf.put(person.lora, person.family)
            text = text.replace(f"<lora:{person.lora.stem}:", f"<lora:{copy.stem}:")
        return text

    def _waiting(self, watch: Watch) -> Waiting:
        def say() -> None:
            watch.listener(Event(kind="log", message="waiting until the WebUI has finished what it is doing"))
            watch.listener(Event(kind="progress", stage=WAITING))

        return Waiting(cancelled=watch.cancel.is_set, say=say)


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """Everything of ours in the host's process."""

    app: App
    store: JobStore
    models: HostModels
    runner: RunnerThread
    options: Any
    """The host's settings, `shared.opts`."""

    @property
    def settings(self) -> Settings:
        """As they were when the host started."""
        return self.app.settings

    def base_models(self) -> tuple[HostModel, ...]:
        """What people can be trained on, the host's chosen checkpoint first where it is one of ours."""
        return self.models.list()


class RunnerThread:
    """Runs the jobs of one home in this process, as long as no other process does it."""

    def __init__(self, app: App, store: JobStore, options: Any) -> None:  # noqa: ANN401 (the host's own class)
        self._app, self._store, self._options = app, store, options
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Somebody runs the jobs, or waits to do so."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin; returns at once, and does nothing the second time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="easyphoto-jobs", daemon=True)
            self._thread.start()
            threading.Thread(target=self._sweep, name="easyphoto-sweeper", daemon=True).start()

    def stop(self, patience: float = _PATIENCE) -> None:
        """Stop what runs in order: it waits again and goes on at the host's next start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(patience)

    def _sweep(self) -> None:
        try:
            keep_sweeping(self._store, rule_of(self._options.data), self._stop)
        except EasyPhotoError as error:
            logger.warning("nothing that is too old is removed: %s", error)

    def _live(self) -> None:
        while not self._stop.is_set():
            pause = _PAUSE
            try:
                with runner_lock(self._app.settings.home):
                    Runner(self._app.settings, self._store, app=self._app, marking=self._marking).run(self._stop)
            except Conflict:
                pause = _LOCK_PAUSE  # another process of ours runs them, a server or a second WebUI
            except Exception:
                # The thread's border: whatever it was, the jobs of the host must go on being run.
                logger.exception("the jobs stopped being run; it is tried again")
            self._stop.wait(pause)

    def _marking(self) -> MarkingSettings:
        return marking_of(self._options.data)


_made: list[Room] = []
_making = threading.RLock()


def room(engine: Callable[[], WebuiEngine]) -> Room:
    """Our room in this process; the first call makes it, and begins to run jobs.

    Args:
        engine: Makes the engine; called once.

    Raises:
        StorageError: The home cannot be written.
    """
    with _making:
        if not _made:
            _made.append(make_room(engine()))
            _made[0].runner.start()
            atexit.register(leave)
        return _made[0]


def prepare(sd_models: ModuleType) -> None:
    """Let the host know the embedded model if it lies among its checkpoints, before it loads one.

    Args:
        sd_models: The host's module of that name.
    """
    with contextlib.suppress(EasyPhotoError, ImportError):  # where it fails, painting says why
        HostModels(sd_models, Settings.from_env().base_model).prepare()


def leave() -> None:
    """Let go of everything, as when the host ends."""
    with _making:
        for made in _made:
            made.runner.stop()
            made.store.close()
        _made.clear()
    atexit.unregister(leave)


def make_room(engine: WebuiEngine) -> Room:
    """A room around an engine, its runner not started yet."""
    host = engine.host
    settings = settings_of(host.shared.opts.data, getattr(host.shared.cmd_opts, "lora_dir", None))
    models = HostModels(host.sd_models, settings.base_model)
    app = App(settings, shared=HostShared(settings, engine, models))
    store = JobStore(settings.home)
    runner = RunnerThread(app, store, host.shared.opts)
    return Room(app=app, store=store, models=models, runner=runner, options=host.shared.opts)
