"""Runs another trainer's script in this process and says at the end what it took of the GPU's memory.

    python benchmarks/training_peer_run.py SCRIPT [its arguments]
"""

from __future__ import annotations

import atexit
import runpy
import sys
from pathlib import Path


def say() -> None:
    """Peak of torch's allocator, allocated and reserved, in GiB."""
    import torch

    if torch.cuda.is_available():
        peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        print("PEAK", *(f"{peak / 2**30:.3f}" for peak in peaks), flush=True)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).absolute().parent)
    atexit.register(say)
    runpy.run_path(sys.argv[0], run_name="__main__")
