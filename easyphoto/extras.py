"""What may be asked of a portrait beside its two passes; each of these is off unless somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from easyphoto.errors import SpecError


def _share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise SpecError(f"{name} must be within 0-1, got {value}")


@dataclass(frozen=True, kw_only=True)
class SuperResolution:
    """The finished picture twice as wide and high."""

    way: str = "auto"
    """Name of an upscaler that is installed; "auto" takes the best there is, "lanczos" needs none."""
    ratio: float = 0.5
    """Share of the upscaler's picture; the rest is the picture plainly resized. 0 resizes alone."""

    def __post_init__(self) -> None:
        _share("super_resolution.ratio", self.ratio)


@dataclass(frozen=True, kw_only=True)
class IdControl:
    """Both passes held by a picture of the face too, through an IP-Adapter."""

    weight: float = 0.3
    """0.1-1; more makes the faces of several pictures more alike, and stiffer."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.weight <= 1.0:
            raise SpecError(f"id_control.weight must be within 0.1-1, got {self.weight}; leave id_control out to do without")


def check_id_picture(control: IdControl | None, picture: object, people: Sequence[object]) -> None:
    """Refuse a picture of one's own where nothing is held by it, or where nobody can tell whose it is.

    Args:
        control: What was asked for.
        picture: Instead of a person's reference photo; None for that one.
        people: For each face of the template; None leaves a face.

    Raises:
        SpecError: It is refused.
    """
    if picture is None:
        return
    if control is None:
        raise SpecError("there is a picture for the ID control, but that is off; turn it on, or leave the picture out")
    if sum(person is not None for person in people) > 1:
        raise SpecError("a picture for the ID control shows one person and this portrait has several; leave it out")


@dataclass(frozen=True, kw_only=True)
class PortraitExtras:
    """Further steps of a portrait, and other ways of doing the usual ones."""

    crop_face: bool = True
    """Work on a square around the face; else on the whole picture, where a face has fewer pixels."""
    face_shape_match: bool = False
    """Let the first pass paint the whole crop without the colour ControlNet, and keep of it face and ears: the person's own
    outline instead of the template's."""
    lcm: bool = False
    """Few steps by an LCM-LoRA, which has to be in the folder of LoRAs; not for the embedded family."""
    id_control: IdControl | None = None
    """Hold the face by an IP-Adapter, whose file has to be there; not for the embedded family. None leaves it out."""
    makeup: float = 0.0
    """How much of the makeup of the template's face the person gets; 0 leaves it away."""
    retouch: float = 0.0
    """How much the skin of the finished face is evened; 0 leaves it."""
    background: float = 0.0
    """Denoising strength of one more pass over everything but the heads; 0 leaves it out."""
    super_resolution: SuperResolution | None = None
    """None leaves the size as it is."""

    def __post_init__(self) -> None:
        for name in ("makeup", "retouch", "background"):
            _share(name, getattr(self, name))
