"""One fuzzer in a process of its own: `python benchmarks/fuzz/worker.py TARGET FOLDER SECONDS`, called by `run.py`.

An exception that may not come out is kept with its input under FOLDER/found and the search goes on; what ends the process
(a crash in a library's own code, a hang) is kept by libFuzzer itself.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import random
import re
import resource
import sys
import time
import traceback
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "photos": ("PIL", "pillow_heif"), "loras": ("safetensors",), "records": (), "base_models": (), "checkpoints": (),
    "requests": ("python_multipart",),
}  # fmt: skip
"""The fuzzers, and the packages besides ours whose branches guide the search."""
_HANG = 25
"""Seconds after which libFuzzer ends an input."""


def main() -> None:
    """Fuzz until the time is over; see the module's text for the arguments."""
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    sys.path[0] = str(ROOT)  # this folder's own names must not be taken for packages
    logging.lastResort = None
    with atheris.instrument_imports(include=["easyphoto", *MODULES[name]], enable_loader_override=False):
        target = importlib.import_module(f"benchmarks.fuzz.{name}").TARGET
    corpus, words = _prepare(target, folder)
    watch = Watch(target, folder / "found")
    options = [
        str(corpus), f"-max_total_time={seconds}", f"-max_len={target.longest}", f"-dict={words}", f"-timeout={_HANG}",
        f"-artifact_prefix={folder / 'found'}/", "-rss_limit_mb=3000", "-print_final_stats=1", "-reload=0",
        "-use_value_profile=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], watch.try_one, custom_mutator=_mutator(target) if target.mutate else None)
    _limit_memory(target.memory_mb * 4 + 256)
    atheris.Fuzz()


class Watch:
    """Tries inputs and keeps what goes wrong, each kind once."""

    def __init__(self, target, found: Path) -> None:  # noqa: ANN001 (the target's class must be imported late, see `main`)
        self.target = target
        self.found = found
        self.known = {path.read_text(encoding="utf-8").split("\n", 1)[0] for path in found.glob("*.txt")}

    def try_one(self, data: bytes) -> None:
        """Check one input; nothing comes out but what ends the process."""
        _forget_peak()
        before, began = _peak(), time.monotonic()
        try:
            self.target.check(data)
        except Exception as error:  # noqa: BLE001 (whatever comes out is a finding)
            self._keep(type(error).__name__, _place(error), traceback.format_exc(), data)
        took, grown = time.monotonic() - began, _peak() - before
        if took > self.target.seconds:
            self._keep("slow", str(int(took)), f"{took:.1f} s", data)
        if grown > self.target.memory_mb:
            self._keep("memory", str(grown // 100), f"{grown} MB", data)

    def _keep(self, kind: str, place: str, text: str, data: bytes) -> None:
        key = f"{kind} {place}"
        if key in self.known:
            return
        self.known.add(key)
        path = self.found / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(f"{key}\n{text}", encoding="utf-8", errors="replace")
        sys.stderr.write(f"\nFOUND {path}: {text.strip().splitlines()[-1][:300]}\n")


def _place(error: BaseException) -> str:
    """Where it and what led to it were raised, in our own code if they passed there: tells one finding from another."""
    places = []
    link: BaseException | None = error
    while link is not None:
        frames = traceback.extract_tb(link.__traceback__)
        frame = ([frame for frame in frames if "/easyphoto/" in frame.filename] or frames)[-1]
        places.append(f"{frame.filename}:{frame.lineno}")
        link = link.__cause__ or link.__context__
    return " < ".join(places)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """MB of memory the process has held at most since it was last forgotten."""
    status = Path("/proc/self/status").read_bytes()
    return int(re.search(rb"VmHWM:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


def _limit_memory(more_mb: int) -> None:
    """The process may reserve so much beyond what it has reserved now."""
    status = Path("/proc/self/status").read_bytes()
    now = int(re.search(rb"VmSize:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_AS, (now + more_mb * 2**20, resource.RLIM_INFINITY))


def _prepare(target, folder: Path) -> tuple[Path, Path]:  # noqa: ANN001 (as above)
    """The folder of inputs to begin with (seeds, earlier ones, earlier findings) and the dictionary."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (folder / "found").mkdir(exist_ok=True)
    for name, data in target.seeds().items():
        (corpus / f"seed-{name}").write_bytes(data)
    words = folder / "words"
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words)
    words.write_text("".join(lines), encoding="ascii")
    return corpus, words


def _mutator(target):  # noqa: ANN001, ANN202 (as above)
    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        return target.mutate(bytes(data), longest, random.Random(seed), atheris.Mutate)  # noqa: S311 (no secret)

    return mutate


if __name__ == "__main__":
    main()
