"""How a training is fitted into the memory there is: what is given up first is what costs least time.

The numbers of layers are counted from the models' shapes, the bytes a picture takes are measured (docs/performance.md). A
guess that is too low costs one failed step: training then goes on one rung further down and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from easyphoto.errors import SpecError
from easyphoto.families import PROFILES, Family
from easyphoto.specs import RateSchedule, TrainSpec
from easyphoto.training.streaming import LEAST_SLOTS

GIB = 2.0**30
_HALF, _FULL = 2, 4
_SPARE_GIB, _SPARE_SHARE = 0.4, 0.94
"""What CUDA, its libraries and holes in the allocator take."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a step is computed; the result does not depend on it but for rounding."""

    micro: int | None = None
    """Pictures of a person at once; None takes all of a step."""
    graphed: bool = True
    """One CUDA graph a step, on a GPU."""
    merged: bool = True
    """A second copy of the weights that are trained, with the change in it (see `factors`)."""
    checkpointing: bool = False
    """Compute the blocks' activations a second time in the backward pass instead of keeping them (arXiv 1604.06174)."""
    offload: bool = False
    """What the GPU's products do not need stays in main memory: autoencoder, text encoders that are not trained, the factors in
    full precision and the optimiser's moments, which the CPU updates."""
    streamed: int = 0
    """So many blocks' frozen weights are on the GPU at a time, the others in main memory (see `streaming`); 0: all of them."""

    def __str__(self) -> str:
        pictures = "all pictures at once" if self.micro is None else f"{self.micro} picture{'s' * (self.micro > 1)} at once"
        more = [("checkpointing", self.checkpointing), ("one copy of the weights", not self.merged), ("offload", self.offload)]
        more += [(f"{self.streamed} blocks of the weights on the GPU at a time", self.streamed > 0)]
        return ", ".join([pictures, *(name for name, on in more if on)])


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What a family's networks hold: numbers, and sums over the layers that a LoRA changes."""

    unet: float
    text: float
    decoder: float
    """Weights of UNet, text encoders and autoencoder."""
    unet_layers: float
    text_layers: float
    """Weights of the layers that are trained."""
    unet_sides: int
    text_sides: int
    """Inputs plus outputs of those layers: times the rank, the factors."""
    unet_block: float
    text_block: float
    """Weights of the largest block that is streamed."""
    blocks: int
    """How many the UNet has of them."""
    picture_gib: float
    """Activations of one picture of the family's own size, all kept."""
    picture_least_gib: float
    """The same with checkpointing."""


WEIGHTS = {
    Family.EMBEDDED: Weight(
        unet=24.6e6, text=3.8e6, decoder=4e6, unet_layers=9.7e6, text_layers=3.1e6, unet_sides=40_000, text_sides=2_000,
        unet_block=1.8e6, text_block=0.8e6, blocks=7, picture_gib=0.05, picture_least_gib=0.02,
    ),
    Family.SD15: Weight(
        unet=859.5e6, text=123.1e6, decoder=83.7e6, unet_layers=267e6, text_layers=84.9e6, unet_sides=423_936,
        text_sides=165_888, unet_block=34.7e6, text_block=7.1e6, blocks=16, picture_gib=0.75, picture_least_gib=0.3,
    ),
    Family.SDXL: Weight(
        unet=2567.5e6, text=817.7e6, decoder=83.7e6, unet_layers=2207.7e6, text_layers=714.1e6, unet_sides=2_659_840,
        text_sides=903_168, unet_block=36.4e6, text_block=19.7e6, blocks=70, picture_gib=5.5, picture_least_gib=0.9,
    ),
}  # fmt: skip


def ladder(pictures: int) -> tuple[Course, ...]:
    """All courses from the fastest to the one that needs least.

    Args:
        pictures: Of a person in a step.
    """
    sizes = [pictures]
    while sizes[-1] > 1:
        sizes.append(_smaller(pictures, sizes[-1]))
    rungs = [Course(micro=size) for size in sizes]
    rungs += [Course(micro=size, merged=False, checkpointing=True) for size in sizes]
    lean = Course(micro=1, merged=False, checkpointing=True, offload=True, graphed=False)
    return (*rungs, lean, replace(lean, streamed=LEAST_SLOTS))


def _smaller(pictures: int, size: int) -> int:
    """The next smaller part that a step can be divided into."""
    return next(smaller for smaller in range(size - 1, 0, -1) if pictures % smaller == 0)


def needed_gib(course: Course, spec: TrainSpec, people: int = 1) -> float:
    """Memory that a course will take at its highest."""
    weight, rank = WEIGHTS[spec.family], spec.lora.rank
    text = _trains_text(spec)
    sides = weight.unet_sides + weight.text_sides * text
    layers = weight.unet_layers + weight.text_layers * text
    resident = weight.unet * _HALF
    if text or not course.offload:
        resident += weight.text * _HALF
    if course.streamed:
        resident -= (weight.unet_layers + weight.text_layers * text) * _HALF
        resident += course.streamed * _slot_bytes(spec)
    if not course.offload:
        resident += weight.decoder * _FULL
    # What is computed with and its gradient in half precision; values, gradient and two moments in full.
    # What the recipe keeps besides: a running average; factors before a step, and by how much it is stretched.
    optim = spec.optim
    more = (optim.ema > 0) + 2 * (optim.loraplus_ratio != 1 or optim.warmup > 0 or optim.schedule is not RateSchedule.CONSTANT)
    resident += people * sides * rank * (2 * _HALF + (0 if course.offload else (4 + more) * _FULL))
    if course.merged:
        dense = 5 * rank * sides > layers
        resident += layers * _HALF * (1 + people * (2 if dense else 1))
    share = (spec.data.size / PROFILES[spec.family].train_size) ** 2
    each = weight.picture_least_gib if course.checkpointing else weight.picture_gib
    pictures = course.micro or spec.optim.batch_size * spec.optim.accumulation
    return resident / GIB + each * share * pictures * people


def _trains_text(spec: TrainSpec) -> bool:
    return spec.lora.text_encoder and spec.optim.text_learning_rate > 0


def _slot_bytes(spec: TrainSpec) -> float:
    """Of the GPU's memory, for one block more at a time, of each network that is trained."""
    weight = WEIGHTS[spec.family]
    return (weight.unet_block + weight.text_block * _trains_text(spec)) * _HALF


def choose(spec: TrainSpec, memory_gib: float | None, people: int = 1) -> tuple[Course, ...]:
    """The courses to try, the most promising first; all of them where there is no GPU to run out of.

    Args:
        spec: Family, size, rank, batch.
        memory_gib: Of the GPU, as far as it is ours; None for none.
        people: How many side by side.

    Raises:
        SpecError: Not even the last of them fits.
    """
    rungs = ladder(spec.optim.batch_size * spec.optim.accumulation)
    if memory_gib is None:
        return (Course(),)
    room = memory_gib * _SPARE_SHARE - _SPARE_GIB
    fits = [number for number, rung in enumerate(rungs) if needed_gib(rung, spec, people) <= room]
    if not fits and needed_gib(rungs[-1], spec, people) > memory_gib * _SPARE_SHARE:
        raise SpecError(too_small(spec, memory_gib, people))
    rungs = rungs[fits[0] if fits else len(rungs) - 1 :]
    return (*_wider(rungs[0], spec, room, people), *rungs)


def _wider(course: Course, spec: TrainSpec, room: float, people: int) -> Iterator[Course]:
    """The same with as many blocks on the GPU as there is room for, then with half as many."""
    if not course.streamed:
        return
    more = int((room - needed_gib(course, spec, people)) * GIB / _slot_bytes(spec))
    slots = min(course.streamed + more, WEIGHTS[spec.family].blocks)
    while slots > course.streamed:
        yield replace(course, streamed=slots)
        slots //= 2


def too_small(spec: TrainSpec, memory_gib: float, people: int = 1) -> str:
    """One sentence for whoever has to do something about it."""
    last = ladder(spec.optim.batch_size * spec.optim.accumulation)[-1]
    do = "close what else uses the GPU, or choose a smaller size or rank"
    return (
        f"the GPU has {memory_gib:.2f} GiB for this training, which takes {needed_gib(last, spec, people):.2f} GiB at least "
        f"({spec.family.value}, {spec.data.size} px, rank {spec.lora.rank}{', text encoders too' * _trains_text(spec)}); "
        f"{do}{', or leave the text encoders as they are' * _trains_text(spec)}"
    )


def least(rungs: Sequence[Course]) -> bool:
    """Whether nothing is left to give up."""
    return len(rungs) == 1
