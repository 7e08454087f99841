"""The parts of a base model, loaded from a diffusers folder; ControlNets when first asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easyphoto.engine.detect import detect_family, read_config
from easyphoto.errors import InputError, ToolMissing
from easyphoto.families import Family
from easyphoto.records import ConditionKind

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Models:
    """A loaded base model; owned by whoever loaded it, lent to one engine or trainer at a time."""

    folder: Path
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
    conditions: frozenset[ConditionKind]
    """Which ControlNets lie in the folder."""
    _controlnets: dict[ConditionKind, Any] = field(default_factory=dict)

    def controlnet(self, kind: ConditionKind) -> Any:  # noqa: ANN401 (diffusers ships no types)
        """The ControlNet of that kind, read from disk on the first call.

        Raises:
            ToolMissing: The base model has none of that kind.
        """
        if kind not in self.conditions:
            where = self.folder / "controlnet" / kind.value
            raise ToolMissing(f"the base model has no {kind.value} ControlNet; put one into {where} or leave it out")
        if kind not in self._controlnets:
            self._controlnets[kind] = _load_controlnet(self.folder / "controlnet" / kind.value, self.device, self.dtype)
        return self._controlnets[kind]


def load_models(folder: Path, device: str = "auto", dtype: Any = None) -> Models:  # noqa: ANN401 (torch.dtype, untyped here)
    """Load a base model from a diffusers folder; nothing is fetched, nothing is unpickled.

    Args:
        folder: Holds model_index.json, unet, vae, text_encoder, tokenizer, scheduler and, if any, controlnet/<kind>.
        device: "auto" takes a CUDA device if there is one, then Apple's, then the CPU.
        dtype: Of UNet, text encoder and ControlNets; None takes float16 on CUDA and float32 elsewhere.

    Raises:
        NotFound: There is no such folder.
        InputError: It is a single file, not whole, broken, or of a family that we cannot run.
    """
    import torch

    family = detect_family(folder)
    if family is Family.SDXL:
        raise InputError(f"{folder} is an SDXL model, which is not supported yet; choose an SD1.5 model or the embedded one")
    device = resolve_device(device)
    if dtype is None:
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
    logger.info("loading %s base model %s on %s", family.value, folder, device)
    with _readable(folder):
        unet, vae, text_encoder, tokenizer = _load_parts(folder, dtype)
    for part in (unet, vae, text_encoder):
        _settle(part, device)
    return Models(
        folder=folder, family=family, device=device, dtype=dtype, unet=unet, vae=vae, text_encoder=text_encoder,
        tokenizer=tokenizer, scheduler_config=read_config(folder / "scheduler" / "scheduler_config.json"),
        conditions=frozenset(kind for kind in ConditionKind if (folder / "controlnet" / kind.value / "config.json").is_file()),
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


def _load_parts(folder: Path, dtype: Any) -> tuple[Any, Any, Any, Any]:  # noqa: ANN401
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTokenizerFast

    unet = _load_network(UNet2DConditionModel, folder / "unet", torch_dtype=dtype, low_cpu_mem_usage=False)
    vae = _load_network(AutoencoderKL, folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    with _no_progress():
        text_encoder = _load_text_encoder(folder / "text_encoder", dtype)
    return unet, vae, text_encoder, CLIPTokenizerFast.from_pretrained(folder / "tokenizer", local_files_only=True)


def _load_text_encoder(folder: Path, dtype: Any) -> Any:  # noqa: ANN401
    """CLIP's text encoder; transformers 5 named its parameters anew, 4 (beside an older torch) gets the old names."""
    import transformers
    from transformers import CLIPTextConfig, CLIPTextModel

    if int(transformers.__version__.split(".", maxsplit=1)[0]) >= 5:
        return _load_network(CLIPTextModel, folder, dtype=dtype)
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    named = {name if name.startswith("text_model.") else f"text_model.{name}": tensor for name, tensor in tensors.items()}
    network = CLIPTextModel(CLIPTextConfig.from_pretrained(folder, local_files_only=True))
    missing = network.load_state_dict(named, strict=False).missing_keys
    if any(not name.endswith("position_ids") for name in missing):
        raise ValueError(f"{len(missing)} weights are missing in {folder.name}")
    return network.to(dtype)


def _load_network(kind: Any, folder: Path, **options: Any) -> Any:  # noqa: ANN401
    """A network from its own folder, with every weight from the file: the libraries would fill gaps with noise."""
    network, report = kind.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
    )
    if report["missing_keys"]:
        raise ValueError(f"{len(report['missing_keys'])} weights are missing in {folder.name}")
    return network


def _load_controlnet(folder: Path, device: str, dtype: Any) -> Any:  # noqa: ANN401
    from diffusers import ControlNetModel

    with _readable(folder):
        net = _load_network(ControlNetModel, folder, torch_dtype=dtype, low_cpu_mem_usage=False)
    # The map is the same at every step, and embedding it at full size costs about as much as the rest of the net.
    net.controlnet_cond_embedding.forward = _remember_last(net.controlnet_cond_embedding.forward)
    return _settle(net, device)


def _remember_last(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function with its last result kept for as long as it is called with the very same tensor."""
    last: list[Any] = []

    def remembering(tensor: Any) -> Any:  # noqa: ANN401
        if not last or last[0] is not tensor:
            last[:] = [tensor, function(tensor)]
        return last[1]

    return remembering


def _settle(part: Any, device: str) -> Any:  # noqa: ANN401
    """Make a network ready to run: on its device, without gradients, in the memory order its convolutions are fastest in."""
    import torch

    part.requires_grad_(False)
    part.eval()
    return part.to(device=device, memory_format=torch.channels_last)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Turn what the loaders raise on broken or missing weights into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the base model {folder} cannot be loaded: {first}; fetch it again as safetensors") from error


@contextmanager
def _no_progress() -> Iterator[None]:
    """Keep transformers from drawing progress bars into our output."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
