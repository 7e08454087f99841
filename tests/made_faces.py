"""Faces made of ellipses, for tests that need a mesh but no picture of anybody.

from tests.made_faces import made_face
"""

from __future__ import annotations

import numpy as np

from easyphoto.imaging import geometry, mesh
from easyphoto.records import Face


def made_face(x: float = 100.0, y: float = 100.0, width: float = 80.0, height: float = 110.0) -> Face:
    """An upright frontal face around (x, y) whose outlines are ellipses and whose other points lie on the nose."""
    points = np.tile(np.array([x, y], np.float64), (478, 1))

    def ring(indices: tuple[int, ...], cx: float, cy: float, rx: float, ry: float, start: float) -> None:
        angle = np.radians(start) + np.linspace(0, 2 * np.pi, len(indices), endpoint=False)
        points[list(indices), 0] = x + cx * width + rx * width * np.cos(angle)
        points[list(indices), 1] = y + cy * height + ry * height * np.sin(angle)

    ring(mesh.OVAL, 0, 0, 0.5, 0.5, -90)
    ring(mesh.LIPS_OUTER, 0, 0.25, 0.2, 0.06, 180)
    ring(mesh.RIGHT_EYE, -0.22, -0.1, 0.1, 0.03, 180)
    ring(mesh.LEFT_EYE, 0.22, -0.1, 0.1, 0.03, 0)
    ring(mesh.RIGHT_BROW, -0.22, -0.2, 0.12, 0.02, 180)
    ring(mesh.LEFT_BROW, 0.22, -0.2, 0.12, 0.02, 0)
    ring(mesh.NOSTRILS, 0, 0.1, 0.08, 0.02, 180)
    points[mesh.RIGHT_PUPIL] = x - 0.22 * width, y - 0.1 * height
    points[mesh.LEFT_PUPIL] = x + 0.22 * width, y - 0.1 * height
    points[mesh.NOSE_ROOT] = x, y - 0.1 * height
    flat = points.astype(np.float32)
    return Face(
        box=geometry.box_of(flat[list(mesh.OVAL)]), score=1.0, landmarks=flat[list(mesh.LANDMARKS)], mesh=flat,
        depth=np.zeros(478, np.float32),
    )  # fmt: skip
