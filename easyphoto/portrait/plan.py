"""Everything is settled here before anything is computed: which face becomes whom, what is used, what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from easyphoto.engine.base import Engine
from easyphoto.errors import LoraError, TemplateError, ToolMissing
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES, Family, FamilyProfile, PassRow
from easyphoto.imaging.geometry import Crop, crop_square, crop_whole, move_face, roll_of
from easyphoto.imaging.head import head_turn
from easyphoto.portrait.enlarge import choose_enlarger
from easyphoto.portrait.id_control import check_id_control, instead_of_tile
from easyphoto.portrait.lcm import BACKGROUND_STEPS, GUIDANCE, faster
from easyphoto.portrait.prompts import background_prompt, negative_prompt, positive_prompt
from easyphoto.records import ConditionKind, Face, Floats, Photo
from easyphoto.specs import PassRequest, PassSettings, Person, PortraitRequest

SMALLEST_FACE = 40
"""Longer side of a face box in px; below it the crop is enlarged so much that neither pass sees a face."""
MOST_TURN = 50.0
"""Degrees beyond which half of the face is hidden and a photo's texture cannot be laid onto it."""
_BACKGROUND_STEPS = 30
_LONGEST = 2.0
"""Of a whole picture, its longer side is worked on at no more than so many times the family's size."""
_BACKGROUND_HOLDS = ((ConditionKind.CANNY.value, 1.0), (ConditionKind.COLOR.value, 1.0))
_LEVEL_ENOUGH = math.radians(5)
"""A smaller tilt is left: turning the crop resamples it for nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One face of a picture, cut out for the two passes."""

    picture: Photo
    """The template, or what has become of it so far."""
    face: Face
    """Where in `picture`."""
    crop: Crop
    """Square of `second_size` px around the face, eyes level, with the face in its coordinates: first the template's,
    and the person's once it has been fused in."""
    others: tuple[Face, ...]
    """The picture's other faces in the crop's coordinates; nothing in them is painted."""
    first_size: int
    """Side in px that the first pass works at."""
    reach: Floats | None = None
    """(second size, second size) 0-1: what the first pass painted of face and ears, where it decided that by itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """One face of the template and who it becomes."""

    person: Person
    face: Face
    others: tuple[Face, ...]
    """The template's other faces."""
    fuse: bool
    """Whether the person's photo can be laid onto this face."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PortraitPlan:
    """A request with all its open ends tied."""

    request: PortraitRequest
    family: Family
    slots: tuple[Slot, ...]
    first: PassSettings
    second: PassSettings | None
    guidance: float
    prompt: str
    negative: str
    warnings: tuple[str, ...]
    background: PassSettings | None = None
    """The pass over everything but the heads; None leaves it out."""
    background_prompt: str = ""
    enlarger: str = ""
    """The name of what makes the finished picture larger; empty leaves its size."""


def make_plan(request: PortraitRequest, engine: Engine, tools: FaceTools) -> PortraitPlan:
    """Settle a request; every refusal of a portrait happens here or in reading the person's files.

    Raises:
        TemplateError: No face, fewer faces than people, or a face that is too small.
        LoraError: A person was trained on another family of models.
        ToolMissing: The base model has none of the ControlNets of the first pass, or no IP-Adapter for the ID control.
    """
    family = engine.family
    faces = tools.faces(request.template)
    _check_template(request, faces)
    _check_people(request, family)
    check_id_control(request, engine)
    warnings: list[str] = []
    places = [place for place, person in enumerate(request.people) if person is not None]
    slots = tuple(_slot(request, place, faces, tools, warnings) for place in places)
    profile = PROFILES[family]
    own = faster(profile.first, profile.second) if request.lcm else (profile.first, profile.second)
    wanted = settle_pass(request.first, own[0])
    first = _available(wanted, engine, "first", warnings)
    if first is None:
        kinds = ", ".join(kind for kind, _ in wanted.weights)
        raise ToolMissing(f"the base model {engine.name} has no ControlNet for {kinds}; add one to its controlnet folder")
    second = None
    if request.second:
        second = _available(settle_pass(request.second, own[1]), engine, "second", warnings)
        second = second and instead_of_tile(second, request)
    _warn_of_small_faces(request, slots, profile.first_size, warnings)
    background = _background(request, engine, warnings)
    enlarger = choose_enlarger(request.super_resolution, engine, warnings)
    usual = GUIDANCE if request.lcm else profile.guidance
    guidance = usual if request.guidance is None else request.guidance
    if request.negative and guidance == 1.0:
        warnings.append("the negative prompt does nothing at guidance 1; ask for a guidance above 1 to use it")
    return PortraitPlan(
        request=request, family=family, slots=slots, first=first,
        second=second,
        guidance=guidance,
        prompt=positive_prompt(request), negative=negative_prompt(request, family), warnings=tuple(warnings),
        background=background, background_prompt=background_prompt(request), enlarger=enlarger,
    )  # fmt: skip


def _background(request: PortraitRequest, engine: Engine, warnings: list[str]) -> PassSettings | None:
    """The pass over everything but the heads, held by edges and colours; without either it would be another place."""
    if not request.background:
        return None
    steps = BACKGROUND_STEPS if request.lcm else _BACKGROUND_STEPS
    wanted = PassSettings(strength=request.background, steps=steps, weights=_BACKGROUND_HOLDS)
    settings = _available(wanted, engine, "background", warnings)
    if settings is None:
        raise ToolMissing(f"the base model {engine.name} has neither a canny nor a color ControlNet to hold the background")
    return settings


def settle_pass(asked: PassRequest, own: PassRow) -> PassSettings:
    """A pass as asked for, with the family's own value for each setting that was left open."""
    return PassSettings(
        strength=own.strength if asked.strength is None else asked.strength,
        steps=own.steps if asked.steps is None else asked.steps,
        weights=own.weights if asked.weights is None else asked.weights,
    )


def make_scene(
    picture: Photo, face: Face, family: Family, crop_ratio: float | None = None, others: tuple[Face, ...] = (),
    whole: bool = False,
) -> Scene:  # fmt: skip
    """Cut a face out of its picture at the family's ratio and size; nothing is detected again.

    Args:
        picture: Where `face` was found, or the same picture with other faces already painted.
        face: The one to cut around.
        family: Decides ratio and sizes.
        crop_ratio: Side of the square in longer sides of the face box; None takes the family's.
        others: Further faces of the picture, which are to be left alone.
        whole: Take the whole picture instead, its shorter side at the family's sizes.
    """
    profile = PROFILES[family]
    if whole:
        return _whole_scene(picture, face, profile, others)
    ratio = profile.crop_ratio if crop_ratio is None else crop_ratio
    tilted = abs(roll_of(face)) > _LEVEL_ENOUGH
    crop = crop_square(picture, face, ratio, profile.second_size, upright=tilted)
    moved = tuple(move_face(other, crop.matrix) for other in others)
    return Scene(picture=picture, face=face, crop=crop, others=moved, first_size=profile.first_size)


def _warn_of_small_faces(request: PortraitRequest, slots: Sequence[Slot], first_size: int, warnings: list[str]) -> None:
    """On the whole picture a face may have too few pixels for a pass to see it."""
    shorter = min(request.template.width, request.template.height)
    for slot in () if request.crop_face else slots:
        side = max(slot.face.box.width, slot.face.box.height) * first_size / shorter
        if side < SMALLEST_FACE:
            warnings.append(
                f"without the crop the first pass sees {slot.person.name}'s face at {side:.0f} px and can hardly paint it; "
                "turn the face crop on"
            )


def _whole_scene(picture: Photo, face: Face, profile: FamilyProfile, others: tuple[Face, ...]) -> Scene:
    stretch = min(_LONGEST, max(picture.width, picture.height) / min(picture.width, picture.height))
    first, second = (round(size * stretch / 32) * 32 for size in (profile.first_size, profile.second_size))
    crop = crop_whole(picture, face, second)
    moved = tuple(move_face(other, crop.matrix) for other in others)
    return Scene(picture=picture, face=face, crop=crop, others=moved, first_size=first)


def with_face(scene: Scene, face: Face) -> Scene:
    """The scene with its face, in the crop's coordinates, where it lies now."""
    return replace(scene, crop=replace(scene.crop, face=face))


def _check_template(request: PortraitRequest, faces: tuple[Face, ...]) -> None:
    name = request.template.name
    if not faces:
        raise TemplateError(f"{name} shows no face that can be found; choose a picture with a face seen from the front")
    wanted = sum(person is not None for person in request.people[len(faces) :])
    if wanted:
        raise TemplateError(
            f"{name} shows {_count(len(faces), 'face')}, but {_count(len(request.people), 'place')} were filled; "
            "name fewer people or choose a picture with more faces"
        )
    for place, (face, person) in enumerate(zip(faces, request.people), start=1):
        side = max(face.box.width, face.box.height)
        if person is not None and side < SMALLEST_FACE:
            raise TemplateError(
                f"face {place} from the left in {name} is only {side:.0f} px; "
                f"choose a picture where it is at least {SMALLEST_FACE} px, or enlarge it first"
            )


def _check_people(request: PortraitRequest, family: Family) -> None:
    for person in request.people:
        if person is not None and person.family is not family:
            raise LoraError(
                f"{person.name} was trained on a {person.family.value} model and the base model is {family.value}; "
                f"train {person.name} again on this one, or choose a {person.family.value} base model"
            )


def _slot(request: PortraitRequest, place: int, faces: tuple[Face, ...], tools: FaceTools, warnings: list[str]) -> Slot:
    person, face = request.people[place], faces[place]
    if person is None:
        raise TemplateError(f"place {place + 1} from the left is empty; name a person for it")
    reason = _no_fusion(face)
    if reason:
        warnings.append(
            f"face {place + 1} from the left in {request.template.name} is {reason}: fusion and face pose are left out, "
            "so the likeness rests on the training alone; a face seen from the front comes out nearer"
        )
    if face.mesh is None and (request.makeup or request.retouch):
        warnings.append(f"face {place + 1} from the left shows too little for makeup and skin retouching: they are left out")
    others = tuple(other for other in faces if other is not face)
    return Slot(person=person, face=tools.body(request.template, face), others=others, fuse=not reason)


def _no_fusion(face: Face) -> str:
    if face.mesh is None:
        return "turned away or half hidden"
    turn = head_turn(face)
    return "turned too far" if turn is None or max(abs(turn.yaw), abs(turn.pitch)) > MOST_TURN else ""


def _available(settings: PassSettings, engine: Engine, which: str, warnings: list[str]) -> PassSettings | None:
    """The settings with the ControlNets that are there; None if none is."""
    there = {kind.value for kind in engine.conditions}
    kept = tuple(pair for pair in settings.weights if ConditionKind(pair[0]).value in there)
    for kind, _ in settings.weights:
        if kind not in there:
            warnings.append(f"the base model {engine.name} has no {kind} ControlNet: the {which} pass goes without it")
    if not kept:
        return None
    return replace(settings, weights=kept)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
