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
    tags = lora_tags([(slot.person.lora.stem, request.lora_weight) for slot in plan.slots])
    fields: dict[str, object] = {
        "Steps": plan.first.steps,
        "Sampler": PROFILES[plan.family].sampler,
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
    return write_infotext(f"{plan.prompt}, {tags}", plan.negative, fields)


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


def _nearest(faces: tuple[Face, ...], wanted: Face) -> Face | None:
    """The face that stands where `wanted` stood: the nearest middle, at most half a face away."""
    x, y = wanted.box.center
    reach = max(wanted.box.width, wanted.box.height) / 2
    near = [(np.hypot(face.box.center[0] - x, face.box.center[1] - y), place) for place, face in enumerate(faces)]
    distance, place = min(near, default=(np.inf, 0))
    return faces[place] if distance <= reach else None
