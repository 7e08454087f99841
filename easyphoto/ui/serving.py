"""The tabs as the front page of a server of our own: behind its login, with Gradio's files inside the home."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from easyphoto.store.paths import make_folder
from easyphoto.ui import gradio_versions as versions
from easyphoto.ui.options import TabOptions
from easyphoto.ui.studio import Studio
from easyphoto.ui.tabs import build, dress

MayEnter = Callable[[str, str], bool]
"""Whether a name and a password are somebody's who may use the tabs."""
LARGEST_UPLOAD = 200 * 1024 * 1024
"""Bytes of one file."""
ANY_NAME = "Any name; the password is the token that was shown when the server was first started."
OWN_NAME = "The name and the password that the server was started with."


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who may use the tabs."""

    may_enter: MayEnter
    hint: str = ANY_NAME
    """What the login page says."""


def mount(app: Any, studio: Studio, options: TabOptions | None = None, login: Login | None = None) -> Any:  # noqa: ANN401
    """Serve the tabs below "/" of a FastAPI application.

    Args:
        app: The application; what it has at other paths goes first. Its life is that of the tabs.
        studio: Whose people, jobs and results they show.
        options: How they are shown.
        login: Asked by a login page; None asks nobody, which is for a server that this machine alone can reach.

    Returns:
        The application.
    """
    own_room(studio)
    page = build(studio, options or TabOptions())
    door: dict[str, Any] = {"auth": login.may_enter, "auth_message": login.hint} if login else {}
    limits: dict[str, Any] = {"max_file_size": LARGEST_UPLOAD} if versions.MAJOR >= 4 else {}
    served = gr.mount_gradio_app(app, page, path="/", **door, **limits, **versions.served(dress()))
    versions.calm(page)
    return served


def own_room(studio: Studio) -> None:
    """Let Gradio keep uploads in the home, not beside everybody's; what an earlier run left there goes."""
    room = studio.app.settings.home / "tabs"
    shutil.rmtree(room, ignore_errors=True)
    make_folder(room).chmod(0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(room)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
