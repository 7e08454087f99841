"""`easyphoto serve` and `easyphoto tokens`."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from easyphoto.cli.commands import print_json, settings_of
from easyphoto.errors import InputError, NotFound, SpecError
from easyphoto.settings import Settings
from easyphoto.store.codec import to_json

if TYPE_CHECKING:
    from easyphoto.api.front import AddPages
    from easyphoto.api.options import ApiOptions
    from easyphoto.api.process import Pages
    from easyphoto.api.service import Service
    from easyphoto.api.tokens import TokenStore

Arguments = argparse.Namespace
_ANYWHERE = "0.0.0.0"  # noqa: S104 (only where it was asked for, behind a login)


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add both to the grammar."""
    _serve(verbs.add_parser("serve", parents=[common], help="offer everything in a browser, and to programs over HTTP"))
    _tokens(verbs.add_parser("tokens", help="who may use the server"), common)


def _serve(verb: argparse.ArgumentParser) -> None:
    where = verb.add_mutually_exclusive_group()
    where.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    where.add_argument("--listen", action="store_true", help="let the network in, with --auth; the same as --host 0.0.0.0")
    verb.add_argument("--port", type=int, default=7861, help="0 takes a free one (default: 7861)")
    verb.add_argument("--auth", metavar="NAME:PASSWORD,...", help="who may open the tabs; @FILE reads it from a file")
    verb.add_argument("--no-auth", action="store_true", help="ask for no token; on this machine alone")
    verb.add_argument("--ckpt-dir", type=Path, metavar="DIR", help="further base models (default: $EASYPHOTO_MODELS)")
    verb.add_argument("--lora-dir", type=Path, metavar="DIR", help="every trained LoRA is copied to DIR/easyphoto too")
    verb.add_argument("--controlnet-dir", type=Path, metavar="DIR", help="ControlNets for a checkpoint that has none inside")
    verb.add_argument("--template-dir", type=Path, metavar="DIR", help="the template gallery (default: our own)")
    verb.add_argument("--allow-urls", action="store_true", help="fetch pictures that are named by their web address")
    verb.add_argument("--allow-private-webhooks", action="store_true", help="tell webhooks in the own network too")
    verb.add_argument("--reads-per-second", type=float, help="of each token; 0: no limit (default: 50)")
    verb.add_argument("--jobs-per-second", type=float, help="of each token; 0: no limit (default: 5)")
    verb.add_argument("--log-requests", action="store_true", help="print a line for each request")
    verb.add_argument("--no-tabs", action="store_true", help="the routes alone, no pages")
    verb.add_argument("--print-openapi", action="store_true", help="print the OpenAPI document and end")
    verb.set_defaults(run=serve)


def _tokens(verb: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = verb.add_subparsers(dest="action", required=True)
    listing = verbs.add_parser("list", parents=[common], help="who has a token")
    listing.set_defaults(run=tokens_list)
    actions = (("add", tokens_add, "make a token; it is shown once"), ("remove", tokens_remove, "make a token worthless"))
    for name, run, words in actions:
        one = verbs.add_parser(name, parents=[common], help=words)
        one.add_argument("name")
        one.set_defaults(run=run)


def serve(arguments: Arguments, _cancel: threading.Event) -> int:
    """Serve until somebody ends it."""
    from easyphoto.api.application import ROOT
    from easyphoto.api.options import ApiOptions, Rates
    from easyphoto.api.process import address, listen, run

    if arguments.print_openapi:
        return _print_document()
    settings, users = _settings(arguments), _users(arguments)
    said = {"reads": arguments.reads_per_second, "posts": arguments.jobs_per_second}
    models = arguments.ckpt_dir or os.environ.get("EASYPHOTO_MODELS")
    options = ApiOptions(
        host=_ANYWHERE if arguments.listen else arguments.host, port=arguments.port, no_auth=arguments.no_auth,
        allow_urls=arguments.allow_urls, allow_private_webhooks=arguments.allow_private_webhooks,
        models=Path(models).absolute() if models else None,
        rates=Rates(**{name: value for name, value in said.items() if value is not None}),
    )  # fmt: skip
    with listen(options) as listening:
        where = address(listening)
        print(f"easyphoto: {where} ({_about_token(settings.home, options.no_auth)})", flush=True)
        pages = None if arguments.no_tabs else _tabs(options, users)
        if pages:
            who = f" (as {', '.join(name for name, _ in users)})" if users else ""
            page = where.removesuffix(ROOT + "/v1") + "/"
            seen = page.replace(_ANYWHERE, "127.0.0.1", 1)
            elsewhere = f", from elsewhere {page.replace(_ANYWHERE, socket.gethostname(), 1)}" if seen != page else ""
            print(f"tabs: {seen}{elsewhere}{who}", flush=True)
        run(settings, options, listening, arguments.log_requests, pages)
    return 0


def _settings(arguments: Arguments) -> Settings:
    """The settings with the folders that were named; NotFound for one that is not there."""
    said = {"lora_folder": arguments.lora_dir, "templates": arguments.template_dir, "controlnets": arguments.controlnet_dir}
    for folder in (*said.values(), arguments.ckpt_dir):
        if folder is not None and not folder.is_dir():
            raise NotFound(f"there is no folder {folder}; make it, or name another one")
    named = {name: folder.absolute() for name, folder in said.items() if folder is not None}
    return replace(settings_of(arguments), **named)


def _users(arguments: Arguments) -> tuple[tuple[str, str], ...]:
    """(name, password) of everybody whom `--auth` lets in; (), where the token is asked for.

    Raises:
        SpecError: A server for the network, and nobody was said; or what was said cannot be read.
    """
    from easyphoto.api.front import users_of

    said: str = arguments.auth or ""
    if arguments.listen and not arguments.no_tabs and not said:
        raise SpecError(
            "--listen lets everybody in the network knock, so say who may come in: --auth NAME:PASSWORD (several by "
            "commas), or --auth @FILE with the same in a file; for programs alone, with their tokens, say --no-tabs"
        )
    if said and arguments.no_auth:
        raise SpecError("--auth says who may come in and --no-auth that everybody may; leave one of them out")
    if said.startswith("@"):
        try:
            said = Path(said[1:]).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"{said[1:]} cannot be read ({error}); name a text file with NAME:PASSWORD") from error
    return users_of(said)


def _tabs(options: ApiOptions, users: Sequence[tuple[str, str]]) -> Pages | None:
    """The tabs as pages of the server, behind its login; None, told, where Gradio is not installed."""
    from easyphoto.api.front import Doorman
    from easyphoto.api.tokens import TokenStore
    from easyphoto.app import App
    from easyphoto.work import LOCAL_OWNER

    try:
        from easyphoto.ui.serving import OWN_NAME, Login, mount
    except ImportError as error:
        print(f"tabs: not shown, {error.name} is not installed (pip install gradio)", flush=True)
        return None
    from easyphoto.ui.studio import Studio

    def pages(service: Service) -> AddPages:
        tokens = TokenStore(service.settings.home)
        studio = Studio(App(service.settings), service.store, options.models)
        by_name = Login(may_enter=Doorman(users), hint=OWN_NAME)
        by_token = Login(may_enter=lambda _name, token: tokens.owner(token) == LOCAL_OWNER)
        login = None if options.no_auth else by_name if users else by_token
        return lambda app: mount(app, studio, login=login)

    return pages


def _about_token(home: Path, no_auth: bool) -> str:
    from easyphoto.api.tokens import TokenStore
    from easyphoto.work import LOCAL_OWNER

    tokens = TokenStore(home)
    if no_auth:
        return "no token is asked for"
    if tokens.exists:
        return "the token is the one shown at the first start; easyphoto tokens add NAME makes another"
    return f"the token, shown this once: {tokens.add(LOCAL_OWNER)}"


def _print_document() -> int:
    from easyphoto.api.application import document_text

    sys.stdout.write(document_text())
    return 0


def _store(arguments: Arguments) -> TokenStore:
    from easyphoto.api.tokens import TokenStore

    return TokenStore(settings_of(arguments).home)


def tokens_list(arguments: Arguments, _cancel: threading.Event) -> int:
    """Everybody who has a token."""
    entries = _store(arguments).list()
    for entry in entries:
        if arguments.json:
            print_json({name: value for name, value in to_json(entry).items() if name != "sha256"})
        else:
            print(f"{entry.name:<24} {entry.owner:<36} {entry.created}")
    if not entries and not arguments.json:
        print("nobody has a token yet; easyphoto serve makes the first, easyphoto tokens add NAME another")
    return 0


def tokens_add(arguments: Arguments, _cancel: threading.Event) -> int:
    """Make a token and show it."""
    token = _store(arguments).add(arguments.name)
    if arguments.json:
        print_json({"name": arguments.name, "token": token})
    else:
        print(token)
    return 0


def tokens_remove(arguments: Arguments, _cancel: threading.Event) -> int:
    """Make a token worthless."""
    _store(arguments).remove(arguments.name)
    if not arguments.json:
        print(f"{arguments.name} has no token any more; what belongs to them stays")
    return 0
