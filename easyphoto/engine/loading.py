"""Networks built empty and filled from weight files tensor by tensor, in the precision and on the device that they run.

The libraries' own loaders first draw every weight at random, or fill gaps with noise in silence; here each weight comes from
the file or the model is refused, and a model of 5 GB never needs more than its own size. Nothing is fetched or unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyphoto.errors import InputError
from easyphoto.wording import one_line

if TYPE_CHECKING:
    from torch import Tensor

Weights = Mapping[str, "Callable[[], Tensor]"]
"""What weight files hold by name; a tensor is read when it is called for."""
Take = Callable[[str], "Tensor"]
"""The tensor of a network's parameter, by the network's own name for it; raises KeyError where there is none."""
_BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError)
"""What the libraries raise on configs and weights that are broken."""


@contextmanager
def open_weights(paths: Sequence[Path]) -> Iterator[Weights]:
    """The tensors of safetensors files (the parts of one model, where there are several), readable inside the block."""
    from safetensors import safe_open

    with ExitStack() as files:
        found: dict[str, Callable[[], Tensor]] = {}
        for path in paths:
            file = files.enter_context(safe_open(path, framework="pt", device="cpu"))
            found |= {name: partial(file.get_tensor, name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        yield found


def filled(build: Callable[[], Any], take: Take, device: str, dtype: Any) -> Any:  # noqa: ANN401 (torch types)
    """A network ready to run: every weight taken, without gradients, its convolutions in their fastest memory order.

    Args:
        build: Makes the network; its weights are thrown away unfilled.
        take: Gives each weight; a matrix may stand for a 1 x 1 convolution and the other way round.
        device: Where it shall lie.
        dtype: In which precision.

    Raises:
        ValueError: A weight is missing or has another shape.
    """
    import torch
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    state, missing = {}, []
    for name, empty in network.state_dict().items():
        try:
            tensor = take(name)
        except KeyError:
            missing.append(name)
            continue
        if _without_ones(tensor) != _without_ones(empty):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)} instead of {tuple(empty.shape)}")
        # A copy always: what is only mapped would follow its file if somebody wrote to it.
        whole = tensor.reshape(empty.shape).contiguous()
        state[name] = whole.to(device=device, dtype=dtype, copy=True)
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} among them")
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)
    network.eval()
    return network.to(device=device, memory_format=torch.channels_last)


def _without_ones(tensor: Tensor) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    return shape[:2] if shape[2:] == (1, 1) else shape


@contextmanager
def readable(path: Path, what: str = "base model") -> Iterator[None]:
    """Turn what is raised on broken or missing weights into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (*_BROKEN, SafetensorError) as error:
        said = str(error).strip()
        first = one_line(said.splitlines()[0]) if said else type(error).__name__
        raise InputError(f"the {what} {path} cannot be loaded: {first}; fetch it again as safetensors") from error
