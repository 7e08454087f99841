"""What each verb of the command line does: read the arguments, call the application, print."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from easyphoto.app import App, Watch, save_results
from easyphoto.bench.portrait import BenchOptions, run_bench
from easyphoto.cli.progress import watching
from easyphoto.demo import DemoOptions, run_demo
from easyphoto.doctor import examine
from easyphoto.errors import Cancelled, NotFound
from easyphoto.events import Event, Listener
from easyphoto.imaging.io import load_photo, save_png
from easyphoto.orders import TrainOrder
from easyphoto.records import PreparedSet
from easyphoto.settings import Settings
from easyphoto.specs import PassRequest, Person, PortraitRequest, PortraitResult, TrainSpec
from easyphoto.store.codec import to_json

Arguments = argparse.Namespace


def demo(arguments: Arguments, cancel: threading.Event) -> int:
    """Train a sample person, make portraits, write the page."""
    options = DemoOptions(
        output=arguments.output.absolute(), templates=arguments.templates, max_steps=arguments.max_steps
    )
    with watching(arguments.json) as listener:
        summary = run_demo(_settings(arguments), options, Watch(listener=_stoppable(listener, cancel), cancel=cancel))
    if arguments.json:
        _print_json(summary.as_json())
    else:
        print(summary.text())
    return 0


def train(arguments: Arguments, cancel: threading.Event) -> int:
    """Check photos, train, publish."""
    settings = _settings(arguments)
    app = App(settings)
    order = TrainOrder(
        photos=tuple(arguments.photos),
        spec=_spec(arguments, settings),
        take=tuple(arguments.take),
        retouch=not arguments.no_retouch,
        resume=arguments.resume,
        replace=arguments.replace,
    )
    with watching(arguments.json) as listener:
        watched = _stoppable(listener, cancel)
        if arguments.check_only:
            prepared, person = app.check(order, watched), None
        else:
            trained = app.train(order, Watch(listener=watched, cancel=cancel))
            prepared, person = trained.prepared, trained.person
    if arguments.json:
        _print_json({"kind": "result", "verdicts": to_json(prepared.verdicts), "person": person and to_json(person)})
        return 0
    _print_verdicts(prepared)
    if person:
        _print_person(person)
    return 0


def _spec(arguments: Arguments, settings: Settings) -> TrainSpec:
    """The family's defaults with what was said on the command line."""
    from easyphoto.engine.detect import detect_family

    family = detect_family(settings.base_model)
    spec = TrainSpec.for_family(
        arguments.person, settings.base_model, family, seed=arguments.seed, device=settings.device
    )
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
        data=replace(spec.data, **_said(size=arguments.size)),
        validate=replace(spec.validate, **_said(every=every)),
    )


def _said(**values: Any) -> dict[str, Any]:  # noqa: ANN401 (each value has its own field's type)
    return {name: value for name, value in values.items() if value is not None}


def portrait(arguments: Arguments, cancel: threading.Event) -> int:
    """Put people into each template; a template that fails is told and the others go on."""
    app = App(_settings(arguments))
    people = tuple(name if name is None else app.people.get(name) for name in arguments.people or ())
    done: list[Path] = []
    with watching(arguments.json) as listener:
        for path in arguments.template:
            request = _request(arguments, path, people)
            results = app.portraits(request, Watch(listener=_stoppable(listener, cancel), cancel=cancel))
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            files = save_results(results, arguments.output, path.stem)
            done.extend(files)
            for file, result in zip(files, results, strict=True):
                _save_stages(result, file) if arguments.stages else None
                _print_portrait(file, result, arguments.json)
    return 0


def _request(arguments: Arguments, template: Path, people: tuple[Person | None, ...]) -> PortraitRequest:
    if not template.is_file():
        raise NotFound(f"the template {template} does not exist; name a picture file")
    second = PassRequest(strength=arguments.second_strength, steps=arguments.second_steps)
    return PortraitRequest(
        template=load_photo(template),
        people=people,
        prompt=arguments.prompt,
        negative=arguments.negative,
        seed=arguments.seed,
        count=arguments.count,
        first=PassRequest(strength=arguments.first_strength, steps=arguments.first_steps),
        second=None if arguments.no_second_pass else second,
        color_shift_first=not arguments.no_color_shift,
        color_shift_last=not arguments.no_color_shift,
        **_said(
            lora_weight=arguments.lora_weight,
            guidance=arguments.guidance,
            crop_ratio=arguments.crop_ratio,
            fuse_before=arguments.fuse_before,
            fuse_after=arguments.fuse_after,
        ),
    )


def _save_stages(result: PortraitResult, file: Path) -> None:
    for number, face in enumerate(result.faces):
        for name, photo in face.stages:
            save_png(file.with_name(f"{file.stem}-face{number}-{name.replace(' ', '-')}.png"), photo.pixels, {})


def people_list(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print everyone who was trained."""
    everyone = App(_settings(arguments)).people.list()
    if arguments.json:
        _print_json([to_json(person) for person in everyone])
    elif not everyone:
        print("nobody yet; train someone with: easyphoto train PHOTOS --person NAME")
    for person in () if arguments.json else everyone:
        score = f"{person.score:.3f}" if person.score is not None else "  -  "
        print(f"{score}  {person.photos:>3} photos  {person.created}  {person.name}")
    return 0


def people_show(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print one person's files and scores."""
    person = App(_settings(arguments)).people.get(arguments.name)
    _print_json(to_json(person)) if arguments.json else _print_person(person)
    return 0


def people_delete(arguments: Arguments, _cancel: threading.Event) -> int:
    """Remove one person and say what was removed."""
    removed = App(_settings(arguments)).people.delete(arguments.name)
    if arguments.json:
        _print_json({"removed": [str(path) for path in removed]})
    else:
        print(f"removed {len(removed)} files of {arguments.name}")
        for path in removed:
            print(f"  {path}")
    return 0


def bench_portrait(arguments: Arguments, cancel: threading.Event) -> int:
    """Run PortraitBench and print its table."""
    options = BenchOptions(
        output=arguments.output.absolute(),
        real_people=arguments.people,
        templates=arguments.templates,
        only=tuple(arguments.only or ()),
    )
    with watching(arguments.json) as listener:
        watch = Watch(listener=_stoppable(listener, cancel), cancel=cancel)
        report = run_bench(_settings(arguments), options, watch)
    if arguments.json:
        _print_json(report.as_json())
    else:
        print(report.table())
    return 0


def doctor(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print what is there; status 5 if something that is needed is missing."""
    findings = examine(_settings(arguments))
    if arguments.json:
        _print_json([to_json(finding) for finding in findings])
    for finding in () if arguments.json else findings:
        mark = "ok " if finding.ok else "-- " if not finding.needed else "NO "
        print(f"{mark} {finding.name:<32} {finding.found}")
        if not finding.ok:
            print(f"    {'':<32} {finding.remedy}")
    return 0 if all(finding.ok or not finding.needed for finding in findings) else 5


def _settings(arguments: Arguments) -> Settings:
    said = {
        "home": arguments.home and arguments.home.absolute(),
        "base_model": arguments.base_model and arguments.base_model.absolute(),
        "device": arguments.device,
    }
    return replace(Settings.from_env(), **{name: value for name, value in said.items() if value})


def _stoppable(listener: Listener, cancel: threading.Event) -> Listener:
    """The listener, raising Cancelled once the person asked to stop."""

    def listen(event: Event) -> None:
        if cancel.is_set():
            raise Cancelled("stopped because you asked; nothing half-made was kept")
        listener(event)

    return listen


def _print_json(value: Mapping[str, Any] | list[Any]) -> None:
    print(json.dumps(value, ensure_ascii=True), flush=True)


def _print_verdicts(prepared: PreparedSet) -> None:
    for verdict in prepared.verdicts:
        mark = "reference" if verdict.is_reference else "taken" if verdict.accepted else "left"
        print(f"{mark:<10} {verdict.photo:<28} {verdict.sentence}")
    for warning in prepared.warnings:
        print(f"note: {warning}")


def _print_person(person: Person) -> None:
    score = f"{person.score:.3f}" if person.score is not None else "not judged"
    print(f"{person.name}: score {score}, {person.photos} photos, trained {person.created}")
    print(f"  LoRA       {person.lora}\n  reference  {person.reference}\n  face_id    {person.face_id_picture}")


def _print_portrait(file: Path, result: PortraitResult, as_json: bool) -> None:
    faces = [(face.person, face.similarity) for face in result.faces]
    if as_json:
        _print_json({"kind": "portrait", "path": str(file), "seed": result.seed, "similarity": dict(faces),
                     "seconds": dict(result.seconds), "warnings": list(result.warnings)})  # fmt: skip
        return
    scores = ", ".join(f"{name} {'no face found' if value is None else f'{value:.3f}'}" for name, value in faces)
    print(f"{file}  ({scores})")
    for warning in result.warnings:
        print(f"  note: {warning}")
