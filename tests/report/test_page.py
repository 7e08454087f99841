"""The page: everything in one file, everything said, nothing executable from outside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from easyphoto.families import Family
from easyphoto.imaging.io import save_png
from easyphoto.records import Box, Face, Photo, PhotoScores, PreparedPhoto, PreparedSet, Reason, Verdict
from easyphoto.report.chart import score_chart
from easyphoto.report.page import PersonReport, PortraitEntry, RunFacts, write_page
from easyphoto.specs import CheckpointScore, FaceOutcome, Person, PortraitResult, TrainResult

NAME = "<script>alert(1)</script> 阿梅 🙂"


def photo(name: str, value: int) -> Photo:
    return Photo(pixels=np.full((64, 64, 3), value, np.uint8), name=name)


@pytest.fixture()
def report(tmp_path: Path) -> PersonReport:
    picture = tmp_path / "v.png"
    save_png(picture, photo("v", 90).pixels)
    landmarks = np.array([[20, 20], [40, 20], [30, 30], [22, 42], [38, 42]], np.float32)
    face = Face(box=Box(left=10, top=10, right=50, bottom=50), score=1.0, landmarks=landmarks)
    good = Verdict(photo="a.jpg", accepted=True, reason=Reason.GOOD, sentence="Sharp & frontal.", is_reference=True,
                   scores=PhotoScores(identity=0.71, sharpness=0.5, frontality=0.9))
    bad = Verdict(photo="b.jpg", accepted=False, reason=Reason.UNREADABLE, sentence="Not a picture.")
    prepared = PreparedSet(
        photos=(PreparedPhoto(name="a.jpg", original=photo("a", 10), crop=photo("a", 20), face=face, scores=good.scores),),
        verdicts=(good, bad), reference=0, embedding=np.zeros(128, np.float32), warnings=("Only one photo.",),
    )
    marks = tuple(CheckpointScore(step=step, score=score, pictures=(picture,), picture_scores=(score,), merged=merged)
                  for step, score, merged in ((50, 0.3, False), (100, 0.5, False), (100, 0.55, True)))
    training = TrainResult(lora=tmp_path / "l", steps=100, photos=1, checkpoints=marks, chosen=2, face_id_picture=None,
                           seconds=61.0, losses=(0.3, 0.2, 0.1))
    person = Person(name=NAME, person_id="x", folder=tmp_path, family=Family.EMBEDDED, lora=tmp_path, reference=tmp_path,
                    face_id_picture=tmp_path, embedding=(), created="2026-01-01T00:00:00Z", score=0.55)
    stages = tuple((stage, photo(stage, 40)) for stage in ("original", "fused", "first pass", "second pass", "result"))
    result = PortraitResult(picture=photo("p", 50), changed=photo("m", 0), seed=7, infotext="Steps: 5, Seed: 7",
                            faces=(FaceOutcome(person=NAME, similarity=0.53, stages=stages),), seconds=(("first pass", 1.0),))
    entry = PortraitEntry(template_name="garden", template=photo("t", 60), result=result)
    return PersonReport(person=person, photos=(photo("a.jpg", 10), None), prepared=prepared, training=training,
                        portraits=(entry,))  # fmt: skip


@pytest.fixture()
def page(report: PersonReport, tmp_path: Path) -> str:
    path = tmp_path / "index.html"
    write_page(path, report, RunFacts(command="make demo", machine="test", version="0", seconds=(("all", 1.0),)))
    return path.read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)


def test_names_are_text_and_never_markup(page: str) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 阿梅 🙂" in page


def test_every_photo_has_its_verdict_and_every_stage_its_picture(page: str) -> None:
    for words in ("Sharp &amp; frontal.", "Not a picture.", "cannot be read", "Only one photo.", "same person"):
        assert words in page
    for stage in ("original", "fused", "first pass", "second pass", "result"):
        assert f"<figcaption>{stage}</figcaption>" in page
    assert page.count('class="row chosen"') == 1
    assert "Steps: 5, Seed: 7" in page


def test_the_chart_puts_better_scores_higher(report: PersonReport) -> None:
    svg = score_chart(report.training.checkpoints, 2, report.training.losses).split("<p ", 1)[0]
    circles = [node for node in ET.fromstring(svg) if node.tag == "circle"]  # noqa: S314 (our own text)
    heights = [float(node.attrib["cy"]) for node in circles]
    assert heights[0] > heights[1] > heights[2]
    assert circles[2].attrib["class"] == "merged chosen"


def test_the_chart_stands_without_losses_and_with_equal_scores(report: PersonReport) -> None:
    marks = report.training.checkpoints[:1]
    assert "nan" not in score_chart(marks, 0, ())
