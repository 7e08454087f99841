"""The verbs that make something, by way of the queue: train and portrait."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from easyphoto.app import App, Watch
from easyphoto.cli.commands import print_json, print_person, settings_of, stoppable
from easyphoto.cli.privacy import consent_of
from easyphoto.cli.progress import watching
from easyphoto.cli.scenes import print_scene
from easyphoto.errors import NotFound, SpecError
from easyphoto.extras import IdControl, SuperResolution
from easyphoto.files import write_bytes
from easyphoto.imaging.io import photo_files
from easyphoto.jobs.folders import Input
from easyphoto.jobs.follow import as_error, error_of, run_order
from easyphoto.jobs.store import JobStore, NewJob, input_name
from easyphoto.kinds import spec_for
from easyphoto.orders import Order, PortraitOrder, TrainOrder
from easyphoto.presets import Preset, with_preset
from easyphoto.records import TrainKind, Verdict
from easyphoto.settings import Settings
from easyphoto.specs import PassRequest, TrainSpec
from easyphoto.store.codec import to_json
from easyphoto.store.paths import check_name
from easyphoto.training.captions import captions_beside, settle_captions
from easyphoto.work import Failure, Job, JobResult, Missed, Picture

Arguments = argparse.Namespace
INPUTS = Path("inputs")


def train(arguments: Arguments, cancel: threading.Event) -> int:
    """Check photos, train, publish."""
    settings = settings_of(arguments)
    app = App(settings)
    spec = _spec(arguments, settings)
    check_name(spec.person)
    photos = photo_files(arguments.photos)
    names, learns = [path.name for path in photos], spec.kind is not TrainKind.PERSON
    order = TrainOrder(
        captions=settle_captions(spec, names, captions_beside(photos)) if learns else (),
        photos=photos, spec=spec, take=tuple(arguments.take), retouch=not arguments.no_retouch, resume=arguments.resume,
        replace=arguments.replace, consent=consent_of(arguments.consent, None, "") if arguments.consent else None,
    )  # fmt: skip
    if arguments.check_only:
        return _check(arguments, app, order, cancel)
    app.refuse_known(order)
    inputs = _inputs(photos)
    done = _run(arguments, settings, replace(order, photos=_names(inputs)), inputs, cancel)
    return _show_training(arguments, app, done.result.verdicts, done.result.warnings, done.job)


def _check(arguments: Arguments, app: App, order: TrainOrder, cancel: threading.Event) -> int:
    from easyphoto.training.preprocess import NoUsablePhoto

    try:
        with watching(arguments.json) as listener:
            prepared = app.check(order, stoppable(listener, cancel))
    except NoUsablePhoto as error:
        _show_training(arguments, app, error.verdicts, (), None)
        raise
    return _show_training(arguments, app, prepared.verdicts, prepared.warnings, None)


def _show_training(
    arguments: Arguments, app: App, verdicts: Sequence[Verdict], warnings: Sequence[str], job: Job | None
) -> int:
    person = None if job is None else app.shelf(TrainKind(arguments.kind)).get(arguments.person)
    if arguments.json:
        shown = {"kind": "result", "verdicts": to_json(tuple(verdicts)), "person": person and to_json(person)}
        print_json(shown if job is None else {**shown, "job": job.id})
        return 0
    for verdict in verdicts:
        mark = "reference" if verdict.is_reference else "taken" if verdict.accepted else "left"
        print(f"{mark:<10} {verdict.photo:<28} {verdict.sentence}")
    for warning in warnings:
        print(f"note: {warning}")
    if person:
        print_person(person) if person.kind is TrainKind.PERSON else print_scene(person)
    return 0


def _spec(arguments: Arguments, settings: Settings) -> TrainSpec:
    """The family's defaults with what was said on the command line."""
    from easyphoto.engine.detect import detect_family

    family = detect_family(settings.base_model)
    own = spec_for(TrainKind(arguments.kind), family, arguments.person, settings.base_model, arguments.prompt)
    spec = with_preset(replace(own, seed=arguments.seed, device=settings.device), Preset(arguments.preset))
    if arguments.prompt and spec.kind is TrainKind.PERSON:
        raise SpecError("--prompt is for scenes and clothes; photos of a person all have the same caption, so leave it out")
    every = 0 if arguments.no_validation else arguments.validation_steps
    lora = _said(rank=arguments.rank, alpha=arguments.alpha, text_encoder=False if arguments.no_text_encoder else None)
    optim = _said(
        learning_rate=arguments.learning_rate,
        text_learning_rate=arguments.text_learning_rate,
        steps_per_photo=arguments.steps_per_photo,
        max_steps=arguments.max_steps,
        batch_size=arguments.batch_size,
        accumulation=arguments.accumulation,
    )
    return replace(
        spec,
        lora=replace(spec.lora, **lora),
        optim=replace(spec.optim, **optim),
        data=replace(spec.data, **_said(size=arguments.size, crop_ratio=arguments.crop_ratio)),
        validate=replace(spec.validate, **_said(every=every)),
    )


def _said(**values: Any) -> dict[str, Any]:  # noqa: ANN401 (each value has its own field's type)
    return {name: value for name, value in values.items() if value is not None}


def portrait(arguments: Arguments, cancel: threading.Event) -> int:
    """Put people into each template; a template that fails is told and the others go on."""
    settings = settings_of(arguments)
    people = App(settings).people
    for name in arguments.people or ():
        people.get(name) if name is not None else None
    missing = next((path for path in arguments.template if not path.is_file()), None)
    if missing is not None:
        raise NotFound(f"the template {missing} does not exist; name a picture file")
    own = [Path(arguments.id_control)] if arguments.id_control else []
    if own and not own[0].is_file():
        raise NotFound(f"the ID control's picture {own[0]} does not exist; name a picture file, or nothing behind --id-control")
    inputs = _inputs([*arguments.template, *own])
    names = _names(inputs)
    order = portrait_order(arguments, names[: len(arguments.template)], names[-1] if own else None)
    done = _run(arguments, settings, order, inputs, cancel)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for picture in done.result.pictures:
        _show_portrait(_save(done, picture, arguments.output), picture, done.job, arguments.json)
    return _tell_missed(done, arguments.json)


def portrait_order(arguments: Arguments, templates: tuple[Path, ...], id_picture: Path | None = None) -> PortraitOrder:
    """What was typed, as an order; what was not typed is the family's."""
    second = PassRequest(strength=arguments.second_strength, steps=arguments.second_steps)
    return PortraitOrder(
        templates=templates,
        people=tuple(arguments.people or ()),
        stages=arguments.stages,
        prompt=arguments.prompt,
        negative=arguments.negative,
        seed=arguments.seed,
        count=arguments.count,
        first=PassRequest(strength=arguments.first_strength, steps=arguments.first_steps),
        second=None if arguments.no_second_pass else second,
        color_shift_first=not (arguments.no_color_shift or arguments.no_color_shift_first),
        color_shift_last=not (arguments.no_color_shift or arguments.no_color_shift_last),
        crop_face=not arguments.no_crop_face,
        face_shape_match=arguments.face_shape_match,
        lcm=arguments.lcm,
        makeup=arguments.makeup,
        retouch=arguments.retouch,
        background=arguments.background,
        super_resolution=_enlargement(arguments),
        id_control=None if arguments.id_control is None else IdControl(weight=arguments.id_weight),
        id_picture=id_picture,
        **_said(
            lora_weight=arguments.lora_weight,
            guidance=arguments.guidance,
            crop_ratio=arguments.crop_ratio,
            fuse_before=arguments.fuse_before,
            fuse_after=arguments.fuse_after,
        ),
    )


def _enlargement(arguments: Arguments) -> SuperResolution | None:
    if arguments.super_resolution is None:
        return None
    return SuperResolution(way=arguments.super_resolution, ratio=arguments.super_resolution_ratio)


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A job that came to its end, and what it left."""

    job: Job
    result: JobResult
    folder: Path
    """Of the result's files."""


def _run(arguments: Arguments, settings: Settings, order: Order, inputs: Sequence[Input], cancel: threading.Event) -> _Done:
    """Hand an order in and wait; raises what ended it."""
    with watching(arguments.json) as listener:
        job = run_order(settings, NewJob(order=order), inputs, Watch(listener=listener, cancel=cancel))
    error = error_of(job)
    if error is not None:
        raise error
    with closing(JobStore(settings.home)) as store:
        return _Done(job=job, result=store.result(job.id), folder=store.result_folder(job.id))


def _inputs(files: Sequence[Path]) -> tuple[Input, ...]:
    return tuple(Input(name=input_name(number, path.name), data=path) for number, path in enumerate(files))


def _names(inputs: Sequence[Input]) -> tuple[Path, ...]:
    return tuple(INPUTS / item.name for item in inputs)


def _save(done: _Done, picture: Picture, output: Path) -> Path:
    """Copy one picture with its stages where the person wants it; the name holds template, time and seed, none is replaced."""
    stamp = datetime.fromtimestamp(time.time(), tz=timezone.utc).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    path = output / f"{Path(picture.template).stem}-{stamp}-{picture.seed}.png"
    beginning = f"{Path(picture.file).stem}-face"
    write_bytes(path, (done.folder / picture.file).read_bytes())
    for file in done.result.files:
        if file.name.startswith(beginning):
            stage = path.with_name(f"{path.stem}-face{file.name[len(beginning) :]}")
            write_bytes(stage, (done.folder / file.name).read_bytes())
    return path


def _show_portrait(path: Path, picture: Picture, job: Job, as_json: bool) -> None:
    faces = [(face.person, face.similarity) for face in picture.faces]
    if as_json:
        print_json({"kind": "portrait", "path": str(path), "seed": picture.seed, "similarity": dict(faces),
                    "seconds": dict(picture.seconds), "warnings": list(picture.warnings), "job": job.id})  # fmt: skip
        return
    scores = ", ".join(f"{name} {'no face found' if value is None else f'{value:.3f}'}" for name, value in faces)
    print(f"{path}  ({scores})")
    for warning in picture.warnings:
        print(f"  note: {warning}")


def _tell_missed(done: _Done, as_json: bool) -> int:
    """Say which templates gave no picture; the exit status is that of the first one's error."""
    for missed in done.result.missed:
        if as_json:
            print_json({"kind": "missed", "template": missed.template, "code": missed.code, "message": missed.sentence,
                        "job": done.job.id})  # fmt: skip
        else:
            print(f"easyphoto: {missed.template} gave no picture: {missed.sentence}", file=sys.stderr)
    return _status(done.result.missed[0]) if done.result.missed else 0


def _status(missed: Missed) -> int:
    return as_error(Failure(code=missed.code, sentence=missed.sentence)).exit_status
