"""The worker process: `python -m easyphoto.training.worker JOB_FOLDER [--watch-parent] [--stay] [--gpus N]`.

It reads spec, order and prepared photos from the folder, says what it does in events, and leaves result.json. Killed at
any moment, it goes on from its last checkpoint when it is started on the same folder again, to the same result. A lock in
the folder keeps two of them from working on it at once: the second waits for the first, whose parent may be gone.

With `--stay` it waits after a training that ended well for the folder of the next one, on its standard input, and goes on with
the base model that it has; a training that ends otherwise ends the process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from easyphoto.engine.models import resolve_device
from easyphoto.errors import Cancelled, EasyPhotoError, JobFailed
from easyphoto.files import storage_error
from easyphoto.settings import PROJECT_ROOT, step_back
from easyphoto.specs import TrainResult
from easyphoto.store.locks import waiting_lock
from easyphoto.training.job import JobFolder
from easyphoto.training.lending import Lender
from easyphoto.training.progress import Reporter, Stop
from easyphoto.training.run import run_job, run_mate
from easyphoto.training.team import gathered, joined, leave

logger = logging.getLogger(__name__)

_NICENESS = 5
"""Behind the queue's process, which other jobs and a server wait for: a training takes minutes in any case."""


def main(arguments: list[str]) -> int:
    """Run one job, or with `--stay` one after the other; returns the exit status of the error tree."""
    job = JobFolder(Path(arguments[0]).absolute())
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    step_back(_NICENESS)
    # One folder for all: the cache of what cuDNN has had compiled goes by the folder too that it was compiled in.
    os.chdir(PROJECT_ROOT)
    if "--mate" in arguments[1:]:
        return _mate(job)
    parent, stays = _Parent(), "--stay" in arguments[1:]
    if "--watch-parent" in arguments[1:]:
        threading.Thread(target=parent.listen, daemon=True).start()
    lender, size = Lender(keeps=stays), _team_size(arguments)
    while not (status := _serve(job, parent, lender, size)) and stays:
        _rest(lender)
        following = parent.next_job()
        if following is None:
            break
        job = following
        _move_to(job)
    return status


def _serve(job: JobFolder, parent: _Parent, lender: Lender, size: int) -> int:
    """One job, whatever becomes of it."""
    stop = Stop(job.cancel)
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGINT, stop.ask)
    parent.tells(stop)
    reporter = Reporter(job.events)
    try:
        with waiting_lock(job.lock, f"the training in {job.root.name}"):
            result = job.read_result() if job.result.exists() else _run(job, reporter, stop, size, lender)
        reporter.say("done", stage="done", step=result.steps, total=result.steps, path=str(result.lora), seconds_left=0.0)
    except BaseException as error:  # noqa: BLE001 (the process ends here, and its parent must hear why)
        return _report(reporter, job, error)
    return 0


class _Parent:
    """Who started us holds the other end of our standard input: tells of further jobs, and is gone when that ends."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[JobFolder | None] = queue.SimpleQueue()
        self._stop: Stop | None = None
        self._gone = False

    def listen(self) -> None:
        """Read until the end, whatever brought it; runs in a thread of its own."""
        # The descriptor itself: Python cannot shut down while another thread waits inside its buffered reader.
        rest = b""
        with contextlib.suppress(OSError):
            while said := os.read(0, 65_536):
                *lines, rest = (rest + said).split(b"\n")
                for line in lines:
                    self._said.put(JobFolder(Path(json.loads(line))))
        self._gone = True
        self._said.put(None)
        if self._stop is not None:
            self._stop.ask()

    def tells(self, stop: Stop) -> None:
        """Have this asked to stop when the parent is gone."""
        self._stop = stop
        if self._gone:
            stop.ask()

    def next_job(self) -> JobFolder | None:
        """Wait for the next job; None where there will be none."""
        return self._said.get()


def _rest(lender: Lender) -> None:
    """Let go of the job that is over: its objects, its folder and its log, which may be removed now."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _say_into(Path(os.devnull))
    lender.tidy()


def _move_to(job: JobFolder) -> None:
    """Work as if started for this job; what cannot be done is said when the job is begun."""
    with contextlib.suppress(OSError):
        _say_into(job.log)


def _say_into(path: Path) -> None:
    """Have our and all libraries' messages written there from now on."""
    sys.stderr.flush()
    with path.open("ab") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())


def _run(job: JobFolder, reporter: Reporter, stop: Stop, size: int, lender: Lender) -> TrainResult:
    """Run the job, with as many mates as were asked for."""

    def on_loss() -> None:
        # Nobody can call this process back from the sum that it waits for.
        os._exit(_report(reporter, job, JobFailed(f"one of the {size} processes of the training ended; see {job.log}")))

    device = job.read_spec().device
    with gathered(job.root, size, on_loss), joined(0, size, resolve_device(device) if size > 1 else device) as team:
        return run_job(job, reporter, stop, team, lender)


def _team_size(arguments: list[str]) -> int:
    return int(arguments[arguments.index("--gpus") + 1]) if "--gpus" in arguments else 1


def _mate(job: JobFolder) -> int:
    """Be another process's mate, as long as that lives."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    run_mate(job, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    return 0


def _report(reporter: Reporter, job: JobFolder, error: BaseException) -> int:
    """Say what went wrong, as one event, and return the exit status that belongs to it."""
    known = _known(job, error)
    if not isinstance(error, EasyPhotoError):
        logger.error("the worker failed", exc_info=error)
    kind = "cancelled" if isinstance(known, Cancelled) else "failed"
    # A full disk refuses the line for the folder too; the parent reads the one on standard output.
    with contextlib.suppress(OSError):
        reporter.say(kind, stage=kind, message=str(known), code=known.code)
    return known.exit_status


def _known(job: JobFolder, error: BaseException) -> EasyPhotoError:
    if isinstance(error, EasyPhotoError):
        return error
    if isinstance(error, BrokenPipeError | KeyboardInterrupt):
        return Cancelled("the training was stopped because nobody waits for it any more; go on with --resume")
    if isinstance(error, OSError):
        return storage_error(Path(error.filename) if error.filename else job.root, error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return JobFailed("the training ran out of memory; train with a smaller batch size or a smaller size")
    return JobFailed(f"the training failed ({type(error).__name__}: {error}); see {job.log}")


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if {"--gpus", "--mate"} & set(sys.argv):
        leave(status)
    sys.exit(status)
