"""The command line's grammar and its one door for errors."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from easyphoto import __version__
from easyphoto.cli import commands, hooks, making, privacy, queue, scenes, serving
from easyphoto.errors import Cancelled, EasyPhotoError
from easyphoto.presets import Preset
from easyphoto.records import TrainKind
from easyphoto.settings import calm_threads
from easyphoto.work import JobKind, JobState


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (see `errors` for the statuses)."""
    calm_threads()
    arguments = parser().parse_args(argv)
    cancel = threading.Event()
    _stop_on_interrupt(cancel)
    try:
        status: int = arguments.run(arguments, cancel)
    except (EasyPhotoError, KeyboardInterrupt) as error:
        return _report(error, arguments.json)
    return status


def _report(error: BaseException, as_json: bool) -> int:
    if not isinstance(error, EasyPhotoError):
        error = Cancelled("stopped before it was done; nothing half-made was kept")
    if as_json:
        print(json.dumps({"kind": "failed", "code": error.code, "message": str(error)}), flush=True)
    else:
        print(f"easyphoto: {error}", file=sys.stderr)
    return error.exit_status


def _stop_on_interrupt(cancel: threading.Event) -> None:
    """The first Ctrl-C asks politely (the worker stops within a step), the second breaks off."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, stop)


def parser() -> argparse.ArgumentParser:
    """The whole grammar; the defaults shown are those of the embedded base model's family."""
    root = argparse.ArgumentParser(prog="easyphoto", description="From a person's photos to portraits of them.")
    root.add_argument("--version", action="version", version=f"easyphoto {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON lines for programs")
    common.add_argument("--home", type=Path, help="people and results (default: $EASYPHOTO_HOME or ~/.easyphoto)")
    common.add_argument(
        "--base-model", "--checkpoint", "--ckpt", type=Path, metavar="PATH",
        help="checkpoint or diffusers folder (default: the embedded model)",
    )  # fmt: skip
    common.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps")
    common.add_argument("--gpus", type=int, metavar="N", help="spread a training over so many GPUs (default: one)")
    common.add_argument("--at-once", type=int, metavar="N", help="train so many people at once, each on other GPUs")
    verbs = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(verbs.add_parser("demo", parents=[common], help="train a sample person, make portraits, write a page"))
    _train(verbs.add_parser("train", parents=[common], help="train a person, or a scene, from photos"))
    _portrait(verbs.add_parser("portrait", parents=[common], help="put people into templates"))
    _people(verbs.add_parser("people", help="list, show, rename or delete people"), common)
    scenes.add_verbs(verbs.add_parser("scenes", help="list, show, rename or delete scenes and clothes"), common)
    _jobs(verbs.add_parser("jobs", help="what waits, runs and has ended"), common)
    serving.add_verbs(verbs, common)
    privacy.add_audit(verbs.add_parser("audit", parents=[common], help="every file that holds something of a person"))
    hooks.add_verbs(verbs, common)
    _bench(verbs.add_parser("bench", help="measure against rivals"), common)
    doctor = verbs.add_parser("doctor", parents=[common], help="what is installed, what is missing, how to get it")
    doctor.set_defaults(run=commands.doctor)
    return root


def _demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--output", type=Path, default=Path("outputs/demo"))
    verb.add_argument("--templates", type=int, default=4, help="how many templates to use")
    verb.add_argument("--max-steps", type=int, help="train fewer steps than the preset")
    verb.set_defaults(run=commands.demo)


def _train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("photos", nargs="+", type=Path, metavar="PHOTOS", help="picture files or folders")
    verb.add_argument("--person", "--name", dest="person", required=True, metavar="NAME", help="of the person or scene")
    verb.add_argument("--kind", choices=[kind.value for kind in TrainKind], default=TrainKind.PERSON.value)
    verb.add_argument(
        "--prompt", default="", help="scenes: what the photos show, for those without a .txt file of their name beside them"
    )
    verb.add_argument("--crop-ratio", type=float, help="scenes: square around a face, in face sizes; 0: whole pictures")
    verb.add_argument(
        "--preset", choices=[preset.value for preset in Preset], default=Preset.BALANCED.value,
        help="people: how long and how carefully; what is said besides counts more (default: balanced)",
    )  # fmt: skip
    verb.add_argument("--check-only", action="store_true", help="judge the photos, train nothing")
    verb.add_argument("--take", action="append", default=[], metavar="FILE", help="take this photo in any case")
    verb.add_argument("--no-retouch", action="store_true", help="leave the skin as it is")
    verb.add_argument("--resume", action="store_true", help="go on with a training that was cut off")
    verb.add_argument("--replace", action="store_true", help="train a person anew who was trained before")
    verb.add_argument("--consent", metavar="WHO", help="who agreed that these photos are used; kept with the person")
    verb.add_argument("--seed", type=int, default=0)
    for flag, kind in (
        ("--rank", int), ("--alpha", float), ("--learning-rate", float), ("--text-learning-rate", float),
        ("--steps-per-photo", int), ("--max-steps", int), ("--batch-size", int), ("--accumulation", int),
        ("--validation-steps", int), ("--size", int),
    ):  # fmt: skip
        verb.add_argument(flag, type=kind, help="default: the preset's")
    verb.add_argument("--no-validation", action="store_true", help="keep the last checkpoint unjudged")
    verb.add_argument("--no-text-encoder", action="store_true", help="train the UNet alone")
    verb.set_defaults(run=making.train)


def _portrait(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--person", action="append", dest="people", metavar="NAME", help="repeat for faces left to right")
    verb.add_argument("--leave-face", action="append_const", dest="people", const=None, help="leave the next face")
    verb.add_argument("--template", nargs="+", required=True, type=Path, metavar="FILE")
    verb.add_argument("--output", type=Path, default=Path("outputs/portraits"))
    verb.add_argument("--stages", action="store_true", help="write the pictures of every stage too")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--count", type=int, default=1, help="pictures of each template, each with its own seed")
    verb.add_argument("--prompt", default="", help="words added to the prompt")
    verb.add_argument("--negative", default="", help="words to stay away from")
    for flag, kind in (
        ("--lora-weight", float), ("--guidance", float), ("--crop-ratio", float), ("--fuse-before", float),
        ("--fuse-after", float), ("--first-strength", float), ("--first-steps", int), ("--second-strength", float),
        ("--second-steps", int),
    ):  # fmt: skip
        verb.add_argument(flag, type=kind, help="default: the family's")
    verb.add_argument("--no-second-pass", action="store_true")
    verb.add_argument("--no-color-shift", action="store_true", help="leave the colours as diffusion made them")
    verb.add_argument("--no-color-shift-first", action="store_true", help="the same after the first pass alone")
    verb.add_argument("--no-color-shift-last", action="store_true", help="the same at the end alone")
    _extras(verb.add_argument_group("further steps, off unless asked for"))
    verb.set_defaults(run=making.portrait)


def _extras(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--no-crop-face", action="store_true", help="work on the whole picture instead of around the face")
    group.add_argument("--face-shape-match", action="store_true", help="the face's outline is the person's own")
    group.add_argument("--lcm", action="store_true", help="few steps by an LCM-LoRA in the folder of LoRAs (SD1.5, SDXL)")
    for flag, words in (
        ("--makeup", "0-1: how much of the makeup of the template's face"),
        ("--retouch", "0-1: how much the finished face's skin is evened"),
        ("--background", "0-1: denoising strength of a pass over everything but the heads"),
    ):
        group.add_argument(flag, type=float, default=0.0, metavar="SHARE", help=words)
    group.add_argument(
        "--super-resolution", nargs="?", const="auto", metavar="WAY",
        help="twice as large, by an upscaler that is installed (auto, lanczos, real-esrgan, or a file's name)",
    )  # fmt: skip
    group.add_argument(
        "--id-control", nargs="?", const="", metavar="PICTURE",
        help="hold the face by an IP-Adapter of yours (SD1.5, SDXL) and the person's reference photo, or PICTURE",
    )  # fmt: skip
    group.add_argument("--id-weight", type=float, default=0.3, metavar="WEIGHT", help="0.1-1, of the ID control")
    group.add_argument("--super-resolution-ratio", type=float, default=0.5, metavar="SHARE", help="0-1, of the upscaler's")


def _people(verb: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = verb.add_subparsers(dest="action", required=True)
    listing = verbs.add_parser("list", parents=[common], help="everyone who was trained")
    listing.set_defaults(run=commands.people_list)
    show = verbs.add_parser("show", parents=[common], help="one person's files and scores")
    show.add_argument("name")
    show.set_defaults(run=commands.people_show)
    privacy.add_people_verbs(verbs, common)


def _jobs(verb: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = verb.add_subparsers(dest="action", required=True)
    listing = verbs.add_parser("list", parents=[common], help="the newest jobs")
    listing.add_argument("--state", choices=[state.value for state in JobState])
    listing.add_argument("--kind", choices=[kind.value for kind in JobKind])
    listing.add_argument("--person", metavar="NAME", help="jobs about this person alone")
    listing.add_argument("--limit", type=int, default=50)
    listing.set_defaults(run=queue.jobs_list)
    for name, run, words in (
        ("show", queue.jobs_show, "one job, and why it failed"),
        ("cancel", queue.jobs_cancel, "stop a job"),
        ("watch", queue.jobs_watch, "follow a job to its end; run it if nobody else does"),
    ):
        one = verbs.add_parser(name, parents=[common], help=words)
        one.add_argument("id", metavar="ID")
        one.set_defaults(run=run)


def _bench(verb: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = verb.add_subparsers(dest="subject", required=True)
    portrait = verbs.add_parser("portrait", parents=[common], help="identity, copying, seams and seconds")
    portrait.add_argument("--output", type=Path, default=Path("outputs/bench/portrait"))
    portrait.add_argument("--people", type=Path, help="folder with one folder of 20 photos for each real person")
    portrait.add_argument("--templates", type=int, default=4, help="templates for each person, of matching sex")
    portrait.add_argument("--only", action="append", metavar="NAME", help="bench these people alone")
    portrait.set_defaults(run=commands.bench_portrait)
