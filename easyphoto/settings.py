"""Where things lie and which backends are chosen; read once from the environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that is chosen outside a request."""

    home: Path
    """Folder with people, jobs and results (`EASYPHOTO_HOME`)."""
    base_model: Path
    """Diffusers folder or single file of the base model (`EASYPHOTO_BASE_MODEL`); the embedded one by default."""
    templates: Path
    """Folder of the template gallery."""
    device: str
    """"auto", "cpu", "cuda", "cuda:1" or "mps" (`EASYPHOTO_DEVICE`)."""
    gpus: int = 1
    """Over how many GPUs one training is spread (`EASYPHOTO_GPUS`)."""
    at_once: int = 1
    """How many people are trained at once, each on GPUs of their own (`EASYPHOTO_AT_ONCE`)."""
    lora_folder: Path | None = None
    """Folder of a WebUI's LoRA files that ours were copied to (`EASYPHOTO_LORA_DIR`)."""
    controlnets: Path | None = None
    """Folder of ControlNets for a base model that has none inside (`EASYPHOTO_CONTROLNET_DIR`)."""
    upscalers: Path | None = None
    """Folder of ESRGAN files for super resolution (`EASYPHOTO_UPSCALER_DIR`)."""
    ip_adapters: Path | None = None
    """Folder of IP-Adapters and their image encoder, for the ID control (`EASYPHOTO_IPADAPTER_DIR`)."""
    tokenizer: Path | None = None
    """CLIP's vocabulary, for a base model that is a single file (`EASYPHOTO_TOKENIZER`)."""

    @staticmethod
    def from_env(env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; unset variables take their defaults."""
        env = os.environ if env is None else env
        return Settings(
            home=Path(env.get("EASYPHOTO_HOME") or Path.home() / ".easyphoto").expanduser().absolute(),
            base_model=Path(env.get("EASYPHOTO_BASE_MODEL") or PROJECT_ROOT / "models" / "base-256").absolute(),
            templates=Path(env.get("EASYPHOTO_TEMPLATES") or PROJECT_ROOT / "templates").absolute(),
            device=env.get("EASYPHOTO_DEVICE") or "auto",
            gpus=_count(env, "EASYPHOTO_GPUS"),
            at_once=_count(env, "EASYPHOTO_AT_ONCE"),
            lora_folder=_path(env, "EASYPHOTO_LORA_DIR"),
            controlnets=_path(env, "EASYPHOTO_CONTROLNET_DIR"),
            upscalers=_path(env, "EASYPHOTO_UPSCALER_DIR"),
            ip_adapters=_path(env, "EASYPHOTO_IPADAPTER_DIR"),
            tokenizer=_path(env, "EASYPHOTO_TOKENIZER"),
        )


def _count(env: Mapping[str, str], name: str) -> int:
    """A number of at least one; what is none is taken for one."""
    return max(1, int(env[name])) if env.get(name, "").isdecimal() else 1


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]).expanduser().absolute() if env.get(name) else None


def calm_threads() -> None:
    """Let idle compute threads sleep instead of spin; must run before torch is first imported in the process.

    OpenMP's threads spin by default while they wait for each other. With anything else on the same cores (another job, a
    browser) they spin against it: a UNet step of the embedded model on two busy cores took 1.7 s instead of 0.16 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def step_back(by: int) -> None:
    """Let every other process go first, by so many steps of niceness, where the system knows how.

    Linux gives each session the same share and weighs niceness only inside of one, where sched(7)'s autogroups are switched
    on, as they are on most desktops: a process with a session of its own makes that step back as well.
    """
    if not hasattr(os, "nice"):
        return
    niceness = os.nice(by)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness), encoding="ascii")
