"""The older extension's three routes on the wire: its clients' requests, its answers, its words."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from easyphoto.api.application import create_app
from easyphoto.api.options import ApiOptions, Limits, Rates
from easyphoto.api.service import Service
from easyphoto.extras import IdControl
from easyphoto.families import Family
from easyphoto.imaging.io import decode_photo, encode_png, load_photo
from easyphoto.jobs.folders import End, now
from easyphoto.jobs.results import ResultFolder
from easyphoto.jobs.store import JobQuery, JobStore
from easyphoto.jobs.supervisor import Supervisor
from easyphoto.jobs.turns import Turn, Turns
from easyphoto.orders import PortraitOrder, TrainOrder
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.specs import Person, TrainSpec
from easyphoto.store.codec import dumps
from easyphoto.store.paths import owner_home, person_id
from easyphoto.work import FaceScore, Failure, JobResult, JobState, Missed, Picture
from tests.api.legacy_bodies import infer_body, train_body, video_body
from tests.api.small_internet import answer, site

Body = dict[str, Any]
Finish = Callable[[JobStore, Turn], tuple[JobState, JobResult | Failure | None]]
UNHURRIED = Rates(reads=0, posts=0)
PORTRAIT = np.full((40, 30, 3), 200, np.uint8)


class Rig:
    """A real server on a free port and the home behind it."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.store = service.store
        self.url = f"http://127.0.0.1:{port}"

    def post(self, name: str, body: object, **more: Any) -> httpx.Response:
        # As those clients do it: text without a Content-Type.
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(f"{self.url}/easyphoto/easyphoto_{name}_forward", content=data, timeout=30, trust_env=False, **more)

    def orders(self) -> list[Any]:
        return [self.store.order(job.id) for job in self.store.list(JobQuery())]


@contextmanager
def served(home: Path, base_model: Path, options: ApiOptions | None = None) -> Iterator[Rig]:
    settings = Settings(home=home, base_model=base_model, templates=PROJECT_ROOT / "templates", device="cpu")
    service = Service(settings, options or ApiOptions(no_auth=True, rates=UNHURRIED))
    server = uvicorn.Server(uvicorn.Config(create_app(service), port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Rig(service, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        service.close()


@pytest.fixture
def rig(tmp_path: Path, base_model: Path) -> Iterator[Rig]:
    with served(tmp_path, base_model) as made:
        yield made


@contextmanager
def worker(rig: Rig, finish: Finish) -> Iterator[None]:
    """Ends every job at once as `finish` says, by the queue's own means."""
    stop, turns = threading.Event(), Turns(rig.store)

    def run() -> None:
        while not stop.wait(0.02):
            turn = turns.claim()
            if turn is not None:
                state, left = finish(rig.store, turn)
                result = left if isinstance(left, JobResult) else None
                failure = left if isinstance(left, Failure) else None
                turns.finish(turn, End(state=state, ended=now(), failure=failure), result)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def trains(store: JobStore, turn: Turn) -> tuple[JobState, JobResult]:
    blank = JobResult(id=turn.job.id, kind=turn.job.kind, owner=turn.job.owner, created=now(), person=turn.job.person)
    return JobState.DONE, ResultFolder(owner_home(store.root, turn.job.owner), turn.job.id).commit(blank)


def paints(missed: Sequence[int] = (), similarity: float | None = 0.564) -> Finish:
    """A picture for each template but those numbered in `missed`."""

    def finish(store: JobStore, turn: Turn) -> tuple[JobState, JobResult]:
        order = turn.order
        assert isinstance(order, PortraitOrder)
        folder = ResultFolder(owner_home(store.root, turn.job.owner), turn.job.id)
        pictures, misses = [], []
        for number, template in enumerate(order.templates):
            if number in missed:
                misses.append(Missed(template=template.name, code="bad_template", sentence="it shows no face; choose another"))
                continue
            faces = tuple(FaceScore(person=name, similarity=similarity) for name in order.people if name)
            file = folder.add(f"{number}.png", encode_png(PORTRAIT))
            pictures.append(Picture(file=file, template=template.name, seed=order.seed, infotext="", faces=faces))
        result, (_, blank) = folder, (None, JobResult(id=turn.job.id, kind=turn.job.kind, owner=turn.job.owner, created=now()))
        return JobState.DONE, result.commit(replace(blank, pictures=tuple(pictures), missed=tuple(misses)))

    return finish


def fails(code: str) -> Finish:
    return lambda _store, _turn: (JobState.FAILED, Failure(code=code, sentence="Because; do that."))


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def photo(sample_people: Path, number: int = 0) -> str:
    return coded((sample_people / "woman" / f"{number:02d}.jpg").read_bytes())


def publish(home: Path, name: str, owner: str = "local") -> Person:
    """A person as the store keeps one, without any training."""
    folder = owner_home(home, owner).people / person_id(name)
    folder.mkdir(parents=True)
    reference = folder / "reference.png"
    reference.write_bytes(encode_png(PORTRAIT))
    (folder / "x.safetensors").write_bytes(b"x")
    made = Person(
        name=name, person_id=person_id(name), folder=Path(), family=Family.EMBEDDED, lora=Path("x.safetensors"),
        reference=Path("reference.png"), face_id_picture=Path("reference.png"), embedding=(0.0,) * 128, created=now(),
    )  # fmt: skip
    (folder / "person.json").write_text(dumps(made))
    return replace(made, reference=reference)


def test_a_training_is_waited_for_and_told_as_there(rig: Rig, sample_people: Path) -> None:
    body = train_body(instance_images=[photo(sample_people, number) for number in range(3)])
    with worker(rig, trains):
        got = rig.post("train", body)
    assert got.status_code == 200
    assert got.json() == {"message": "The training has been completed."}
    assert got.headers["content-type"] == "application/json"
    (order,) = rig.orders()
    assert isinstance(order, TrainOrder)
    own = TrainSpec.for_family("test", rig.service.settings.base_model, Family.EMBEDDED, device="cpu")
    assert order.spec == own
    assert [path.parts[0] for path in order.photos] == ["inputs"] * 3
    assert not order.retouch


def test_the_photos_of_a_training_reach_the_queue_bit_for_bit(rig: Rig, sample_people: Path) -> None:
    sent = [photo(sample_people, 1), "data:image/jpeg;base64," + photo(sample_people, 2), photo(sample_people, 3) + "\n"]
    with worker(rig, fails("bad_photo")):
        rig.post("train", train_body(instance_images=sent))
    (job,) = rig.store.list()
    kept = [(rig.store.folder(job.id) / path).read_bytes() for path in rig.store.order(job.id).photos]
    assert kept == [(sample_people / "woman" / f"{number:02d}.jpg").read_bytes() for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("conflict", "User id non-repeatability."),
        ("bad_photo", "Failed to obtain preprocessed images, please check the preprocessing process.\nBecause; do that."),
        ("job_failed", "Failed to obtain Lora after training, please check the training process.\nBecause; do that."),
        ("storage", "Train error, error info:Because; do that."),
    ],
)
def test_a_training_that_fails_is_told_in_the_message(rig: Rig, sample_people: Path, code: str, message: str) -> None:
    with worker(rig, fails(code)):
        got = rig.post("train", train_body(instance_images=[photo(sample_people)]))
    assert (got.status_code, got.json()) == (200, {"message": message})


def test_a_cancelled_training_is_told(rig: Rig, sample_people: Path) -> None:
    def cancel() -> None:
        while not (jobs := rig.store.list()):
            time.sleep(0.02)
        rig.store.cancel(jobs[0].id)

    thread = threading.Thread(target=cancel)
    thread.start()
    got = rig.post("train", train_body(instance_images=[photo(sample_people)]))
    thread.join()
    assert got.json() == {"message": "Train error, error info:the training was cancelled."}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": ""}, "User id cannot be set to empty."),
        ({"user_id": "none"}, "User id cannot be set to none."),
        ({"user_id": "known"}, "User id non-repeatability."),
        ({"user_id": "KNOWN "}, "User id non-repeatability."),
        ({}, "Please upload training photos."),
        (
            {"instance_images": ["x"], "rank": 32},
            "The network alpha 64 must not exceed rank 32. It will result in an unintended LoRA.",
        ),
    ],
)
def test_a_training_is_refused_in_that_extensions_words_and_nothing_is_queued(rig: Rig, changes: Body, message: str) -> None:
    publish(rig.store.root, "known")
    got = rig.post("train", train_body(**changes))
    assert (got.status_code, got.json()) == (200, {"message": message})
    assert rig.store.list() == ()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"user_id": "a/../../b"}, "may not contain a slash"),
        ({"user_id": "x\udc80"}, "surrogate"),
        ({"train_mode_choose": "Train Scene Lora", "crop_ratio": 99}, "crop_ratio must be within"),
        ({"max_train_steps": "many"}, "max_train_steps must be a number"),
        ({"instance_images": ["!!!!"]}, "photo-1"),
        ({"instance_images": [7]}, "photo-1"),
        ({"instance_images": ["http://127.0.0.1/a.jpg"]}, "turned off"),
        ({"instance_images": [coded(b"no picture")] * 2}, "photo-1"),
        ({"instance_images": [coded(b"x")] * 51}, "may hold 50 pictures"),
        ({"rank": 4096, "network_alpha": 1}, "rank must be within"),
        ({"resolution": 100}, "multiple of 32"),
    ],
)
def test_what_else_is_wrong_with_a_training_follows_the_words_train_error(
    rig: Rig, sample_people: Path, changes: Body, part: str
) -> None:
    got = rig.post("train", train_body(**{"instance_images": [photo(sample_people)], **changes}))
    assert got.status_code == 200
    assert list(got.json()) == ["message"]
    assert got.json()["message"].startswith("Train error, error info:")
    assert part in got.json()["message"]
    assert rig.store.list() == ()


def test_a_name_whose_training_waits_already_is_not_trained_twice(rig: Rig, sample_people: Path) -> None:
    body = train_body(instance_images=[photo(sample_people)])
    thread = threading.Thread(target=lambda: rig.post("train", body))
    thread.start()
    while not rig.store.list():
        time.sleep(0.02)
    assert rig.post("train", body).json() == {"message": "User id non-repeatability."}
    rig.store.cancel(rig.store.list()[0].id)
    thread.join()


def test_a_portrait_comes_back_as_base64_png_with_its_score_and_reference(rig: Rig, sample_people: Path) -> None:
    person = publish(rig.store.root, "test")
    with worker(rig, paints()):
        got = rig.post("infer", infer_body(init_image=photo(sample_people)))
    assert got.status_code == 200
    body = got.json()
    assert list(body) == ["message", "outputs", "face_id_outputs"]
    assert body["message"] == "Template 1 Success."
    (output,) = body["outputs"]
    assert base64.b64decode(output).startswith(b"\x89PNG")
    assert np.array_equal(decode_photo(base64.b64decode(output), "output").pixels, PORTRAIT)
    ((reference, told),) = body["face_id_outputs"]
    assert base64.b64decode(reference) == person.reference.read_bytes()
    assert base64.b64decode(told).decode() == "0.56, test, the reference image"
    (order,) = rig.orders()
    assert (order.people, order.seed, len(order.templates)) == (("test",), 12345, 1)


def test_the_id_control_and_its_picture_come_along_for_a_model_that_has_one(rig: Rig, sample_people: Path) -> None:
    person = publish(rig.store.root, "test")
    record = person.reference.with_name("person.json")
    body = infer_body(init_image=photo(sample_people), ipa_control=True, ipa_image=photo(sample_people, 1))
    with worker(rig, paints()):
        told = rig.post("infer", body).json()["message"]
        record.write_text(record.read_text().replace('"embedded"', '"sd15"'))
        assert rig.post("infer", body).json()["message"] == "Template 1 Success."
    assert "id_control is not available for the embedded base model" in told
    held, plain = sorted(rig.orders(), key=lambda order: order.id_control is None)
    assert (plain.id_control, plain.id_picture, len(plain.templates)) == (None, None, 1)
    assert (held.id_control, len(held.templates)) == (IdControl(weight=0.5), 1)
    assert held.id_picture is not None
    assert held.id_picture.name == "ipa_image-1.jpg"


def test_scores_are_left_out_when_nobody_asks_for_them(rig: Rig, sample_people: Path) -> None:
    publish(rig.store.root, "test")
    with worker(rig, paints()):
        got = rig.post("infer", infer_body(init_image=photo(sample_people), id_control=False)).json()
    assert (len(got["outputs"]), got["face_id_outputs"]) == (1, [])


def test_uploaded_templates_are_made_in_turn_and_one_without_a_face_does_not_spoil_the_others(
    rig: Rig, sample_people: Path
) -> None:
    publish(rig.store.root, "test")
    sent = [photo(sample_people, number) for number in range(3)]
    with worker(rig, paints(missed=[1], similarity=None)):
        got = rig.post("infer", infer_body(tabs="2", uploaded_template_images=sent, user_ids="test")).json()
    assert got["message"].split("\n") == [
        "Template 1 Success.", "Template 2 Success.",
        "Template 3 error: Error info is it shows no face; choose another.",
    ]  # fmt: skip
    assert (len(got["outputs"]), got["face_id_outputs"]) == (2, [])


@pytest.mark.parametrize("sent", ["garden-arch", "/home/me/infer_templates/garden-arch.jpg", ["garden-arch.jpg"]])
def test_gallery_templates_are_found_by_their_files_name(rig: Rig, sent: object) -> None:
    publish(rig.store.root, "test")
    with worker(rig, paints()):
        got = rig.post("infer", infer_body(tabs=0, selected_template_images=sent)).json()
    assert got["message"] == "Template 1 Success."
    assert rig.orders()[0].templates == (rig.service.settings.templates / "garden-arch.jpg",)


def test_gallery_templates_may_come_as_pictures_too(rig: Rig, sample_people: Path) -> None:
    publish(rig.store.root, "test")
    with worker(rig, paints()):
        got = rig.post("infer", infer_body(tabs=0, selected_template_images=[photo(sample_people), "garden-arch"])).json()
    assert got["message"] == "Template 1 Success.\nTemplate 2 Success."
    first, second = rig.orders()[0].templates
    assert (first.parts[0], second.name) == ("inputs", "garden-arch.jpg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_ids": []}, "Please choose a user id."),
        ({"user_ids": ["none", "none"]}, "Please choose a user id."),
        ({"user_ids": ["nobody"]}, "User id is not exist."),
        ({"user_ids": ["../../etc"]}, "User id is not exist."),
        ({"user_ids": ["test", "nobody"]}, "User id is not exist."),
        ({"init_image": None}, "Please choose or upload a template."),
        ({"tabs": 0}, "Please choose or upload a template."),
        ({"tabs": 0, "selected_template_images": ["no-such"]}, "Please choose or upload a template."),
        ({"tabs": 0, "selected_template_images": ["../../etc/passwd"]}, "Please choose or upload a template."),
        ({"tabs": 2, "uploaded_template_images": []}, "Please choose or upload a template."),
        ({"tabs": 9}, "Please choose or upload a template."),
        ({"tabs": "x"}, "Please choose or upload a template."),
    ],
)
def test_a_portrait_is_refused_in_that_extensions_words(rig: Rig, sample_people: Path, changes: Body, message: str) -> None:
    publish(rig.store.root, "test")
    got = rig.post("infer", infer_body(**{"init_image": photo(sample_people), **changes}))
    assert (got.status_code, got.json()) == (200, {"message": message, "outputs": [], "face_id_outputs": []})
    assert rig.store.list() == ()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"tabs": 3}, "from text"),
        ({"ref_mode_choose": "Infer without User Lora"}, "without a trained user id"),
        ({"init_image": coded(b"no picture")}, "template-1"),
        ({"lora_weights": 9}, "lora_weight must be within"),
        ({"batch_size": 1000}, "count must be within"),
        ({"seed": "x"}, "seed must be a number"),
    ],
)
def test_what_else_is_wrong_with_a_portrait_follows_the_words_infer_error(
    rig: Rig, sample_people: Path, changes: Body, part: str
) -> None:
    publish(rig.store.root, "test")
    got = rig.post("infer", infer_body(**{"init_image": photo(sample_people), **changes})).json()
    assert got["message"].startswith("Infer error, error info:")
    assert part in got["message"]
    assert (got["outputs"], got["face_id_outputs"]) == ([], [])


def test_templates_without_any_face_are_told_in_that_extensions_words(rig: Rig, sample_people: Path) -> None:
    publish(rig.store.root, "test")
    with worker(rig, fails("bad_template")):
        got = rig.post("infer", infer_body(init_image=photo(sample_people))).json()
    assert got["message"].split("\n")[0] == "Please upload a template with face."


def test_what_was_asked_for_and_is_not_there_is_told_in_a_line(rig: Rig, sample_people: Path) -> None:
    publish(rig.store.root, "test")
    with worker(rig, paints()):
        got = rig.post("infer", infer_body(init_image=photo(sample_people), lcm_accelerate=True, unknown_key=1)).json()
    said = "lcm_accelerate is not available for the embedded base model and was left out."
    assert got["message"] == f"Template 1 Success.\n{said}"


def test_videos_are_honestly_not_there_in_the_fields_of_a_video(rig: Rig) -> None:
    got = rig.post("video_infer", video_body())
    assert got.status_code == 200
    assert list(got.json()) == ["message", "outputs", "output_video", "output_gif"]
    assert (got.json()["outputs"], got.json()["output_video"], got.json()["output_gif"]) == ([], None, None)
    assert "cannot be made here yet" in got.json()["message"]


def test_a_client_that_hangs_up_leaves_the_job_to_go_on(rig: Rig, sample_people: Path) -> None:
    data = json.dumps(train_body(instance_images=[photo(sample_people)])).encode()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{rig.url}/easyphoto/easyphoto_train_forward", content=data, timeout=0.5, trust_env=False)
    (job,) = rig.store.list()
    time.sleep(1.2)
    assert rig.store.get(job.id).state is JobState.QUEUED
    with worker(rig, trains):
        while rig.store.get(job.id).state is not JobState.DONE:
            time.sleep(0.02)


def test_others_are_answered_while_one_waits(rig: Rig, sample_people: Path) -> None:
    threads = [
        threading.Thread(
            target=rig.post, args=("train", train_body(user_id=f"p{number}", instance_images=[photo(sample_people)]))
        )
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    while len(rig.store.list()) < 20:
        time.sleep(0.02)
    began = time.monotonic()
    assert rig.post("infer", infer_body()).json()["message"] == "User id is not exist."
    assert time.monotonic() - began < 2
    with worker(rig, trains):
        for thread in threads:
            thread.join()


def test_a_server_that_stops_does_not_wait_for_the_job(tmp_path: Path, base_model: Path, sample_people: Path) -> None:
    got: list[httpx.Response] = []
    with served(tmp_path, base_model) as rig:
        body = train_body(instance_images=[photo(sample_people)])
        thread = threading.Thread(target=lambda: got.append(rig.post("train", body)))
        thread.start()
        while not rig.store.list():
            time.sleep(0.02)
        rig.service.hub.close()
    thread.join()
    assert "goes on when it runs again" in got[0].json()["message"]


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[1]", 400), (b'"x"', 400), (b"\xff", 400), (b"[" * 30_000, 413)])
def test_what_is_no_json_object_is_a_problem(rig: Rig, body: bytes, status: int) -> None:
    assert rig.post("train", body).status_code == status


def test_a_body_over_the_limit_is_refused(tmp_path: Path, base_model: Path) -> None:
    options = ApiOptions(no_auth=True, rates=UNHURRIED, limits=Limits(json_bytes=10_000))
    with served(tmp_path, base_model, options) as rig:
        assert rig.post("train", train_body(instance_images=["x" * 20_000])).status_code == 413


def test_without_a_token_nobody_is_let_in_and_owners_do_not_see_each_other(
    tmp_path: Path, base_model: Path, sample_people: Path
) -> None:
    from easyphoto.api.tokens import TokenStore

    anna = TokenStore(tmp_path).add("anna")
    publish(tmp_path, "test")
    with served(tmp_path, base_model, ApiOptions(rates=UNHURRIED)) as rig:
        assert rig.post("infer", infer_body()).status_code == 401
        headers = {"Authorization": f"Bearer {anna}"}
        got = rig.post("infer", infer_body(init_image=photo(sample_people)), headers=headers)
        assert got.json()["message"] == "User id is not exist."


def test_photos_named_by_address_are_fetched_where_that_is_allowed(
    tmp_path: Path, base_model: Path, sample_people: Path
) -> None:
    options = ApiOptions(no_auth=True, allow_urls=True, rates=UNHURRIED)
    data = (sample_people / "woman" / "00.jpg").read_bytes()
    with site(answer(200, data, Content_Type="image/jpeg")) as place, served(tmp_path, base_model, options) as rig:
        got = rig.post("train", train_body(instance_images=[f"http://127.0.0.1:{place.port}/a.jpg"])).json()
        assert "this machine itself" in got["message"]
        assert place.heard == []


@pytest.mark.slow
def test_the_clients_own_requests_train_a_person_and_make_a_portrait(
    tmp_path: Path, base_model: Path, sample_people: Path, templates: Path
) -> None:
    images = [coded(path.read_bytes()) for path in sorted((sample_people / "woman").iterdir())]
    with served(tmp_path, base_model) as rig:
        supervisor = Supervisor(rig.service.settings)
        supervisor.start()
        try:
            # Two of their numbers are smaller, as whoever is in a hurry sends them: more steps show nothing new here.
            body = train_body(instance_images=images, max_train_steps=40, val_and_checkpointing_steps=40)
            data = json.dumps(body).encode()
            got = httpx.post(f"{rig.url}/easyphoto/easyphoto_train_forward", content=data, timeout=1500, trust_env=False)
            assert got.json() == {"message": "The training has been completed."}
            template = coded((templates / "studio-woman.jpg").read_bytes())
            data = json.dumps(infer_body(init_image=template)).encode()
            made = httpx.post(
                f"{rig.url}/easyphoto/easyphoto_infer_forward", content=data, timeout=1500, trust_env=False
            ).json()
        finally:
            supervisor.stop()
    assert made["message"] == "Template 1 Success."
    picture = decode_photo(base64.b64decode(made["outputs"][0]), "output")
    template = load_photo(templates / "studio-woman.jpg")
    # Super resolution is on by default there.
    assert (picture.width, picture.height) == (2 * template.width, 2 * template.height)
    ((_, told),) = made["face_id_outputs"]
    score = float(base64.b64decode(told).decode().partition(",")[0])
    assert score > 0.4
