"""The embedded model made known to Forge and reForge, which tell a checkpoint's kind by a list of their own, not by a config
beside it as AUTOMATIC1111 does.

Entries are added in memory; everything on disk is ours and lies beside the checkpoint.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from easyphoto.files import storage_error
from easyphoto.store.ldm_checkpoint import LdmFiles, ldm_config, read_config

Teach = Callable[[Path, Path, str], None]
"""Takes the model's folder in diffusers' layout, the folder where its checkpoint lies, and the checkpoint's name."""
_NAME = "EasyphotoEmbedded"


def teacher(sd_models: ModuleType) -> Teach | None:
    """How this host is taught; None for AUTOMATIC1111, which needs nothing.

    Args:
        sd_models: The host's module of that name.
    """
    if hasattr(sd_models, "forge_model_reload"):
        return teach_forge
    return teach_reforge if hasattr(sd_models, "load_model_to_device") else None


def teach_forge(model: Path, checkpoints: Path, name: str) -> None:
    """Let Forge know it: an entry in the list of models, and a folder of configs that the entry names.

    Raises:
        StorageError: The folder cannot be written.
    """
    guess: Any = importlib.import_module("huggingface_guess.model_list")
    own, files = checkpoints / f"{name}.forge", _files(checkpoints, name)
    try:
        _write_configs(model, own, files)
    except OSError as error:
        raise storage_error(own, error) from error
    if any(getattr(known, "huggingface_repo", "") == str(own) for known in guess.models):
        return
    kind = {"huggingface_repo": str(own), **_unet(model, guess.SD15)}
    guess.models.insert(0, type(_NAME, (guess.SD15,), kind))


def teach_reforge(model: Path, checkpoints: Path, name: str) -> None:
    """Let reForge know it: an entry in the list of models, and the autoencoder's sizes, which it knows of one kind only."""
    known: Any = importlib.import_module("ldm_patched.modules.supported_models")
    if any(kind.__name__ == _NAME for kind in known.models):
        return
    latents: Any = importlib.import_module("ldm_patched.modules.latent_formats")
    base: Any = importlib.import_module("ldm_patched.modules.supported_models_base")
    text = _files(checkpoints, name).text
    config = ldm_config(model, text)["model"]["params"]
    target = base.ClipTarget(partial(_tokenizer, text), partial(_text_model, text))
    kind = {
        "latent_format": staticmethod(partial(latents.SD15, scale_factor=config["scale_factor"])),
        "clip_target": lambda _self, **_: target,
        **_unet(model, known.SD15),
    }
    _teach_sizes(config["first_stage_config"]["params"])
    known.models.insert(0, type(_NAME, (known.SD15,), kind))


def _files(checkpoints: Path, name: str) -> LdmFiles:
    """Where `store.ldm_checkpoint` has written the parts."""
    return LdmFiles(
        checkpoint=checkpoints / f"{name}.safetensors", config=checkpoints / f"{name}.yaml",
        text=checkpoints / f"{name}.text", controlnets=(),
    )  # fmt: skip


def _unet(model: Path, like: Any) -> dict[str, object]:  # noqa: ANN401 (the host's own class)
    """What such a UNet is told by, and what its shapes do not say."""
    unet = read_config(model / "unet")
    channels, heads = unet["block_out_channels"][0], unet["attention_head_dim"]
    sizes = {**like.unet_config, "context_dim": unet["cross_attention_dim"], "model_channels": channels}
    # Despite its name, diffusers' attention_head_dim is the number of heads in SD1's layout.
    width = channels // (heads[0] if isinstance(heads, list) else heads)
    return {"unet_config": sizes, "unet_extra_config": {"num_heads": -1, "num_head_channels": width}}


def _write_configs(model: Path, own: Path, files: LdmFiles) -> None:
    shutil.copytree(model, own, ignore=shutil.ignore_patterns("*.safetensors", "controlnet", "tokenizer"), dirs_exist_ok=True)
    shutil.copytree(files.text, own / "tokenizer", dirs_exist_ok=True)
    vae = json.loads((own / "vae" / "config.json").read_text(encoding="utf-8"))
    wide = json.loads(files.config.read_text(encoding="utf-8"))["model"]["params"]["first_stage_config"]["params"]["ddconfig"]
    vae |= {"norm_num_groups": 32, "block_out_channels": [wide["ch"] * factor for factor in wide["ch_mult"]]}
    (own / "vae" / "config.json").write_text(json.dumps(vae), encoding="utf-8")


def _tokenizer(text: Path, **asked: Any) -> Any:  # noqa: ANN401 (reForge's own)
    clip: Any = importlib.import_module("ldm_patched.modules.sd1_clip")
    width = read_config(text)["hidden_size"]
    return clip.SD1Tokenizer(tokenizer=partial(clip.SDTokenizer, tokenizer_path=str(text), embedding_size=width), **asked)


def _text_model(text: Path, **asked: Any) -> Any:  # noqa: ANN401 (reForge's own)
    clip: Any = importlib.import_module("ldm_patched.modules.sd1_clip")
    config = read_config(text)
    ends = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["eos_token_id"]}
    own = partial(
        clip.SDClipModel, textmodel_json_config=str(text / "config.json"), return_projected_pooled=False, special_tokens=ends
    )
    return clip.SD1ClipModel(clip_model=own, **asked)


def _teach_sizes(params: dict[str, Any]) -> None:
    """Have reForge's loader build our autoencoder where the weights are of our width, and its own otherwise."""
    loader: Any = importlib.import_module("modules_forge.forge_loader")
    plain = loader.VAE
    sizes = {"ddconfig": params["ddconfig"], "embed_dim": params["embed_dim"]}

    def init(self: Any, sd: Any = None, *rest: Any, **named: Any) -> None:  # noqa: ANN401 (reForge's own)
        first = sd.get("encoder.conv_in.weight") if sd else None
        if first is not None and first.shape[0] == params["ddconfig"]["ch"]:
            named["config"] = {"params": sizes}
        plain.__init__(self, sd, *rest, **named)

    loader.VAE = type("VAE", (plain,), {"__init__": init})
