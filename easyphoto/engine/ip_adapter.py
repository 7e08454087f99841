"""An IP-Adapter for faces (arXiv 2308.06721) on our own engine: found beside the ControlNets, in the UNet for a job alone.

The files are the user's own: the adapter in its makers' layout (`image_proj.*` and `ip_adapter.*`), and the image encoder
CLIP ViT-H as transformers' folder. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from easyphoto.engine.detect import read_config
from easyphoto.engine.folder import ENCODER, take_first, weight_files
from easyphoto.engine.loading import filled, open_weights, readable
from easyphoto.engine.webui_id import choose_face_model, refuse_without_file
from easyphoto.errors import InputError, ToolMissing
from easyphoto.families import Family
from easyphoto.records import ImagePrompt, Pixels
from easyphoto.store.ldm_header import read_header

if TYPE_CHECKING:
    from torch import Tensor

_WEBUI = ("ControlNet", "extensions/sd-webui-controlnet/models")
_UP = 4
"""How many folders above a checkpoint are looked into, as for ControlNets."""
_ENCODER = "CLIPVisionModelWithProjection"
_READERS = ("image_proj.proj_in.weight", "image_proj.proj.0.weight")
"""Where an adapter takes the encoder's states in: its second size is their width."""
_MEAN, _SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, for red, green and blue."""
_FACES_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """What was found for the ID control."""

    family: Family
    adapter: Path | None = None
    encoder: Path | None = None
    """Folder with config.json and model.safetensors."""

    def check(self) -> tuple[Path, Path]:
        """Both; raises ToolMissing, with what is missing and where it belongs."""
        where = "put it into a folder that EASYPHOTO_IPADAPTER_DIR names, or turn the ID control off"
        if self.adapter is None:
            raise refuse_without_file(self.family, where)
        if self.encoder is None:
            raise ToolMissing(
                f"the ID control needs the image encoder that belongs to {self.adapter.name}: the folder models/image_encoder "
                f"of h94/IP-Adapter (config.json and model.safetensors); {where}"
            )
        return self.adapter, self.encoder


def find_adapter(base: Path, family: Family, chosen: Path | None = None, controlnets: Path | None = None) -> AdapterFiles:
    """Look for the files; nothing of them is loaded.

    Args:
        base: The base model's folder or file; a WebUI's ControlNets are looked for around it.
        family: Its family.
        chosen: The folder that has them; None looks beside the ControlNets.
        controlnets: The folder of ControlNets, where somebody named one.
    """
    if chosen is not None and not chosen.is_dir():
        raise InputError(f"the folder of IP-Adapters {chosen} does not exist; name another with EASYPHOTO_IPADAPTER_DIR")
    folders = [folder for folder in _places(base, chosen, controlnets) if folder.is_dir()]
    files = {path.stem: path for folder in folders for path in sorted(folder.rglob("*.safetensors"))}
    name = choose_face_model(tuple(files), family)
    if name is None:
        return AdapterFiles(family=family)
    return AdapterFiles(family=family, adapter=files[name], encoder=_encoder_of(files[name], folders))


def _places(base: Path, chosen: Path | None, controlnets: Path | None) -> Iterator[Path]:
    if chosen is not None or controlnets is not None:
        yield from (folder for folder in (chosen, controlnets) if folder is not None)
        return
    for above in base.absolute().parents[:_UP]:
        yield from (above / name for name in _WEBUI)


def _encoder_of(adapter: Path, folders: list[Path]) -> Path | None:
    """The image encoder whose states are as wide as the adapter reads them."""
    try:
        shapes = read_header(adapter).shapes
    except InputError:
        return None
    width = next((shapes[name][1] for name in _READERS if name in shapes), None)
    for config in (path for folder in folders for path in sorted(folder.rglob("config.json"))):
        try:
            found = read_config(config)
        except InputError:  # of something else, which is none of our business
            continue
        if _ENCODER in (found.get("architectures") or ()) and found.get("hidden_size") == width:
            return config.parent
    return None


class FaceAdapter:
    """An IP-Adapter for one UNet. Between jobs the UNet is as it was; what was read is kept for the next."""

    def __init__(self, files: AdapterFiles, unet: Any, device: str, dtype: Any) -> None:  # noqa: ANN401 (diffusers' class)
        self._files = files
        self._unet, self._device, self._dtype = unet, device, dtype
        self._parts: tuple[dict[str, Any], Any] | None = None
        """Attention processors and projection, once read."""
        self._faces: OrderedDict[str, Tensor] = OrderedDict()

    def states(self, prompt: ImagePrompt, guided: bool) -> Tensor:
        """(rows, 1, patches, width): of nothing and of the picture where a step is guided, else of the picture alone.

        The encoder is read for each new face and let go again: it is larger than the UNet.

        Raises:
            ToolMissing: A file is not there.
            InputError: One cannot be read.
        """
        key = hashlib.sha256(prompt.image.tobytes()).hexdigest()
        if key not in self._faces:
            self._faces[key] = self._encode(prompt.image)
            if len(self._faces) > _FACES_KEPT:
                self._faces.popitem(last=False)
        return self._faces[key] if guided else self._faces[key][1:]

    @contextmanager
    def in_unet(self, weight: float) -> Iterator[None]:
        """Have the adapter in the UNet with that weight, and take it out again whatever happens."""
        unet = self._unet
        before, projection, kind = unet.attn_processors, unet.encoder_hid_proj, unet.config.encoder_hid_dim_type
        try:
            self._put()
            for processor in self._parts[0].values() if self._parts else ():
                if hasattr(processor, "scale"):
                    processor.scale = [weight]
            yield
        finally:
            # The projection first: its own attention would be counted among the UNet's.
            unet.encoder_hid_proj, unet.config.encoder_hid_dim_type = projection, kind
            unet.set_attn_processor(before)

    def _put(self) -> None:
        if self._parts is None:
            self._read()
            return
        processors, projection = self._parts
        self._unet.set_attn_processor(dict(processors))
        self._unet.encoder_hid_proj = projection
        self._unet.config.encoder_hid_dim_type = "ip_image_proj"

    def _read(self) -> None:
        import torch

        path, _ = self._files.check()
        with readable(path, "IP-Adapter"), torch.random.fork_rng(devices=[]), open_weights([path]) as weights:
            parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
            for name, read in weights.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = read().to(self._device, self._dtype, copy=True)
            # The sparing way would leave out in silence what the file lacks.
            self._unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
        projection, self._unet.encoder_hid_proj = self._unet.encoder_hid_proj, None
        self._parts = self._unet.attn_processors, projection
        self._unet.encoder_hid_proj = projection

    def _encode(self, pixels: Pixels) -> Tensor:
        """(2, 1, patches, width): CLIP's last states but one, of a picture of nothing and of the face."""
        import torch

        _, folder = self._files.check()
        with readable(folder, "image encoder"):
            encoder = load_image_encoder(folder, self._device, self._dtype)
        face = torch.from_numpy(as_clip_sees(pixels, encoder.config.image_size)).to(self._device, self._dtype)
        with torch.inference_mode():
            both = torch.stack([torch.zeros_like(face), face])
            states: Tensor = encoder(both, output_hidden_states=True).hidden_states[-2]
        return states[:, None]


def load_image_encoder(folder: Path, device: str, dtype: Any) -> Any:  # noqa: ANN401 (torch.dtype; transformers' class)
    """CLIP's image encoder from transformers' folder, ready to run.

    Raises:
        ValueError, OSError, SafetensorError: Weights are missing or broken (see `loading.readable`).
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
    with open_weights(weight_files(folder, ENCODER, dtype.itemsize < 4)) as weights:
        take = take_first(weights, lambda name: (name, f"vision_model.{name}", name.removeprefix("vision_model.")))
        return filled(lambda: CLIPVisionModelWithProjection(config), take, device, dtype)


def as_clip_sees(pixels: Pixels, side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(3, side, side): a square picture as CLIP was trained to see one (arXiv 2103.00020), channels first.

    Args:
        pixels: (height, width, 3) RGB.
        side: Of the encoder's pictures in px.
    """
    small = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    even = (small - np.asarray(_MEAN, np.float32)) / np.asarray(_SPREAD, np.float32)
    return np.ascontiguousarray(even.transpose(2, 0, 1))
