"""Scenes: pictures judged without faces, trained in a real child process, published on a shelf of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from easyphoto.errors import SpecError
from easyphoto.events import Event
from easyphoto.faces.tools import FaceTools
from easyphoto.families import Family
from easyphoto.imaging.io import load_photo, save_png
from easyphoto.kinds import spec_for
from easyphoto.records import Pixels, PreparedSet, Reason, TrainKind
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, TrainSpec, ValidateSpec
from easyphoto.store.lora_file import read_lora
from easyphoto.store.lora_meta import scene_prompts, spec_of
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
from easyphoto.training.dataset import training_crops
from easyphoto.training.launch import LaunchOptions, train
from easyphoto.training.prepared_files import read_prepared, write_prepared
from easyphoto.training.preprocess import NoUsablePhoto
from easyphoto.training.scenes import SceneOptions, prepare_scene


def picture(width: int, height: int, seed: int = 0) -> Pixels:
    """Sharp blocks of colour, another picture for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]


@pytest.fixture(scope="session")
def tools() -> FaceTools:
    return FaceTools()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        save_png(tmp_path / f"{number}.png", picture(160, 96, number))
    return tmp_path


def options(**said) -> SceneOptions:
    return SceneOptions(**{"size": 64, **said})


def test_pictures_without_any_face_are_taken_whole(folder: Path, tools: FaceTools) -> None:
    prepared = prepare_scene(sorted(folder.iterdir()), tools, options(crop_ratio=3.0, captions=("a", "b", "c")))
    assert [verdict.reason for verdict in prepared.verdicts] == [Reason.GOOD] * 3
    assert [photo.caption for photo in prepared.photos] == ["a", "b", "c"]
    assert all(photo.face is None for photo in prepared.photos)
    assert prepared.embedding.shape == (0,)
    first = prepared.photos[0].crop
    assert first.width / first.height == pytest.approx(160 / 96, rel=0.02)


def test_small_blurred_broken_and_double_pictures_are_left_out_and_told(folder: Path, tools: FaceTools) -> None:
    save_png(folder / "3.png", picture(24, 24, 3))
    save_png(folder / "4.png", cv2.GaussianBlur(picture(160, 96, 4), (0, 0), 9))
    (folder / "5.png").write_bytes(b"no picture")
    save_png(folder / "6.png", picture(160, 96, 1))
    paths = sorted(folder.iterdir())
    prepared = prepare_scene(paths, tools, options())
    reasons = {verdict.photo: verdict.reason for verdict in prepared.verdicts}
    assert [reasons[f"{number}.png"] for number in (3, 4, 5, 6)] == [
        Reason.SMALL_PICTURE, Reason.BLURRED, Reason.UNREADABLE, Reason.DUPLICATE,
    ]  # fmt: skip
    assert len(prepared.photos) == 3
    overridden = prepare_scene(paths, tools, options(override=frozenset({"3.png", "5.png"})))
    assert [photo.name for photo in overridden.photos] == ["0.png", "1.png", "2.png", "3.png"]
    with pytest.raises(NoUsablePhoto, match="blurred everywhere"):
        prepare_scene([folder / "4.png"], tools, options())


def test_a_photo_is_upright_by_its_exif(tmp_path: Path, tools: FaceTools) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(160, 96)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    [photo] = prepare_scene([tmp_path / "turned.jpg"], tools, options()).photos
    assert photo.crop.height > photo.crop.width


def test_the_crop_ratio_keeps_a_square_around_a_face_and_below_one_the_picture(sample_people: Path, tools: FaceTools) -> None:
    path = sorted((sample_people / "woman").glob("*.jpg"))[0]
    whole, around = (
        prepare_scene([path], tools, options(size=256, crop_ratio=ratio)).photos[0].crop for ratio in (0.9, 1.5)
    )
    own = load_photo(path)
    assert whole.width / whole.height == pytest.approx(own.width / own.height, rel=0.02)
    assert around.width == around.height
    [near], [far] = tools.faces(around)[:1], tools.faces(whole)[:1]
    assert near.box.width / around.width > far.box.width / whole.width
    assert near.box.width / around.width == pytest.approx(1 / 1.5, abs=0.2)


def test_a_garment_stands_whole_on_white_where_its_picture_is_transparent(tmp_path: Path, tools: FaceTools) -> None:
    pixels = np.dstack([picture(96, 160), np.zeros((160, 96), np.uint8)])
    pixels[40:120, 20:70, 3] = 255
    Image.fromarray(pixels, "RGBA").save(tmp_path / "shirt.png")
    [photo] = prepare_scene([tmp_path / "shirt.png"], tools, options(kind=TrainKind.CLOTH)).photos
    crop = photo.crop.pixels
    assert crop.shape[0] == crop.shape[1]
    scale = crop.shape[0] / 160
    assert (crop[: round(38 * scale)] == 255).all()
    assert (crop[:, : round((32 + 18) * scale)] == 255).all()
    assert (crop[round(60 * scale) : round(100 * scale), round(60 * scale) : round(90 * scale)] < 255).any()
    spec = spec_for(TrainKind.CLOTH, Family.EMBEDDED, "shirt", tmp_path)
    assert len(list(training_crops(photo, spec, 0))) == 1, "neither other crops nor its mirror image"


def test_crops_of_a_wide_picture_come_from_all_over_it_and_the_first_from_its_middle(folder: Path, tools: FaceTools) -> None:
    wide = np.zeros((96, 960, 3), np.uint8)
    wide[..., 0] = np.linspace(0, 255, 960).astype(np.uint8)
    wide[::7] ^= 60
    save_png(folder / "wide.png", wide)
    [photo] = prepare_scene([folder / "wide.png"], tools, options()).photos
    spec = TrainSpec(person="x", base_model=folder, kind=TrainKind.SCENE, data=DataSpec(size=64, flip=False, crops=16))
    means = [float(crop[..., 0].mean()) for crop in training_crops(photo, spec, 0)]
    assert means[0] == pytest.approx(float(wide[..., 0].mean()), abs=4)
    assert max(means) - min(means) > 80


def test_a_prepared_scene_comes_back_from_the_disk(folder: Path, tools: FaceTools, tmp_path: Path) -> None:
    prepared = prepare_scene(sorted(folder.glob("*.png")), tools, options(captions=("a", "", "c")))
    write_prepared(prepared, tmp_path / "set")
    again = read_prepared(tmp_path / "set")
    assert [(photo.name, photo.caption, photo.face) for photo in again.photos] == [
        (photo.name, photo.caption, None) for photo in prepared.photos
    ]
    assert all((one.crop.pixels == two.crop.pixels).all() for one, two in zip(prepared.photos, again.photos))


def scene_spec(base: Path, **said) -> TrainSpec:
    return TrainSpec(
        person="Harbour", base_model=base, family=Family.EMBEDDED, kind=TrainKind.SCENE, device="cpu",
        lora=LoraSpec(rank=2, alpha=1.0), data=DataSpec(size=64, crops=1, caption="a harbour, special_scene, scene"),
        optim=OptimSpec(learning_rate=1e-2, text_learning_rate=1e-2, steps_per_photo=2, max_steps=4, batch_size=2),
        validate=ValidateSpec(every=2, steps=2), **said,
    )  # fmt: skip


@pytest.fixture
def prepared_scene(folder: Path, tools: FaceTools) -> PreparedSet:
    return prepare_scene(sorted(folder.glob("?.png")), tools, options(captions=("red", "blue's", "")))


@pytest.fixture
def shelf(tmp_path: Path) -> PeopleStore:
    return PeopleStore(Home(tmp_path / "home").make().shelf(TrainKind.SCENE))


def test_a_scene_is_trained_in_a_child_process_looked_at_and_published_on_its_own_shelf(
    tiny_base: Path, prepared_scene: PreparedSet, shelf: PeopleStore
) -> None:
    told: list[Event] = []
    spec = scene_spec(tiny_base)
    result = train(spec, prepared_scene, shelf, LaunchOptions(listener=told.append))
    assert (result.steps, result.photos, result.chosen, result.checkpoints) == (4, 3, -1, ())
    looks = [event for event in told if event.kind == "sample"]
    assert [event.step for event in looks] == [2, 4]
    assert all(event.score is None for event in looks)
    file = read_lora(result.lora)
    assert file.metadata["ep_lora_version"] == "scene"
    assert file.metadata["ep_prompt"] == "['red', 'blue\u2019s', 'a harbour, special_scene, scene']"
    assert spec_of(file) == spec

    scene = shelf.publish(spec, prepared_scene, result)
    assert (scene.kind, scene.prompt, scene.photos, scene.embedding) == (TrainKind.SCENE, "red", 3, ())
    assert scene.folder.parent.name == "scenes"
    assert load_photo(scene.face_id_picture).width == 64
    assert PeopleStore(Home(shelf.home.root)).list() == (), "a scene is no person"
    renamed = shelf.rename("Harbour", "Quay")
    assert read_lora(renamed.lora).metadata["ss_output_name"] == "Quay"
    assert scene_prompts(read_lora(renamed.lora).metadata) == ("red", "blue\u2019s", "a harbour, special_scene, scene")
    assert shelf.delete("Quay")
    assert list(shelf.home.people.glob("[!.]*")) == []
    assert list(shelf.home.jobs.iterdir()) == []


def test_captions_decide_what_a_scene_learns(tiny_base: Path, prepared_scene: PreparedSet, shelf: PeopleStore) -> None:
    spec = replace(scene_spec(tiny_base), validate=ValidateSpec(every=0))
    first = train(spec, prepared_scene, shelf)
    photos = tuple(replace(photo, caption="something else") for photo in prepared_scene.photos)
    other = train(spec, replace(prepared_scene, photos=photos), shelf)
    assert first.losses != other.losses
    assert first.face_id_picture is None, "nobody wanted to look"


def test_a_person_is_not_cropped_as_a_scene() -> None:
    with pytest.raises(SpecError, match="crop_ratio is for scenes"):
        TrainSpec(person="Anna", base_model=Path("x"), data=DataSpec(crop_ratio=3.0))


def test_each_kind_has_its_own_defaults_on_each_family(tmp_path: Path) -> None:
    scene = spec_for(TrainKind.SCENE, Family.SD15, "x", tmp_path, " old   harbour, ")
    assert (scene.data.size, scene.lora.rank, scene.lora.alpha) == (768, 256, 128)
    assert scene.data.caption == "old harbour, special_scene, scene"
    assert not spec_for(TrainKind.SCENE, Family.SDXL, "x", tmp_path).lora.text_encoder
    for family in Family:
        assert spec_for(TrainKind.PERSON, family, "x", tmp_path) == TrainSpec.for_family("x", tmp_path, family)
        cloth = spec_for(TrainKind.CLOTH, family, "x", tmp_path)
        assert (cloth.kind, cloth.data.flip, cloth.data.crops) == (TrainKind.CLOTH, False, 0)
