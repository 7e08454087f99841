"""The section of a host's Settings page: what is said there, and what the environment says where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyphoto.errors import SpecError
from easyphoto.jobs.host_settings import HOST_OPTIONS, marking_of, rule_of, settings_of
from easyphoto.jobs.retention import Rule
from easyphoto.marking import MarkingSettings

DEFAULTS = {option.key: option.default for option in HOST_OPTIONS}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "KEEP_INPUTS_DAYS", "KEEP_JOBS_DAYS", "KEEP_RESULTS_DAYS", "WATERMARK", "SAFETY"):
        monkeypatch.delenv(f"EASYPHOTO_{name}", raising=False)


def test_untouched_settings_are_the_defaults_of_the_project() -> None:
    assert rule_of(DEFAULTS) == rule_of({}) == Rule()
    assert marking_of(DEFAULTS) == marking_of({}) == MarkingSettings()
    assert settings_of(DEFAULTS, None) == settings_of({}, None)


def test_the_page_names_the_home_and_the_host_the_folder_of_loras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYPHOTO_HOME", str(tmp_path / "from-environment"))
    assert settings_of(DEFAULTS, None).home == tmp_path / "from-environment"
    settings = settings_of({**DEFAULTS, "easyphoto_home": f" {tmp_path / 'said'} "}, str(tmp_path / "Lora"))
    assert (settings.home, settings.lora_folder) == (tmp_path / "said", tmp_path / "Lora")


def test_days_are_taken_as_they_are_said_and_nonsense_is_passed_over() -> None:
    said = {"easyphoto_keep_inputs_days": 0, "easyphoto_keep_jobs_days": 3.0, "easyphoto_keep_results_days": 90}
    assert rule_of(said) == Rule(inputs=0.0, jobs=3.0, results=90.0)
    assert rule_of({"easyphoto_keep_jobs_days": "soon", "easyphoto_keep_inputs_days": -1}) == Rule()


def test_marks_are_what_the_page_or_the_environment_switches_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert marking_of({"easyphoto_watermark": True}).watermark
    assert marking_of({"easyphoto_safety": True}).safety
    monkeypatch.setenv("EASYPHOTO_SAFETY", "1")
    assert marking_of(DEFAULTS).safety
    both = {"easyphoto_certificate": str(tmp_path / "c.pem"), "easyphoto_key": str(tmp_path / "k.pem")}
    assert marking_of(both).key == tmp_path / "k.pem"
    with pytest.raises(SpecError, match="both"):
        marking_of({"easyphoto_certificate": str(tmp_path / "c.pem")})
