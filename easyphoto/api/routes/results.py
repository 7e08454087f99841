"""Results: listed, looked at, fetched, deleted."""

from __future__ import annotations

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from easyphoto.api import answers, examples, wire
from easyphoto.api.paging import CURSOR, LIMIT, checked_cursor
from easyphoto.api.routing import StrictRoute, owner_of, person_named, service_of
from easyphoto.api.service import Service
from easyphoto.api.threads import in_thread
from easyphoto.errors import NotFound
from easyphoto.work import JobResult

router = APIRouter(prefix=answers.PREFIX, route_class=StrictRoute, tags=["results"])
_ANY = "application/octet-stream"


@router.get(
    "/results", summary="List results",
    responses={**answers.says(wire.ResultPage, examples.RESULTS, "Results, newest first."), **answers.refuses()},
)  # fmt: skip
async def list_results(
    request: Request, person: str | None = Query(None, max_length=200, description="Id or name of somebody it shows."),
    limit: int = LIMIT, cursor: str | None = CURSOR,
) -> Response:  # fmt: skip
    """What finished jobs left."""
    before = checked_cursor(cursor)
    return answers.record(await in_thread(_page, service_of(request), owner_of(request), person, before, limit))


@router.get(
    "/results/{result_id}", summary="Show a result",
    responses={**answers.says(JobResult, examples.RESULT, "The result."), **answers.refuses(304, 404)},
)  # fmt: skip
async def show(request: Request, result_id: str) -> Response:
    """What a job left; its id is the job's."""
    return answers.tagged(request, await in_thread(service_of(request).store.result, result_id, owner_of(request)))


@router.get(
    "/results/{result_id}/files/{name}", summary="A file of a result",
    response_class=Response,
    responses={**answers.says_file("The file.", *answers.PICTURES, _ANY), **answers.refuses(304, 404)},
)  # fmt: skip
async def files(request: Request, result_id: str, name: str) -> Response:
    """One picture, with its parameters inside."""
    service, owner = service_of(request), owner_of(request)
    result = await in_thread(service.store.result, result_id, owner)
    for entry in result.files:
        if entry.name == name:
            folder = await in_thread(service.store.result_folder, result_id, owner)
            return await answers.file(request, folder / entry.name, entry.media_type, entry.sha256)
    raise NotFound("this result has no file of this name; GET /easyphoto/v1/results/{result_id} lists those it has")


@router.delete(
    "/results/{result_id}", summary="Delete a result",
    responses={**answers.says(wire.Removed, examples.REMOVED, "Everything that was removed."), **answers.refuses(404, 507)},
)  # fmt: skip
async def delete(request: Request, result_id: str) -> Response:
    """The result with all its files; the job stays in the list."""
    return answers.record(await in_thread(_deleted, service_of(request), owner_of(request), result_id))


def _page(service: Service, owner: str, person: str | None, before: str | None, limit: int) -> wire.ResultPage:
    name = None if person is None else person_named(service, owner, person)
    found: tuple[JobResult, ...] = service.store.results(owner=owner, person=name, before=before, limit=limit + 1)
    items = found[:limit]
    following = service.store.result_cursor(items[-1]) if len(found) > limit else None
    return wire.ResultPage(items=items, next=following)


def _deleted(service: Service, owner: str, identifier: str) -> wire.Removed:
    root = service.settings.home
    files = service.store.forget_result(identifier, owner)
    return wire.Removed(removed=tuple(path.relative_to(root).as_posix() for path in files))
