"""Does a whole portrait run at SD1.5's and SDXL's true size on this GPU, how fast, and in how much memory?

    python benchmarks/portrait.py TEMPLATE PERSON_FOLDER --record faces.npz     where the face tools are installed
    python benchmarks/portrait.py TEMPLATE PERSON_FOLDER --faces faces.npz --families sd15 sdxl

Weights are random, so what is painted is noise; everything else is as for a person: two passes, ControlNets, a LoRA, the
person's photo fused in, pasting back. Outside of what was painted the picture must be the template's, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_models import SD15, SDXL, Shape, write_base, write_controlnets

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.engine.models import Models, load_models, resolve_device
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.faces.tools import Backend, FaceTools, Role, ToolNames, register
from easyphoto.imaging.io import load_photo, save_png
from easyphoto.portrait.pipeline import run
from easyphoto.records import Box, Face, Photo
from easyphoto.specs import LoraSpec, Person, PortraitRequest, PortraitResult
from easyphoto.store.lora_file import LoraFile, write_lora
from easyphoto.training.lora import LoraNetwork

_ARRAYS = ("landmarks", "mesh", "depth", "body", "embedding")
_PICTURES = ("reference.png", "face_id.png")


class Blind:
    """A detector that finds nothing: all there is to find was recorded elsewhere."""

    name = "blind"

    def detect(self, _photo: Photo) -> tuple[Face, ...]:
        """No face."""
        return ()


def record(template: Path, person: Path, path: Path) -> None:
    """Find the faces and write them down."""
    tools, found = FaceTools(), {}
    for number, place in enumerate([template, *(person / name for name in _PICTURES)]):
        photo = load_photo(place)
        face = max(tools.faces(photo), key=lambda face: face.box.width)
        face = tools.body(photo, tools.with_embedding(photo, face))
        box = [getattr(face.box, side.name) for side in fields(Box)]
        found[f"{number}.box"] = np.array([*box, face.score])
        found |= {f"{number}.{name}": value for name in _ARRAYS if (value := getattr(face, name)) is not None}
    np.savez(path, **found)


def recall(template: Path, person: Path, path: Path) -> FaceTools:
    """Tools that know the recorded faces and find no others."""
    tools, found = FaceTools(ToolNames(detector="blind")), np.load(path)
    for number, place in enumerate([template, *(person / name for name in _PICTURES)]):
        *sides, score = found[f"{number}.box"].tolist()
        arrays: dict[str, Any] = {name: found[key] for name in _ARRAYS if (key := f"{number}.{name}") in found}
        box = Box(**dict(zip([side.name for side in fields(Box)], sides)))
        tools.remember(load_photo(place), (Face(box=box, score=score, **arrays),))
    return tools


def someone(folder: Path, models: Models, lora: Path) -> Person:
    """The person with a LoRA of this model's size."""
    network = LoraNetwork(models, LoraSpec(rank=32, alpha=16.0), (0,), merged=False)
    write_lora(lora, LoraFile(tensors=network.state_dict()))
    known = json.loads((folder / "person.json").read_text(encoding="utf-8"))
    reference, face_id = (folder / name for name in _PICTURES)
    return Person(
        name=known["name"], person_id=known["person_id"], folder=folder, family=models.family, lora=lora, reference=reference,
        face_id_picture=face_id, embedding=tuple(known["embedding"]), created=known["created"],
    )  # fmt: skip


def measure(shape: Shape, asked: argparse.Namespace, device: str) -> dict[str, Any]:
    """One family's row."""
    with tempfile.TemporaryDirectory() as own:
        base = (asked.scratch or Path(own)) / f"{shape.family.value}-base"
        if not base.exists():
            write_base(shape, base, device)
        if not (base / "controlnet").exists():
            write_controlnets(shape, base, device)
        began = time.perf_counter()
        models = load_models(base, device, torch.float16 if device != "cpu" else None)
        loaded = time.perf_counter() - began
        person = someone(asked.person, models, Path(own) / "lora.safetensors")
        template = load_photo(asked.template)
        request = PortraitRequest(template=template, people=(person,))
        tools = recall(asked.template, asked.person, asked.faces) if asked.faces else FaceTools()
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        times = []
        with StandaloneEngine(models) as engine:
            for seed in range(2):
                began = time.perf_counter()
                result = run(replace(request, seed=seed), engine, tools)[0]
                times.append(time.perf_counter() - began)
        found = {"load_s": loaded, "first_s": times[0], "next_s": times[1], "stages": result.seconds}
        if device != "cpu":
            found["allocated_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if asked.out:
            save_png(asked.out / f"{shape.family.value}.png", result.picture.pixels)
        return found | compare(template, result)


def compare(template: Photo, result: PortraitResult) -> dict[str, Any]:
    """Whether only what was painted has changed."""
    outside = result.changed.pixels.max(axis=-1) == 0
    same = bool(np.array_equal(template.pixels[outside], result.picture.pixels[outside]))
    return {"outside_bit_equal": same, "painted_share": round(1 - float(outside.mean()), 3)}


def main() -> None:
    """Record, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("template", type=Path)
    parser.add_argument("person", type=Path, help="a person's folder, as training leaves it")
    parser.add_argument("--families", nargs="+", choices=["sd15", "sdxl"], default=["sd15"])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--scratch", type=Path, help="where base models of an earlier run lie")
    parser.add_argument("--out", type=Path, help="where the pictures go")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    register(Role.DETECTOR, Backend(name="blind", make=Blind))
    if asked.record:
        record(asked.template, asked.person, asked.record)
        return
    for shape in (SD15, SDXL):
        if shape.family.value in asked.families:
            print(shape.family.value, json.dumps(measure(shape, asked, resolve_device(asked.device)), default=str), flush=True)


if __name__ == "__main__":
    main()
