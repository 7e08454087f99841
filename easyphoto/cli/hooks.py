"""`easyphoto webhooks secret`: what receivers check our messages with."""

from __future__ import annotations

import argparse
import threading

from easyphoto.cli.commands import print_json, settings_of
from easyphoto.errors import NotFound
from easyphoto.work import LOCAL_OWNER

Arguments = argparse.Namespace


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the verb to the grammar."""
    verb = verbs.add_parser("webhooks", help="how receivers know that a message is ours")
    actions = verb.add_subparsers(dest="action", required=True)
    secret = actions.add_parser("secret", parents=[common], help="the secret that webhooks are signed with")
    secret.add_argument("name", nargs="?", default=LOCAL_OWNER, help="whose token handed the jobs in (default: the first)")
    secret.set_defaults(run=show_secret)


def show_secret(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print the secret; made when it is first asked for."""
    from easyphoto.api.tokens import TokenStore
    from easyphoto.api.webhooks import webhook_secret

    home, name = settings_of(arguments).home, arguments.name
    owners = {entry.name: entry.owner for entry in TokenStore(home).list()} | {LOCAL_OWNER: LOCAL_OWNER}
    if name not in owners:
        raise NotFound(f"there is no token of the name {name!r}; see easyphoto tokens list")
    secret = webhook_secret(home, owners[name])
    print_json({"secret": secret}) if arguments.json else print(secret)
    return 0
