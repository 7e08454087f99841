"""What is told about a finished picture: likeness of each face, infotext, the changed region."""

from __future__ import annotations

import numpy as np

from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES
from easyphoto.portrait.infotext import lora_tags, write_infotext
from easyphoto.portrait.plan import PortraitPlan, Slot
from easyphoto.records import Face, Floats, Photo, Pixels
from easyphoto.specs import FaceOutcome

Steps = tuple[tuple[str, Pixels], ...]


def face_outcome(picture: Photo, slot: Slot, steps: Steps, tools: FaceTools) -> FaceOutcome:
    """The stage pictures of one face and how like its person it came out.

    Args:
        picture: The whole finished picture.
        slot: Who.
        steps: (name, crop) of every stage.
        tools: Find and compare faces.
    """
    name = slot.person.name
    stages = tuple((stage, Photo(pixels=pixels, name=f"{name}: {stage}")) for stage, pixels in steps)
    return FaceOutcome(person=name, similarity=_similarity(picture, slot, tools), stages=stages)


def grey(mask: Floats, name: str) -> Photo:
    """A (height, width) 0-1 mask as a picture; only an exact 0 becomes black."""
    levels = np.maximum(np.rint(mask * 255), mask > 0).astype(np.uint8)
    return Photo(pixels=np.repeat(levels[..., None], 3, axis=2), name=name)


def infotext(plan: PortraitPlan, model: str, seed: int) -> str:
    """The WebUI's line of parameters for one picture, with ours after its own."""
    request, template = plan.request, plan.request.template
    own = [(slot.person.lora.stem, request.lora_weight) for slot in plan.slots]
    tags = lora_tags([*own, *((use.path.stem, use.weight) for use in request.loras)])
    fields: dict[str, object] = {
        "Steps": plan.first.steps,
        "Sampler": "LCM" if request.lcm else PROFILES[plan.family].sampler,
        "CFG scale": f"{plan.guidance:g}",
        "Seed": seed,
        "Size": f"{template.width}x{template.height}",
        "Model": model,
        "Denoising strength": f"{plan.first.strength:g}",
        "EasyPhoto people": ", ".join(slot.person.name for slot in plan.slots),
        "EasyPhoto template": template.name,
        "EasyPhoto ControlNets": _weights(plan.first.weights),
        "EasyPhoto fusion": f"{request.fuse_before:g} {request.fuse_after:g}",
    }
    if plan.second:
        fields["EasyPhoto second pass"] = (
            f"strength {plan.second.strength:g} steps {plan.second.steps} {_weights(plan.second.weights)}"
        )
    return write_infotext(f"{plan.prompt}, {tags}", plan.negative, {**fields, **_extras(plan)})


def _extras(plan: PortraitPlan) -> dict[str, object]:
    """What was done beside the usual."""
    request, found = plan.request, dict[str, object]()
    for name, share in (("makeup", request.makeup), ("retouch", request.retouch), ("background", request.background)):
        if share:
            found[f"EasyPhoto {name}"] = f"{share:g}"
    if not request.crop_face:
        found["EasyPhoto face crop"] = "off"
    if request.lcm:
        found["EasyPhoto LCM"] = "on"
    if request.id_control:
        own = " own picture" if request.id_picture is not None else ""
        found["EasyPhoto ID control"] = f"IP-Adapter {request.id_control.weight:g}{own}"
    if request.face_shape_match:
        found["EasyPhoto face shape match"] = "on"
    if request.super_resolution:
        found["EasyPhoto super resolution"] = f"{plan.enlarger} {request.super_resolution.ratio:g}"
    return found


def _weights(weights: tuple[tuple[str, float], ...]) -> str:
    return " ".join(f"{kind} {weight:g}" for kind, weight in weights)


def _similarity(picture: Photo, slot: Slot, tools: FaceTools) -> float | None:
    """1 - distance to the person's median embedding; None if the face is not found any more."""
    found = _nearest(tools.faces(picture), slot.face)
    if found is None:
        return None
    embedding = tools.with_embedding(picture, found).embedding
    if embedding is None:
        return None
    return 1.0 - float(np.linalg.norm(embedding - np.asarray(slot.person.embedding, np.float32)))


def nearest_face(pixels: Pixels, wanted: Face, tools: FaceTools) -> Face | None:
    """The face that a picture shows where `wanted` stood; None if none is found there."""
    return _nearest(tools.faces(Photo(pixels=pixels, name="crop")), wanted)


def _nearest(faces: tuple[Face, ...], wanted: Face) -> Face | None:
    """The face that stands where `wanted` stood: the nearest middle, at most half a face away."""
    x, y = wanted.box.center
    reach = max(wanted.box.width, wanted.box.height) / 2
    near = [(np.hypot(face.box.center[0] - x, face.box.center[1] - y), place) for place, face in enumerate(faces)]
    distance, place = min(near, default=(np.inf, 0))
    return faces[place] if distance <= reach else None
