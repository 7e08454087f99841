"""Which way a head is turned, from its mesh alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from easyphoto.records import Face

RIGID = (33, 263, 133, 362, 168, 6, 2, 98, 327, 10, 234, 454, 127, 356)
"""Mesh points that keep their place in the head whatever the face does."""
# RIGID at the mean of the meshes of 132 frontal portraits, mirrored and averaged: x towards the person's left, y down,
# z away from the camera, in distances between the outer eye corners, from the root of the nose.
_SHAPE = np.array([
    (-0.500, 0.022, 0.249), (0.500, 0.022, 0.249), (-0.203, 0.048, 0.198), (0.203, 0.048, 0.198), (0.0, 0.0, 0.0),
    (0.0, 0.093, -0.039), (0.0, 0.574, 0.008), (-0.215, 0.528, 0.095), (0.215, 0.528, 0.095), (0.0, -0.556, -0.013),
    (-0.764, 0.175, 0.889), (0.764, 0.175, 0.889), (-0.770, 0.019, 0.817), (0.770, 0.019, 0.817),
])  # fmt: skip
_BLIND_DEGREES = 60.0
"""From here on half the face is hidden, and frontality is 0."""


@dataclass(frozen=True, kw_only=True)
class HeadTurn:
    """How a head is turned, in degrees; all 0 looks straight into an upright camera."""

    yaw: float
    """Positive turns the nose towards the picture's right."""
    pitch: float
    """Positive turns the nose down."""
    roll: float
    """Positive leans the head clockwise as seen."""

    @property
    def frontality(self) -> float:
        """1 looks straight at the camera, 0 is turned by 60 degrees or more; roll does not count."""
        return max(0.0, 1.0 - math.hypot(self.yaw, self.pitch) / _BLIND_DEGREES)


def head_turn(face: Face) -> HeadTurn | None:
    """The head's turn by a weak-perspective fit of a rigid mean face, or None where the face has no mesh.

    The affine map from the 3-D points to the mesh is solved by least squares and its two rows are brought to the nearest
    rotation (Horaud et al. 1997 call this scaled orthography).
    """
    if face.mesh is None:
        return None
    seen = face.mesh[list(RIGID)].astype(np.float64)
    shape = _SHAPE - _SHAPE.mean(0)
    affine, *_ = np.linalg.lstsq(shape, seen - seen.mean(0), rcond=None)
    left, _, right = np.linalg.svd(affine.T, full_matrices=False)
    first, second = left @ right
    nose = -np.array([first[2], second[2], np.cross(first, second)[2]])
    return HeadTurn(
        yaw=math.degrees(math.atan2(nose[0], -nose[2])),
        pitch=math.degrees(math.atan2(nose[1], -nose[2])),
        roll=math.degrees(math.atan2(second[0], first[0])),
    )
