"""A portrait from request to picture: plan, for each picture and each face the two passes, then the finish."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from easyphoto.engine.base import Engine
from easyphoto.events import Listener, ignore
from easyphoto.faces.makeup import transfer_makeup
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging.geometry import move_face
from easyphoto.portrait import background, finishing, outcome, stages
from easyphoto.portrait.enlarge import enlarge
from easyphoto.portrait.id_control import with_id_prompt
from easyphoto.portrait.plan import PortraitPlan, Scene, Slot, make_plan, make_scene, with_face
from easyphoto.portrait.pose import pose_map
from easyphoto.portrait.progress import Progress, Show, show_nobody
from easyphoto.portrait.references import Materials, fuse_reference, load_materials
from easyphoto.records import Face, LoraUse, Photo, Pixels
from easyphoto.specs import PortraitRequest, PortraitResult

_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True, eq=False)
class Studio:
    """What all pictures of one request share."""

    plan: PortraitPlan
    people: tuple[Materials, ...]
    """One for each slot of the plan."""
    engine: Engine
    tools: FaceTools


def run(
    request: PortraitRequest, engine: Engine, tools: FaceTools, listener: Listener = ignore, show: Show = show_nobody
) -> tuple[PortraitResult, ...]:
    """Make the pictures of a request; picture i uses seed + i.

    Args:
        request: Who goes where, and how.
        engine: Paints.
        tools: Find, compare and fuse faces.
        listener: Told of every step; may raise Cancelled.
        show: Shown each face after every stage that changed it.

    Raises:
        TemplateError: See `plan.make_plan`.
        LoraError: A LoRA is broken or of another model.
        ToolMissing: The base model lacks every ControlNet that was asked for.
        NotFound: A file of a person is gone.
        PhotoError: A person's reference cannot be used any more.
    """
    progress = Progress(listener, show=show)
    with progress.stage("plan"):
        plan = make_plan(request, engine, tools)
        people = tuple(with_id_prompt(load_materials(slot.person, tools), request, tools) for slot in plan.slots)
    studio = Studio(plan=plan, people=people, engine=engine, tools=tools)
    seeds = [(request.seed + i) % _SEEDS for i in range(request.count)]
    return tuple(_picture(studio, seed, progress.for_picture(i, request.count)) for i, seed in enumerate(seeds))


def _picture(studio: Studio, seed: int, progress: Progress) -> PortraitResult:
    """One picture: every face in turn, on what the faces before it left."""
    plan, template = studio.plan, studio.plan.request.template
    current, changed, painted = template, np.zeros(template.pixels.shape[:2], np.float32), []
    for slot, person in zip(plan.slots, studio.people):
        scene = make_scene(
            current, slot.face, plan.family, plan.request.crop_ratio, slot.others, whole=not plan.request.crop_face
        )
        face = _paint(studio, scene, slot, person, seed, progress)
        with progress.stage("paste back"):
            pixels, mask = finishing.paste(face.scene, face.steps[-1][1])
            pixels = finishing.retouched(pixels, face.likeness, mask, plan.request.retouch, studio.tools.retoucher)
        current, changed = Photo(pixels=pixels, name=template.name), np.maximum(changed, mask)
        painted.append((slot, face.steps))
    if plan.background:
        with progress.stage("background"):
            heads = studio.tools.faces(template)
            pixels, mask = background.restore(plan, current.pixels, heads, studio.engine, seed, progress.step)
        current, changed = Photo(pixels=pixels, name=template.name), np.maximum(changed, mask)
    with progress.stage("score"):
        faces = tuple(outcome.face_outcome(current, slot, steps, studio.tools) for slot, steps in painted)
    return PortraitResult(
        picture=_enlarged(studio, current, progress), changed=outcome.grey(changed, template.name), seed=seed, faces=faces,
        infotext=outcome.infotext(plan, studio.engine.name, seed), seconds=progress.seconds, warnings=plan.warnings,
    )  # fmt: skip


def _enlarged(studio: Studio, picture: Photo, progress: Progress) -> Photo:
    wanted = studio.plan.request.super_resolution
    if wanted is None:
        return picture
    with progress.stage("super resolution"):
        pixels = enlarge(picture, studio.plan.enlarger, wanted.ratio, studio.engine, studio.tools, progress.step)
    return Photo(pixels=pixels, name=picture.name)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Painted:
    """One face when its passes are done."""

    scene: Scene
    """Where it goes back."""
    likeness: Face
    """The person's face in the picture's coordinates."""
    steps: outcome.Steps
    """(name, crop) of every stage."""


def _paint(studio: Studio, template: Scene, slot: Slot, person: Materials, seed: int, progress: Progress) -> _Painted:
    """One face, from the template's crop to its last stage."""
    request, crop, scene = studio.plan.request, template.crop, template
    words = _words(studio.plan, slot, person, seed)
    with progress.stage("fuse"):
        fused = _fused(studio, scene, slot, person, crop.photo.pixels, request.fuse_before)
        likeness = scene.crop.face
        if slot.fuse:
            # Where the photo has been fused in, its own expression is held; else the face_id picture lends its proportions.
            source = person.reference_face if request.fuse_before else person.face_id
            likeness = studio.tools.fuser.fused_face(source, crop.face)
        pose = pose_map(crop, likeness, scene.first_size)
        scene = with_face(scene, likeness)
        progress.show("fused", fused)
    with progress.stage("first pass"):
        job = stages.first_job(scene, fused, pose, words, studio.plan.first, whole=request.face_shape_match)
        first = stages.resize(studio.engine.inpaint(job, progress.step), crop.photo.width)
        if request.face_shape_match:
            scene, first = stages.match_shape(scene, fused, first, outcome.nearest_face(first, scene.crop.face, studio.tools))
        progress.show("first pass", first)
    with progress.stage("fuse again"):
        toned = finishing.match_tone(scene, first) if request.color_shift_first else first
        held = _fused(studio, scene, slot, person, toned, request.fuse_after)
    steps = [("original", crop.photo.pixels), ("fused", fused), ("first pass", first)]
    if studio.plan.second:
        with progress.stage("second pass"):
            held = studio.engine.inpaint(stages.second_job(scene, held, words, studio.plan.second), progress.step)
        progress.show("second pass", held)
        steps.append(("second pass", held))
    with progress.stage("paste back"):
        toned = finishing.match_tone(scene, held) if request.color_shift_last else held
        example = template.crop
        steps.append(("result", transfer_makeup(toned, scene.crop.face, example.photo.pixels, example.face, request.makeup)))
    own = move_face(scene.crop.face, crop.inverse)
    return _Painted(scene=replace(template, reach=scene.reach), likeness=own, steps=tuple(steps))


def _fused(studio: Studio, scene: Scene, slot: Slot, person: Materials, pixels: Pixels, share: float) -> Pixels:
    """The crop with the person's photo laid over its face, where that can be done."""
    if not slot.fuse:
        return pixels
    return fuse_reference(person, Photo(pixels=pixels, name=scene.picture.name), scene.crop.face, share, studio.tools)


def _words(plan: PortraitPlan, slot: Slot, person: Materials, seed: int) -> stages.Words:
    lora = LoraUse(path=slot.person.lora, weight=plan.request.lora_weight)
    loras = (lora, *plan.request.loras)
    return stages.Words(
        prompt=plan.prompt, negative=plan.negative, guidance=plan.guidance, loras=loras, seed=seed, lcm=plan.request.lcm,
        likeness=person.id_prompt,
    )  # fmt: skip
