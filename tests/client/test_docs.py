"""docs/api.md says what is so."""

from __future__ import annotations

import json
import re
import shlex

from easyphoto.api.application import document_text
from easyphoto.api.options import Limits, Rates
from easyphoto.api.problems import CODES
from easyphoto.api.stream import PING
from easyphoto.cli.main import parser
from easyphoto.client import Client
from easyphoto.errors import EasyPhotoError
from easyphoto.events import Event
from easyphoto.imaging.io import MAX_PIXELS, MAX_SIDE
from easyphoto.jobs.retention import Rule
from easyphoto.jobs.store import WEBHOOK_TRIES
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import PortraitSettings

TEXT = (PROJECT_ROOT / "docs" / "api.md").read_text(encoding="utf-8")
MIB = 1024 * 1024


def test_every_route_stands_in_the_table_and_no_other() -> None:
    document = json.loads(document_text())
    paths = {path.removeprefix("/easyphoto/v1"): methods for path, methods in document["paths"].items()}
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert set(re.findall(r"^\| `([A-Z]+) (/[^`]*)`", TEXT, re.MULTILINE)) == served | {("GET", "/openapi.json")}


def test_every_method_of_the_client_stands_in_its_table() -> None:
    table = TEXT.split("## The client")[1].split("- **Retries")[0]
    public = {name for name in dir(Client) if not name.startswith("_")} - {"close", "url"}
    assert set(re.findall(r"`([a-z_]+)`", table)) >= public


def test_every_command_is_one() -> None:
    commands = set(re.findall(r"python -m easyphoto ([a-z][^`#\n]*)", TEXT))
    assert len(commands) >= 8
    for command in commands:
        parser().parse_args(shlex.split(command))


def test_the_options_of_serve_stand_in_its_table() -> None:
    for option in re.findall(r"`(--[a-z-]+)`", TEXT.split("## Start")[1].split("## The token")[0]):
        parser().parse_args(["serve", option, *([] if option in _SWITCHES else ["1"])])


_SWITCHES = {"--no-auth", "--allow-urls", "--allow-private-webhooks", "--log-requests"}


def test_the_limits_are_the_servers() -> None:
    limits, rates = Limits(), Rates()
    assert f"{limits.form_bytes // MIB} MiB, {limits.files} files, {limits.form_fields} fields" in TEXT
    assert f"{limits.file_bytes // MIB} MiB, {MAX_PIXELS // 10**6} megapixels, {MAX_SIDE:,} px a side" in TEXT
    assert f"{limits.json_bytes // MIB} MiB, base64" in TEXT
    assert f"{limits.text:,} characters" in TEXT
    assert f"{rates.reads:.0f} a second after a burst of {rates.reads_burst}" in TEXT
    assert f"{rates.posts:.0f} jobs a second after a burst of {rates.posts_burst}" in TEXT
    assert f"{PING:.0f} s of silence" in TEXT
    assert f"{WEBHOOK_TRIES} times in all" in TEXT
    assert f"after {Rule().inputs:.0f} days, ended jobs with their logs after {Rule().jobs:.0f}" in TEXT


def test_every_code_and_kind_stands_there() -> None:
    def below(kind: type[EasyPhotoError]) -> set[str]:
        return {kind.code}.union(*(below(child) for child in kind.__subclasses__() if child.__module__ == "easyphoto.errors"))

    # Those of jobs, and of an error that nobody foresaw, refuse no request.
    told = below(EasyPhotoError) - {"error", "job_failed", "cancelled"} | set(CODES.values()) - {"error"}
    assert not [code for code in told if f"`{code}`" not in TEXT]
    assert not [kind for kind in Event.KINDS if f"`{kind}`" not in TEXT]
    assert not [name for name in PortraitSettings.__dataclass_fields__ if f"`{name}`" not in TEXT]


def test_the_examples_in_python_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        compile(block, "docs/api.md", "exec")
