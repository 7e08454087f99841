"""The people of `recipes.py`: photos checked, templates chosen, and both written down for a machine without face tools."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from easyphoto.families import PROFILES, Family
from easyphoto.imaging.io import photo_files
from easyphoto.records import Condition, ConditionKind, Floats, InpaintJob, PreparedSet
from easyphoto.specs import TrainSpec
from easyphoto.training.prepared_files import read_prepared, write_prepared

_TRAINED_ON, _HOLDS_OUT = 12, 16
TEMPLATES = 4
"""Pictures of each checkpoint and person."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One person."""

    name: str
    prepared: PreparedSet
    held_out: Floats | None
    """(128,) median identity vector of photos that nothing was trained on."""
    jobs: tuple[tuple[str, InpaintJob], ...]
    """(template, what is rendered)."""


def prepare_people(folders: Sequence[Path], base: Path, gallery: Path, out: Path) -> None:
    """Check photos, find templates, write everything down."""
    from easyphoto.engine.models import load_models
    from easyphoto.faces.tools import FaceTools
    from easyphoto.store.templates import list_templates
    from easyphoto.training.preprocess import PrepareOptions, prepare
    from easyphoto.training.validation import make_judge

    tools, models = FaceTools(), load_models(base, "cpu")
    templates = tuple(template.path for template in list_templates(gallery))
    profile = PROFILES[Family.EMBEDDED]
    options = PrepareOptions(size=profile.second_size, crop_ratio=profile.crop_ratio)
    plain = TrainSpec.for_family("recipe", base, Family.EMBEDDED)
    spec = replace(plain, validate=replace(plain.validate, templates=TEMPLATES))
    for folder in folders:
        photos = sorted(photo_files((folder,)))
        kept = len(photos) if len(photos) < _HOLDS_OUT else _TRAINED_ON
        prepared = prepare(photos[:kept], tools, options)
        # Nothing here looks at the originals, and they weigh most.
        light = replace(prepared, photos=tuple(replace(photo, original=photo.crop) for photo in prepared.photos))
        own = out / folder.name
        shutil.rmtree(own, ignore_errors=True)
        write_prepared(light, own / "prepared")
        if photos[kept:]:
            np.save(own / "held_out.npy", prepare(photos[kept:], tools, options).embedding)
        judge = make_judge(models, tools, prepared.embedding, spec, templates)
        for name, job in judge.jobs if judge else ():
            _write_job(own / f"{name}.npz", job)
        print(f"{folder.name}: {len(prepared.photos)} of {kept} photos, {len(photos) - kept} held out", flush=True)


def read_people(folder: Path) -> list[Subject]:
    """What `prepare_people` wrote."""
    people = []
    for own in sorted(path for path in folder.iterdir() if path.is_dir()):
        held_out = own / "held_out.npy"
        people.append(Subject(
            name=own.name, prepared=read_prepared(own / "prepared"), held_out=np.load(held_out) if held_out.exists() else None,
            jobs=tuple((path.stem, _read_job(path)) for path in sorted(own.glob("*.npz"))),
        ))  # fmt: skip
    return people


def _write_job(path: Path, job: InpaintJob) -> None:
    said = {"prompt": job.prompt, "strength": job.strength, "steps": job.steps, "guidance": job.guidance, "seed": job.seed}
    controls = [[condition.kind.value, condition.weight] for condition in job.conditions]
    maps = {condition.kind.value: condition.image for condition in job.conditions}
    text = np.frombuffer(json.dumps({"said": said, "controls": controls}).encode(), np.uint8)
    np.savez_compressed(path, image=job.image, mask=job.mask, text=text, **maps)


def _read_job(path: Path) -> InpaintJob:
    with np.load(path) as data:
        text = json.loads(data["text"].tobytes())
        conditions = tuple(
            Condition(kind=ConditionKind(kind), image=data[kind], weight=weight) for kind, weight in text["controls"]
        )
        return InpaintJob(image=data["image"], mask=data["mask"], conditions=conditions, **text["said"])
