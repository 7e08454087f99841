"""One example of everything that travels, for the document; made of the records, so that none can be wrong."""

from __future__ import annotations

from easyphoto.api import wire
from easyphoto.families import Family
from easyphoto.orders import Consent
from easyphoto.records import PhotoScores, Reason, TrainKind, Verdict
from easyphoto.work import FaceScore, Job, JobKind, JobProgress, JobResult, JobState, Picture, ResultFile

_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
PERSON_ID = "anna-5b1a3c9d2e"
JOB_ID = "4f9a1c0d7be24a66"
CONSENT = Consent(given_by="Anna herself", given_at="2026-07-01", note="for the team page")
PERSON = wire.PersonView(
    id=PERSON_ID, name="Anna", family=Family.EMBEDDED, created="2026-07-01T09:30:00+00:00", score=0.52, photos=8,
    consent=CONSENT,
)  # fmt: skip
PEOPLE = wire.PersonPage(items=(PERSON,), next=None)
VERDICT = Verdict(
    photo="beach.jpg", accepted=True, reason=Reason.GOOD, sentence="Taken: sharp, and seen from the front.",
    scores=PhotoScores(face_px=412.0, sharpness=0.81, frontality=0.93, identity=0.66, faces=1), is_reference=True,
)  # fmt: skip
VERDICTS = wire.VerdictPage(items=(VERDICT,), next=None)
TRAINING = Job(
    id=JOB_ID, kind=JobKind.TRAINING, owner="local", state=JobState.RUNNING, created="2026-07-01T09:28:00.000+00:00",
    started="2026-07-01T09:28:01.000+00:00", attempt=1, person="Anna", version=17,
    progress=JobProgress(stage="training", step=120, total=400, seconds_left=64.0, preview="preview-0001.jpg"),
)  # fmt: skip
SCENE = wire.SceneView(
    id="scene-old-harbour-0c94e1d2aa", name="Old harbour", kind=TrainKind.SCENE, family=Family.SD15,
    created="2026-07-02T08:00:00+00:00", photos=16, prompt="old harbour at dusk, special_scene, scene", lora="Old_harbour_4e1d",
)  # fmt: skip
SCENES = wire.ScenePage(items=(SCENE,), next=None)
SCENE_TRAINING = Job(
    id=JOB_ID, kind=JobKind.TRAINING, owner="local", state=JobState.QUEUED, created="2026-07-02T07:50:00.000+00:00",
    person="Old harbour", subject=TrainKind.SCENE, version=40,
)  # fmt: skip
WAITING = Job(
    id=JOB_ID, kind=JobKind.PORTRAITS, owner="local", state=JobState.QUEUED, created="2026-07-01T10:00:00.000+00:00",
    person="Anna", version=31,
)  # fmt: skip
CANCELLED = Job(
    id=JOB_ID, kind=JobKind.PORTRAITS, owner="local", state=JobState.CANCELLED, created="2026-07-01T10:00:00.000+00:00",
    ended="2026-07-01T10:00:02.000+00:00", person="Anna", version=32,
)  # fmt: skip
JOBS = wire.JobPage(items=(WAITING, TRAINING), next=None)
RESULT = JobResult(
    id=JOB_ID, kind=JobKind.PORTRAITS, owner="local", created="2026-07-01T10:00:21+00:00", person="Anna",
    pictures=(
        Picture(
            file="001-studio-7.png", template="studio.jpg", seed=7, infotext="easyphoto_face, easyphoto, 1person\nSteps: 50",
            faces=(FaceScore(person="Anna", similarity=0.55),),
        ),
    ),
    files=(ResultFile(name="001-studio-7.png", media_type="image/png", size=812_345, sha256=_DIGEST),),
)  # fmt: skip
RESULTS = wire.ResultPage(items=(RESULT,), next=None)
TEMPLATES = wire.TemplatePage(
    items=(wire.TemplateView(name="studio", sex="woman", age=30, words="a studio portrait"),), next=None
)
MODELS = wire.ModelPage(items=(wire.ModelView(id="base-256", family=Family.EMBEDDED, default=True),), next=None)
REMOVED = wire.Removed(removed=("people/anna-5b1a3c9d2e/Anna.safetensors", "people/anna-5b1a3c9d2e/person.json"))
HEALTH = wire.Health(status="ok")
STREAM = """id: 12
event: progress
data: {"kind": "progress", "stage": "training", "step": 120, "total": 400, "seconds_left": 64.0}

"""
FIGURES = """# HELP easyphoto_jobs Jobs in the queue's book.
# TYPE easyphoto_jobs gauge
easyphoto_jobs{kind="training",state="running"} 1.0
"""

PEOPLE_REQUEST = {
    "name": "Anna",
    "photos": [{"name": "beach.jpg", "data": "/9j/4AAQSkZJRgABAQ=="}],
    "settings": {"lora": {"rank": 32}, "optim": {"max_steps": 400}},
    "consent": {"given_by": "Anna herself", "given_at": "2026-07-01", "note": "for the team page"},
}
SCENES_REQUEST = {
    "name": "Old harbour",
    "prompt": "old harbour at dusk",
    "photos": [{"name": "quay.jpg", "data": "/9j/4AAQSkZJRgABAQ=="}, {"name": "boats.jpg", "data": "/9j/4AAQSkZJRgABAQ=="}],
    "captions": ["a quay of old stone at dusk", ""],
}
SCENE_CHANGE = {"name": "Harbour"}
CHECKS_REQUEST = {"photos": [{"name": "beach.jpg", "data": "/9j/4AAQSkZJRgABAQ=="}]}
PORTRAITS_REQUEST = {
    "people": [PERSON_ID],
    "templates": [{"gallery": "studio"}],
    "settings": {"seed": 7, "first": {"strength": 0.45}},
}
PERSON_CHANGE = {"name": "Anna Maria"}
