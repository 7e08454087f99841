"""The installer in a real environment with real pip; the packages are stand-ins of a few bytes, so no network is needed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from easyphoto.settings import PROJECT_ROOT

INSTALLER = PROJECT_ROOT / "install.py"
HOST = (
    "numpy==1.26.2", "Pillow==9.5.0", "protobuf==3.20.3", "pydantic==1.10.15", "transformers==4.30.2",
    "opencv-python==4.9.0.80",
)  # fmt: skip
"""What AUTOMATIC1111 1.8 has and must keep."""


def load_installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("easyphoto_install", INSTALLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


installer = load_installer()


def write_wheel(folder: Path, pin: str, files: Iterable[str] = ()) -> None:
    """A wheel with a distribution's name and version, and little else."""
    name, version = pin.replace("-", "_").split("==")
    info = f"{name}-{version}.dist-info"
    members = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **{file: "" if file.endswith(".py") else "weights" for file in files},
    }
    record = "".join(f"{member},,\n" for member in (*members, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for member, text in {**members, f"{info}/RECORD": record}.items():
            wheel.writestr(member, text)


class Host:
    """A throw-away environment with a host's pins, and a folder that is all the network there is."""

    def __init__(self, folder: Path) -> None:
        self.network = folder / "network"
        self.network.mkdir(exist_ok=True)
        self.python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.network), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
        return subprocess.run(
            [str(self.python), *arguments], env={**kept, **own, **env}, capture_output=True, text=True, timeout=300, check=False
        )

    def install(self, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(INSTALLER), **env)

    def frozen(self) -> set[str]:
        lines = self.run("-m", "pip", "freeze", "--all").stdout.splitlines()
        return {line.replace("_", "-").lower() for line in lines}


@pytest.fixture(scope="module")
def made_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host")
    venv.create(folder / "venv", with_pip=True)
    host = Host(folder)
    for pin in HOST:
        write_wheel(host.network, pin)
    assert host.run("-m", "pip", "install", "--no-deps", *HOST).returncode == 0
    return folder


@pytest.fixture()
def host(made_host: Path, tmp_path: Path) -> Host:
    shutil.copytree(made_host, tmp_path / "host", symlinks=True)
    return Host(tmp_path / "host")


def offer(host: Host, *left_out: str) -> None:
    """Put everything that may be wanted onto the network."""
    pins = {want.pin for want in installer.wants()} | {"mediapipe==0.10.9", "mediapipe==0.10.21"}
    for pin in pins - set(left_out):
        write_wheel(host.network, pin, [installer.MODEL_FILE] if pin.startswith("mediapipe") else ())


def names(frozen: set[str]) -> set[str]:
    return {line.split("==")[0] for line in frozen}


def test_everything_missing_is_installed_and_no_pin_of_the_host_moves(host: Host) -> None:
    offer(host)
    before = host.frozen()
    done = host.install()
    assert done.returncode == 0, done.stdout + done.stderr
    after = host.frozen()
    assert before <= after
    assert "mediapipe==0.10.9" in after  # beside protobuf 3
    assert {"dlib-bin", "face-recognition-models", "pillow-heif", "flatbuffers"} <= names(after)
    # The host's own cv2 is left alone.
    assert not {"opencv-contrib-python-headless"} & names(after)

    # The second start: nothing to say, no pip (there is no network any more), and hardly any time.
    for wheel in host.network.iterdir():
        wheel.unlink()
    took = []
    for _ in range(3):
        began = time.perf_counter()
        again = host.install()
        took.append(time.perf_counter() - began)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert host.frozen() == after
    alone = time.perf_counter()
    host.run("-c", "pass")
    assert min(took) - (time.perf_counter() - alone) < 0.3


def test_a_package_that_cannot_be_fetched_leaves_the_host_untouched_and_says_what_to_do(host: Host) -> None:
    offer(host, "face_recognition_models==0.3.0")
    before = host.frozen()
    done = host.install()
    assert done.returncode == 1
    assert "face_recognition_models==0.3.0" in done.stderr
    assert "-m pip install --no-deps" in done.stderr
    assert host.frozen() == before


def test_skip_install_installs_nothing(host: Host) -> None:
    offer(host)
    before = host.frozen()
    for done in (host.install(COMMANDLINE_ARGS="--api --skip-install"), host.run(str(INSTALLER), "--skip-install")):
        assert (done.returncode, done.stdout) == (0, "")
    assert host.frozen() == before


@pytest.mark.parametrize(
    ("protobuf", "wanted"),
    [("3.20.3", "0.10.9"), ("3.19.6", "0.10.9"), ("4.25.9", "0.10.21"), ("5.29.1", "0.10.21"), (None, "0.10.21")],
)
def test_the_protobuf_that_is_there_decides_which_mediapipe(
    monkeypatch: pytest.MonkeyPatch, protobuf: str | None, wanted: str
) -> None:
    monkeypatch.setattr(installer, "installed", lambda name: protobuf if name == "protobuf" else None)
    monkeypatch.setattr(installer.sys, "version_info", (3, 10, 13))
    assert installer.mediapipe_pin() == f"mediapipe=={wanted}"


def test_a_mediapipe_without_its_models_does_not_count(host: Host) -> None:
    offer(host)
    write_wheel(host.network, "mediapipe==1.2.2")
    host.run("-m", "pip", "install", "--no-deps", "mediapipe==1.2.2")
    assert host.install().returncode == 0
    assert "mediapipe==0.10.9" in host.frozen()


def test_importing_the_installer_imports_only_the_standard_library() -> None:
    code = f"import sys; sys.path.insert(0, {str(PROJECT_ROOT)!r}); import install; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    own = {name.split(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    assert own <= {"install", "__main__", "_virtualenv", "distutils-precedence", "_distutils_hack", "sitecustomize"}
