"""Step 7: choose the gallery of templates and the sample people out of sheets that the base model drew.

    python -m recipes.base_model.galleries SHEETS --out PROJECT

SHEETS holds what `recipes.base_model.drawings` wrote: half_body_{woman,man}.jpg, mixed_{woman,man}.jpg and drawings.json,
512 px a cell. Eyes chose the cells: the numbers below come from looking at every sheet, and stand for these seeds alone.
A template is a cell as it was drawn, enlarged. A sample person is the face of one drawn person, laid by mesh fusion onto
nine drawn pictures of other heads in other light: an identity that no training picture shows, and no two photos alike.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from easyphoto.faces.tools import FaceTools
from easyphoto.imaging.io import load_photo, save_jpeg
from easyphoto.records import Floats, Photo

COLUMNS, CELL = 6, 512


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One cell that became a template."""

    name: str
    sex: str
    cell: int
    age: int
    words: str


TEMPLATES = (
    Choice(name="studio-woman", sex="woman", cell=3, age=25, words="plain background"),
    Choice(name="living-room", sex="woman", cell=8, age=25, words="indoors, smiling"),
    Choice(name="window-seat", sex="woman", cell=12, age=40, words="indoors, smiling"),
    Choice(name="garden-afternoon", sex="woman", cell=26, age=65, words="outdoors, garden"),
    Choice(name="studio-man", sex="man", cell=5, age=25, words="plain background"),
    Choice(name="garden-arch", sex="man", cell=16, age=45, words="outdoors, smiling"),
    Choice(name="navy-suit", sex="man", cell=9, age=45, words="indoors, suit, smiling"),
    Choice(name="linen-shirt", sex="man", cell=28, age=70, words="indoors, plain background"),
)
PEOPLE = {
    "woman": (17, (17, 18, 1, 20, 54, 69, 13, 7, 60, 0)),
    "man": (18, (6, 22, 52, 38, 65, 35, 48, 41, 54, 18)),
}
"""Sex: (whose face, onto which cells; half-body cells first, then mixed ones)."""


def cells(sheets: Path, name: str) -> list[tuple[Photo, dict[str, object]]]:
    """Every drawn cell of a sheet with its prompt and seed."""
    sheet = load_photo(sheets / f"{name}.jpg").pixels
    rows = json.loads((sheets / "drawings.json").read_text(encoding="utf-8"))[name]["rows"]
    found = []
    for number, row in enumerate(rows):
        top, left = CELL * (number // COLUMNS), CELL * (number % COLUMNS)
        pixels = np.ascontiguousarray(sheet[top : top + CELL, left : left + CELL])
        found.append((Photo(pixels=pixels, name=f"{name}-{number}"), row))
    return found


def write_templates(sheets: Path, folder: Path) -> None:
    """The gallery with its templates.json."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {sex: cells(sheets, f"half_body_{sex}") for sex in PEOPLE}
    entries = []
    for choice in TEMPLATES:
        photo, row = drawn[choice.sex][choice.cell]
        save_jpeg(folder / f"{choice.name}.jpg", enlarge(photo.pixels, 768), 92)
        entries.append({"file": f"{choice.name}.jpg", **asdict(choice), **row})
    (folder / "templates.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def write_person(sheets: Path, sex: str, folder: Path, tools: FaceTools) -> dict[str, object]:
    """Ten photos of one made-up person; returns how and how alike they are."""
    folder.mkdir(parents=True, exist_ok=True)
    source, onto = PEOPLE[sex]
    drawn = cells(sheets, f"half_body_{sex}") + cells(sheets, f"mixed_{sex}")
    whose = drawn[source][0]
    face = tools.faces(whose)[0]
    vectors = []
    for number, cell in enumerate(onto):
        photo = drawn[cell][0]
        made = photo if cell == source else tools.fuser.fuse(whose, face, photo, tools.faces(photo)[0])
        save_jpeg(folder / f"{number:02d}.jpg", made.pixels, 92)
        vectors.append(identity(load_photo(folder / f"{number:02d}.jpg"), tools))
    return {"sex": sex, "face": drawn[source][1], "onto": [drawn[cell][1] for cell in onto], "median_distance": spread(vectors)}


def identity(photo: Photo, tools: FaceTools) -> Floats:
    """(128,) vector of the photo's first face."""
    vector = tools.with_embedding(photo, tools.faces(photo)[0]).embedding
    assert vector is not None
    return vector


def spread(vectors: list[Floats]) -> float:
    """Median distance over all pairs."""
    table = np.linalg.norm(np.stack(vectors)[:, None] - np.stack(vectors)[None], axis=2)
    return round(float(np.median(table[np.triu_indices(len(vectors), 1)])), 4)


def enlarge(pixels: np.ndarray, side: int) -> np.ndarray:
    """Lanczos to a square side, with a mild unsharp mask."""
    large = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LANCZOS4)
    soft = cv2.GaussianBlur(large, (0, 0), 1.6)
    return np.asarray(cv2.addWeighted(large, 1.5, soft, -0.5, 0), np.uint8)


def main() -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheets", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the project's root")
    args = parser.parse_args()
    tools = FaceTools()
    write_templates(args.sheets, args.out / "templates")
    people = args.out / "models" / "sample-people"
    facts = [write_person(args.sheets, sex, people / sex, tools) for sex in PEOPLE]
    (people / "people.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print({fact["sex"]: fact["median_distance"] for fact in facts})


if __name__ == "__main__":
    main()
