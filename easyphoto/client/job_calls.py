"""The calls about jobs and what they leave: portraits, progress, waiting, results and their files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from easyphoto.client.downloads import PartFile, is_there, place_of
from easyphoto.client.paging import get, pages, path, record
from easyphoto.client.people_calls import delete, make_job, person_id
from easyphoto.client.records import PersonView, PortraitOptions, Removed
from easyphoto.client.retry import Retry, exchange
from easyphoto.client.steps import Call, EventListener, Request, Steps, Stream, work
from easyphoto.client.streams import Following, follow
from easyphoto.client.uploads import Body, Form, JsonBody, Pictures, Upload, collect, json_text
from easyphoto.errors import Cancelled, Conflict, JobFailed, NotFound
from easyphoto.events import ignore
from easyphoto.imaging.io import EXTENSIONS
from easyphoto.specs import PortraitSettings
from easyphoto.store.codec import to_json
from easyphoto.store.paths import make_folder
from easyphoto.work import Job, JobKind, JobResult, JobState


class JobCalls:
    """What a client can do with jobs and results."""

    _retry: Retry

    @Call
    def portrait(
        self, people: Sequence[PersonView | str | None] | PersonView | str, templates: Sequence[Pictures] | Pictures, *,
        settings: PortraitSettings | PortraitOptions | None = None,
        priority: int = 0, webhook: str | None = None, idempotency_key: str | None = None,
    ) -> Steps[Job]:  # fmt: skip
        """Have people put into templates, each template in turn; `wait` for the job, then `download` its result.

        Args:
            people: Whom to put in place of the faces of each template, from left to right; None leaves a face.
            templates: Picture files (a `Path`, or a text that ends like one), `Upload`s, names of the server's gallery
                (`templates()`), or http(s) addresses where the server allows them.
            settings: How the portraits are made; all fields may be left out.
            priority: -10 to 10; higher goes first.
            webhook: Told by a signed POST when the job ends; see `verify`.
            idempotency_key: As for `train`.

        Raises:
            NotFound: A file, a person or a template of the gallery is not there.
            InputError: A template or setting cannot be used; `problem.errors` of the exception says which.
        """
        several = [people] if isinstance(people, str | PersonView) else people
        request: dict[str, object] = {"people": [None if person is None else person_id(person) for person in several]}
        if settings is not None:
            request["settings"] = to_json(settings) if isinstance(settings, PortraitSettings) else dict(settings)
        if priority:
            request["priority"] = priority
        if webhook is not None:
            request["webhook"] = webhook
        body = yield from work(lambda: _portrait_body(request, templates))
        return (yield from make_job("portraits", body, self._retry, idempotency_key))

    @Call
    def jobs(
        self, *, state: JobState | str | None = None, kind: JobKind | str | None = None, person: str | None = None,
        limit: int | None = 100,
    ) -> Steps[tuple[Job, ...]]:  # fmt: skip
        """Your jobs, newest first: those in a state, of a kind, about a person of that name; None gives all there are."""
        query = (("state", _text(state)), ("kind", _text(kind)), ("person", person))
        return (yield from pages(Job, "jobs", self._retry, query, limit))

    @Call
    def job(self, job: Job | str) -> Steps[Job]:
        """A job as it stands now."""
        return (yield from get(Job, path("jobs", _id(job)), self._retry))

    @Call
    def cancel(self, job: Job | str) -> Steps[Job]:
        """Ask a job to stop; one that runs stops within a step, one that has ended stays as it is."""
        answer = yield from exchange(Request(method="DELETE", path=path("jobs", _id(job))), self._retry)
        return record(Job, answer)

    @Call
    def preview(self, job: Job | str, name: str) -> Steps[bytes]:
        """A picture that a running job shows, by the name in its progress or in an event."""
        answer = yield from exchange(Request(method="GET", path=path("jobs", _id(job), "files", name)), self._retry)
        return answer.body

    @Stream
    def events(self, job: Job | str, *, after: int = 0) -> Steps[object]:
        """The events of a job, each once, from the first (or the one after number `after`) until the job has ended.

        A broken connection, and a server that is started anew, are passed over: the stream is taken up where it broke.

        Raises:
            NotFound: There is no such job.
            Unreachable: Nothing came for `Retry.outage` seconds.
        """
        return follow(_following(job, after=after), self._retry)

    @Call
    def wait(self, job: Job | str, *, timeout: float | None = None, on_event: EventListener | None = None) -> Steps[Job]:
        """Wait until a job has ended and give it; look at its `state` and `failure`, or ask for its `result`.

        Args:
            job: The job or its id.
            timeout: Seconds; None waits for as long as it takes.
            on_event: Receives each event of the job, from its first on.

        Raises:
            WaitTimeout: It has not ended in time; it goes on all the same.
            NotFound: There is no such job.
            Unreachable: Nothing came for `Retry.outage` seconds.
        """
        return (yield from follow(_following(job, timeout=timeout, listener=on_event or ignore), self._retry))

    @Call
    def result(self, job: Job | JobResult | str) -> Steps[JobResult]:
        """What a finished job left.

        Raises:
            NotFound: There is no such job, or its result was deleted.
            JobFailed: The job failed; the message says why.
            Cancelled: The job was cancelled.
            Conflict: The job has not ended yet.
        """
        try:
            return (yield from get(JobResult, path("results", _id(job)), self._retry))
        except NotFound as error:
            missing = error
        try:
            ended = yield from get(Job, path("jobs", _id(job)), self._retry)
        except NotFound:
            raise missing from None
        raise _why(ended, missing)

    @Call
    def results(self, *, person: str | None = None, limit: int | None = 100) -> Steps[tuple[JobResult, ...]]:
        """Your results, newest first: those that show a person of that name; a limit of None gives all there are."""
        return (yield from pages(JobResult, "results", self._retry, (("person", person),), limit))

    @Call
    def download(
        self, result: JobResult | Job | str, folder: Path | str, *, replace: bool = False
    ) -> Steps[tuple[Path, ...]]:
        """Fetch all files of a result into a folder, each checked against its SHA-256, and give where they lie.

        A file is whole or not there, whenever the program ends; what lies there already is not fetched again.

        Raises:
            Conflict: Another file of that name lies there, and `replace` was not said.
            BadAnswer: A file came damaged.
            StorageError: The disk is full or cannot be written.
        """
        found = result if isinstance(result, JobResult) else (yield from JobCalls.result(self, result))
        goal = yield from work(lambda: make_folder(Path(folder)))
        placed = [(file, place_of(file, goal)) for file in found.files]
        for file, place in placed:
            if (yield from work(partial(is_there, file, place, replace))):
                continue
            part = PartFile(file, place)
            try:
                where = path("results", found.id, "files", file.name)
                yield from exchange(Request(method="GET", path=where), self._retry, part)
                yield from work(part.finish)
            finally:
                part.close()
        return tuple(place for _, place in placed)

    @Call
    def delete_result(self, result: JobResult | Job | str) -> Steps[Removed]:
        """Remove a result with all its files."""
        return (yield from delete(Request(method="DELETE", path=path("results", _id(result))), self._retry))


def _id(job: Job | JobResult | str) -> str:
    return job if isinstance(job, str) else job.id


def _text(choice: JobState | JobKind | str | None) -> str | None:
    return choice.value if isinstance(choice, JobState | JobKind) else choice


def _following(
    job: Job | str, after: int = 0, timeout: float | None = None, listener: EventListener | None = None
) -> Following:
    where = path("jobs", _id(job), "events")
    return Following(job_id=_id(job), path=where, after=after, timeout=timeout, listener=listener)


def _portrait_body(request: dict[str, object], templates: Sequence[Pictures] | Pictures) -> Body:
    """Plain JSON if nothing is uploaded; else a form with the same JSON in it and the files beside."""
    several = [templates] if isinstance(templates, str | Path | Upload) else list(templates)
    named = [_source(entry) for entry in several if isinstance(entry, str) and not _is_file(entry)]
    files = [entry for entry in several if not isinstance(entry, str) or _is_file(entry)]
    request["templates"] = named
    if not files:
        return JsonBody.of(request)
    return Form([("request", json_text(request))], [("templates", file) for file in collect(files)])


def _is_file(text: str) -> bool:
    """Names of the gallery have no ending, so that what a text means does not depend on what lies on the disk."""
    return not _is_address(text) and Path(text).suffix.lower() in EXTENSIONS


def _is_address(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _source(text: str) -> dict[str, str]:
    return {"url": text} if _is_address(text) else {"gallery": text}


def _why(job: Job, missing: NotFound) -> Exception:
    """Why a job has no result."""
    if job.state is JobState.FAILED:
        return JobFailed(f"job {job.id} failed: {job.failure.sentence if job.failure else 'the server does not say why'}")
    if job.state is JobState.CANCELLED:
        return Cancelled(f"job {job.id} was cancelled, so it has no result")
    if not job.state.ended:
        return Conflict(f"job {job.id} is still {job.state.value}; wait for it first")
    return missing
