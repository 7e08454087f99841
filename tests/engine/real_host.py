"""A real WebUI in this very process, without its pages: for tests that are run with the WebUI's own Python.

    EASYPHOTO_WEBUI_DIR=/where/the/webui/is /its/python -m pytest tests/engine/test_webui_real.py

The embedded model is written into its folders first, under a name of its own. Nothing is asked of the network.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from pathlib import Path

from easyphoto.engine.webui_teaching import teach_forge, teach_reforge
from easyphoto.settings import PROJECT_ROOT
from easyphoto.store.ldm_checkpoint import LdmFiles, write_ldm

CHECKPOINT = "easyphoto-base-256"
ARGUMENTS = [
    "webui.py", "--nowebui", "--api", "--skip-torch-cuda-test", "--skip-version-check", "--skip-install", "--no-half",
    "--no-half-vae", "--no-hashing",
]  # fmt: skip


@functools.cache
def boot(folder: Path) -> None:
    """Start the host in `folder` as its `webui.py` does under --nowebui, less the server; once in a process."""
    warnings.simplefilter("ignore")
    models, forge = folder / "models", (folder / "modules_forge").is_dir()
    base = PROJECT_ROOT / "models" / "base-256"
    files = write_ldm(base, models / "Stable-diffusion", models / "ControlNet", CHECKPOINT, extension=not forge)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False")
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = [*ARGUMENTS, *(["--always-cpu"] if forge else ["--use-cpu", "all"])]
    if forge:
        _boot_forge(folder, base, files)
    else:
        from modules import initialize

        initialize.imports()
        initialize.initialize()
    from fastapi import FastAPI
    from modules import script_callbacks, shared, ui

    ui.create_ui()
    script_callbacks.before_ui_callback()
    script_callbacks.app_started_callback(None, FastAPI())
    # Loaded by another thread otherwise, while the first test runs already.
    _ = shared.sd_model


def _boot_forge(folder: Path, base: Path, files: LdmFiles) -> None:
    from modules_forge.initialization import initialize_forge

    initialize_forge()
    from modules import initialize, paths  # noqa: F401 (paths puts what Forge brings along on the path)

    initialize.imports()
    teach = teach_forge if (folder / "backend").is_dir() else teach_reforge
    teach(base, files.checkpoint.parent, CHECKPOINT)
    initialize.initialize()
