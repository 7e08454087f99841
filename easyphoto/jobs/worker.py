"""The worker process: `python -m easyphoto.jobs.worker --home HOME [--watch-parent] [--wait]`.

It runs the jobs of one home, and is the only one that does. Killed at any moment, the next one goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from easyphoto.errors import Conflict, EasyPhotoError
from easyphoto.jobs.retention import Rule, keep_sweeping
from easyphoto.jobs.runner import Runner, runner_lock
from easyphoto.jobs.store import JobStore
from easyphoto.settings import Settings, calm_threads

logger = logging.getLogger(__name__)

_NICENESS = 10
_LOCK_PAUSE = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Run jobs until a signal, or until the parent is gone; returns the exit status of the error tree."""
    calm_threads()
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = replace(Settings.from_env(), home=parsed.home.absolute())
    stop = threading.Event()
    _listen_for_the_end(stop, parsed.watch_parent)
    if hasattr(os, "nice"):
        # A server beside us shall stay quick.
        os.nice(_NICENESS)
    try:
        with _lock(settings.home, stop if parsed.wait else None):
            if not stop.is_set():
                _serve(settings, stop)
    except EasyPhotoError as error:
        logger.error("%s", error)  # noqa: TRY400 (the sentence says it all)
        return error.exit_status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m easyphoto.jobs.worker", description="Runs the queued jobs of one home.")
    parser.add_argument("--home", type=Path, required=True, help="the home whose jobs are run")
    parser.add_argument("--watch-parent", action="store_true", help="stop when standard input is closed")
    parser.add_argument("--wait", action="store_true", help="wait while another process runs the jobs of this home")
    return parser


def _serve(settings: Settings, stop: threading.Event) -> None:
    store = JobStore(settings.home)
    try:
        sweeping = (store, Rule.from_env(), stop)
        threading.Thread(target=keep_sweeping, args=sweeping, name="sweeper", daemon=True).start()
        logger.info("running the jobs of %s", settings.home)
        Runner(settings, store).run(stop)
    finally:
        store.close()


@contextlib.contextmanager
def _lock(home: Path, waiting: threading.Event | None) -> Iterator[None]:
    """The runner's lock; with `waiting`, whenever it is free, or not at all once that is set."""
    held = contextlib.ExitStack()
    with held:
        while True:
            try:
                held.enter_context(runner_lock(home))
                break
            except Conflict:
                if waiting is None:
                    raise
            if waiting.is_set():
                break
            time.sleep(_LOCK_PAUSE)
        yield


def _listen_for_the_end(stop: threading.Event, watch_parent: bool) -> None:
    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    if watch_parent:
        threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()


def _watch_parent(stop: threading.Event) -> None:
    """The parent holds the other end of our standard input: when it is gone, for whatever reason, reading ends."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
