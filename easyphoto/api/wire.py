"""What travels on the wire beside the records of the queue: requests as they come, and views made for reading.

Frozen dataclasses like all our records; `models` makes the pydantic models and the OpenAPI schemas of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from easyphoto.errors import SpecError
from easyphoto.families import Family
from easyphoto.orders import Consent
from easyphoto.presets import Preset
from easyphoto.records import TrainKind, Verdict
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, PortraitSettings, ValidateSpec
from easyphoto.work import Job, JobResult


@dataclass(frozen=True, kw_only=True)
class PhotoSource:
    """One photo in a JSON body: its bytes, or where it lies on the web (refused unless the server allows it)."""

    name: str | None = None
    """File name, as the verdicts shall call it; any letters."""
    data: str | None = None
    """The picture file in base64; a `data:` URL is taken too."""
    url: str | None = None
    """http or https address of the picture."""

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise SpecError("give data or url, one of the two")


@dataclass(frozen=True, kw_only=True)
class TemplateSource:
    """One template in a JSON body: of the gallery, its bytes, or where it lies on the web."""

    gallery: str | None = None
    """Name of a template of GET /templates."""
    name: str | None = None
    """File name of `data` or `url`, as the result shall call it; any letters."""
    data: str | None = None
    """The picture file in base64; a `data:` URL is taken too."""
    url: str | None = None
    """http or https address of the picture."""

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.gallery, self.data, self.url)) != 1:
            raise SpecError("give gallery, data or url, one of the three")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a person is trained; what is left out is as the preset and the base model's family want it."""

    preset: Preset | None = None
    """"fast", "balanced" or "best"; of people alone."""
    lora: LoraSpec | None = None
    optim: OptimSpec | None = None
    data: DataSpec | None = None
    validate: ValidateSpec | None = None
    seed: int | None = None
    base_model: str | None = None
    """Id of a model of GET /models; the server's own by default."""


@dataclass(frozen=True, kw_only=True)
class PeopleRequest:
    """A person to be trained."""

    name: str
    photos: tuple[PhotoSource, ...] = ()
    """5 to 20 photos that show the person, from several sides and in several lights."""
    settings: TrainSettings | None = None
    take: tuple[str, ...] = ()
    """File names that are taken whatever their verdict."""
    retouch: bool = True
    """Smooth the skin before training."""
    replace: bool = False
    """Train a person anew who was trained before."""
    consent: Consent | None = None
    priority: int = 0
    """-10 to 10; higher goes first."""
    webhook: str | None = None
    """Told by a signed POST when the job ends."""


@dataclass(frozen=True, kw_only=True)
class ScenesRequest:
    """A scene, or a garment, to be trained."""

    name: str
    kind: TrainKind = TrainKind.SCENE
    """"scene" or "cloth"."""
    prompt: str = ""
    """What the photos show, for those without a caption of their own."""
    photos: tuple[PhotoSource, ...] = ()
    """15 to 20 photos of one place, light or style; of a garment one is enough."""
    captions: tuple[str, ...] = ()
    """One for each photo, in their order; an empty one takes the prompt. Leave it out if all take it."""
    settings: TrainSettings | None = None
    take: tuple[str, ...] = ()
    """File names that are taken whatever their verdict."""
    replace: bool = False
    """Train a scene anew that was trained before."""
    consent: Consent | None = None
    """Of people whom the photos show."""
    priority: int = 0
    """-10 to 10; higher goes first."""
    webhook: str | None = None
    """Told by a signed POST when the job ends."""


@dataclass(frozen=True, kw_only=True)
class ChecksRequest:
    """Photos to be judged, nothing more."""

    photos: tuple[PhotoSource, ...] = ()
    take: tuple[str, ...] = ()
    """File names that are taken whatever their verdict."""
    retouch: bool = True
    kind: TrainKind = TrainKind.PERSON
    """What they are photos of: in those of a scene no face is wanted."""
    priority: int = 0
    """-10 to 10; higher goes first."""
    webhook: str | None = None
    """Told by a signed POST when the job ends."""


@dataclass(frozen=True, kw_only=True)
class PortraitsRequest:
    """People put into templates; one that fails is told in the result, and the others go on."""

    people: tuple[str | None, ...]
    """Ids of people, for the faces of a template from left to right; null leaves that face."""
    templates: tuple[TemplateSource, ...] = ()
    settings: PortraitSettings = field(default_factory=PortraitSettings)
    id_picture: PhotoSource | None = None
    """Shows the one person for `settings.id_control`; null takes everybody's own reference photo."""
    priority: int = 0
    """-10 to 10; higher goes first."""
    webhook: str | None = None
    """Told by a signed POST when the job ends."""


@dataclass(frozen=True, kw_only=True)
class PersonChange:
    """What may be changed of a person; what is left out stays."""

    name: str | None = None
    """The person's new name; their id changes with it."""
    consent: Consent | None = None


@dataclass(frozen=True, kw_only=True)
class SceneChange:
    """What may be changed of a scene."""

    name: str
    """The scene's new name; its id changes with it."""


@dataclass(frozen=True, kw_only=True)
class SceneView:
    """A trained scene or garment."""

    id: str
    name: str
    kind: TrainKind
    family: Family
    """Of the base model it was trained on."""
    created: str
    """ISO 8601, UTC."""
    photos: int
    """How many photos were trained on."""
    prompt: str
    """What it was trained with, and what calls it up."""
    lora: str
    """What a portrait's prompt names it by: `<lora:NAME:0.8>`."""


@dataclass(frozen=True, kw_only=True)
class ScenePage:
    """Scenes and clothes, by name."""

    items: tuple[SceneView, ...]
    next: str | None
    """Hand this in as `cursor` for what follows; null at the end."""


@dataclass(frozen=True, kw_only=True)
class PersonView:
    """A trained person."""

    id: str
    name: str
    family: Family
    """Of the base model they were trained on."""
    created: str
    """ISO 8601, UTC."""
    score: float | None
    """1 - dlib distance of the kept checkpoint's pictures to the person; null where nothing was judged."""
    photos: int
    """How many photos were trained on."""
    consent: Consent | None
    """Who said that the photos may be used, and when; null where nobody was asked."""


@dataclass(frozen=True, kw_only=True)
class PersonPage:
    """People, by name."""

    items: tuple[PersonView, ...]
    next: str | None
    """Hand this in as `cursor` for what follows; null at the end."""


@dataclass(frozen=True, kw_only=True)
class VerdictPage:
    """What became of each photo of a person."""

    items: tuple[Verdict, ...]
    next: str | None
    """Hand this in as `cursor` for what follows; null at the end."""


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """Jobs, newest first."""

    items: tuple[Job, ...]
    next: str | None
    """Hand this in as `cursor` for what follows; null at the end."""


@dataclass(frozen=True, kw_only=True)
class ResultPage:
    """Results, newest first."""

    items: tuple[JobResult, ...]
    next: str | None
    """Hand this in as `cursor` for what follows; null at the end."""


@dataclass(frozen=True, kw_only=True)
class TemplateView:
    """One picture of the gallery."""

    name: str
    sex: str | None
    """"woman" or "man"; null where nobody said."""
    age: int | None
    words: str
    """What the scene shows."""


@dataclass(frozen=True, kw_only=True)
class TemplatePage:
    """The gallery, in order."""

    items: tuple[TemplateView, ...]
    next: str | None
    """Hand this in as `cursor` for what follows; null at the end."""


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """One base model."""

    id: str
    family: Family
    default: bool
    """Portraits, and trainings that name no other, are made with this one."""


@dataclass(frozen=True, kw_only=True)
class ModelPage:
    """The base models that are installed."""

    items: tuple[ModelView, ...]
    next: str | None
    """Hand this in as `cursor` for what follows; null at the end."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed."""

    removed: tuple[str, ...]
    """Paths below the server's home, and rows of its queue."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """That the server answers."""

    status: str
    """Always "ok"."""


@dataclass(frozen=True, kw_only=True)
class FieldProblem:
    """What is wrong with one field."""

    field: str
    """Where: "settings.lora.rank", "photos[2].data" ..."""
    message: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a request was refused (RFC 9457)."""

    type: str
    """A name of the kind of problem, "urn:easyphoto:problem:" and the code."""
    title: str
    status: int
    """The HTTP status again."""
    detail: str
    """What, why, what to do."""
    instance: str
    """The path that was asked for."""
    code: str
    """For programs; does not change."""
    errors: tuple[FieldProblem, ...] = ()
