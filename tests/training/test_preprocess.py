"""Every photo gets its verdict, the right face is taken, and what comes out is ready for training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from easyphoto.errors import NotFound, PhotoError, SpecError
from easyphoto.events import Event
from easyphoto.faces.embed import distance
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import geometry, masks, mesh
from easyphoto.imaging.io import load_photo, save_jpeg, save_png
from easyphoto.records import Photo, PreparedSet, Reason, Verdict
from easyphoto.training.preprocess import NoUsablePhoto, PrepareOptions, prepare, read_prepared, write_prepared

Change = Callable[[Photo, FaceTools], np.ndarray]


def photos_of(folder: Path, person: str, count: int) -> list[Path]:
    return sorted((folder / f"person_{person}").glob("*.jpg"))[:count]


def verdict_of(result: PreparedSet, name: str) -> Verdict:
    (verdict,) = [verdict for verdict in result.verdicts if verdict.photo == name]
    return verdict


@pytest.fixture(scope="module")
def good(shared_people: Path, tools: FaceTools) -> PreparedSet:
    """Six photos of one person, prepared."""
    return prepare(photos_of(shared_people, "d", 8), tools)


def test_every_photo_of_real_people_is_taken(shared_people: Path, tools: FaceTools) -> None:
    """40 news photos of four people, some with strangers beside them: at most one of 10 is left out."""
    for person in "abcd":
        result = prepare(photos_of(shared_people, person, 20)[1::2], tools)
        assert len(result.verdicts) == 10
        assert len(result.photos) >= 9, [v.sentence for v in result.verdicts if not v.accepted]
        for item in result.photos:
            assert abs(item.face.landmarks[2] - item.crop.width / 2).max() < 0.25 * item.crop.width


def test_crops_are_upright_square_on_white_and_carry_their_face(good: PreparedSet, tools: FaceTools) -> None:
    for item in good.photos:
        assert item.crop.pixels.shape == (256, 256, 3)
        assert abs(np.degrees(geometry.roll_of(item.face))) < 0.5
        assert max(item.face.box.width, item.face.box.height) == pytest.approx(256 / 1.8, rel=0.03)
        assert item.face.embedding is not None
        assert item.face.mesh is not None
        assert (item.crop.pixels == 255).all(2).mean() > 0.05
        found = min(tools.faces(item.crop), key=lambda face: abs(face.box.center[0] - 128))
        assert found.mesh is not None
        away = np.linalg.norm(found.mesh - item.face.mesh, axis=1)[list(mesh.OVAL)]
        assert np.median(away) < 0.04 * item.face.box.width


def test_verdicts_come_in_order_with_scores_and_one_reference(good: PreparedSet, shared_people: Path) -> None:
    assert [verdict.photo for verdict in good.verdicts] == [path.name for path in photos_of(shared_people, "d", 8)]
    assert sum(verdict.is_reference for verdict in good.verdicts) == 1
    best = max(
        good.photos,
        key=lambda item: item.scores.frontality * item.scores.identity * item.scores.sharpness,  # type: ignore[operator]
    )
    assert good.photos[good.reference] is best
    assert verdict_of(good, best.name).is_reference
    for verdict in good.verdicts:
        assert verdict.sentence
        assert verdict.scores.face_px is not None
        assert 0 < (verdict.scores.sharpness or 0) < 1


def test_another_person_is_left_out(shared_people: Path, tools: FaceTools) -> None:
    paths = photos_of(shared_people, "c", 3) + photos_of(shared_people, "a", 10)
    result = prepare(paths, tools)
    assert [verdict.reason for verdict in result.verdicts[:3]] == [Reason.OTHER_PERSON] * 3
    assert sum(verdict.accepted for verdict in result.verdicts[3:]) >= 9
    assert result.warnings == ()


def test_the_face_in_a_group_is_chosen_by_identity(
    shared_people: Path, shared_portraits: Path, tools: FaceTools, tmp_path: Path
) -> None:
    """The person stands at the right, smaller than the stranger at the left."""
    paths = photos_of(shared_people, "b", 4)
    stranger = cv2.resize(load_photo(shared_portraits / "m33.jpg").pixels, (500, 500), interpolation=cv2.INTER_AREA)
    own = load_photo(shared_people / "person_b" / "07.jpg").pixels
    own = np.concatenate([own, np.zeros((250, 250, 3), np.uint8)], axis=0)
    save_png(tmp_path / "group.png", np.concatenate([stranger, own], axis=1))
    result = prepare([*paths, tmp_path / "group.png"], tools)
    verdict = verdict_of(result, "group.png")
    assert verdict.accepted
    assert verdict.scores.faces == 2
    (item,) = [item for item in result.photos if item.name == "group.png"]
    assert item.face.embedding is not None
    assert distance(item.face.embedding, result.embedding) < 0.5


def _small(photo: Photo, tools: FaceTools) -> np.ndarray:
    tiny = cv2.resize(photo.pixels, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    canvas = np.full((250, 250, 3), 90, np.uint8)
    canvas[80 : 80 + tiny.shape[0], 80 : 80 + tiny.shape[1]] = tiny
    return canvas


def _blurred(photo: Photo, tools: FaceTools) -> np.ndarray:
    return cv2.GaussianBlur(photo.pixels, (0, 0), 4.5)


def _moved(photo: Photo, tools: FaceTools) -> np.ndarray:
    kernel = np.zeros((15, 15), np.float32)
    kernel[7] = 1 / 15
    return cv2.filter2D(photo.pixels, -1, kernel)


def _painted(photo: Photo, tools: FaceTools, top: int, bottom: int) -> np.ndarray:
    face = min(tools.faces(photo), key=lambda one: abs(one.box.center[0] - 125))
    assert face.mesh is not None
    pixels, box = photo.pixels.copy(), face.box
    rows = slice(int(face.mesh[top, 1]), int(face.mesh[bottom, 1]))
    pixels[rows, int(box.left) : int(box.right)] = (60, 90, 140)
    return pixels


def _no_eyes(photo: Photo, tools: FaceTools) -> np.ndarray:
    return _painted(photo, tools, 70, 50)


def _no_mouth(photo: Photo, tools: FaceTools) -> np.ndarray:
    return _painted(photo, tools, 4, 152)


def _nobody(photo: Photo, tools: FaceTools) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (250, 250, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_small, Reason.TOO_SMALL), (_blurred, Reason.BLURRED), (_moved, Reason.BLURRED), (_no_eyes, Reason.COVERED),
     (_no_mouth, Reason.COVERED), (_nobody, Reason.NO_FACE)],
)  # fmt: skip
def test_each_fault_has_its_reason(
    shared_people: Path, tools: FaceTools, tmp_path: Path, change: Change, reason: Reason
) -> None:
    for person, number in (("a", 9), ("b", 8), ("d", 10)):
        paths = [path for path in photos_of(shared_people, person, 6) if path.stem != f"{number:02d}"]
        bad = tmp_path / f"bad {person}.png"
        save_png(bad, change(load_photo(shared_people / f"person_{person}" / f"{number:02d}.jpg"), tools))
        result = prepare([*paths, bad], tools)
        verdict = verdict_of(result, bad.name)
        assert (verdict.accepted, verdict.reason) == (False, reason), verdict.sentence
        assert len(verdict.sentence) > 20
        assert len(result.photos) == len(paths)


def test_a_copy_is_a_duplicate_and_the_better_one_stays(shared_people: Path, tools: FaceTools, tmp_path: Path) -> None:
    paths = photos_of(shared_people, "a", 5)
    original = load_photo(paths[2])
    shrunk = cv2.resize(original.pixels, (180, 180), interpolation=cv2.INTER_AREA)
    save_jpeg(tmp_path / "copy.jpg", shrunk, 60)
    save_jpeg(tmp_path / "mirrored.jpg", np.ascontiguousarray(original.pixels[:, ::-1]), 80)
    shutil.copy(paths[2], tmp_path / "exact.jpg")
    result = prepare([tmp_path / "copy.jpg", *paths, tmp_path / "exact.jpg", tmp_path / "mirrored.jpg"], tools)
    for name in ("copy.jpg", "exact.jpg", "mirrored.jpg"):
        assert verdict_of(result, name).reason is Reason.DUPLICATE
        assert paths[2].name in verdict_of(result, name).sentence
    assert len(result.photos) == 5


def test_what_is_taken_by_name_is_taken(shared_people: Path, tools: FaceTools, tmp_path: Path) -> None:
    paths = photos_of(shared_people, "d", 4)
    save_png(tmp_path / "soft.png", _blurred(load_photo(shared_people / "person_d" / "10.jpg"), tools))
    save_png(tmp_path / "wall.png", _nobody(load_photo(paths[0]), tools))
    other = photos_of(shared_people, "a", 8)[7]
    options = PrepareOptions(override=frozenset({"soft.png", "wall.png", other.name}))
    result = prepare([*paths, tmp_path / "soft.png", tmp_path / "wall.png", other], tools, options)
    assert verdict_of(result, "soft.png").reason is Reason.OVERRIDDEN
    assert verdict_of(result, other.name).reason is Reason.OVERRIDDEN
    assert "another person" in verdict_of(result, other.name).sentence
    assert verdict_of(result, "wall.png").reason is Reason.NO_FACE  # there is nothing to take
    assert len(result.photos) == 6


def test_unreadable_files_are_told_and_the_rest_goes_on(shared_people: Path, tools: FaceTools, tmp_path: Path) -> None:
    text, cut = tmp_path / "text.jpg", tmp_path / "cut.jpg"
    text.write_text("hello")
    paths = photos_of(shared_people, "d", 2)
    cut.write_bytes(paths[0].read_bytes()[:3000])
    result = prepare([text, paths[0], cut, paths[1], tmp_path / "gone.jpg"], tools)
    reasons = [verdict.reason for verdict in result.verdicts]
    assert reasons == [Reason.UNREADABLE, Reason.GOOD, Reason.UNREADABLE, Reason.GOOD, Reason.UNREADABLE]
    assert "no picture" in result.verdicts[0].sentence
    assert "Only 2 photos" in result.warnings[0]


def test_one_photo_is_enough_with_a_warning(shared_people: Path, tools: FaceTools) -> None:
    result = prepare(photos_of(shared_people, "a", 1), tools)
    assert len(result.photos) == 1
    assert result.verdicts[0].is_reference
    assert "one photo" in result.warnings[0]


def test_no_usable_photo_says_why(shared_people: Path, tools: FaceTools, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no photos were given"):
        prepare([], tools)
    (tmp_path / "a.jpg").write_text("x")
    save_png(tmp_path / "b.png", _nobody(load_photo(photos_of(shared_people, "a", 1)[0]), tools))
    with pytest.raises(NoUsablePhoto, match=r"1 cannot be read, 1 no face") as refused:
        prepare([tmp_path / "a.jpg", tmp_path / "b.png"], tools)
    assert [verdict.reason for verdict in refused.value.verdicts] == [Reason.UNREADABLE, Reason.NO_FACE]
    with pytest.raises(PhotoError, match="No face was found in b"):
        prepare([tmp_path / "b.png"], tools)


def test_photos_of_different_people_are_refused(shared_people: Path, tools: FaceTools) -> None:
    paths = [photos_of(shared_people, person, 1)[0] for person in "abcd"]
    with pytest.raises(NoUsablePhoto, match="different people") as refused:
        prepare(paths, tools)
    assert [verdict.accepted for verdict in refused.value.verdicts] == [False] * 4
    assert refused.value.verdicts[0].reason is Reason.OTHER_PERSON
    assert refused.value.verdicts[0].sentence.startswith("No two faces are alike; take photos of one person")


def test_no_more_photos_than_asked(shared_people: Path, tools: FaceTools) -> None:
    result = prepare(photos_of(shared_people, "d", 6), tools, PrepareOptions(max_photos=4))
    assert len(result.photos) == 4
    assert [verdict.reason for verdict in result.verdicts].count(Reason.SURPLUS) == 2


def test_size_and_ratio_are_the_familys(shared_people: Path, tools: FaceTools) -> None:
    result = prepare(photos_of(shared_people, "d", 1), tools, PrepareOptions(size=512, crop_ratio=3.0, retouch=False))
    item = result.photos[0]
    assert item.crop.pixels.shape == (512, 512, 3)
    assert max(item.face.box.width, item.face.box.height) == pytest.approx(512 / 3, rel=0.03)
    with pytest.raises(SpecError, match="size"):
        PrepareOptions(size=1)


def test_strangers_and_what_lies_beyond_the_photo_become_white(shared_people: Path, tools: FaceTools) -> None:
    """A neighbour's head ends in the crop; the crop reaches below the photo."""
    paths = [shared_people / "person_d" / f"{number:02d}.jpg" for number in (6, 18, 10)]
    result = prepare(paths, tools)
    below = next(item for item in result.photos if item.name == "18.jpg")
    assert (below.crop.pixels[-8:, 100:156] > 250).mean() > 0.95
    for item in result.photos:
        assert all(face.box.width < 0.5 * item.face.box.width or _same_place(face.box.center, item.face.box.center)
                   for face in tools.faces(item.crop))  # fmt: skip


def _same_place(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return float(np.hypot(first[0] - second[0], first[1] - second[1])) < 20


def test_the_face_itself_is_kept(good: PreparedSet) -> None:
    """White never eats into the face: its outline holds hardly any white."""
    for item in good.photos:
        inside = masks.erode(masks.face_mask(item.face, (256, 256)), 3) > 0.5
        assert (item.crop.pixels[inside] == 255).all(1).mean() < 0.02


def test_each_picture_is_looked_at_once(shared_people: Path) -> None:
    tools = FaceTools()
    events: list[Event] = []
    prepare(photos_of(shared_people, "d", 3), tools, PrepareOptions(listener=events.append))
    assert tools.detections == 3
    told = [(event.stage, event.step, event.total) for event in events]
    assert told == [(stage, step, 3) for stage in ("checking photos", "preparing photos") for step in (1, 2, 3)]
    tools.close()


def test_written_sets_come_back_to_the_bit(good: PreparedSet, tmp_path: Path) -> None:
    folder = tmp_path / "photos 照片"
    write_prepared(good, folder)
    back = read_prepared(folder)
    assert back.verdicts == good.verdicts
    assert back.reference == good.reference
    assert (back.embedding == good.embedding).all()
    for first, second in zip(good.photos, back.photos, strict=True):
        assert (first.crop.pixels == second.crop.pixels).all()
        assert (first.original.pixels == second.original.pixels).all()
        assert first.scores == second.scores
        assert first.face.box == second.face.box
        for name in ("landmarks", "mesh", "depth", "embedding"):
            assert (getattr(first.face, name) == getattr(second.face, name)).all()
        assert second.face.body is None


def test_broken_sets_are_refused(good: PreparedSet, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="prepare them again"):
        read_prepared(tmp_path)
    write_prepared(good, tmp_path)
    index = json.loads((tmp_path / "set.json").read_text(encoding="utf-8"))
    index["reference"] = "first"
    (tmp_path / "set.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(PhotoError, match="broken"):
        read_prepared(tmp_path)
    write_prepared(good, tmp_path)
    (tmp_path / "arrays.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(PhotoError, match="broken"):
        read_prepared(tmp_path)
