"""Who it is: dlib's ResNet turns a face into 128 numbers; near numbers are one person."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from easyphoto.errors import ToolMissing
from easyphoto.imaging import geometry, mesh
from easyphoto.records import Face, Floats, Photo

HOW_TO_INSTALL = "pip install dlib-bin face-recognition-models"
_MODEL = "dlib_face_recognition_resnet_model_v1.dat"
_CHIP = 150
"""Side in px of what the network is shown."""
_PADDING = 0.25
"""Room around the face in the chip, as the network was trained (dlib, face_recognition_model_v1)."""
# dlib's mean face for its five-point model (dlib/image_transforms/interpolation.h, get_face_chip_details; Boost
# licence): outer and inner corner of the left eye, of the right eye, and the base of the nose, in a unit square. The
# mesh has the same five points, so no landmark model of dlib is needed (its 68-point file was trained on pictures that
# may not be used commercially).
_MEAN_FACE = np.array([
    (0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677), (0.1205750620789, 0.2137274526848),
    (0.3340850613712, 0.2290642403242), (0.4901123135679, 0.6277975316475),
])  # fmt: skip
_MESH_POINTS = (mesh.LEFT_EYE_OUTER, mesh.LEFT_EYE_INNER, mesh.RIGHT_EYE_OUTER, mesh.RIGHT_EYE_INNER, mesh.NOSE_BASE)
# Where `Face.landmarks` lie in the same unit square, for a face without a mesh: their mean over aligned portraits.
_MEAN_LANDMARKS = np.array([(0.227, 0.214), (0.753, 0.214), (0.490, 0.560), (0.313, 0.824), (0.667, 0.824)])


class DlibRecognizer:
    """dlib's face recognition ResNet: 99.38 % on Labeled Faces in the Wild by its author's account, CC0 weights."""

    name = "dlib"
    same_person_below = 0.6

    def __init__(self) -> None:
        path = _model_path()
        if path is None:
            raise ToolMissing(f"people are told apart with dlib's recogniser, which is not here: {HOW_TO_INSTALL}")
        self._network = _load(path)

    def embed(self, photo: Photo, face: Face) -> Floats:
        """(128,) float32 identity vector of one face; euclidean distance compares two."""
        chip = face_chip(photo, face)
        return np.array(self._network.compute_face_descriptor(chip), np.float32)

    def close(self) -> None:
        """Nothing to free: the network goes with the object."""


def face_chip(photo: Photo, face: Face) -> Any:  # noqa: ANN401  numpy's type does not survive the warp's generics
    """(150, 150, 3) uint8 RGB: the face, upright and aligned, as dlib's network was trained on."""
    if face.mesh is not None:
        points, mean = face.mesh[list(_MESH_POINTS)], _MEAN_FACE
    else:
        points, mean = face.landmarks, _MEAN_LANDMARKS
    target = (mean + _PADDING) / (1 + 2 * _PADDING) * _CHIP
    matrix = geometry.similarity(points, target)
    return np.ascontiguousarray(geometry.warp(photo.pixels, matrix, (_CHIP, _CHIP), geometry.REPLICATE))


def distance(first: Floats, second: Floats) -> float:
    """Euclidean distance of two identity vectors: 0 the same picture, below 0.6 most likely one person."""
    return float(np.linalg.norm(np.asarray(first, np.float64) - np.asarray(second, np.float64)))


def median_embedding(vectors: Floats) -> Floats:
    """(d,) geometric median of (n, d) vectors (Weiszfeld 1937): a few strangers among them hardly move it."""
    points = np.asarray(vectors, np.float64)
    middle = points.mean(0)
    for _ in range(64):
        away = np.maximum(np.linalg.norm(points - middle, axis=1), 1e-6)
        moved = (points / away[:, None]).sum(0) / (1 / away).sum()
        if np.linalg.norm(moved - middle) < 1e-7:
            break
        middle = moved
    return np.asarray(middle, np.float32)


def is_installed() -> bool:
    """Whether this backend can run here; imports nothing heavy."""
    return _model_path() is not None and importlib.util.find_spec("_dlib_pybind11") is not None


def _model_path() -> Path | None:
    """The network's file in the face_recognition_models distribution.

    The package is not imported: its `__init__` needs pkg_resources, which setuptools 82 removed.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "models" / _MODEL
        if path.is_file():
            return path
    return None


def _load(path: Path) -> Any:  # noqa: ANN401  dlib has no types
    try:
        # The extension itself: dlib's own __init__ probes for CUDA folders that a wheel does not have.
        import _dlib_pybind11 as dlib
    except ImportError as error:
        raise ToolMissing(f"people are told apart with dlib's recogniser, which is not here: {HOW_TO_INSTALL}") from error
    return dlib.face_recognition_model_v1(str(path))
