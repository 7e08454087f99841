"""The interpreter that training runs in: the one at hand where it has all that is needed, otherwise an environment of our own.

A WebUI pins a transformers too old for us, and most have no diffusers. Neither is touched: a virtual environment beside our
home sees the host's packages (torch above all, several GB) behind its own newer ones. It is made at the first training and
counts only once its mark is written, so that one that was cut off is simply made again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from easyphoto.errors import ToolMissing
from easyphoto.files import storage_error, write_text
from easyphoto.store.locks import waiting_lock
from easyphoto.store.paths import make_folder

LEAST = {"diffusers": (0, 31), "transformers": (4, 46), "accelerate": (0, 30)}
"""What our code runs on."""
NEWEST = ("diffusers==0.42.1", "transformers==5.23.0", "accelerate==1.15.0")
NEWEST_ON_310 = ("diffusers==0.41.0", "transformers==5.20.2", "accelerate==1.15.0")
OLDER = ("diffusers==0.31.0", "transformers==4.46.1", "accelerate==1.0.1", "huggingface-hub==0.26.2")
"""For a torch before `_NEW_TORCH`."""
_NEW_TORCH = (2, 6)
_KEPT = ("torch", "numpy", "Pillow", "protobuf")
"""What the environment must take from the host as it is."""
_MARK = "easyphoto-ready.txt"
_PATIENCE = 1800.0
"""Seconds to wait for another process that makes the same environment."""
_TAIL = 6

Tell = Callable[[str], None]
"""Called with one line of progress at a time; may raise Cancelled."""


def worker_python(home: Path, tell: Tell) -> Path:
    """The interpreter for the training's worker process; makes its environment where that is missing.

    Args:
        home: Our home; the environment lies in it.
        tell: Hears of the progress.

    Raises:
        ToolMissing: There is no torch here, or the environment cannot be made; the message has the command to run by hand.
        StorageError: The disk is full or cannot be written.
        Conflict: Another process makes it and does not come to an end.
    """
    if not lacking():
        return Path(sys.executable)
    torch = _version("torch")
    if torch is None:
        raise ToolMissing("training needs torch, which is not installed here; install it, or run `make setup`")
    pins = pins_for(torch)
    folder = environment_folder(home, pins)
    if not is_ready(folder):
        with waiting_lock(home / "worker-env.lock", "making the training environment", _PATIENCE):
            if not is_ready(folder):
                _make(folder, pins, tell)
    return python_in(folder)


def lacking() -> tuple[str, ...]:
    """Which packages this interpreter lacks, or has too old, for training."""
    return tuple(name for name, least in LEAST.items() if _numbers(_version(name) or "0") < least)


def pins_for(torch: str) -> tuple[str, ...]:
    """What goes into the environment beside a torch of that version."""
    if _numbers(torch) < _NEW_TORCH:
        return OLDER
    return NEWEST if sys.version_info >= (3, 11) else NEWEST_ON_310


def environment_folder(home: Path, pins: Sequence[str]) -> Path:
    """Where it lies; another Python, host, torch or set of pins has another folder."""
    facts = (sys.version, sys.prefix, *_host_packages(), _version("torch") or "", *pins)
    return home / f"worker-env-{hashlib.sha256(repr(facts).encode()).hexdigest()[:10]}"


def is_ready(folder: Path) -> bool:
    """Whether the environment was made to its end."""
    return (folder / _MARK).is_file() and python_in(folder).exists()


def python_in(folder: Path) -> Path:
    """The environment's interpreter."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _make(folder: Path, pins: Sequence[str], tell: Tell) -> None:
    tell(f"making an environment for training in {folder}, once; it uses the torch that is installed here")
    shutil.rmtree(folder, ignore_errors=True)
    made = False
    try:
        make_folder(folder.parent)
        _run([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(folder)], tell, pins)
        _show_host_packages(folder)
        python = str(python_in(folder))
        if importlib.util.find_spec("pip") is None:
            _run([python, "-m", "ensurepip"], tell, pins)
        kept = folder / "kept.txt"
        write_text(kept, "".join(f"{name}=={found.split('+')[0]}\n" for name in _KEPT if (found := _version(name))))
        tell(f"installing {', '.join(pins)}")
        install = ["install", "--only-binary", ":all:", "--no-cache-dir", "--constraint", str(kept), *pins]
        _run([python, "-m", "pip", "--disable-pip-version-check", *install], tell, pins)
        _run([python, "-c", "import torch, diffusers, transformers, accelerate"], tell, pins)
        write_text(folder / _MARK, "\n".join(pins) + "\n")
        made = True
        tell("the environment for training is ready")
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        if not made:
            shutil.rmtree(folder, ignore_errors=True)
    for old in folder.parent.glob("worker-env-*/"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def _show_host_packages(folder: Path) -> None:
    """Let the environment see the host's packages behind its own: of a host that is one itself, venv shows only the base's."""
    own = _paths_of(python_in(folder))
    write_text(own / "easyphoto_host.pth", "".join(f"{path}\n" for path in _host_packages()))


def _paths_of(python: Path) -> Path:
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if found.returncode:
        raise ToolMissing(f"{python} does not run ({found.stderr.strip()[-200:]}); install Python with its venv module")
    return Path(found.stdout.strip())


def _host_packages() -> tuple[str, ...]:
    """Folders with this interpreter's packages, in order."""
    own = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    more = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return tuple(dict.fromkeys(path for path in (*own, *more) if Path(path).is_dir()))


def _run(command: Sequence[str], tell: Tell, pins: Sequence[str]) -> None:
    """Run one step and pass its lines on; raises ToolMissing with the command to run by hand if it fails."""
    window = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=_environment(), creationflags=window,
    )  # fmt: skip
    last: deque[str] = deque(maxlen=_TAIL)
    try:
        for line in process.stdout or ():
            if line.strip():
                last.append(line.strip())
                tell(line.strip())
    finally:
        if process.poll() is None and sys.exc_info()[0] is not None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    if process.returncode:
        by_hand = f'"{sys.executable}" -m pip install {" ".join(pins)}'
        raise ToolMissing(
            f"the environment for training could not be made ({' | '.join(last) or 'no word why'}); try again, "
            f"or run {by_hand} where nothing else depends on these packages"
        )


def _environment() -> dict[str, str]:
    """Ours, less what would make pip or Python look elsewhere."""
    out = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "VIRTUAL_ENV"}
    return {**{key: value for key, value in os.environ.items() if key not in out}, "PYTHONIOENCODING": "utf-8"}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu gives (2, 13)."""
    parts = text.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
