"""Requests made into orders and handed to the queue; everything that can be refused is refused before a job is made."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from easyphoto.api.options import ApiOptions
from easyphoto.api.outbound import check_url
from easyphoto.api.pictures import gather, inputs, refuse_unreadable, safe_name
from easyphoto.api.problems import bad_field
from easyphoto.api.reading import Asked, make, refused_field
from easyphoto.api.service import Service
from easyphoto.api.uploads import Handed
from easyphoto.api.wire import ChecksRequest, PeopleRequest, PhotoSource, PortraitsRequest, ScenesRequest, TemplateSource
from easyphoto.errors import EasyPhotoError, NotFound, PhotoError, SpecError
from easyphoto.jobs.store import HIGHEST_PRIORITY, LOWEST_PRIORITY, Input, NewJob
from easyphoto.kinds import spec_for
from easyphoto.orders import CheckOrder, Order, PortraitOrder, TrainOrder
from easyphoto.presets import Preset, with_preset
from easyphoto.records import TrainKind
from easyphoto.specs import PortraitSettings, TrainSpec
from easyphoto.store.codec import from_json, to_json
from easyphoto.store.paths import check_name
from easyphoto.store.templates import get_template
from easyphoto.training.captions import ENDING, caption_of, settle_captions
from easyphoto.work import Job

Kind = TypeVar("Kind", PhotoSource, TemplateSource)
_SEEDS = 2**32


def train(service: Service, owner: str, asked: Asked) -> Job:
    """Hand in a training.

    Raises:
        InputError: Something in the request cannot be used.
        NotFound: There is no such base model.
        Conflict: The person was trained already, or the idempotency key used for something else.
    """
    settings = asked.data.pop("settings", None) or {}
    sources = _sources(PhotoSource, asked.data.pop("photos", []), "photos")
    wanted = make(PeopleRequest, asked.data)
    spec = _train_spec(service, wanted.name, settings)
    photos = _photos(service.options, sources, asked.files)
    handed = inputs(photos)
    order = TrainOrder(
        photos=_paths(handed), spec=spec, take=tuple(map(safe_name, wanted.take)), retouch=wanted.retouch,
        replace=wanted.replace, consent=wanted.consent,
    )  # fmt: skip
    if not _is_repeated(service, owner, spec.person, asked.key):
        service.app(owner).refuse_known(order)
    return _submit(service, owner, asked.key, wanted, order, handed)


def scene(service: Service, owner: str, asked: Asked) -> Job:
    """Hand in the training of a scene or a garment.

    Raises:
        InputError: Something in the request cannot be used.
        NotFound: There is no such base model.
        Conflict: It was trained already, or the idempotency key used for something else.
    """
    settings = asked.data.pop("settings", None) or {}
    sources = _sources(PhotoSource, asked.data.pop("photos", []), "photos")
    wanted = make(ScenesRequest, asked.data)
    if wanted.kind is TrainKind.PERSON:
        raise bad_field("kind", "must be scene or cloth; a person is trained by POST /people")
    spec = _train_spec(service, wanted.name, settings, wanted.kind, wanted.prompt)
    texts = {_stem(file.label): caption_of(file.read(), file.label) for file in asked.files if _is_caption(file)}
    photos = _photos(service.options, sources, [file for file in asked.files if not _is_caption(file)])
    if wanted.captions and len(wanted.captions) != len(photos):
        raise bad_field("captions", f"has {len(wanted.captions)} texts for {len(photos)} photos; give one for each")
    handed = inputs(photos)
    said = wanted.captions or tuple(texts.get(_stem(photo.label), "") for photo in photos)
    order = TrainOrder(
        photos=_paths(handed), spec=spec, take=tuple(map(safe_name, wanted.take)), retouch=False, replace=wanted.replace,
        consent=wanted.consent, captions=_settled(spec, [photo.label for photo in photos], said),
    )  # fmt: skip
    if not _is_repeated(service, owner, spec.person, asked.key, wanted.kind):
        service.app(owner).refuse_known(order)
    return _submit(service, owner, asked.key, wanted, order, handed)


def _settled(spec: TrainSpec, names: Sequence[str], captions: Sequence[str]) -> tuple[str, ...]:
    try:
        return settle_captions(spec, names, captions)
    except PhotoError as error:
        raise bad_field("captions", error) from error


def _is_caption(file: Handed) -> bool:
    return file.label.lower().endswith(ENDING)


def _stem(label: str) -> str:
    return label.rpartition(".")[0] or label


def check(service: Service, owner: str, asked: Asked) -> Job:
    """Hand in photos to be judged.

    Raises:
        InputError: Something in the request cannot be used.
        Conflict: The idempotency key was used for something else.
    """
    sources = _sources(PhotoSource, asked.data.pop("photos", []), "photos")
    wanted = make(ChecksRequest, asked.data)
    handed = inputs(_photos(service.options, sources, asked.files))
    order = CheckOrder(
        photos=_paths(handed), person="", take=tuple(map(safe_name, wanted.take)), retouch=wanted.retouch, kind=wanted.kind
    )
    return _submit(service, owner, asked.key, wanted, order, handed)


def portraits(service: Service, owner: str, asked: Asked) -> Job:
    """Hand in portraits.

    Raises:
        InputError: Something in the request cannot be used.
        NotFound: A person or a template of the gallery does not exist.
        Conflict: The idempotency key was used for something else.
    """
    raw = asked.data.pop("templates", [])
    settings = dict(asked.data.pop("settings", None) or {})
    if settings.get("seed") is None:
        settings["seed"] = _drawn_seed(owner, asked.key)
    wanted = make(PortraitsRequest, asked.data)
    chosen = make(PortraitSettings, settings, "settings")
    people = tuple(_person_name(service, owner, place, found) for place, found in enumerate(wanted.people))
    if not any(people):
        raise bad_field("people", "names nobody; a portrait needs at least one person")
    own = gather([("id_picture", wanted.id_picture)], service.options) if wanted.id_picture else ()
    paths, handed = _templates(service, raw, asked.files, own)
    fields = {name: getattr(chosen, name) for name in PortraitSettings.__dataclass_fields__}
    templates = paths[: len(paths) - len(own)]
    order = PortraitOrder(templates=templates, people=people, id_picture=paths[-1] if own else None, **fields)
    return _submit(service, owner, asked.key, wanted, order, handed)


def _sources(kind: type[Kind], raw: Sequence[Any], field: str) -> tuple[tuple[str, Kind], ...]:
    """Each source with its place in the request."""
    return tuple((f"{field}[{place}]", make(kind, source, f"{field}[{place}]")) for place, source in enumerate(raw))


def _photos(options: ApiOptions, sources: Sequence[tuple[str, PhotoSource]], files: Sequence[Handed]) -> tuple[Handed, ...]:
    """All photos of a request; those that cannot be read are left for the verdicts, unless not one can."""
    photos = (*gather(sources, options), *files)
    if not photos:
        raise bad_field("photos", "there are no photos; hand in at least one, better 5 to 20")
    refuse_unreadable(photos, all_of_them=False)
    return photos


def _paths(handed: Sequence[Input]) -> tuple[Path, ...]:
    return tuple(Path("inputs") / item.name for item in handed)


def _train_spec(
    service: Service, name: str, settings: Mapping[str, Any], kind: TrainKind = TrainKind.PERSON, prompt: str = ""
) -> TrainSpec:  # fmt: skip
    """The family's training of that kind with what was asked for laid over it."""
    try:
        person = check_name(name)
    except EasyPhotoError as error:
        raise bad_field("name", error) from error
    given = {key: value for key, value in settings.items() if value is not None}
    try:
        model = service.model(given.pop("base_model", None))
    except NotFound as error:
        raise bad_field("settings.base_model", error) from error
    if not 0 <= given.get("seed", 0) < _SEEDS:
        raise bad_field("settings.seed", f"seed must be within 0-{_SEEDS - 1}, got {given['seed']}")
    own = replace(spec_for(kind, model.family, person, model.path, prompt), device=service.settings.device)
    try:
        own = with_preset(own, Preset(given.pop("preset", Preset.BALANCED)))
    except (SpecError, ValueError) as error:
        words = "must be fast, balanced or best, and is for people alone"
        raise bad_field("settings.preset", error if isinstance(error, SpecError) else words) from error
    try:
        return from_json(TrainSpec, _laid_over(to_json(own), given))
    except SpecError as error:
        raise refused_field(error, given, "settings") from error


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inside = merged.get(key)
        merged[key] = _laid_over(inside, value) if isinstance(inside, dict) and isinstance(value, dict) else value
    return merged


def _person_name(service: Service, owner: str, place: int, identifier: str | None) -> str | None:
    if identifier is None:
        return None
    try:
        return service.person(owner, identifier).name
    except NotFound as error:
        raise bad_field(f"people[{place}]", error) from error


def _templates(
    service: Service, raw: Sequence[Any], files: Sequence[Handed], behind: Sequence[Handed] = ()
) -> tuple[tuple[Path, ...], tuple[Input, ...]]:
    """Paths of all templates in the order they were named, uploads last, and the inputs that some of them are.

    What comes behind them is no template, and its paths are last.
    """
    sources = _sources(TemplateSource, raw, "templates")
    if not sources and not files:
        raise bad_field("templates", "there is no template; name at least one")
    if len(sources) + len(files) > service.options.limits.files:
        raise bad_field("templates", f"a request may have {service.options.limits.files} templates; send fewer")
    named = [_gallery_path(service, *entry) for entry in sources]
    own = [entry for entry, path in zip(sources, named) if path is None]
    pictures = (*gather(own, service.options), *files, *behind)
    refuse_unreadable(pictures, all_of_them=True)
    handed = inputs(pictures)
    uploaded = iter(_paths(handed))
    paths = [next(uploaded) if path is None else path for path in named]
    return (*paths, *uploaded), handed


def _gallery_path(service: Service, field: str, source: TemplateSource) -> Path | None:
    if source.gallery is None:
        return None
    try:
        return get_template(service.settings.templates, source.gallery).path
    except NotFound as error:
        raise bad_field(f"{field}.gallery", error) from error


def _drawn_seed(owner: str, key: str | None) -> int:
    """A seed at random; for a request with a key the same each time, so that a repeated request is the same."""
    if key is None:
        return secrets.randbelow(_SEEDS)
    return int.from_bytes(hashlib.sha256(f"{owner}\n{key}".encode()).digest()[:4], "big")


def _is_repeated(
    service: Service, owner: str, person: str, key: str | None, subject: TrainKind = TrainKind.PERSON
) -> bool:  # fmt: skip
    """The queue has a job of this key: it will say itself whether it is the same."""
    return key is not None and any(job.idempotency_key == key for job in service.store.jobs_of(owner, person, subject))


def _submit(
    service: Service, owner: str, key: str | None,
    wanted: PeopleRequest | ScenesRequest | ChecksRequest | PortraitsRequest,
    order: Order, handed: Sequence[Input],
) -> Job:  # fmt: skip
    if not LOWEST_PRIORITY <= wanted.priority <= HIGHEST_PRIORITY:
        said = f"priority must be within {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, got {wanted.priority}"
        raise bad_field("priority", said)
    if wanted.webhook is not None:
        try:
            check_url(wanted.webhook, service.options.allow_private_webhooks)
        except EasyPhotoError as error:
            raise bad_field("webhook", error) from error
    new = NewJob(order=order, owner=owner, priority=wanted.priority, idempotency_key=key, webhook=wanted.webhook)
    return service.store.submit(new, handed)
