"""Where a judgement's time goes: what is done once, what each judgement does, and which kernels that are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_models import Shape, default_side, make_spec
from training_profile import profile
from training_whole import made_up_judge

from easyphoto.engine.denoise import Schedule
from easyphoto.engine.models import load_models
from easyphoto.store.lora_file import LoraFile
from easyphoto.store.lora_merge import merge_loras
from easyphoto.training import rendering
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.merging import merge_on

TFLOP = {"unet": 0.8033, "net": 0.2686, "decoding": 2.5145}
"""Of a picture of SD1.5's size, counted by torch's FlopCounterMode; a net's without the embedding of its map, done once."""


def judgement(shape: Shape, base: Path, device: str, rank: int, times: int = 5) -> dict[str, Any]:
    """Seconds of a judgement and of its parts.

    Args:
        shape: Of the model.
        base: Its folder, with ControlNets.
        device: Where.
        rank: Of the LoRA.
        times: How many judgements are timed.
    """
    half, began = device != "cpu", time.perf_counter()
    models = load_models(base, device)
    spec = make_spec(shape, 4, rank, True, default_side(shape))
    network = LoraNetwork(models, spec.lora, (0,))
    network.settle(torch.bfloat16 if half else torch.float32)
    network.attach()
    judge = made_up_judge(models, None, np.ones(128, np.float32), spec, None)
    jobs = [job for _, job in judge.jobs]
    found: dict[str, Any] = {"model_read_s": _seconds(began, device)}
    began = time.perf_counter()
    nets = [models.controlnet(kind) for kind in sorted(judge.kinds, key=lambda kind: kind.value)]
    found["nets_read_s"] = _seconds(began, device)
    renderer, seen = rendering.Renderer(models, jobs), {}
    began = time.perf_counter()
    with _stamped(seen, device):
        renderer.prepare(network.place)
    found |= {"prepared_s": _seconds(began, device), **seen}
    whole = [_timed(lambda: renderer.render(network.place), device) for _ in range(times)]
    found |= {"first_s": whole[0], "judgement_s": statistics.median(whole[1:])}
    opened, captured = renderer._open, renderer._steps
    steps = Schedule(steps=jobs[0].steps, strength=jobs[0].strength).executed
    with torch.inference_mode():
        latents, first = opened.track.start, opened.track.times[0]
        parts = {
            "words": captured.read, "step": lambda: captured.predict(models, None, latents, first),
            "decoding": lambda: opened.decode(latents),
        }  # fmt: skip
        found |= {f"{name}_ms": 1e3 * _often(run, device) for name, run in parts.items()}
        bare = replace(opened, branches=rendering.Branches(models.unet, ()))
        alone = rendering._Steps(models, bare, "alone", beside=False)
        found["step_without_nets_ms"] = 1e3 * _often(lambda: alone.predict(models, None, latents, first), device)
    rows = len(jobs) * (2 if jobs[0].guidance != 1 else 1)
    work = steps * rows * (TFLOP["unet"] + len(nets) * TFLOP["net"]) + len(jobs) * TFLOP["decoding"]
    found |= {"steps": steps, "rows": rows, "tflop": work}
    found["profile"] = profile(lambda: renderer.render(network.place), lambda: _wait(device), device, 2)
    network.detach()
    return found


def merging(shape: Shape, base: Path, device: str, rank: int, files: int = 3) -> dict[str, Any]:
    """Seconds of merging checkpoints of one training, here and one by one on the processor; and how far the two lie apart."""
    models = load_models(base, device)
    spec = make_spec(shape, 4, rank, True, default_side(shape))
    network = LoraNetwork(models, spec.lora, (0,))
    noise = torch.Generator(network.blocks[0].values.device).manual_seed(0)

    def checkpoint() -> LoraFile:
        for block in network.blocks:
            drawn = torch.randn(block.values.shape, generator=noise, device=block.values.device)
            block.values.data.mul_(0.9).add_(drawn, alpha=0.01)
        return LoraFile(tensors=network.state_dict())

    made, shares = [checkpoint() for _ in range(files)], [1 / files] * files
    first = _timed(lambda: merge_on(device, made, shares), device)
    found = {"first_s": first, "again_s": _timed(lambda: merge_on(device, made, shares), device)}
    few = [LoraFile(tensors={key: file.tensors[key] for key in sorted(file.tensors)[:36]}) for file in made]
    slow: list[LoraFile] = []
    found["one_by_one_s_for_all"] = _timed(lambda: slow.append(merge_loras(few, shares)), "cpu") * (
        len(made[0].tensors) / len(few[0].tensors)
    )
    quick = merge_on(device, few, shares)
    away = [(quick.module(name).delta(), slow[0].module(name).delta()) for name in quick.module_names()]
    found["apart"] = max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in away)
    return {**found, "layers": len(made[0].module_names())}


@contextmanager
def _stamped(seen: dict[str, float], device: str) -> Iterator[None]:
    """Note how long each capture takes."""
    own = rendering._Captured.capture

    def capture(self: Any, run: Callable[[], Any]) -> Callable[[], Any]:  # noqa: ANN401
        began = time.perf_counter()
        result = own(self, run)
        seen[f"capture_{len(seen)}_s"] = _seconds(began, device)
        return result

    rendering._Captured.capture = capture
    try:
        yield
    finally:
        rendering._Captured.capture = own


def _often(run: Callable[[], object], device: str, times: int = 10) -> float:
    """Seconds of one of several calls in a row."""
    run()
    began = _timed(lambda: [run() for _ in range(times)], device)
    return began / times


def _timed(run: Callable[[], object], device: str) -> float:
    _wait(device)
    began = time.perf_counter()
    run()
    return _seconds(began, device)


def _seconds(began: float, device: str) -> float:
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
