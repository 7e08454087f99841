"""What the diffusion model is told, in words."""

from __future__ import annotations

from easyphoto.families import Family
from easyphoto.records import CAPTION
from easyphoto.specs import PortraitRequest

_NEGATIVES = {
    # The embedded model has only ever seen clean portraits: naming faults would say nothing to it.
    Family.EMBEDDED: "",
    Family.SD15: "sketch, low quality, worst quality, blurry, deformed, glasses, watermark, text",
    Family.SDXL: "low quality, blurry, deformed, glasses, watermark, text",
}


def positive_prompt(request: PortraitRequest) -> str:
    """The caption that every LoRA is trained with, then the request's own words."""
    return ", ".join(part for part in (CAPTION, request.prompt.strip().strip(",")) if part)


def negative_prompt(request: PortraitRequest, family: Family) -> str:
    """The request's own words before the family's usual ones."""
    return ", ".join(part for part in (request.negative.strip().strip(","), _NEGATIVES[family]) if part)


def background_prompt(request: PortraitRequest) -> str:
    """The request's own words alone: what everybody's LoRA was trained with speaks of a face, which stays."""
    return request.prompt.strip().strip(",")
