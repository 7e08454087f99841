"""Does the server stay quick while many look on and one person is trained?

    python benchmarks/load.py                    200 clients for 10 minutes
    python benchmarks/load.py --seconds 30       the same, shorter

`easyphoto serve` runs as a process of its own over a fresh home, with a token and its worker; this process is the clients. Each
polls the status of the training every second over a connection of its own, and every second client holds a stream of its
events besides. Handing in is timed by a third process, on photo checks that wait behind full places and are cancelled; the
queue on drills of no length. Exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.demo import PERSON, SAMPLES
from easyphoto.imaging.io import encode_png
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.orders import DrillOrder
from easyphoto.settings import PROJECT_ROOT

MOST_P99_MS, MOST_OVERHEAD_MS, MOST_GROWTH_MB = 20.0, 5.0, 5.0
"""The targets: status route, queue and API for each job, server's memory over the run."""
_HANDED_IN, _DRILLS = 300, 1000
_PATIENCE = 120


@dataclass(kw_only=True)
class Figures:
    """What was measured."""

    status_ms: list[float] = field(default_factory=list)
    refused: int = 0
    events: int = 0
    memory_mb: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the beginning, resident memory of the server)."""
    late_ms: list[float] = field(default_factory=list)
    """How late this process itself woke up: what the clients add to every time measured here."""
    busy_ms: float = 0.0
    waited_ms: float = 0.0
    """Of each second: how long the server's main thread computed, and how long it waited for a processor (Linux)."""
    sync_ms: float = 0.0
    """One small write flushed to this disk."""
    hand_in_ms: list[float] = field(default_factory=list)
    submit_ms: list[float] = field(default_factory=list)
    drill_ms: float = 0.0
    drill_alone_ms: float = 0.0


class Connection:
    """One keep-alive connection that asks one thing at a time."""

    def __init__(self, place: tuple[str, int], token: str) -> None:
        self._place = place
        self._token = token
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, bytes]:
        """(status, body) of the answer."""
        reader = await self.send(method, path, body, kind)
        status, headers = await self.head()
        return status, await reader.readexactly(int(headers.get(b"content-length", b"0")))

    async def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> asyncio.StreamReader:
        """Send a request; the answer comes by the reader."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._place)
        host, port = self._place
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", f"Authorization: Bearer {self._token}"]
        if body:
            lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self._writer.drain()
        return self._reader

    async def head(self) -> tuple[int, dict[bytes, bytes]]:
        """Status and headers of the answer that comes."""
        assert self._reader is not None
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        pairs = (line.partition(b":") for line in lines if line)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()


class Run:
    """One server, many clients."""

    def __init__(self, address: str, token: str, process: psutil.Process, home: Path) -> None:
        parts = urlsplit(address)
        self._place = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.prefix = parts.path
        self._token = token
        self._process = process
        self._home = home
        self.figures = Figures()

    def connection(self) -> Connection:
        """A connection of its own."""
        return Connection(self._place, self._token)

    async def train(self) -> str:
        """Hand a training in that outlasts the run, and wait until it goes; its id."""
        photos = [
            {"name": path.name, "data": base64.b64encode(path.read_bytes()).decode()}
            for path in sorted((SAMPLES / PERSON).glob("*.jpg"))
        ]
        endless = {"optim": {"max_steps": 100_000, "steps_per_photo": 10_000}, "validate": {"every": 0}}
        body = json.dumps({"name": "Anna", "photos": photos, "settings": endless}).encode()
        asking = self.connection()
        job = _taken(await asking.ask("POST", f"{self.prefix}/people", body))["id"]
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            _, answer = await asking.ask("GET", f"{self.prefix}/jobs/{job}")
            if json.loads(answer)["progress"]["stage"] == "training":
                break
            await asyncio.sleep(0.5)
        else:
            raise SystemExit(f"the training did not begin within {_PATIENCE} s: {answer.decode()}")
        asking.close()
        return str(job)

    async def poll(self, job: str, delay: float, every: float) -> None:
        """Ask for the status for ever, each time `every` seconds after the last was due."""
        asking, due = self.connection(), time.perf_counter() + delay
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            self.figures.late_ms.append((began - due) * 1000)
            status, _ = await asking.ask("GET", f"{self.prefix}/jobs/{job}")
            self.figures.status_ms.append((time.perf_counter() - began) * 1000)
            self.figures.refused += status != 200
            due = max(due + every, began)

    async def follow(self, job: str, delay: float) -> None:
        """Read the job's events for ever."""
        await asyncio.sleep(delay)
        asking = self.connection()
        reader = await asking.send("GET", f"{self.prefix}/jobs/{job}/events")
        status, _ = await asking.head()
        self.figures.refused += status != 200
        while line := await reader.readline():
            self.figures.events += line.startswith(b"event:")

    async def watch_memory(self) -> None:
        """Look at the server's memory every second, for ever."""
        began, scheduled = time.monotonic(), _scheduled(self._process.pid)
        while True:
            await asyncio.sleep(1)
            resident, seconds = self._process.memory_info().rss / 2**20, time.monotonic() - began
            self.figures.memory_mb.append((seconds, resident))
            now = _scheduled(self._process.pid)
            self.figures.busy_ms, self.figures.waited_ms = ((now[part] - scheduled[part]) / seconds for part in (0, 1))

    async def hand_in(self) -> None:
        """Time checks as they are taken; a long drill holds the place that they wait for, and none is begun."""
        store = JobStore(self._home)
        blocker = store.submit(NewJob(order=DrillOrder(steps=10_000, seconds=0.1, needs_gpu=False), priority=10))
        while not store.get(blocker.id).attempt:
            await asyncio.sleep(0.05)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as another:
            timing = asyncio.get_running_loop().run_in_executor(another, _hand_in, self._place, self.prefix, self._token)
            self.figures.hand_in_ms = await timing
        store.cancel(blocker.id)
        while not store.get(blocker.id).state.ended:
            await asyncio.sleep(0.05)
        store.close()

    def drill(self, submit_ms: list[float]) -> float:
        """Milliseconds for each of many drills of no length, from the first one handed in to the last one done."""
        store = JobStore(self._home)
        since = max((job.version for job in store.changes(0)), default=0)
        began, waiting = time.perf_counter(), set()
        for _ in range(_DRILLS):
            at = time.perf_counter()
            waiting.add(store.submit(NewJob(order=DrillOrder(steps=0, needs_gpu=False))).id)
            submit_ms.append((time.perf_counter() - at) * 1000)
        while waiting:
            for job in store.changes(since):
                since = max(since, job.version)
                if job.state.ended:
                    waiting.discard(job.id)
            time.sleep(0.01)
        store.close()
        return (time.perf_counter() - began) * 1000 / _DRILLS


def _hand_in(place: tuple[str, int], prefix: str, token: str) -> list[float]:
    """Milliseconds of each of many checks until it is taken; by a process of its own, for the clients keep theirs busy."""
    picture = {"name": "a.png", "data": base64.b64encode(encode_png(np.zeros((64, 64, 3), np.uint8))).decode()}
    body = json.dumps({"photos": [picture]}).encode()
    took = []
    with socket.create_connection(place) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_HANDED_IN):
            handing = _request("POST", f"{prefix}/checks", token, body)
            began = time.perf_counter()
            answer = _asked(line, handing)
            took.append((time.perf_counter() - began) * 1000)
            _asked(line, _request("DELETE", f"{prefix}/jobs/{_taken(answer)['id']}", token))
            time.sleep(0.02)
    return took


def _request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """Bytes made beforehand: a client's own reading and writing is no work of the server's."""
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n{kind}\r\n".encode() + body


def _asked(line: socket.socket, request: bytes) -> tuple[int, bytes]:
    """(status, body) of the answer."""
    line.sendall(request)
    come = b""
    while b"\r\n\r\n" not in come:
        come += _more(line)
    head, _, body = come.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += _more(line)
    return int(head.split()[1]), body


def _more(line: socket.socket) -> bytes:
    piece = line.recv(65536)
    if not piece:
        raise SystemExit("the server hung up")
    return piece


def _scheduled(process: int) -> tuple[float, float]:
    """Milliseconds that a process's main thread has computed, and has waited for a processor; zeros where nobody counts."""
    try:
        computed, waited, _ = Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split()
    except OSError:
        return 0.0, 0.0
    return int(computed) / 1e6, int(waited) / 1e6


def _sync(folder: Path) -> float:
    """Milliseconds of one small write that is flushed to the disk, the median of many."""
    taken = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(b"x" * 100)
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def _taken(answer: tuple[int, bytes]) -> dict[str, Any]:
    status, body = answer
    if status != 202:
        raise SystemExit(f"the server answered {status}: {body.decode(errors='replace')}")
    taken: dict[str, Any] = json.loads(body)
    return taken


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[Run]:
    """A server over `home`, ended afterwards."""
    command = [sys.executable, "-m", "easyphoto", "serve", "--home", str(home), "--port", "0", "--reads-per-second", "0",
               "--jobs-per-second", "0"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if not said:
            raise SystemExit("the server did not start")
        address, token = said.split()[1], said.rstrip(")").rsplit(" ", 1)[1]
        try:
            yield Run(address, token, psutil.Process(process.pid), home)
        finally:
            process.terminate()
            process.wait(_PATIENCE)


async def measure(home: Path, seconds: float, clients: int, every: float) -> Figures:
    """The whole run; see the module's text."""
    async with serving(home) as run:
        await asyncio.sleep(3)  # the worker starts beside the server
        run.figures.drill_alone_ms = await asyncio.to_thread(run.drill, [])
        job = await run.train()
        print(f"training; {clients} clients come", flush=True)
        tasks = [asyncio.create_task(run.watch_memory())]
        for number in range(clients):
            delay = number * every / clients
            tasks.append(asyncio.create_task(run.poll(job, delay, every)))
            if number % 2:
                tasks.append(asyncio.create_task(run.follow(job, delay)))
        began = time.monotonic()
        await asyncio.sleep(seconds / 3)
        await run.hand_in()
        run.figures.sync_ms = await asyncio.to_thread(_sync, home)
        run.figures.drill_ms = await asyncio.to_thread(run.drill, run.figures.submit_ms)
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception():
                raise SystemExit(f"a client was cut off: {task.exception()!r}")
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        await run.connection().ask("DELETE", f"{run.prefix}/jobs/{job}")
        return run.figures


def show(figures: Figures) -> bool:
    """Print the figures; whether all targets are met."""
    p50, p95, p99 = (_percentile(figures.status_ms, share) for share in (0.5, 0.95, 0.99))
    print(f"status route: {len(figures.status_ms):,} asked, {figures.refused} refused, {figures.events:,} events streamed")
    print(f"  p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, longest {max(figures.status_ms):.1f} ms")
    print(f"  of each second the server computed {figures.busy_ms:.0f} ms, and waited {figures.waited_ms:.0f} ms for a core")
    print(f"  the clients themselves woke up {_percentile(figures.late_ms, 0.99):.1f} ms late at p99")
    handed, submitted = statistics.median(figures.hand_in_ms), statistics.median(figures.submit_ms)
    overhead = handed - submitted + figures.drill_ms
    print(f"handing in by POST: p50 {handed:.1f} ms, p99 {_percentile(figures.hand_in_ms, 0.99):.1f} ms")
    print(f"queue: {figures.drill_ms:.2f} ms a drill under load, of it {submitted:.2f} ms handing in; "
          f"{figures.drill_alone_ms:.2f} ms alone; one flush to this disk takes {figures.sync_ms:.2f} ms")  # fmt: skip
    print(f"queue and API together: {overhead:.1f} ms a job")
    start, end, growth = _memory(figures.memory_mb)
    most_mb = max(mb for _, mb in figures.memory_mb)
    print(f"server's memory: {start:.0f} MB at first, {end:.0f} MB at last, {most_mb:.0f} MB at most")
    verdicts = (
        ("p99 of the status route", p99, MOST_P99_MS, "ms"), ("overhead a job", overhead, MOST_OVERHEAD_MS, "ms"),
        ("growth of the memory", growth, MOST_GROWTH_MB, "MB"), ("refused requests", figures.refused, 0, ""),
    )  # fmt: skip
    for name, value, most, unit in verdicts:
        print(f"{'met   ' if value <= most else 'MISSED'} {name}: {value:.1f} {unit} (at most {most:g})")
    return all(value <= most for _, value, most, _ in verdicts)


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _memory(samples: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """(first, last, growth) in MB: medians of the second and of the last tenth; in the first one the clients come."""
    tenth = max(1, len(samples) // 10)
    middle: Callable[[Sequence[tuple[float, float]]], float] = lambda part: statistics.median(mb for _, mb in part)  # noqa: E731
    first, last = middle(samples[tenth : 2 * tenth] or samples), middle(samples[-tenth:])
    return first, last, last - first


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two questions of a client")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="easyphoto-load-") as folder:
        figures = asyncio.run(measure(Path(folder), chosen.seconds, chosen.clients, chosen.every))
    return 0 if show(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
