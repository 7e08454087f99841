"""The ID control on a stand-in of each host: the right file, the right CLIP by the host's own name, within its units."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyphoto.engine.webui import WebuiEngine
from easyphoto.engine.webui_id import choose_face_model
from easyphoto.errors import ToolMissing
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, ImagePrompt, InpaintJob
from tests.engine.contract import picture, square_mask
from tests.engine.host_standin import StandIn
from tests.engine.host_standin_controlnet import ADAPTERS
from tests.engine.test_webui import HOSTS, write_checkpoint

KINDS = (ConditionKind.CANNY, ConditionKind.OPENPOSE, ConditionKind.COLOR)


def made(
    version: tuple[str, str | None], folder: Path, monkeypatch: pytest.MonkeyPatch, width: int = 768, slots: int = 4
) -> StandIn:
    host = StandIn(*version, folder, write_checkpoint(folder / "plain.safetensors", width=width), slots=slots)
    if host.code is not None:
        host.code.models += ADAPTERS
    host.install(monkeypatch)
    return host


@pytest.fixture(params=HOSTS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def version(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    found: tuple[str, str | None] = request.param
    return found


@pytest.fixture()
def job() -> InpaintJob:
    maps = tuple(Condition(kind=kind, image=picture(64, seed), weight=0.5) for seed, kind in enumerate(KINDS))
    face = ImagePrompt(image=picture(96, 7), weight=0.3)
    return InpaintJob(
        image=picture(64), mask=square_mask(64), prompt="a woman", strength=0.5, steps=8, conditions=maps, seed=1,
        likeness=face,
    )  # fmt: skip


def units_of(host: StandIn) -> list[Any]:
    slots = slice(5, 5 + host.slots)
    return [unit for unit in host.asked[-1].script_args[slots] if unit.enabled]


def test_the_face_is_one_unit_of_its_own_with_the_adapter_for_faces(
    version: tuple[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: InpaintJob
) -> None:
    host, engine = made(version, tmp_path, monkeypatch), WebuiEngine()
    engine.check_likeness()
    held = engine.inpaint(job)
    *maps, face = units_of(host)
    assert [unit.module.lower() for unit in maps] == ["none"] * 3
    assert (face.model, face.weight) == ("ip-adapter-plus-face_sd15 [71693645]", 0.3)
    np.testing.assert_array_equal(host.code.picture(face), job.likeness.image)
    assert not engine.warnings
    assert not np.array_equal(engine.inpaint(replace(job, likeness=None)), held)
    assert len(units_of(host)) == 3
    engine.inpaint(replace(job, likeness=replace(job.likeness, weight=0.0)))
    assert len(units_of(host)) == 3


def test_sdxl_has_its_own_file_and_on_the_extension_its_own_preprocessor(
    version: tuple[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: InpaintJob
) -> None:
    host, engine = made(version, tmp_path, monkeypatch, width=2048), WebuiEngine()
    engine.inpaint(replace(job, conditions=()))
    (face,) = units_of(host)
    assert face.model == "ip-adapter-plus-face_sdxl_vit-h [c60d7d48]"


@pytest.mark.parametrize(
    ("slots", "left_out", "kept"), [(3, "openpose", 3), (2, "color, openpose", 2), (1, "the ID control", 1)]
)
def test_with_few_units_edges_come_first_and_then_the_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: InpaintJob, slots: int, left_out: str, kept: int
) -> None:
    host, engine = made(("1.8", "1.1.455"), tmp_path, monkeypatch, slots=slots), WebuiEngine()
    engine.inpaint(job)
    assert len(units_of(host)) == kept
    assert f"so {left_out}" in engine.warnings[0]
    assert "Multi-ControlNet to 4" in engine.warnings[0]


def test_without_the_file_it_is_refused_before_anything_is_painted(
    version: tuple[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: InpaintJob
) -> None:
    host, engine = made(version, tmp_path, monkeypatch), WebuiEngine()
    host.code.models.remove("ip-adapter-plus-face_sd15 [71693645]")
    engine.check_likeness()  # the other one for faces does too
    host.code.models.remove("ip-adapter-full-face_sd15 [852b9843]")
    for ask in (engine.check_likeness, lambda: engine.inpaint(job)):
        with pytest.raises(ToolMissing, match=r"ip-adapter-plus-face_sd15\.safetensors.*models/ControlNet"):
            ask()
    assert not host.asked


def test_without_controlnet_the_sentence_says_what_it_was_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(("1.8", None), tmp_path, monkeypatch)
    with pytest.raises(ToolMissing, match=r"which is to hold the ID control, is missing"):
        WebuiEngine().check_likeness()


def test_names_are_told_apart_by_face_family_and_licence() -> None:
    names = tuple(name.partition(" ")[0] for name in ADAPTERS)
    assert choose_face_model(names, Family.SD15) == "ip-adapter-plus-face_sd15"
    assert choose_face_model(names, Family.SDXL) == "ip-adapter-plus-face_sdxl_vit-h"
    assert choose_face_model(names, Family.EMBEDDED) is None
    assert choose_face_model(("ip-adapter-faceid_sd15", "ip-adapter_sd15_plus", "control_sd15_face"), Family.SD15) is None
    assert choose_face_model(("IP_Adapter-Plus-Face_sd15",), Family.SD15) == "IP_Adapter-Plus-Face_sd15"
