"""The calls about people: training them, looking at them, deleting them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from easyphoto.client.paging import get, pages, path, record
from easyphoto.client.problems import ApiError
from easyphoto.client.records import PersonView, Removed, TrainSettings
from easyphoto.client.retry import Retry, exchange
from easyphoto.client.steps import Answer, Call, Request, Steps, work
from easyphoto.client.uploads import Body, Form, JsonBody, Pictures, collect, json_text
from easyphoto.errors import NotFound
from easyphoto.orders import Consent
from easyphoto.records import Verdict
from easyphoto.store.codec import to_json
from easyphoto.work import Job


class PeopleCalls:
    """What a client can do with people."""

    _retry: Retry

    @Call
    def train(
        self, name: str, photos: Sequence[Pictures] | Pictures, *, settings: TrainSettings | None = None,
        consent: Consent | None = None, take: Sequence[str] = (), retouch: bool = True, replace: bool = False,
        priority: int = 0, webhook: str | None = None, idempotency_key: str | None = None,
    ) -> Steps[Job]:  # fmt: skip
        """Have a person trained from their photos; `wait` for the job, then `find` the person.

        Args:
            name: The person's name, any letters.
            photos: Picture files, folders of them, or `Upload`s; 5 to 20 that show the person from several sides.
            settings: What shall differ from the base model's defaults.
            consent: Who said that these photos may be used, and when.
            take: File names that are taken whatever their verdict.
            retouch: Smooth the skin before training.
            replace: Train a person anew who was trained before.
            priority: -10 to 10; higher goes first.
            webhook: Told by a signed POST when the job ends; see `verify`.
            idempotency_key: Calls with one key make one job, also from several programs; by default each call has its own.

        Raises:
            NotFound: A file or folder is not there.
            InputError: The photos or settings cannot be used; `problem.errors` of the exception says which.
            Conflict: The person is there already, or the key was used for something else.
        """
        fields = [("name", name), *_judging(take, retouch), *_queueing(priority, webhook)]
        if settings is not None:
            fields.append(("settings", json_text(settings)))
        if consent is not None:
            fields.append(("consent", json_text(to_json(consent))))
        if replace:
            fields.append(("replace", "true"))
        form = yield from _photos_form(fields, photos)
        return (yield from make_job("people", form, self._retry, idempotency_key))

    @Call
    def check(
        self, photos: Sequence[Pictures] | Pictures, *, take: Sequence[str] = (), retouch: bool = True,
        priority: int = 0, webhook: str | None = None, idempotency_key: str | None = None,
    ) -> Steps[Job]:  # fmt: skip
        """Have photos judged and nothing more; the job's result has a verdict for each. Arguments as for `train`."""
        form = yield from _photos_form([*_judging(take, retouch), *_queueing(priority, webhook)], photos)
        return (yield from make_job("checks", form, self._retry, idempotency_key))

    @Call
    def people(self) -> Steps[tuple[PersonView, ...]]:
        """Everyone who was trained, by name."""
        return (yield from pages(PersonView, "people", self._retry))

    @Call
    def person(self, person: PersonView | str) -> Steps[PersonView]:
        """One person by id. Raises NotFound if there is none."""
        return (yield from get(PersonView, path("people", person_id(person)), self._retry))

    @Call
    def find(self, name: str) -> Steps[PersonView]:
        """One person by name. Raises NotFound if there is none."""
        everyone = yield from pages(PersonView, "people", self._retry)
        for person in everyone:
            if person.name == name:
                return person
        known = ", ".join(person.name for person in everyone) or "nobody yet"
        raise NotFound(f"nobody called {name!r} was trained; the server knows {known}")

    @Call
    def photos(self, person: PersonView | str) -> Steps[tuple[Verdict, ...]]:
        """What became of each photo of a person, and why."""
        return (yield from pages(Verdict, path("people", person_id(person), "photos"), self._retry))

    @Call
    def reference(self, person: PersonView | str) -> Steps[bytes]:
        """The person's reference photo, as a picture file."""
        answer = yield from exchange(Request(method="GET", path=path("people", person_id(person), "reference")), self._retry)
        return answer.body

    @Call
    def rename(self, person: PersonView | str, name: str) -> Steps[PersonView]:
        """Give a person another name; their id changes with it, so go on with the person that this gives."""
        return (yield from self._change(person, {"name": name}))

    @Call
    def consent(self, person: PersonView | str, consent: Consent | None) -> Steps[PersonView]:
        """Keep with a person who said that their photos may be used, and when; None takes the note back."""
        return (yield from self._change(person, {"consent": to_json(consent)}))

    def _change(self, person: PersonView | str, change: Mapping[str, object]) -> Steps[PersonView]:
        request = Request(method="PATCH", path=path("people", person_id(person)), body=JsonBody.of(change))
        answer = yield from exchange(request, self._retry)
        return record(PersonView, answer)

    @Call
    def delete_person(self, person: PersonView | str, *, results: bool = False) -> Steps[Removed]:
        """Remove a person with photos, embeddings, LoRA and jobs; with `results` the finished portraits too."""
        query = (("results", "true"),) if results else ()
        return (yield from delete(Request(method="DELETE", path=path("people", person_id(person)), query=query), self._retry))


def person_id(person: PersonView | str) -> str:
    """The id of a person who is named by it, or by the person as the server showed them."""
    return person if isinstance(person, str) else person.id


def make_job(where: str, body: Body, retry: Retry, key: str | None) -> Steps[Job]:
    """Send what makes a job, under one idempotency key however often it must be sent."""
    headers = (("Idempotency-Key", key or secrets.token_hex(16)),)
    answer = yield from exchange(Request(method="POST", path=where, headers=headers, body=body), retry)
    return record(Job, answer)


def delete(request: Request, retry: Retry) -> Steps[Removed]:
    """Delete something, and tell what went.

    Raises:
        NotFound: There was nothing; not if an earlier try broke off, because that one may well have removed it.
    """
    try:
        answer: Answer = yield from exchange(request, retry)
    except NotFound as error:
        if isinstance(error, ApiError) and error.after_loss:
            return Removed()
        raise
    return record(Removed, answer)


def _photos_form(fields: Sequence[tuple[str, str]], photos: Sequence[Pictures] | Pictures) -> Steps[Form]:
    return (yield from work(lambda: Form(fields, [("photos", file) for file in collect(photos)])))


def _judging(take: Sequence[str], retouch: bool) -> list[tuple[str, str]]:
    fields = [("take", name) for name in take]
    return fields if retouch else [*fields, ("retouch", "false")]


def _queueing(priority: int, webhook: str | None) -> list[tuple[str, str]]:
    fields = [("priority", str(priority))] if priority else []
    return fields if webhook is None else [*fields, ("webhook", webhook)]
