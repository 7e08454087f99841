"""The server itself: its templates and models, its health, its figures, its document."""

from __future__ import annotations

import mimetypes

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from easyphoto.api import answers, examples, wire
from easyphoto.api.document import describe
from easyphoto.api.metrics import CONTENT_TYPE
from easyphoto.api.paging import CURSOR, LIMIT, page_of
from easyphoto.api.routing import StrictRoute, service_of
from easyphoto.api.threads import in_thread
from easyphoto.store.templates import Template, get_template, list_templates

router = APIRouter(prefix=answers.PREFIX, route_class=StrictRoute, tags=["server"])


@router.get(
    "/templates", summary="List templates",
    responses={**answers.says(wire.TemplatePage, examples.TEMPLATES, "The gallery, in order."), **answers.refuses(404)},
)  # fmt: skip
async def list_gallery(request: Request, limit: int = LIMIT, cursor: str | None = CURSOR) -> Response:
    """Pictures that people can be put into."""
    gallery = await in_thread(list_templates, service_of(request).settings.templates)
    places = [f"{place:06d}" for place in range(len(gallery))]
    items, following = page_of(gallery, places, limit, cursor)
    return answers.record(wire.TemplatePage(items=tuple(map(_view, items)), next=following))


@router.get(
    "/templates/{name}", summary="A template's picture",
    response_class=Response,
    responses={**answers.says_file("The picture.", *answers.PICTURES, "image/bmp", "image/tiff"), **answers.refuses(304, 404)},
)  # fmt: skip
async def template(request: Request, name: str) -> Response:
    """The picture itself."""
    found = await in_thread(get_template, service_of(request).settings.templates, name)
    media_type = mimetypes.guess_type(found.path.name)[0] or "application/octet-stream"
    return await answers.file(request, found.path, media_type)


@router.get(
    "/models", summary="List base models",
    responses={**answers.says(wire.ModelPage, examples.MODELS, "Base models, the server's own first."), **answers.refuses()},
)  # fmt: skip
async def list_models(request: Request) -> Response:
    """What trainings can be made on."""
    service = service_of(request)
    models = await in_thread(service.models)
    views = tuple(wire.ModelView(id=model.id, family=model.family, default=model is models[0]) for model in models)
    return answers.record(wire.ModelPage(items=views, next=None))


@router.get(
    "/health", summary="Whether the server answers",
    responses={**answers.says(wire.Health, examples.HEALTH, "It does."), **answers.refuses()},
)  # fmt: skip
async def health() -> Response:
    """Needs no token, and tells nothing else."""
    return answers.record(wire.Health(status="ok"))


@router.get(
    "/metrics", summary="Figures for Prometheus",
    response_class=Response,
    responses={**answers.says_text("text/plain", "Prometheus' text format.", examples.FIGURES), **answers.refuses()},
)  # fmt: skip
async def metrics(request: Request) -> Response:
    """Jobs by kind and state, how long they waited and took, requests, and whether the worker lives."""
    text = await in_thread(service_of(request).metrics.text)
    return Response(text, media_type=CONTENT_TYPE)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The OpenAPI document; made at the first request, which takes about a third of a second."""
    state = request.app.state
    if not hasattr(state, "described"):
        state.described = JSONResponse(describe(request.app, service_of(request).options.limits)).body
    return Response(state.described, media_type="application/json")


def _view(template: Template) -> wire.TemplateView:
    return wire.TemplateView(name=template.name, sex=template.sex, age=template.age, words=template.words)
