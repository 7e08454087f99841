"""The tabs in a real browser, with a real worker and the embedded base model: what a person does from photos to a portrait."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from easyphoto.settings import PROJECT_ROOT
from easyphoto.work import JobKind, JobState
from tests.ui.made import finish_portraits, publish
from tests.ui.serving import CHROMIUM, Served, awake, browsing, opened, serving, tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("gradio")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]
SAMPLES = PROJECT_ROOT / "models" / "sample-people" / "woman"
EVIL = '<script>alert("x")<b>'
WAIT = 240_000
KINDS = (".png", ".jpg", ".safetensors", ".zip")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as made:
        yield made


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page with two people and no worker: what is handed in waits."""
    with serving(tmp_path_factory.mktemp("idle"), worker=False) as served:
        publish(served.studio, "Anna")
        publish(served.studio, EVIL)
        yield served


@pytest.fixture
def troubles() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    assert found == []


def number(page: Page, name: str, value: float) -> None:
    field = page.locator(f"#easyphoto_{name} input[type=number]").first
    for _ in range(20):
        field.fill(str(value))
        field.press("Tab")
        page.wait_for_timeout(100)
        # A slider that has just come into the page may still be putting its first value in.
        if field.input_value() == str(value):
            page.wait_for_timeout(400)
            if field.input_value() == str(value):
                return
    pytest.fail(f"{name} does not take {value}")


def open_box(page: Page, name: str) -> None:
    page.locator(f"#easyphoto_{name} button, #easyphoto_{name} .label-wrap").first.click()


def box(name: str) -> str:
    return f"#easyphoto_{name} textarea, #easyphoto_{name} input"


def text(page: Page, name: str) -> str:
    return page.locator(box(name)).first.input_value()


def write(page: Page, name: str, value: str) -> None:
    page.locator(box(name)).first.fill(value)


def upload_and_check(page: Page) -> None:
    page.set_input_files("#easyphoto_train_upload input[type=file]", [str(path) for path in sorted(SAMPLES.glob("*.jpg"))])
    page.wait_for_selector("#easyphoto_train_photos figure >> nth=9", timeout=WAIT)
    page.click("#easyphoto_train_check")
    page.wait_for_selector("#easyphoto_train_photos .easyphoto-reference", timeout=WAIT)
    assert page.locator("#easyphoto_train_photos figure").count() == 10


def ask_for_twenty_steps(page: Page) -> None:
    write(page, "train_name", "Anna <i>")
    open_box(page, "train_advanced")
    open_box(page, "train_steps_group")
    number(page, "train_max_steps", 20)
    open_box(page, "train_judging_group")
    number(page, "train_every", 10)
    number(page, "train_templates", 1)


def first_step(page: Page) -> None:
    """Wait for a training's first step; one that was refused or has failed says why at once."""
    troubles = "#easyphoto_train_live .easyphoto-failed, #easyphoto_train_notice .easyphoto-notice"
    step = "#easyphoto_train_live :text-matches('step [0-9]+ of 20')"
    page.locator(f"{step}, {troubles}").first.wait_for(timeout=WAIT)
    assert page.locator(troubles).all_inner_texts() == []


def train_and_stop_and_train_again(page: Page) -> None:
    page.click("#easyphoto_train_start")
    first_step(page)
    page.click("#easyphoto_train_stop")
    page.wait_for_selector("#easyphoto_train_live .easyphoto-cancelled", timeout=WAIT)
    assert page.locator("#easyphoto_train_resume").is_visible()
    page.click("#easyphoto_train_start")
    page.wait_for_selector("#easyphoto_train_stop", timeout=WAIT)
    page.reload()
    awake(page)
    assert page.locator("#easyphoto_train_stop").is_visible()
    page.wait_for_selector("#easyphoto_train_samples img", timeout=WAIT)
    page.wait_for_selector("#easyphoto_train_best img", timeout=WAIT)
    assert page.locator("#easyphoto_train_live svg polyline").count() == 2
    assert "Identity score 0." in page.locator("#easyphoto_train_live").first.inner_text()


def make_a_portrait(page: Page) -> bytes:
    page.click("#easyphoto_train_use")
    page.wait_for_selector("#easyphoto_portrait_generate")
    page.wait_for_function("document.querySelector('#easyphoto_portrait_person_1 input').value === 'Anna <i>'")
    page.locator("#easyphoto_portrait_gallery label").nth(1).click()
    page.wait_for_selector("#easyphoto_portrait_faces img", timeout=WAIT)
    for _ in range(20):
        page.locator("#easyphoto_portrait_generate").click(force=True, no_wait_after=True)
    page.wait_for_selector("#easyphoto_portrait_samples img", timeout=WAIT)
    page.wait_for_selector("#easyphoto_portrait_compare img", timeout=WAIT)
    assert "same person 0." in page.locator("#easyphoto_portrait_results").first.inner_text()
    slider = page.locator("#easyphoto_portrait_compare input")
    slider.focus()
    slider.press("Home")
    at = "box => box.style.getPropertyValue('--easyphoto-at')"
    assert page.locator("#easyphoto_portrait_compare .easyphoto-compare").evaluate(at) == "0%"
    with page.expect_download() as download:
        page.click("#easyphoto_portrait_save")
    return Path(download.value.path()).read_bytes()


def find_it_in_history(page: Page) -> None:
    page.reload()
    awake(page)
    tab(page, "History")
    page.locator("#easyphoto_history_list .easyphoto-portrait").first.click()
    page.wait_for_selector("#easyphoto_history_compare img")
    assert page.locator("#easyphoto_history_strip img").count() == 5
    page.click("#easyphoto_history_use")
    page.wait_for_selector("#easyphoto_portrait_gallery input:checked", state="attached")
    assert int(float(text(page, "portrait_seed"))) >= 0


def delete_the_person(page: Page) -> None:
    tab(page, "People")
    page.locator("#easyphoto_people_list .easyphoto-person").first.click()
    page.click("#easyphoto_people_export")
    page.wait_for_selector("#easyphoto_people_parcel a", timeout=WAIT)
    page.click("#easyphoto_people_delete")
    page.wait_for_selector("#easyphoto_people_really")
    assert "Anna <i>" in page.locator("#easyphoto_people_question").first.inner_text()
    page.click("#easyphoto_people_really")
    page.wait_for_selector("text=Nobody has been trained yet", timeout=WAIT)
    tab(page, "History")
    page.wait_for_selector("text=There are no portraits yet", timeout=WAIT)


@pytest.mark.slow
def test_from_photos_to_a_portrait_and_away_again(browser: Browser, tmp_path: Path, troubles: list[str]) -> None:
    home = tmp_path / "home"
    with serving(home) as served:
        page = opened(browser, served.url, troubles)
        upload_and_check(page)
        ask_for_twenty_steps(page)
        train_and_stop_and_train_again(page)
        png = Image.open(io.BytesIO(make_a_portrait(page)))
        assert png.format == "PNG"
        assert png.info["parameters"].startswith("easyphoto_face")
        jobs = served.studio.store.list()
        assert [(job.kind, job.state) for job in jobs] == [
            (JobKind.PORTRAITS, JobState.DONE), (JobKind.TRAINING, JobState.DONE), (JobKind.TRAINING, JobState.CANCELLED),
        ]  # fmt: skip
        find_it_in_history(page)
        delete_the_person(page)
        page.close()
        left = [path for path in home.rglob("*") if path.is_file() and path.suffix in KINDS]
        assert left == []


def test_an_answer_that_comes_late_takes_no_job_off_the_page(browser: Browser, idle: Served, troubles: list[str]) -> None:
    page = opened(browser, idle.url, troubles)
    tab(page, "Inference")
    page.locator("#easyphoto_portrait_gallery label").first.click()
    page.wait_for_selector("#easyphoto_portrait_faces img", timeout=WAIT)
    choose(page, "portrait_person_1", "Anna")
    # As if each answer were followed by one that began before the job: nothing on the page asks to be followed any more.
    page.evaluate(
        """() => { let first = 0; const timer = setInterval(() => {
            for (const mark of document.querySelectorAll('#easyphoto_portrait_live [data-easyphoto-poll]')) {
                mark.removeAttribute('data-easyphoto-poll'); first = first || Date.now();
            }
            if (first && Date.now() - first > 1500) { clearInterval(timer); window.late = true; }
        }, 10); }"""
    )
    page.click("#easyphoto_portrait_generate")
    page.wait_for_function("window.late")
    page.wait_for_selector("#easyphoto_portrait_live [data-easyphoto-poll]", state="attached", timeout=40_000)
    page.click("#easyphoto_portrait_stop")
    page.wait_for_selector("#easyphoto_portrait_live .easyphoto-cancelled")
    page.close()


def test_twenty_clicks_on_generate_are_one_job_and_two_pages_two(browser: Browser, idle: Served, troubles: list[str]) -> None:
    before = len(idle.studio.store.list())
    pages = [opened(browser, idle.url, troubles) for _ in range(2)]
    for page in pages:
        tab(page, "Inference")
        page.locator("#easyphoto_portrait_gallery label").first.click()
        page.wait_for_selector("#easyphoto_portrait_faces img", timeout=WAIT)
        choose(page, "portrait_person_1", "Anna")
        for _ in range(20):
            page.locator("#easyphoto_portrait_generate").click(force=True, no_wait_after=True)
        page.wait_for_selector("#easyphoto_portrait_live .easyphoto-queued")
    assert len(idle.studio.store.list()) == before + 2
    for page in pages:
        page.click("#easyphoto_portrait_stop")
        page.wait_for_selector("#easyphoto_portrait_live .easyphoto-cancelled")
        page.close()
    assert {job.state for job in idle.studio.store.list()[:2]} == {JobState.CANCELLED}


def test_templates_chosen_while_one_is_looked_at_count_too(browser: Browser, idle: Served, troubles: list[str]) -> None:
    page = opened(browser, idle.url, troubles)
    if page.evaluate("window.gradio_config.version").startswith("3."):
        pytest.skip("Gradio 3 sends all of them at once, and shows the answer that comes last")
    tab(page, "Inference")
    # A server that is asked for the first time: the faces of the first template take it a while.
    page.evaluate(
        """() => { const ask = window.fetch; let first = true; window.fetch = async (...said) => {
            if (first && said[1]?.method === 'POST') { first = false; await new Promise((go) => setTimeout(go, 1500)); }
            return ask(...said); }; }"""
    )
    for number in (0, 1, 2):
        page.locator("#easyphoto_portrait_gallery label").nth(number).click()
        page.wait_for_timeout(200)
    page.wait_for_selector("#easyphoto_portrait_faces img >> nth=2", timeout=WAIT)
    page.close()


def choose(page: Page, name: str, value: str) -> None:
    field = page.locator(f"#easyphoto_{name} input").first
    field.click()
    page.locator(f"#easyphoto_{name} [role=option], #easyphoto_{name} ul.options li", has_text=value).first.click()
    assert field.input_value() == value


def test_a_prompt_of_ten_megabytes_is_a_sentence(browser: Browser, idle: Served, troubles: list[str]) -> None:
    page = opened(browser, idle.url, troubles)
    tab(page, "Inference")
    page.locator("#easyphoto_portrait_gallery label").first.click()
    choose(page, "portrait_person_1", "Anna")
    before = len(idle.studio.store.list())
    page.evaluate(
        """() => { const box = document.querySelector('#easyphoto_portrait_prompt textarea');
        box.value = 'a'.repeat(10_000_000); box.dispatchEvent(new Event('input', {bubbles: true})); }"""
    )
    page.wait_for_timeout(500)
    page.click("#easyphoto_portrait_generate")
    page.wait_for_selector("#easyphoto_portrait_notice >> text=10,000,000 characters", timeout=WAIT)
    assert len(idle.studio.store.list()) == before
    page.close()


def test_script_in_a_name_is_shown_as_it_is(browser: Browser, idle: Served, troubles: list[str]) -> None:
    from easyphoto.families import Family
    from easyphoto.ui.knobs import portrait_defaults
    from easyphoto.ui.ordering import PortraitForm, portrait_order

    values = {**portrait_defaults(Family.EMBEDDED), "prompt": EVIL}
    form = PortraitForm(people=(EVIL,), values=values, gallery=("studio-woman",))
    job = idle.studio.submit(*portrait_order(idle.studio, form))
    finish_portraits(idle.studio, job, f"{EVIL}.jpg", [EVIL])
    page = opened(browser, idle.url, troubles)
    tab(page, "Inference")
    page.wait_for_selector("#easyphoto_portrait_compare img")
    assert EVIL in page.locator("#easyphoto_portrait_facts").first.inner_text()
    tab(page, "People")
    page.locator("#easyphoto_people_list .easyphoto-person", has_text=EVIL).click()
    page.wait_for_selector("#easyphoto_people_delete")
    page.wait_for_function(f"document.querySelector('{box('people_name')}').value === {EVIL!r}")
    tab(page, "History")
    page.locator("#easyphoto_history_list .easyphoto-portrait").first.click()
    page.wait_for_selector("#easyphoto_history_facts >> text=Parameters")
    assert page.evaluate("[...document.scripts].filter(one => one.text.includes('alert(')).length") == 0
    page.close()


def test_the_page_speaks_chinese_and_english_again(browser: Browser, idle: Served, troubles: list[str]) -> None:
    page = opened(browser, idle.url, troubles)
    page.select_option("[data-easyphoto-language]", "zh")
    page.wait_for_selector("#easyphoto_train_start:text-is('开始训练')")
    assert page.locator(box("train_name")).first.get_attribute("placeholder") == "小安"
    tab(page, "人物")
    page.wait_for_selector("#easyphoto_people_list >> text=得分")
    said = "6 of 11 photos are good to train on."
    page.evaluate("text => document.querySelector('#easyphoto_people_list .easyphoto-words b').textContent = text", said)
    page.evaluate("document.querySelector('#easyphoto_people_list .easyphoto-words b').removeAttribute('translate')")
    page.wait_for_selector("#easyphoto_people_list >> text=6 / 11 张照片可用于训练。")
    page.reload()
    awake(page)
    page.wait_for_selector("#easyphoto_train_start:text-is('开始训练')")
    page.click("#easyphoto_train_check")
    page.wait_for_selector("#easyphoto_train_notice >> text=没有照片")
    page.select_option("[data-easyphoto-language]", "en")
    page.wait_for_selector("#easyphoto_train_start:text-is('Start training')")
    page.close()


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_nothing_sticks_out_sideways(browser: Browser, idle: Served, troubles: list[str], width: int) -> None:
    page = opened(browser, idle.url, troubles, width)
    for name in ("Train", "Inference", "People", "History"):
        tab(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    page.close()


def test_a_file_that_is_no_picture_is_a_sentence_or_an_empty_card(
    browser: Browser, idle: Served, tmp_path: Path, troubles: list[str]
) -> None:
    fake = tmp_path / "fake.jpg"
    fake.write_bytes(b"<script>alert(1)</script>")
    page = opened(browser, idle.url, troubles)
    page.set_input_files("#easyphoto_train_upload input[type=file]", [str(fake)])
    page.wait_for_selector("#easyphoto_train_photos .easyphoto-unreadable")
    page.click("#easyphoto_train_clear")
    page.wait_for_selector("#easyphoto_train_photos figure", state="detached")
    page.close()
