"""Put trained people into templates through a running server, and fetch the pictures.

    EASYPHOTO_URL=... EASYPHOTO_TOKEN=... python -m api_test.infer Anna --templates studio-woman beach.jpg --output portraits
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from easyphoto.client import AsyncClient, JobState, PortraitOptions
from easyphoto.errors import EasyPhotoError


async def main() -> int:
    """Make portraits; 0 if each template gave one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="whom to put in place of the template's faces, from left to right")
    parser.add_argument("--templates", nargs="+", help="picture files, or names of the server's gallery (none: list them)")
    parser.add_argument("--output", type=Path, default=Path("portraits"))
    parser.add_argument("--seed", type=int, help="the same seed gives the same picture (default: drawn at random)")
    parser.add_argument("--count", type=int, default=1, help="pictures of each template")
    parser.add_argument("--steps", type=int, help="steps of both passes (default: the base model's)")
    arguments = parser.parse_args()
    try:
        async with AsyncClient() as client:
            if not arguments.names or not arguments.templates:
                return await gallery(client)
            return await portraits(client, arguments)
    except EasyPhotoError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_status


async def gallery(client: AsyncClient) -> int:
    """Print who and what there is to choose from."""
    print("people:   ", ", ".join(person.name for person in await client.people()) or "nobody yet; train somebody first")
    print("templates:", ", ".join(template.name for template in await client.templates()))
    return 0


async def portraits(client: AsyncClient, arguments: argparse.Namespace) -> int:
    """Make and fetch the pictures."""
    people = [await client.find(name) for name in arguments.names]
    settings: PortraitOptions = {"seed": arguments.seed, "count": arguments.count}
    if arguments.steps is not None:
        settings["first"] = settings["second"] = {"steps": arguments.steps}
    job = await client.portrait(people, arguments.templates, settings=settings)
    async for event in client.events(job):
        if event.kind == "progress":
            print(f"{event.stage} {event.step}/{event.total}", flush=True)
    job = await client.job(job)
    if job.state is not JobState.DONE:
        print(f"{job.state.value}: {job.failure.sentence if job.failure else 'somebody asked for it'}", file=sys.stderr)
        return 1
    result = await client.result(job)
    for picture in result.pictures:
        near = ", ".join("no face found" if face.similarity is None else f"{face.similarity:.2f}" for face in picture.faces)
        print(f"{picture.file}: {picture.template}, seed {picture.seed}, similarity {near}")
    for missed in result.missed:
        print(f"{missed.template}: {missed.sentence}", file=sys.stderr)
    for path in await client.download(result, arguments.output):
        print(path)
    return 1 if result.missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
