"""What the WebUI runs before each of its starts: installs what our code needs inside the host's own process.

Only the standard library is used. Each package is looked up by its distribution's name and version, so that a start with
everything in place runs no pip. What is missing is fetched whole into a temporary folder first and only then installed, from
there and without dependencies: a lost network leaves the host as it was, and nothing that the host has pinned can move.
Training needs more (diffusers, transformers); that goes into an environment of its own, made at the first training
(`easyphoto/training/worker_env.py`), never into the host's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

OPENCV = ("opencv-contrib-python-headless", "opencv-contrib-python", "opencv-python", "opencv-python-headless")
"""They all install the same `cv2` folder over each other: whichever the host has is left alone."""
MODEL_FILE = "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite"
"""MediaPipe's newest releases ship without their models; one that lacks this file is of no use."""


class Want(NamedTuple):
    """One package that must be there."""

    pin: str
    """What pip is asked for when it is missing."""
    instead: tuple[str, ...] = ()
    """Other distributions that bring the same."""
    file: str = ""
    """A file that must lie in it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Distributions, any of which will do."""
        return (self.pin.split("==")[0], *self.instead)


def wants() -> tuple[Want, ...]:
    """What must be there, beside the protobuf that the host has."""
    return (
        Want(mediapipe_pin(), file=MODEL_FILE),
        Want("protobuf==4.25.9"),
        Want("absl-py==2.1.0"),
        Want("attrs==23.2.0"),
        Want("flatbuffers==23.5.26"),
        *MATPLOTLIB,
        Want("opencv-contrib-python-headless==4.11.0.86", instead=OPENCV),
        Want("dlib-bin==20.0.1.post1", instead=("dlib",)),
        Want("face_recognition_models==0.3.0"),
        Want("pillow-heif==0.16.0", instead=("pi-heif",)),
        Want("psutil==5.9.5"),
        Want("prometheus-client==0.20.0"),
        Want("python-multipart==0.0.20"),
    )


MATPLOTLIB = tuple(
    Want(pin)
    for pin in (
        "matplotlib==3.8.4", "contourpy==1.2.1", "cycler==0.12.1", "fonttools==4.51.0", "kiwisolver==1.4.5", "packaging==24.0",
        "pyparsing==3.1.2", "python-dateutil==2.9.0.post0", "six==1.16.0",
    )
)  # fmt: skip
"""MediaPipe's Python part draws with it; every host seen so far has it through gradio."""


def mediapipe_pin() -> str:
    """0.10.9 was built for protobuf 3, as AUTOMATIC1111 and Forge pin it; 0.10.21 for 4 and newer. Both carry their models."""
    found = installed("protobuf")
    old = found is not None and found.split(".")[0] == "3" and sys.version_info < (3, 12)
    return "mediapipe==0.10.9" if old else "mediapipe==0.10.21"


def installed(name: str) -> str | None:
    """The version of a distribution; None where it is missing."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def missing() -> tuple[str, ...]:
    """The pins to install."""
    return tuple(want.pin for want in wants() if not any(_is_there(name, want.file) for name in want.names))


def _is_there(name: str, file: str) -> bool:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return False
    # Half a package (a broken record, a lost file) counts as none. Its record is not parsed: this runs at every start.
    return found.read_text("METADATA") is not None and (not file or Path(str(found.locate_file(file))).is_file())


def skipped() -> bool:
    """Whether the host was told to install nothing; its own launcher then does not even call us."""
    arguments = [*sys.argv[1:], *os.environ.get("COMMANDLINE_ARGS", "").split()]
    # Only looked at, never imported: the launcher reads the command line when it is imported.
    launch = sys.modules.get("launch") or sys.modules.get("modules.launch_utils")
    told = getattr(getattr(launch, "args", None), "skip_install", False)
    return bool(told) or "--skip-install" in arguments


def install(pins: Sequence[str]) -> None:
    """Fetch all of `pins`, then install all of them; raises SystemExit with what to do if that fails."""
    import tempfile

    print(f"easyphoto: installing {', '.join(pins)} (once)", flush=True)
    with tempfile.TemporaryDirectory(prefix="easyphoto-") as folder:
        _pip(("wheel", "--no-deps", "--wheel-dir", folder, *pins), pins)
        # By name, not by path: `pip freeze` shall show versions, not the temporary folder.
        _pip(("install", "--no-deps", "--no-index", "--find-links", folder, *pins), pins)


def _pip(arguments: Sequence[str], pins: Sequence[str]) -> None:
    import subprocess

    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return
    by_hand = " ".join(quoted([sys.executable, "-m", "pip", "install", "--no-deps", *pins]))
    said = "\n".join(f"    {line}" for line in done.stdout.strip().splitlines()[-8:])
    raise SystemExit(
        f"easyphoto: pip {arguments[0]} ended with status {done.returncode}, so the WebUI starts without easyphoto.\n"
        f"{said}\n"
        f"easyphoto: when the cause is gone, start the WebUI again, or run this by hand:\n    {by_hand}"
    )


def quoted(words: Sequence[str]) -> Iterator[str]:
    """The words as a person can paste them into a shell of this system."""
    import shlex
    import subprocess

    for word in words:
        yield subprocess.list2cmdline([word]) if os.name == "nt" else shlex.quote(word)


def main() -> None:
    """Install what is missing, unless told not to."""
    if skipped():
        return
    pins = missing()
    if pins:
        install(pins)


if __name__ == "__main__":
    main()
