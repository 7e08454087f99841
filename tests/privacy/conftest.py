"""One real home, made once by real jobs on a tiny base model: two people, a portrait of each and one of both."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from easyphoto.app import App
from easyphoto.families import Family
from easyphoto.jobs.follow import run_order
from easyphoto.jobs.store import Input, JobStore, NewJob, input_name
from easyphoto.orders import Consent, Order, PortraitOrder, TrainOrder
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, PassRequest, TrainSpec, ValidateSpec
from easyphoto.training.job import JobOrder, new_job
from easyphoto.training.prepared_files import write_prepared
from easyphoto.work import Job, JobState
from tests.tiny import make_tiny_base

ZOE, BEA = "Zoë Quandt", "Bea"
PLACE = b"48.8584N-2.2945E"


def photo(path: Path) -> bytes:
    """A sample photo as a phone would hand it in: with the place where it was taken."""
    tags = Image.Exif()
    tags[0x010E] = PLACE.decode()
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.24), 3: "E", 4: (2.0, 17.0, 40.2)})
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.save(stream, "JPEG", quality=95, exif=tags)
    return stream.getvalue()


def photos_of(sex: str) -> tuple[bytes, ...]:
    return tuple(photo(path) for path in sorted((PROJECT_ROOT / "models" / "sample-people" / sex).glob("*.jpg"))[:3])


def settings_for(home: Path, base: Path) -> Settings:
    return replace(Settings.from_env({}), home=home, base_model=base, lora_folder=home.parent / "webui")


def order_training(name: str, base: Path, consent: Consent | None = None, judged: bool = False) -> TrainOrder:
    spec = TrainSpec(
        person=name, base_model=base, family=Family.EMBEDDED, lora=LoraSpec(rank=2, alpha=1.0),
        optim=OptimSpec(steps_per_photo=1, max_steps=2, batch_size=1), data=DataSpec(size=64, crops=0),
        validate=ValidateSpec(every=2 if judged else 0, templates=1, steps=2, merge_best=1), device="cpu",
    )  # fmt: skip
    photos = tuple(Path("inputs") / input_name(place, f"{place}.jpg") for place in range(3))
    return TrainOrder(photos=photos, spec=spec, consent=consent, retouch=False)


def order_portrait(*people: str, template: str = "office.jpg") -> PortraitOrder:
    step = PassRequest(steps=1)
    template_path = sorted((PROJECT_ROOT / "templates").glob("*.jpg"))[0] if template == "any" else template
    return PortraitOrder(templates=(Path(template_path),), people=people, first=step, second=None)


def inputs(data: tuple[bytes, ...], ending: str = "jpg") -> tuple[Input, ...]:
    return tuple(Input(name=input_name(place, f"{place}.{ending}"), data=one) for place, one in enumerate(data))


def done(settings: Settings, order: Order, given: tuple[Input, ...] = (), owner: str = "local") -> Job:
    job = run_order(settings, NewJob(order=order, owner=owner), given)
    assert job.state is JobState.DONE, job.failure
    return job


def leave_training(settings: Settings, name: str, photos: tuple[bytes, ...], folder: Path) -> None:
    """The folder of a training that was cut off behind its first checkpoint."""
    folder.mkdir()
    for place, data in enumerate(photos):
        (folder / f"{place}.jpg").write_bytes(data)
    app, order = App(settings), replace(order_training(name, settings.base_model), photos=(folder,))
    job = new_job(app.home.jobs, order.spec, JobOrder(templates=(), created=time.time()))
    write_prepared(app.check(order), job.prepared)
    shutil.copyfile(app.people.get(name).lora, job.checkpoint(2))
    shutil.copyfile(app.people.get(name).lora, job.state)
    job.log.write_text(f"training {name!r}\n", encoding="utf-8")


def two_faces() -> bytes:
    """A template that shows two people side by side."""
    folder = PROJECT_ROOT / "models" / "sample-people"
    both = Image.new("RGB", (512, 256))
    for place, sex in enumerate(("woman", "man")):
        with Image.open(folder / sex / "09.jpg") as image:
            both.paste(image.convert("RGB").resize((256, 256)), (place * 256, 0))
    stream = io.BytesIO()
    both.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/ and home/; nobody changes it."""
    folder = tmp_path_factory.mktemp("privacy")
    base, home = make_tiny_base(folder / "base"), folder / "home"
    settings = settings_for(home, base)
    word = Consent(given_by=f"{ZOE} herself", given_at="2026-11-21")
    done(settings, order_training(ZOE, base, word, judged=True), inputs(photos_of("woman")))
    done(settings, order_training(BEA, base), inputs(photos_of("man")))
    for people in ((ZOE,), (BEA,), (ZOE, BEA)):
        template = Path("inputs") / input_name(0, "0.png")
        done(settings, replace(order_portrait(*people), templates=(template,)), inputs((two_faces(),), "png"))
    # A job that did not come to its end keeps what was handed in.
    store = JobStore(home)
    waiting = store.submit(NewJob(order=order_training(ZOE, base)), inputs(photos_of("woman")))
    assert store.cancel(waiting.id).state is JobState.CANCELLED
    store.close()
    for name, sex in ((ZOE, "woman"), (BEA, "man")):
        leave_training(settings, name, photos_of(sex), folder / sex)
    lost = run_order(settings, NewJob(order=order_portrait("Carl", template="any")))
    assert lost.state is JobState.FAILED
    assert lost.failure
    assert ZOE in lost.failure.sentence
    log = f"2026-11-21 the job of {ZOE} began\n2026-11-21 the job of {BEA} began\n2026-11-21 ZOË QUANDT'S job ended\n"
    (home / "queue" / "worker.log").write_text(log, encoding="utf-8")
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of the home to do with as one likes."""
    shutil.copytree(made / "home", tmp_path / "home", symlinks=True)
    return tmp_path / "home"


@pytest.fixture
def app(made: Path, home: Path) -> App:
    return App(settings_for(home, made / "base"))


@pytest.fixture
def store(home: Path) -> Iterator[JobStore]:
    opened = JobStore(home)
    yield opened
    opened.close()
