"""The recipes that `recipes.py` compares: what each changes of the one that is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from easyphoto.families import Family
from easyphoto.specs import LoraSpec, OptimSpec, RateSchedule, TrainSpec

_COSINE = RateSchedule.COSINE
OLD = OptimSpec(learning_rate=1.5e-3, text_learning_rate=1e-4, steps_per_photo=16, max_steps=200, timestep_power=2.0)
"""How the embedded family was trained before recipes were compared."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A name, and what it changes."""

    name: str
    optim: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    """Another seed says how much chance decides."""
    steps: int | None = None
    """A length of its own, for rates that fall to nothing at the end."""

    def spec(self, base: Path, steps: int) -> TrainSpec:
        """A training of exactly so many steps, or of the recipe's own length."""
        plain = TrainSpec.for_family("recipe", base, Family.EMBEDDED)
        optim = replace(OLD, **self.optim, steps_per_photo=10_000, max_steps=self.steps or steps)
        return replace(plain, optim=optim, lora=replace(LoraSpec(rank=32, alpha=32.0), **self.lora))


def _named(*recipes: Recipe) -> dict[str, Recipe]:
    return {recipe.name: recipe for recipe in recipes}


_CURVE = {"schedule": _COSINE, "warmup": 0.05}
_FAST = {**_CURVE, "learning_rate": 3e-3}
_PLUS = {**_CURVE, "loraplus_ratio": 8.0}
RECIPES = _named(
    Recipe(name="today"),
    Recipe(name="today-again", seed=1),
    # One switch at a time.
    Recipe(name="timesteps-1", optim={"timestep_power": 1.0}),
    Recipe(name="timesteps-3", optim={"timestep_power": 3.0}),
    Recipe(name="snr-1", optim={"snr_gamma": 1.0, "timestep_power": 1.0}),
    Recipe(name="snr-5", optim={"snr_gamma": 5.0, "timestep_power": 1.0}),
    Recipe(name="rate-3", optim={"learning_rate": 3e-3}),
    Recipe(name="rate-6", optim={"learning_rate": 6e-3}),
    Recipe(name="cosine", optim=_CURVE),
    Recipe(name="cosine-3", optim=_FAST),
    Recipe(name="cosine-5", optim={**_CURVE, "learning_rate": 5e-3}),
    Recipe(name="loraplus-4", optim={"loraplus_ratio": 4.0}),
    Recipe(name="loraplus-8", optim={"loraplus_ratio": 8.0}),
    Recipe(name="loraplus-16-slow", optim={"loraplus_ratio": 16.0, "learning_rate": 5e-4}),
    Recipe(name="rslora", lora={"rslora": True, "alpha": 16.0}),
    Recipe(name="face-4", optim={"face_weight": 4.0}),
    Recipe(name="face-12", optim={"face_weight": 12.0}),
    Recipe(name="ema-95", optim={"ema": 0.95}),
    Recipe(name="text-0", optim={"text_learning_rate": 0.0}),
    Recipe(name="text-1e-3", optim={"text_learning_rate": 1e-3}),
    Recipe(name="rank-8", lora={"rank": 8, "alpha": 8.0}),
    Recipe(name="rank-64", lora={"rank": 64, "alpha": 64.0}),
    Recipe(name="batch-8", optim={"batch_size": 8}),
    # Several together, and short ones whose rates end at nothing in time.
    Recipe(name="cosine-plus-8", optim=_PLUS),
    Recipe(name="cosine-plus-8-again", optim=_PLUS, seed=1),
    Recipe(name="cosine-plus-8-face-4", optim={**_PLUS, "face_weight": 4.0}),
    Recipe(name="cosine-plus-8-ema-95", optim={**_PLUS, "ema": 0.95}),
    Recipe(name="cosine-plus-8-batch-8", optim={**_PLUS, "batch_size": 8}),
    Recipe(name="cosine-plus-8-snr-1", optim={**_PLUS, "snr_gamma": 1.0, "timestep_power": 1.0}),
    Recipe(name="cosine-3-plus-4", optim={**_FAST, "loraplus_ratio": 4.0}),
    Recipe(name="cosine-plus-16", optim={**_PLUS, "loraplus_ratio": 16.0}),
    Recipe(name="cosine-3-ema-95", optim={**_FAST, "ema": 0.95}),
    Recipe(name="cosine-plus-8-to-40", optim=_PLUS, steps=40),
    Recipe(name="cosine-plus-8-to-60", optim=_PLUS, steps=60),
    Recipe(name="cosine-plus-8-to-100", optim=_PLUS, steps=100),
    Recipe(name="cosine-3-to-60", optim=_FAST, steps=60),
)
