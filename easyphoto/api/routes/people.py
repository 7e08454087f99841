"""People: handed in, listed, changed, deleted; and photos that are only judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from easyphoto.api import answers, examples, intake, wire
from easyphoto.api.document import json_body, json_or_form
from easyphoto.api.paging import LIMIT, page_of
from easyphoto.api.problems import bad_field
from easyphoto.api.reading import Shape, make, read_request
from easyphoto.api.routing import StrictRoute, owner_of, service_of
from easyphoto.api.service import Service
from easyphoto.api.threads import in_thread
from easyphoto.errors import EasyPhotoError, NameRefused, SpecError
from easyphoto.orders import Consent
from easyphoto.records import Verdict
from easyphoto.specs import Person
from easyphoto.store.codec import from_json
from easyphoto.store.people import PeopleStore
from easyphoto.work import Job

router = APIRouter(prefix=answers.PREFIX, route_class=StrictRoute, tags=["people"])
_PEOPLE = Shape(record=wire.PeopleRequest, files="photos")
_CHECKS = Shape(record=wire.ChecksRequest, files="photos")
_CHANGE = Shape(record=wire.PersonChange)


@router.post(
    "/people", status_code=202, summary="Train a person",
    responses={
        **answers.says(Job, examples.TRAINING, "The training, which has been taken.", 202),
        **answers.refuses(404, 409, 413, 415, 507),
    },
    openapi_extra=json_or_form(wire.PeopleRequest, "photos", examples.PEOPLE_REQUEST),
)  # fmt: skip
async def train(request: Request) -> Response:
    """Photos of one person, as files of a form, in base64, or by their address; the answer is a job."""
    service = service_of(request)
    with service.uploads.folder() as folder:
        asked = await read_request(request, folder, service.options.limits, _PEOPLE)
        job = await in_thread(intake.train, service, owner_of(request), asked)
    return answers.accepted(job)


@router.post(
    "/checks", status_code=202, summary="Judge photos",
    responses={
        **answers.says(Job, examples.WAITING, "The check, which has been taken; its result has the verdicts.", 202),
        **answers.refuses(409, 413, 415, 507),
    },
    openapi_extra=json_or_form(wire.ChecksRequest, "photos", examples.CHECKS_REQUEST),
)  # fmt: skip
async def check(request: Request) -> Response:
    """As for a training, and nothing is trained: which photos would be taken, and why not the others."""
    service = service_of(request)
    with service.uploads.folder() as folder:
        asked = await read_request(request, folder, service.options.limits, _CHECKS)
        job = await in_thread(intake.check, service, owner_of(request), asked)
    return answers.accepted(job)


@router.get(
    "/people", summary="List people",
    responses={**answers.says(wire.PersonPage, examples.PEOPLE, "People, by name."), **answers.refuses()},
)  # fmt: skip
async def list_people(request: Request, limit: int = LIMIT, cursor: str | None = Query(None, max_length=400)) -> Response:
    """Everybody who has been trained."""
    return answers.record(await in_thread(_page, service_of(request), owner_of(request), limit, cursor))


@router.get(
    "/people/{person_id}", summary="Show a person",
    responses={**answers.says(wire.PersonView, examples.PERSON, "The person."), **answers.refuses(404)},
)  # fmt: skip
async def show(request: Request, person_id: str) -> Response:
    """One person."""
    return answers.record(await in_thread(_shown, service_of(request), owner_of(request), person_id))


@router.patch(
    "/people/{person_id}", summary="Change a person",
    responses={
        **answers.says(wire.PersonView, examples.PERSON, "The person as they are now; a new name makes a new id."),
        **answers.refuses(404, 409, 413, 415, 507),
    },
    openapi_extra=json_body(wire.PersonChange, examples.PERSON_CHANGE),
)  # fmt: skip
async def change(request: Request, person_id: str) -> Response:
    """A new name, or a new note of consent; null takes the consent back."""
    service = service_of(request)
    asked = await read_request(request, Path(), service.options.limits, _CHANGE)
    return answers.record(await in_thread(_changed, service, owner_of(request), person_id, asked.data))


@router.delete(
    "/people/{person_id}", summary="Delete a person",
    responses={
        **answers.says(wire.Removed, examples.REMOVED, "Everything that was removed."), **answers.refuses(404, 409, 507),
    },
)  # fmt: skip
async def delete(request: Request, person_id: str, results: bool = False) -> Response:
    """Photos, crops, embeddings, LoRA, jobs and their logs; with `results` the finished pictures too."""
    return answers.record(await in_thread(_deleted, service_of(request), owner_of(request), person_id, results))


@router.get(
    "/people/{person_id}/photos", summary="Verdicts on a person's photos",
    responses={**answers.says(wire.VerdictPage, examples.VERDICTS, "One verdict for each photo."), **answers.refuses(404)},
)  # fmt: skip
async def photos(request: Request, person_id: str) -> Response:
    """What became of each photo that was handed in."""
    return answers.record(await in_thread(_verdicts, service_of(request), owner_of(request), person_id))


@router.get(
    "/people/{person_id}/reference", summary="A person's reference photo",
    response_class=Response,
    responses={**answers.says_file("The crop of the best photo.", "image/png"), **answers.refuses(304, 404)},
)  # fmt: skip
async def reference(request: Request, person_id: str) -> Response:
    """The photo that portraits are fused from."""
    person = await in_thread(service_of(request).person, owner_of(request), person_id)
    return await answers.file(request, person.reference, "image/png")


def view(people: PeopleStore, person: Person) -> wire.PersonView:
    """A person as they are shown."""
    return wire.PersonView(
        id=person.person_id, name=person.name, family=person.family, created=person.created, score=person.score,
        photos=person.photos, consent=people.consent(person.name),
    )  # fmt: skip


def _page(service: Service, owner: str, limit: int, cursor: str | None) -> wire.PersonPage:
    people = service.people(owner)
    everyone = sorted(people.list(), key=_order)
    items, following = page_of(everyone, [_order(person) for person in everyone], limit, cursor)
    return wire.PersonPage(items=tuple(view(people, person) for person in items), next=following)


def _order(person: Person) -> str:
    return f"{person.name.casefold()}\n{person.person_id}"


def _shown(service: Service, owner: str, identifier: str) -> wire.PersonView:
    return view(service.people(owner), service.person(owner, identifier))


def _changed(service: Service, owner: str, identifier: str, data: dict[str, object]) -> wire.PersonView:
    people, person = service.people(owner), service.person(owner, identifier)
    name, consent = data.get("name"), data.get("consent")
    wanted = None if consent is None else make(Consent, consent, "consent")
    if isinstance(name, str) and name != person.name:
        try:
            person = people.rename(person.name, name)
        except NameRefused as error:
            raise bad_field("name", error) from error
    if "consent" in data:
        people.set_consent(person.name, wanted)
    return view(people, person)


def _deleted(service: Service, owner: str, identifier: str, results: bool) -> wire.Removed:
    from easyphoto.privacy.erase import erase_person

    name = service.name_for_deletion(owner, identifier)
    return wire.Removed(removed=erase_person(service.app(owner), service.store, name, results).removed)


def _verdicts(service: Service, owner: str, identifier: str) -> wire.VerdictPage:
    person = service.person(owner, identifier)
    path = service.people(owner).verdicts_path(person.name)
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        items: Sequence[Verdict] = [from_json(Verdict, entry) for entry in loaded]
    except (OSError, ValueError, TypeError, RecursionError, SpecError) as error:
        raise EasyPhotoError(f"the verdicts of {person.name} cannot be read ({error}); train the person again") from error
    return wire.VerdictPage(items=tuple(items), next=None)
