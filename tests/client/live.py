"""The project's own server as a child process, and a tiny trained person in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from easyphoto.client import Client, Retry
from easyphoto.settings import PROJECT_ROOT
from tests.tiny import make_tiny_base

_ADDRESS = re.compile(r"(http://\S+)")
_TOKEN = re.compile(r"this once: (\S+)\)")


@dataclass
class Live:
    """A running server."""

    home: Path
    base: Path
    url: str = ""
    token: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def env(self) -> dict[str, str]:
        """Environment of a script that talks to it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EASYPHOTO_")}
        return {**kept, "EASYPHOTO_URL": self.url, "EASYPHOTO_TOKEN": self.token, "PYTHONIOENCODING": "utf-8"}

    def client(self) -> Client:
        """A client that has patience with a busy machine."""
        return Client(self.url, self.token, retry=Retry(tries=10))

    def start(self, port: int = 0) -> None:
        """Start it; the token is shown at the first start only."""
        command = [sys.executable, "-m", "easyphoto", "serve", "--no-tabs", "--home", str(self.home)]
        self.process = subprocess.Popen(
            [*command, "--base-model", str(self.base), "--port", str(port)],
            cwd=PROJECT_ROOT, env=self.env(), stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = _ADDRESS.search(line)
        assert found, f"the server said {line!r}"
        self.url = found[1]
        if token := _TOKEN.search(line):
            self.token = token[1]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, softly or not."""
        if self.process is None:
            return
        self.process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None


@contextmanager
def live_server(folder: Path) -> Iterator[Live]:
    """A server on a fresh home and a tiny base model, gone afterwards."""
    for needed in ("fastapi", "uvicorn", "torch", "diffusers"):
        pytest.importorskip(needed)
    live = Live(home=folder / "home", base=make_tiny_base(folder / "base"))
    live.start()
    try:
        yield live
    finally:
        live.stop()
