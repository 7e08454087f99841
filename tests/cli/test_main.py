"""The command line: what people type, what comes back, which status programs see."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from easyphoto import __version__
from easyphoto.cli.main import main, parser
from easyphoto.cli.making import portrait_order
from easyphoto.errors import NotFound
from easyphoto.extras import IdControl, SuperResolution
from easyphoto.jobs.store import JobStore
from easyphoto.orders import PortraitOrder
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import PassRequest
from easyphoto.work import JobState


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(words)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "easyphoto", "--version"], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT
    )
    assert done.stdout == f"easyphoto {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, easyphoto.cli.main as m; m.parser(); print({*sys.modules} & {'torch', 'diffusers', 'mediapipe'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT)
    assert done.stdout == "set()\n"


def test_nobody_is_said_in_words_and_as_an_empty_list(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(capsys, "people", "list", "--home", str(tmp_path))
    assert (status, "nobody yet" in out) == (0, True)
    status, out, _ = run(capsys, "people", "list", "--home", str(tmp_path), "--json")
    assert (status, json.loads(out)) == (0, [])


@pytest.mark.parametrize("verb", ["show", "delete"])
def test_an_unknown_person_is_status_3(capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str) -> None:
    status, _, err = run(capsys, "people", verb, "阿梅", "--home", str(tmp_path))
    assert status == 3
    assert err.startswith("easyphoto: ")
    assert "阿梅" in err


def test_a_portrait_of_nobody_known_is_status_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(
        capsys, "portrait", "--person", "Nobody", "--template", "t.jpg", "--home", str(tmp_path), "--json"
    )
    assert status == 3
    failed = json.loads(out)
    assert (failed["kind"], failed["code"]) == ("failed", "not_found")


@pytest.mark.parametrize("name", ["", "  ", "../x", "a/b", "a\\b", "x" * 300])
def test_a_name_that_cannot_be_one_is_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_text("no picture")
    status, _, err = run(capsys, "train", str(photo), "--person", name, "--home", str(tmp_path / "home"))
    assert status == 2
    assert "name" in err
    assert not (tmp_path / "home").exists()


def test_photos_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "train", str(tmp_path / "none"), "--person", "Ada", "--home", str(tmp_path))
    assert status in {2, 3}
    assert "none" in err


def test_a_setting_out_of_range_is_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "train", str(tmp_path), "--person", "Ada", "--rank", "0", "--home", str(tmp_path))
    assert (status, "rank" in err) == (2, True)


def test_the_doctor_finds_everything_the_default_path_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(capsys, "doctor", "--json", "--home", str(tmp_path))
    findings = {finding["name"]: finding for finding in json.loads(out)}
    missing = [name for name, finding in findings.items() if finding["needed"] and not finding["ok"]]
    assert (status, missing) == (0, [])
    assert findings["ControlNets"]["found"] == "canny, openpose, color, tile"


def test_the_doctor_names_what_is_missing_and_the_remedy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(capsys, "doctor", "--home", str(tmp_path), "--base-model", str(tmp_path / "nowhere"))
    assert status == 5
    assert "NO  base model" in out
    assert "--base-model" in out


def test_faces_can_be_left_between_people() -> None:
    words = ["portrait", "--person", "A", "--leave-face", "--person", "B", "--template", "t.jpg"]
    assert parser().parse_args(words).people == ["A", None, "B"]


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [
        ((), PassRequest(), PassRequest()),
        (("--first-strength", "0.45"), PassRequest(strength=0.45), PassRequest()),
        (("--first-steps", "9", "--second-strength", "0.3"), PassRequest(steps=9), PassRequest(strength=0.3)),
        (("--second-steps", "20", "--no-second-pass"), PassRequest(), None),
    ],
)
def test_only_what_was_typed_is_asked_of_a_pass(
    words: tuple[str, ...], first: PassRequest, second: PassRequest | None
) -> None:
    typed = parser().parse_args(["portrait", "--person", "Ada", "--template", "t.png", *words])
    order = portrait_order(typed, (Path("t.png"),))
    assert (order.first, order.second) == (first, second)
    assert (order.guidance, order.people, order.stages) == (None, ("Ada",), False)


def test_further_steps_are_off_unless_they_are_typed() -> None:
    typed = ["portrait", "--person", "Ada", "--template", "t.png"]
    plain = portrait_order(parser().parse_args(typed), (Path("t.png"),))
    assert plain == PortraitOrder(templates=(Path("t.png"),), people=("Ada",))
    words = (
        "--makeup", "0.4", "--retouch", "1", "--background", "0.3", "--face-shape-match", "--no-crop-face", "--lcm",
        "--super-resolution", "--no-color-shift-last",
    )  # fmt: skip
    order = portrait_order(parser().parse_args([*typed, *words]), (Path("t.png"),))
    assert (order.makeup, order.retouch, order.background, order.face_shape_match) == (0.4, 1, 0.3, True)
    assert (order.crop_face, order.lcm, order.super_resolution) == (False, True, SuperResolution())
    assert (order.color_shift_first, order.color_shift_last) == (True, False)
    named = ["--super-resolution", "lanczos", "--super-resolution-ratio", "0.9"]
    order = portrait_order(parser().parse_args([*typed, *named]), (Path("t.png"),))
    assert order.super_resolution == SuperResolution(way="lanczos", ratio=0.9)
    held = portrait_order(parser().parse_args([*typed, "--id-control", "--id-weight", "0.6"]), (Path("t.png"),))
    assert (held.id_control, held.id_picture) == (IdControl(weight=0.6), None)


def test_the_id_control_takes_a_picture_that_is_there_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.png").write_bytes(b"")
    typed = ["portrait", "--template", str(tmp_path / "t.png"), "--home", str(tmp_path)]
    assert main([*typed, "--id-control", str(tmp_path / "me.png")]) == NotFound.exit_status
    assert "me.png does not exist" in capsys.readouterr().err


def test_interrupting_a_training_is_status_130_and_publishes_nothing(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in (PROJECT_ROOT / "models" / "sample-people" / "woman").glob("0[0-2].jpg"):
        (photos / path.name).write_bytes(path.read_bytes())
    home = tmp_path / "home"
    words = [sys.executable, "-m", "easyphoto", "train", str(photos), "--person", "Ada", "--home", str(home), "--json"]
    with subprocess.Popen(words, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        lines = iter(child.stdout.readline, "")
        next(line for line in lines if json.loads(line).get("stage") == "training")
        child.send_signal(signal.SIGINT)
        last = json.loads(list(lines)[-1])
        assert child.wait(60) == 130
    assert (last["kind"], last["code"]) == ("failed", "cancelled")
    assert not list(home.glob("people/*/person.json"))
    with closing(JobStore(home)) as store:
        assert [job.state for job in store.list()] == [JobState.CANCELLED]
