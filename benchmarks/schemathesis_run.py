"""Lets schemathesis loose on a real server by its own OpenAPI document: no crash, no 5xx, every answer as the document says.

    pip install schemathesis        # in an environment of its own
    python benchmarks/schemathesis_run.py --schemathesis path/to/schemathesis [--max-examples 50] [--workers 1]

A server with a person, a finished job and two owners runs here; instead of a worker, something ends every job at once, so
that no stream of events goes on for ever.
Left out is the check that whatever fits the schema is accepted: a text of letters fits where base64 of a picture is wanted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.api.options import ApiOptions
from easyphoto.jobs.folders import End, now
from easyphoto.jobs.results import ResultFolder
from easyphoto.jobs.store import NewJob
from easyphoto.jobs.turns import Turns
from easyphoto.orders import DrillOrder
from easyphoto.work import JobResult, JobState
from tests.api.rig import UNHURRIED, Rig, jpeg, person_in, served


def main() -> int:
    """Run it and give schemathesis' exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemathesis", default="schemathesis", help="its command")
    parser.add_argument("--max-examples", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "home", ApiOptions(rates=UNHURRIED)) as rig:
        _fill(rig, Path(folder))
        stop = threading.Event()
        ender = threading.Thread(target=_end_jobs, args=(rig, stop))
        ender.start()
        command = [
            arguments.schemathesis, "run", f"{rig.url}/easyphoto/v1/openapi.json", "--url", rig.url,
            "--header", f"Authorization:{rig.mine.headers['authorization']}", "--checks", "all",
            "--exclude-checks", "positive_data_acceptance", "--max-examples", str(arguments.max_examples),
            "--workers", str(arguments.workers), "--seed", str(arguments.seed), "--request-timeout", "30",
            "--continue-on-failure", "--no-color", *more,
        ]  # fmt: skip
        status = subprocess.run(command, cwd=folder, check=False).returncode
        stop.set()
        ender.join()
        known = _fill(rig, Path(folder))
        # Once more with ids that exist, so that more than "not found" is asked for; nothing is deleted then.
        (Path(folder) / "schemathesis.toml").write_text(f"[parameters]\n{known}", encoding="utf-8")
        keep = ["--exclude-method", "DELETE", "--exclude-method", "PATCH"]
        status = subprocess.run([*command, *keep], cwd=folder, check=False).returncode or status
        text = rig.mine.get("/metrics").text
    broken = [line for line in text.splitlines() if "requests_total" in line and 'status="5' in line]
    print("\n".join(broken) or "no answer was a 5xx")
    return status


def _fill(rig: Rig, folder: Path) -> str:
    """People and jobs; returns their ids as schemathesis' configuration wants them."""
    person = person_in(rig.service.settings.home, folder / "made")
    store, turns = rig.service.store, Turns(rig.service.store)
    job = store.submit(NewJob(order=DrillOrder()))
    turn = turns.claim(only=job.id)
    if turn is None:
        raise RuntimeError("the job was not taken")
    result = ResultFolder(rig.service.home("local"), job.id)
    result.add("picture.jpg", jpeg())
    kept = result.commit(JobResult(id=job.id, kind=job.kind, owner="local", created=now(), person="Anna"))
    turns.finish(turn, End(state=JobState.DONE, ended=now(), started=turn.job.started, attempt=1), kept)
    ids = {"person_id": person.person_id, "job_id": job.id, "result_id": job.id, "name": "picture.jpg"}
    return "".join(f'"path.{name}" = "{value}"\n' for name, value in ids.items())


def _end_jobs(rig: Rig, stop: threading.Event) -> None:
    turns = Turns(rig.service.store)
    while not stop.wait(0.02):
        turn = turns.claim()
        if turn is not None:
            turns.finish(turn, End(state=JobState.CANCELLED, ended=now(), started=turn.job.started, attempt=1))


if __name__ == "__main__":
    sys.exit(main())
