"""What the WebUI loads: the host runs this file anew at every "Reload UI", so all state is kept in the `easyphoto` package."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from modules import script_callbacks

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
# Now: the host takes our folder off the path again when this file has run. What is imported once stays importable below it.
import easyphoto  # noqa: E402, F401


def _say_what_is_there(*_: object) -> None:
    """Once the WebUI runs: one line of log, that our engine can work or what is missing and what to do."""
    from easyphoto.engine.webui import WebuiEngine
    from easyphoto.errors import EasyPhotoError

    logger = logging.getLogger("easyphoto")
    try:
        engine = WebuiEngine()
        logger.info("easyphoto: ready, the checkpoint is %s (%s)", engine.name, engine.family.value)
    except EasyPhotoError as error:
        logger.warning("easyphoto: %s", error)


# Positional: AUTOMATIC1111 has no other argument, newer ones and Forge have `name` as well.
script_callbacks.on_app_started(_say_what_is_there)
