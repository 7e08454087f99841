"""One training from its job folder to its result, inside the worker process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from easyphoto.engine.models import Models, resolve_device
from easyphoto.errors import Cancelled, JobFailed
from easyphoto.faces.tools import FaceTools
from easyphoto.files import write_text
from easyphoto.records import PreparedSet, TrainKind
from easyphoto.specs import CheckpointScore, TrainResult, TrainSpec
from easyphoto.store.codec import dumps, from_json
from easyphoto.store.lora_file import LoraFile, read_lora, write_lora
from easyphoto.store.lora_meta import TrainingFacts, kohya_metadata, with_hashes
from easyphoto.training import precompile
from easyphoto.training.captions import prompts_of
from easyphoto.training.dataset import cache_latents
from easyphoto.training.draws import Learner
from easyphoto.training.ensemble import Choice, best_picture, choose
from easyphoto.training.job import JobFolder
from easyphoto.training.launch import usable_cores
from easyphoto.training.lending import Lender
from easyphoto.training.loading import courses, load_training_models, training_dtype
from easyphoto.training.look import look_path, newest_look, take_look, wants_looks
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.memory import placed, rendering, wake
from easyphoto.training.merging import merge_for
from easyphoto.training.prepared_files import read_prepared
from easyphoto.training.progress import Clock, Reporter, Stop
from easyphoto.training.saving import StateWriter
from easyphoto.training.team import ALONE, Team, check_team, joined
from easyphoto.training.trainer import Hooks, Training, checkpoint_every, checkpoint_steps, fit
from easyphoto.training.validation import Judge, JudgeHooks, make_judge

logger = logging.getLogger(__name__)


def run_job(
    job: JobFolder, reporter: Reporter, stop: Stop, team: Team = ALONE, lender: Lender | None = None
) -> TrainResult:
    """Train, judge, merge, and write the result last.

    Args:
        job: What, and where to.
        reporter: Tells how far it is.
        stop: Asked before every step.
        team: What this process is the first of.
        lender: Has the base model, where this process trains one person after the other.

    Raises:
        Cancelled: `stop` was asked; what has been learnt is kept for resuming.
        EasyPhotoError: Everything else that a person can act on.
    """
    spec, order = job.read_spec(), job.read_order()
    lender = lender or Lender()
    began = time.time()
    reporter.say("started", stage="loading", message=f"training {spec.person!r}")
    with contextlib.ExitStack() as held:
        compiling = held.enter_context(precompile.start(spec, usable_cores()))
        wake(spec.device)
        prepared = read_prepared(job.prepared)
        reporter.progress("loading", 0, 1)
        models = held.enter_context(lender.lent(spec, load_training_models))
        check_team(spec.optim, team.size, models.device)
        reporter.device = models.device
        reporter.progress("loading", 1, 1)
        states = StateWriter(job.state, lent=not models.device.startswith("cuda"))
        work = _Work(job=job, spec=spec, reporter=reporter, stop=stop, states=states, team=team, lender=lender)
        judge = work.make_judge(models, prepared, order.templates)
        if compiling.children:
            # Before it is planned how much of the GPU's memory a step may take.
            reporter.progress("compiling", 0, 1)
            compiling.wait()
        training = work.begin(models, prepared, judge)
        try:
            training.network.attach()
            choice = work.train(training, judge)
        finally:
            training.network.detach()
        return work.finish(training, choice, began)


def run_mate(job: JobFolder, rank: int, size: int) -> None:
    """Take every step of a training that another process judges and saves."""
    spec = job.read_spec()
    device = resolve_device(spec.device)
    if device.startswith("cuda"):
        device = f"cuda:{rank}"
    with joined(rank, size, device) as team, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        models = load_training_models(replace(spec, device=device))
        states, reporter = StateWriter(job.state, lent=True), Reporter(Path(os.devnull), nowhere)
        # It ends with the first process, and asks nobody else whether to go on.
        stop = Stop(job.root / "never")
        work = _Work(job=job, spec=spec, reporter=reporter, stop=stop, states=states, team=team)
        training = work.begin(models, read_prepared(job.prepared), None)
        training.network.attach()
        while training.step < training.total:
            training.update()
        training.flush()


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What every part of one training needs."""

    job: JobFolder
    spec: TrainSpec
    reporter: Reporter
    stop: Stop
    states: StateWriter
    team: Team
    lender: Lender = field(default_factory=Lender)

    def check(self) -> None:
        """Raise Cancelled once somebody asked to stop."""
        if self.stop.wanted():
            raise Cancelled("the training was stopped because you asked; go on with it later with --resume")

    def make_judge(self, models: Models, prepared: PreparedSet, templates: tuple[Path, ...]) -> Judge | None:
        """Prepare the validation templates; None where validation is turned off or nothing can be rendered."""
        if not self.spec.validate.every or self.spec.kind is not TrainKind.PERSON:
            return None
        self.reporter.progress("looking at templates", 0, 1)
        judge = make_judge(models, FaceTools(), prepared.embedding, self.spec, templates)
        if judge is None:
            self.reporter.say("log", message="no template can be rendered, so no checkpoint is judged and the last one is kept")
        else:
            judge.fetch(training_dtype(models.device))
        return judge

    def begin(self, models: Models, prepared: PreparedSet, judge: Judge | None) -> Training:
        """Encode the photos, and take up the state that an earlier run of this job left."""
        spec, reporter = self.spec, self.reporter

        def on_photo(done: int, total: int) -> None:
            self.check()
            reporter.progress("caching", done, total)

        with placed(models, [models.vae]):
            cache = cache_latents(models, prepared, spec, on_photo)
        rungs = courses(spec, models)
        if self.team.size > 1:
            # One that computed a step twice would have the others wait for a sum that never comes.
            rungs = rungs[:1]
        network = LoraNetwork(models, spec.lora, (spec.seed,), rungs[0].merged)
        network.settle(training_dtype(models.device))
        learners = (Learner(cache=cache, spec=spec, captions=tuple(photo.caption for photo in prepared.photos)),)

        def say(message: str) -> None:
            # The training goes on with less memory.
            self.lender.forget()
            if judge:
                judge.spare()
            reporter.say("log", message=message)

        training = Training(models, network, learners, rungs, say, self.team)
        if self.job.state.exists():
            training.load_state_dict(read_lora(self.job.state).tensors)
            reporter.say("log", message=f"going on after step {training.step} of {training.total}")
        left = training.total - training.step
        steps = checkpoint_steps(training.total, checkpoint_every(spec, training.total))
        judgements = sum(step > training.step for step in steps) + 1
        reporter.clock = Clock(left, judgements * (judge.templates if judge else int(wants_looks(spec))))
        return training

    def train(self, training: Training, judge: Judge | None) -> Choice:
        """Run all steps, then settle which checkpoint or merge is kept."""
        scores = [score for score in self._scores() if score.step <= training.step]
        clock = [time.perf_counter()]

        def after_step(step: int, loss: float) -> None:
            now = time.perf_counter()
            if judge:
                judge.steps_go(training)
            self.reporter.clock.tick("step", now - clock[0])
            clock[0] = now
            rate = self.spec.optim.learning_rate * training.pace
            self.reporter.progress("training", step, training.total, loss=round(loss, 6), rate=rate)

        def checkpoint(training: Training) -> None:
            self._checkpoint(training, judge, scores)
            clock[0] = time.perf_counter()

        hooks = Hooks(before_step=self.check, after_step=after_step, checkpoint=checkpoint)
        try:
            fit(training, checkpoint_every(self.spec, training.total), hooks)
        except Cancelled:
            self._save_state(training)
            self.states.wait()
            raise
        except JobFailed as error:
            self.states.wait()
            if not scores:
                raise
            self.reporter.say("log", message=f"{error}; the checkpoints until then are kept")
        finally:
            if judge:
                judge.rest()
        self.states.wait()
        return self._settle(training, judge, scores)

    def finish(self, training: Training, choice: Choice, began: float) -> TrainResult:
        """Write the LoRA with its metadata and, last, the result."""
        facts = TrainingFacts(
            steps=training.step, photos=training.photos, started=began, finished=time.time(), merged_steps=choice.steps,
            captions=training.learners[0].captions,
        )  # fmt: skip
        write_lora(self.job.lora, with_hashes(choice.file.tensors, kohya_metadata(self.spec, facts)))
        result = TrainResult(
            lora=self.job.lora, steps=training.step, photos=training.photos, checkpoints=choice.checkpoints,
            chosen=choice.chosen, seconds=round(self.reporter.seconds, 2),
            face_id_picture=best_picture(choice.checkpoints) or newest_look(self.job.validation, training.step),
            losses=tuple(training.losses),
        )  # fmt: skip
        write_text(self.job.result, dumps(result))
        self.states.drop()
        return result

    def _checkpoint(self, training: Training, judge: Judge | None, scores: list[CheckpointScore]) -> None:
        """Save the LoRA, judge it, then save the state: a kill before that is written repeats the steps since the last one."""
        step, path = training.step, self.job.checkpoint(training.step)
        with training.averaged():
            file = LoraFile(tensors=training.network.state_dict())
            scored = self._judge(training, judge, step, merged=False) if judge else None
            if not judge and wants_looks(self.spec):
                self._look(training)

        def conclude() -> None:
            write_lora(path, file)
            if scored:
                scores.append(scored())
                write_text(self.job.scores, dumps(tuple(scores)))
            judged = scores[-1].score if scored else None
            self.reporter.say("checkpoint", stage="training", step=step, total=training.total, path=str(path), score=judged)

        # After the last step without a judge the training ends at once: nothing is left that could be taken up.
        if judge or step < training.total:
            self.states.write(training.state_dict(), conclude)
        else:
            conclude()
        if not training.models.device.startswith("cuda"):
            # What else would be computed meanwhile needs the same processor.
            self.states.wait()

    def _judge(self, training: Training, judge: Judge, step: int, merged: bool) -> Callable[[], CheckpointScore]:
        """Render the templates; whoever calls what is returned, once and from any thread, has the pictures scored."""
        stage = "merging" if merged else "validating"
        self.reporter.progress(stage, 0, judge.templates)

        def after_picture(path: Path, score: float, seconds: float) -> None:
            self.reporter.clock.tick("rendering", seconds)
            left = round(self.reporter.clock.seconds_left, 1)
            self.reporter.say("sample", stage=stage, step=step, path=str(path), score=score, seconds_left=left)

        hooks = JudgeHooks(before_step=self.check, after_picture=after_picture)
        with rendering(training.models, training.waiting, judge.kinds):
            painted = None if training.waiting else judge.paint_together(training.network, hooks)
            if painted is None:
                with training.network.fused():
                    score = judge.judge(self.job.validation, step, merged, hooks)
        self.reporter.progress(stage, judge.templates, judge.templates)
        return lambda: score if painted is None else judge.score(painted, self.job.validation, step, merged, hooks)

    def _look(self, training: Training) -> None:
        """Render a checkpoint of a scene by its own words."""
        path, began = look_path(self.job.validation, training.step), time.perf_counter()
        prompt = prompts_of(self.spec, training.learners[0].captions)[0]
        with rendering(training.models, training.waiting, ()), training.network.fused():
            take_look(training.models, self.spec, prompt, path, self.check)
        self.reporter.clock.tick("rendering", time.perf_counter() - began)
        left = round(self.reporter.clock.seconds_left, 1)
        self.reporter.say("sample", stage="validating", step=training.step, path=str(path), seconds_left=left)

    def _settle(self, training: Training, judge: Judge | None, scores: list[CheckpointScore]) -> Choice:
        if judge is None:
            with training.averaged():
                file = LoraFile(tensors=training.network.state_dict())
            return Choice(file=file, checkpoints=(), chosen=-1, steps=(training.step,))

        def judge_merge(file: LoraFile, step: int) -> CheckpointScore:
            training.network.load_state_dict(file.tensors)
            score = self._judge(training, judge, step, merged=True)()
            self.reporter.say("merged", stage="merging", step=step, score=score.score)
            return score

        merge = merge_for(training.models.device, lambda: self.reporter.progress("merging", 0, judge.templates))
        best = self.spec.validate.merge_best
        return choose(scores, best, lambda step: read_lora(self.job.checkpoint(step)), judge_merge, merge)

    def _save_state(self, training: Training) -> None:
        self.states.write(training.state_dict())

    def _scores(self) -> list[CheckpointScore]:
        if not self.job.scores.exists():
            return []
        return [from_json(CheckpointScore, item) for item in json.loads(self.job.scores.read_text(encoding="utf-8"))]
