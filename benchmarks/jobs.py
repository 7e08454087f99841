"""Does the queue lose a job, or run one twice to its end, when its processes are killed at random moments?

    python benchmarks/jobs.py                      10,000 stand-in jobs, 200 kills (SIGKILL) of the worker and of the server
    python benchmarks/jobs.py --real 50            50 real jobs on the embedded base model, killed the same way
    python benchmarks/jobs.py --jobs 500 --kills 10

The server process here is what any server is to the queue: it hands jobs in and supervises the worker. What it was told was
taken is written down outside of the queue, and what came to its end is watched from outside as well: every drill that ends
adds a line to a file of its own, and the folder of a result, once seen, must stay the very same (its inode).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.families import Family
from easyphoto.imaging.io import photo_files
from easyphoto.jobs.handlers import DRILLS
from easyphoto.jobs.store import Input, JobStore, NewJob, input_name
from easyphoto.jobs.supervisor import Supervisor
from easyphoto.orders import DrillOrder, Order, PortraitOrder, TrainOrder
from easyphoto.settings import PROJECT_ROOT, Settings, calm_threads
from easyphoto.specs import PassRequest, TrainSpec
from easyphoto.store.locks import holder
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
from easyphoto.work import JobState

ACCEPTED, QUOTA = "accepted.txt", "quota.txt"
"""Beside the home: what was taken, a line each; up to which number jobs may be handed in by now."""


@dataclass(kw_only=True)
class Watcher:
    """What was seen from outside."""

    home: Path
    results: dict[str, int] = field(default_factory=dict)
    """Inode of each result's folder when it was first seen."""
    changed: int = 0
    """Results that another one took the place of, or that went."""

    def look(self) -> None:
        """Compare what is there with what was there."""
        with os.scandir(self.home / "results") as entries:
            now = {entry.name: entry.inode() for entry in entries if not entry.name.startswith(".")}
        self.changed += sum(now.get(name) != inode for name, inode in self.results.items())
        self.results.update(now)


def serve(home: Path, jobs: int, real: bool) -> None:
    """The process that is killed: hands jobs in as far as it may, and keeps a worker alive."""
    settings = replace(Settings.from_env(), home=home)
    supervisor = Supervisor(settings, longest_pause=0.2)
    supervisor.start()
    store = JobStore(home)
    with (home.parent / ACCEPTED).open("a+", encoding="ascii") as accepted:
        accepted.seek(0)
        # A line may be torn, and the last one may be lost: the key makes the second request the same job.
        taken = sum(line.count(" ") == 1 and line.endswith("\n") for line in accepted)
        for number in range(taken, jobs):
            while number >= _quota(home):
                time.sleep(0.01)
            order, inputs = real_order(number, settings) if real else (DrillOrder(seconds=0.002), ())
            job = store.submit(NewJob(order=order, idempotency_key=f"job-{number}"), inputs)
            os.write(accepted.fileno(), f"{number} {job.id}\n".encode("ascii"))
    while True:
        time.sleep(1)


def _quota(home: Path) -> int:
    with suppress(OSError, ValueError):
        return int((home.parent / QUOTA).read_text(encoding="ascii"))
    return 0


def real_order(number: int, settings: Settings) -> tuple[Order, tuple[Input, ...]]:
    """Every fifth one a short training of a new person, else a portrait of a person who is there."""
    if number % 5:
        templates = sorted(settings.templates.glob("*.jpg"))
        order = PortraitOrder(
            templates=(templates[number % len(templates)],), people=("Sample",), seed=number, first=PassRequest(steps=4),
            second=None,
        )  # fmt: skip
        return order, ()
    return _training(f"Person {number}", settings, steps=8)


def _training(name: str, settings: Settings, steps: int) -> tuple[TrainOrder, tuple[Input, ...]]:
    photos = photo_files([PROJECT_ROOT / "models" / "sample-people" / "woman"])[:3]
    inputs = tuple(Input(name=input_name(place, path.name), data=path) for place, path in enumerate(photos))
    spec = TrainSpec.for_family(name, settings.base_model, Family.EMBEDDED)
    spec = replace(spec, optim=replace(spec.optim, max_steps=steps), validate=replace(spec.validate, every=0))
    return TrainOrder(photos=tuple(Path("inputs") / item.name for item in inputs), spec=spec), inputs


@dataclass(kw_only=True)
class Trial:
    """One run: so many jobs, so many kills."""

    home: Path
    jobs: int
    kills: int
    real: bool
    random: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    server: subprocess.Popen[bytes] | None = None

    def run(self) -> Watcher:
        """Kill until there were enough kills, then wait until every job has ended."""
        watcher = Watcher(home=self.home)
        (self.home / "results").mkdir(parents=True, exist_ok=True)
        while sum(self.killed.values()) < self.kills:
            # Jobs come in as the kills go on, so that every kill meets work.
            self._allow(self.jobs * (sum(self.killed.values()) + 1) // self.kills)
            self._keep_serving()
            self._wait_for_work()
            time.sleep(self.random.uniform(0, 8) if self.real else self.random.uniform(0, 0.25))
            for what in self.random.choice((("worker",), ("server",), ("worker", "server"), ("server", "worker"))):
                self._kill(what)
            watcher.look()
        self._allow(self.jobs)
        self._keep_serving()
        while not self._all_ended():
            time.sleep(0.2)
            watcher.look()
        if self.server is not None:
            self.server.kill()
            self.server.wait()
        watcher.look()
        return watcher

    def _wait_for_work(self) -> None:
        """Until a job has come to its end, so that kills do not meet processes that only just start."""
        before = self._ends()
        deadline = time.monotonic() + (90 if self.real else 10)
        while time.monotonic() < deadline and self._ends() == before:
            time.sleep(0.05 if self.real else 0.002)

    def _ends(self) -> int:
        """Grows with every job that comes to its end."""
        if self.real:
            return sum(not path.name.startswith(".") for path in (self.home / "results").iterdir())
        path = self.home / "queue" / DRILLS
        return path.stat().st_size if path.exists() else 0

    def _allow(self, jobs: int) -> None:
        new = self.home.parent / f"{QUOTA}.new"
        new.write_text(str(jobs), encoding="ascii")
        new.replace(self.home.parent / QUOTA)

    def _keep_serving(self) -> None:
        if self.server is None or self.server.poll() is not None:
            words = ["--serve", str(self.home), "--jobs", str(self.jobs), *(["--real", "1"] if self.real else [])]
            self.server = subprocess.Popen([sys.executable, __file__, *words])

    def _kill(self, what: str) -> None:
        if what == "server" and self.server is not None:
            self.server.kill()
            self.server.wait()
            self.killed["server"] += 1
            return
        for pid in self._worker():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed["worker"] += 1
            return

    def _worker(self) -> Iterator[int]:
        """The worker's process id, as soon as there is one."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lock = self.home / "queue" / "worker.lock"
            pid = holder(lock) if lock.exists() else None
            if pid is not None:
                yield pid
            time.sleep(0.01)

    def _all_ended(self) -> bool:
        store = JobStore(self.home)
        try:
            counts = store.counts()
        finally:
            store.close()
        return sum(counts.values()) >= self.jobs and not (counts[JobState.QUEUED] or counts[JobState.RUNNING])


def judge(trial: Trial, watcher: Watcher) -> bool:
    """Print what became of the jobs; whether all is well."""
    store = JobStore(trial.home)
    lines = (trial.home.parent / ACCEPTED).read_text(encoding="ascii").splitlines()
    accepted = {line.split()[1] for line in lines if line.count(" ") == 1}
    jobs = {job.id: job for job in _everything(store)}
    lost = [job_id for job_id in accepted if job_id not in jobs or jobs[job_id].state is not JobState.DONE]
    without = [job_id for job_id in jobs if not (trial.home / "results" / job_id / "result.json").is_file()]
    drills = trial.home / "queue" / DRILLS
    ended = Counter(line.split()[0] for line in drills.read_text().splitlines()) if drills.exists() else Counter[str]()
    doubled = sum(times > 1 for times in ended.values())
    left = [path for place in ("queue", "results", "people") for path in (trial.home / place).glob(".*-*") if path.is_dir()]
    print(f"kills                {trial.killed['worker']} of the worker, {trial.killed['server']} of the server")
    print(f"accepted             {len(accepted)}, in the queue {len(jobs)}")
    print(f"lost                 {len(lost)}; done without a result {len(without)}")
    print(f"ended twice          {doubled} by their own lines, {watcher.changed} by their results' folders")
    print(f"begun more than once {sum(job.attempt > 1 for job in jobs.values())}")
    print(f"half-made folders    {len(left)} (those that a kill left after the last start go with the next)")
    print(f"attempts             {dict(sorted(Counter(job.attempt for job in jobs.values()).items()))} (attempts: jobs)")
    for job_id in lost[:5]:
        print(f"  lost: {jobs.get(job_id)}")
    store.close()
    return not (lost or without or doubled or watcher.changed) and len(jobs) == trial.jobs


def _everything(store: JobStore) -> Iterator[object]:
    yield from store.changes(0)


def measure(home: Path, jobs: int) -> None:
    """Print what the queue itself costs each job, with nobody killed."""
    store = JobStore(home)
    spent = []
    for _ in range(jobs):
        began = time.perf_counter()
        store.submit(NewJob(order=DrillOrder(steps=0)))
        spent.append(1e3 * (time.perf_counter() - began))
    supervisor = Supervisor(replace(Settings.from_env(), home=home))
    supervisor.start()
    while store.counts()[JobState.DONE] == 0:
        time.sleep(0.001)
    began, first = time.perf_counter(), store.counts()[JobState.DONE]
    while store.counts()[JobState.DONE] < jobs:
        time.sleep(0.01)
    each = 1e3 * (time.perf_counter() - began) / (jobs - first)
    supervisor.stop()
    store.close()
    print(f"handing in           {statistics.median(spent):.2f} ms a job (median of {jobs})")
    print(f"running              {each:.2f} ms a job from claim to end ({1e3 / each:.0f} jobs a second)")


def main() -> int:
    """Run the trial that the command line asks for."""
    calm_threads()
    parser = argparse.ArgumentParser(description="Kill the queue's processes and count.")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--real", type=int, default=0, help="so many real jobs instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the homes are made (default: a temporary folder)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.serve:
        serve(said.serve, said.jobs, bool(said.real))
    folder = Path(tempfile.mkdtemp(dir=said.folder, prefix="jobs-"))
    kills = said.kills if said.kills is not None else (25 if said.real else 200)
    dice = random.Random(said.seed)  # noqa: S311 (when to kill is no secret)
    trial = Trial(home=folder / "home", jobs=said.real or said.jobs, kills=kills, real=bool(said.real), random=dice)
    if said.real:
        _train_sample(trial.home)
    began = time.perf_counter()
    watcher = trial.run()
    seconds = time.perf_counter() - began
    well = judge(trial, watcher)
    print(f"took                 {seconds:.0f} s, {trial.jobs / seconds:.1f} jobs a second with all the kills")
    if not said.real:
        measure(folder / "calm", min(1000, said.jobs))
    shutil.rmtree(folder, ignore_errors=True)
    print("well" if well else "NOT WELL")
    return 0 if well else 1


def _train_sample(home: Path) -> None:
    """The person whom the portraits show."""
    from easyphoto.app import App

    settings = replace(Settings.from_env(), home=home)
    order, inputs = _training("Sample", settings, steps=8)
    App(settings).train(replace(order, photos=tuple(Path(str(item.data)) for item in inputs)))
    assert PeopleStore(Home(home)).get("Sample")


if __name__ == "__main__":
    sys.exit(main())
