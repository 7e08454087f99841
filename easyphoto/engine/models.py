"""The parts of a base model, loaded from a diffusers folder or a single file; ControlNets when first asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easyphoto.engine import folder, single_file
from easyphoto.engine.controlnets import find_controlnets, load_controlnet
from easyphoto.engine.detect import detect_family
from easyphoto.engine.ip_adapter import AdapterFiles, find_adapter
from easyphoto.engine.loading import readable
from easyphoto.engine.upscalers import find_upscalers
from easyphoto.errors import ToolMissing
from easyphoto.families import Family
from easyphoto.records import ConditionKind
from easyphoto.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Models:
    """A loaded base model; owned by whoever loaded it, lent to one engine or trainer at a time."""

    folder: Path
    """Where it was loaded from: a folder, or a file in LDM layout."""
    family: Family
    device: str
    """As torch names it: "cpu", "cuda:0", "mps"."""
    dtype: Any
    """torch dtype of UNet, text encoder and ControlNets; the autoencoder is always float32, because SD's overflows in half
    precision and it runs only twice a picture."""
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    controlnets: Mapping[ConditionKind, Path]
    """Where the ControlNets that go with it lie."""
    text_encoder_2: Any = None
    """SDXL's second text encoder (CLIPTextModelWithProjection); None for other families."""
    tokenizer_2: Any = None
    """Its tokenizer, which fills up with other tokens than the first's; None for other families."""
    upscalers: Mapping[str, Path] = field(default_factory=dict)
    """Files by name, the likeliest first; from `engine.upscalers`."""
    ip_adapter: AdapterFiles | None = None
    """For the ID control; None where nobody looked for any."""
    controlnets_on: str | None = None
    """Where ControlNets are kept; None: on the device."""
    _controlnets: dict[ConditionKind, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name, or the file's without its ending."""
        return self.folder.stem if self.folder.is_file() else self.folder.name

    @property
    def text_encoders(self) -> tuple[Any, ...]:
        """One, or SDXL's two in the order in which their states stand side by side."""
        return (self.text_encoder,) if self.text_encoder_2 is None else (self.text_encoder, self.text_encoder_2)

    @property
    def tokenizers(self) -> tuple[Any, ...]:
        """One for each text encoder."""
        return (self.tokenizer,) if self.tokenizer_2 is None else (self.tokenizer, self.tokenizer_2)

    def controlnet(self, kind: ConditionKind, dtype: Any = None) -> Any:  # noqa: ANN401 (diffusers and torch, untyped here)
        """The ControlNet of that kind, read from disk on the first call.

        Args:
            kind: Which.
            dtype: torch dtype to read it in; None: the model's.

        Raises:
            ToolMissing: There is none of that kind.
            InputError: It cannot be read.
        """
        if kind not in self.controlnets:
            own = f"put one into {self.folder / 'controlnet' / kind.value}, " if self.folder.is_dir() else ""
            do = f"{own}let EASYPHOTO_CONTROLNET_DIR point to a folder that has one, or leave it out"
            raise ToolMissing(f"the base model has no {kind.value} ControlNet; {do}")
        if kind not in self._controlnets:
            pooled = 0 if self.text_encoder_2 is None else self.text_encoder_2.config.projection_dim
            device = self.controlnets_on or self.device
            self._controlnets[kind] = load_controlnet(self.controlnets[kind], self.family, pooled, device, dtype or self.dtype)
        return self._controlnets[kind]

    @property
    def loaded_controlnets(self) -> tuple[Any, ...]:
        """Those that were asked for."""
        return tuple(self._controlnets.values())

    @property
    def conditions(self) -> frozenset[ConditionKind]:
        """Which ControlNets there are."""
        return frozenset(self.controlnets)


def load_models(
    path: Path,
    device: str = "auto",
    dtype: Any = None,  # noqa: ANN401 (torch.dtype, untyped here)
    settings: Settings | None = None,
) -> Models:
    """Load a base model; nothing is fetched, and of pickles nothing but tensors is read.

    Args:
        path: A diffusers folder (model_index.json, unet, vae, text_encoder, tokenizer, scheduler, SDXL's second text_encoder_2
            and tokenizer_2, and, if any, controlnet/<kind>), or a `.safetensors` or `.ckpt` file in LDM layout.
        device: "auto" takes a CUDA device if there is one, then Apple's, then the CPU.
        dtype: Of UNet, text encoders and ControlNets; None takes float16 on CUDA and float32 elsewhere.
        settings: Say where ControlNets and CLIP's vocabulary lie; None reads the environment.

    Raises:
        NotFound: There is no such folder or file.
        InputError: It is not whole, broken, or of a family that we cannot run.
        ToolMissing: It is a file, and CLIP's vocabulary is not installed.
    """
    import torch

    settings = settings or Settings.from_env()
    family = detect_family(path)
    device = resolve_device(device)
    if dtype is None:
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
    logger.info("loading %s base model %s on %s", family.value, path, device)
    with readable(path):
        if path.is_dir():
            parts = folder.load_parts(path, family, device, dtype)
        else:
            parts = single_file.load_parts(path, family, device, dtype, settings.tokenizer)
    return Models(
        folder=path, family=family, device=device, dtype=dtype, unet=parts.unet, vae=parts.vae,
        text_encoder=parts.text_encoder, tokenizer=parts.tokenizer, text_encoder_2=parts.text_encoder_2,
        tokenizer_2=parts.tokenizer_2, scheduler_config=parts.scheduler_config,
        controlnets=find_controlnets(path, family, settings.controlnets),
        upscalers=find_upscalers(path, settings.upscalers),
        ip_adapter=find_adapter(path, family, settings.ip_adapters, settings.controlnets),
    )  # fmt: skip


def resolve_device(device: str) -> str:
    """The torch device that a setting means.

    Raises:
        ToolMissing: The device was named and is not there.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ToolMissing("no CUDA device was found; choose the device auto or cpu")
    return device
