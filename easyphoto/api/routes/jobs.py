"""Jobs: listed, looked at, followed, cancelled."""

from __future__ import annotations

import re
from dataclasses import replace

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from easyphoto.api import answers, examples, wire
from easyphoto.api.paging import CURSOR, LIMIT, checked_cursor
from easyphoto.api.routing import StrictRoute, owner_of, person_named, service_of
from easyphoto.api.service import Service
from easyphoto.api.threads import in_thread
from easyphoto.errors import NotFound
from easyphoto.jobs.store import JobQuery
from easyphoto.work import Job, JobKind, JobState

router = APIRouter(prefix=answers.PREFIX, route_class=StrictRoute, tags=["jobs"])
_SHOWN = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
"""Endings of a job's files that may be looked at; its order, its inputs and its log are nobody's business."""
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_EVENTS = """Server-sent events: `id` is the event's number, `event` its kind, `data` an Event; the last one is called `end`
and holds the Job. A comment comes after 15 s of silence. Begin after an event with `Last-Event-ID` or `after`."""


@router.get(
    "/jobs", summary="List jobs",
    responses={**answers.says(wire.JobPage, examples.JOBS, "Jobs, newest first."), **answers.refuses()},
)  # fmt: skip
async def list_jobs(
    request: Request, state: JobState | None = None, kind: JobKind | None = None,
    person: str | None = Query(None, max_length=200, description="Id or name of somebody the job is about."),
    limit: int = LIMIT, cursor: str | None = CURSOR,
) -> Response:  # fmt: skip
    """Everything that was handed in, whatever became of it."""
    service, owner = service_of(request), owner_of(request)
    query = JobQuery(owner=owner, state=state, kind=kind, person=person, before=checked_cursor(cursor), limit=limit + 1)
    return answers.record(await in_thread(_page, service, query))


@router.get(
    "/jobs/{job_id}", summary="Show a job",
    responses={**answers.says(Job, examples.TRAINING, "The job."), **answers.refuses(404)},
)  # fmt: skip
async def show(request: Request, job_id: str) -> Response:
    """Where a job stands."""
    # Right here instead of in a thread: one look into an index takes less than handing it over.
    return answers.record(service_of(request).store.get(job_id, owner_of(request)))


@router.get(
    "/jobs/{job_id}/events", summary="Follow a job", description=_EVENTS,
    response_class=Response,
    responses={
        **answers.says_events("Events until the job has ended.", examples.STREAM), **answers.refuses(404),
    },
)  # fmt: skip
async def events(
    request: Request, job_id: str, after: int | None = Query(None, ge=0, le=2**53)
) -> Response:  # fmt: skip
    """Everything that a job says, as it comes."""
    service = service_of(request)
    job = await in_thread(service.store.get, job_id, owner_of(request))
    said = request.headers.get("last-event-id", "")
    # What a browser sends after a break comes later than what its page asked for at first.
    begin = int(said) if said.isascii() and said.isdigit() and len(said) < 16 else after or 0
    return StreamingResponse(
        service.hub.stream(job, begin), media_type="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )  # fmt: skip


@router.get(
    "/jobs/{job_id}/files/{name}", summary="A picture of a running job",
    response_class=Response,
    responses={**answers.says_file("A preview.", *answers.PICTURES), **answers.refuses(304, 404)},
)  # fmt: skip
async def files(request: Request, job_id: str, name: str) -> Response:
    """A preview, as the job's progress and its events name it."""
    service = service_of(request)
    await in_thread(service.store.get, job_id, owner_of(request))
    media_type = _SHOWN.get("." + name.rpartition(".")[2].lower())
    if media_type is None or not _FILE.fullmatch(name):
        raise NotFound("this job has no picture of this name")
    return await answers.file(request, service.store.folder(job_id) / name, media_type)


@router.delete(
    "/jobs/{job_id}", summary="Cancel a job",
    responses={
        **answers.says(Job, examples.CANCELLED, "The job, which has ended, now or before."),
        **answers.says(Job, examples.TRAINING, "The job, which will stop soon.", 202),
        **answers.refuses(404, 507),
    },
)  # fmt: skip
async def cancel(request: Request, job_id: str) -> Response:
    """Stop a job; one that has ended stays as it is."""
    job = await in_thread(service_of(request).store.cancel, job_id, owner_of(request))
    return answers.record(job, 200 if job.state.ended else 202)


def _page(service: Service, query: JobQuery) -> wire.JobPage:
    if query.person is not None:
        query = replace(query, person=person_named(service, query.owner or "", query.person))
    found = service.store.list(query)
    items = found[: query.limit - 1]
    following = service.store.cursor(items[-1]) if len(found) > len(items) else None
    return wire.JobPage(items=items, next=following)
