"""From photos to a first portrait, cell by cell, against a running server.

Editors such as VS Code, PyCharm and Spyder run the cells below one at a time, like a notebook;
`python -m examples.first_portrait` runs them all. Before:

    python -m easyphoto serve                 # prints its address and, at its first start, a token
    export EASYPHOTO_URL=http://127.0.0.1:7861/easyphoto/v1 EASYPHOTO_TOKEN=...
"""

# %% Who is there
import os
from datetime import datetime, timezone

from easyphoto.client import Client, Consent, Event, JobState, TrainSettings

NAME = os.environ.get("EASYPHOTO_EXAMPLE_NAME", "Sample woman")
PHOTOS = os.environ.get("EASYPHOTO_EXAMPLE_PHOTOS", "models/sample-people/woman")
STEPS = int(os.environ.get("EASYPHOTO_EXAMPLE_STEPS", "0"))
"""0 trains as long as the base model wants; a few steps are enough to see the example work."""

client = Client()
print(client, "answers:", client.health().status)
print("people:", [person.name for person in client.people()])
print("templates:", [template.name for template in client.templates()])


# %% Which of the photos are good? Nothing is trained yet.
def show(event: Event) -> None:
    """One line for each sign of life."""
    if event.kind == "progress":
        left = "" if event.seconds_left is None else f"{event.seconds_left:.0f} s left"
        print(f"  {event.stage} {event.step}/{event.total} {left}")


checked = client.wait(client.check(PHOTOS), on_event=show)
for verdict in client.result(checked).verdicts:
    print("taken   " if verdict.accepted else "left out", verdict.photo, "-", verdict.sentence)

# %% Train. The job goes on if this program stops; `client.jobs()` finds it again.
settings: TrainSettings = {"optim": {"max_steps": STEPS}, "validate": {"every": 0}} if STEPS else {}
said = Consent(given_by=NAME, given_at=datetime.now(timezone.utc).date().isoformat())
training = client.train(NAME, PHOTOS, settings=settings, consent=said, replace=True)
training = client.wait(training, on_event=show)
assert training.state is JobState.DONE, training.failure  # noqa: S101 (an example says what it expects)
person = client.find(NAME)
print(person)

# %% Two portraits on templates of the gallery; a picture file of your own may stand there as well.
job = client.portrait(person, ["studio-woman", "living-room"], settings={"seed": 7})
result = client.result(client.wait(job, on_event=show))
for picture in result.pictures:
    print(picture.template, [(face.person, face.similarity) for face in picture.faces])
for path in client.download(result, "portraits"):
    print("open", path)

# %% Everything about this person goes, finished portraits too. Take the `if` away to do it.
if os.environ.get("EASYPHOTO_EXAMPLE_DELETE"):
    for removed in client.delete_person(person, results=True).removed:
        print("removed", removed)
client.close()
