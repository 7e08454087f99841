"""What somebody might send to the tabs on purpose: as the desks get it, as raw events, and as a page in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from easyphoto.ui.history_desk import HistoryPage
from easyphoto.ui.options import script, style
from easyphoto.ui.people_desk import PeoplePage
from easyphoto.ui.portrait_desk import PortraitPage
from easyphoto.ui.tab_desks import Desks
from tests.ui.made import publish
from tests.ui.serving import CHROMIUM, awake, browsing, opened, serving, tab
from tests.ui.test_desks import portrait_values, train_page, train_values

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = {
    "up": "../../etc/passwd", "up on Windows": "..\\..\\boot.ini", "from the root": "/etc/passwd", "dots": "..",
    "list": '["../../etc/passwd"]', "object": '{"a": 1}', "deep": "[" * 100_000, "10 MB": "a" * 10_000_000,
    "script": "<script>alert(1)</script>", "zero": "a\0b", "none": None, "number": 7,
}  # fmt: skip
GOOD_NAMES = ("<script>alert(1)</script>", '{"a": 1}')
"""Strange, but no harm to anybody."""
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_page_sends_becomes_a_sentence_and_touches_nothing(studio, tmp_path: Path, said: object) -> None:
    publish(studio, "Anna")
    desks = Desks.for_studio(studio)
    train, portrait, people, history = train_page(desks, tmp_path / "photos"), PortraitPage(), PeoplePage(), HistoryPage()
    people.chosen = studio.people()[0].person_id
    before = sorted(path for path in tmp_path.rglob("*") if "queue" not in path.parts)
    past = {"history_page": history, "history_person": said, "history_template": said, "history_picked": said}
    answers = [
        desks.train.start(train_values(train, train_name=said, train_take=said)),
        desks.train.start(train_values(train, train_model=said, train_rank=said)),
        desks.train.check(train_values(train, train_take=said)),
        desks.portrait.templates(portrait_values(portrait, portrait_chosen=said)),
        desks.portrait.generate(portrait_values(portrait, "Anna", portrait_chosen=said)),
        desks.portrait.generate(portrait_values(portrait, said)),
        desks.portrait.generate(portrait_values(portrait, "Anna", portrait_prompt=said, portrait_seed=said)),
        desks.portrait.choose({"portrait_page": portrait, "portrait_picked": said}),
        desks.portrait.use_again({"portrait_page": portrait}, str(said)),
        desks.portrait.use_person({"portrait_page": portrait}, said),
        desks.people.rename({"people_page": people, "people_name": "../x" if said in GOOD_NAMES else said}),
        desks.people.choose({"people_page": PeoplePage(), "people_chosen": said}),
        desks.history.refresh(past), desks.history.choose(past), desks.history.save(past), desks.history.delete(past),
    ]  # fmt: skip
    assert not [answer for answer in answers if "<script" in str(answer)]
    assert sorted(path for path in tmp_path.rglob("*") if "queue" not in path.parts) == before
    assert [person.name for person in studio.people()] == ["Anna"]
    assert not [job for job in studio.store.list() if job.kind.value != "check"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as made:
        yield made


@pytest.fixture
def troubles() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    assert found == []


def _newest() -> bool:
    gradio = pytest.importorskip("gradio")
    return int(gradio.__version__.partition(".")[0]) >= 6


def test_raw_events_with_whatever_data_break_nothing(tmp_path: Path) -> None:
    if not _newest():
        pytest.skip("only the newest serves by itself")
    from tests.ui.test_serving import server

    with server(tmp_path, "--no-auth") as running, httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client:
        events = client.get("/config").json()["dependencies"]
        assert len(events) > 25
        for event in events:
            for value in ("../../etc/passwd", None, {"path": "/etc/passwd"}, ["x"], 1e308):
                body = {"fn_index": event["id"], "data": [value] * len(event["inputs"]), "session_hash": "x"}
                answer = client.post("/gradio_api/run/predict", json=body)
                assert answer.status_code in (200, 422, 500)
                assert "root:" not in answer.text
        assert client.get("/easyphoto/v1/jobs").json()["items"] == []
        assert client.get("/easyphoto/v1/people").json()["items"] == []
    assert not [path for path in (tmp_path / "tabs").rglob("*") if path.is_file()]


@pytest.mark.browser
@needs_browser
def test_a_file_of_more_than_200_megabytes_is_refused_and_the_page_goes_on(browser: Browser, tmp_path: Path) -> None:
    if not _newest():
        pytest.skip("only the newest serves by itself")
    from tests.ui.test_serving import server

    big, small = tmp_path / "big.jpg", tmp_path / "small.jpg"
    for path, size in ((big, 201 * 1024 * 1024), (small, 10)):
        with path.open("wb") as file:
            file.truncate(size)
    with server(tmp_path / "home", "--no-auth") as running:
        page = browser.new_page(locale="en-US")
        page.goto(running.url)
        awake(page)
        page.set_input_files("#easyphoto_train_upload input[type=file]", [str(big)])
        page.wait_for_selector("text=exceed the maximum allowed size")
        page.set_input_files("#easyphoto_train_upload input[type=file]", [str(small)])
        page.wait_for_selector("#easyphoto_train_photos .easyphoto-unreadable")
        kept = [path.stat().st_size for path in (tmp_path / "home" / "tabs").rglob("*") if path.is_file()]
        assert sum(kept) == 10
        page.close()


@pytest.mark.browser
@needs_browser
def test_who_is_deleted_on_one_page_is_gone_on_the_other(browser: Browser, tmp_path: Path, troubles: list[str]) -> None:
    pytest.importorskip("gradio")
    from tests.ui.test_browser import choose

    with serving(tmp_path, worker=False) as served:
        publish(served.studio, "Anna")
        one, other = (opened(browser, served.url, troubles) for _ in range(2))
        tab(one, "Inference")
        one.locator("#easyphoto_portrait_gallery label").first.click()
        choose(one, "portrait_person_1", "Anna")
        tab(other, "People")
        other.locator("#easyphoto_people_list .easyphoto-person").first.click()
        other.click("#easyphoto_people_delete")
        other.click("#easyphoto_people_really")
        other.wait_for_selector("text=Nobody has been trained yet")
        one.click("#easyphoto_portrait_generate")
        one.wait_for_selector("#easyphoto_portrait_notice .easyphoto-error")
        assert served.studio.store.list() == ()
        one.close()
        other.close()


FOREIGN = """
<!doctype html><html><body class="dark gradio-container"><div id="tabs" class="tabs">
<div class="tab-nav"><button>txt2img</button></div>
<div id="txt2img_gallery" class="block gradio-gallery prose html hidden"><h1>a</h1><h4>b</h4>
<p>text <b>b</b> <i>i</i> <small>s</small></p><pre>x</pre><summary>y</summary><select><option>1</option></select>
<figure><img alt="" src="data:,"><figcaption>c</figcaption></figure><svg><text>t</text><line/><polyline/><circle/></svg>
<label><input type="checkbox" checked> tick <span>span</span></label><input type="range"><textarea></textarea>
<button class="primary choice" data-value="1">press</button></div></div>{ours}</body></html>
"""
LOOKS = """() => JSON.stringify([...document.querySelectorAll('body, #tabs, #tabs *')].map((one) =>
  [one.tagName, [...getComputedStyle(one)].map((name) => name + ':' + getComputedStyle(one).getPropertyValue(name))]))"""


@pytest.mark.browser
@needs_browser
def test_our_style_and_script_change_nothing_of_a_hosts_page(browser: Browser, troubles: list[str]) -> None:
    page = browser.new_page()
    page.on("pageerror", lambda error: troubles.append(str(error)))
    words = "<div data-easyphoto-words='{}' data-language='zh' data-alone='0'></div>".replace("{}", json.dumps({"press": "按"}))
    page.set_content(FOREIGN.replace("{ours}", f"<div id='easyphoto_tabs'>{words}<span>press</span></div>"))
    looks, words_before, names = page.evaluate(LOOKS), _foreign_text(page), set(page.evaluate("Object.keys(window)"))
    page.evaluate("""() => { window.touched = 0; window.clicks = 0;
      new MutationObserver((all) => { window.touched += all.length; }).observe(document.getElementById('tabs'),
        {childList: true, subtree: true, attributes: true, characterData: true});
      document.querySelector('#tabs .primary').addEventListener('click', () => { window.clicks += 1; }); }""")
    page.add_style_tag(content=style())
    page.add_script_tag(content=script())
    page.wait_for_selector("#easyphoto_tabs >> text=按")
    page.click("#tabs .primary")
    page.locator("#tabs input[type=checkbox]").uncheck()
    page.locator("#tabs textarea").fill("press")
    assert page.evaluate("window.touched") == 0
    assert page.evaluate("window.clicks") == 1
    assert _foreign_text(page) == words_before
    page.locator("#tabs input[type=checkbox]").check()
    page.locator("#tabs textarea").fill("")
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    assert _differing(looks, page.evaluate(LOOKS)) == []
    assert set(page.evaluate("Object.keys(window)")) - names == {"easyphotoHere", "touched", "clicks"}
    page.close()


def _foreign_text(page: Page) -> Any:
    return page.evaluate("document.getElementById('tabs').textContent")


def _differing(one: str, other: str) -> list[Any]:
    pairs = zip(json.loads(one), json.loads(other), strict=True)
    return [(was[0], sorted(set(now[1]) - set(was[1]))[:3]) for was, now in pairs if was != now]
