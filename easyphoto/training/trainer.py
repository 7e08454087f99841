"""Training itself: one loss, one update, and the loop that calls them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easyphoto.engine.models import Models
from easyphoto.engine.text import TextStates, added_conditions
from easyphoto.errors import JobFailed, SpecError
from easyphoto.specs import TrainSpec
from easyphoto.store.lora_file import Array
from easyphoto.training.device_steps import DeviceSteps
from easyphoto.training.draws import Dealer, Draw, Learner
from easyphoto.training.focus import snr_weights
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.memory import is_out_of_memory, set_aside, waiting_parts
from easyphoto.training.optimizer import Extras, Optimizer
from easyphoto.training.pace import is_steady, newest_share, pace
from easyphoto.training.planner import Course, least
from easyphoto.training.team import ALONE, Team
from easyphoto.training.words import Captions

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls; each may raise Cancelled."""

    before_step: Callable[[], None]
    """Asked before every step whether to go on."""
    after_step: Callable[[int, float], None]
    """Told the steps done and the last loss that is known; on a GPU that of a step or two before."""
    checkpoint: Callable[[Training], None]
    """Saves and judges what has been learnt so far."""


class Training:
    """LoRAs on their way: models, factors, optimiser, and how far they have come."""

    def __init__(
        self, models: Models, network: LoraNetwork, learners: Sequence[Learner], rungs: Sequence[Course] = (Course(),),
        say: Callable[[str], None] = logger.warning, team: Team = ALONE,
    ) -> None:  # fmt: skip
        """Prepare the first step.

        Args:
            models: The base model.
            network: Attached; with a LoRA for each learner.
            learners: Who is trained; all with the same rank, rates, batch and size.
            rungs: How, and what to fall back on where memory runs out.
            say: Told when it does.
            team: The processes that this training is shared by, if it is.
        """
        import torch
        from diffusers import DDPMScheduler

        self.models, self.network, self.learners = models, network, tuple(learners)
        self.spec: TrainSpec = learners[0].spec
        self.step = 0
        self.history: list[tuple[float, ...]] = []
        """Each person's loss at every step that has ended."""
        self.total = max(learner.spec.optim.steps_for(learner.cache.photos) for learner in learners)
        config = {key: value for key, value in models.scheduler_config.items() if not key.startswith("_")}
        self._schedule = DDPMScheduler.from_config(config)
        self._kept: Tensor = self._schedule.alphas_cumprod.to(models.device)
        self._dealer = Dealer(learners, len(self._kept))
        self._rungs, self._say, self._team = tuple(rungs), say, team
        if self.waiting:
            set_aside(models, self.waiting)
        network.follow(self.course, self._trains_text)
        self._captions = Captions(models, learners, frozen=not self._trains_text)
        blocks = network.blocks if self._trains_text else network.blocks[:1]
        optim = self.spec.optim
        self._blocks = blocks
        self.optimizer = Optimizer(
            blocks, (optim.learning_rate, optim.text_learning_rate), optim.max_grad_norm, models.dtype == torch.float16,
            Extras(ups=optim.loraplus_ratio, paced=not is_steady(optim), averaged=optim.ema > 0),
        )  # fmt: skip
        self._device = self._device_steps()

    @property
    def course(self) -> Course:
        """How steps are computed now."""
        return self._rungs[0]

    @property
    def waiting(self) -> list[Any]:
        """Parts of the models that wait in main memory."""
        return waiting_parts(self.models, self._trains_text) if self.course.offload else []

    @property
    def losses(self) -> list[float]:
        """The loss of every step that has ended; the mean over several people."""
        return [float(np.mean(people)) for people in self.history]

    @property
    def pace(self) -> float:
        """The share of the learning rates that the next step learns at."""
        return pace(self.spec.optim, self.step, self.total)

    def averaged(self) -> AbstractContextManager[None]:
        """Have the factors that are kept in place: their running averages, where the recipe wants those."""
        self.flush()
        return self.optimizer.averaged()

    @property
    def photos(self) -> int:
        """Of the first person."""
        return self.learners[0].cache.photos

    @property
    def _trains_text(self) -> bool:
        return bool(self.network.text_layers) and self.spec.optim.text_learning_rate > 0

    def loss(self, part: int = 0) -> Tensor:
        """Mean squared error of the predicted noise (arXiv 2006.11239, equation 14), at this step's own draw.

        Args:
            part: Which micro-batch of the step.
        """
        self.network.refresh()
        batch = self.spec.optim.batch_size
        return self._losses(self._dealer.deal(self.step).part(part * batch, (part + 1) * batch)).mean()

    def update(self) -> float:
        """One step of the optimiser; returns the loss before it, on a GPU the last one that is known.

        Raises:
            JobFailed: The loss or its gradient is no number any more, and the factors are as before the step; or the GPU's
                memory ran out, and nothing is left to be given up.
        """
        while True:
            try:
                return self._advance()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if least(self._rungs):
                    do = "close what else uses the GPU, or choose a smaller size or rank"
                    raise JobFailed(f"the GPU's memory does not hold this training ({self.course}); {do}") from error
            self._step_down()

    def _step_down(self) -> None:
        """Go on with the next course; the step that did not fit has changed nothing."""
        self._device = None
        self._draw = None
        self.network.detach()
        before, self._rungs = self.course, self._rungs[1:]
        self._say(f"the GPU's memory does not hold {before}; going on with {self.course}")
        set_aside(self.models, self.waiting)
        self.network.follow(self.course, self._trains_text)
        self.optimizer.follow()
        self.network.attach()
        self._device = self._device_steps()

    def _device_steps(self) -> DeviceSteps | None:
        if not self.models.device.startswith("cuda"):
            return None
        return DeviceSteps(run=self._whole_step, graphed=self.course.graphed)

    def _advance(self) -> float:
        self._draw = self._team.part(self._dealer.deal(self.step))
        self.optimizer.begin(self.pace, newest_share(self.spec.optim, self.step))
        if self._device is None:
            self._note([self._whole_step().tolist()])
            self.step += 1
            return float(np.mean(self.history[-1]))
        if not self._device.ready:
            self._prepare(self._device)
        self._device.start(self.step)
        self.step += 1
        self._note(self._device.reports())
        return float(np.mean(self.history[-1])) if self.history else math.nan

    def flush(self) -> None:
        """Wait for all steps that are under way.

        Raises:
            JobFailed: One of them had no number as its loss; `step` is the last one before it.
        """
        if self._device is not None:
            self._note(self._device.reports(all_of_them=True))

    def state_dict(self) -> dict[str, Array]:
        """Everything that going on needs, in full precision."""
        self.flush()
        state: dict[str, Array] = {}
        for person in range(len(self.learners)):
            mark = f"{person}:" if person else ""
            state |= {f"{mark}{key}": value for key, value in self.network.state_dict(np.float32, person).items()}
        return {**state, **self.optimizer.state_dict(), "losses": np.array(self.history, np.float64)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on where a state was saved.

        Raises:
            LoraError: It belongs to another training.
        """
        for person in range(len(self.learners)):
            mark = f"{person}:" if person else ""
            self.network.load_state_dict({key.removeprefix(mark): value for key, value in state.items()}, person)
        self.optimizer.load_state_dict(state)
        self.history = [tuple(float(loss) for loss in people) for people in state["losses"]]
        self.step = len(self.history)

    def _prepare(self, device: DeviceSteps) -> None:
        """Rehearse and capture; as long as the optimiser takes the training for broken, it changes nothing."""
        import torch

        torch.backends.cudnn.benchmark = True
        self.optimizer.broken.fill_(1.0)
        try:
            device.prepare()
        finally:
            self.optimizer.broken.fill_(0.0)

    def _note(self, reports: list[list[float]]) -> None:
        """Take losses into the history.

        A report is the losses, how long the gradient was, and whether the training is broken.
        """
        for *losses, broken in reports:
            if broken:
                step = self.step = len(self.history)
                raise JobFailed(f"the loss is no number any more after step {step}; train again with a lower learning rate")
            self.history.append(tuple(losses))

    def _whole_step(self) -> Tensor:
        """Gradients of all pictures and the update: reads only tensors that stay where they are."""
        import torch

        self.network.refresh()
        total = torch.zeros(len(self.learners), device=self.models.device)
        draws = [] if self._draw is None else self._draw.split(self.course.micro or self._dealer.pictures)
        for number, draw in enumerate(draws):
            losses = self._losses(draw) * (draw.rows.shape[1] / self._dealer.pictures)
            torch.autograd.backward(losses.sum() * self.optimizer.scale)
            total += losses.detach()
            for block in self._blocks:
                block.collect(first=number == 0)
        self._team.add_up([total, *(block.grad for block in self._blocks)])
        self.optimizer.step(total)
        return torch.cat([total, self.optimizer.broken[None].to(total.device)])

    def _losses(self, draw: Draw) -> Tensor:
        """(people,) mean loss of each."""
        import torch

        flat = Draw(
            rows=draw.rows.flatten(), times=draw.times.flatten(),
            sample=draw.sample.flatten(0, 1), noise=draw.noise.flatten(0, 1),
        )  # fmt: skip
        latents = self._dealer.mean[flat.rows] + self._dealer.deviation[flat.rows] * flat.sample
        kept = self._kept[flat.times].view(-1, 1, 1, 1)
        noisy, target = kept.sqrt() * latents + (1 - kept).sqrt() * flat.noise, flat.noise
        if self._schedule.config.prediction_type == "v_prediction":
            target = kept.sqrt() * flat.noise - (1 - kept).sqrt() * latents
        words = self._captions.read(flat.rows)
        predicted = self.models.unet(
            noisy.to(self.models.dtype).contiguous(memory_format=torch.channels_last), flat.times,
            encoder_hidden_states=words.states, added_cond_kwargs=self._added(words, len(flat.rows)), return_dict=False,
        )[0]  # fmt: skip
        squares = (predicted.float() - target).square()
        if self._dealer.weight is not None:
            squares = squares * self._dealer.weight[flat.rows]
        errors = squares.mean(dim=(1, 2, 3))
        if self.spec.optim.snr_gamma is not None:
            velocity = self._schedule.config.prediction_type == "v_prediction"
            errors = errors * snr_weights(kept.flatten(), self.spec.optim.snr_gamma, velocity)
        mean: Tensor = errors.view(draw.rows.shape).mean(1)
        return mean

    def _added(self, words: TextStates, pictures: int) -> dict[str, Any] | None:
        if words.pooled is None:
            return None
        side = self.spec.data.size
        pooled = words.pooled.repeat_interleave(pictures // len(words), dim=0)
        if self._sizes is None:
            self._sizes = (added_conditions(self.models, words, (side, side)) or {})["time_ids"][:1]
        return {"text_embeds": pooled, "time_ids": self._sizes.expand(len(pooled), -1)}

    _sizes: Any = None
    _draw: Draw | None = None


def fit(training: Training, every: int, hooks: Hooks) -> None:
    """Train to the end; checkpoints come every so many steps and after the last.

    Raises:
        Cancelled: A hook wanted to stop.
        JobFailed: The loss stopped being a number.
    """
    saved = checkpoint_steps(training.total, every)
    while training.step < training.total:
        hooks.before_step()
        loss = training.update()
        if training.step in saved:
            training.flush()
            loss = training.losses[-1]
        hooks.after_step(training.step, loss)
        if training.step in saved:
            hooks.checkpoint(training)


def checkpoint_steps(total: int, every: int) -> tuple[int, ...]:
    """The steps that end with a checkpoint: every so many and the last, but none shortly before the last."""
    return (*(step for step in range(every, total, every) if total - step >= every / 2), total)


def checkpoint_every(spec: TrainSpec, total: int) -> int:
    """Steps between checkpoints; without judging, a quarter of the way, so that a killed training loses no more."""
    return spec.validate.every or max(1, math.ceil(total / 4))


def check_prediction(models: Models) -> None:
    """Refuse a base model that predicts what we cannot train.

    Raises:
        SpecError: It predicts neither noise nor velocity.
    """
    kind = models.scheduler_config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise SpecError(f"the base model predicts {kind!r}; only epsilon and v_prediction can be trained")
