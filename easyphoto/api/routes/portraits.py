"""Portraits: people put into templates."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from easyphoto.api import answers, examples, intake, wire
from easyphoto.api.document import json_or_form
from easyphoto.api.reading import Shape, read_request
from easyphoto.api.routing import StrictRoute, owner_of, service_of
from easyphoto.api.threads import in_thread
from easyphoto.work import Job

router = APIRouter(prefix=answers.PREFIX, route_class=StrictRoute, tags=["portraits"])
_SHAPE = Shape(record=wire.PortraitsRequest, files="templates", whole="request")


@router.post(
    "/portraits", status_code=202, summary="Make portraits",
    responses={
        **answers.says(Job, examples.WAITING, "The portraits, which have been taken.", 202),
        **answers.refuses(404, 409, 413, 415, 507),
    },
    openapi_extra=json_or_form(wire.PortraitsRequest, "templates", examples.PORTRAITS_REQUEST, whole="request"),
)  # fmt: skip
async def make_portraits(request: Request) -> Response:
    """Templates of the gallery, as files of a form, in base64, or by their address; the answer is a job."""
    service = service_of(request)
    with service.uploads.folder() as folder:
        asked = await read_request(request, folder, service.options.limits, _SHAPE)
        job = await in_thread(intake.portraits, service, owner_of(request), asked)
    return answers.accepted(job)
