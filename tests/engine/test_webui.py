"""The engine in the WebUI, on a strict stand-in of each host: the contract, and that the host is left as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from easyphoto.engine.webui import WebuiEngine
from easyphoto.errors import Cancelled, EasyPhotoError, InputError, JobFailed, LoraError, NotFound, ToolMissing
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, InpaintJob, LoraUse, TextJob
from easyphoto.store.lora_file import read_lora, serialize, write_lora
from tests.engine.contract import EngineContract, MissingControlNet, picture, square_mask
from tests.engine.host_standin import StandIn

HOSTS = [("1.6", "1.1.441"), ("1.8", "1.1.455"), ("1.10", "1.1.455"), ("forge", "forge"), ("reforge", "reforge")]


def write_checkpoint(path: Path, width: int = 768, channels: int = 4, layers: int = 2) -> Path:
    """A checkpoint with nothing but the tensors that tell its kind."""
    prefix = "model.diffusion_model"
    shapes = {
        f"{prefix}.input_blocks.0.0.weight": (1, channels, 1, 1), f"{prefix}.input_blocks.{layers + 1}.0.op.weight": (1,),
        f"{prefix}.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (1, width),
    }  # fmt: skip
    path.write_bytes(serialize({name: np.zeros(shape, np.float16) for name, shape in shapes.items()}, {}))
    return path


@pytest.fixture(params=HOSTS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return installed(StandIn(*request.param, tmp_path, write_checkpoint(tmp_path / "plain.safetensors")), monkeypatch)


def installed(host: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    host.install(monkeypatch)
    return host


@pytest.fixture()
def engine(host: StandIn) -> WebuiEngine:
    return WebuiEngine()


@pytest.fixture()
def lora(tiny_lora: Path) -> Path:
    return tiny_lora


@pytest.fixture()
def job() -> InpaintJob:
    maps = tuple(
        Condition(kind=kind, image=picture(64, seed), weight=0.5)
        for seed, kind in enumerate((ConditionKind.CANNY, ConditionKind.OPENPOSE, ConditionKind.COLOR))
    )
    return InpaintJob(
        image=picture(64), mask=square_mask(64), prompt="a woman", strength=0.5, steps=8, conditions=maps, seed=1187
    )


@pytest.fixture(autouse=True)
def as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test on a host: its settings, slots, scripts, lock and the random generator are as before."""
    import torch

    if "host" not in request.fixturenames:
        yield
        return
    host: StandIn = request.getfixturevalue("host")
    options, drawn = dict(host.options.data), torch.get_rng_state()
    yield
    assert host.options.data == options
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not host.lock.locked()
    assert host.state.job == ""
    assert host.state.textinfo is None
    for runner in host.runners.values():
        assert [(one.args_from, one.args_to) for one in runner.scripts if one.name == "Behind"] == [(8, 10)]
        assert [one.name for one in runner.scripts if one.ran and one.name != "ControlNet"] == []
        assert len(runner.alwayson_scripts) == len(runner.scripts)
    assert all(p.closed for p in host.asked)


class TestContract(EngineContract, MissingControlNet):
    @pytest.fixture()
    def bare_engine(self, host: StandIn, engine: WebuiEngine) -> WebuiEngine:
        host.code.models[:] = ["None"]
        return engine


def test_the_seed_is_ours_although_the_hosts_script_would_set_it(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    engine.inpaint(job)
    assert host.asked[-1].seed == 1187


@pytest.mark.parametrize("strength", [0.02, 0.3, 0.45, 0.55, 0.999, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 20, 50, 1000])
def test_the_host_runs_the_steps_that_are_told(engine: WebuiEngine, job: InpaintJob, strength: float, steps: int) -> None:
    told: list[tuple[int, int]] = []
    engine.inpaint(replace(job, strength=strength, steps=steps, conditions=()), lambda *step: told.append(step))
    executed = max(1, min(steps, int(strength * steps + 1e-6)))
    assert told == [(step, executed) for step in range(1, executed + 1)]


def test_interrupt_ends_in_cancelled(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    host.at_step = lambda step: host.state.interrupt() if step == 1 else None
    with pytest.raises(Cancelled):
        engine.inpaint(job)
    host.at_step = None
    assert engine.inpaint(job).shape == job.image.shape


def test_interrupt_between_two_passes_is_not_lost(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    with pytest.raises(Cancelled), engine.session("easyphoto: Anna", passes=2):
        engine.inpaint(job)
        host.state.interrupt()
        engine.inpaint(job)
    assert len(host.asked) == 1


def test_skip_gives_what_has_been_painted_so_far(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    told: list[int] = []
    host.at_step = lambda step: host.state.skip() if step == 1 else None
    assert engine.inpaint(job, lambda done, _total: told.append(done)).shape == job.image.shape
    assert told == [1, 2]


def test_an_error_in_the_middle_is_one_sentence(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    host.break_at = 2
    with pytest.raises(JobFailed, match="CUDA out of memory"):
        engine.inpaint(job)
    host.break_at = None
    assert engine.inpaint(job).shape == job.image.shape


def test_a_session_begins_once_and_its_passes_make_one_progress(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    seen: list[tuple[str, int, str | None]] = []
    host.at_step = lambda _step: seen.append((host.state.job, host.state.job_count, host.state.textinfo))
    with engine.session("easyphoto: Anna", passes=2):
        engine.inpaint(job)
        engine.inpaint(job)
    assert set(seen) == {("easyphoto: Anna", 2, "easyphoto: Anna")}
    assert host.state.begun == ["easyphoto: Anna"]


def test_training_has_the_gpu_to_itself(host: StandIn, engine: WebuiEngine) -> None:
    out, back = {"forge": ("unload", []), "reforge": ("unload", ["load to device"])}.get(
        host.version, ("send to cpu", ["send"])
    )
    with engine.lent():
        assert host.lock.locked()
        assert host.calls == [out]
    assert host.calls == [out, *back]


def test_another_checkpoint_is_used_and_the_chosen_one_comes_back(host: StandIn, job: InpaintJob, tmp_path: Path) -> None:
    host.add_checkpoint("people/other.safetensors", write_checkpoint(tmp_path / "other.safetensors", width=2048))
    engine = WebuiEngine(checkpoint="people/other.safetensors", vae="soft.vae.pt")
    assert (engine.name, engine.family) == ("other", Family.SDXL)
    seen: list[tuple[str, str]] = []
    host.at_step = lambda _step: seen.append((host.options.sd_model_checkpoint, host.options.sd_vae))
    engine.inpaint(replace(job, conditions=()))
    assert set(seen) == {("people/other.safetensors", "soft.vae.pt")}
    assert host.calls == ([] if host.version == "forge" else ["reload"])
    with pytest.raises(NotFound, match="nowhere"):
        _ = WebuiEngine(checkpoint="nowhere").family


def test_a_setting_that_the_host_did_not_have_is_gone_again(host: StandIn, job: InpaintJob, tmp_path: Path) -> None:
    host.add_checkpoint("other.safetensors", write_checkpoint(tmp_path / "other.safetensors"))
    had = {key: host.options.data.pop(key) for key in ("sd_model_checkpoint", "sd_vae")}
    before = dict(host.options.data)
    WebuiEngine(checkpoint="other.safetensors", vae="soft.vae.pt").inpaint(job)
    assert host.options.data == before
    host.at_step = lambda _step: host.options.data.update(sd_model_checkpoint="plain.safetensors")
    WebuiEngine(checkpoint="other.safetensors").inpaint(job)
    assert host.options.data == {**before, "sd_model_checkpoint": "plain.safetensors"}, "somebody chose it meanwhile"
    host.options.data.update(had)


def test_nothing_was_loaded_under_nowebui(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    for runner in host.runners.values():
        runner.scripts.clear()
        runner.alwayson_scripts.clear()
    engine.inpaint(job)
    engine.text(TextJob(width=64, height=64, prompt="x", steps=2))
    assert host.calls == ["create_ui"]


def test_pictures_and_other_settings_of_the_person_stay_out(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    engine.inpaint(job)
    asked = host.asked[-1]
    assert (asked.do_not_save_samples, asked.do_not_save_grid, asked.styles) == (True, True, [])
    assert asked.override_settings["CLIP_stop_at_last_layers"] == 1
    assert set(asked.override_settings) <= set(host.options.data)


def test_a_missing_controlnet_extension_is_refused_before_anything_is_painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: InpaintJob
) -> None:
    host = installed(StandIn("1.8", None, tmp_path, write_checkpoint(tmp_path / "plain.safetensors")), monkeypatch)
    engine = WebuiEngine()
    assert (engine.conditions, engine.unit_limit) == (frozenset(), 0)
    with pytest.raises(ToolMissing, match="sd-webui-controlnet"):
        engine.inpaint(job)
    assert host.asked == []
    assert engine.inpaint(replace(job, conditions=())).shape == job.image.shape


def test_a_controlnet_whose_script_failed_counts_as_missing(host: StandIn, engine: WebuiEngine, job: InpaintJob) -> None:
    for runner in host.runners.values():
        runner.load([one for one in runner.scripts if one.name != "ControlNet"])
    assert engine.conditions == frozenset()
    with pytest.raises(ToolMissing, match="ControlNet"):
        engine.inpaint(job)
    assert host.asked == []


def test_a_controlnet_that_fails_while_it_is_used_is_no_silent_picture(
    host: StandIn, engine: WebuiEngine, job: InpaintJob
) -> None:
    host.code.fails = True
    with pytest.raises(ToolMissing, match="canny"):
        engine.inpaint(job)
    host.code.fails = False
    assert engine.inpaint(job).shape == job.image.shape


@pytest.mark.parametrize(
    ("width", "channels", "word"), [(1024, 4, "Stable Diffusion 2"), (768, 9, "inpainting"), (4096, 4, "unknown")]
)
def test_a_checkpoint_that_we_do_not_run_is_refused(
    host: StandIn, engine: WebuiEngine, job: InpaintJob, tmp_path: Path, width: int, channels: int, word: str
) -> None:
    write_checkpoint(tmp_path / "plain.safetensors", width, channels)
    with pytest.raises(InputError, match=word):
        engine.inpaint(job)
    assert host.asked == []


def test_a_broken_or_missing_checkpoint_is_named(engine: WebuiEngine, tmp_path: Path) -> None:
    (tmp_path / "plain.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(InputError, match=r"plain\.safetensors"):
        _ = engine.family
    (tmp_path / "plain.safetensors").unlink()
    with pytest.raises(NotFound, match=r"plain\.safetensors"):
        _ = engine.family


def test_a_checkpoint_in_the_old_format_is_told_by_the_loaded_model(host: StandIn, tmp_path: Path) -> None:
    host.add_checkpoint("plain.safetensors", tmp_path / "old.ckpt")
    engine = WebuiEngine()
    assert engine.family is Family.SD15
    engine.host.shared.sd_model.is_sd2 = True
    with pytest.raises(InputError, match="Stable Diffusion 2"):
        _ = engine.family


def test_a_lora_of_another_family_is_refused(
    host: StandIn, engine: WebuiEngine, job: InpaintJob, lora: Path, tmp_path: Path
) -> None:
    path = tmp_path / "anna.safetensors"
    write_lora(path, replace(read_lora(lora), metadata={"ss_base_model_version": "sdxl_base_v1-0"}))
    with pytest.raises(LoraError, match="sdxl"):
        engine.inpaint(replace(job, loras=(LoraUse(path=path),)))
    assert host.asked == []
    assert not list(host.lora_dir.rglob("*.safetensors"))


def test_the_hosts_lora_folder_holds_one_copy_under_a_name_of_its_content(
    host: StandIn, engine: WebuiEngine, job: InpaintJob, lora: Path, tmp_path: Path
) -> None:
    path = tmp_path / "Anna <1>.safetensors"
    path.write_bytes(lora.read_bytes())
    engine.inpaint(replace(job, loras=(LoraUse(path=path, weight=0.9),)))
    (first,) = host.lora_dir.rglob("*.safetensors")
    assert f"<lora:{first.stem}:0.9>" in host.asked[-1].prompt
    write_lora(path, replace(read_lora(path), metadata={"trained": "again"}))
    engine.inpaint(replace(job, loras=(LoraUse(path=path, weight=0.9),)))
    (second,) = host.lora_dir.rglob("*.safetensors")
    assert second.name != first.name


def test_a_lora_that_the_host_does_not_find_is_no_silent_picture(
    engine: WebuiEngine, job: InpaintJob, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(engine.shelf), "put", lambda *_: Path("elsewhere.safetensors"))
    with pytest.raises(LoraError, match="elsewhere"):
        engine.inpaint(replace(job, loras=(LoraUse(path=lora),)))


def test_loras_need_the_hosts_own_extension(host: StandIn, engine: WebuiEngine, job: InpaintJob, lora: Path) -> None:
    host.networks.clear()
    with pytest.raises(ToolMissing, match="Lora"):
        engine.inpaint(replace(job, loras=(LoraUse(path=lora),)))


@pytest.mark.parametrize(("slots", "left_out"), [(2, "openpose"), (1, "color, openpose")])
def test_fewer_units_than_wanted_leave_out_the_least_useful_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: InpaintJob, slots: int, left_out: str
) -> None:
    installed(StandIn("forge", "forge", tmp_path, write_checkpoint(tmp_path / "plain.safetensors"), slots=slots), monkeypatch)
    engine = WebuiEngine()
    engine.inpaint(job)
    assert engine.unit_limit == slots
    assert len(engine.warnings) == 1
    assert f"so {left_out} was left out" in engine.warnings[0]


def test_the_embedded_model_gets_its_own_sizes_and_the_extensions_table_is_put_back(
    host: StandIn, engine: WebuiEngine, job: InpaintJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: Path
) -> None:
    table = {"model_channels": 320, "num_heads": 8}
    guess = ModuleType("scripts.controlnet_model_guess")
    guess.controlnet_default_config = table
    monkeypatch.setitem(sys.modules, guess.__name__, guess)
    write_checkpoint(tmp_path / "plain.safetensors", width=256, layers=1)
    host.code.models[:] = ["None", *(f"easyphoto_embedded_{kind.value} [0]" for kind in ConditionKind)]
    seen: list[int] = []
    host.at_step = lambda _step: seen.append(table["model_channels"])
    assert engine.family is Family.EMBEDDED
    engine.inpaint(replace(job, loras=(LoraUse(path=lora),)))
    assert set(seen) == {96}
    assert table == {"model_channels": 320, "num_heads": 8}
    # One residual block a level: the host's own translation of names would miss.
    (copy,) = host.lora_dir.rglob("*.safetensors")
    assert any("input_blocks_" in name for name in read_lora(copy).module_names())


def test_outside_a_webui_the_engine_says_so() -> None:
    with pytest.raises(EasyPhotoError, match="not a Stable Diffusion WebUI"):
        WebuiEngine()
