"""What each kind of job does, from its order to its result."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from easyphoto.app import App
from easyphoto.errors import Cancelled, EasyPhotoError, InputError, JobFailed, StorageError, ToolMissing
from easyphoto.events import Event
from easyphoto.imaging.io import encode_png, load_photo, save_jpeg
from easyphoto.jobs.desk import Desk
from easyphoto.jobs.folders import now
from easyphoto.jobs.results import ResultFolder, safe_stem
from easyphoto.marking import Claims, MarkingSettings
from easyphoto.marking.marks import judge, mark, ready
from easyphoto.orders import CheckOrder, DrillOrder, PortraitOrder, TrainOrder
from easyphoto.records import Photo, Pixels
from easyphoto.specs import Person, PortraitRequest, PortraitResult, PortraitSettings
from easyphoto.training.launch import find_begun, wait_for_worker
from easyphoto.training.preprocess import NoUsablePhoto
from easyphoto.work import FaceScore, Job, JobKind, JobResult, Missed, Picture

DRILLS = "drills.txt"
"""In the queue's folder: a line for each drill that came to its end, its id and the attempt."""
_LOG_LINES = 200
"""Of the training process's own log, taken into the job's."""
_TRY_AGAIN = "hand the job in again"


def run(desk: Desk) -> JobResult:
    """Run a job, whatever its kind."""
    order = desk.turn.order
    if isinstance(order, TrainOrder):
        return run_training(desk, order)
    if isinstance(order, PortraitOrder):
        return run_portraits(desk, order)
    if isinstance(order, CheckOrder):
        return run_check(desk, order)
    return run_drill(desk, order)


def run_training(desk: Desk, order: TrainOrder) -> JobResult:
    """Check the photos, train, publish; the result has the verdicts, the score and the best picture."""
    order = dataclasses.replace(order, photos=tuple(map(desk.input, order.photos)))
    try:
        trained = desk.app.train(order, desk.watch, queued_as=desk.turn.job.id)
    except NoUsablePhoto as error:
        for verdict in error.verdicts:
            desk.log(f"{verdict.photo}: {verdict.sentence}")
        raise
    finally:
        _take_training_log(desk, order)
    folder = _folder(desk)
    picture = trained.result.face_id_picture
    if picture is not None:
        folder.add(f"best{picture.suffix}", picture.read_bytes())
    folder.add("reference.png", trained.person.reference.read_bytes())
    result = dataclasses.replace(
        _blank(desk.turn.job), person=trained.person.name, score=trained.person.score, verdicts=trained.prepared.verdicts,
        warnings=trained.prepared.warnings,
    )  # fmt: skip
    return folder.commit(result)


def _take_training_log(desk: Desk, order: TrainOrder) -> None:
    """The training process's own log, its end at least, into the job's."""
    begun = find_begun(desk.app.shelf(order.spec.kind), order.spec.person, desk.turn.job.id)
    with suppress(OSError):
        for line in begun.log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:] if begun else ():
            desk.log(f"training: {line}")


def run_check(desk: Desk, order: CheckOrder) -> JobResult:
    """Judge the photos; the result has the verdicts, also where not one photo can be used."""
    folder = _folder(desk)
    try:
        prepared = desk.app.check(dataclasses.replace(order, photos=tuple(map(desk.input, order.photos))), desk.listen)
    except NoUsablePhoto as error:
        return folder.commit(dataclasses.replace(_blank(desk.turn.job), verdicts=error.verdicts, warnings=(str(error),)))
    folder.add("reference.png", encode_png(prepared.photos[prepared.reference].crop.pixels))
    verdicts = dataclasses.replace(_blank(desk.turn.job), verdicts=prepared.verdicts, warnings=prepared.warnings)
    return folder.commit(verdicts)


def run_portraits(desk: Desk, order: PortraitOrder) -> JobResult:
    """Each template in turn; those that fail are told, and if all do the job fails."""
    people = tuple(name if name is None else desk.app.people.get(name) for name in order.people)
    marking = desk.marking()
    ready(marking)
    own = None if order.id_picture is None else load_photo(desk.input(order.id_picture))
    work = _Portraits(desk=desk, order=order, people=people, folder=_folder(desk), marking=marking, id_picture=own)
    shown = [person for person in people if person is not None]
    each = len(shown) * (1 if order.second is None else 2) + bool(order.background)
    passes = len(order.templates) * order.count * each
    with desk.at_gpu(), desk.app.shared.painting(shown, passes, desk.watch) as work.told:
        for number, template in enumerate(order.templates):
            work.make(number, template)
    if not work.pictures:
        raise work.errors[0]
    result = dataclasses.replace(_blank(desk.turn.job), pictures=tuple(work.pictures), missed=tuple(work.missed))
    return work.folder.commit(result)


@dataclasses.dataclass(kw_only=True, eq=False)
class _Portraits:
    """One job's portraits on their way."""

    desk: Desk
    order: PortraitOrder
    people: tuple[Person | None, ...]
    folder: ResultFolder
    marking: MarkingSettings
    id_picture: Photo | None = None
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    missed: list[Missed] = dataclasses.field(default_factory=list)
    errors: list[EasyPhotoError] = dataclasses.field(default_factory=list)
    told: Sequence[str] = ()
    """What a host's engine does otherwise than asked; grows while it paints."""

    def make(self, number: int, template: Path) -> None:
        """Make the pictures of one template, or note why there are none."""
        settings = {item.name: getattr(self.order, item.name) for item in dataclasses.fields(PortraitSettings)}
        # The gate is held for all of them already.
        watch = dataclasses.replace(self.desk.watch, gpu=nullcontext, show=None if self.marking.safety else self._show)
        try:
            photo = load_photo(self.desk.input(template))
            request = PortraitRequest(**settings, template=photo, people=self.people, id_picture=self.id_picture)
            results = self.desk.app.portraits(request, watch)
        except (Cancelled, StorageError, ToolMissing):
            raise
        except EasyPhotoError as error:
            self._miss(template.name, error)
            return
        for result in results:
            self._keep(f"{number + 1:03d}-{safe_stem(template.stem)}-{result.seed}", template.name, result)

    def _miss(self, template: str, error: EasyPhotoError) -> None:
        self.missed.append(Missed(template=template, code=error.code, sentence=str(error)))
        self.errors.append(error)
        self.desk.listen(Event(kind="log", message=f"{template} gave no picture: {error}"))

    def _keep(self, stem: str, template: str, result: PortraitResult) -> None:
        verdict = judge(result.picture, self.marking)
        if verdict is not None and verdict.label == "refused":
            self._miss(template, InputError(verdict.sentence))
            return
        infotext = self.desk.app.shared.infotext(result.infotext, [person for person in self.people if person is not None])
        png = encode_png(result.picture.pixels, {"parameters": infotext})
        claims = Claims(id=self.desk.turn.job.id, title=f"{stem}.png")
        file = self.folder.add(f"{stem}.png", mark(png, self.marking, claims))
        for number, face in enumerate(result.faces if self.order.stages else ()):
            for name, photo in face.stages:
                self.folder.add(f"{stem}-face{number}-{name.replace(' ', '-')}.png", encode_png(photo.pixels))
        self.pictures.append(
            Picture(
                file=file, template=template, seed=result.seed, infotext=infotext, seconds=result.seconds,
                faces=tuple(FaceScore(person=face.person, similarity=face.similarity) for face in result.faces),
                warnings=tuple(dict.fromkeys((*result.warnings, *self.told))), safety=verdict,
            )
        )  # fmt: skip
        self._show("finished", result.picture.pixels)

    def _show(self, stage: str, pixels: Pixels) -> None:
        """A picture to look at while the others are made; the listener copies it under its own name."""
        shown = self.desk.turn.folder.root / ".shown.jpg"
        with suppress(StorageError):  # worth no failure: a full disk is met where something is written that counts
            save_jpeg(shown, pixels)
        total = len(self.order.templates) * self.order.count
        self.desk.listen(Event(kind="sample", stage=stage, step=len(self.pictures), total=total, path=str(shown)))
        shown.unlink(missing_ok=True)


def run_drill(desk: Desk, order: DrillOrder) -> JobResult:
    """Nothing but time; each one that comes to its end adds a line to `DRILLS`."""
    if order.needs_gpu:
        with desk.at_gpu():
            _drill(desk, order)
    else:
        _drill(desk, order)
    if order.fail:
        raise JobFailed(f"this drill was ordered to fail, and did; {_TRY_AGAIN} without fail")
    result = _folder(desk).commit(_blank(desk.turn.job))
    with suppress(OSError):
        descriptor = os.open(desk.turn.folder.root.parent / DRILLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{desk.turn.job.id} {desk.turn.job.attempt}\n".encode())
        os.close(descriptor)
    return result


def _drill(desk: Desk, order: DrillOrder) -> None:
    for step in range(1, order.steps + 1):
        ends = time.monotonic() + order.seconds
        while (left := ends - time.monotonic()) > 0 and not desk.cancel.wait(min(left, 0.05)):
            pass
        desk.listen(Event(kind="progress", stage="drill", step=step, total=order.steps))


def _folder(desk: Desk) -> ResultFolder:
    return ResultFolder(desk.app.home, desk.turn.job.id)


def _blank(job: Job) -> JobResult:
    return JobResult(id=job.id, kind=job.kind, owner=job.owner, created=now(), person=job.person, subject=job.subject)


def wait_for_orphan(app: App, job: Job) -> None:
    """Wait until the training process of a killed runner has gone too, so that two never share the GPU."""
    trains = job.kind is JobKind.TRAINING and job.person
    begun = find_begun(app.shelf(job.subject), job.person or "", job.id) if trains else None
    if begun is not None:
        wait_for_worker(begun)
