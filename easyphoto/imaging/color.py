"""Colour in CIE Lab: taking one picture's tone to another, and measuring a seam."""

from __future__ import annotations

import cv2
import numpy as np

from easyphoto.records import Floats, Pixels

_JUST_SEEN = 2.3
"""Delta E (CIE 1976) that an eye just notices."""
_SPREAD = (0.6, 1.6)
"""Range of the contrast ratio of a transfer: further turns noise into blotches, or a face into a flat mask."""


def to_lab(pixels: Pixels) -> Floats:
    """(height, width, 3) float32 CIE Lab of RGB: L 0-100, a and b about -128..127."""
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB), np.float32)


def from_lab(lab: Floats) -> Pixels:
    """RGB of CIE Lab, rounded and clipped."""
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.clip(np.rint(rgb * 255.0), 0, 255), np.uint8)


def lab_statistics(lab: Floats, mask: Floats) -> tuple[Floats, Floats]:
    """((3,) mean, (3,) standard deviation) of Lab under a (height, width) 0-1 weight."""
    weight = mask[..., None] / max(float(mask.sum()), 1e-6)
    mean = (lab * weight).sum((0, 1))
    deviation = np.sqrt(((lab - mean) ** 2 * weight).sum((0, 1)))
    return mean.astype(np.float32), deviation.astype(np.float32)


def reinhard(source: Pixels, reference: Pixels, mask: Floats, reference_mask: Floats | None = None) -> Pixels:
    """`source` with the tone that `reference` has: Lab means and spreads are matched (Reinhard et al. 2001, section 3).

    Args:
        source: (height, width, 3) RGB.
        reference: (height, width, 3) RGB; of another size only with a mask of its own.
        mask: (height, width) 0-1: what is measured in `source`, and how strongly each pixel is changed.
        reference_mask: What is measured in `reference`; `mask` where None.

    Returns:
        RGB; where the mask is 0 it is `source` untouched.
    """
    theirs = mask if reference_mask is None else reference_mask
    if mask.max(initial=0) <= 0 or theirs.max(initial=0) <= 0:
        return source
    lab = to_lab(source)
    mean, spread = lab_statistics(lab, mask)
    wanted_mean, wanted_spread = lab_statistics(to_lab(reference), theirs)
    gain = np.clip((wanted_spread + 1e-3) / (spread + 1e-3), *_SPREAD)
    toned = (lab - mean) * gain + wanted_mean
    moved = from_lab(lab + mask[..., None] * (toned - lab))
    return np.where(mask[..., None] > 0, moved, source)


def lab_step(pixels: Pixels, mask: Floats, reach: float) -> Floats:
    """Colour steps across a mask's edge.

    The edge is where the mask passes 0.5. At each of its pixels the Lab colour `reach` px inside is compared with the
    one `reach` px outside, both averaged over a small disc so that grain and hair do not count.

    Returns:
        (n,) Delta E (CIE 1976) for the n edge pixels, in raster order; they depend on the mask alone.
    """
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(reach, 1.0))
    slope_x, slope_y = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    inside = (mask >= 0.5).astype(np.uint8)
    edge = (inside == 1) & (cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=1) == 0)
    y, x = np.nonzero(edge)
    length = np.hypot(slope_x[y, x], slope_y[y, x]) + 1e-9
    step_x, step_y = slope_x[y, x] / length * reach, slope_y[y, x] / length * reach
    lab = cv2.GaussianBlur(to_lab(pixels), (0, 0), max(reach / 2, 0.5))
    step = _sample(lab, x + step_x, y + step_y) - _sample(lab, x - step_x, y - step_y)
    return np.asarray(np.linalg.norm(step, axis=1), np.float32)


def visible_change(picture: Pixels, template: Pixels, reach: float) -> Floats:
    """(height, width) 0 or 1: the largest region in which an eye sees that `picture` is not `template`; holes are filled.

    Both are averaged over a disc of `reach` px before they are compared, so that grain does not count.
    """
    here, there = (cv2.GaussianBlur(to_lab(pixels), (0, 0), max(reach / 2, 0.5)) for pixels in (picture, template))
    seen = (np.linalg.norm(here - there, axis=2) > _JUST_SEEN).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(reach) + 1,) * 2)
    whole = cv2.morphologyEx(cv2.morphologyEx(seen, cv2.MORPH_CLOSE, kernel), cv2.MORPH_OPEN, kernel)
    outlines, _ = cv2.findContours(whole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    region = np.zeros(seen.shape, np.uint8)
    if outlines:
        cv2.drawContours(region, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return region.astype(np.float32)


def seam(picture: Pixels, template: Pixels, face_width: float) -> float:
    """How much of a new step `picture` has where it begins to differ from `template`.

    The edge is found in the pictures themselves (`visible_change`), so a method cannot choose where it is measured. Along it
    `lab_step`, 4 % of the face's width to either side, is compared with the template's own; only steps that became larger
    count, and the mean is over the whole edge. 0 means that no edge is more visible than before, 2.3 is about what an eye just
    notices (JND of Delta E).

    Args:
        picture: (height, width, 3) RGB result.
        template: (height, width, 3) RGB before anything was changed.
        face_width: Width of the face in px.
    """
    reach = max(1.5, 0.04 * face_width)
    region = visible_change(picture, template, reach)
    more = lab_step(picture, region, reach) - lab_step(template, region, reach)
    return float(np.maximum(more, 0).mean()) if len(more) else 0.0


def spread(weighted: Floats, weight: Floats, radius: float) -> Floats:
    """What is known at some pixels, spread to all: normalised convolution (Knutsson & Westin 1993).

    Args:
        weighted: (height, width, 3) values times their weight.
        weight: (height, width) 0-1, how well each is known.
        radius: Standard deviation of the spreading in px; a wide one is computed at a fraction of the size.

    Returns:
        (height, width, 3); the overall mean where nothing is near.
    """
    height, width = weight.shape
    shrink = max(1, int(radius / 4))
    size = max(1, width // shrink), max(1, height // shrink)
    layers = cv2.resize(np.dstack([weighted, weight]), size, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(layers, (0, 0), radius * size[0] / width)
    prior = 1e-3
    overall = weighted.sum((0, 1)) / (weight.sum() + 1e-6)
    known = (blurred[..., :3] + prior * overall) / (blurred[..., 3:] + prior)
    return np.asarray(cv2.resize(known, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _sample(lab: Floats, x: Floats, y: Floats) -> Floats:
    """(n, 3) values at (n,) positions, the nearest pixel's beyond the edge."""
    columns = np.clip(np.rint(x), 0, lab.shape[1] - 1).astype(int)
    rows = np.clip(np.rint(y), 0, lab.shape[0] - 1).astype(int)
    return np.asarray(lab[rows, columns], np.float32)
