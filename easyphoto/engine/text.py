"""Prompts as the numbers that a UNet reads, for every family: what both the engine and the trainer feed it.

SD1.5 and the embedded family read the last hidden state of their one text encoder (arXiv 2112.10752, section 3.3). SDXL reads
the states before the last layer of two encoders side by side, and besides them the second one's pooled projection and six
numbers that say how large the picture is and how it was cropped (arXiv 2307.01952, sections 2.1 and 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easyphoto.engine.models import Models

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TextStates:
    """Encoded prompts, one a row."""

    states: Tensor
    """(rows, tokens, width) for the cross-attention."""
    pooled: Tensor | None = None
    """(rows, width) of SDXL's second encoder; None for other families."""

    def __len__(self) -> int:
        return len(self.states)

    def expand(self, rows: int) -> TextStates:
        """A single row, seen as so many; nothing is copied."""
        pooled = None if self.pooled is None else self.pooled.expand(rows, -1)
        return TextStates(states=self.states.expand(rows, -1, -1), pooled=pooled)


def join(parts: Sequence[TextStates]) -> TextStates:
    """The rows of all parts, of one model, below each other."""
    import torch

    pooled = [part.pooled for part in parts if part.pooled is not None]
    return TextStates(states=torch.cat([part.states for part in parts]), pooled=torch.cat(pooled) if pooled else None)


def encode_prompts(models: Models, prompts: Sequence[str]) -> TextStates:
    """The prompts' states, differentiable in the text encoders; words beyond the encoders' 75 tokens are cut off."""
    return encode_tokens(models, tokenize(models, prompts))


def tokenize(models: Models, prompts: Sequence[str]) -> tuple[Tensor, ...]:
    """(rows, tokens) int64 on the models' device, one tensor for each text encoder."""
    return tuple(
        tokenizer(
            list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids.to(models.device)
        for tokenizer in models.tokenizers
    )


def encode_tokens(models: Models, tokens: Sequence[Tensor]) -> TextStates:
    """As `encode_prompts`, from what `tokenize` gave."""
    if len(models.text_encoders) == 1:
        return TextStates(states=models.text_encoder(tokens[0])[0])
    import torch

    first = models.text_encoder(tokens[0], output_hidden_states=True)
    second = models.text_encoder_2(tokens[1], output_hidden_states=True)
    states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return TextStates(states=states, pooled=second.text_embeds)


def added_conditions(models: Models, states: TextStates, size: tuple[int, int]) -> dict[str, Any] | None:
    """What diffusers calls `added_cond_kwargs`: SDXL's pooled text and sizes; None for other families.

    Args:
        models: Decide the device.
        states: Encoded prompts.
        size: (height, width) in px of the picture, which is whole: not enlarged, not cropped.
    """
    import torch

    if states.pooled is None:
        return None
    height, width = size
    # In float32: the UNet turns them into waves before it rounds, and bfloat16 would round 1000 px to 1000 +- 4.
    numbers = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=models.device)
    return {"text_embeds": states.pooled, "time_ids": numbers.expand(len(states), -1)}
