"""A UNet's own blocks, run with fewer and larger kernels while it is trained; taken off again without a trace.

Queries, keys and values of one attention are one product, as are keys and values of the caption over all layers of one
width: they read the same states. The caption is one row a person, and only what has been computed from it is repeated for
each picture. Blocks of another make than SD1.5's and SDXL's are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

from easyphoto.training.frozen import Block, Linear, linear_of
from easyphoto.training.fused import add_bias, add_norm, available, gated, norm_act

if TYPE_CHECKING:
    from torch import Tensor


_WIDEST_HEAD = 128


@dataclass(kw_only=True, eq=False)
class FastBlocks:
    """What has been put in place of the forward passes of a UNet, or of a ControlNet, which is half of one."""

    unet: Any
    block: Block
    whole: bool = True
    """Keys and values of all layers at once; not where blocks are computed anew in the backward pass (checkpointing)."""
    _changed: list[Any] = field(default_factory=list)
    _times: _Times | None = None
    """Kept for good: a captured graph goes on reading its weights after the blocks were taken off and put back."""

    def attach(self) -> None:
        """Run the blocks our way from now on."""
        transformers = [module for module in self.unet.modules() if _is_transformer(module, self.block)]
        inner = [layer for module in transformers for layer in module.transformer_blocks]
        kept = _Words(self.block, inner) if self.whole else None
        for module in transformers:
            self._put(module, _transformer(self.block, module, kept))
        if _fuses(self.unet):
            self._times = self._times or _Times([m for m in self.unet.modules() if _is_resnet(m)], at_once=self.whole)
            for number, module in enumerate(self._times.resnets):
                self._put(module, _resnet(module, self._times, number))
            if type(getattr(self.unet, "conv_act", None)).__name__ == "SiLU":
                self._put(self.unet.conv_norm_out, lambda x: norm_act(x, self.unet.conv_norm_out))
                self._put(self.unet.conv_act, lambda x: x)

    def detach(self) -> None:
        """Leave the UNet as it was."""
        for module in self._changed:
            module.__dict__.pop("forward", None)
        self._changed.clear()

    def _put(self, module: Any, forward: Callable[..., Any]) -> None:  # noqa: ANN401 (torch Module)
        module.forward = forward
        self._changed.append(module)


def _fuses(unet: Any) -> bool:  # noqa: ANN401 (torch Module)
    """Whether it runs where our kernels do."""
    return available() and bool(next(unet.parameters()).is_cuda)


def _is_transformer(module: Any, block: Block) -> bool:  # noqa: ANN401 (torch Module)
    if type(module).__name__ != "Transformer2DModel" or not module.is_input_continuous:
        return False
    return module.proj_in in block.place and all(_is_plain(layer) for layer in module.transformer_blocks)


def _is_plain(layer: Any) -> bool:  # noqa: ANN401 (BasicTransformerBlock)
    attentions = [layer.attn1, layer.attn2]
    return (
        layer.norm_type == "layer_norm" and layer.pos_embed is None and layer._chunk_size is None
        and type(layer.ff.net[0]).__name__ == "GEGLU" and all(attention is not None for attention in attentions)
        and all(part.bias is None for each in attentions for part in (each.to_q, each.to_k, each.to_v))
        and all(each.rescale_output_factor == 1 and not each.residual_connection for each in attentions)
        and all(norm.elementwise_affine for norm in (layer.norm1, layer.norm2, layer.norm3))
    )  # fmt: skip


def _is_resnet(module: Any) -> bool:  # noqa: ANN401 (torch Module)
    return (
        type(module).__name__ == "ResnetBlock2D" and module.upsample is None and module.downsample is None
        and module.time_embedding_norm == "default" and module.output_scale_factor == 1
        and module.time_emb_proj is not None and not module.skip_time_act and type(module.nonlinearity).__name__ == "SiLU"
    )  # fmt: skip


class _Last:
    """A value computed anew whenever it is asked about another tensor than the last."""

    def __init__(self) -> None:
        self._of: Any = None
        self._value: Any = None

    def get(self, of: Tensor, make: Callable[[], Any]) -> Any:  # noqa: ANN401
        if self._of is not of:
            self._of, self._value = of, make()
        return self._value


class _Words:
    """Keys and values of the caption for all layers, one product for each width."""

    def __init__(self, block: Block, layers: Sequence[Any]) -> None:
        self._last = _Last()
        widths: dict[int, list[Any]] = {}
        for layer in layers:
            widths.setdefault(layer.attn2.to_k.weight.shape[0], []).append(layer)
        self._bundles: list[tuple[list[Any], Linear]] = []
        for found in widths.values():
            for run in _runs(block, found):
                modules = tuple(module for layer in run for module in (layer.attn2.to_k, layer.attn2.to_v))
                self._bundles.append((run, linear_of(block, modules)))

    def of(self, layer: Any, states: Tensor, pictures: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Keys and values of one layer, (pictures, tokens, width) each."""
        found: tuple[Tensor, Tensor] = self._last.get(states, lambda: self._make(states, pictures))[layer]
        return found

    def _make(self, states: Tensor, pictures: int) -> dict[Any, tuple[Tensor, Tensor]]:
        made = {}
        for run, bundle in self._bundles:
            both = _apart(_repeat(bundle(states), pictures), (2 * len(run), -1)).unbind(2)
            made.update({layer: (both[2 * at], both[2 * at + 1]) for at, layer in enumerate(run)})
        return made


def _runs(block: Block, layers: list[Any]) -> Iterator[list[Any]]:
    """The layers in runs whose keys and values lie side by side in the block."""
    run: list[Any] = []
    for layer in layers:
        if run and block.place[layer.attn2.to_k][1] != block.place[run[-1].attn2.to_v][1] + 1:
            yield run
            run = []
        run.append(layer)
    yield run


def _repeat(rows: Tensor, pictures: int) -> Tensor:
    """One row a person as one a picture."""
    each = pictures // len(rows)
    return rows[:, None].expand(-1, each, *rows.shape[1:]).reshape(pictures, *rows.shape[1:])


def _transformer(block: Block, module: Any, words: _Words | None) -> Callable[..., Any]:  # noqa: ANN401
    import torch

    first, last = linear_of(block, (module.proj_in,)), linear_of(block, (module.proj_out,))
    inner = [*module.transformer_blocks]
    # What is computed anew in the backward pass keeps what it was given until then: tokens alone.
    norms = [None if words is None else layer.norm1 for layer in inner[1:]]
    layers = [_layer(block, layer, words, after) for layer, after in zip(inner, [*norms, None])]

    def forward(self: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, return_dict: bool = True, **_: Any) -> Any:  # noqa: ANN401
        pictures, channels, height, width = hidden_states.shape
        tokens = norm_act(hidden_states, self.norm, silu=False).permute(0, 2, 3, 1).reshape(pictures, height * width, channels)
        tokens = first(tokens)
        inside: Tensor | None = None
        for layer in layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                given = tokens, encoder_hidden_states, None
                tokens, _ = torch.utils.checkpoint.checkpoint(layer, *given, use_reentrant=False)
            else:
                tokens, inside = layer(tokens, encoder_hidden_states, inside)
        residual = hidden_states.permute(0, 2, 3, 1).reshape(tokens.shape[0], -1, channels)
        result = _onto(residual, last, tokens).view(pictures, height, width, channels).permute(0, 3, 1, 2)
        return (result,) if not return_dict else _output(result)

    return MethodType(forward, module)


def _output(sample: Tensor) -> Any:  # noqa: ANN401 (diffusers' record)
    from diffusers.models.transformers.transformer_2d import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=sample)


def _layer(
    block: Block, layer: Any, words: _Words | None, after: Any  # noqa: ANN401 (BasicTransformerBlock, LayerNorm)
) -> Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """Self-attention, attention to the caption, feed-forward, each on a norm and added to what came in.

    Takes and gives tokens and their norm: that of the layer that comes `after`, computed with the sum before it.
    """
    one, two, net = layer.attn1, layer.attn2, layer.ff.net
    all_three = linear_of(block, (one.to_q, one.to_k, one.to_v))
    query, both = linear_of(block, (two.to_q,)), linear_of(block, (two.to_k, two.to_v))
    out_one, out_two = linear_of(block, (one.to_out[0],)), linear_of(block, (two.to_out[0],))
    wide, narrow = linear_of(block, (net[0].proj,)), linear_of(block, (net[2],))

    def forward(tokens: Tensor, states: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor | None]:
        inside = layer.norm1(tokens) if inside is None else inside
        queries, keys, values = _apart(all_three(inside), (3, -1)).unbind(2)
        tokens, inside = _onto_normed(tokens, out_one, attend(queries, keys, values, one.heads), layer.norm2)
        queries = query(inside)
        if words is None:
            keys, values = _apart(_repeat(both(states), len(tokens)), (2, -1)).unbind(2)
        else:
            keys, values = words.of(layer, states, len(tokens))
        tokens, inside = _onto_normed(tokens, out_two, attend(queries, keys, values, two.heads), layer.norm3)
        inside = gated(wide(inside, biased=False), wide.bias) if _folds(inside) else gated(wide(inside), None)
        return (_onto(tokens, narrow, inside), None) if after is None else _onto_normed(tokens, narrow, inside, after)

    return forward


def _onto_normed(residual: Tensor, linear: Linear, x: Tensor, norm: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 (LayerNorm)
    """residual + linear(x), and its norm."""
    if _folds(x):
        return add_norm(linear(x, biased=False), residual, linear.bias, norm)
    tokens = residual + linear(x)
    return tokens, norm(tokens)


def _onto(residual: Tensor, linear: Linear, x: Tensor) -> Tensor:
    """residual + linear(x); the bias rides along with the sum where that is a kernel of ours."""
    return add_bias(linear(x, biased=False), residual, linear.bias) if _folds(x) else residual + linear(x)


def _folds(x: Tensor) -> bool:
    return x.is_cuda and available()


def _apart(x: Tensor, sizes: tuple[int, int]) -> Tensor:
    """The last dimension as two; -1 is what is left."""
    return x.reshape(*x.shape[:-1], *sizes)


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention of (pictures, tokens, width) each; scaled as in arXiv 1706.03762, equation 1."""
    import torch.nn.functional as F

    q, k, v = (_apart(part, (heads, -1)).transpose(1, 2) for part in (queries, keys, values))
    with _backends(q):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _backends(queries: Tensor) -> AbstractContextManager[None]:
    """cuDNN's attention first, where its backward pass is the quickest: heads of up to 128 numbers."""
    if not queries.is_cuda or queries.dtype.itemsize > 2 or queries.shape[-1] > _WIDEST_HEAD:
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(order, set_priority=True)


class _Times:
    """What the timestep adds in each residual block, one product for all; the first convolution's bias rides along."""

    def __init__(self, resnets: Sequence[Any], at_once: bool = True) -> None:
        """Args: the blocks; one product for all, or one each, as blocks that are computed anew must not share a result."""
        self.resnets = resnets
        self._at_once = at_once
        self._last = _Last()
        self._weights: tuple[Tensor, Tensor] | None = None

    def of(self, number: int, embedded: Tensor) -> Tensor:
        """(pictures, channels) for one block."""
        import torch.nn.functional as F

        if not self._at_once:
            block = self.resnets[number]
            return F.linear(F.silu(embedded), block.time_emb_proj.weight, block.time_emb_proj.bias + block.conv1.bias)
        parts: list[Tensor] = self._last.get(embedded, lambda: self._make(embedded))
        return parts[number]

    def _make(self, embedded: Tensor) -> list[Tensor]:
        import torch
        import torch.nn.functional as F

        if self._weights is None:
            with torch.no_grad():
                weight = torch.cat([block.time_emb_proj.weight for block in self.resnets])
                bias = torch.cat([block.time_emb_proj.bias + block.conv1.bias for block in self.resnets])
                self._weights = weight, bias
        result = F.linear(F.silu(embedded), *self._weights)
        return list(torch.split(result, [block.conv1.out_channels for block in self.resnets], dim=1))


def _resnet(module: Any, times: _Times, number: int) -> Callable[..., Tensor]:  # noqa: ANN401
    import torch.nn.functional as F

    def forward(self: Any, input_tensor: Tensor, temb: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ANN401
        inside = norm_act(input_tensor, self.norm1)
        inside = F.conv2d(inside, self.conv1.weight, None, padding=self.conv1.padding)
        inside = norm_act(inside, self.norm2, times.of(number, temb))
        inside = F.conv2d(inside, self.conv2.weight, None, padding=self.conv2.padding)
        if self.conv_shortcut is not None:
            flat = input_tensor.permute(0, 2, 3, 1)
            input_tensor = F.linear(flat, self.conv_shortcut.weight.flatten(1), self.conv_shortcut.bias).permute(0, 3, 1, 2)
        return add_bias(inside.permute(0, 2, 3, 1), input_tensor.permute(0, 2, 3, 1), self.conv2.bias).permute(0, 3, 1, 2)

    return MethodType(forward, module)
