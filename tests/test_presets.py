"""Presets: what each says, and that it is the same said on the command line, over the wire and in the tab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from easyphoto.cli.main import main, parser
from easyphoto.cli.making import _spec
from easyphoto.errors import SpecError
from easyphoto.families import Family
from easyphoto.kinds import spec_for
from easyphoto.orders import TrainOrder
from easyphoto.presets import Preset, with_preset
from easyphoto.records import TrainKind
from easyphoto.settings import Settings
from easyphoto.specs import OptimSpec, RateSchedule, TrainSpec
from easyphoto.store.codec import from_json, to_json
from easyphoto.ui.desk import Change
from easyphoto.ui.tab_desks import Desks
from easyphoto.ui.train_desk import TrainPage
from tests.api.rig import Rig, served
from tests.api.test_people import body, fields_of
from tests.ui.made import make_studio, photos
from tests.ui.test_desks import train_values

FAMILIES = list(Family)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with served(tmp_path / "home") as rig:
        yield rig


def preset(family: Family, which: Preset) -> TrainSpec:
    return with_preset(TrainSpec.for_family("Anna", Path("base"), family), which)


@pytest.mark.parametrize("family", FAMILIES)
def test_balanced_is_the_familys_own(family: Family) -> None:
    own = TrainSpec.for_family("Anna", Path("base"), family)
    assert with_preset(own, Preset.BALANCED) is own
    for which in Preset:
        assert from_json(TrainSpec, to_json(preset(family, which))) == preset(family, which)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_balanced_is_the_peers_where_no_likeness_was_measured(family: Family) -> None:
    optim = preset(family, Preset.BALANCED).optim
    peer = OptimSpec(max_steps=600) if family is Family.SDXL else OptimSpec()
    assert optim == peer


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("number", [5, 12, 20])
def test_presets_see_more_pictures_the_better_they_are_called(family: Family, number: int) -> None:
    seen = []
    for which in (Preset.FAST, Preset.BALANCED, Preset.BEST):
        optim = preset(family, which).optim
        seen.append(optim.steps_for(number) * optim.batch_size)
    assert seen == sorted(seen)
    assert len(set(seen)) == 3


@pytest.mark.parametrize("kind", [TrainKind.SCENE, TrainKind.CLOTH])
def test_scenes_have_one_recipe(kind: TrainKind) -> None:
    scene = spec_for(kind, Family.EMBEDDED, "Harbour", Path("base"), "boats")
    assert with_preset(scene, Preset.BALANCED) == scene
    assert (scene.optim.schedule, scene.optim.loraplus_ratio) == (RateSchedule.CONSTANT, 1.0)
    assert (scene.optim.face_weight, scene.optim.warmup) == (1.0, 0.0)
    with pytest.raises(SpecError, match="best is for people"):
        with_preset(scene, Preset.BEST)


def test_the_command_line_lays_what_is_said_over_the_preset() -> None:
    settings = Settings.from_env()
    told = parser().parse_args(["train", "x.jpg", "--person", "Anna", "--preset", "fast", "--max-steps", "7"])
    spec, fast = _spec(told, settings), preset(Family.EMBEDDED, Preset.FAST)
    assert spec.optim.max_steps == 7
    assert spec.optim.loraplus_ratio == fast.optim.loraplus_ratio
    assert spec.validate == fast.validate
    plain = _spec(parser().parse_args(["train", "x.jpg", "--person", "Anna"]), settings)
    assert plain.optim == preset(Family.EMBEDDED, Preset.BALANCED).optim


def test_a_preset_that_there_is_none_of_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "x.jpg", "--person", "Anna", "--preset", "great"])
    assert ended.value.code == 2
    assert "fast" in capsys.readouterr().err


def test_a_request_may_name_a_preset_and_settings_besides(rig: Rig) -> None:
    answer = rig.mine.post("/people", json=body(settings={"preset": "best", "optim": {"max_steps": 9}}))
    assert answer.status_code == 202, answer.text
    order = rig.service.store.order(answer.json()["id"])
    assert isinstance(order, TrainOrder)
    best = preset(Family.EMBEDDED, Preset.BEST)
    assert (order.spec.optim.max_steps, order.spec.optim.batch_size) == (9, best.optim.batch_size)
    assert order.spec.validate == best.validate


@pytest.mark.parametrize("wrong", ["great", 5, ["fast"], {}])
def test_a_request_with_another_preset_is_refused_by_its_field(rig: Rig, wrong: object) -> None:
    assert "settings.preset" in fields_of(rig.mine.post("/people", json=body(settings={"preset": wrong})))


def test_the_tabs_radio_sets_the_controls_and_the_order(tmp_path: Path) -> None:
    studio, page = make_studio(tmp_path / "home"), TrainPage()
    desk = Desks.for_studio(studio).train
    desk.upload({"train_page": page}, photos(tmp_path / "up"))
    shown = desk.choose_model(train_values(page, train_preset="Best"))
    best = preset(Family.EMBEDDED, Preset.BEST)
    assert shown["train_batch_size"] == best.optim.batch_size
    assert shown["train_every"] == best.validate.every
    desk.start({**train_values(page, train_preset="Best"), **{name: v for name, v in shown.items() if name != "train_notice"}})
    [job] = studio.store.list()
    order = studio.store.order(job.id)
    assert isinstance(order, TrainOrder)
    assert order.spec.optim == best.optim
    scene = desk.choose_kind(train_values(page, train_kind="Scene", train_preset="Best"))
    assert scene["train_preset"] == Change(visible=False)
    assert scene["train_batch_size"] == 4

