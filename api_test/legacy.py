"""Call a running server the way clients of the older EasyPhoto extension do; they go on working, and this shows how.

Three routes that answer when the work is done, always with status 200, errors in `message`, pictures in base64. For anything
new use `easyphoto.client`. Needs nothing but Python.

    EASYPHOTO_URL=... EASYPHOTO_TOKEN=... python -m api_test.legacy infer Anna --templates beach.jpg --output portraits
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def main() -> int:
    """Train or make portraits; 0 if the message does not tell of an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train", help="train a person")
    train.add_argument("user_id")
    train.add_argument("photos", type=Path, help="a folder of pictures")
    train.add_argument("--max-steps", type=int, default=800)
    train.add_argument("--no-validation", action="store_true")
    infer = verbs.add_parser("infer", help="make portraits")
    infer.add_argument("user_id")
    infer.add_argument("--templates", nargs="+", type=Path, required=True, help="picture files")
    infer.add_argument("--output", type=Path, default=Path("portraits"))
    infer.add_argument("--seed", type=int, default=-1)
    infer.add_argument("--steps", type=int, nargs=2, default=(50, 20), help="of the first and the second pass")
    arguments = parser.parse_args()
    return call_train(arguments) if arguments.verb == "train" else call_infer(arguments)


def call_train(arguments: argparse.Namespace) -> int:
    """One request that lasts as long as the training."""
    pictures = sorted(path for path in arguments.photos.iterdir() if path.suffix.lower() in PICTURES)
    answer = post("easyphoto_train_forward", {
        "user_id": arguments.user_id,
        "instance_images": [encoded(path) for path in pictures],
        "max_train_steps": arguments.max_steps,
        "validation": not arguments.no_validation,
    })  # fmt: skip
    print(answer["message"])
    return 0 if answer["message"].startswith("The training has been completed.") else 1


def call_infer(arguments: argparse.Namespace) -> int:
    """One request that lasts as long as the portraits."""
    answer = post("easyphoto_infer_forward", {
        "user_ids": [arguments.user_id],
        "uploaded_template_images": [encoded(path) for path in arguments.templates],
        "first_diffusion_steps": arguments.steps[0],
        "second_diffusion_steps": arguments.steps[1],
        "seed": arguments.seed,
        "display_score": True,
        "tabs": 2,
    })  # fmt: skip
    print(answer["message"])
    arguments.output.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(answer["outputs"]):
        path = arguments.output / f"legacy-{number}.png"
        path.write_bytes(base64.b64decode(picture))
        print(path)
    for _, told in answer["face_id_outputs"]:
        print(base64.b64decode(told).decode("utf-8"))
    return 0 if answer["outputs"] else 1


def encoded(path: Path) -> str:
    """A file in base64."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def post(route: str, fields: dict[str, Any]) -> dict[str, Any]:
    """One call; ends the script with the server's sentence if it is refused (no token, too large ...)."""
    url = os.environ.get("EASYPHOTO_URL") or "http://127.0.0.1:7861"
    if not url.startswith(("http://", "https://")):
        sys.exit(f"EASYPHOTO_URL must begin with http:// or https://, got {url}")
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("EASYPHOTO_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    address = f"{url.rstrip('/').removesuffix('/easyphoto/v1')}/easyphoto/{route}"
    request = urllib.request.Request(address, json.dumps(fields).encode(), headers)  # noqa: S310 (checked above)
    try:
        with urllib.request.urlopen(request, timeout=3600) as response:  # noqa: S310 (http or https, checked above)
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            sys.exit(f"the server refused: {error.read().decode('utf-8', 'replace')}")
    except urllib.error.URLError as error:
        sys.exit(f"{url} cannot be reached: {error.reason}")
    return answer


if __name__ == "__main__":
    sys.exit(main())
