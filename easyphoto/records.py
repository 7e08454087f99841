"""The records that travel between rooms: frozen, keyword-only, checked once when they are made.

Conventions everywhere: pictures are uint8 arrays, height x width x 3, RGB. Points are (x, y) in pixels, x to the right,
y down, floats. Boxes are half open.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from easyphoto.errors import InputError, PhotoError, SpecError

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

CAPTION = "easyphoto_face, easyphoto, 1person"
"""The one caption a person's LoRA is trained with, and the head of every portrait's prompt."""


class TrainKind(str, Enum):
    """What a LoRA learns."""

    PERSON = "person"
    SCENE = "scene"
    """A place, a light, a style: whatever all pictures have in common."""
    CLOTH = "cloth"
    """A piece of clothing, on a plain background."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """A decoded picture: upright by its EXIF, RGB, 8 bits."""

    pixels: Pixels
    """(height, width, 3) uint8 RGB, read-only."""
    name: str
    """File name or label shown to people."""
    digest: str = ""
    """SHA-256 of `pixels` with their shape; filled in when empty."""

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise PhotoError(f"{self.name}: a photo must be uint8 HxWx3, got {pixels.dtype} {pixels.shape}")
        if not self.digest:
            content = repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
            object.__setattr__(self, "digest", hashlib.sha256(content).hexdigest())

    @property
    def height(self) -> int:
        """Height in px."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in px."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, kw_only=True)
class Box:
    """A half-open rectangle in px: left <= x < right, top <= y < bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (self.right > self.left and self.bottom > self.top):
            raise InputError(f"a box must have right > left and bottom > top, got {self}")

    @property
    def width(self) -> float:
        """Width in px."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Height in px."""
        return self.bottom - self.top

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Face:
    """One face found in one picture; enriched with `dataclasses.replace`, never detected again."""

    box: Box
    """Tight box of the face: top of the forehead to chin, ear to ear."""
    score: float
    """The detector's confidence, 0-1."""
    landmarks: Floats
    """(5, 2) px: the person's right eye, left eye (image left, image right), nose tip, right and left mouth corner."""
    mesh: Floats | None = None
    """(478, 2) px MediaPipe face mesh with irises, None if the mesh could not be fitted."""
    depth: Floats | None = None
    """(478,) px: how far from the camera each point of the mesh is, from an unknown zero; None without a mesh."""
    body: Floats | None = None
    """(33, 3) px, px, visibility of MediaPipe pose, None if no body was found."""
    embedding: Floats | None = None
    """(128,) identity vector, None until asked for."""

    def __post_init__(self) -> None:
        if self.landmarks.shape != (5, 2):
            raise InputError(f"landmarks must be (5, 2), got {self.landmarks.shape}")
        if self.mesh is not None and self.mesh.shape != (478, 2):
            raise InputError(f"mesh must be (478, 2), got {self.mesh.shape}")
        if self.depth is not None and self.depth.shape != (478,):
            raise InputError(f"depth must be (478,), got {self.depth.shape}")


class Reason(str, Enum):
    """Why a photo was taken or left out."""

    GOOD = "good"
    NO_FACE = "no face"
    TOO_SMALL = "face too small"
    BLURRED = "blurred"
    COVERED = "face covered or turned away"
    DUPLICATE = "duplicate"
    OTHER_PERSON = "another person"
    SMALL_PICTURE = "picture too small"
    UNREADABLE = "cannot be read"
    SURPLUS = "better photos are enough"
    OVERRIDDEN = "taken because you said so"


@dataclass(frozen=True, kw_only=True)
class PhotoScores:
    """What was measured on one photo; NaN-free: what could not be measured is None."""

    face_px: float | None = None
    """Longer side of the face box in px."""
    sharpness: float | None = None
    """0-1, higher is sharper, on the face alone."""
    frontality: float | None = None
    """0-1, 1 looks straight at the camera."""
    identity: float | None = None
    """1 - dlib distance to the person's median embedding."""
    faces: int = 0
    """How many faces the photo shows."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one photo, and why."""

    photo: str
    """The photo's file name."""
    accepted: bool
    reason: Reason
    sentence: str
    """One sentence for the person: what, why, what to do."""
    scores: PhotoScores = field(default_factory=PhotoScores)
    is_reference: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedPhoto:
    """One accepted photo, ready for training."""

    name: str
    original: Photo
    crop: Photo
    """Upright square-ish crop around the face, retouched, person on white; of a scene, what is shown of it."""
    face: Face | None
    """The face in `crop`'s coordinates, with mesh and embedding; None for what is no person."""
    scores: PhotoScores
    caption: str = ""
    """What the picture is trained with; empty for the training's own caption."""

    @property
    def own_face(self) -> Face:
        """The face; raises InputError where this is no photo of a person."""
        if self.face is None:
            raise InputError(f"{self.name} was prepared as a scene and has no face; prepare it as a person's photo")
        return self.face


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSet:
    """All of a person's photos after checking."""

    photos: tuple[PreparedPhoto, ...]
    verdicts: tuple[Verdict, ...]
    """One for every photo handed in, in the order handed in."""
    reference: int
    """Index into `photos` of the reference photo."""
    embedding: Floats
    """(128,) median identity vector of the accepted photos; (0,) for what is no person."""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.photos:
            raise PhotoError("a prepared set needs at least one accepted photo")
        if not 0 <= self.reference < len(self.photos):
            raise InputError(f"reference must be an index into {len(self.photos)} photos, got {self.reference}")


class ConditionKind(str, Enum):
    """What a ControlNet is held by."""

    CANNY = "canny"
    OPENPOSE = "openpose"
    COLOR = "color"
    TILE = "tile"


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """One ready-made control map and how strongly it holds."""

    kind: ConditionKind
    image: Pixels
    """(height, width, 3) uint8 RGB of the job's size."""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 2.0:
            raise SpecError(f"the weight of {self.kind.value} must be within 0-2, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """One LoRA file and its weight in a job."""

    path: Path
    weight: float = 0.9

    def __post_init__(self) -> None:
        if not -2.0 <= self.weight <= 2.0:
            raise SpecError(f"a LoRA's weight must be within -2 to 2, got {self.weight}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePrompt:
    """A face that an IP-Adapter holds a picture by, and how strongly."""

    image: Pixels
    """(side, side, 3) uint8 RGB: the face on white, eyes level."""
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise SpecError(f"the weight of the ID control must be within 0-1, got {self.weight}")


@dataclass(frozen=True, kw_only=True, eq=False)
class InpaintJob:
    """Masked img2img, with everything that decides the result."""

    image: Pixels
    """(height, width, 3) uint8 RGB; both sides multiples of 8."""
    mask: Floats
    """(height, width) float32 0-1: 1 is painted anew, 0 keeps the picture."""
    prompt: str
    negative: str = ""
    strength: float = 0.45
    """Share of the noise schedule that is run: 1 forgets the picture."""
    steps: int = 50
    """Steps of the whole schedule; about `strength * steps` are run."""
    guidance: float = 7.0
    conditions: tuple[Condition, ...] = ()
    loras: tuple[LoraUse, ...] = ()
    seed: int = 0
    lcm: bool = False
    """Sample as an LCM-LoRA wants it, which is among `loras`."""
    likeness: ImagePrompt | None = None
    """Whose face the picture is held by besides; None for nobody's."""

    def __post_init__(self) -> None:
        height, width = self.image.shape[:2]
        if height % 8 or width % 8:
            raise SpecError(f"an inpaint job's sides must be multiples of 8 px, got {width} x {height}")
        if self.mask.shape != (height, width):
            raise SpecError(f"mask {self.mask.shape} and image {self.image.shape[:2]} must have the same size")
        if not 0.0 < self.strength <= 1.0:
            raise SpecError(f"strength must be above 0 and at most 1, got {self.strength}")
        if not 1 <= self.steps <= 1000:
            raise SpecError(f"steps must be within 1-1000, got {self.steps}")
        for condition in self.conditions:
            if condition.image.shape[:2] != (height, width):
                raise SpecError(f"the {condition.kind.value} map must be {width} x {height} px")


@dataclass(frozen=True, kw_only=True, eq=False)
class TextJob:
    """A picture from words alone."""

    width: int
    height: int
    prompt: str
    negative: str = ""
    steps: int = 25
    guidance: float = 7.0
    conditions: tuple[Condition, ...] = ()
    loras: tuple[LoraUse, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width % 8 or self.height % 8 or self.width < 64 or self.height < 64:
            raise SpecError(f"width and height must be multiples of 8 from 64 px, got {self.width} x {self.height}")
