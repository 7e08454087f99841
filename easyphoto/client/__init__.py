"""A typed client of the API: `Client` for ordinary programs, `AsyncClient` for asynchronous ones.

Everything about them is in docs/api.md; runnable examples lie in api_test/.
"""

from easyphoto.client.asynchronous import AsyncClient
from easyphoto.client.problems import (
    ApiError,
    BadAnswer,
    FieldError,
    Problem,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
    WaitTimeout,
)
from easyphoto.client.records import (
    Health,
    ModelView,
    PersonView,
    PortraitOptions,
    Removed,
    SceneView,
    TemplateView,
    TrainSettings,
)
from easyphoto.client.retry import Retry
from easyphoto.client.synchronous import Client
from easyphoto.client.uploads import Upload
from easyphoto.client.webhooks import ended_job
from easyphoto.events import Event
from easyphoto.orders import Consent
from easyphoto.records import TrainKind, Verdict
from easyphoto.signing import BadSignature, verify
from easyphoto.work import Job, JobKind, JobResult, JobState

__all__ = [
    "ApiError",
    "AsyncClient",
    "BadAnswer",
    "BadSignature",
    "Client",
    "Consent",
    "Event",
    "FieldError",
    "Health",
    "Job",
    "JobKind",
    "JobResult",
    "JobState",
    "ModelView",
    "PersonView",
    "PortraitOptions",
    "Problem",
    "Removed",
    "Retry",
    "SceneView",
    "TemplateView",
    "TooManyRequests",
    "TrainKind",
    "TrainSettings",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "Upload",
    "Verdict",
    "WaitTimeout",
    "ended_job",
    "verify",
]
