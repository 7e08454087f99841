"""How fast is training on this machine, and what share of what the chip can do is that?

    python benchmarks/training.py --json rows.json                      every row of ours
    python benchmarks/training.py --rows sd15 sd15-16 --profile         some, with what each kernel takes
    python benchmarks/training.py --kohya ~/sd-scripts                  the peer in the same run (its packages: --packages)
    python benchmarks/training.py --diffusers ~/diffusers               diffusers' own script
    python benchmarks/training.py --rows --capped 4 6 8 12 24           cards of so many GB
    python benchmarks/training.py --rows --whole 4 --gpus 1 2           whole processes: cold, warm, over several GPUs
    python benchmarks/training.py --rows --judgement                    where a judgement's time goes, kernel by kernel
    python benchmarks/training.py --tiny                                a rehearsal on a CPU

Weights are random and of the true shapes: speed does not depend on them, and nothing is fetched.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from training_judgement import judgement, merging
from training_models import (
    SD15,
    SDXL,
    TINY,
    Shape,
    default_side,
    make_cache,
    make_models,
    make_spec,
    write_base,
    write_controlnets,
)
from training_peers import Work, diffusers, kohya
from training_profile import profile
from training_whole import prepare, run_child

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.training.draws import Learner
from easyphoto.training.job import JobFolder
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.memory import gpu_memory_gib, set_aside
from easyphoto.training.planner import Course, choose, needed_gib
from easyphoto.training.trainer import Training

LOW = Course(micro=1, merged=False, checkpointing=True, offload=True, graphed=False)
ROWS: dict[str, dict[str, Any]] = {
    "sd15": {"shape": SD15, "batch": 4, "rank": 128, "text": True},
    "sd15-eager": {"shape": SD15, "batch": 4, "rank": 128, "text": True, "course": Course(graphed=False), "steps": 20},
    "sd15-frozen": {"shape": SD15, "batch": 4, "rank": 128, "text": False},
    "sd15-16": {"shape": SD15, "batch": 16, "rank": 128, "text": True, "steps": 60},
    "sd15-8-people": {"shape": SD15, "batch": 4, "rank": 128, "text": True, "people": 8, "steps": 40},
    "sdxl": {"shape": SDXL, "batch": 1, "rank": 32, "text": False, "steps": 60},
    "sdxl-4": {"shape": SDXL, "batch": 4, "rank": 32, "text": False, "steps": 40},
    "sdxl-4-text": {"shape": SDXL, "batch": 4, "rank": 32, "text": True, "steps": 40},
    "sd15-low": {"shape": SD15, "batch": 1, "rank": 128, "text": True, "course": LOW, "steps": 20},
    "sdxl-low": {"shape": SDXL, "batch": 1, "rank": 32, "text": False, "course": LOW, "steps": 20},
}
TFLOP = {"sd15": 1.793, "sdxl": 14.22}
"""Forward pass and activations' gradients of one picture, counted by torch's FlopCounterMode."""


def matmul_rate(device: str) -> float:
    """TFLOP/s of a large product."""
    size, dtype = (8192, torch.bfloat16) if device != "cpu" else (512, torch.float32)
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        one @ other
    _wait(device)
    began = time.perf_counter()
    for _ in range(10):
        one @ other
    _wait(device)
    return 10 * 2 * size**3 / (time.perf_counter() - began) / 1e12


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def begin(row: dict[str, Any], device: str) -> tuple[Training, LoraNetwork]:
    """A training of a row, with its models in memory."""
    shape: Shape = row["shape"]
    half = device != "cpu"
    models = make_models(shape, device, torch.float16 if half else torch.float32)
    side, people = default_side(shape), row.get("people", 1)
    specs = [make_spec(shape, row["batch"], row["rank"], row["text"], side, seed) for seed in range(people)]
    course = row.get("course", Course())
    network = LoraNetwork(models, specs[0].lora, range(people), course.merged)
    network.settle(torch.bfloat16 if half else torch.float32)
    learners = [Learner(cache=make_cache(device, side, seed=number), spec=spec) for number, spec in enumerate(specs)]
    network.attach()
    if course.offload and not row["text"]:
        set_aside(models, models.text_encoders)
    return Training(models, network, learners, (course,)), network


def measure(row: dict[str, Any], device: str, profiled: bool) -> dict[str, Any]:
    """Seconds of the parts of a row, and what it takes of memory."""
    if device != "cpu":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    training, network = begin(row, device)
    _wait(device)
    loaded = time.perf_counter()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    training.update()
    training.flush()
    first = time.perf_counter()
    for _ in range(3):
        training.update()
    training.flush()
    steps, timed = row.get("steps", 150), time.perf_counter()
    for _ in range(steps):
        training.update()
    training.flush()
    step = (time.perf_counter() - timed) / steps
    pictures = row["batch"] * row.get("people", 1)
    found: dict[str, Any] = {
        "ms_a_step": 1e3 * step, "ms_a_picture": 1e3 * step / pictures, "pictures_a_second": pictures / step,
        "load_s": loaded - began, "first_step_s": first - loaded, "loss": training.losses[-1],
    }  # fmt: skip
    if device != "cpu":
        found["allocated_gib"] = torch.cuda.max_memory_allocated() / 2**30
        found["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    if profiled:
        found["profile"] = profile(training.update, training.flush, device)
    network.detach()
    return found


def capped(name: str, gib: float, device: str) -> dict[str, Any]:
    """A row planned for a smaller card: the allocator gets no more than that."""
    row, share = ROWS[name], gib * 2**30 / torch.cuda.get_device_properties(0).total_memory
    spec = make_spec(row["shape"], row["batch"], row["rank"], row["text"], default_side(row["shape"]))
    models = make_models(row["shape"], device, torch.float16)
    parts = [models.unet, *models.text_encoders]
    for part in parts:
        torch.nn.Module.to(part, "cpu")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        rungs, said = choose(spec, gpu_memory_gib(device)), []
        for part in [] if rungs[0].offload else parts:
            torch.nn.Module.to(part, device)
        network = LoraNetwork(models, spec.lora, (0,), rungs[0].merged)
        network.settle(torch.bfloat16)
        network.attach()
        learner = Learner(cache=make_cache(device, spec.data.size), spec=spec)
        training = Training(models, network, [learner], rungs, said.append)
        training.update()
        training.flush()
        began, copied = time.perf_counter(), _copied(network)
        for _ in range(3):
            training.update()
        training.flush()
        found = {"course": str(training.course), "ms_a_step": (time.perf_counter() - began) / 3 * 1e3, "said": said}
        found["copied_gib_a_step"] = (_copied(network) - copied) / 3
        guess = needed_gib(training.course, spec)
        network.detach()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    found["allocated_gib"] = torch.cuda.max_memory_allocated() / 2**30
    found["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    return {**found, "guessed_gib": guess}


def _copied(network: LoraNetwork) -> float:
    """GiB of frozen weights that were brought to the GPU until now."""
    return sum(block.stream.copied for block in network.blocks if block.stream) / 2**30


def whole(
    shape: Shape, scratch: Path, batch: int, steps: int, gpus: int = 0, judged: bool = False, shared_by: int = 1
) -> dict[str, Any]:
    """A process from start to file; or with some GPUs, a person for each of them, one process a GPU."""
    base = base_of(shape, scratch, nets=judged)
    rank = 4 if shape is TINY else 128
    spec = make_spec(shape, batch, rank, True, default_side(shape))
    spec = replace(spec, optim=replace(spec.optim, max_steps=steps))
    folder = Path(tempfile.mkdtemp(dir=scratch))
    if not gpus:
        job = prepare(folder / "one", base, spec, judged=judged)
        found = run_child(job, shared_by=shared_by)
        return found | {"ms_a_step": cadence(job)}
    jobs = [prepare(folder / str(gpu), base, spec) for gpu in range(gpus)]
    began = time.perf_counter()
    with ThreadPoolExecutor(gpus) as pool:
        ends = list(pool.map(run_child, jobs, range(gpus)))
    seconds = time.perf_counter() - began
    return {"people_a_minute": 60 * gpus / seconds, "each": [end.get("whole_process_s", end) for end in ends]}


def cadence(job: JobFolder) -> float:
    """Milliseconds a step between two checkpoints, as the process told of its steps, a few times a second."""
    events = [json.loads(line) for line in job.events.read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["kind"] == "progress" and event["stage"] == "training"]
    told = [(event["step"], event["seconds"]) for event in steps]
    gaps = [(later - sooner, end - start) for (sooner, start), (later, end) in itertools.pairwise(told) if later > sooner]
    if not gaps:
        return math.nan
    usual = statistics.median(seconds / steps for steps, seconds in gaps)
    quick = [(steps, seconds) for steps, seconds in gaps if seconds / steps < 1.5 * usual]
    return 1e3 * sum(seconds for _, seconds in quick) / sum(steps for steps, _ in quick)


def base_of(shape: Shape, scratch: Path, nets: bool = False) -> Path:
    """The base model's folder, written where it is not there; with ControlNets where they are asked for."""
    base, device = scratch / f"{shape.family.value}-base", "cuda" if torch.cuda.is_available() else "cpu"
    if not base.exists():
        write_base(shape, base, device)
    if nets and not (base / "controlnet").exists():
        write_controlnets(shape, base, device)
    torch.cuda.empty_cache()
    return base


def peer(which: str, name: str, asked: argparse.Namespace, scratch: Path, least: bool = False) -> dict[str, Any]:
    """Another trainer on the work of a row."""
    row = ROWS[name]
    shape: Shape = row["shape"]
    base = base_of(shape, scratch)
    torch.cuda.empty_cache()
    folder = scratch / f"{which}-{name}-{least}"
    folder.mkdir()
    work = Work(
        sdxl=len(shape.texts) == 2, side=default_side(shape), batch=row["batch"], rank=row["rank"], text=row["text"],
        steps=8 if least else asked.peer_steps, least=least,
    )  # fmt: skip
    if which == "kohya":
        return dict(kohya(asked.kohya.absolute(), asked.packages, base, folder, work))
    return dict(diffusers(asked.diffusers.absolute(), None, base, folder, work))


def parse() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--profile", nargs="*", choices=list(ROWS), default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--scratch", type=Path, help="an empty folder, or one with base models of an earlier run")
    parser.add_argument("--kohya", type=Path, help="a checkout of sd-scripts")
    parser.add_argument("--packages", type=Path, help="a folder with the packages that it wants")
    parser.add_argument("--diffusers", type=Path, help="a checkout of diffusers")
    parser.add_argument("--least", action="store_true", help="only what the peers take of memory where it is short")
    parser.add_argument("--judged", action="store_true", help="a whole process whose checkpoints are judged, too")
    parser.add_argument("--judgement", action="store_true", help="where a judgement's time goes, and a merge's")
    parser.add_argument("--peer-rows", nargs="*", choices=list(ROWS), default=["sd15", "sdxl-4"])
    parser.add_argument("--peer-steps", type=int, default=60)
    parser.add_argument("--capped", nargs="*", type=float, default=[], help="GB of smaller cards")
    parser.add_argument("--capped-rows", nargs="*", choices=list(ROWS), default=["sd15", "sdxl"])
    parser.add_argument("--turns", type=int, default=2, help="of them: 2 is cold and warm, 1 warm alone")
    parser.add_argument("--gpus", nargs="*", type=int, default=[], help="with --whole: so many GPUs, a process each")
    parser.add_argument("--shared", nargs="*", type=int, default=[], help="with --whole: one training shared by so many")
    parser.add_argument("--whole", nargs="*", type=int, default=[], help="batch sizes of whole processes")
    parser.add_argument("--pictures", type=int, default=3200, help="of a whole process")
    return parser.parse_args()


def main() -> int:
    """Measure and print."""
    asked = parse()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = matmul_rate(device)
    chip = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{chip}, torch {torch.__version__}, matmul {rate:.0f} TFLOP/s")
    table: dict[str, Any] = {"device": chip, "matmul_tflops": rate}

    def keep(name: str, what: Callable[[], dict[str, Any]]) -> None:
        found = table[name] = _try(what)
        share = TFLOP.get(name.split("-", maxsplit=1)[0], 0.0) / rate * found.get("pictures_a_second", 0)
        print(f"{name:20} {share:6.1%} of matmul", {key: _short(value) for key, value in found.items()}, flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(table, indent=1), encoding="utf-8")

    for name in asked.rows:
        row = {**ROWS[name], **({"shape": TINY, "rank": 4, "steps": 3} if asked.tiny else {})}
        keep(name, lambda row=row, name=name: measure(row, device, name in asked.profile))
    for name in asked.capped_rows if asked.capped else []:
        for gib in asked.capped:
            keep(f"{name}-in-{gib:g}-gb", lambda name=name, gib=gib: capped(name, gib, device))
    with tempfile.TemporaryDirectory() as own:
        for name, what in processes(asked, asked.scratch or Path(own)):
            keep(name, what)
    return 0


def processes(asked: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is measured in processes of its own: name, and what does it."""
    shape = TINY if asked.tiny else SD15
    if asked.judgement:
        device, rank = "cuda" if torch.cuda.is_available() else "cpu", 4 if asked.tiny else 128
        yield "judgement", lambda: judgement(shape, base_of(shape, scratch, nets=True), device, rank)
        yield "merging", lambda: merging(shape, base_of(shape, scratch), device, rank)
    for batch in asked.whole:
        job = partial(whole, shape, scratch, batch, 3 if asked.tiny else asked.pictures // batch)
        yield from ((f"sd15-whole-{batch}-{turn}", job) for turn in ("cold", "warm")[2 - asked.turns :])
        if asked.judged:
            yield f"sd15-judged-{batch}", partial(job, judged=True)
        yield from ((f"sd15-{gpus}-gpus", partial(job, gpus=gpus)) for gpus in asked.gpus)
        yield from ((f"sd15-one-by-{gpus}-gpus", partial(job, shared_by=gpus)) for gpus in asked.shared)
    for which in [which for which in ("kohya", "diffusers") if getattr(asked, which)]:
        for name in asked.peer_rows:
            yield f"{name}-{which}", partial(peer, which, name, asked, scratch, asked.least)


def _short(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def _try(what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row that fails must not cost the others."""
    import traceback

    try:
        return what()
    except Exception as error:  # noqa: BLE001 (a row is a process of its own as far as the others are concerned)
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


if __name__ == "__main__":
    sys.exit(main())
