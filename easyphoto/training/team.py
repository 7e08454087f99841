"""One training over several GPUs, a process each: everybody takes a part of every step's pictures, and gradients are added up.

All draw the same numbers and take their own pictures of them; the sum of the gradients is the same everywhere, bit for bit, and
with it the update. So the factors never travel. `accelerate` joins the processes, over NCCL between GPUs and gloo between CPUs.
The first process is the worker, which judges and saves; the others, its mates, only take their steps and end with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from easyphoto.errors import SpecError
from easyphoto.specs import OptimSpec
from easyphoto.training.draws import Draw

if TYPE_CHECKING:
    from torch import Tensor

_PATIENCE = timedelta(hours=2)
"""How long the others wait for one, which may be judging a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Team:
    """Who takes part, and who of them this process is; alone by default."""

    rank: int = 0
    size: int = 1

    def part(self, draw: Draw) -> Draw:
        """This process's pictures of a step."""
        each = draw.rows.shape[1] // self.size
        return draw if self.size == 1 else draw.part(self.rank * each, (self.rank + 1) * each)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Put the sum over all processes in the place of each tensor."""
        if self.size > 1:
            import torch.distributed as group

            for tensor in tensors:
                group.all_reduce(tensor)


ALONE = Team()


def check_team(optim: OptimSpec, size: int, device: str) -> None:
    """Refuse a number of processes that the pictures of a step or the GPUs of this machine are no match for.

    Raises:
        SpecError: See there.
    """
    pictures = optim.batch_size * optim.accumulation
    if pictures % size:
        raise SpecError(f"a step's {pictures} pictures cannot be shared evenly by {size} GPUs; choose another number of GPUs")
    if device.startswith("cuda"):
        import torch

        if size > torch.cuda.device_count():
            raise SpecError(f"{size} GPUs were asked for and there are {torch.cuda.device_count()}; ask for fewer")


@contextlib.contextmanager
def joined(rank: int, size: int, device: str) -> Iterator[Team]:
    """Be one of the team inside the block; `gathered` or the worker has set the environment."""
    if size == 1:
        yield ALONE
        return
    import torch.distributed as group
    from accelerate import PartialState

    PartialState(cpu=not device.startswith("cuda"), timeout=_PATIENCE)
    yield Team(rank=rank, size=size)
    if not device.startswith("cuda"):
        # A GPU's group cannot be left as long as a captured step holds it: it ends with the process (see `leave`).
        group.destroy_process_group()


def leave(status: int) -> NoReturn:
    """End this process at once, with what holds the group."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def gathered(job: Path, size: int, on_loss: Callable[[], None]) -> Iterator[None]:
    """Have the mates run inside the block, and none of them after it.

    Args:
        job: The job's folder.
        size: Of the whole team.
        on_loss: Called, in another thread, when one of them ends on its own although the block goes on.
    """
    if size == 1:
        yield
        return
    os.environ.update(_places(0, size, _free_port()))
    command = [sys.executable, "-m", "easyphoto.training.worker", str(job), "--mate"]
    mates = [
        subprocess.Popen(command, env={**os.environ, **_places(rank, size, os.environ["MASTER_PORT"])}, stdin=subprocess.PIPE,
                         stdout=subprocess.DEVNULL)
        for rank in range(1, size)
    ]  # fmt: skip
    ending = threading.Event()

    def watch(mate: subprocess.Popen[bytes]) -> None:
        if mate.wait() and not ending.is_set():
            on_loss()

    for mate in mates:
        threading.Thread(target=watch, args=(mate,), daemon=True).start()
    try:
        yield
    finally:
        ending.set()
        for mate in mates:
            mate.kill()
            mate.wait()


def _places(rank: int, size: int, port: str) -> dict[str, str]:
    """What accelerate and torch read to find the others."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
