"""Judging checkpoints: each is rendered on templates the way inference will use it, and scored by identity.

The templates are looked at once: their crops, control maps and masks become finished inpaint jobs, and a checkpoint only
runs them. The person's photo is not fused in here, so that the score speaks of the LoRA alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from easyphoto.engine.models import Models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.errors import EasyPhotoError
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES
from easyphoto.imaging.io import save_png
from easyphoto.portrait.plan import Scene, make_scene
from easyphoto.portrait.pose import pose_map
from easyphoto.portrait.stages import Words, first_job
from easyphoto.records import Face, Floats, InpaintJob, Photo, Pixels
from easyphoto.specs import CheckpointScore, PassSettings, TrainSpec
from easyphoto.training.gallery import front_faces, largest_face
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.memory import give_back, is_out_of_memory
from easyphoto.training.rendering import Renderer


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One template, ready to be rendered."""

    name: str
    job: InpaintJob


class Judge:
    """Renders and scores what the models can draw at the moment."""

    def __init__(self, models: Models, tools: FaceTools, person: Floats, trials: Sequence[Trial]) -> None:
        """Use `make_judge`.

        Args:
            models: The models under training.
            tools: Find and compare faces.
            person: (128,) median identity vector of the person's photos.
            trials: What to render.
        """
        self._models = models
        self._tools = tools
        self._person = person
        self._trials = tuple(trials)
        self._renderer: Renderer | None = None
        self._together = True
        self._fetching: threading.Thread | None = None

    @property
    def templates(self) -> int:
        """How many pictures one judgement renders."""
        return len(self._trials)

    @property
    def jobs(self) -> tuple[tuple[str, InpaintJob], ...]:
        """(template, what is rendered of it), for whoever renders elsewhere."""
        return tuple((trial.name, trial.job) for trial in self._trials)

    def fetch(self) -> None:
        """Begin to read the ControlNets, once, while the GPU takes its first steps and the processor has little to do."""

        def read() -> None:
            # What is wrong with one is said when it is asked for.
            with contextlib.suppress(EasyPhotoError):
                for condition in self._trials[0].job.conditions:
                    self._models.controlnet(condition.kind)

        if self._fetching is None:
            self._fetching = threading.Thread(target=read, daemon=True)
            self._fetching.start()

    def judge(self, folder: Path, step: int, merged: bool, hooks: JudgeHooks) -> CheckpointScore:
        """Render every template with the weights as they are, and score the pictures.

        Args:
            folder: Where the pictures go.
            step: Of the checkpoint.
            merged: Whether it is the merge of several.
            hooks: Told of each picture and asked at every step.
        """
        # A new engine each time: it would remember the caption's text states from other weights.
        with StandaloneEngine(self._models) as engine:
            painted = (engine.inpaint(trial.job, lambda _done, _total: hooks.before_step()) for trial in self._trials)
            return self.score(painted, folder, step, merged, hooks)

    def paint_together(self, network: LoraNetwork, hooks: JudgeHooks) -> list[Pixels] | None:
        """All pictures at once, with the LoRA as it is trained; None where this is no GPU, or its memory does not hold them."""
        if not self._together or not self._models.device.startswith("cuda"):
            return None
        if self._fetching is not None:
            self._fetching.join()
        network.refresh()
        try:
            if self._renderer is None:
                self._renderer = Renderer(self._models, [trial.job for trial in self._trials])
            return self._renderer.render(network.place, lambda _done, _total: hooks.before_step())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._renderer, self._together = None, False
        give_back(self._models.device)
        return None

    def score(
        self, painted: Iterable[Pixels], folder: Path, step: int, merged: bool, hooks: JudgeHooks
    ) -> CheckpointScore:
        """Save and score pictures of all templates; as `judge`."""
        label = "merged" if merged else f"step-{step:06d}"
        pictures, scores, began = [], [], time.perf_counter()
        for trial, pixels in zip(self._trials, painted):
            path = folder / f"{label}-{trial.name}.png"
            save_png(path, pixels)
            pictures.append(path)
            scores.append(self._score(Photo(pixels=pixels, name=path.name)))
            now = time.perf_counter()
            hooks.after_picture(path, scores[-1], now - began)
            began = now
        mean = round(float(np.mean(scores)), 6)
        return CheckpointScore(step=step, score=mean, pictures=tuple(pictures), picture_scores=tuple(scores), merged=merged)

    def _score(self, photo: Photo) -> float:
        """1 - distance to the person; 0 where no face is found any more."""
        face = largest_face(self._tools, photo)
        if face is None:
            return 0.0
        return round(1.0 - _distance(self._tools, photo, face, self._person), 6)


@dataclass(frozen=True, kw_only=True)
class JudgeHooks:
    """What judging calls."""

    before_step: Callable[[], None]
    """May raise Cancelled."""
    after_picture: Callable[[Path, float, float], None]
    """Told the picture, its score and its seconds."""


def make_judge(models: Models, tools: FaceTools, person: Floats, spec: TrainSpec, templates: Sequence[Path]) -> Judge | None:
    """Prepare the templates whose faces are nearest to the person; None where there is none to render.

    Nearest by identity, because that tells women from men and old from young without anyone saying so, and a template of
    another sex or age says little about a likeness.
    """
    found: list[tuple[float, str, Scene]] = []
    for path, photo, face in front_faces(templates, tools):
        scene = make_scene(photo, tools.body(photo, face), models.family)
        found.append((_distance(tools, photo, face, person), path.stem, scene))
    nearest = sorted(found, key=lambda item: item[:2])[: spec.validate.templates]
    trials = [Trial(name=name, job=_job(scene, spec, models, number)) for number, (_, name, scene) in enumerate(nearest)]
    return Judge(models, tools, person, trials) if trials else None


def _distance(tools: FaceTools, photo: Photo, face: Face, person: Floats) -> float:
    """Euclidean distance of two identity vectors; below 0.6 dlib takes them for one person."""
    embedding = tools.with_embedding(photo, face).embedding
    return float(np.linalg.norm(np.asarray(embedding) - person))


def _job(scene: Scene, spec: TrainSpec, models: Models, number: int) -> InpaintJob:
    """The first pass of inference on this template, at validation's strength; each template has a seed of its own."""
    there = {kind.value for kind in models.conditions}
    weights = tuple(pair for pair in PROFILES[spec.family].first.weights if pair[0] in there)
    settings = PassSettings(strength=spec.validate.strength, steps=spec.validate.steps, weights=weights)
    words = Words(
        prompt=spec.data.caption, negative="", guidance=PROFILES[spec.family].guidance, loras=(), seed=spec.seed + number
    )
    pose = pose_map(scene.crop, scene.crop.face, scene.first_size)
    return replace(first_job(scene, scene.crop.photo.pixels, pose, words, settings), loras=())
