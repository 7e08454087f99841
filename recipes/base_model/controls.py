"""The control pictures of crops, drawn by the product's own functions on the CPU's cores."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from easyphoto.imaging.conditions import body18_from_pose33, canny_map, color_grid, openpose_map, tile_map
from recipes.base_model.crops import Crops, Frames, move_points

Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]
_LEFT_RIGHT = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)


@dataclass(frozen=True)
class Scene:
    """What control pictures are drawn from: N x size x size x 3 RGB crops with their face and body points."""

    pictures: Pixels
    faces: Points
    """N x 478 x 2, pixels."""
    bodies: Points
    """N x 18 x 3, pixels and confidence."""


def scene_of(frames: Frames, crops: Crops, pictures: Pixels) -> Scene:
    """Move the frames' landmarks into the crops; a mirrored picture swaps the body's left and right."""
    size = pictures.shape[1]
    faces, bodies = [], []
    for row in range(len(crops)):
        pose = frames.pose[crops.frame[row]].copy()
        pose[:, :2] = move_points(crops, row, pose[:, :2], size)
        body = body18_from_pose33(pose)
        bodies.append(body[list(_LEFT_RIGHT)] if crops.mirrored[row] else body)
        faces.append(move_points(crops, row, frames.face[crops.frame[row]], size))
    return Scene(pictures, np.stack(faces), np.stack(bodies))


def draw_control(name: str, scene: Scene, row: int, rng: np.random.Generator | None = None) -> Pixels:
    """Draw one control picture; with `rng`, thresholds, cell counts and factors vary a little."""
    rgb = scene.pictures[row]
    if name == "canny":
        low = int(rng.integers(60, 140)) if rng else 100
        return canny_map(rgb, low, 2 * low)
    if name == "color":
        return color_grid(rgb, int(rng.choice((12, 16, 16, 16, 24))) if rng else 16)
    if name == "tile":
        return tile_map(rgb, float(rng.uniform(1.5, 6)) if rng else 4.0)
    body = None if rng and rng.random() < 0.15 else scene.bodies[row]
    return openpose_map(*rgb.shape[:2], scene.faces[row], body)


def draw_controls(name: str, scene: Scene, scratch: Path, processes: int = 16) -> Pixels:
    """Draw all control pictures of a scene on many cores; `scratch` holds them meanwhile."""
    np.lib.format.open_memmap(scratch, mode="w+", dtype=np.uint8, shape=scene.pictures.shape).flush()
    cv2.setNumThreads(1)
    parts = np.array_split(np.arange(len(scene.pictures)), processes)
    # Forked children share the pictures without copying them; they touch neither torch nor the GPU.
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_draw_part, args=(name, scene, part, scratch)) for part in parts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError(f"drawing {name} failed")
    drawn = np.load(scratch)
    scratch.unlink()
    return np.asarray(drawn, np.uint8)


def _draw_part(name: str, scene: Scene, rows: npt.NDArray[np.int64], scratch: Path) -> None:
    out = np.lib.format.open_memmap(scratch, mode="r+")
    for row in rows:
        out[row] = draw_control(name, scene, int(row), np.random.default_rng(int(row)))
