"""Step 8: measure the model against its gates, on portraits and people it has not seen.

    python -m recipes.base_model.gates MODEL SHEETS --portraits PORTRAITS [--people PEOPLE] --out figures.json

SHEETS is what `recipes.base_model.drawings` wrote; PORTRAITS the prepared portraits (every tenth was held out); PEOPLE a
folder with one folder of photos for each real person. The sample people are the project's own unless `--sample-people`
names others. Needs the face tools, so it runs where mediapipe and dlib are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from easyphoto.engine.models import Models, load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES, Family
from easyphoto.imaging.conditions import canny_map, color_grid, tile_map
from easyphoto.imaging.geometry import crop_square
from easyphoto.imaging.io import load_photo, photo_files
from easyphoto.records import CAPTION, Condition, ConditionKind, Face, Floats, InpaintJob, Photo
from easyphoto.settings import PROJECT_ROOT
from recipes.base_model.novelty import Faces, aligned, novelty

Pixels = npt.NDArray[np.uint8]
SHRINK = 4
"""Tile is judged on the picture shrunken by this factor, which is all that its map holds."""


def cells(sheets: Path, name: str) -> list[Pixels]:
    """Every picture of a sheet."""
    facts = json.loads((sheets / "drawings.json").read_text(encoding="utf-8"))[name]
    sheet, side, columns = load_photo(sheets / f"{name}.jpg").pixels, facts["height"], facts["columns"]
    places = [(side * (k // columns), side * (k % columns)) for k in range(len(facts["rows"]))]
    return [np.ascontiguousarray(sheet[top : top + side, left : left + side]) for top, left in places]


def psnr(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all channels."""
    return float(-10 * np.log10(np.mean((first.astype(np.float64) - second) ** 2) / 255**2 + 1e-12))


def main_face(tools: FaceTools, pixels: Pixels) -> tuple[Photo, Face] | None:
    """The largest face of a picture."""
    photo = Photo(pixels=pixels, name="cell")
    faces = tools.faces(photo)
    return (photo, max(faces, key=lambda face: face.box.width)) if faces else None


def vector(tools: FaceTools, pixels: Pixels) -> Floats | None:
    """Identity vector of the largest face."""
    found = main_face(tools, pixels)
    return tools.with_embedding(*found).embedding if found else None


def look(tools: FaceTools, pictures: Iterable[Pixels]) -> Faces:
    """The main faces of the pictures that show one."""
    found = [(vector(tools, pixels), aligned(*face)) for pixels in pictures if (face := main_face(tools, pixels))]
    identities, chips = zip(*found, strict=True)
    return Faces(identities=np.stack(identities), pictures=np.stack(chips))


def round_trip(models: Models, pixels: Pixels) -> Pixels:
    """A picture encoded and decoded."""
    import torch

    with torch.inference_mode():
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        decoded = models.vae.decode(models.vae.encode(image).latent_dist.mode()).sample[0]
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def judge_autoencoder(models: Models, pictures: list[Pixels], tools: FaceTools) -> dict[str, float]:
    """PSNR and identity distance between pictures and their round trips."""
    again = [round_trip(models, pixels) for pixels in pictures]
    pairs = [(vector(tools, a), vector(tools, b)) for a, b in zip(pictures, again, strict=True)]
    distances = [float(np.linalg.norm(a - b)) for a, b in pairs if a is not None and b is not None]
    ratios = [psnr(a, b) for a, b in zip(pictures, again, strict=True)]
    return {
        "pictures": len(pictures), "psnr_db": round(float(np.mean(ratios)), 2), "psnr_lowest_db": round(min(ratios), 2),
        "identity_median": round(float(np.median(distances)), 3), "identity_p90": round(float(np.quantile(distances, 0.9)), 3),
    }  # fmt: skip


def real_pictures(people: Path, tools: FaceTools, size: int = 256) -> list[Pixels]:
    """Photos of real people, cut around the largest face as training and portraits cut them."""
    crops = []
    for path in (path for folder in sorted(people.iterdir()) if folder.is_dir() for path in photo_files([folder])):
        found = main_face(tools, load_photo(path).pixels)
        if found:
            crops.append(crop_square(*found, PROFILES[Family.EMBEDDED].crop_ratio, size).photo.pixels)
    return crops


def judge_samples(pictures: list[Pixels], tools: FaceTools) -> dict[str, float]:
    """How many plain samples show a face, and how near the two nearest are."""
    small = np.stack([cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA) for p in pictures]).reshape(len(pictures), -1)
    small = small.astype(np.float32)
    square = (small**2).sum(1)
    gaps = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * small @ small.T, 0) / small.shape[1])
    np.fill_diagonal(gaps, np.inf)
    found = [main_face(tools, pixels) is not None for pixels in pictures]
    return {
        "samples": len(pictures), "with_face": round(float(np.mean(found)), 4),
        "nearest_pair_rms_of_255": round(float(gaps.min()), 2), "identical": int((gaps < 0.5).sum() // 2),
    }  # fmt: skip


def judge_novelty(portraits: Path, samples: list[Pixels], people: Path, tools: FaceTools) -> dict[str, Any]:
    """How near held-out portraits, samples and sample people come to the nearest portrait that was trained on."""
    from recipes.base_model.fusion import read_portraits, split_held_out

    training, held_out = (
        look(tools, (cv2.cvtColor(portrait.bgr, cv2.COLOR_BGR2RGB) for portrait in group))
        for group in split_held_out(read_portraits(portraits))
    )
    photos = {
        folder.name: look(tools, (load_photo(path).pixels for path in photo_files([folder])))
        for folder in sorted(people.iterdir()) if folder.is_dir()
    }  # fmt: skip
    return novelty(training, held_out, look(tools, samples), photos)


def smile_width(tools: FaceTools, pixels: Pixels) -> float | None:
    """Width of the mouth in widths of the face."""
    found = main_face(tools, pixels)
    if found is None or found[1].mesh is None:
        return None
    mesh = found[1].mesh
    return float(np.linalg.norm(mesh[61] - mesh[291]) / np.linalg.norm(mesh[234] - mesh[454]))


def judge_words(pictures: list[Pixels], tools: FaceTools) -> dict[str, float]:
    """What words change, ten seeds each: the order of prompts is that of `drawings.CHANGES`."""
    groups = [pictures[k : k + 10] for k in range(0, len(pictures), 10)]

    def differ(one: int, other: int) -> float:
        pairs = zip(groups[one], groups[other], strict=True)
        return round(float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs])), 1)

    def mouth(group: int) -> float:
        widths = [width for pixels in groups[group] if (width := smile_width(tools, pixels)) is not None]
        return round(float(np.mean(widths)), 3)

    return {
        "woman_to_man_mean_difference": differ(0, 1), "woman_20_to_80": differ(2, 3), "man_20_to_80": differ(4, 5),
        "mouth_width_smiling_woman": mouth(6), "mouth_width_neutral_woman": mouth(7),
        "mouth_width_smiling_man": mouth(8), "mouth_width_neutral_man": mouth(9),
    }  # fmt: skip


def edge_f1(picture: Pixels, edges: Pixels) -> float:
    """F1 of a picture's Canny edges against the map's, each counted right within one pixel."""
    ours, theirs = canny_map(picture)[..., 0] > 0, edges[..., 0] > 127
    near = np.ones((3, 3), np.uint8)
    wide_ours, wide_theirs = (cv2.dilate(mask.astype(np.uint8), near) > 0 for mask in (ours, theirs))
    precision = (ours & wide_theirs).sum() / max(1, ours.sum())
    recall = (theirs & wide_ours).sum() / max(1, theirs.sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def landmark_error(tools: FaceTools, picture: Pixels, wanted: Pixels) -> float | None:
    """Mean distance in px between the face meshes of two pictures."""
    ours, theirs = main_face(tools, picture), main_face(tools, wanted)
    if ours is None or theirs is None or ours[1].mesh is None or theirs[1].mesh is None:
        return None
    return float(np.linalg.norm(ours[1].mesh - theirs[1].mesh, axis=1).mean())


def color_error(picture: Pixels, wanted: Pixels) -> float:
    """Mean Delta E (CIE 1976) between the colour grids of two pictures."""
    labs = [cv2.cvtColor(color_grid(p).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for p in (picture, wanted)]
    return float(np.linalg.norm(labs[0] - labs[1], axis=2).mean())


def control_measures(tools: FaceTools, picture: Pixels, wanted: Pixels, edges: Pixels) -> dict[str, float | None]:
    """All four measures of one picture against its held-out portrait."""
    return {
        "canny_edge_f1": edge_f1(picture, edges),
        "openpose_landmark_px": landmark_error(tools, picture, wanted),
        "color_delta_e": color_error(picture, wanted),
        "tile_psnr_db": psnr(tile_map(picture, SHRINK), tile_map(wanted, SHRINK)),
    }


def judge_controls(sheets: Path, tools: FaceTools) -> dict[str, dict[str, float]]:
    """Each ControlNet's own measure, with it and with none, on the same seeds, and in how many pictures it is better."""
    wanted, edges, none = cells(sheets, "held_out"), cells(sheets, "map_canny"), cells(sheets, "control_none")
    report = {}
    for name, measure, sign in (
        ("canny", "canny_edge_f1", 1), ("openpose", "openpose_landmark_px", -1), ("color", "color_delta_e", -1),
        ("tile", "tile_psnr_db", 1),
    ):  # fmt: skip
        values = [
            [control_measures(tools, *triple)[measure] for triple in zip(pictures, wanted, edges, strict=True)]
            for pictures in (none, cells(sheets, f"control_{name}"))
        ]
        pairs = np.array([pair for pair in zip(*values, strict=True) if None not in pair], np.float64)
        before, after = pairs.mean(0).round(3).tolist()
        better = int((sign * pairs[:, 1] > sign * pairs[:, 0]).sum())
        report[measure] = {"none": before, "with": after, "better_in": better, "pictures": len(pairs)}
    return report


def step_seconds(models: Models, steps: int = 15) -> float:
    """Median seconds of one guided step (both halves) with three ControlNets at 256 px, as the engine runs it."""
    drawn = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    kinds = (ConditionKind.CANNY, ConditionKind.OPENPOSE, ConditionKind.COLOR)
    job = InpaintJob(
        image=drawn, mask=np.ones((256, 256), np.float32), prompt=CAPTION, strength=1.0, steps=steps, guidance=4.0,
        conditions=tuple(Condition(kind=kind, image=drawn) for kind in kinds),
    )  # fmt: skip
    stamps: list[float] = []
    with StandaloneEngine(models) as engine:
        engine.inpaint(job, lambda _done, _total: stamps.append(time.perf_counter()))
    return round(float(np.median(np.diff(stamps))), 3)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every gate."""
    from recipes.base_model.autoencoder import held_out_crops
    from recipes.base_model.training import to_pictures

    tools, models = FaceTools(), load_models(args.model, "cpu")
    report: dict[str, Any] = {"guided_step_seconds": step_seconds(models)}
    held_out = list(to_pictures(held_out_crops(args.portraits, "cpu", ratio=PROFILES[Family.EMBEDDED].crop_ratio)))
    report["autoencoder_portraits"] = judge_autoencoder(models, held_out, tools)
    if args.people:
        report["autoencoder_real_people"] = judge_autoencoder(models, real_pictures(args.people, tools), tools)
    samples = cells(args.sheets, "samples0") + cells(args.sheets, "samples1")
    report["samples"] = judge_samples(samples, tools)
    report["novelty"] = judge_novelty(args.portraits, samples, args.sample_people, tools)
    report["words"] = judge_words(cells(args.sheets, "changes"), tools)
    report["controls"] = judge_controls(args.sheets, tools)
    return report


def main() -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("sheets", type=Path)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--people", type=Path)
    parser.add_argument("--sample-people", type=Path, default=PROJECT_ROOT / "models" / "sample-people")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    report = measure(args)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
