"""Crops of frames: drawn at random, cut on the training device, with the landmarks moved along."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frames:
    """Square frames with a face each."""

    pixels: torch.Tensor
    """N x side x side x 3, uint8, RGB."""
    face: Floats
    """N x 478 x 2 face mesh, frame pixels."""
    pose: Floats
    """N x 33 x 4 MediaPipe pose (x, y, z, visibility), frame pixels."""
    origin: npt.NDArray[np.int32]
    """N x 2: whose face, whose frame (portrait indices)."""

    @property
    def side(self) -> int:
        """Side of a frame in pixels."""
        return int(self.pixels.shape[1])

    @cached_property
    def boxes(self) -> tuple[Floats, Floats]:
        """Each face's centre (N x 2) and longer side (N) in frame pixels, from the 468 mesh points; kept, for it takes long."""
        low, high = self.face[:, :468].min(axis=1), self.face[:, :468].max(axis=1)
        return ((low + high) / 2).astype(np.float32), (high - low).max(axis=1).astype(np.float32)


@dataclass(frozen=True)
class Crops:
    """Square crops, maybe turned and mirrored."""

    frame: npt.NDArray[np.int64]
    center: Floats
    """N x 2, frame pixels."""
    side: Floats
    """N, frame pixels."""
    angle: Floats
    """N, radians."""
    mirrored: npt.NDArray[np.bool_]
    ratio: Floats
    """N, side over the face's longer side."""

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Crops:
        return Crops(
            self.frame[rows], self.center[rows], self.side[rows], self.angle[rows], self.mirrored[rows], self.ratio[rows]
        )


def wait_for(path: Path, seconds: float = 1200) -> Path:
    """Block until another step has written `path`."""
    start = time.monotonic()
    while not path.exists():
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"{path} did not appear")
        time.sleep(1)
    return path


def load_frames(folder: Path, device: str) -> Frames:
    """Load what the data step wrote, leaving out fusions that failed."""
    wait_for(folder / "frames.npy")
    facts = np.load(folder / "frames.npz")
    used = np.flatnonzero(facts["origin"][:, 0] >= 0)
    stored = np.load(folder / "frames.npy", mmap_mode="r")
    pixels = torch.empty((len(used), *stored.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(used), 256):
        rows = used[start : start + 256]
        pixels[start : start + len(rows)] = torch.from_numpy(np.ascontiguousarray(stored[rows])).to(device)
    return Frames(pixels, facts["face"][used], facts["pose"][used], facts["origin"][used])


def draw_crops(
    frames: Frames, count: int, ratios: tuple[float, float], rng: np.random.Generator, *, tilt: float = 5.0
) -> Crops:
    """Draw crops around faces, half of them of unfused portraits' share or more, kept inside the frame if they fit.

    Args:
        frames: Where to cut.
        count: How many.
        ratios: Lowest and highest side in face sizes; sides stop at the frame's.
        rng: Source of randomness.
        tilt: Standard deviation of the turn, degrees.
    """
    originals = int((frames.origin[:, 0] == frames.origin[:, 1]).sum())
    frame = rng.integers(0, len(frames.face), count)
    plain = rng.random(count) < 0.3
    frame[plain] = rng.integers(0, originals, int(plain.sum()))
    centers, sizes = frames.boxes
    side = np.minimum(sizes[frame] * rng.uniform(*ratios, count), frames.side)
    center = centers[frame] + rng.normal(0, 0.06, (count, 2)) * side[:, None] * (1.0, 0.6)
    half = side[:, None] / 2
    center = np.clip(center, half, frames.side - half)
    angle = np.deg2rad(rng.normal(0, tilt, count)) * (side < 0.9 * frames.side)
    return Crops(
        frame, center.astype(np.float32), side.astype(np.float32), angle.astype(np.float32),
        rng.random(count) < 0.5, (side / sizes[frame]).astype(np.float32),
    )  # fmt: skip


def cut(frames: Frames, crops: Crops, size: int) -> torch.Tensor:
    """Cut the crops at `size` px: N x 3 x size x size float32 in -1..1, antialiased, mirrored at the frame's edge."""
    device = frames.pixels.device
    fine = 2 * size if float(crops.side.max()) > size else size
    steps = (torch.arange(fine, device=device) + 0.5) / fine - 0.5
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    side, angle = (torch.from_numpy(a).to(device)[:, None, None] for a in (crops.side, crops.angle))
    sign = torch.from_numpy(np.where(crops.mirrored, -1.0, 1.0).astype(np.float32)).to(device)[:, None, None]
    center = torch.from_numpy(crops.center).to(device)
    x = side * (torch.cos(angle) * u * sign - torch.sin(angle) * v) + center[:, 0, None, None]
    y = side * (torch.sin(angle) * u * sign + torch.cos(angle) * v) + center[:, 1, None, None]
    grid = torch.stack([x, y], -1) * (2 / frames.side) - 1
    picked = frames.pixels[torch.from_numpy(crops.frame).to(device)].permute(0, 3, 1, 2).float() / 127.5 - 1
    out = F.grid_sample(picked, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(out, 2) if fine != size else out


def move_points(crops: Crops, row: int, points: Floats, size: int) -> Floats:
    """Move frame points (N x 2, pixels) into crop `row` at `size` px."""
    offset = (points - crops.center[row]) / crops.side[row]
    cos, sin = np.cos(crops.angle[row]), np.sin(crops.angle[row])
    u = cos * offset[:, 0] + sin * offset[:, 1]
    v = -sin * offset[:, 0] + cos * offset[:, 1]
    sign = -1.0 if crops.mirrored[row] else 1.0
    return np.stack([(u * sign + 0.5) * size, (v + 0.5) * size], axis=1).astype(np.float32)
