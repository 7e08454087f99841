"""A base model that is one file in LDM layout, as checkpoints are shared: `.safetensors`, or `.ckpt` that holds weights alone.

Sizes are read off the header, names are translated by `store.ldm_layout`, weights go from the file straight to where they run.
Nothing is asked of any network, and no other tool's configs are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyphoto.engine.loading import Take, Weights, filled, open_weights
from easyphoto.engine.parts import Parts
from easyphoto.engine.pickled import ENDINGS, pickled_shapes, read_pickled
from easyphoto.engine.vocabulary import find_vocabulary, load_tokenizer
from easyphoto.families import Family
from easyphoto.store.ldm_family import CLIP, CLIP_XL, OPEN_CLIP_XL, UNET, VAE
from easyphoto.store.ldm_header import Header, read_header, under
from easyphoto.store.ldm_layout import unet_name, vae_name
from easyphoto.store.ldm_open_clip import open_clip_origin
from easyphoto.store.ldm_sizes import clip_sizes, open_clip_sizes, unet_sizes, vae_sizes

if TYPE_CHECKING:
    from torch import Tensor

_XL_PAD = "!"
"""What SDXL's second encoder was trained to see behind the words."""
_VELOCITY, _ZERO_SNR = "v_pred", "ztsnr"
"""Empty tensors by which SDXL files say that they predict velocities, and that their noise ends at noise alone."""


def load_parts(path: Path, family: Family, device: str, dtype: Any, tokenizer: Path | None) -> Parts:  # noqa: ANN401
    """Every part but the ControlNets.

    Args:
        path: The file.
        family: From `detect.detect_family`.
        device: Where the networks shall lie.
        dtype: torch dtype of all but the autoencoder, which is float32.
        tokenizer: The user's own; None finds CLIP's.

    Raises:
        ToolMissing: CLIP's vocabulary is not installed.
        InputError: The file or the vocabulary cannot be read.
        ValueError, SafetensorError: Weights are missing or broken (see `loading.readable`).
    """
    words = find_vocabulary(tokenizer)
    header = file_header(path)
    with open_file(path) as weights:
        source = _Source(shapes=header.shapes, weights=weights, family=family, device=device, dtype=dtype)
        second = source.second_encoder() if family is Family.SDXL else None
        parts = Parts(
            unet=source.unet(second.config.projection_dim if second else 0), vae=source.vae(),
            text_encoder=source.first_encoder(), text_encoder_2=second, tokenizer=load_tokenizer(words),
            tokenizer_2=load_tokenizer(words, _XL_PAD) if second else None, scheduler_config=_schedule(header),
        )  # fmt: skip
    words_known = parts.text_encoder.config.vocab_size
    if len(parts.tokenizer) > words_known:
        raise ValueError(f"its text encoder knows {words_known} words, the tokenizer has {len(parts.tokenizer)}")
    return parts


def file_header(path: Path) -> Header:
    """Names, shapes and metadata of the file."""
    if path.suffix.lower() in ENDINGS:
        return Header(shapes=pickled_shapes(path), metadata={})
    return read_header(path)


@contextmanager
def open_file(path: Path) -> Iterator[Weights]:
    """The tensors of the file, readable inside the block."""
    if path.suffix.lower() in ENDINGS:
        yield {name: _given(tensor) for name, tensor in read_pickled(path).items()}
        return
    with open_weights([path]) as weights:
        yield weights


def _given(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Source:
    """An open file, and how its networks shall run."""

    shapes: Mapping[str, tuple[int, ...]]
    weights: Weights
    family: Family
    device: str
    dtype: Any

    def unet(self, pooled: int) -> Any:  # noqa: ANN401 (diffusers ships no types)
        from diffusers import UNet2DConditionModel

        sizes = unet_sizes(under(self.shapes, UNET), self.family, pooled)
        attended = {str(level) for level, kind in enumerate(sizes["up_block_types"]) if "CrossAttn" in kind}
        layers = sizes["layers_per_block"]

        def take(name: str) -> Tensor:
            return self.weights[UNET + unet_name(name, layers, attended)]()

        return filled(lambda: UNet2DConditionModel(**sizes), take, self.device, self.dtype)

    def vae(self) -> Any:  # noqa: ANN401
        import torch
        from diffusers import AutoencoderKL

        sizes = vae_sizes(under(self.shapes, VAE), self.family)
        levels = len(sizes["block_out_channels"])

        def take(name: str) -> Tensor:
            return self.weights[VAE + vae_name(name, levels)]()

        return filled(lambda: AutoencoderKL(**sizes), take, self.device, torch.float32)

    def first_encoder(self) -> Any:  # noqa: ANN401
        from transformers import CLIPTextConfig, CLIPTextModel

        prefix = CLIP_XL if self.family is Family.SDXL else CLIP
        sizes = clip_sizes(under(self.shapes, prefix))
        # The oldest files lack the level `text_model`, and so do the networks of transformers 5.
        inside = f"{prefix}text_model." if f"{prefix}text_model.final_layer_norm.weight" in self.weights else prefix

        def take(name: str) -> Tensor:
            return self.weights[inside + name.removeprefix("text_model.")]()

        return filled(lambda: CLIPTextModel(CLIPTextConfig(**sizes)), take, self.device, self.dtype)

    def second_encoder(self) -> Any:  # noqa: ANN401
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        config = CLIPTextConfig(**open_clip_sizes(under(self.shapes, OPEN_CLIP_XL)))
        return filled(lambda: CLIPTextModelWithProjection(config), _take_open_clip(self.weights), self.device, self.dtype)


def _take_open_clip(weights: Weights) -> Take:
    def take(name: str) -> Tensor:
        origin = open_clip_origin(name)
        tensor = weights[OPEN_CLIP_XL + origin.key]()
        if origin.third is not None:
            tensor = tensor.chunk(3)[origin.third]
        return tensor.T if origin.transposed else tensor

    return take


def _schedule(header: Header) -> dict[str, Any]:
    """The noise schedule that SD1.5 and SDXL share (arXiv 2112.10752, appendix E.1), and what the file says it predicts."""
    velocity = _VELOCITY in header.shapes or header.metadata.get("modelspec.prediction_type", "").lower() == "v"
    return {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
        "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading",
        "prediction_type": "v_prediction" if velocity else "epsilon", "rescale_betas_zero_snr": _ZERO_SNR in header.shapes,
    }  # fmt: skip
