"""What any layout of a base model is loaded into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """The networks of a base model, ready to run; see `models.Models` for each."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    text_encoder_2: Any = None
    tokenizer_2: Any = None
