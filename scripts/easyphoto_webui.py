"""What the WebUI loads: the host runs this file anew at every "Reload UI", so all state is kept in the `easyphoto` package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from modules import initialize_util, script_callbacks, sd_models, shared

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
# Now: the host takes our folder off the path again when this file has run. What is imported once stays importable below it.
import easyphoto  # noqa: E402, F401


def _prepare() -> None:
    from easyphoto.jobs.host import prepare

    prepare(sd_models)


def _room() -> Any:  # noqa: ANN401 (an easyphoto.jobs.host.Room)
    from easyphoto.engine.webui import WebuiEngine
    from easyphoto.jobs.host import room

    return room(WebuiEngine)


def _serve(_page: object, app: Any) -> None:  # noqa: ANN401 (a FastAPI)
    from easyphoto.api.mount import serve_in

    serve_in(app, _room(), shared.cmd_opts, list(initialize_util.get_gradio_auth_creds()))


def _tabs() -> list[tuple[Any, str, str]]:
    from easyphoto.ui.host import host_tabs

    try:
        from modules import infotext_utils as paste
    except ImportError:  # before 1.8
        from modules import generation_parameters_copypaste as paste
    return host_tabs(_room, paste)


def _settings() -> None:
    from easyphoto.ui.host import add_settings

    add_settings(shared)


# Positional: AUTOMATIC1111 has no other argument, newer ones and Forge have `name` as well.
script_callbacks.on_app_started(_serve)
script_callbacks.on_ui_tabs(_tabs)
script_callbacks.on_ui_settings(_settings)
# Forge and reForge know checkpoints by a list of their own, and load one while their pages are made.
if any(hasattr(sd_models, name) for name in ("forge_model_reload", "load_model_to_device")):
    _prepare()
