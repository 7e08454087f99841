"""How many people a minute does the queue train, with one GPU and with several?

    python benchmarks/people.py --gpus 1 2 4 --people 3                 SD1.5 of true size, 800 steps of 4 pictures each
    python benchmarks/people.py --gpus 1 --people 3 --alone             the same with a new process for each, as before
    python benchmarks/people.py --tiny --gpus 1 2                       a rehearsal on a CPU

The product's own queue, runner and worker processes do the work; only the check of the photos is left out: everybody's are
made up and lie prepared, as after a check. Weights are random and of the true shapes. Before anything is timed one short
training warms the machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_models import SD15, TINY, default_side, make_spec, write_base
from training_whole import prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.app import App, Shared
from easyphoto.events import Event
from easyphoto.imaging.io import encode_png
from easyphoto.jobs.runner import Runner, runner_lock
from easyphoto.jobs.store import Input, JobStore, NewJob, input_name
from easyphoto.orders import TrainOrder
from easyphoto.settings import Settings
from easyphoto.specs import TrainSpec, ValidateSpec
from easyphoto.store.codec import dumps
from easyphoto.store.paths import Home, owner_home, person_id
from easyphoto.training.job import JobFolder
from easyphoto.work import Job

_PAUSE = 0.05


class OneByOne(Shared):
    """Every training is a process of its own."""

    keeps_workers = False


def submit(store: JobStore, home: Home, spec: TrainSpec, photos: int) -> Job:
    """Hand a training in whose photos have been checked."""
    name = input_name(0, "photo.png")
    order = TrainOrder(photos=(Path("inputs") / name,), spec=spec)
    job = store.submit(NewJob(order=order), (Input(name=name, data=encode_png(np.zeros((8, 8, 3), np.uint8))),))
    made = prepare(home.jobs / "making", spec.base_model, spec, photos)
    begun = JobFolder(made.root.rename(home.jobs / f"{person_id(spec.person)}-{job.id}"))
    made.root.parent.rmdir()
    begun.order.write_text(dumps(replace(begun.read_order(), queued_as=job.id)), encoding="utf-8")
    return job


def train(settings: Settings, spec: TrainSpec, people: int, photos: int, alone: bool) -> dict[str, Any]:
    """Train so many people through the queue; people a minute, and where each one's seconds went."""
    store, home = JobStore(settings.home), owner_home(settings.home, "local").make()
    jobs = [submit(store, home, replace(spec, person=f"person {number}", seed=number), photos) for number in range(people)]
    app = App(settings, shared=OneByOne(settings) if alone else None)
    stop, ends = threading.Event(), dict.fromkeys([job.id for job in jobs], 0.0)
    with runner_lock(settings.home):
        thread = threading.Thread(target=Runner(settings, store, app=app).run, args=(stop,))
        began = time.perf_counter()
        thread.start()
        while not all(ends.values()):
            for job in jobs:
                if not ends[job.id] and store.get(job.id).state.ended:
                    ends[job.id] = time.perf_counter() - began
            time.sleep(_PAUSE)
        stop.set()
        thread.join()
    failures = [str(failure) for job in jobs if (failure := store.get(job.id).failure)]
    each = [parts([event for _, event in store.events(job.id)], ends[job.id]) for job in jobs]
    store.close()
    order = sorted(ends.values())
    found = {"people_a_minute": 60 * people / order[-1], "later_a_minute": later(order, settings.at_once), "each": each}
    return {**found, **({"error": failures} if failures else {})}


def later(ends: Sequence[float], places: int) -> float:
    """People a minute once every place is at work: what a queue that never empties would have."""
    if len(ends) <= places:
        return math.nan
    return 60 * (len(ends) - places) / (statistics.fmean(ends[-places:]) - statistics.fmean(ends[:places]))


def parts(events: Sequence[Event], end: float) -> dict[str, float]:
    """Seconds from the beginning of one training until each part of it was over, and when it was published."""

    def when(stage: str, last: bool = True) -> float:
        found = [event.seconds or 0.0 for event in events if event.stage == stage and event.kind == "progress"]
        return found[-1 if last else 0] if found else math.nan

    marks = {
        "base model": when("loading"), "latents": when("caching"), "first step": when("training", last=False),
        "steps": when("training"), "done": max((event.seconds or 0.0 for event in events), default=math.nan), "published": end,
    }  # fmt: skip
    last = [event.memory_mb for event in events if event.kind == "done"]
    return {**marks, "memory_mb": (last and last[0]) or math.nan}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1])
    parser.add_argument("--people", type=int, default=3, help="for each GPU")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--photos", type=int, default=10)
    parser.add_argument("--alone", action="store_true", help="a new process for each person as well")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--scratch", type=Path, help="an empty folder, or one with base models of an earlier run")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    shape, device = (TINY if asked.tiny else SD15), "cuda" if torch.cuda.is_available() else "cpu"
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as own:
        scratch = (asked.scratch or Path(own)).absolute()
        base = scratch / f"{shape.family.value}-base"
        if not base.exists():
            write_base(shape, base, device)
            gc.collect()
            torch.cuda.empty_cache()
        spec = make_spec(shape, 4, 4 if asked.tiny else 128, True, default_side(shape))
        for gpus, people, steps, alone in plan(asked):
            sized = replace(spec, base_model=base, optim=replace(spec.optim, max_steps=steps), validate=ValidateSpec(every=0))
            home = Path(tempfile.mkdtemp(dir=scratch))
            settings = replace(Settings.from_env({}), home=home, base_model=base, at_once=gpus)
            name = "warming" if steps != asked.steps else f"{gpus}-gpus{'-alone' if alone else ''}"
            table[name] = found = train(settings, sized, people, asked.photos, alone)
            rates = f"{found['people_a_minute']:.2f} people a minute, {found['later_a_minute']:.2f} after the first of each GPU"
            print(f"{name:14} {rates}", found.get("error", ""), flush=True)
            for each in found["each"]:
                print("    ", {part: round(seconds, 1) for part, seconds in each.items()}, flush=True)
            if asked.json:
                asked.json.write_text(json.dumps(table, indent=1), encoding="utf-8")
    return 0


def plan(asked: argparse.Namespace) -> Iterator[tuple[int, int, int, bool]]:
    """GPUs, people, steps, and whether each has a process of their own: first a short one, which finds the machine cold."""
    yield 1, 1, 3, False
    for gpus in asked.gpus:
        yield gpus, gpus * asked.people, asked.steps, False
        if asked.alone:
            yield gpus, gpus * asked.people, asked.steps, True


if __name__ == "__main__":
    sys.exit(main())
