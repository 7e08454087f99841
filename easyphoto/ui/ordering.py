"""What the controls hold, made into orders; everything that can be refused is refused here, before there is a job."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.errors import InputError, NameRefused, SpecError
from easyphoto.imaging.io import picture_size
from easyphoto.jobs.store import Input
from easyphoto.orders import CheckOrder, Consent, PortraitOrder, TrainOrder
from easyphoto.presets import Preset
from easyphoto.records import TrainKind
from easyphoto.specs import PortraitSettings, TrainSpec
from easyphoto.store.codec import from_json, to_json
from easyphoto.store.paths import check_name, person_id
from easyphoto.store.templates import get_template
from easyphoto.training.captions import caption_of, settle_captions
from easyphoto.ui.knobs import (
    PORTRAIT_KNOBS,
    PORTRAIT_SWITCHES,
    SCENE_KNOBS,
    SWITCHED_ON,
    TRAIN_KNOBS,
    Values,
    laid_over,
    portrait_data,
    short_text,
    switched,
    switches_of,
    train_data,
    values_of,
)
from easyphoto.ui.names import hand_in, input_paths
from easyphoto.ui.studio import Studio

_SEEDS = 2**32
NOBODY = ""
"""What a person's control holds where a face is left as it is."""


@dataclass(frozen=True, kw_only=True)
class TrainForm:
    """The Train tab, filled in."""

    name: str
    photos: tuple[Path, ...]
    values: Values
    """By the names of the knobs."""
    model: str | None = None
    take: tuple[str, ...] = ()
    retouch: bool = True
    replace: bool = False
    validation: bool = True
    consent: str = ""
    """Who said that the photos may be used."""
    kind: TrainKind = TrainKind.PERSON
    preset: Preset = Preset.BALANCED
    prompt: str = ""
    """What the photos of a scene show."""
    texts: tuple[Path, ...] = ()
    """Captions: text files named as the photos they belong to."""


@dataclass(frozen=True, kw_only=True)
class PortraitForm:
    """The Inference tab, filled in."""

    people: tuple[str, ...]
    """Names, from left to right; `NOBODY` leaves a face."""
    values: Values
    gallery: tuple[str, ...] = ()
    """Names of templates."""
    uploads: tuple[Path, ...] = ()
    switches: Mapping[str, bool] = field(default_factory=lambda: dict(SWITCHED_ON))
    """By the names of the switches."""
    stages: bool = True
    id_picture: Path | None = None
    """Uploaded for the ID control."""


def check_order(form: TrainForm) -> tuple[CheckOrder, tuple[Input, ...]]:
    """Photos to be judged; raises InputError."""
    inputs = _photos(form)
    order = CheckOrder(photos=input_paths(inputs), person="", take=form.take, retouch=form.retouch, kind=form.kind)
    return order, inputs


def train_order(studio: Studio, form: TrainForm) -> tuple[TrainOrder, tuple[Input, ...]]:
    """A training.

    Raises:
        InputError: Something in the form cannot be used.
        Conflict: The person was trained already.
        NotFound: There is no such base model.
    """
    try:
        name = check_name(form.name)
    except NameRefused as error:
        raise NameRefused(f"{error} (field \"Name\")") from error
    inputs = _photos(form)
    model = studio.model(form.model)
    data = train_data(name, model.path, model.family, studio.app.settings.device, form.kind, form.prompt, form.preset)
    data = laid_over(data, TRAIN_KNOBS if form.kind is TrainKind.PERSON else SCENE_KNOBS, form.values)
    if not form.validation:
        data["validate"]["every"] = 0
    spec = from_json(TrainSpec, data)
    order = TrainOrder(
        photos=input_paths(inputs), spec=spec, take=form.take, retouch=form.retouch,
        replace=form.replace, consent=_consent(form.consent), captions=_captions(spec, form),
    )  # fmt: skip
    if not form.replace and any(person.person_id == person_id(name) for person in studio.people(form.kind)):
        raise InputError(f'{name} was trained already; tick "Train again and replace", or choose another name')
    return order, inputs


def portrait_order(studio: Studio, form: PortraitForm) -> tuple[PortraitOrder, tuple[Input, ...]]:
    """Portraits.

    Raises:
        InputError: Something in the form cannot be used.
        NotFound: A person or a template is not there.
    """
    people = tuple(studio.app.people.get(name).name if name else None for name in form.people)
    if not any(people):
        raise SpecError("nobody is chosen; choose a person for at least one face (train one first if there is none)")
    while people and people[-1] is None:
        people = people[:-1]
    paths = [get_template(studio.app.settings.templates, name).path for name in form.gallery]
    own = [form.id_picture] if form.id_picture and form.switches.get("id_control") else []
    inputs = hand_in([*form.uploads, *own])
    _refuse_unreadable(inputs)
    data = laid_over(portrait_data(studio.model().family), PORTRAIT_KNOBS, form.values)
    data["seed"] = _seed(data["seed"])
    settings = from_json(PortraitSettings, switched(data, form.switches))
    fields = {name: getattr(settings, name) for name in PortraitSettings.__dataclass_fields__}
    handed = input_paths(inputs)
    templates, id_picture = (*paths, *handed[: len(form.uploads)]), handed[-1] if own else None
    if not templates:
        raise SpecError("there is no template; choose one of the gallery, or upload a picture")
    return PortraitOrder(templates=templates, people=people, stages=form.stages, id_picture=id_picture, **fields), inputs


def form_of(studio: Studio, order: PortraitOrder, seed: int | None = None) -> PortraitForm:
    """The form that an order came from; templates that were uploaded are not known any more."""
    known = portrait_data(studio.model().family)
    data = to_json(order)
    switches = switches_of(data)
    kept = {one.path for one in PORTRAIT_SWITCHES if not switches[one.name]}
    shown = {
        **known, **{key: value for key, value in data.items() if key in known and key not in kept and value is not None},
        "first": _filled(known["first"], data["first"]), "second": _filled(known["second"], data["second"] or {}),
    }  # fmt: skip
    values = {**values_of(PORTRAIT_KNOBS, shown), **({} if seed is None else {"seed": seed})}
    paths = {template.path: template.name for template in studio.templates()}
    return PortraitForm(
        people=tuple(name or NOBODY for name in order.people), values=values, switches=switches,
        gallery=tuple(paths[path] for path in order.templates if path in paths), stages=order.stages,
    )  # fmt: skip


def _filled(known: dict[str, object], said: dict[str, object]) -> dict[str, object]:
    return {**known, **{key: value for key, value in said.items() if value is not None}}


def _captions(spec: TrainSpec, form: TrainForm) -> tuple[str, ...]:
    """Of each photo; text files that bear no photo's name, and those beside a person's, are passed over."""
    if spec.kind is TrainKind.PERSON:
        return ()
    said = {text.stem: caption_of(text.read_bytes(), text.name) for text in form.texts}
    return settle_captions(spec, [path.name for path in form.photos], [said.get(path.stem, "") for path in form.photos])


def _photos(form: TrainForm) -> tuple[Input, ...]:
    if not form.photos:
        raise InputError("there are no photos; upload at least one, better 5 to 20")
    return hand_in(form.photos)


def _consent(given_by: str) -> Consent | None:
    said = short_text("Consent", given_by).strip()
    if not said:
        return None
    return Consent(given_by=said[:200], given_at=datetime.now(timezone.utc).isoformat(timespec="seconds"))


def _refuse_unreadable(inputs: Sequence[Input]) -> None:
    for item in inputs:
        name = item.name.partition("/")[2]
        picture_size(item.data.read_bytes() if isinstance(item.data, Path) else item.data, name)


def _seed(said: int) -> int:
    if said == -1:
        return secrets.randbelow(_SEEDS)
    if not 0 <= said < _SEEDS:
        raise SpecError(f"Seed must be -1, or within 0 to {_SEEDS - 1}, got {said}")
    return said
