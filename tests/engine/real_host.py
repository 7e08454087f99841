"""A real WebUI in this very process, without its pages: for tests that are run with the WebUI's own Python.

    EASYPHOTO_WEBUI_DIR=/where/the/webui/is /its/python -m pytest tests/engine/test_webui_real.py

The embedded model is written into its folders first, under a name of its own. Nothing is asked of the network.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from pathlib import Path

from easyphoto.settings import PROJECT_ROOT
from easyphoto.store.ldm_checkpoint import LdmFiles, write_ldm

CHECKPOINT = "easyphoto-base-256"
ARGUMENTS = [
    "webui.py", "--nowebui", "--api", "--skip-torch-cuda-test", "--skip-version-check", "--skip-install", "--no-half",
    "--no-half-vae", "--no-hashing",
]  # fmt: skip


def boot(folder: Path) -> None:
    """Start the host in `folder` as its `webui.py` does under --nowebui, less the server."""
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

    _teach_forge(folder, base, files)
    initialize.imports()
    initialize.initialize()


def _teach_forge(folder: Path, base: Path, files: LdmFiles) -> None:
    """Let Forge know the embedded model: it has a list of models instead of a config beside each checkpoint."""
    from huggingface_guess import model_list

    name = f"easyphoto/{CHECKPOINT}"
    sizes = {**model_list.SD15.unet_config, "context_dim": 256, "model_channels": 96}
    heads = {"num_heads": -1, "num_head_channels": 32}
    own_kind = {"huggingface_repo": name, "unet_config": sizes, "unet_extra_config": heads}
    model_list.models.insert(0, type("Embedded", (model_list.SD15,), own_kind))
    own = folder / "backend" / "huggingface" / name
    shutil.copytree(base, own, ignore=shutil.ignore_patterns("*.safetensors", "controlnet", "tokenizer"), dirs_exist_ok=True)
    shutil.copytree(files.text, own / "tokenizer", dirs_exist_ok=True)
    vae = json.loads((own / "vae" / "config.json").read_text(encoding="utf-8"))
    wide = json.loads(files.config.read_text(encoding="utf-8"))["model"]["params"]["first_stage_config"]["params"]["ddconfig"]
    vae |= {"norm_num_groups": 32, "block_out_channels": [wide["ch"] * factor for factor in wide["ch_mult"]]}
    (own / "vae" / "config.json").write_text(json.dumps(vae), encoding="utf-8")
