"""Scenes and clothes: handed in, listed, renamed, deleted."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from easyphoto.api import answers, examples, intake, wire
from easyphoto.api.document import json_body, json_or_form
from easyphoto.api.paging import LIMIT, page_of
from easyphoto.api.problems import bad_field
from easyphoto.api.reading import Shape, read_request
from easyphoto.api.routing import StrictRoute, owner_of, service_of
from easyphoto.api.service import Service, scene_id
from easyphoto.api.threads import in_thread
from easyphoto.errors import NameRefused
from easyphoto.specs import Person
from easyphoto.store.paths import lora_name
from easyphoto.work import Job

router = APIRouter(prefix=answers.PREFIX, route_class=StrictRoute, tags=["scenes"])
_SCENES = Shape(record=wire.ScenesRequest, files="photos")
_CHANGE = Shape(record=wire.SceneChange)


@router.post(
    "/scenes", status_code=202, summary="Train a scene",
    responses={
        **answers.says(Job, examples.SCENE_TRAINING, "The training, which has been taken.", 202),
        **answers.refuses(404, 409, 413, 415, 507),
    },
    openapi_extra=json_or_form(wire.ScenesRequest, "photos", examples.SCENES_REQUEST),
)  # fmt: skip
async def train_scene(request: Request) -> Response:
    """Photos of one place, light or style, or of a garment; no face is wanted. The answer is a job.

    Captions come as `captions`, or as text files among the photos of a form (`beach.txt` for `beach.jpg`).
    """
    service = service_of(request)
    with service.uploads.folder() as folder:
        asked = await read_request(request, folder, service.options.limits, _SCENES)
        job = await in_thread(intake.scene, service, owner_of(request), asked)
    return answers.accepted(job)


@router.get(
    "/scenes", summary="List scenes",
    responses={**answers.says(wire.ScenePage, examples.SCENES, "Scenes and clothes, by name."), **answers.refuses()},
)  # fmt: skip
async def list_scenes(request: Request, limit: int = LIMIT, cursor: str | None = Query(None, max_length=400)) -> Response:
    """Every scene and garment that has been trained."""
    return answers.record(await in_thread(_page, service_of(request), owner_of(request), limit, cursor))


@router.get(
    "/scenes/{scene_id}", summary="Show a scene",
    responses={**answers.says(wire.SceneView, examples.SCENE, "The scene."), **answers.refuses(404)},
)  # fmt: skip
async def show_scene(request: Request, scene_id: str) -> Response:
    """One scene, with what calls it up in a prompt."""
    return answers.record(view(await in_thread(service_of(request).scene, owner_of(request), scene_id)))


@router.patch(
    "/scenes/{scene_id}", summary="Rename a scene",
    responses={
        **answers.says(wire.SceneView, examples.SCENE, "The scene as it is now; a new name makes a new id."),
        **answers.refuses(404, 409, 413, 415, 507),
    },
    openapi_extra=json_body(wire.SceneChange, examples.SCENE_CHANGE),
)  # fmt: skip
async def rename_scene(request: Request, scene_id: str) -> Response:
    """A new name."""
    service = service_of(request)
    asked = await read_request(request, Path(), service.options.limits, _CHANGE)
    return answers.record(await in_thread(_renamed, service, owner_of(request), scene_id, asked.data["name"]))


@router.delete(
    "/scenes/{scene_id}", summary="Delete a scene",
    responses={
        **answers.says(wire.Removed, examples.REMOVED, "Everything that was removed."), **answers.refuses(404, 409, 507),
    },
)  # fmt: skip
async def delete_scene(request: Request, scene_id: str, results: bool = False) -> Response:
    """Photos, LoRA, jobs and their logs; with `results` what its trainings left among the results too."""
    return answers.record(await in_thread(_deleted, service_of(request), owner_of(request), scene_id, results))


@router.get(
    "/scenes/{scene_id}/picture", summary="A scene's picture",
    response_class=Response,
    responses={**answers.says_file("What it looks like.", "image/png"), **answers.refuses(304, 404)},
)  # fmt: skip
async def picture(request: Request, scene_id: str) -> Response:
    """The last picture that was made with it while it was trained, or else the first of its photos."""
    scene = await in_thread(service_of(request).scene, owner_of(request), scene_id)
    return await answers.file(request, scene.face_id_picture, "image/png")


def view(scene: Person) -> wire.SceneView:
    """A scene as it is shown."""
    return wire.SceneView(
        id=scene_id(scene), name=scene.name, kind=scene.kind, family=scene.family, created=scene.created, photos=scene.photos,
        prompt=scene.prompt, lora=lora_name(scene.name),
    )  # fmt: skip


def _page(service: Service, owner: str, limit: int, cursor: str | None) -> wire.ScenePage:
    found = sorted(service.scenes(owner), key=_order)
    items, following = page_of(found, [_order(scene) for scene in found], limit, cursor)
    return wire.ScenePage(items=tuple(map(view, items)), next=following)


def _order(scene: Person) -> str:
    return f"{scene.name.casefold()}\n{scene_id(scene)}"


def _renamed(service: Service, owner: str, identifier: str, name: str) -> wire.SceneView:
    scene = service.scene(owner, identifier)
    try:
        return view(service.app(owner).shelf(scene.kind).rename(scene.name, name))
    except NameRefused as error:
        raise bad_field("name", error) from error


def _deleted(service: Service, owner: str, identifier: str, results: bool) -> wire.Removed:
    from easyphoto.privacy.erase import erase_person

    name, kind = service.scene_for_deletion(owner, identifier)
    return wire.Removed(removed=erase_person(service.app(owner), service.store, name, results, subject=kind).removed)
