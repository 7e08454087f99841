"""New faces from old: warp one portrait's face onto another of like tone, pose, age and expression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

from recipes.base_model.captions import Person

Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """One portrait: BGR pixels, 478 x 2 face mesh and 33 x 4 pose in its pixels, and facts."""

    name: str
    bgr: Pixels
    face: Points
    pose: Points
    person: Person

    @property
    def skin(self) -> npt.NDArray[np.float64]:
        """Mean Lab colour of nose and cheeks (OpenCV's 8-bit scale)."""
        x, y = self.face[[1, 4, 50, 280]].mean(axis=0).astype(int)
        patch = cv2.cvtColor(self.bgr[max(y - 12, 0) : y + 12, max(x - 12, 0) : x + 12], cv2.COLOR_BGR2LAB)
        return np.asarray(patch.reshape(-1, 3).mean(axis=0), np.float64)

    @property
    def yaw(self) -> float:
        """Where the nose tip lies between the face's edges, -0.5..0.5; 0 is frontal."""
        left, right = self.face[234, 0], self.face[454, 0]
        return float((self.face[1, 0] - left) / (right - left + 1e-6) - 0.5)

    @property
    def smile(self) -> float:
        """Mouth width over eye distance plus half of how open the lips are; about 0.75 is a smile."""
        return smile_of(self.face)


def smile_of(face: Points) -> float:
    """Return the smile measure of a face mesh: mouth width plus twice the inner opening, over the eye distance."""
    eyes = np.linalg.norm(face[[33, 133]].mean(axis=0) - face[[263, 362]].mean(axis=0))
    width = np.linalg.norm(face[61] - face[291])
    opening = np.linalg.norm(face[13] - face[14])
    return float((width + 2 * opening) / eyes)


def read_portraits(folder: Path) -> list[Portrait]:
    """Read what the landmarks step wrote, sorted by name."""
    import json

    points = np.load(folder / "landmarks.npz")
    people = json.loads((folder / "people.json").read_text())
    portraits = []
    for name in sorted(people):
        bgr = np.asarray(cv2.imread(str(folder / f"{name}.jpg")), np.uint8)
        person = Person(**people[name])
        face, pose = points[f"{name}.face"], points[f"{name}.pose"]
        portraits.append(Portrait(name=name, bgr=bgr, face=face, pose=pose, person=person))
    return portraits


def split_held_out(portraits: list[Portrait], every: int = 10) -> tuple[list[Portrait], list[Portrait]]:
    """Return (training, held out): every `every`-th portrait by name is never trained on."""
    return [p for i, p in enumerate(portraits) if i % every], portraits[::every]


def nearest(target: Portrait, others: list[Portrait], count: int) -> list[Portrait]:
    """Return the portraits of the same sex whose face fits best into the target's frame."""

    def gap(source: Portrait) -> float:
        tone = np.linalg.norm((source.skin - target.skin) * (0.5, 1.0, 1.0))
        ages = abs(source.person.age - target.person.age)
        return float(tone + 60 * abs(source.yaw - target.yaw) + 80 * abs(source.smile - target.smile) + 0.3 * ages)

    same_sex = [p for p in others if p.person.sex == target.person.sex and p.name != target.name]
    return sorted(same_sex, key=gap)[:count]


def warp(bgr: Pixels, source: Points, target: Points, size: tuple[int, int]) -> Pixels:
    """Warp a picture piecewise so that mesh `source` falls on mesh `target`; size is (height, width)."""
    height, width = size
    mesh = Delaunay(target)
    low = np.maximum(np.floor(target.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(target.max(axis=0)).astype(int), (width - 1, height - 1))
    grid = np.stack(np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1)), -1).reshape(-1, 2)
    triangle = mesh.find_simplex(grid)
    grid, triangle = grid[triangle >= 0], triangle[triangle >= 0]
    affine = mesh.transform[triangle]
    weights = np.einsum("nij,nj->ni", affine[:, :2], grid - affine[:, 2])
    weights = np.c_[weights, 1 - weights.sum(axis=1)]
    origin = np.einsum("ni,nij->nj", weights, source[mesh.simplices[triangle]])
    maps = np.zeros((2, height, width), np.float32)
    maps[:, grid[:, 1], grid[:, 0]] = origin.T
    return np.asarray(cv2.remap(bgr, maps[0], maps[1], cv2.INTER_LINEAR), np.uint8)


def _match_lab(warped: Pixels, target: Pixels, inside: npt.NDArray[np.bool_]) -> Pixels:
    ours = cv2.cvtColor(warped, cv2.COLOR_BGR2LAB).astype(np.float32)
    theirs = cv2.cvtColor(target, cv2.COLOR_BGR2LAB).astype(np.float32)
    mean, spread = ours[inside].mean(axis=0), ours[inside].std(axis=0) + 1e-5
    goal = theirs[inside]
    ours = (ours - mean) / spread * (0.6 * spread + 0.4 * goal.std(axis=0)) + goal.mean(axis=0)
    return np.asarray(cv2.cvtColor(np.clip(ours, 0, 255).astype(np.uint8), cv2.COLOR_LAB2BGR), np.uint8)


def fuse(source: Portrait, target: Portrait) -> Pixels | None:
    """Return the target's picture with the source's face in it (BGR), or None if the face touches the edge."""
    height, width = target.bgr.shape[:2]
    mesh = target.face[:468]
    warped = warp(source.bgr, source.face[:468], mesh, (height, width))
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(mesh[list(OVAL)].astype(np.int32)), 255)
    inset = max(3, int(np.ptp(mesh[:, 0]) * 0.05))
    mask = cv2.erode(mask, np.ones((inset, inset), np.uint8))
    left, top, wide, high = cv2.boundingRect(mask)
    if left < 2 or top < 2 or left + wide > width - 2 or top + high > height - 2:
        return None
    matched = _match_lab(warped, target.bgr, mask > 0)
    center = (left + wide // 2, top + high // 2)
    return np.asarray(cv2.seamlessClone(matched, target.bgr, mask, center, cv2.NORMAL_CLONE), np.uint8)


def scene_words(portrait: Portrait) -> str:
    """Say what the background looks like from its colours: outdoors, plain background or indoors."""
    height, width = portrait.bgr.shape[:2]
    border = np.zeros((height, width), bool)
    border[: height // 8] = True
    border[: height // 2, : width // 8] = True
    border[: height // 2, -width // 8 :] = True
    hsv = cv2.cvtColor(portrait.bgr, cv2.COLOR_BGR2HSV)[border].astype(int)
    hue, saturation, value = hsv.T
    sky = np.mean((hue > 90) & (hue < 128) & (saturation > 50) & (value > 120))
    green = np.mean((hue > 30) & (hue < 88) & (saturation > 50))
    detail = cv2.Laplacian(cv2.cvtColor(portrait.bgr, cv2.COLOR_BGR2GRAY), cv2.CV_32F)[border]
    if sky > 0.25 or green > 0.18:
        return "outdoors"
    return "plain background" if float(np.abs(detail).mean()) < 4.0 and float(value.std()) < 45 else "indoors"


def describe(portrait: Portrait) -> dict[str, Any]:
    """Return the portrait's facts read off its picture: `smile` and `scene` words."""
    measure = portrait.smile
    word = "smiling" if measure > SMILE_FROM else "neutral expression" if measure < NEUTRAL_TO else ""
    return {"smile": word, "scene": scene_words(portrait)}


SMILE_FROM = 0.98
NEUTRAL_TO = 0.88
