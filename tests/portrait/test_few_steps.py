"""LCM in a portrait: what is left open becomes few steps, and the file is found or named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.app import App, Shared
from easyphoto.engine.fake import FakeEngine
from easyphoto.errors import ToolMissing
from easyphoto.faces.tools import FaceTools
from easyphoto.families import Family
from easyphoto.portrait.infotext import read_infotext
from easyphoto.portrait.lcm import lcm_lora
from easyphoto.portrait.pipeline import run
from easyphoto.records import InpaintJob, Photo
from easyphoto.settings import Settings
from easyphoto.specs import PassRequest, Person, PortraitRequest
from easyphoto.store.lora_file import LoraFile, write_lora


def test_open_settings_become_few_steps_and_others_stay(template: Photo, person: Person, tools: FaceTools) -> None:
    engine = FakeEngine(family=Family.SD15)
    asked = PortraitRequest(template=template, people=(replace(person, family=Family.SD15),), lcm=True, background=0.3)
    (result,) = run(asked, engine, tools)
    jobs = [job for job in engine.jobs if isinstance(job, InpaintJob)]
    assert [(job.strength, job.steps, job.guidance, job.lcm) for job in jobs] == [
        (0.5, 12, 2.0, True), (0.3, 8, 2.0, True), (0.3, 12, 2.0, True),
    ]  # fmt: skip
    assert read_infotext(result.infotext)[2]["Sampler"] == "LCM"
    run(replace(asked, first=PassRequest(steps=6, strength=0.4), guidance=1.5, background=0), engine, tools)
    first = engine.jobs[3]
    assert isinstance(first, InpaintJob)
    assert (first.strength, first.steps, first.guidance) == (0.4, 6, 1.5)


@pytest.mark.parametrize(
    ("name", "family", "weight"),
    [
        ("lcm_lora_sd15", Family.SD15, 0.8), ("lcm-lora-sdv1-5", Family.SD15, 0.8), ("LCM_LoRA_SD1.5_x", Family.SD15, 0.8),
        ("lcm_lora_sdxl", Family.SDXL, 0.4), ("lcm-lora-sdxl", Family.SDXL, 0.4), ("deep/lcm-lora-XL", Family.SDXL, 0.4),
    ],
)  # fmt: skip
def test_the_file_is_found_by_the_names_it_goes_by(tmp_path: Path, name: str, family: Family, weight: float) -> None:
    path = tmp_path / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    (tmp_path / "anna.safetensors").write_bytes(b"")
    use = lcm_lora(family, tmp_path)
    assert (use.path, use.weight) == (path, weight)
    other, wanted = (Family.SDXL, "sdxl") if family is Family.SD15 else (Family.SD15, "sd15")
    with pytest.raises(ToolMissing, match=rf"needs the LoRA lcm_lora_{wanted}.*put it into"):
        lcm_lora(other, tmp_path)


def test_where_there_is_no_such_lora_the_refusal_says_so(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="none for the embedded family; turn LCM off"):
        lcm_lora(Family.EMBEDDED, tmp_path)
    with pytest.raises(ToolMissing, match="EASYPHOTO_LORA_DIR"):
        lcm_lora(Family.SD15, None)


class _Painter(Shared):
    """What an application shares, with an engine that paints noise."""

    def __init__(self, settings: Settings, painter: FakeEngine, tools: FaceTools, reads_tags: bool) -> None:
        super().__init__(settings)
        self.painter, self._tools, self.reads_tags = painter, tools, reads_tags

    @property
    def engine(self) -> FakeEngine:
        return self.painter


@pytest.mark.parametrize("in_a_host", [False, True])
def test_the_lora_goes_along_by_itself_and_is_named_to_a_host(
    template: Photo, person: Person, tools: FaceTools, tmp_path: Path, in_a_host: bool
) -> None:
    folder = tmp_path / "Lora"
    folder.mkdir()
    zeros = np.zeros((1, 1), np.float32)
    name = "lora_unet_down_blocks_0_attentions_0_proj_in"
    factors = {f"{name}.lora_down.weight": zeros, f"{name}.lora_up.weight": zeros, f"{name}.alpha": np.array(1.0, np.float32)}
    write_lora(folder / "lcm_lora_sd15.safetensors", LoraFile(tensors=factors, metadata={}))
    settings = replace(Settings.from_env({}), home=tmp_path / "home", lora_folder=folder)
    engine = FakeEngine(family=Family.SD15)
    app = App(settings, shared=_Painter(settings, engine, tools, in_a_host))
    people = (replace(person, family=Family.SD15),)
    asked = PortraitRequest(template=template, people=people, lcm=True, prompt="rain", second=None)
    app.portraits(asked)
    (job,) = engine.jobs
    names = [use.path.stem for use in job.loras]
    if in_a_host:
        assert (names, "rain, <lora:lcm_lora_sd15:0.8>" in job.prompt) == (["Ada"], True)
    else:
        assert (names, job.loras[1].weight, "<lora" in job.prompt) == (["Ada", "lcm_lora_sd15"], 0.8, False)
    (folder / "lcm_lora_sd15.safetensors").unlink()
    with pytest.raises(ToolMissing, match="lcm_lora_sd15"):
        app.portraits(asked)
    assert len(engine.jobs) == 1
