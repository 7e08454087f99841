"""Which recipe reaches a likeness soonest? People x recipes on the embedded base model, judged as the product judges.

    python benchmarks/recipes.py                                   both sample people, every recipe: hours on two cores
    python benchmarks/recipes.py --recipes today cosine --steps 80 --people models/sample-people/man
    python benchmarks/recipes.py --stage train --part 0/8          on another machine, with the folder that `prepare` made

Three stages, all by default, each in the folder --work:

    prepare   checks the photos, finds the templates nearest to each person (needs the face tools)
    train     trains and renders each recipe's checkpoints on those templates; on a GPU all people side by side
    score     dlib's distance of every picture to the person's median and to that of photos held out; the tables, results.json

A folder of photos is a person; of one with 16 photos or more the first 12 are trained on and the others held out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.recipe_list import RECIPES, Recipe
from benchmarks.recipe_people import prepare_people, read_people
from benchmarks.recipe_runs import run_recipe
from benchmarks.recipe_scores import Wanted, score_all, tables
from easyphoto.settings import PROJECT_ROOT, calm_threads


def main() -> int:
    """Run the stages."""
    asked = _arguments()
    calm_threads()
    recipes = [RECIPES[name] for name in asked.recipes] if asked.recipes else list(RECIPES.values())
    if asked.stage in ("all", "prepare"):
        prepare_people(asked.people, asked.base, asked.templates, asked.work / "people")
    if asked.stage in ("all", "train"):
        _train(asked, recipes)
    if asked.stage in ("all", "score"):
        steps = asked.at if asked.only_at else ()
        wanted = Wanted(recipes=asked.recipes or (), people=asked.only or (), steps=steps, part=asked.part)
        print(tables(asked.work, score_all(asked.work, wanted), asked.choose))
    return 0


def _train(asked: argparse.Namespace, recipes: list[Recipe]) -> None:
    from easyphoto.engine.models import load_models

    number, parts = asked.part
    people = [one for one in read_people(asked.work / "people") if not asked.only or one.name in asked.only]
    models = None
    for recipe in recipes[number::parts]:
        began = time.perf_counter()
        import torch

        torch.backends.cuda.matmul.allow_tf32 = True
        models = models or load_models(asked.base, asked.device, torch.float32)
        folder = asked.work / "pictures" / recipe.name
        for together in [people] if models.device.startswith("cuda") else [[one] for one in people]:
            times = run_recipe(models, recipe, together, folder, asked.steps, asked.at)
            path = folder / f"times-{together[0].name}.json"
            path.write_text(json.dumps(times), encoding="utf-8")
        print(f"{recipe.name}: {time.perf_counter() - began:.1f} s", flush=True)


def _arguments() -> argparse.Namespace:
    sample = PROJECT_ROOT / "models" / "sample-people"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=Path, nargs="+", default=[sample / "man", sample / "woman"], help="folders of photos")
    parser.add_argument("--only", nargs="+", help="train or score these people alone")
    parser.add_argument("--choose", nargs="+", default=[], help="people the first table is about; the second has the others")
    parser.add_argument("--recipes", nargs="+", choices=sorted(RECIPES), metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--base", type=Path, default=PROJECT_ROOT / "models" / "base-256")
    parser.add_argument("--templates", type=Path, default=PROJECT_ROOT / "templates")
    parser.add_argument("--work", type=Path, default=PROJECT_ROOT / "outputs" / "recipes")
    parser.add_argument("--stage", choices=["all", "prepare", "train", "score"], default="all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=200, help="of every recipe that has no length of its own")
    parser.add_argument("--at", type=int, nargs="+", default=[20, 40, 80, 140, 200], help="steps to render after")
    parser.add_argument("--part", type=_part, default=(0, 1), help="2/8: the third of eight equal parts of recipes or pictures")
    parser.add_argument("--only-at", action="store_true", help="score the pictures of the steps of --at alone")
    return parser.parse_args()


def _part(text: str) -> tuple[int, int]:
    number, parts = text.split("/")
    return int(number), int(parts)


if __name__ == "__main__":
    sys.exit(main())
