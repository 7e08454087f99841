"""Judging checkpoints: each is rendered on templates the way inference will use it, and scored by identity.

The templates are looked at once: their crops, control maps and masks become finished inpaint jobs, and a checkpoint only
runs them. The person's photo is not fused in here, so that the score speaks of the LoRA alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from easyphoto.records import ConditionKind, Face, Floats, InpaintJob, Photo, Pixels
from easyphoto.specs import CheckpointScore, PassSettings, TrainSpec
from easyphoto.training.gallery import front_faces, largest_face
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.memory import give_back, gpu_memory_gib, is_out_of_memory
from easyphoto.training.planner import GIB
from easyphoto.training.rendering import Renderer
from easyphoto.training.trainer import Training

logger = logging.getLogger(__name__)

_JUDGEMENT_GIB = 12.0
"""More than ControlNets, activations and decoder take for four pictures of SD1.5's size."""


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
        self._steps_go = threading.Event()
        self._ahead: threading.Thread | None = None
        self._place: object = None
        """Where the network's weights lay when its steps were captured."""

    @property
    def templates(self) -> int:
        """How many pictures one judgement renders."""
        return len(self._trials)

    @property
    def jobs(self) -> tuple[tuple[str, InpaintJob], ...]:
        """(template, what is rendered of it), for whoever renders elsewhere."""
        return tuple((trial.name, trial.job) for trial in self._trials)

    @property
    def kinds(self) -> frozenset[ConditionKind]:
        """Of the ControlNets that are used."""
        return frozenset(condition.kind for trial in self._trials for condition in trial.job.conditions if condition.weight)

    def fetch(self, dtype: Any) -> None:  # noqa: ANN401 (torch.dtype)
        """Begin to do, in a thread, what judgements need once and the training has no part in, if a GPU has room for it.

        Args:
            dtype: The precision that the training will compute in.
        """
        if self._models.device.startswith("cuda") and self._models.controlnets_on is None and _is_ample(self._models, 2):
            self._begin(dtype)

    def steps_go(self, training: Training) -> None:
        """The training's steps are captured, so that its weights lie where they will lie: have judgements captured as well."""
        if self._steps_go.is_set() or not self._models.device.startswith("cuda") or training.course.offload:
            return
        self._place = training.network.place if _is_ample(self._models, 1) else None
        self._steps_go.set()
        if self._ahead is None:
            self._begin(None)

    def _begin(self, dtype: Any) -> None:  # noqa: ANN401 (torch.dtype)
        self._prepared()
        self._ahead = threading.Thread(target=self._look_ahead, args=(dtype,), daemon=True)
        self._ahead.start()

    def _look_ahead(self, dtype: Any) -> None:  # noqa: ANN401 (torch.dtype)
        """In a thread and on a stream of its own: it waits for no step, nor any step for it."""
        import torch

        began = time.perf_counter()
        # What is wrong is said when it is asked for again.
        with contextlib.suppress(EasyPhotoError), torch.cuda.stream(torch.cuda.Stream(self._models.device)):  # type: ignore[no-untyped-call]
            for kind in self.kinds:
                self._models.controlnet(kind, dtype)
            try:
                if dtype is not None:
                    self._prepared().open(dtype, beside=True)
                logger.info("ready for the first step %.2f s after that was begun", time.perf_counter() - began)
                self._steps_go.wait()
                began = time.perf_counter()
                if self._place is not None:
                    self._prepared().prepare(self._place, beside=True)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._renderer = None
            torch.cuda.current_stream().synchronize()
            logger.info("judgements are captured, %.2f s after the first step", time.perf_counter() - began)

    def _prepared(self) -> Renderer:
        if self._renderer is None:
            self._renderer = Renderer(self._models, [trial.job for trial in self._trials])
        return self._renderer

    def rest(self) -> None:
        """Wait for what goes on beside the training, and begin nothing new."""
        self._steps_go.set()
        if self._ahead is not None:
            self._ahead.join()

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
        self.rest()
        network.refresh()
        try:
            return self._prepared().render(network.place, lambda _done, _total: hooks.before_step())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._renderer, self._together = None, False
        give_back(self._models.device)
        return None

    def spare(self) -> None:
        """Keep nothing on the GPU from one judgement to the next, from now on: its memory is needed."""
        self.rest()
        self._renderer, self._together = None, False

    def score(self, painted: Iterable[Pixels], folder: Path, step: int, merged: bool, hooks: JudgeHooks) -> CheckpointScore:
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


def _is_ample(models: Models, times: int) -> bool:
    """Whether the GPU has so many times what judgements take, besides what the training has by now."""
    ours = gpu_memory_gib(models.device)
    if ours is None:
        return False
    import torch

    pictures = (PROFILES[models.family].first_size / 512) ** 2
    return ours - torch.cuda.memory_reserved(models.device) / GIB > times * pictures * _JUDGEMENT_GIB


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
