"""Our half of a real WebUI, where EASYPHOTO_WEBUI_DIR points at one: routes, a training, a portrait, and the host as before.

    EASYPHOTO_WEBUI_DIR=/path/to/webui /path/to/webui/venv/bin/python -m pytest tests/host/test_real_host.py -p no:cacheprovider
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from easyphoto.engine.webui import WebuiEngine
from easyphoto.families import Family
from easyphoto.jobs import host as rooms
from easyphoto.jobs.folders import input_name
from easyphoto.jobs.host import Room
from easyphoto.jobs.store import Input, NewJob
from easyphoto.orders import PortraitOrder, TrainOrder
from easyphoto.specs import TrainSpec
from easyphoto.work import Job, JobState
from tests.engine.real_host import boot
from tests.jobs.conftest import until

pytestmark = [
    pytest.mark.skipif("EASYPHOTO_WEBUI_DIR" not in os.environ, reason="EASYPHOTO_WEBUI_DIR does not point at a WebUI"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    os.environ["EASYPHOTO_HOME"] = str(tmp_path_factory.mktemp("home"))
    boot(Path(os.environ["EASYPHOTO_WEBUI_DIR"]).absolute())
    rooms.leave()  # the extension may be installed in the host, with another home
    yield rooms.room(WebuiEngine)
    rooms.leave()


@pytest.fixture
def options(room: Room) -> Iterator[dict[str, object]]:
    """The host's settings, which must be the same afterwards."""
    before = dict(room.options.data)
    yield before
    assert dict(room.options.data) == before


def ended(room: Room, job: Job) -> Job:
    until(lambda: room.store.get(job.id).state.ended, 600)
    found = room.store.get(job.id)
    assert found.failure is None
    assert found.state is JobState.DONE
    return found


@pytest.mark.usefixtures("options")
def test_a_training_and_a_portrait_go_through_the_queue_in_the_hosts_process(
    room: Room, base_model: Path, sample_people: Path
) -> None:
    assert base_model in [model.path for model in room.base_models()]
    spec = TrainSpec.for_family("Anna", base_model, Family.EMBEDDED)
    spec = replace(spec, optim=replace(spec.optim, max_steps=4), validate=replace(spec.validate, every=0))
    files = sorted((sample_people / "woman").glob("*.jpg"))[:5]
    inputs = [Input(name=input_name(number, file.name), data=file) for number, file in enumerate(files)]
    order = TrainOrder(photos=tuple(Path("inputs", item.name) for item in inputs), spec=spec)
    ended(room, room.store.submit(NewJob(order=order), inputs))
    template = room.settings.templates / "garden-afternoon.jpg"
    job = ended(room, room.store.submit(NewJob(order=PortraitOrder(templates=(template,), people=("Anna",), seed=7))))
    (picture,) = room.store.result(job.id).pictures
    (face,) = picture.faces
    assert face.similarity is not None
    assert face.similarity > 0.4, "below this it is somebody else"
    assert "<lora:easyphoto-Anna-" in picture.infotext


def test_the_routes_answer_in_the_hosts_process(room: Room) -> None:
    # Here, because the hosts' own packages warn when they are imported.
    from fastapi import FastAPI

    from easyphoto.api.mount import serve_in
    from tests.api.rig import listening

    app = FastAPI()
    serve_in(app, room, SimpleNamespace(api_auth="anna:secret"))
    with listening(app) as port, httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}/easyphoto") as client:
        assert client.get("/v1/people").status_code == 401
        assert [person["name"] for person in client.get("/v1/people", auth=("anna", "secret")).json()["items"]] == ["Anna"]
        models = client.get("/v1/models", auth=("anna", "secret")).json()["items"]
        assert "base-256" in [model["id"] for model in models]
        client.auth = httpx.BasicAuth("anna", "secret")
        for path in _readable(room):
            answer = client.get(f"/v1/{path}")
            assert (path, answer.status_code) == (path, 200)
            assert answer.content


def _readable(room: Room) -> list[str]:
    """Everything that can be looked at, once."""
    portraits, training = room.store.list()
    person, result = room.app.people.get("Anna").person_id, room.store.result(portraits.id)
    return [
        "jobs", f"jobs/{training.id}", f"jobs/{portraits.id}/events", f"jobs/{portraits.id}/files/{_shown(room, portraits)}",
        "people", f"people/{person}", f"people/{person}/photos", f"people/{person}/reference",
        "templates", "templates/garden-afternoon", "models", "health", "metrics",
        "results", f"results/{result.id}", f"results/{result.id}/files/{result.pictures[0].file}",
    ]  # fmt: skip


def _shown(room: Room, job: Job) -> str:
    """The name of the last picture that the job showed on its way."""
    return [Path(event.path).name for _, event in room.store.events(job.id) if event.path][-1]
