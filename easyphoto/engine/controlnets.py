"""ControlNets: which lie beside a base model, and how one is loaded, whatever its layout.

A diffusers folder has its own below `controlnet/<kind>`. Others are looked for where a WebUI has them, by the names that users
know (`control_v11p_sd15_canny`, `diffusers_xl_canny_mid`, ...): folders, or single files with LDM's or diffusers' names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyphoto.engine.folder import load_network
from easyphoto.engine.loading import filled, readable
from easyphoto.engine.pickled import ENDINGS
from easyphoto.engine.single_file import file_header, open_file
from easyphoto.engine.webui_controlnet import choose_model
from easyphoto.errors import InputError
from easyphoto.families import Family
from easyphoto.records import ConditionKind
from easyphoto.store.ldm_family import context_width
from easyphoto.store.ldm_header import Shapes
from easyphoto.store.ldm_layout import controlnet_name
from easyphoto.store.ldm_sizes import controlnet_sizes

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

_LDM_PREFIX = "control_model."
_LDM_MARK, _MARK = "zero_convs.0.0.weight", "controlnet_down_blocks.0.weight"
_OTHERS = ("lora_controlnet", "difference", "task_embedding", "control_type_proj", "control_add_embedding")
"""Beginnings of what only differences to a base model and nets of several kinds have, neither of which we read."""
_WEBUI = ("ControlNet", "extensions/sd-webui-controlnet/models")
_UP = 4
"""How many folders above a checkpoint are looked into; WebUI users sort theirs into folders."""
_SD15_WIDTH = 768


def find_controlnets(base: Path, family: Family, chosen: Path | None = None) -> dict[ConditionKind, Path]:
    """The ControlNet of each kind that there is one of.

    Args:
        base: The base model's folder or file.
        family: Its family; a ControlNet of another is of no use.
        chosen: A folder of ControlNets; None looks where a WebUI has its own, if the base model lies in one's folders.
    """
    found = {kind: path for kind in ConditionKind if ((path := base / "controlnet" / kind.value) / "config.json").is_file()}
    if family is Family.EMBEDDED or len(found) == len(ConditionKind):
        return found
    there = {path.stem if path.is_file() else path.name: path for folder in _places(base, chosen) for path in _nets(folder)}
    for kind in set(ConditionKind) - set(found):
        names = list(there)
        while (name := choose_model(kind, names, family)) is not None:
            if _fits(there[name], family):
                found[kind] = there[name]
                break
            names.remove(name)
    return found


def _places(base: Path, chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    for above in base.absolute().parents[:_UP]:
        yield from (above / name for name in _WEBUI if (above / name).is_dir())


def _nets(folder: Path) -> Iterator[Path]:
    """Files and diffusers folders that may be ControlNets."""
    if not folder.is_dir():
        raise InputError(f"the folder of ControlNets {folder} does not exist; name another with EASYPHOTO_CONTROLNET_DIR")
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".safetensors", *ENDINGS) or (path / "config.json").is_file():
            yield path


def _fits(path: Path, family: Family) -> bool:
    """Whether it is a ControlNet that we read, of that family; of what only torch can look into, the name must do."""
    if path.is_dir() or path.suffix.lower() in ENDINGS:
        return True
    try:
        shapes = file_header(path).shapes
    except InputError as error:
        logger.warning("%s", error)
        return False
    return _refusal(_plain(shapes), family) is None


def _plain(shapes: Shapes) -> Shapes:
    return {name.removeprefix(_LDM_PREFIX): shape for name, shape in shapes.items()}


def _refusal(shapes: Shapes, family: Family) -> str | None:
    """Why these are the tensors of no ControlNet for the family; None if they are of one."""
    if any(name.startswith(_OTHERS) for name in shapes):
        return "it holds a difference to another model or a net of several kinds"
    if _LDM_MARK not in shapes and _MARK not in shapes:
        return "it is no ControlNet"
    large = "label_emb.0.0.weight" in shapes or "add_embedding.linear_1.weight" in shapes
    width = context_width(shapes)
    if large != (family is Family.SDXL) or (not large and width not in (None, _SD15_WIDTH)):
        return f"it is not for the {family.value} family"
    return None


def load_controlnet(path: Path, family: Family, pooled: int, device: str, dtype: Any) -> Any:  # noqa: ANN401
    """A ControlNet ready to run.

    Args:
        path: From `find_controlnets`.
        family: The base model's.
        pooled: Width of SDXL's pooled text, 0 for other families.
        device: Where it shall lie.
        dtype: Its torch dtype.

    Raises:
        InputError: It cannot be read, or is for another family.
    """
    from diffusers import ControlNetModel

    with readable(path, "ControlNet"):
        if path.is_dir():
            net = load_network(ControlNetModel, path, device, dtype)
        else:
            net = _load_file(path, family, pooled, device, dtype)
    # The map is the same at every step, and embedding it at full size costs about as much as the rest of the net.
    net.controlnet_cond_embedding.forward = _remember_last(net.controlnet_cond_embedding.forward)
    return net


def _load_file(path: Path, family: Family, pooled: int, device: str, dtype: Any) -> Any:  # noqa: ANN401
    from diffusers import ControlNetModel

    shapes = _plain(file_header(path).shapes)
    if why := _refusal(shapes, family):
        raise ValueError(why)
    layers = 0 if _LDM_MARK in shapes else _layers(shapes)
    in_ldm = {controlnet_name(name, layers): shape for name, shape in shapes.items()} if layers else shapes
    sizes = controlnet_sizes(in_ldm, family, pooled)
    with open_file(path) as weights:
        plain = {name.removeprefix(_LDM_PREFIX): tensor for name, tensor in weights.items()}

        def take(name: str) -> Tensor:
            return plain[name if layers else controlnet_name(name, sizes["layers_per_block"])]()

        return filled(lambda: ControlNetModel(**sizes), take, device, dtype)


def _layers(shapes: Mapping[str, object]) -> int:
    """Residual blocks in the first level, by diffusers' names."""
    return len({match[1] for name in shapes if (match := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name))})


def _remember_last(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function with its last result kept for as long as it is called with the very same tensor."""
    last: list[Any] = []

    def remembering(tensor: Any) -> Any:  # noqa: ANN401
        if not last or last[0] is not tensor:
            last[:] = [tensor, function(tensor)]
        return last[1]

    return remembering
