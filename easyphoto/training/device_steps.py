"""Steps on a GPU: each one CUDA graph, two of them on their way at most, so that stopping is heard within a step or two."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_AHEAD = 2
_WARM_UP = 2
"""Runs before a graph is captured: libraries choose their kernels and take their memory."""


@dataclass(kw_only=True, eq=False)
class DeviceSteps:
    """Runs a step and brings its report back without waiting for it."""

    run: Callable[[], Tensor]
    """Computes one step from tensors that stay where they are; returns its report, a vector."""
    graphed: bool = True
    _graph: Any = None
    _report: Any = None
    _slots: Any = None
    _under_way: deque[tuple[int, Any]] = field(default_factory=deque)

    @property
    def ready(self) -> bool:
        """Whether steps can be started."""
        return self._slots is not None

    def prepare(self) -> None:
        """Warm up, and capture the graph; whoever calls sees to it that this changes nothing."""
        import torch

        # Autograd remembers the stream that it first met a tensor on: both must happen on one.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._report = self._rehearse(side)
        if self.graphed:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
                self._report = self.run()
        self._slots = torch.zeros(_AHEAD + 2, len(self._report)).pin_memory()

    def _rehearse(self, side: Any) -> Tensor:  # noqa: ANN401 (torch.cuda.Stream)
        import torch

        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP if self.graphed else 1):
                report = self.run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        return report

    def start(self, step: int) -> None:
        """Send a step on its way; its number only chooses where the report goes."""
        import torch

        if self._graph is None:
            self._report = self.run()
        else:
            self._graph.replay()
        slot = step % len(self._slots)
        self._slots[slot].copy_(self._report, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._under_way.append((slot, event))

    def reports(self, all_of_them: bool = False) -> list[list[float]]:
        """Reports of steps that have ended, in order; waits until few enough are under way, or none."""
        done = []
        while self._under_way and (all_of_them or len(self._under_way) > _AHEAD):
            slot, event = self._under_way.popleft()
            event.synchronize()
            done.append([float(number) for number in self._slots[slot]])
        return done
