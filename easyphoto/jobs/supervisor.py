"""Keeps one worker process alive as long as a server lives: starts it, starts it again when it dies, stops it in order."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from easyphoto.errors import EasyPhotoError, ToolMissing
from easyphoto.files import storage_error
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.store.paths import make_folder

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
"""Seconds before a dead worker is started again; doubled each time it dies young, up to the longest."""
_YOUNG = 10.0
"""A worker that lived longer died of something new."""
_PATIENCE = 30.0
"""Seconds a worker gets to stop in order."""
_LARGEST_LOG = 1_000_000
"""Bytes of worker.log before it is moved to worker.log.1."""
_LOOK = 0.1


class Supervisor:
    """One worker process for one home, restarted whenever it dies; a second supervisor's worker waits for the first's."""

    def __init__(self, settings: Settings, longest_pause: float = _LONGEST_PAUSE) -> None:
        self._settings = settings
        self._longest_pause = longest_pause
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the worker said on its standard output and error."""
        return self._settings.home / "queue" / "worker.log"

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the worker; returns at once."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the worker in order: its jobs wait again, and go on when it is started next."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._live()
            except EasyPhotoError as error:
                logger.warning("the worker cannot be started: %s", error)
            if self._stop.is_set():
                return
            pause = _FIRST_PAUSE if time.monotonic() - began > _YOUNG else min(2 * pause, self._longest_pause)
            self._stop.wait(pause)

    def _live(self) -> None:
        """One worker's life."""
        process = self._process = self._start()
        while process.poll() is None and not self._stop.wait(_LOOK):
            self._trim_log()
        if process.poll() is None:
            _end(process)
        else:
            logger.warning("the worker ended with status %s; it is started again; see %s", process.returncode, self.log)
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _start(self) -> subprocess.Popen[bytes]:
        home = self._settings.home
        command = [sys.executable, "-m", "easyphoto.jobs.worker", "--home", str(home), "--watch-parent", "--wait"]
        # A group of its own, so that Ctrl-C at the terminal reaches the server alone, which stops the worker in order.
        group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        make_folder(self.log.parent)
        try:
            log = self.log.open("ab")
        except OSError as error:
            raise storage_error(self.log, error) from error
        with log:
            try:
                return subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=home, env=self._environment(),
                    start_new_session=os.name != "nt", creationflags=group,
                )  # fmt: skip
            except OSError as error:
                raise ToolMissing(f"{command[0]} cannot start the worker ({error.strerror}); choose another Python") from error

    def _environment(self) -> dict[str, str]:
        paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {
            "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8",
            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
            "EASYPHOTO_BASE_MODEL": str(self._settings.base_model), "EASYPHOTO_TEMPLATES": str(self._settings.templates),
            "EASYPHOTO_DEVICE": self._settings.device, "EASYPHOTO_GPUS": str(self._settings.gpus),
            "EASYPHOTO_AT_ONCE": str(self._settings.at_once),
        }  # fmt: skip
        if self._settings.lora_folder is not None:
            own["EASYPHOTO_LORA_DIR"] = str(self._settings.lora_folder)
        if self._settings.controlnets is not None:
            own["EASYPHOTO_CONTROLNET_DIR"] = str(self._settings.controlnets)
        return {**os.environ, **own}

    def _trim_log(self) -> None:
        """Move a log that has grown too long aside; the worker goes on at its beginning, for it appends."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > _LARGEST_LOG:
                shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
                os.truncate(self.log, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Closing its standard input tells the worker to stop in order; one that does not is killed."""
    with contextlib.suppress(OSError):
        process.stdin.close() if process.stdin else None
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
