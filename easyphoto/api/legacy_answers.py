"""What the older extension's clients are told: its fields, and its words where a client may look for them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from easyphoto.api.legacy_orders import Begun
from easyphoto.errors import EasyPhotoError, NotFound
from easyphoto.work import Failure, Job, JobResult, JobState

if TYPE_CHECKING:
    from easyphoto.api.service import Service

Answer = Mapping[str, object]
"""The body of an answer."""
TRAIN_ERROR = "Train error, error info:"
INFER_ERROR = "Infer error, error info:"
NO_VIDEO = f"{INFER_ERROR}videos cannot be made here yet; send pictures to easyphoto_infer_forward."


def train_answer(message: str) -> Answer:
    """Of a training that did not come to its end."""
    return {"message": message}


def infer_answer(message: str) -> Answer:
    """Of portraits that gave no picture."""
    return {"message": message, "outputs": [], "face_id_outputs": []}


def video_answer(message: str) -> Answer:
    """Of a video that was not made."""
    return {"message": message, "outputs": [], "output_video": None, "output_gif": None}


def trained(_: Service, begun: Begun, job: Job) -> Answer:
    """Of a training that has ended."""
    if job.state is JobState.DONE:
        return train_answer(_lines("The training has been completed.", *begun.notes))
    return train_answer(_training_failure(job.failure))


def inferred(service: Service, begun: Begun, job: Job) -> Answer:
    """Of portraits that have ended, with the pictures in base64."""
    if job.state is not JobState.DONE:
        return infer_answer(_portrait_failure(job.failure))
    try:
        result = service.store.result(job.id, job.owner)
        folder = service.store.result_folder(job.id, job.owner)
        outputs = [_base64(folder / picture.file) for picture in result.pictures]
    except (NotFound, OSError):
        return infer_answer(f"{INFER_ERROR}the result was deleted.")
    faces = _face_ids(service, result) if begun.scores else []
    return {"message": _lines(*_told(result), *begun.notes), "outputs": outputs, "face_id_outputs": faces}


def _training_failure(failure: Failure | None) -> str:
    if failure is None:
        return f"{TRAIN_ERROR}the training was cancelled."
    if failure.code == "conflict":
        return "User id non-repeatability."
    if failure.code == "bad_photo":
        return _lines("Failed to obtain preprocessed images, please check the preprocessing process.", failure.sentence)
    if failure.code == "job_failed":
        return _lines("Failed to obtain Lora after training, please check the training process.", failure.sentence)
    return TRAIN_ERROR + failure.sentence


def _portrait_failure(failure: Failure | None) -> str:
    """Portraits fail as a whole only if no template gave a picture."""
    if failure is None:
        return f"{INFER_ERROR}the job was cancelled."
    if failure.code == "bad_template":
        return _lines("Please upload a template with face.", failure.sentence)
    return INFER_ERROR + failure.sentence


def _told(result: JobResult) -> list[str]:
    """One line for each picture, then one for each template that gave none."""
    made = len(result.pictures)
    lines = [f"Template {place} Success." for place in range(1, made + 1)]
    missed = enumerate(result.missed, made + 1)
    return lines + [f"Template {place} error: Error info is {miss.sentence}." for place, miss in missed]


def _face_ids(service: Service, result: JobResult) -> list[list[str]]:
    """For each face its person's reference photo and how near it came, both in base64."""
    people = service.people(result.owner)
    pairs = []
    for face in (face for picture in result.pictures for face in picture.faces):
        if face.similarity is None:
            continue
        told = f"{face.similarity:.2f}, {face.person}, the reference image"
        with suppress(EasyPhotoError, OSError):  # deleted meanwhile
            pairs.append([_base64(people.get(face.person).reference), _coded(told.encode("utf-8"))])
    return pairs


def _base64(path: Path) -> str:
    return _coded(path.read_bytes())


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _lines(*lines: str) -> str:
    return "\n".join(lines)
