"""How new drawn faces are: who they are and what the whole picture shows, against the nearest portrait trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from easyphoto.faces.embed import median_embedding
from easyphoto.imaging import geometry
from easyphoto.records import Face, Floats, Photo

CHIP = 64
"""Side in px of an aligned picture."""
ALIGNED = np.array([(26, 26), (38, 26), (32, 33), (27.5, 39), (36.5, 39)])
"""Where `Face.landmarks` lie in an aligned picture: small, so that hair, clothes and background are seen."""
SOFTNESS = 1.2
"""Sigma in px of the blur that lets two sharp pictures of one thing meet."""


@dataclass(frozen=True, kw_only=True)
class Faces:
    """The main faces of some pictures."""

    identities: Floats
    """(n, 128) identity vectors."""
    pictures: Floats
    """(n, k) aligned pictures, see `aligned`."""


def aligned(photo: Photo, face: Face) -> Floats:
    """(CHIP * CHIP * 3,) the picture with its face in one place, blurred, each colour's mean 0, of norm 1.

    The dot product of two is their correlation, whatever their light and contrast.
    """
    matrix = geometry.similarity(face.landmarks, ALIGNED)
    chip = geometry.warp(photo.pixels, matrix, (CHIP, CHIP), geometry.REPLICATE)
    soft = cv2.GaussianBlur(chip, (0, 0), SOFTNESS).astype(np.float64)
    soft -= soft.mean(axis=(0, 1))
    return np.asarray(soft.ravel() / max(1e-9, float(np.linalg.norm(soft))), np.float32)


def nearest(identities: Floats, portraits: Floats) -> npt.NDArray[np.float64]:
    """(n,) distance of each (n, d) vector to the nearest of (m, d) vectors."""
    gaps = identities[:, None].astype(np.float64) - portraits[None]
    return np.asarray(np.linalg.norm(gaps, axis=2).min(axis=1))


def nearness(faces: Faces, portraits: Faces) -> dict[str, float]:
    """How near faces come to the nearest portrait, by identity (0 the same) and by picture (1 the same)."""
    distances = nearest(faces.identities, portraits.identities)
    likeness = (faces.pictures @ portraits.pictures.T).max(axis=1)
    return {
        "faces": len(distances), "distance_median": round(float(np.median(distances)), 3),
        "distance_q05": round(float(np.quantile(distances, 0.05)), 3), "distance_smallest": round(float(distances.min()), 3),
        "below_0.6": round(float(np.mean(distances < 0.6)), 4), "below_0.4": round(float(np.mean(distances < 0.4)), 4),
        "picture_median": round(float(np.median(likeness)), 3), "picture_largest": round(float(likeness.max()), 3),
        "picture_above_0.9": round(float(np.mean(likeness > 0.9)), 4),
    }  # fmt: skip


def person_nearness(photos: Faces, portraits: Faces) -> dict[str, float]:
    """How near one person comes, by the median of their identity vectors and by each photo.

    A stranger is about as far from the nearest portrait as from the second nearest; `nearer_than_second` says by how much
    one portrait stands out.
    """
    middle = median_embedding(photos.identities).astype(np.float64)
    first, second = np.sort(np.linalg.norm(portraits.identities - middle, axis=1))[:2]
    return {
        "of_median_embedding": round(float(first), 3), "nearer_than_second": round(float(second - first), 3),
        **nearness(photos, portraits),
    }  # fmt: skip


def novelty(training: Faces, held_out: Faces, samples: Faces, people: Mapping[str, Faces]) -> dict[str, Any]:
    """How far from every portrait trained on the drawn faces are.

    Args:
        training: The portraits that were trained on.
        held_out: Portraits of other people, which were not: so near come strangers.
        samples: Plain samples.
        people: The photos of each sample person.
    """
    groups = {"held_out": nearness(held_out, training), "samples": nearness(samples, training)}
    return {**groups, **{name: person_nearness(photos, training) for name, photos in people.items()}}
