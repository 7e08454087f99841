"""How reForge is told of the embedded model; the real one is looked at by `tests/engine/test_webui_real.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from easyphoto.engine.webui_teaching import teach_forge, teach_reforge, teacher
from easyphoto.store.ldm_checkpoint import write_ldm

NAME = "easyphoto-base-256"


class SD15:
    """`ldm_patched.modules.supported_models.SD15` as far as it matters here."""

    unet_config = {"context_dim": 768, "model_channels": 320, "use_linear_in_transformer": False}  # noqa: RUF012
    unet_extra_config = {"num_heads": 8, "num_head_channels": -1}  # noqa: RUF012
    latent_format: Any = None

    def clip_target(self, state_dict: object = None) -> Any:
        return None


class VAE:
    """reForge's autoencoder: sizes are SD's unless a config is given."""

    def __init__(self, sd: Any = None, device: Any = None, config: Any = None, metadata: Any = None) -> None:
        self.given = (sd, device, config, metadata)


@pytest.fixture
def reforge(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of reForge that are touched."""
    def put(name: str, **parts: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(parts)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    for package in ("ldm_patched", "ldm_patched.modules", "modules_forge"):
        put(package).__path__ = []
    names = ("SD1Tokenizer", "SD1ClipModel", "SDTokenizer", "SDClipModel")
    clip = {name: lambda name=name, **asked: (name, asked) for name in names}
    return SimpleNamespace(
        known=put("ldm_patched.modules.supported_models", SD15=SD15, models=[SD15]),
        latents=put("ldm_patched.modules.latent_formats", SD15=lambda scale_factor: ("latents", scale_factor)),
        base=put("ldm_patched.modules.supported_models_base", ClipTarget=lambda tokenizer, clip: (tokenizer, clip)),
        clip=put("ldm_patched.modules.sd1_clip", **clip), loader=put("modules_forge.forge_loader", VAE=VAE),
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_ldm(base_model, folder, folder / "nets", NAME, extension=False)
    return folder


def test_each_host_has_its_teacher() -> None:
    assert teacher(ModuleType("sd_models")) is None
    assert teacher(SimpleNamespace(forge_model_reload=1)) is teach_forge  # type: ignore[arg-type]
    assert teacher(SimpleNamespace(load_model_to_device=1)) is teach_reforge  # type: ignore[arg-type]


def test_reforge_is_told_once_and_its_own_kinds_stay_as_they_are(
    reforge: SimpleNamespace, base_model: Path, checkpoints: Path
) -> None:
    teach_reforge(base_model, checkpoints, NAME)
    loader = reforge.loader.VAE
    teach_reforge(base_model, checkpoints, NAME)
    assert reforge.loader.VAE is loader
    ours, plain = reforge.known.models
    assert plain is SD15
    assert plain.unet_config["context_dim"] == 768
    assert (ours.unet_config["context_dim"], ours.unet_config["model_channels"]) == (256, 96)
    assert ours.unet_extra_config == {"num_heads": -1, "num_head_channels": 32}
    assert ours().latent_format() == ("latents", pytest.approx(0.42168))


def test_its_text_encoder_and_words_are_the_models_own(reforge: SimpleNamespace, base_model: Path, checkpoints: Path) -> None:
    teach_reforge(base_model, checkpoints, NAME)
    tokenizer, model = reforge.known.models[0]().clip_target(state_dict={})
    name, asked = tokenizer(embedding_directory="embeddings", tokenizer_data={})
    assert (name, asked["embedding_directory"]) == ("SD1Tokenizer", "embeddings")
    _, words = asked["tokenizer"]()
    assert (Path(words["tokenizer_path"]) / "vocab.json").is_file()
    assert words["embedding_size"] == 256
    name, asked = model(device="cpu", dtype=None, model_options={})
    _, text = asked["clip_model"]()
    assert name == "SD1ClipModel"
    assert Path(text["textmodel_json_config"]).is_file()
    assert text["special_tokens"] == {"start": 2583, "end": 2584, "pad": 2584}


@pytest.mark.parametrize(("width", "own"), [(96, True), (128, False)])
def test_only_an_autoencoder_of_our_width_gets_our_sizes(
    reforge: SimpleNamespace, base_model: Path, checkpoints: Path, width: int, own: bool
) -> None:
    teach_reforge(base_model, checkpoints, NAME)
    weights = {"encoder.conv_in.weight": SimpleNamespace(shape=(width, 3, 3, 3))}
    made = reforge.loader.VAE(sd=weights, metadata="told")
    assert isinstance(made, VAE)
    sd, _, config, metadata = made.given
    assert (sd, metadata) == (weights, "told")
    assert (config is not None) is own
    if own:
        assert config["params"]["ddconfig"]["ch"] == 96
    assert reforge.loader.VAE(None, "cpu").given == (None, "cpu", None, None)
