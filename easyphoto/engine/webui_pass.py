"""One pass in the host: its steps heard and stopped, its mask in whole latent cells, its randomness held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from easyphoto.engine.base import StepListener
from easyphoto.engine.denoise import LATENT_FACTOR
from easyphoto.records import Floats, Pixels


@dataclass(kw_only=True, eq=False)
class Steps:
    """Tells a listener of each step, and turns its wish to stop into the host's own way of stopping."""

    state: Any
    total: int
    listener: StepListener | None
    wish: BaseException | None = None
    """What the listener raised; raised again once the host has tidied up."""

    check: Callable[[], None] | None = None
    """Called at the first step; raises where the host has quietly gone on without what was asked for."""

    def follow(self, processing: Any) -> None:  # noqa: ANN401 (the host's own class)
        """Listen to the sampler that `processing` makes for itself; every sampler calls `callback_state` after each step."""

        def take(own: Any, sampler: Any) -> None:  # noqa: ANN401
            if sampler is not None:
                self._listen(sampler)
            own.__dict__["sampler"] = sampler

        kind = type(processing)
        heard = {"sampler": property(lambda own: own.__dict__.get("sampler"), take)}
        processing.__class__ = type(kind.__name__, (kind,), heard)

    def _listen(self, sampler: Any) -> None:  # noqa: ANN401
        told: Callable[[Any], Any] = sampler.callback_state

        def telling(step: Any) -> Any:  # noqa: ANN401
            answer = told(step)
            self._tell(int(step["i"]) + 1)
            return answer

        sampler.callback_state = telling

    def _tell(self, done: int) -> None:
        if self.wish is not None:
            return
        try:
            if done == 1 and self.check is not None:
                self.check()
            if self.listener is not None:
                self.listener(min(done, self.total), self.total)
        except BaseException as wish:  # noqa: BLE001 (kept and raised again after the host has tidied up)
            self.wish = wish
            self.state.interrupt()


def cells(mask: Floats) -> Pixels:
    """(height, width) of 0 and 255: whole latent cells, those of which any pixel is painted, as the diffusers engine has them.

    The host gives back the raw painting there; the job's own soft mask is laid over it afterwards.
    """
    height, width = mask.shape
    cells = mask.reshape(height // LATENT_FACTOR, LATENT_FACTOR, width // LATENT_FACTOR, LATENT_FACTOR).max(axis=(1, 3))
    return np.kron((cells > 0.1).astype(np.uint8) * 255, np.ones((LATENT_FACTOR, LATENT_FACTOR), np.uint8))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's own generator start from the job's seed, and put it back.

    The host draws the autoencoder's latents from it, unseeded: two equal calls would differ by a level here and there.
    """
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
