"""Marks on finished pictures: where they come from, and whether they may be shown. All off unless asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import SpecError
from easyphoto.work import SafetyVerdict

_YES, _NO = frozenset({"1", "yes", "on", "true"}), frozenset({"", "0", "no", "off", "false"})


@dataclass(frozen=True, kw_only=True)
class MarkingSettings:
    """Which marks are set."""

    watermark: bool = False
    """Hide eight hex digits of the result's id in the pixels (`EASYPHOTO_WATERMARK`)."""
    certificate: Path | None = None
    """PEM chain to sign Content Credentials with, the signer's own certificate first (`EASYPHOTO_C2PA_CERTIFICATE`)."""
    key: Path | None = None
    """Its private key, PEM (`EASYPHOTO_C2PA_KEY`)."""
    safety: bool = False
    """Look at every portrait before it is shown, and keep back what is not safe (`EASYPHOTO_SAFETY`)."""
    safety_limit: float = 0.8
    """Scores from here on are kept back (`EASYPHOTO_SAFETY_LIMIT`); the model's makers call 0.8 highly probable."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SpecError("signing needs both EASYPHOTO_C2PA_CERTIFICATE and EASYPHOTO_C2PA_KEY; name the other one too")
        if not 0.0 < self.safety_limit <= 1.0:
            raise SpecError(f"EASYPHOTO_SAFETY_LIMIT must be above 0 and at most 1, got {self.safety_limit}")

    @staticmethod
    def from_env(env: Mapping[str, str] | None = None) -> MarkingSettings:
        """Read the settings; what is unset is off.

        Raises:
            SpecError: A variable says something else than it can.
        """
        env = os.environ if env is None else env
        try:
            limit = float(env.get("EASYPHOTO_SAFETY_LIMIT") or 0.8)
        except ValueError:
            raise SpecError(f"EASYPHOTO_SAFETY_LIMIT must be a number, got {env['EASYPHOTO_SAFETY_LIMIT']!r}") from None
        return MarkingSettings(
            watermark=_switch(env, "EASYPHOTO_WATERMARK"), certificate=_path(env, "EASYPHOTO_C2PA_CERTIFICATE"),
            key=_path(env, "EASYPHOTO_C2PA_KEY"), safety=_switch(env, "EASYPHOTO_SAFETY"), safety_limit=limit,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What is said of a picture; never who it shows."""

    id: str
    """The result's id, in hex digits."""
    title: str = "portrait.png"


def _switch(env: Mapping[str, str], name: str) -> bool:
    said = (env.get(name) or "").strip().lower()
    if said not in _YES | _NO:
        raise SpecError(f"{name} must be on or off, got {said!r}")
    return said in _YES


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]).expanduser().absolute() if env.get(name) else None


__all__ = ["Claims", "MarkingSettings", "SafetyVerdict"]
