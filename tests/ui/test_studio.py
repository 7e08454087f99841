from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from easyphoto.errors import Conflict, InputError, NameRefused, NotFound, SpecError
from easyphoto.events import Event
from easyphoto.extras import IdControl
from easyphoto.families import Family
from easyphoto.orders import PortraitOrder, TrainOrder
from easyphoto.ui import history
from easyphoto.ui.knobs import SWITCHED_ON, portrait_defaults, train_defaults
from easyphoto.ui.ordering import PortraitForm, TrainForm, check_order, form_of, portrait_order, train_order
from easyphoto.ui.studio import Studio
from easyphoto.work import Failure, JobKind, JobState
from tests.ui.made import claim, finish, finish_portraits, make_studio, photos, publish, say


def train_form(folder: Path, name: str = "Anna", **said) -> TrainForm:
    return TrainForm(**{"name": name, "photos": photos(folder), "values": train_defaults(Family.EMBEDDED), **said})


def portrait_form(*people: str, **said) -> PortraitForm:
    values = {**portrait_defaults(Family.EMBEDDED), **said.pop("values", {})}
    return PortraitForm(**{"people": people, "values": values, "gallery": ("studio-woman",), **said})


def portraits(studio: Studio, *people: str, page: str = "", **said):
    return studio.submit(*portrait_order(studio, portrait_form(*people, **said)), page)


def test_a_form_becomes_the_order_it_says(studio: Studio, tmp_path: Path) -> None:
    form = train_form(tmp_path / "photos", take=("01.jpg",), retouch=False, validation=False, consent="Anna herself")
    order, inputs = train_order(studio, form)
    assert [item.name for item in inputs] == ["0000/00.jpg", "0001/01.jpg", "0002/02.jpg"]
    assert order.spec.person == "Anna"
    assert order.spec.family is Family.EMBEDDED
    assert order.spec.validate.every == 0
    assert (order.take, order.retouch) == (("01.jpg",), False)
    assert order.consent is not None
    assert order.consent.given_by == "Anna herself"
    job = studio.submit(order, inputs)
    assert studio.order(job.id) == order
    assert all((studio.store.folder(job.id) / path).is_file() for path in order.photos)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"name": ""}, NameRefused, 'field "Name"'),
        ({"name": "../../etc"}, NameRefused, "slash"),
        ({"name": "x" * 65}, NameRefused, "64 characters"),
        ({"photos": ()}, InputError, "no photos"),
        ({"model": "none of ours"}, NotFound, "base model"),
        ({"values": {**train_defaults(Family.EMBEDDED), "alpha": 64}}, SpecError, "alpha"),
        ({"values": {**train_defaults(Family.EMBEDDED), "size": 200}}, SpecError, "multiple of 32"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_there_is_a_job(studio, tmp_path, said, error, words) -> None:
    with pytest.raises(error, match=words):
        train_order(studio, train_form(tmp_path / "photos", **said))


def test_a_person_is_trained_again_only_when_that_is_said(studio: Studio, tmp_path: Path) -> None:
    publish(studio, "Anna")
    with pytest.raises(InputError, match="Train again and replace"):
        train_order(studio, train_form(tmp_path / "photos", "anna"))
    assert train_order(studio, train_form(tmp_path / "photos", "anna", replace=True))[0].replace


def test_faces_beyond_the_last_person_are_left_out_of_the_order(studio: Studio) -> None:
    publish(studio, "Anna")
    order, _ = portrait_order(studio, portrait_form("", "Anna", "", "", ""))
    assert order.people == (None, "Anna")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"people": ("", "")}, "nobody is chosen"),
        ({"people": ("Bob",)}, "has not been trained"),
        ({"gallery": ()}, "no template"),
        ({"gallery": ("../secret",)}, "no template"),
        ({"values": {"seed": 2**32}}, "Seed"),
        ({"values": {"seed": -2}}, "Seed"),
        ({"values": {"first_strength": 7}}, "strength"),
        ({"values": {"count": 65}}, "count"),
    ],
)
def test_what_cannot_be_made_is_refused_before_there_is_a_job(studio: Studio, said, words: str) -> None:
    publish(studio, "Anna")
    people = said.pop("people", ("Anna",))
    with pytest.raises((InputError, NotFound), match=words):
        portrait_order(studio, portrait_form(*people, **said))


def test_an_upload_that_is_no_picture_is_refused(studio: Studio, tmp_path: Path) -> None:
    publish(studio, "Anna")
    fake = tmp_path / "fake.jpg"
    fake.write_text("<script>alert(1)</script>")
    with pytest.raises(InputError, match=r"fake\.jpg"):
        portrait_order(studio, portrait_form("Anna", gallery=(), uploads=(fake,)))


def test_a_seed_of_minus_one_is_another_each_time(studio: Studio) -> None:
    publish(studio, "Anna")
    drawn = {portrait_order(studio, portrait_form("Anna"))[0].seed for _ in range(8)}
    assert len(drawn) == 8


def test_the_id_controls_picture_is_handed_in_behind_the_templates(studio: Studio, tmp_path: Path) -> None:
    publish(studio, "Anna")
    own, mine = photos(tmp_path / "own", 2)
    switches = {**SWITCHED_ON, "id_control": True}
    form = portrait_form("Anna", uploads=(own,), id_picture=mine, values={"id_weight": 0.7}, switches=switches)
    order, inputs = portrait_order(studio, form)
    assert order.id_control == IdControl(weight=0.7)
    assert [path.name for path in order.templates][-1] == own.name
    assert order.id_picture == Path("inputs", inputs[-1].name)
    assert order.id_picture.name == mine.name
    assert form_of(studio, order).switches["id_control"]
    off, handed = portrait_order(studio, replace(form, switches=SWITCHED_ON))
    assert (off.id_control, off.id_picture, len(handed)) == (None, None, 1)


def test_a_form_comes_back_from_its_order(studio: Studio) -> None:
    publish(studio, "Anna")
    values = {"seed": 11, "prompt": "rain", "fuse_before": 0.25, "retouch_ratio": 0.3, "face_shape_match": True}
    switches = {**SWITCHED_ON, "second": False, "retouch": True, "fusion_after": False}
    wanted = portrait_form("", "Anna", values=values, switches=switches, stages=False)
    order, _ = portrait_order(studio, wanted)
    assert (order.second, order.fuse_before, order.fuse_after, order.retouch) == (None, 0.25, 0, 0.3)
    assert (order.makeup, order.background, order.super_resolution) == (0, 0, None)
    assert order.face_shape_match
    found = form_of(studio, order)
    assert found.people == ("", "Anna")
    assert {**found.values, "second_strength": 0, "second_steps": 0} == {
        **wanted.values, "second_strength": 0, "second_steps": 0,
    }  # fmt: skip
    assert (found.gallery, found.switches, found.stages) == (("studio-woman",), switches, False)
    assert form_of(studio, order, seed=99).values["seed"] == 99


def test_twenty_clicks_at_once_make_one_job_and_another_page_its_own(studio: Studio) -> None:
    publish(studio, "Anna")
    clicks = [threading.Thread(target=portraits, args=(studio, "Anna"), kwargs={"page": "one"}) for _ in range(20)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    portraits(studio, "Anna", page="two")
    assert len(studio.store.list()) == 2
    first = studio.store.list()[1]
    studio.stop(first.id)
    assert portraits(studio, "Anna", page="one").id != first.id


def test_a_page_opened_anew_finds_what_is_under_way(studio: Studio) -> None:
    publish(studio, "Anna")
    assert studio.current(JobKind.PORTRAITS) is None
    first, second = (portraits(studio, "Anna") for _ in range(2))
    claim(studio, first)
    assert studio.current(JobKind.PORTRAITS).id == first.id
    assert studio.view(second.id).before == 1
    finish(studio, second)
    assert studio.current(JobKind.PORTRAITS).id == first.id
    assert studio.current(JobKind.TRAINING) is None


def test_what_another_owner_has_cannot_be_seen(studio: Studio, tmp_path: Path) -> None:
    publish(studio, "Anna")
    job = portraits(studio, "Anna")
    finish_portraits(studio, job, "studio-woman.jpg", ["Anna"])
    other = make_studio(tmp_path / "home", "somebody")
    assert other.people() == ()
    for look in (other.view, other.job, other.order, other.stop, lambda key: history.entry(other, f"{key}.0")):
        with pytest.raises(NotFound):
            look(job.id)
    assert history.shelf(other).entries == ()
    other.store.close()


@pytest.mark.parametrize("name", ["../order.json", "/etc/passwd", "..", "", "inputs/0000/00.jpg", "link.png"])
def test_a_page_gets_no_file_but_the_jobs_own(studio: Studio, name: str, tmp_path: Path) -> None:
    publish(studio, "Anna")
    job = portraits(studio, "Anna")
    (studio.store.folder(job.id) / "link.png").symlink_to("/etc/hostname")
    with pytest.raises(NotFound):
        studio.file(job.id, name)


@pytest.mark.parametrize("key", ["", ".", "x.0", "0123456789abcdef.0", "../../x.0"])
def test_a_picture_that_nobody_made_is_not_found(studio: Studio, key: str) -> None:
    with pytest.raises(NotFound):
        history.entry(studio, key)


def test_a_number_beyond_the_pictures_is_not_found(studio: Studio) -> None:
    publish(studio, "Anna")
    result = finish_portraits(studio, portraits(studio, "Anna"), "studio-woman.jpg", ["Anna"])
    for number in ("1", "-1", "²", "99999999999999999999"):
        with pytest.raises(NotFound):
            history.entry(studio, f"{result.id}.{number}")
    assert history.entry(studio, f"{result.id}.0").picture.seed == 7


def test_a_training_that_was_stopped_goes_on_with_its_own_photos(studio: Studio, tmp_path: Path) -> None:
    job = studio.submit(*train_order(studio, train_form(tmp_path / "photos")))
    with pytest.raises(Conflict, match="stop it first"):
        studio.resume(job.id)
    studio.stop(job.id)
    again = studio.resume(job.id)
    order = studio.order(again.id)
    assert isinstance(order, TrainOrder)
    assert order.resume
    assert all((studio.store.folder(again.id) / path).is_file() for path in order.photos)


def test_a_training_whose_photos_are_gone_says_so(studio: Studio, tmp_path: Path) -> None:
    order, inputs = train_order(studio, train_form(tmp_path / "photos"))
    job = studio.submit(order, inputs)
    studio.stop(job.id)
    (studio.store.folder(job.id) / order.photos[0]).unlink()
    with pytest.raises(NotFound, match="hand them in again"):
        studio.resume(job.id)


def test_a_view_has_the_failure_and_the_story(studio: Studio) -> None:
    publish(studio, "Anna")
    job = portraits(studio, "Anna")
    say(studio, job, Event(kind="progress", stage="first pass", step=3, total=10))
    finish(studio, job, failure=Failure(code="bad_template", sentence="No face."))
    view = studio.view(job.id)
    assert view.job.state is JobState.FAILED
    assert (view.story.stage, view.story.step, view.under_way, view.can_resume) == ("first pass", 3, False, False)


def test_history_is_by_person_and_by_template_newest_first(studio: Studio) -> None:
    publish(studio, "Anna")
    publish(studio, "Ben")
    for name, template in (("Anna", "studio-woman"), ("Ben", "studio-man"), ("Anna", "studio-man")):
        finish_portraits(studio, portraits(studio, name, gallery=(template,)), f"{template}.jpg", [name])
    assert [entry.picture.template for entry in history.shelf(studio).entries] == [
        "studio-man.jpg", "studio-man.jpg", "studio-woman.jpg",
    ]  # fmt: skip
    assert len(history.shelf(studio, "Anna").entries) == 2
    assert len(history.shelf(studio, "Anna", "studio-man.jpg").entries) == 1
    assert history.shelf(studio, count=2).more
    assert history.template_names(studio) == ("studio-man.jpg", "studio-woman.jpg")


def test_before_and_after_is_the_template_else_the_faces_square(studio: Studio, tmp_path: Path) -> None:
    publish(studio, "Anna")
    result = finish_portraits(studio, portraits(studio, "Anna"), "studio-woman.jpg", ["Anna"])
    entry = history.entries_of(result)[0]
    before, after = history.before(studio, entry)
    assert before == studio.app.settings.templates / "studio-woman.jpg"
    assert after.suffix == ".png"
    own = photos(tmp_path / "own", 1)[0]
    job = portraits(studio, "Anna", gallery=(), uploads=(own,))
    uploaded = history.entries_of(finish_portraits(studio, job, own.name, ["Anna"]))[0]
    assert history.before(studio, uploaded, {own.name: own})[0] == own
    assert [path.stem[-8:] for path in history.before(studio, uploaded)] == ["original", "0-result"]


def test_what_is_deleted_from_history_leaves_nothing(studio: Studio) -> None:
    publish(studio, "Anna")
    job = portraits(studio, "Anna")
    result = finish_portraits(studio, job, "studio-woman.jpg", ["Anna"])
    history.delete(studio, history.entries_of(result)[0])
    assert history.shelf(studio).entries == ()
    home = studio.app.home.root
    assert not [path for path in home.rglob("*") if job.id in str(path)]


def test_a_person_goes_with_uploads_and_exported_files(studio: Studio, tmp_path: Path) -> None:
    person = publish(studio, "Anna")
    copies = photos(tmp_path / "uploads" / "one")
    twin, other = tmp_path / "uploads" / "two" / "00.jpg", tmp_path / "uploads" / "three" / "00.jpg"
    for path, source in ((twin, copies[0]), (other, copies[1])):
        path.parent.mkdir()
        path.write_bytes(source.read_bytes())
    studio.note_copies("ANNA", copies)
    erased = studio.erase("Anna", results=True)
    assert erased.removed
    assert not person.folder.exists()
    assert not any(path.exists() for path in (*copies, twin))
    assert other.exists()


def test_checking_photos_asks_for_no_name(studio: Studio, tmp_path: Path) -> None:
    order, inputs = check_order(train_form(tmp_path / "photos", name=""))
    assert studio.submit(order, inputs).person is None
    with pytest.raises(InputError, match="no photos"):
        check_order(train_form(tmp_path / "none", photos=()))


def test_a_gallery_that_is_not_there_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYPHOTO_TEMPLATES", str(tmp_path / "nowhere"))
    from dataclasses import replace

    made = make_studio(tmp_path / "home")
    made.app.settings = replace(made.app.settings, templates=tmp_path / "nowhere")
    assert made.templates() == ()
    made.store.close()


def test_every_base_model_of_a_folder_is_offered_the_own_one_first(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "models" / "junk").mkdir(parents=True)
    studio._models = tmp_path / "models"
    (model,) = studio.models()
    assert (model.id, model.family) == ("base-256", Family.EMBEDDED)
    assert studio.model() == studio.model("base-256") == studio.model(model.label) == model
    (tmp_path / "models" / "mine").mkdir()
    (tmp_path / "models" / "mine" / "portraits").symlink_to(model.path)
    (tmp_path / "models" / "vae.safetensors").write_bytes(b"no checkpoint")
    assert [found.id for found in studio.models()] == ["base-256", "mine/portraits"]
    assert studio.labels() == ("base-256 (embedded)", "mine/portraits (embedded)")


def test_an_order_of_portraits_is_what_was_chosen(studio: Studio) -> None:
    publish(studio, "Anna")
    order, inputs = portrait_order(studio, portrait_form("Anna", gallery=("studio-man", "studio-woman")))
    assert isinstance(order, PortraitOrder)
    assert [path.name for path in order.templates] == ["studio-man.jpg", "studio-woman.jpg"]
    assert inputs == ()
