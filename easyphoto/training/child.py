"""A worker process as its parent has it: started, listened to, given the next job if it stays, and ended. No torch."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO

from easyphoto.errors import ToolMissing
from easyphoto.events import Event, parse
from easyphoto.files import write_text
from easyphoto.training.job import JobFolder

PATIENCE = 20.0
"""Seconds that a worker gets to stop by itself, and one that stayed to answer to its next job."""
_LOOK = 0.1


class Child:
    """One worker process; a worker that stays waits for its next job after each that ended well."""

    def __init__(self, command: list[str], job: JobFolder, environment: Mapping[str, str], stays: bool) -> None:
        """Start it on its first job.

        Raises:
            ToolMissing: The interpreter cannot be run.
        """
        # A group of its own, so that Ctrl-C at the terminal reaches us alone and we stop the worker in order.
        group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        try:
            with job.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=job.root, env=environment,
                    start_new_session=os.name != "nt", creationflags=group,
                )  # fmt: skip
        except OSError as error:
            raise ToolMissing(f"{command[0]} cannot start the worker ({error.strerror}); choose another Python") from error
        self._stays = stays
        self._heard: list[Event] = []
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self.idle = False
        """It has ended a job well and waits for the next."""
        threading.Thread(target=_pump, args=(self._process.stdout, self._lines), daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def hand(self, job: JobFolder) -> bool:
        """Give it its next job; whether it has answered. One that has not is gone afterwards."""
        self.idle = False
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.write(json.dumps(str(job.root)).encode("ascii") + b"\n")
                self._process.stdin.flush()
        ends = time.monotonic() + PATIENCE
        with contextlib.suppress(queue.Empty):
            while (line := self._lines.get(timeout=max(0.0, ends - time.monotonic()))) is not None:
                if (event := _event(line)) is not None:
                    self._heard.append(event)
                    return True
        self.kill()
        return False

    def events(self, job: JobFolder, cancel: threading.Event) -> Iterator[Event]:
        """Its events as they come, until it ends or waits again; it is asked to stop once `cancel` is set."""
        asked_at: float | None = None
        while True:
            if cancel.is_set() and asked_at is None:
                asked_at = time.monotonic()
                write_text(job.cancel, "cancel\n")
            if asked_at is not None and time.monotonic() - asked_at > PATIENCE:
                return
            try:
                event = self._next()
            except queue.Empty:
                continue
            if event is None:
                return
            self.idle = self._stays and event.kind == "done"
            yield event
            if self.idle:
                return

    def _next(self) -> Event | None:
        """The next event; None once there will be no more. Raises queue.Empty if there is none yet."""
        if self._heard:
            return self._heard.pop()
        while (line := self._lines.get(timeout=_LOOK)) is not None:
            if (event := _event(line)) is not None:
                return event
        return None

    def end(self) -> int:
        """See it end: it is asked to, and made to after a while. Returns its exit status, 0 of one whose job is whole."""
        # Closing its standard input tells the worker that nobody waits any more. Also an idle one is let end in order: what the
        # GPU's libraries and driver keep on the disk is theirs to finish.
        with contextlib.suppress(OSError):
            self._process.stdin.close() if self._process.stdin else None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self.kill()
        return 0 if self.idle else self._process.returncode

    def kill(self) -> None:
        """End it at once; nothing happens to one that has ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close() if pipe else None


def _event(line: bytes) -> Event | None:
    return parse(line.decode("utf-8", "replace"))


def _pump(stream: IO[bytes] | None, lines: queue.Queue[bytes | None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream or ():
            lines.put(line)
    lines.put(None)
