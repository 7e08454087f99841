"""Who runs on the bench: the template untouched, fusion alone, one plain inpaint pass, and ours; one seed for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from easyphoto.app import App
from easyphoto.bench.measures import Made, Stage, Subject
from easyphoto.engine.base import Engine
from easyphoto.families import PROFILES
from easyphoto.imaging.blend import alpha_blend, paste_back
from easyphoto.imaging.geometry import crop_square
from easyphoto.imaging.masks import face_mask, face_mask_to_ears, face_width, feather
from easyphoto.records import CAPTION, InpaintJob, PreparedPhoto
from easyphoto.specs import Person, PortraitRequest

SEED = 0
OURS = "ours"


@dataclass(frozen=True, kw_only=True, eq=False)
class Materials:
    """What the rivals may use of one person."""

    subject: Subject
    person: Person
    reference: PreparedPhoto
    plain: Engine
    """An engine that carries the plain recipe's LoRA."""


class Rival(Protocol):
    """One way to put a person into a template."""

    name: str

    def make(self, materials: Materials, stage: Stage) -> Made:
        """The picture and where it was painted."""


class Untouched:
    """The template as it is: the floor of identity, the ceiling of everything else."""

    name = "template untouched"

    def make(self, materials: Materials, stage: Stage) -> Made:  # noqa: ARG002 (nothing of the person is used)
        """The template."""
        pixels = stage.photo.pixels
        return Made(pixels=pixels, changed=np.zeros(pixels.shape[:2], np.float32))


class FusionOnly:
    """The reference face laid onto the template's by the mesh, nothing else."""

    name = "fusion only"

    def __init__(self, app: App) -> None:
        self._tools = app.tools

    def make(self, materials: Materials, stage: Stage) -> Made:
        """Fuse at the template's own size."""
        reference = materials.reference
        fused = self._tools.fuser.fuse(reference.crop, reference.own_face, stage.photo, stage.face)
        shape = stage.photo.height, stage.photo.width
        painted = feather(face_mask(stage.face, shape, reach=0.05), 0.02 * face_width(stage.face))
        return Made(pixels=alpha_blend(stage.photo.pixels, fused.pixels, painted), changed=painted)


class OnePass:
    """One inpaint pass without ControlNet, with the plain recipe's LoRA."""

    name = "one plain pass"

    def make(self, materials: Materials, stage: Stage) -> Made:
        """Paint the face mask anew in a crop of the family's ratio and size, and paste it back."""
        profile = PROFILES[materials.plain.family]
        crop = crop_square(stage.photo, stage.face, profile.crop_ratio, profile.first_size)
        shape = profile.first_size, profile.first_size
        mask = feather(face_mask_to_ears(crop.face, shape), 0.04 * face_width(crop.face))
        job = InpaintJob(
            image=crop.photo.pixels, mask=mask, prompt=CAPTION, strength=profile.first.strength, steps=profile.first.steps,
            guidance=profile.guidance, seed=SEED,
        )  # fmt: skip
        pixels, changed = paste_back(stage.photo.pixels, materials.plain.inpaint(job), crop.matrix, mask)
        return Made(pixels=pixels, changed=changed)


class Ours:
    """The two-pass portrait with the person's published LoRA, as the command line makes it."""

    name = OURS

    def __init__(self, app: App) -> None:
        self._app = app

    def make(self, materials: Materials, stage: Stage) -> Made:
        """One portrait."""
        faces = self._app.tools.faces(stage.photo)
        people = tuple(materials.person if face is stage.face else None for face in faces)
        (result,) = self._app.portraits(PortraitRequest(template=stage.photo, people=people, seed=SEED))
        changed = result.changed.pixels[..., 0].astype(np.float32) / 255
        return Made(pixels=result.picture.pixels, changed=changed, stages=result.seconds)


def rivals(app: App) -> tuple[Rival, ...]:
    """Everyone, in the order of the table's rows."""
    return Untouched(), FusionOnly(app), OnePass(), Ours(app)
