"""What the older extension's requests ask for, handed in as jobs of our queue."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from easyphoto.api.legacy_fields import (
    Answered,
    Fields,
    gallery_name,
    lora_tags,
    portrait_notes,
    portrait_settings,
    scene_prompt,
    tab,
    train_kind,
    train_notes,
    train_spec,
    user_id,
    user_ids,
    wants_scores,
)
from easyphoto.api.pictures import inputs, refuse_unreadable
from easyphoto.api.sources import SourceOptions, fetch_picture
from easyphoto.api.uploads import Handed
from easyphoto.errors import NameRefused, NotFound, PhotoError, SpecError
from easyphoto.jobs.store import Input, NewJob
from easyphoto.kinds import spec_for
from easyphoto.orders import PortraitOrder, TrainOrder
from easyphoto.records import TrainKind
from easyphoto.store.named_loras import find_lora, tags_in
from easyphoto.store.templates import get_template
from easyphoto.work import Job, JobKind

if TYPE_CHECKING:
    from easyphoto.api.service import BaseModel, Service

_GALLERY_TEXT = 512
"""Characters; a longer text is a picture, not the name of one."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A job that was handed in for a request."""

    job: Job
    notes: tuple[str, ...]
    """Lines for the end of the message."""
    scores: bool = False
    """The answer shows how near each face came."""


def start_training(service: Service, owner: str, fields: Fields) -> Begun:
    """Hand in the training of a person.

    Raises:
        Answered: That extension would refuse it, in its words.
        EasyPhotoError: Anything else that speaks against it.
    """
    name = user_id(fields)
    kind = train_kind(fields)
    _refuse_known(service, owner, name, kind)
    sources = fields.items("instance_images")
    if not sources:
        raise Answered("Please upload training photos.")
    base = _base_model(service, fields)
    own = spec_for(kind, base.family, name, base.path, scene_prompt(fields))
    spec = train_spec(fields, replace(own, device=service.settings.device))
    photos = _pictures(service, sources, "photo")
    refuse_unreadable(photos, all_of_them=False)
    handed = inputs(photos)
    order = TrainOrder(
        photos=tuple(Path("inputs", item.name) for item in handed),
        spec=spec,
        retouch=fields.flag("skin_retouching_bool", False),
    )
    return Begun(job=service.store.submit(NewJob(order=order, owner=owner), handed), notes=train_notes(fields))


def start_portraits(service: Service, owner: str, fields: Fields) -> Begun:
    """Hand in portraits.

    Raises:
        Answered: That extension would refuse them, in its words.
        EasyPhotoError: Anything else that speaks against them.
    """
    if fields.text("ref_mode_choose", "") == "Infer without User Lora":
        raise SpecError("faces cannot be made without a trained user id here yet; train one first")
    people = user_ids(fields)
    _refuse_unknown(service, owner, people)
    # All of one family, or the job says that they do not fit together.
    family = next(service.people(owner).get(name).family for name in people if name)
    tags, left = _known_tags(service, owner, lora_tags(fields))
    settings = portrait_settings(fields, family)
    settings = replace(settings, prompt=", ".join(part for part in (settings.prompt, *tags) if part))
    own = _pictures(service, fields.items("ipa_image"), "ipa_image")[:1] if settings.id_control else ()
    templates, handed = _templates(service, fields, own)
    picture = Path("inputs", handed[-1].name) if own else None
    order = PortraitOrder(templates=templates, people=people, id_picture=picture, **vars(settings))
    job = service.store.submit(NewJob(order=order, owner=owner), handed)
    return Begun(job=job, notes=(*portrait_notes(fields, family), *left), scores=wants_scores(fields))


def _known_tags(service: Service, owner: str, tags: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The tags that can be followed here, and a line about the others."""
    app = service.app(owner)
    shelves, known = (app.shelf(TrainKind.SCENE), app.shelf(TrainKind.CLOTH)), []
    for tag in tags:
        with suppress(SpecError):
            [(name, _)] = tags_in(tag)
            if app.shared.reads_tags or find_lora(name, shelves, service.settings.lora_folder):
                known.append(tag)
    others = [tag for tag in tags if tag not in known]
    return known, (f"{', '.join(others)} of additional_prompt is not available here and was left out.",) if others else ()


def _base_model(service: Service, fields: Fields) -> BaseModel:
    """The checkpoint of that name, where there is one, as in a WebUI; else the server's own."""
    named = fields.text("sd_model_checkpoint", "")
    return next((model for model in service.models() if model.id == named), None) or service.model(None)


def _refuse_unknown(service: Service, owner: str, people: Sequence[str | None]) -> None:
    try:
        for name in filter(None, people):
            service.people(owner).get(name)
    except (NotFound, NameRefused) as error:
        raise Answered("User id is not exist.") from error


def _refuse_known(service: Service, owner: str, name: str, kind: TrainKind) -> None:
    """That extension trains nobody, and nothing, twice under one name."""
    with suppress(NotFound):
        service.app(owner).shelf(kind).get(name)
        raise Answered("User id non-repeatability.")
    if any(job.kind is JobKind.TRAINING and not job.state.ended for job in service.store.jobs_of(owner, name, kind)):
        raise Answered("User id non-repeatability.")


def _templates(
    service: Service, fields: Fields, behind: Sequence[Handed] = ()
) -> tuple[tuple[Path, ...], tuple[Input, ...]]:
    """Where the templates lie, and those of them that came with the request; what comes behind them is none."""
    chosen = tab(fields)
    if chosen == 3:
        raise SpecError("pictures cannot be made from text here yet; send a template")
    named = {0: "selected_template_images", 1: "init_image", 2: "uploaded_template_images"}
    sources = fields.items(named[chosen]) if chosen in named else ()
    if not sources:
        raise Answered("Please choose or upload a template.")
    gallery = [_of_gallery(service, source) if chosen == 0 else None for source in sources]
    sent = _pictures(service, [source for source, path in zip(sources, gallery) if path is None], "template")
    refuse_unreadable((*sent, *behind), all_of_them=True)
    handed = inputs((*sent, *behind))
    uploaded = iter(handed)
    return tuple(path or Path("inputs", next(uploaded).name) for path in gallery), handed


def _of_gallery(service: Service, source: object) -> Path | None:
    """The gallery's template that a name or a path speaks of; only its last part counts. None for a picture itself."""
    if not isinstance(source, str) or len(source) > _GALLERY_TEXT or source.startswith(("http:", "https:", "data:")):
        return None
    try:
        return get_template(service.settings.templates, gallery_name(source)).path.absolute()
    except NotFound as error:
        raise Answered("Please choose or upload a template.") from error


def _pictures(service: Service, sources: Sequence[object], label: str) -> tuple[Handed, ...]:
    """The pictures of a request, each under a name that verdicts and messages know it by."""
    most = service.options.limits.files
    if len(sources) > most:
        raise SpecError(f"a request may hold {most} pictures, this one has {len(sources)}; send fewer")
    return tuple(_picture(service, source, f"{label}-{number}") for number, source in enumerate(sources, start=1))


def _picture(service: Service, source: object, label: str) -> Handed:
    """A file in base64, with or without `data:` before it, or at a web address where that is allowed."""
    most = service.options.limits.file_bytes
    text = source if isinstance(source, str) else ""
    if text.startswith(("http://", "https://")):
        name, data = fetch_picture(text, SourceOptions(allow_urls=service.options.allow_urls, max_bytes=most))
        return Handed(label=name, data=data, field=label)
    try:
        # Line breaks are passed over, as that extension does.
        data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)
    except (binascii.Error, ValueError) as error:
        raise PhotoError(f"{label} is no picture in base64; encode the picture's file") from error
    if len(data) > most:
        raise PhotoError(f"{label} has {len(data):,} bytes, {most:,} are allowed; make it smaller")
    return Handed(label=f"{label}.jpg", data=data, field=label)
