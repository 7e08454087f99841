"""What the face tools promise; each backend is a class behind one of these, found by name in `faces.tools`."""

from __future__ import annotations

from typing import Protocol

from easyphoto.records import Face, Floats, Photo


class Detector(Protocol):
    """Finds faces."""

    name: str

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """All faces from left to right, with landmarks, mesh and body where they fit; () if there are none."""


class BodyFinder(Protocol):
    """Finds the body that a face belongs to."""

    name: str

    def body(self, photo: Photo, face: Face) -> Floats | None:
        """(33, 3) px, px, visibility in MediaPipe's order; None if no body is found."""


class Recognizer(Protocol):
    """Turns a face into an identity vector."""

    name: str
    same_person_below: float
    """Distance under which two faces are taken for one person (dlib: 0.6)."""

    def embed(self, photo: Photo, face: Face) -> Floats:
        """(128,) identity vector of one face; euclidean distance compares two."""


class Segmenter(Protocol):
    """Finds the person in a picture."""

    name: str

    def person_mask(self, photo: Photo) -> Floats:
        """(height, width) float32 0-1: how much of each pixel is the person."""


class Retoucher(Protocol):
    """Evens skin without touching eyes, lips and edges."""

    name: str

    def retouch(self, photo: Photo, face: Face, strength: float = 0.5) -> Photo:
        """The retouched photo, same size."""


class Enhancer(Protocol):
    """Enlarges and sharpens a small picture."""

    name: str

    def enhance(self, photo: Photo, scale: float) -> Photo:
        """The photo, `scale` times as wide and high."""


class Fuser(Protocol):
    """Puts the face of one picture onto the face of another, in the other's pose and light."""

    name: str

    def fuse(self, source: Photo, source_face: Face, target: Photo, target_face: Face) -> Photo:
        """`target` with `source`'s face; same size as `target`, the same bit for bit away from the face."""

    def fused_face(self, source_face: Face, target_face: Face) -> Face:
        """Where the face lies in what `fuse` returns, without looking for it again."""
