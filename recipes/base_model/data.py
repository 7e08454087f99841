"""Step 1: fuse each training portrait's face onto the portraits that fit it best.

    python -m recipes.base_model.data PORTRAITS OUT

Writes OUT/frames.npy (frames x size x size x 3, uint8 RGB; the training portraits first, then the fused ones),
OUT/frames.npz (`face` 478 x 2, `pose` 33 x 4, `origin` = index of the portrait the face and the frame come from) and
OUT/people.json (one record a portrait). Portraits that are held out never enter.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np

from recipes.base_model.captions import IDENTITY_WORDS
from recipes.base_model.fusion import Portrait, describe, fuse, nearest, read_portraits, split_held_out

_portraits: list[Portrait] = []


def _open(folder: Path) -> None:
    cv2.setNumThreads(1)
    _portraits.extend(split_held_out(read_portraits(folder))[0])


def _fuse_onto(job: tuple[int, int, Path]) -> list[tuple[int, int]]:
    """Fuse onto portrait `index` and write the frames into its slots; returns (slot, source index) of each."""
    index, count, path = job
    target = _portraits[index]
    frames = np.lib.format.open_memmap(path, mode="r+")
    frames[index] = target.bgr[..., ::-1]
    made = []
    for rank, source in enumerate(nearest(target, _portraits, count)):
        fused = fuse(source, target)
        if fused is not None:
            slot = len(_portraits) + index * count + rank
            frames[slot] = fused[..., ::-1]
            made.append((slot, _portraits.index(source)))
    return made


def make_frames(folder: Path, out: Path, count: int, processes: int) -> int:
    """Fuse `count` faces onto every training portrait; returns how many frames were made."""
    out.mkdir(parents=True, exist_ok=True)
    if not _portraits:
        _open(folder)
    total = len(_portraits)
    size = _portraits[0].bgr.shape[0]
    slots = total * (1 + count)
    partial = out / "frames.partial.npy"
    np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(slots, size, size, 3)).flush()
    jobs = [(index, count, partial) for index in range(total)]
    with Pool(processes, initializer=_open_again, initargs=(folder,)) as pool:
        made = [pair for pairs in pool.imap_unordered(_fuse_onto, jobs) for pair in pairs]
    origin = np.full((slots, 2), -1, np.int32)
    origin[:total] = np.arange(total)[:, None]
    for slot, source in made:
        origin[slot] = source, (slot - total) // count
    target = np.where(origin[:, 1] >= 0, origin[:, 1], 0)
    np.savez(
        out / "frames.npz",
        origin=origin,
        face=np.stack([p.face for p in _portraits])[target],
        pose=np.stack([p.pose for p in _portraits])[target],
    )
    people = [
        asdict(replace(p.person, identities=(IDENTITY_WORDS[index],), **describe(p)))
        for index, p in enumerate(_portraits)
    ]
    (out / "people.json").write_text(json.dumps(people, indent=1) + "\n")
    partial.rename(out / "frames.npy")
    return total + len(made)


def _open_again(folder: Path) -> None:
    if not _portraits:
        _open(folder)


def main() -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=24, help="faces fused onto each portrait")
    parser.add_argument("--processes", type=int, default=16)
    args = parser.parse_args()
    start = time.monotonic()
    made = make_frames(args.portraits, args.out, args.count, args.processes)
    print(f"{made} frames in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
