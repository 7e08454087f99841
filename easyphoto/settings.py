"""Where things lie and which backends are chosen; read once from the environment."""

from __future__ import annotations

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
    lora_folder: Path | None = None
    """Folder of a WebUI's LoRA files that ours were copied to (`EASYPHOTO_LORA_DIR`)."""
    controlnets: Path | None = None
    """Folder of ControlNets for a base model that has none inside (`EASYPHOTO_CONTROLNET_DIR`)."""
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
            lora_folder=_path(env, "EASYPHOTO_LORA_DIR"),
            controlnets=_path(env, "EASYPHOTO_CONTROLNET_DIR"),
            tokenizer=_path(env, "EASYPHOTO_TOKENIZER"),
        )


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]).expanduser().absolute() if env.get(name) else None


def calm_threads() -> None:
    """Let idle compute threads sleep instead of spin; must run before torch is first imported in the process.

    OpenMP's threads spin by default while they wait for each other. With anything else on the same cores (another job, a
    browser) they spin against it: a UNet step of the embedded model on two busy cores took 1.7 s instead of 0.16 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
