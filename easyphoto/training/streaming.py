"""Frozen weights that stay in main memory and are on the GPU only while they are computed with.

The layers of a block (a `BasicTransformerBlock` of the UNet, a `CLIPEncoderLayer` of a text encoder) travel together, from one
piece of page-locked memory into one of a few slots. Whoever computes asks for a layer's weight: that waits for its block, and
has the blocks that came next the last time copied meanwhile, on a stream of their own. The block that was used longest ago
makes room. A step meets the blocks in one order forwards and in the other backwards (with checkpointing, where they are
computed once more), so the slots' blocks at each end are met again before they leave: n blocks and k slots are 2 (n - k)
copies a step.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SLOTS = 2
"""One block is computed with while the next one arrives."""
_AHEAD = 2
"""Blocks that are sent for before they are needed."""
_ALIGNED, _PAGE = 64, 4096
"""Weights begin at multiples of so many numbers, pieces of page-locked memory at multiples of so many bytes."""
_BLOCKS = ("BasicTransformerBlock", "CLIPEncoderLayer")


def blocks_of(networks: Sequence[Any], layers: Sequence[Any]) -> list[list[Any]]:
    """The layers by the block that they belong to; what lies around the blocks of one transformer goes with its ends."""
    modules, wanted = [module for network in networks for module in network.modules()], set(layers)
    found = [_among(parent, wanted) for parent in modules if type(parent).__name__ in _BLOCKS]
    inside = {layer for block in found for layer in block}
    for parent in modules:
        if type(parent).__name__ == "Transformer2DModel":
            own = [block for block in found if block and block[0] in set(parent.modules())]
            ends = _among(parent, wanted - inside)
            if own and len(ends) == 2:
                own[0].insert(0, ends[0])
                own[-1].append(ends[1])
    placed = {layer for block in found for layer in block}
    return [block for block in found if block] + [[layer] for layer in layers if layer not in placed]


def _among(parent: Any, wanted: Collection[Any]) -> list[Any]:  # noqa: ANN401 (torch Module)
    return [module for module in parent.modules() if module in wanted]


@dataclass(kw_only=True, eq=False)
class _Slot:
    """Room on the device for one block."""

    room: Tensor
    arrived: Any = None
    """CUDA events: what was copied into it is there; what was computed with it is done."""
    left: Any = None


class Stream:
    """The weights of some layers, in main memory, and the slots that they are brought into."""

    def __init__(self, blocks: Sequence[Sequence[Any]], device: str, slots: int) -> None:
        """Take the layers' weights, one block after the other; the layers' own are views of the same memory from then on.

        Args:
            blocks: Linear layers and 1x1 convolutions that travel together; of one precision.
            device: Where they are computed with.
            slots: How many blocks are there at a time.
        """
        import torch

        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._copying = torch.cuda.Stream(self._device) if self._cuda else None  # type: ignore[no-untyped-call]
        self.locked = self._cuda
        """Whether the GPU reads main memory by itself."""
        self._place: dict[Any, tuple[int, int]] = {}
        self._homes = [self._pack(number, block) for number, block in enumerate(blocks)]
        self._held: OrderedDict[int, _Slot] = OrderedDict()
        """By block, the one used longest ago first."""
        self._free: list[_Slot] = []
        self._now: int | None = None
        self._before: int | None = None
        self._after: dict[tuple[int | None, int | None], int] = {}
        """Which block was asked for after these two."""
        self.copied = 0
        """Bytes so far."""
        self.resize(slots)

    @property
    def slots(self) -> int:
        """How many blocks are on the device at a time."""
        return len(self._held) + len(self._free)

    def resize(self, slots: int) -> None:
        """Have that many slots, all of them empty; at least two, and no more than there are blocks."""
        import torch

        if self._cuda:
            torch.cuda.synchronize(self._device)
        self._held.clear()
        self._free.clear()
        self._now = None
        size = max(home.numel() for home in self._homes)
        for _ in range(max(LEAST_SLOTS, min(slots, len(self._homes)))):
            with torch.inference_mode(mode=False):
                self._free.append(_Slot(room=torch.empty(size, dtype=self._homes[0].dtype, device=self._device)))

    def weight(self, layer: Any) -> Tensor:  # noqa: ANN401 (torch Module)
        """(outputs, inputs) on the device, for what is computed next on the current stream and before the next is asked for."""
        block, start = self._place[layer]
        if block != self._now:
            self._turn_to(block)
        outputs, inputs = layer.weight.shape[:2]
        return self._held[block].room[start : start + outputs * inputs].view(outputs, inputs)

    def _pack(self, number: int, block: Sequence[Any]) -> Tensor:
        import torch

        starts = [0]
        for layer in block:
            starts.append(starts[-1] + -(-layer.weight.numel() // _ALIGNED) * _ALIGNED)
        home = _room(starts[-1], block[0].weight.dtype)
        self.locked = self.locked and _lock_pages(self, home)
        with torch.no_grad():
            for layer, start in zip(block, starts):
                own = torch.empty_like(layer.weight, device="meta")  # for the order of a 1x1 convolution's dimensions
                own = home.as_strided(own.shape, own.stride(), home.storage_offset() + start)
                own.copy_(layer.weight)
                layer.weight.data = own
                self._place[layer] = number, start
        return home

    def _turn_to(self, block: int) -> None:
        """Compute with that block from now on."""
        import torch

        if self._cuda and self._now is not None and self._now in self._held:
            self._held[self._now].left = _mark(torch.cuda.current_stream(self._device))
        self._after[self._before, self._now] = block
        self._before, self._now = self._now, block
        self._touch(block)
        if self._cuda:
            torch.cuda.current_stream(self._device).wait_event(self._held[block].arrived)
        for coming in self._coming():
            self._touch(coming)

    def _coming(self) -> Iterator[int]:
        before, now = self._before, self._now
        for _ in range(min(_AHEAD, self.slots - 1)):
            if (before, now) not in self._after:
                return
            before, now = now, self._after[before, now]
            yield now

    def _touch(self, block: int) -> None:
        """Have a block on its way at least, and the last to be thrown out."""
        import torch

        if block not in self._held:
            slot = self._free.pop() if self._free else self._held.popitem(last=False)[1]
            home = self._homes[block]
            self.copied += home.numel() * home.itemsize
            if self._copying is None:
                slot.room[: home.numel()].copy_(home)
            else:
                if slot.left is not None:
                    self._copying.wait_event(slot.left)
                with torch.cuda.stream(self._copying):
                    slot.room[: home.numel()].copy_(home, non_blocking=True)
                slot.arrived = _mark(self._copying)
            self._held[block] = slot
        self._held.move_to_end(block)


def _mark(stream: Any) -> Any:  # noqa: ANN401 (torch.cuda.Stream, Event)
    """What has been sent to the stream until now."""
    import torch

    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(stream)
    return event


def _room(numbers: int, dtype: Any) -> Tensor:  # noqa: ANN401 (torch.dtype)
    """(numbers,) in main memory, from the beginning of a page on."""
    import torch

    extra = _PAGE // dtype.itemsize
    whole = torch.empty(numbers + extra, dtype=dtype)
    first = (-whole.data_ptr() % _PAGE) // dtype.itemsize
    return whole[first : first + numbers]


def _lock_pages(owner: Stream, home: Tensor) -> bool:
    """Have the GPU read it by itself; where the system does not allow that, copies are slower and nothing else changes.

    torch's own page-locked memory comes in powers of two, twice what a block takes at worst.
    """
    import torch

    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if int(runtime.cudaHostRegister(home.data_ptr(), home.numel() * home.itemsize, 0)) == 0:
        weakref.finalize(owner, _unlock_pages, runtime, home).atexit = False
        return True
    with suppress(RuntimeError):
        # The refusal is kept for whoever asks next: have it told here.
        torch.zeros(1, device="cuda").add_(1)
    return False


def _unlock_pages(runtime: Any, home: Tensor) -> None:  # noqa: ANN401 (torch's module)
    runtime.cudaHostUnregister(home.data_ptr())
