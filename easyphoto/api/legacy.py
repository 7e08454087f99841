"""The three routes of the older EasyPhoto extension, on our queue: its clients go on working as they are.

A request waits until its job has ended, as it does there; whoever hangs up earlier finds the job under /easyphoto/v1/jobs.
The answer is always 200 and an error stands in its `message`; only tokens and limits are refused as on all routes. What the
fields mean here is told in `legacy_fields`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from easyphoto.api.legacy_answers import (
    INFER_ERROR,
    NO_VIDEO,
    TRAIN_ERROR,
    Answer,
    infer_answer,
    inferred,
    train_answer,
    trained,
    video_answer,
)
from easyphoto.api.legacy_fields import Answered, Fields
from easyphoto.api.legacy_orders import Begun, start_portraits, start_training
from easyphoto.api.problems import Refused
from easyphoto.api.routing import owner_of
from easyphoto.api.stream import waited
from easyphoto.api.threads import in_thread
from easyphoto.errors import EasyPhotoError, NotFound
from easyphoto.work import Job

if TYPE_CHECKING:
    from easyphoto.api.service import Service

_LOOK = 1.0
"""Seconds between two looks whether the client is still there."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the routes that hand a job in and wait for it."""

    start: Callable[[Service, str, Fields], Begun]
    done: Callable[[Service, Begun, Job], Answer]
    plain: Callable[[str], Answer]
    """The answer with a message alone."""
    error: str
    """What an error's message begins with."""


_TRAIN = Kind(start=start_training, done=trained, plain=train_answer, error=TRAIN_ERROR)
_INFER = Kind(start=start_portraits, done=inferred, plain=infer_answer, error=INFER_ERROR)


def add_routes(router: APIRouter | FastAPI, service: Service) -> None:
    """Put the three routes below `/easyphoto`; the OpenAPI document leaves them out, for nobody should start with them."""

    async def train(request: Request) -> Response:
        return await _serve(request, service, _TRAIN)

    async def infer(request: Request) -> Response:
        return await _serve(request, service, _INFER)

    async def video(request: Request) -> Response:
        await _fields(request, service)
        return _response(video_answer(NO_VIDEO))

    for name, route in (("train", train), ("infer", infer), ("video_infer", video)):
        router.add_api_route(f"/easyphoto/easyphoto_{name}_forward", route, methods=["POST"], include_in_schema=False)


async def _serve(request: Request, service: Service, kind: Kind) -> Response:
    """Hand a job in, wait for its end, and answer with it."""
    fields = await _fields(request, service)
    try:
        begun = await in_thread(kind.start, service, owner_of(request), fields)
        job = await _end_of(request, service, begun.job)
    except Refused:
        raise
    except Answered as answered:
        return _response(kind.plain(str(answered)))
    except EasyPhotoError as error:
        return _response(kind.plain(f"{kind.error}{error}"))
    if job is None:
        return _response(kind.plain(f"{kind.error}the server stops; the job goes on when it runs again."))
    return await in_thread(lambda: _response(kind.done(service, begun, job)))


async def _fields(request: Request, service: Service) -> Fields:
    """The body, whatever its Content-Type says: those clients send none.

    Raises:
        Refused: 400 if it is no JSON object, 413 if it has too many parts.
    """
    data = await request.body()
    most = service.options.limits.json_parts
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most:
        raise Refused(413, f"the JSON has more than {most:,} parts; send less at once")
    try:
        body = await in_thread(json.loads, data)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is no JSON; send a JSON object in UTF-8") from error
    if not isinstance(body, dict):
        raise Refused(400, "the body is no JSON object; send one with the fields of the request")
    return Fields(body)


async def _end_of(request: Request, service: Service, job: Job) -> Job | None:
    """The job when it has ended; None if nobody waits for it any more, and then it goes on alone.

    Raises:
        NotFound: It was deleted.
    """
    with service.hub.follow(job) as feed:
        while True:
            changed = feed.changed
            try:
                job = await in_thread(service.store.get, job.id)
            except NotFound as error:
                raise NotFound("the job was deleted before it ended; hand it in again") from error
            if job.state.ended:
                return job
            await waited(changed, _LOOK)
            if service.hub.closed or await request.is_disconnected():
                return None


def _response(answer: Answer) -> Response:
    return Response(json.dumps(answer).encode("utf-8"), media_type="application/json")
