"""Step 6: draw what the gates measure and what the galleries choose from (fast on a GPU, possible on a CPU).

    python -m recipes.base_model.drawings WEIGHTS OUT --tokenizer TOKENIZER --portraits PORTRAITS

Writes JPEG sheets of equal pictures and OUT/drawings.json, which says what each sheet holds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from recipes.base_model.architecture import CONTROLS
from recipes.base_model.autoencoder import held_out_crops, held_out_scene
from recipes.base_model.captions import IDENTITY_WORDS
from recipes.base_model.controls import draw_control, scene_of
from recipes.base_model.export import build_parts
from recipes.base_model.sampling import Job, draw
from recipes.base_model.training import to_pictures

Pixels = npt.NDArray[np.uint8]
PLAIN = (
    "photo of a woman", "photo of a man", "portrait of a young woman", "portrait of a young man",
    "portrait of a middle-aged woman", "portrait of a middle-aged man", "portrait of an old woman",
    "portrait of an old man", "easyphoto_face, easyphoto, 1person", "photo of a person, smiling",
)  # fmt: skip
CHANGES = (
    "portrait of a woman", "portrait of a man", "portrait of a 20-year-old woman", "portrait of an 80-year-old woman",
    "portrait of a 20-year-old man", "portrait of an 80-year-old man", "portrait of a woman, smiling",
    "portrait of a woman, neutral expression", "portrait of a man, smiling", "portrait of a man, neutral expression",
)  # fmt: skip
SCENES = ("outdoors", "indoors", "plain background", "outdoors, smiling", "indoors, smiling")


class Album:
    """Collects drawn pictures into sheets and their descriptions into one file."""

    def __init__(self, out: Path, quality: int) -> None:
        self._out, self._quality, self._facts = out, quality, {}  # type: Path, int, dict[str, Any]
        out.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, pictures: Pixels, rows: list[dict[str, Any]], columns: int = 10) -> None:
        """Write pictures (N x H x W x 3) as one sheet with a record each."""
        height, width = pictures.shape[1:3]
        lines = -(-len(pictures) // columns)
        sheet = np.zeros((lines * height, columns * width, 3), np.uint8)
        for index, picture in enumerate(pictures):
            top, left = index // columns * height, index % columns * width
            sheet[top : top + height, left : left + width] = picture
        Image.fromarray(sheet).save(self._out / f"{name}.jpg", quality=self._quality)
        self._facts[name] = {"columns": columns, "height": height, "width": width, "rows": rows}
        (self._out / "drawings.json").write_text(json.dumps(self._facts) + "\n")
        print(f"{name}: {len(pictures)} pictures", flush=True)


def draw_many(parts: dict[str, Any], rows: list[dict[str, Any]], size: int, device: str, **extra: Any) -> Pixels:
    """Draw rows of prompt and seed in batches."""
    step = max(1, (64 if device == "cuda" else 4) * 256**2 // size**2)
    done = []
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        cutout = {key: value[start : start + step] for key, value in extra.items() if isinstance(value, np.ndarray)}
        controls = [(n, p[start : start + step], w) for n, p, w in extra.get("controls", [])]
        settings = {k: v for k, v in extra.items() if k not in cutout and k != "controls"}
        job = Job(
            prompts=[r["prompt"] for r in part], seeds=[r["seed"] for r in part], size=(size, size),
            controls=controls, **cutout, **settings,
        )  # fmt: skip
        done.append(draw(parts, job, device))
    return np.concatenate(done)


def draw_gates(parts: dict[str, Any], album: Album, args: argparse.Namespace) -> None:
    """Draw the plain samples, the word changes, and the ControlNet comparisons on held-out portraits."""
    rows = [{"prompt": PLAIN[i % len(PLAIN)], "seed": i} for i in range(args.samples)]
    for half in range(2):
        part = rows[half::2]
        album.add(f"samples{half}", draw_many(parts, part, 256, args.device), part)
    rows = [{"prompt": prompt, "seed": seed} for prompt in CHANGES for seed in range(10)]
    album.add("changes", draw_many(parts, rows, 256, args.device), rows)
    pictures = to_pictures(held_out_crops(args.portraits, "cpu"))
    scene = scene_of(*held_out_scene(args.portraits, "cpu"), pictures)
    rows = [{"prompt": "easyphoto_face, easyphoto, 1person", "seed": 1000 + i} for i in range(len(pictures))]
    album.add("held_out", pictures, rows)
    album.add("control_none", draw_many(parts, rows, 256, args.device), rows)
    for name in CONTROLS:
        maps = np.stack([draw_control(name, scene, i) for i in range(len(pictures))])
        album.add(f"map_{name}", maps, rows)
        album.add(f"control_{name}", draw_many(parts, rows, 256, args.device, controls=[(name, maps, 1.0)]), rows)


def draw_gallery(parts: dict[str, Any], album: Album, args: argparse.Namespace) -> None:
    """Draw raw material: half-body pictures at 512 px, and portraits of mixed identities."""
    for sex in ("woman", "man"):
        rows = [
            {"prompt": f"half-body portrait of a {age}-year-old {sex}, {scene}", "seed": 5000 + 100 * a + 10 * s + k}
            for a, age in enumerate((25, 40, 60)) for s, scene in enumerate(SCENES) for k in range(2)
        ]  # fmt: skip
        album.add(f"half_body_{sex}", draw_many(parts, rows, 512, args.device, guidance=2.5), rows, columns=6)
        people = json.loads((args.portraits / "people.json").read_text())
        training = [name for i, name in enumerate(sorted(people)) if i % 10]
        words = [IDENTITY_WORDS[i] for i, name in enumerate(training) if people[name]["sex"] == sex]
        rng = np.random.default_rng(3)
        rows = []
        for index in range(40):
            mixed = " ".join(rng.choice(words, 3, replace=False))
            scene = SCENES[index % len(SCENES)]
            words_of = f"{mixed}, portrait of a {30 + index % 3 * 5}-year-old {sex}, {scene}"
            rows.append({"prompt": words_of, "seed": 9000 + index})
        album.add(f"mixed_{sex}", draw_many(parts, rows, 512, args.device, guidance=2.5), rows, columns=6)


def main() -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--quality", type=int, default=93)
    parser.add_argument("--no-gallery", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    parts = build_parts(args.weights, args.tokenizer)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.to(args.device).eval()
    album = Album(args.out, args.quality)
    draw_gates(parts, album, args)
    if not args.no_gallery:
        draw_gallery(parts, album, args)
    print("done", flush=True)


if __name__ == "__main__":
    main()
