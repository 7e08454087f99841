"""The calls about scenes and clothes: training them, looking at them, deleting them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from easyphoto.client.paging import get, pages, path, record
from easyphoto.client.people_calls import delete, make_job
from easyphoto.client.records import Removed, SceneView, TrainSettings
from easyphoto.client.retry import Retry, exchange
from easyphoto.client.steps import Call, Request, Steps, work
from easyphoto.client.uploads import Form, JsonBody, Pictures, Upload, collect, json_text
from easyphoto.errors import NotFound
from easyphoto.orders import Consent
from easyphoto.records import TrainKind
from easyphoto.store.codec import to_json
from easyphoto.work import Job


class SceneCalls:
    """What a client can do with scenes."""

    _retry: Retry

    @Call
    def train_scene(
        self, name: str, photos: Sequence[Pictures] | Pictures, *, prompt: str = "", captions: bool = True,
        kind: TrainKind = TrainKind.SCENE, settings: TrainSettings | None = None, consent: Consent | None = None,
        take: Sequence[str] = (), replace: bool = False, priority: int = 0, webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[Job]:  # fmt: skip
        """Have a scene (or a garment) trained from photos; `wait` for the job, then `find_scene` it.

        Args:
            name: The scene's name, any letters.
            photos: Picture files, folders of them, or `Upload`s; 15 to 20 of one place, light or style.
            prompt: What the photos show, for those without a caption.
            captions: Send the text files that lie beside the photos (`beach.txt` for `beach.jpg`).
            kind: A scene or a garment.
            settings: What shall differ from the base model's defaults.
            consent: Of people whom the photos show.
            take: File names that are taken whatever their verdict.
            replace: Train a scene anew that was trained before.
            priority: -10 to 10; higher goes first.
            webhook: Told by a signed POST when the job ends; see `verify`.
            idempotency_key: Calls with one key make one job; by default each call has its own.

        Raises:
            NotFound: A file or folder is not there.
            InputError: The photos or settings cannot be used; `problem.errors` of the exception says which.
            Conflict: The scene is there already, or the key was used for something else.
        """
        fields = [("name", name), ("kind", kind.value), *(("take", file) for file in take)]
        said = {"prompt": prompt, "webhook": webhook, "priority": str(priority) if priority else ""}
        fields += [(field, text) for field, text in said.items() if text]
        if settings is not None:
            fields.append(("settings", json_text(settings)))
        if consent is not None:
            fields.append(("consent", json_text(to_json(consent))))
        if replace:
            fields.append(("replace", "true"))
        form = yield from work(lambda: Form(fields, [("photos", file) for file in _with_captions(photos, captions)]))
        return (yield from make_job("scenes", form, self._retry, idempotency_key))

    @Call
    def scenes(self) -> Steps[tuple[SceneView, ...]]:
        """Every scene and garment that was trained, by name."""
        return (yield from pages(SceneView, "scenes", self._retry))

    @Call
    def scene(self, scene: SceneView | str) -> Steps[SceneView]:
        """One scene by id. Raises NotFound if there is none."""
        return (yield from get(SceneView, path("scenes", _id(scene)), self._retry))

    @Call
    def find_scene(self, name: str, kind: TrainKind = TrainKind.SCENE) -> Steps[SceneView]:
        """One scene by name. Raises NotFound if there is none."""
        found = yield from pages(SceneView, "scenes", self._retry)
        for scene in found:
            if scene.name == name and scene.kind is kind:
                return scene
        known = ", ".join(scene.name for scene in found) or "none yet"
        raise NotFound(f"no {kind.value} called {name!r} was trained; the server knows {known}")

    @Call
    def scene_picture(self, scene: SceneView | str) -> Steps[bytes]:
        """What a scene looks like, as a picture file."""
        answer = yield from exchange(Request(method="GET", path=path("scenes", _id(scene), "picture")), self._retry)
        return answer.body

    @Call
    def rename_scene(self, scene: SceneView | str, name: str) -> Steps[SceneView]:
        """Give a scene another name; its id changes with it, so go on with the scene that this gives."""
        request = Request(method="PATCH", path=path("scenes", _id(scene)), body=JsonBody.of({"name": name}))
        return record(SceneView, (yield from exchange(request, self._retry)))

    @Call
    def delete_scene(self, scene: SceneView | str, *, results: bool = False) -> Steps[Removed]:
        """Remove a scene with photos, LoRA and jobs; with `results` what its trainings left among the results too."""
        query = (("results", "true"),) if results else ()
        return (yield from delete(Request(method="DELETE", path=path("scenes", _id(scene)), query=query), self._retry))


def _id(scene: SceneView | str) -> str:
    return scene if isinstance(scene, str) else scene.id


def _with_captions(photos: Sequence[Pictures] | Pictures, captions: bool) -> list[Path | Upload]:
    """The photos, and behind them the text files that lie beside them."""
    pictures = collect(photos)
    beside = [photo.with_suffix(".txt") for photo in pictures if isinstance(photo, Path)] if captions else []
    return [*pictures, *(text for text in beside if text.is_file())]
