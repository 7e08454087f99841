"""The tabs without a browser: what each control does, and that nobody's words become HTML."""

from __future__ import annotations

import copy
import json
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from easyphoto.errors import StorageError
from easyphoto.events import Event
from easyphoto.families import Family
from easyphoto.imaging.io import encode_png
from easyphoto.jobs.folders import now
from easyphoto.jobs.turns import WAITING
from easyphoto.settings import PROJECT_ROOT
from easyphoto.ui.desk import NOBODY, Change
from easyphoto.ui.history_desk import HistoryPage
from easyphoto.ui.knobs import SWITCHED_ON, portrait_defaults, train_defaults
from easyphoto.ui.people_desk import PeoplePage
from easyphoto.ui.portrait_desk import BATCH, GALLERY, PEOPLE, SINGLE, UPSCALERS, PortraitPage
from easyphoto.ui.studio import BaseModel, Studio
from easyphoto.ui.tab_desks import Desks
from easyphoto.ui.train_desk import TrainPage
from easyphoto.work import Failure, JobResult, JobState
from tests.ui.made import claim, finish, finish_portraits, photos, publish, say, verdict

EVIL = '<script>alert("x")</script>'


class _Reader(HTMLParser):
    """Fails on what would run."""

    def handle_starttag(self, tag, attrs) -> None:
        assert tag not in ("script", "iframe", "object", "style", "link"), tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert "javascript:" not in (value or "")


def harmless(values: dict) -> None:
    """All that is shown as HTML; what is shown as text needs no care."""
    for name, value in values.items():
        if isinstance(value, str) and name != "people_name":
            _Reader().feed(value)


@pytest.fixture
def desks(studio: Studio) -> Desks:
    return Desks.for_studio(studio)


def train_values(page: TrainPage, name: str = "Anna", **said):
    knobs = {f"train_{key}": value for key, value in train_defaults(Family.EMBEDDED).items()}
    rest = {
        "train_page": page, "train_name": name, "train_model": "base-256", "train_take": "[]", "train_retouch": True,
        "train_replace": False, "train_validation": True, "train_consent": "", "train_kind": "Person", "train_prompt": "",
        "train_preset": "Balanced",
    }  # fmt: skip
    return {**knobs, **rest, **said}


def portrait_values(page: PortraitPage, *people: str, **said):
    knobs = {f"portrait_{key}": value for key, value in portrait_defaults(Family.EMBEDDED).items()}
    chosen = dict(zip(PEOPLE, (*people, *[NOBODY] * 5)))
    rest = {
        "portrait_page": page, "portrait_source": GALLERY, "portrait_chosen": '["studio-woman"]', "portrait_upload": (),
        "portrait_batch": (), "portrait_stages": True,
        **{f"portrait_{name}": on for name, on in SWITCHED_ON.items()},
    }  # fmt: skip
    return {**knobs, **chosen, **rest, **said}


def train_page(desks: Desks, folder: Path) -> TrainPage:
    page = TrainPage()
    desks.train.upload({"train_page": page}, photos(folder))
    return page


def check_result(studio: Studio, job, *verdicts) -> JobResult:
    return JobResult(id=job.id, kind=job.kind, owner="local", created=now(), verdicts=verdicts)


def test_each_page_has_a_memory_of_its_own_and_events_of_one_share_it() -> None:
    first = TrainPage()
    second = copy.deepcopy(first)
    first.photos = (Path("a"),)
    assert second.photos == ()
    assert first.token != second.token


def test_photos_are_checked_and_the_checking_leaves_nothing_behind(studio, desks, tmp_path) -> None:
    page = train_page(desks, tmp_path / "photos")
    begun = desks.train.check(train_values(page, ""))
    assert 'data-easyphoto-poll="easyphoto_train_poll"' in begun["train_checked"]
    assert begun["train_check"] == Change(interactive=False)
    (job,) = studio.store.list()
    finish(studio, job, check_result(studio, job, verdict("00.jpg", reference=True), verdict("01.jpg", accepted=False)))
    shown = desks.train.poll({"train_page": page})
    assert "easyphoto-reference" in shown["train_photos"]
    assert shown["train_photos"].count("data-easyphoto-list") == 1
    assert "1 of 2 photos are good to train on." in shown["train_checked"]
    assert shown["train_check"] == Change(interactive=True)
    assert studio.store.list() == studio.store.results() == ()


def test_a_check_that_fails_says_why(studio, desks, tmp_path) -> None:
    page = train_page(desks, tmp_path / "photos")
    desks.train.check(train_values(page))
    finish(studio, studio.store.list()[0], failure=Failure(code="bad_photo", sentence="no photo shows a face"))
    assert "no photo shows a face" in desks.train.poll({"train_page": page})["train_checked"]


def test_a_training_is_followed_to_its_end(studio, desks, tmp_path) -> None:
    page = train_page(desks, tmp_path / "photos")
    begun = desks.train.start(train_values(page))
    assert begun["train_notice"] == ""
    assert "It is the next one." in begun["train_live"]
    assert begun["train_start"] == Change(interactive=False)
    (job,) = studio.store.list()
    claim(studio, job)
    (studio.store.folder(job.id) / "preview-1-0001.png").write_bytes(encode_png(_grey()))
    say(
        studio, job, Event(kind="progress", stage="training", step=10, total=40, loss=0.5, seconds_left=120),
        Event(kind="sample", stage="validating", step=10, path="preview-1-0001.png", score=0.43),
    )  # fmt: skip
    shown = desks.train.poll({"train_page": page})
    assert "step 10 of 40" in shown["train_live"]
    assert "about 2 min left" in shown["train_live"]
    assert "0.43" in shown["train_samples"]
    assert "data:image/jpeg" in shown["train_samples"]
    again = desks.train.poll({"train_page": page})
    assert "train_samples" not in again
    studio.stop(job.id)
    assert "stopping" in desks.train.poll({"train_page": page})["train_live"]


def _grey():
    import numpy as np

    return np.full((8, 8, 3), 99, np.uint8)


def test_a_page_opened_anew_shows_the_training_that_runs(studio, desks, tmp_path) -> None:
    desks.train.start(train_values(train_page(desks, tmp_path / "photos")))
    shown = desks.train.poll({"train_page": TrainPage()})
    assert "It is the next one." in shown["train_live"]
    assert shown["train_stop"] == Change(visible=True)


def test_a_page_opened_later_offers_the_base_models_of_then(studio, desks, tmp_path, monkeypatch) -> None:
    assert "train_model" not in desks.train.poll({"train_page": TrainPage()})
    assert set(desks.portrait.refresh({"portrait_page": PortraitPage()})) == {*PEOPLE, UPSCALERS}
    models = [BaseModel(id=name, family=Family(kind), path=tmp_path) for name, kind in
              (("mine", "sd15"), ("large", "sdxl"), ("small", "embedded"), ("other", "sd15"))]  # fmt: skip
    monkeypatch.setattr(studio, "models", lambda: tuple(models))
    shown = desks.train.poll({"train_page": TrainPage()})
    labels = ["mine (SD1.5)", "small (embedded)", "other (SD1.5)", "large (SDXL)"]
    assert shown["train_model"] == Change(choices=labels, value=labels[0])
    assert shown["train_rank"] == 128
    assert studio.model("large (SDXL)").family is Family.SDXL
    page = PortraitPage()
    assert desks.portrait.refresh({"portrait_page": page})["portrait_first_steps"] == 50
    assert set(desks.portrait.refresh({"portrait_page": page})) == {*PEOPLE, UPSCALERS}


def test_the_settings_are_those_of_the_persons_family_and_stay_as_they_were_filled_in(studio, desks, monkeypatch) -> None:
    publish(studio, "Anna")
    publish(studio, "Ben")
    desks.portrait.generate(portrait_values(PortraitPage(), "Anna", portrait_first_steps=33))
    result = finish_portraits(studio, studio.store.list()[0], "studio-woman.jpg", ["Anna"])
    model = replace(studio.model(), family=Family.SD15)
    monkeypatch.setattr(studio, "models", lambda: (model,))
    page, nobody = PortraitPage(), dict.fromkeys(PEOPLE, NOBODY)
    assert desks.portrait.refresh({"portrait_page": page, **nobody})["portrait_first_steps"] == 50
    chosen = {"portrait_page": page, **nobody, PEOPLE[0]: "Anna"}
    assert desks.portrait.choose_person(chosen)["portrait_first_steps"] == 40
    assert desks.portrait.choose_person(chosen) == {}
    page.family = Family.SD15
    assert desks.portrait.use_again({"portrait_page": page}, f"{result.id}.0")["portrait_first_steps"] == 33
    assert "portrait_first_steps" not in desks.portrait.refresh(chosen)


def test_who_waits_for_the_graphics_card_is_told_so(studio, desks, tmp_path) -> None:
    page = train_page(desks, tmp_path / "photos")
    desks.train.start(train_values(page))
    (job,) = studio.store.list()
    claim(studio, job)
    say(studio, job, Event(kind="progress", stage=WAITING))
    assert "busy with another job" in desks.train.poll({"train_page": page})["train_live"]


def test_stop_resume_and_a_failure(studio, desks, tmp_path) -> None:
    page = train_page(desks, tmp_path / "photos")
    desks.train.start(train_values(page))
    stopped = desks.train.stop({"train_page": page})
    assert "Stopped, because you asked." in stopped["train_live"]
    assert stopped["train_start"] == Change(interactive=True)
    desks.train.resume({"train_page": page})
    assert len(studio.store.list()) == 2
    finish(studio, studio.store.list()[0], failure=Failure(code="storage", sentence="the disk is full", log_tail=("the end",)))
    shown = desks.train.poll({"train_page": page})
    assert "the disk is full" in shown["train_live"]
    assert "the end" in shown["train_log"]


def test_a_mistake_in_the_form_is_a_sentence_and_no_job(studio, desks, tmp_path) -> None:
    page = train_page(desks, tmp_path / "photos")
    for said in ({"train_name": "../x"}, {"train_rank": None}, {"train_take": "{}"}, {"train_name": "a" * 10_000_000}):
        assert "easyphoto-error" in desks.train.start(train_values(page, **said))["train_notice"]
    assert "no photos" in desks.train.start(train_values(TrainPage()))["train_notice"]
    assert "no picture among" in desks.train.upload({"train_page": page}, [tmp_path / "x.exe"])["train_notice"]
    assert studio.store.list() == ()


def test_a_full_disk_is_a_sentence(studio, desks, tmp_path, monkeypatch) -> None:
    page = train_page(desks, tmp_path / "photos")

    def full(*_: object) -> None:
        raise StorageError("the disk is full; free some space")

    monkeypatch.setattr(studio.store, "submit", full)
    assert "the disk is full" in desks.train.start(train_values(page))["train_notice"]
    monkeypatch.setattr(studio.store, "submit", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    assert "Input/output error" in desks.train.start(train_values(page))["train_notice"]


def test_the_faces_of_every_template_are_shown_and_each_can_have_a_person(studio, desks, tmp_path) -> None:
    pair = _side_by_side(tmp_path)
    chosen = portrait_values(PortraitPage(), portrait_source=BATCH, portrait_batch=(pair, photos(tmp_path / "p", 1)[0]))
    shown = desks.portrait.templates(chosen)
    assert shown["portrait_faces"].count("<figure>") == 2
    assert "No face was found" in shown["portrait_faces"]
    assert [shown[name].fields["visible"] for name in PEOPLE] == [True, True, False, False, False]


def _side_by_side(folder: Path) -> Path:
    import numpy as np
    from PIL import Image

    pictures = [Image.open(PROJECT_ROOT / "templates" / f"studio-{who}.jpg").resize((384, 384)) for who in ("man", "woman")]
    Image.fromarray(np.hstack([np.asarray(picture.convert("RGB")) for picture in pictures])).save(folder / "pair.png")
    return folder / "pair.png"


def test_portraits_are_followed_to_their_end_and_looked_at(studio, desks) -> None:
    publish(studio, "Anna")
    page = PortraitPage()
    begun = desks.portrait.generate(portrait_values(page, "Anna"))
    assert begun["portrait_generate"] == Change(interactive=False)
    (job,) = studio.store.list()
    result = finish_portraits(studio, job, "studio-woman.jpg", ["Anna"], 0.61)
    shown = desks.portrait.poll({"portrait_page": page})
    assert "0.61" in shown["portrait_results"]
    assert "same person" in shown["portrait_results"]
    assert "easyphoto-compare" in shown["portrait_compare"]
    assert "Steps: 5, Seed: 7" in shown["portrait_facts"]
    assert shown["portrait_strip"].count("<figure>") == 5
    saved = desks.portrait.save({"portrait_page": page})["portrait_saved"]
    assert 'download="001-studio-woman-7.png"' in saved
    picture, infotext = desks.portrait.to_send(page)
    assert picture.shape == (48, 36, 3)
    assert infotext == "Steps: 5, Seed: 7"
    chosen = desks.portrait.choose({"portrait_page": page, "portrait_picked": f"{result.id}.0#3"})
    assert "easyphoto-compare" in chosen["portrait_compare"]
    assert desks.portrait.choose({"portrait_page": page, "portrait_picked": EVIL})["portrait_notice"] == ""


def test_an_own_template_is_compared_with_while_the_page_is_open(studio, desks, tmp_path) -> None:
    publish(studio, "Anna")
    page = PortraitPage()
    own = photos(tmp_path / "own", 1)[0]
    begun = desks.portrait.generate(portrait_values(page, "Anna", portrait_source=SINGLE, portrait_upload=(own,)))
    assert begun["portrait_notice"] == ""
    finish_portraits(studio, studio.store.list()[0], own.name, ["Anna"])
    assert "easyphoto-compare" in desks.portrait.poll({"portrait_page": page})["portrait_compare"]


def test_people_who_were_trained_since_are_offered(studio, desks) -> None:
    publish(studio, "Anna")
    shown = desks.portrait.refresh({"portrait_page": PortraitPage(), **dict.fromkeys(PEOPLE, NOBODY)})
    assert shown[PEOPLE[0]] == Change(choices=[NOBODY, "Anna"], value="Anna")
    assert shown[PEOPLE[1]] == Change(choices=[NOBODY, "Anna"], value=NOBODY)
    publish(studio, "Ben")
    shown = desks.portrait.refresh({"portrait_page": PortraitPage(), **dict.fromkeys(PEOPLE, "Ben")})
    assert shown[PEOPLE[4]] == Change(choices=[NOBODY, "Anna", "Ben"], value="Ben")
    assert desks.portrait.use_person({"portrait_page": PortraitPage()}, "Ben")[PEOPLE[0]].fields["value"] == "Ben"
    assert "not there any more" in desks.portrait.use_person({"portrait_page": PortraitPage()}, "Zoe")["portrait_notice"]


def test_an_earlier_portrait_fills_the_form_in_again(studio, desks) -> None:
    publish(studio, "Anna")
    said = {
        "portrait_makeup": True, "portrait_makeup_ratio": 0.8, "portrait_super_resolution": True, "portrait_crop_face": False,
    }  # fmt: skip
    way = {"portrait_super_resolution_way": "lanczos", "portrait_fusion_after": False}
    desks.portrait.generate(
        portrait_values(PortraitPage(), "Anna", portrait_prompt="rain", portrait_second=False, **said, **way)
    )
    result = finish_portraits(studio, studio.store.list()[0], "studio-woman.jpg", ["Anna"])
    filled = desks.portrait.use_again({"portrait_page": PortraitPage()}, f"{result.id}.0")
    assert filled[PEOPLE[0]].fields["value"] == "Anna"
    assert (filled["portrait_prompt"], filled["portrait_seed"], filled["portrait_second"]) == ("rain", 7, False)
    assert {name: filled[name] for name in said} == said
    assert filled["portrait_super_resolution_way"].fields["value"] == "lanczos"
    assert (filled["portrait_fusion_after"], filled["portrait_fuse_after"]) == (False, 0.9)
    assert (filled["portrait_background"], filled["portrait_background_strength"]) == (False, 0.2)
    assert json.loads(filled["portrait_chosen"]) == ["studio-woman"]
    assert " checked" in filled["portrait_gallery"]


def test_lcm_puts_steps_and_guidance_to_its_own_and_back(studio, desks) -> None:
    page = PortraitPage()
    page.family = Family.SD15
    fast = desks.portrait.accelerate({"portrait_page": page, "portrait_lcm": True})
    assert fast == {
        "portrait_first_steps": 12, "portrait_first_strength": 0.5, "portrait_second_steps": 8, "portrait_guidance": 2.0,
    }  # fmt: skip
    back = desks.portrait.accelerate({"portrait_page": page, "portrait_lcm": False})
    assert {name: portrait_defaults(Family.SD15)[name.removeprefix("portrait_")] for name in fast} == back


def test_a_control_grows_with_what_was_ordered_elsewhere(studio, desks) -> None:
    publish(studio, "Anna")
    desks.portrait.generate(portrait_values(PortraitPage(), "Anna", portrait_count=60, portrait_lora_weight=1.5))
    result = finish_portraits(studio, studio.store.list()[0], "studio-woman.jpg", ["Anna"])
    filled = desks.portrait.use_again({"portrait_page": PortraitPage()}, f"{result.id}.0")
    assert filled["portrait_count"] == Change(value=60, minimum=1, maximum=60.0)
    assert filled["portrait_lora_weight"] == Change(value=1.5, minimum=0, maximum=1.5)
    assert filled["portrait_first_steps"] == 40


def test_people_are_renamed_exported_deleted_and_taken_in_again(studio, desks, tmp_path) -> None:
    person = publish(studio, "Anna")
    page = PeoplePage()
    shown = desks.people.choose({"people_page": page, "people_chosen": f"{person.person_id}#1"})
    assert shown["people_tools"] == Change(visible=True)
    renamed = desks.people.rename({"people_page": page, "people_name": "Anja"})
    assert "Renamed." in renamed["people_notice"]
    assert [one.name for one in studio.people()] == ["Anja"]
    parcel = Path(desks.people.export({"people_page": page})["people_parcel"].fields["value"])
    kept = tmp_path / "kept.zip"
    kept.write_bytes(parcel.read_bytes())
    asked = desks.people.ask({"people_page": page})
    assert asked["people_confirm"] == Change(visible=True)
    assert desks.people.keep({"people_page": page})["people_confirm"] == Change(visible=False)
    gone = desks.people.delete({"people_page": page, "people_with_results": True})
    assert "Deleted:" in gone["people_notice"]
    assert studio.people() == ()
    assert not parcel.exists()
    assert "Imported." in desks.people.take_in({"people_page": page}, [kept])["people_notice"]
    assert [one.name for one in studio.people()] == ["Anja"]


def test_nobody_chosen_is_a_sentence(studio, desks) -> None:
    page = PeoplePage()
    for act in (desks.people.rename, desks.people.export, desks.people.ask, desks.people.delete):
        said = act({"people_page": page, "people_name": "x", "people_with_results": True})
        assert "nobody is chosen" in said["people_notice"]
    assert "no file came" in desks.people.take_in({"people_page": page}, [])["people_notice"]


def test_history_is_narrowed_looked_at_and_deleted(studio, desks) -> None:
    publish(studio, "Anna")
    publish(studio, "Ben")
    for name in ("Anna", "Ben"):
        desks.portrait.generate(portrait_values(PortraitPage(), name))
        finish_portraits(studio, studio.store.list()[0], "studio-woman.jpg", [name])
    page = HistoryPage()
    values = {"history_page": page, "history_person": NOBODY, "history_template": NOBODY}
    assert desks.history.refresh(values)["history_list"].count("<button") == 2
    narrowed = desks.history.narrow({**values, "history_person": "Ben"})
    assert narrowed["history_list"].count("<button") == 1
    key = narrowed["history_list"].split('data-value="')[1].split('"')[0]
    looked = desks.history.choose({**values, "history_picked": f"{key}#1"})
    assert looked["history_use"] == Change(visible=True)
    assert "download=" in desks.history.save({"history_page": page})["history_saved"]
    assert desks.history.ask({"history_page": page})["history_confirm"] == Change(visible=True)
    assert desks.history.delete(values)["history_list"].count("<button") == 1
    assert "no picture is chosen" in desks.history.ask({"history_page": page})["history_notice"]


def test_nobodys_words_become_html(studio, desks, tmp_path) -> None:
    publish(studio, EVIL.replace("/", ""))
    name = studio.people()[0].name
    hostile = tmp_path / '"><img src=x onerror=alert(1)>.jpg'
    hostile.write_bytes(photos(tmp_path / "p", 1)[0].read_bytes())
    train, portrait, people, history = TrainPage(), PortraitPage(), PeoplePage(), HistoryPage()
    harmless(desks.train.upload({"train_page": train}, [hostile]))
    harmless(desks.train.start(train_values(train, "Eve <b onclick=x>", train_consent=EVIL)))
    finish(studio, studio.store.list()[0], failure=Failure(code="x", sentence=EVIL, log_tail=(EVIL,)))
    harmless(desks.train.poll({"train_page": train}))
    harmless(desks.portrait.templates(portrait_values(portrait, portrait_source=SINGLE, portrait_upload=(hostile,))))
    harmless(desks.portrait.templates(portrait_values(portrait, portrait_chosen=json.dumps([EVIL]))))
    harmless(desks.portrait.generate(portrait_values(portrait, name, portrait_prompt=EVIL)))
    finish_portraits(studio, studio.store.list()[0], f"{EVIL.replace('/', '')}.jpg", [name])
    harmless(desks.portrait.poll({"portrait_page": portrait}))
    harmless(desks.people.choose({"people_page": people, "people_chosen": studio.people()[0].person_id}))
    harmless(desks.people.ask({"people_page": people}))
    harmless(desks.people.rename({"people_page": people, "people_name": EVIL}))
    harmless(desks.history.refresh({"history_page": history, "history_person": EVIL, "history_template": EVIL}))


def test_overlapping_events_of_one_page_lose_nothing(studio, desks, tmp_path) -> None:
    page = train_page(desks, tmp_path / "photos")
    starts = [threading.Thread(target=desks.train.start, args=(train_values(page),)) for _ in range(10)]
    polls = [threading.Thread(target=desks.train.poll, args=({"train_page": page},)) for _ in range(10)]
    for thread in (*starts, *polls):
        thread.start()
    for thread in (*starts, *polls):
        thread.join()
    (job,) = studio.store.list()
    assert page.job == job.id
    assert job.state is JobState.QUEUED
