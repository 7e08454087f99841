"""The captions of a training as the UNet reads them.

Where all pictures have one caption it is one row a person, encoded once a step, or once at all where the text encoders are
frozen. Several captions are one row a picture: taken from states that are kept, or encoded in the step, each caption once where
a training has fewer of them than a step has pictures. Shapes are the same in every step, so that a CUDA graph can hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from easyphoto.engine.models import Models
from easyphoto.engine.text import TextStates, encode_tokens, tokenize
from easyphoto.training.draws import Learner

if TYPE_CHECKING:
    from torch import Tensor


class Captions:
    """Every caption of one training of one or several people."""

    def __init__(self, models: Models, learners: Sequence[Learner], frozen: bool) -> None:
        """Tokenize, and encode what is encoded once.

        Args:
            models: The base model.
            learners: Whose captions.
            frozen: The text encoders learn nothing.
        """
        import torch

        self._models, self._alone = models, len(learners) == 1
        said = [_captions(learner) for learner in learners]
        several = any(len(set(captions)) > 1 for captions in said)
        different = list(dict.fromkeys(caption for captions in said for caption in captions))
        self._tokens = tokenize(models, different if several else [captions[0] for captions in said])
        self._which: Tensor | None = None
        """(latents,) which caption belongs to each row of the table of latents."""
        if several:
            device = learners[0].cache.mean.device
            places = [
                different.index(caption)
                for learner, captions in zip(learners, said) for caption in captions for _ in range(learner.cache.variants)
            ]  # fmt: skip
            self._which = torch.tensor(places, device=device)
        self._kept: TextStates | None = None
        if frozen:
            with torch.no_grad():
                self._kept = self._encode_at_home()

    def read(self, rows: Tensor) -> TextStates:
        """The states for some pictures, given by their rows in the table of latents: one row a person, or one a picture."""
        if self._which is None:
            return self._encoded() if self._kept is None else _seen_anew(self._kept)
        which = self._which[rows]
        if self._kept is not None:
            return _rows(self._kept, which)
        if self._alone and len(self._tokens[0]) <= len(rows):
            return _rows(self._encoded(), which)
        return encode_tokens(self._models, [part[which] for part in self._tokens])

    def _encoded(self) -> TextStates:
        return encode_tokens(self._models, self._tokens)

    def _encode_at_home(self) -> TextStates:
        """The captions, encoded where the text encoders lie: a GPU that has no room for them needs none."""
        tokens = [part.to(encoder.device) for part, encoder in zip(self._tokens, self._models.text_encoders)]
        found, device = encode_tokens(self._models, tokens), self._models.device
        return TextStates(states=found.states.to(device), pooled=None if found.pooled is None else found.pooled.to(device))


def _captions(learner: Learner) -> list[str]:
    """One for each photo."""
    own = learner.spec.data.caption
    return [caption or own for caption in learner.captions] or [own] * learner.cache.photos


def _seen_anew(kept: TextStates) -> TextStates:
    """Another object every time: what is computed from it is remembered by it, and the factors have changed."""
    return TextStates(states=kept.states.view(kept.states.shape), pooled=kept.pooled)


def _rows(found: TextStates, which: Tensor) -> TextStates:
    # Not `states[which]`, whose backward pass sorts: this one's only adds, which a CUDA graph can hold.
    pooled = None if found.pooled is None else found.pooled.index_select(0, which)
    return TextStates(states=found.states.index_select(0, which), pooled=pooled)
