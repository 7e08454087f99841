"""The engine in a real WebUI, where EASYPHOTO_WEBUI_DIR points at one: the contract, the embedded model as its checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine import webui_versions as versions
from easyphoto.engine.webui import WebuiEngine
from easyphoto.engine.webui_id import NO_FACE
from easyphoto.errors import Cancelled
from easyphoto.families import Family
from easyphoto.records import InpaintJob
from easyphoto.store.lora_file import LoraFile, kohya_key, write_lora
from tests.engine.contract import EngineContract
from tests.engine.real_host import CHECKPOINT, boot

pytestmark = [
    pytest.mark.skipif("EASYPHOTO_WEBUI_DIR" not in os.environ, reason="EASYPHOTO_WEBUI_DIR does not point at a WebUI"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def engine() -> WebuiEngine:
    boot(Path(os.environ["EASYPHOTO_WEBUI_DIR"]).absolute())
    made = WebuiEngine()
    made.checkpoint = made.host.sd_models.checkpoint_aliases[CHECKPOINT].title
    return made


@pytest.fixture()
def lora(base_model: Path, tmp_path: Path) -> Path:
    """A LoRA of random factors for the middle of the embedded model's UNet and its text encoder."""
    rng, tensors = np.random.default_rng(0), {}
    width, words = 288, 256
    for name, size in (("to_q", width), ("to_v", width)):
        key = kohya_key("lora_unet", f"mid_block.attentions.0.transformer_blocks.0.attn1.{name}")
        tensors |= _factors(key, size, rng)
        key = kohya_key("lora_unet", f"down_blocks.1.attentions.0.transformer_blocks.0.attn1.{name}")
        tensors |= _factors(key, 192, rng)
    tensors |= _factors(kohya_key("lora_te", "text_model.encoder.layers.0.self_attn.q_proj"), words, rng)
    path = tmp_path / "person.safetensors"
    write_lora(path, LoraFile(tensors=tensors, metadata={"ss_base_model_version": "easyphoto_embedded"}))
    return path


def _factors(key: str, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        f"{key}.lora_down.weight": rng.normal(0, 0.2, (4, size)).astype(np.float32),
        f"{key}.lora_up.weight": rng.normal(0, 0.2, (size, 4)).astype(np.float32), f"{key}.alpha": np.array(4, np.float32),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def as_it_was(engine: WebuiEngine) -> Iterator[None]:
    """After every test: settings, scripts' slots, state and lock of the host are as before."""
    host = engine.host
    settings, slots = _look(engine)
    yield
    now = _look(engine)
    keys = settings.keys() | now[0].keys()
    gone = "not there"
    assert [(key, settings.get(key, gone), now[0].get(key, gone)) for key in keys if settings.get(key) != now[0].get(key)] == []
    assert now[1] == slots
    assert host.shared.state.job == ""


def _look(engine: WebuiEngine) -> tuple[dict[str, object], list[tuple[str, int, int]]]:
    host = engine.host
    runners = (host.scripts.scripts_img2img, host.scripts.scripts_txt2img)
    slots = [(one.title(), one.args_from, one.args_to) for runner in runners for one in runner.alwayson_scripts]
    return dict(host.shared.opts.data), slots


class TestContract(EngineContract):
    side = 128
    tolerance = 1

    def test_it_is_the_embedded_model(self, engine: WebuiEngine) -> None:
        assert (engine.name, engine.family) == (CHECKPOINT, Family.EMBEDDED)
        assert engine.unit_limit >= 3


    def test_interrupt_in_the_middle(self, engine: WebuiEngine, job: InpaintJob) -> None:
        plain, state = engine.inpaint(job), engine.host.shared.state
        with pytest.raises(Cancelled):
            engine.inpaint(job, lambda done, _total: state.interrupt() if done == 2 else None)
        assert self.same(engine.inpaint(job), plain)

    def test_training_borrows_the_gpu_and_the_next_picture_is_the_same(self, engine: WebuiEngine, job: InpaintJob) -> None:
        plain = engine.inpaint(job)
        with engine.lent():
            assert engine.host.shared.state.job
        assert self.same(engine.inpaint(job), plain)


@pytest.mark.parametrize("model", ["ip-adapter-plus-face_sd15 [00000000]", "ip-adapter-plus-face_sdxl_vit-h [00000000]"])
def test_the_host_takes_the_id_controls_unit_and_knows_its_preprocessor(engine: WebuiEngine, model: str) -> None:
    found = versions.controlnets(engine.host)
    assert found is not None
    nets, _ = found
    unit = nets.unit(NO_FACE, model)
    assert (unit.enabled, unit.model, unit.weight) == (True, model, NO_FACE.weight)
    if nets.listing is None:
        assert unit.module in nets.code.get_modules()
    else:
        assert nets.listing.get_preprocessor(unit.module) is not None
