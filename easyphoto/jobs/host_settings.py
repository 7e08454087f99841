"""What a WebUI's own Settings page says of us: one table, read whenever it is needed, so that most changes work at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from easyphoto.jobs.retention import Rule
from easyphoto.marking import MarkingSettings
from easyphoto.settings import Settings


@dataclass(frozen=True, kw_only=True)
class HostOption:
    """One entry of the section; what the kind of its default is decides its control."""

    key: str
    default: str | float | bool
    label: str
    info: str = ""
    most: float = 0.0
    """Largest number."""
    restart: bool = False
    """It works from the WebUI's next start on."""


_FOR_GOOD = "0 keeps them for good"
HOST_OPTIONS = (
    HostOption(
        key="easyphoto_home", default="", label="Home folder of EasyPhoto", restart=True,
        info="people, their photos, jobs and results; empty: .easyphoto in your own folder. Choose none inside of the WebUI's: "
        "it shows the files in there to whoever can open its pages",
    ),
    HostOption(
        key="easyphoto_keep_inputs_days", default=7.0, most=3650, restart=True,
        label="Days that the photos of failed and stopped jobs are kept", info="those of finished trainings go at once",
    ),
    HostOption(
        key="easyphoto_keep_jobs_days", default=30.0, most=3650, restart=True,
        label="Days that ended jobs and their logs are kept",
    ),
    HostOption(
        key="easyphoto_keep_results_days", default=0.0, most=3650, restart=True,
        label="Days that finished portraits are kept", info=_FOR_GOOD,
    ),
    HostOption(
        key="easyphoto_watermark", default=False, label="Hide a watermark in finished portraits",
        info="eight hex digits of the result's id; needs a package of its own, and a job says which",
    ),
    HostOption(
        key="easyphoto_certificate", default="", label="Certificate to sign Content Credentials with", info="a PEM file",
    ),
    HostOption(key="easyphoto_key", default="", label="Private key of the certificate", info="a PEM file"),
    HostOption(
        key="easyphoto_safety", default=False, label="Look at every portrait and keep back what is not safe for work",
        info="needs a package of its own; a job says which",
    ),
)  # fmt: skip
"""Where portraits of people lie and how long; what they are marked with. LoRAs lie where the WebUI has its own."""


def settings_of(data: Mapping[str, Any], lora_folder: str | None) -> Settings:
    """Our settings: what the Settings page says, else the environment.

    Args:
        data: The host's settings by key.
        lora_folder: Where the host looks for LoRAs.
    """
    settings = Settings.from_env()
    home = _path(data, "easyphoto_home") or settings.home
    loras = Path(lora_folder).absolute() if lora_folder else settings.lora_folder
    # The host's own line for its GPU is for one.
    return replace(settings, home=home, lora_folder=loras, at_once=1)


def rule_of(data: Mapping[str, Any]) -> Rule:
    """What is kept how long; what the Settings page says nothing of is as the environment says."""
    rule = Rule.from_env()
    for name in ("inputs", "jobs", "results"):
        days = data.get(f"easyphoto_keep_{name}_days")
        if isinstance(days, int | float) and math.isfinite(days) and days >= 0:
            rule = replace(rule, **{name: None if name == "results" and days == 0 else float(days)})
    return rule


def marking_of(data: Mapping[str, Any]) -> MarkingSettings:
    """Which marks portraits get; what the environment switches on stays on.

    Raises:
        SpecError: A certificate without its key, or the other way round.
    """
    marks = MarkingSettings.from_env()
    return replace(
        marks, watermark=marks.watermark or bool(data.get("easyphoto_watermark")),
        safety=marks.safety or bool(data.get("easyphoto_safety")),
        certificate=_path(data, "easyphoto_certificate") or marks.certificate, key=_path(data, "easyphoto_key") or marks.key,
    )  # fmt: skip


def _path(data: Mapping[str, Any], key: str) -> Path | None:
    said = str(data.get(key) or "").strip()
    return Path(said).expanduser().absolute() if said else None
