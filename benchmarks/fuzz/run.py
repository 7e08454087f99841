"""Run the fuzzers: `python benchmarks/fuzz/run.py [--seconds N] [TARGET ...]`; exits with 1 if anything was found.

Inputs and findings stay under outputs/fuzz/TARGET, so that the next run goes on from there; earlier findings are tried first.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")
TARGETS = ("photos", "loras", "records", "base_models", "checkpoints", "requests")
_STATUS = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+) corp: (\d+)")
_COUNT = re.compile(r"^#(\d+)\s|^stat::number_of_executed_units:\s*(\d+)")
_MOST_RESTARTS = 20


@dataclass(kw_only=True)
class Tally:
    """What one fuzzer did, over all its restarts."""

    name: str
    executions: int = 0
    first_coverage: int = 0
    coverage: int = 0
    features: int = 0
    inputs: int = 0
    seconds: float = 0.0
    restarts: int = 0
    found: tuple[Path, ...] = ()

    def line(self) -> str:
        """One line of the table."""
        rate = self.executions / max(self.seconds, 1e-9)
        edges = f"edges {self.first_coverage:5} -> {self.coverage:5}   features {self.features:5}   inputs {self.inputs:4}"
        work = f"{self.name:<12} {self.seconds:4.0f} s {self.executions:10,} runs {rate:7,.0f}/s"
        return f"{work}   {edges}   findings {len(self.found)}"


def main() -> int:
    """Run each fuzzer that was named (all of them by default), then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=[], help=f"some of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=180, help="for each target")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "fuzz")
    chosen = parser.parse_args()
    unknown = set(chosen.targets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    tallies = [fuzz(name, chosen.out / name, chosen.seconds) for name in chosen.targets or TARGETS]
    print("\n".join(tally.line() for tally in tallies))
    for path in (path for tally in tallies for path in tally.found):
        print(f"found: {path}")
    return 1 if any(tally.found for tally in tallies) else 0


def fuzz(name: str, folder: Path, seconds: int) -> Tally:
    """Run one fuzzer until its time is over, beginning anew where an input ended its process."""
    _set_findings_back(folder)
    tally, end = Tally(name=name), time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 0 and tally.restarts < _MOST_RESTARTS:
        began = time.monotonic()
        status = _run_once(tally, folder, left)
        tally.seconds += time.monotonic() - began
        if status == 0:
            break
        tally.restarts += 1
        if status > 0 and not list((folder / "found").glob("*")):
            raise SystemExit(f"the fuzzer {name} did not start; see {folder / 'log.txt'}")
    tally.found = tuple(sorted(path for path in (folder / "found").iterdir() if path.suffix != ".txt"))
    return tally


def _set_findings_back(folder: Path) -> None:
    """What was found earlier becomes an input to begin with."""
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    (folder / "found").mkdir(exist_ok=True)
    for path in (folder / "found").iterdir():
        if path.suffix == ".txt":
            path.unlink()
        else:
            path.replace(folder / "corpus" / path.name)


def _run_once(tally: Tally, folder: Path, seconds: int) -> int:
    command = [sys.executable, str(WORKER), tally.name, str(folder), str(seconds)]
    done = 0
    # Each thread's own arena would reserve 64 MB of the address space that is limited.
    environment = {**os.environ, "PYTHONMALLOC": "malloc", "PYTHONWARNINGS": "ignore", "MALLOC_ARENA_MAX": "2"}
    with (
        (folder / "log.txt").open("a", encoding="utf-8") as log,
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment,
                         text=True, errors="replace") as process,
    ):  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            log.write(line)
            if line.startswith(("FOUND", "SUMMARY", "==")):
                print(f"{tally.name}: {line.strip()}", flush=True)
            if seen := _STATUS.match(line):
                _note(tally, seen)
            if counted := _COUNT.match(line):
                done = int(counted[1] or counted[2])
    tally.executions += done
    return process.returncode


def _note(tally: Tally, seen: re.Match[str]) -> None:
    kind, coverage = seen[2], int(seen[3])
    if kind == "INITED" and not tally.first_coverage:
        tally.first_coverage = coverage
        print(f"{tally.name}: begins with {coverage} edges from {seen[5]} inputs", flush=True)
    if kind == "pulse":
        print(f"{tally.name}: {int(seen[1]):,} runs, {coverage} edges", flush=True)
    tally.coverage, tally.features, tally.inputs = coverage, int(seen[4]), int(seen[5])


if __name__ == "__main__":
    sys.exit(main())
