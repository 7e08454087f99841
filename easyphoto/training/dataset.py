"""What the LoRA sees: latents of every photo in several crops, encoded once, and the order they are drawn in.

The autoencoder is frozen, so a crop's distribution of latents never changes: its mean and deviation are kept, and a
sample of it costs one multiplication a step. Crops show the face at the size inference will show it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from easyphoto.engine.models import Models
from easyphoto.families import PROFILES
from easyphoto.imaging.geometry import REPLICATE, Matrix, warp
from easyphoto.records import Floats, Pixels, PreparedPhoto, PreparedSet
from easyphoto.specs import DataSpec, TrainSpec
from easyphoto.training.focus import cell_weights, face_of
from easyphoto.training.memory import smaller_tiles

if TYPE_CHECKING:
    from torch import Generator, Tensor

_ENCODE_AT_ONCE = 4
_SCALE_JITTER = 0.15
"""Random crops are up to this share wider or tighter than the centred one ..."""
_SHIFT_JITTER = 0.06
"""... and moved by up to this share of their side."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentCache:
    """The latents of all photos in all their crops."""

    mean: Tensor
    """(photos, variants, 4, size / 8, size / 8) float32, scaled as the UNet wants them."""
    deviation: Tensor
    """Standard deviations of the same shape."""
    weight: Tensor | None = None
    """(photos, variants, 1, size / 8, size / 8) float32: how much each cell's error counts, 1 on average; None: all alike."""

    @property
    def photos(self) -> int:
        """How many photos."""
        return int(self.mean.shape[0])

    @property
    def variants(self) -> int:
        """How many crops of each photo, mirror images counted."""
        return int(self.mean.shape[1])

    def draw(self, places: Tensor, noise: Generator) -> Tensor:
        """Samples of the latents' distributions.

        Args:
            places: (batch,) indices of photos.
            noise: CPU generator that picks the crops and the samples.

        Returns:
            (batch, 4, size / 8, size / 8) float32 on the cache's device.
        """
        import torch

        crops = torch.randint(self.variants, places.shape, generator=noise)
        mean, deviation = self.mean[places, crops], self.deviation[places, crops]
        return mean + deviation * torch.randn(mean.shape, generator=noise).to(mean.device)


def generator(seed: int, *place: object) -> Generator:
    """A CPU generator that depends on the seed and the place alone: a resumed training draws what it would have drawn."""
    import torch

    return torch.Generator().manual_seed(place_seed(seed, *place))


def place_seed(seed: int, *place: object) -> int:
    """A number that depends on the seed and the place alone."""
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def batch_places(photos: int, batch: int, first: int, seed: int) -> Tensor:
    """(batch,) photo indices; every photo comes once before any comes again.

    Args:
        photos: How many there are.
        batch: How many to draw.
        first: How many have been drawn before.
        seed: Decides the order of each round.
    """
    import torch

    orders: dict[int, Tensor] = {}
    picked = []
    for place in range(first, first + batch):
        turn = place // photos
        if turn not in orders:
            orders[turn] = torch.randperm(photos, generator=generator(seed, "order", turn))
        picked.append(orders[turn][place % photos])
    return torch.stack(picked)


def cache_latents(models: Models, prepared: PreparedSet, spec: TrainSpec, on_photo: Callable[[int, int], None]) -> LatentCache:
    """Encode every photo in every crop once.

    Args:
        models: The base model; its autoencoder runs in float32.
        prepared: The accepted photos.
        spec: Crops, flips and size.
        on_photo: Told (photos done, photos) after each; may raise Cancelled.
    """
    import torch

    means, deviations, weights = [], [], []
    for number, photo in enumerate(prepared.photos):
        mean, deviation = _encode(models, list(training_crops(photo, spec, number)))
        means.append(mean)
        deviations.append(deviation)
        if spec.optim.face_weight != 1:
            weights.append(np.stack(list(crop_weights(photo, spec, number)))[:, None])
        on_photo(number + 1, len(prepared.photos))
    weight = torch.from_numpy(np.stack(weights)).to(means[0].device) if weights else None
    return LatentCache(mean=torch.stack(means), deviation=torch.stack(deviations), weight=weight)


def training_crops(photo: PreparedPhoto, spec: TrainSpec, number: int) -> Iterator[Pixels]:
    """The centred crop and the random ones, each followed by its mirror image: (size, size, 3) uint8 RGB.

    Args:
        photo: The prepared photo.
        spec: Size, number of crops, flips, seed.
        number: Which photo it is; decides its random crops.
    """
    for matrix in _matrices(photo, spec, number):
        pixels = warp(photo.crop.pixels, matrix, (spec.data.size, spec.data.size), border=REPLICATE)
        yield pixels
        if spec.data.flip:
            yield np.ascontiguousarray(pixels[:, ::-1])


def crop_weights(photo: PreparedPhoto, spec: TrainSpec, number: int) -> Iterator[Floats]:
    """How much each cell of each crop counts, in the order of `training_crops`: (size / 8, size / 8) float32, 1 on average."""
    face = face_of(photo)
    for matrix in _matrices(photo, spec, number):
        weights = cell_weights(face, matrix, spec.data.size, spec.optim.face_weight)
        yield weights
        if spec.data.flip:
            yield np.ascontiguousarray(weights[:, ::-1])


def _matrices(photo: PreparedPhoto, spec: TrainSpec, number: int) -> Iterator[Matrix]:
    """(2, 3) of each crop, from the photo."""
    rng = np.random.default_rng((spec.seed, number))
    for crop in range(spec.data.crops + 1):
        jitter = rng.uniform(-1, 1, 3) * float(crop > 0)
        if photo.face is None:
            yield _cut_scene(photo, spec.data, jitter)
            continue
        wider, shift = 1 + _SCALE_JITTER * jitter[0], _SHIFT_JITTER * jitter[1:]
        yield _cut(photo, spec.data, inference_ratio(spec) * wider, shift)


def inference_ratio(spec: TrainSpec) -> float:
    """Side of a training crop in longer sides of the face box, so that the face has as many px as in the first pass."""
    profile = PROFILES[spec.family]
    return profile.crop_ratio * spec.data.size / profile.first_size


def _cut(photo: PreparedPhoto, data: DataSpec, ratio: float, shift: NDArray[np.float64]) -> Matrix:
    """To a square of `ratio` face boxes around the face, no larger than the picture, moved by `shift` of its side."""
    box, crop = photo.own_face.box, photo.crop
    side = min(ratio * max(box.width, box.height), float(min(crop.width, crop.height)))
    middle = np.array(box.center) + shift * side
    room = np.array([crop.width, crop.height], float) - side / 2
    middle = np.clip(middle, side / 2, np.maximum(room, side / 2))
    scale = data.size / side
    return np.column_stack([np.eye(2) * scale, data.size / 2 - middle * scale])


def _cut_scene(photo: PreparedPhoto, data: DataSpec, jitter: NDArray[np.float64]) -> Matrix:
    """To the largest square in the middle of the picture, or one a little smaller anywhere in it.

    Args:
        photo: Without a face.
        data: The size.
        jitter: (3,) within -1 to 1: how much smaller, and where; zeros give the one in the middle.
    """
    whole = np.array([photo.crop.width, photo.crop.height], float)
    side = whole.min() * (1 - _SCALE_JITTER * abs(jitter[0]))
    middle = whole / 2 + jitter[1:] * (whole - side) / 2
    scale = data.size / side
    return np.column_stack([np.eye(2) * scale, data.size / 2 - middle * scale])


def _encode(models: Models, pictures: list[Pixels]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the latents, (pictures, 4, size / 8, size / 8) each."""
    import torch

    vae, factor, at_once, start = models.vae, models.vae.config.scaling_factor, _ENCODE_AT_ONCE, 0
    means, deviations = [], []
    while start < len(pictures):
        stack = torch.from_numpy(np.stack(pictures[start : start + at_once])).permute(0, 3, 1, 2)
        try:
            with torch.no_grad():
                images = (stack.float() / 127.5 - 1).to(models.device).contiguous(memory_format=torch.channels_last)
                latents = vae.encode(images).latent_dist
        except torch.OutOfMemoryError:
            if at_once == 1 and not smaller_tiles(vae):
                raise
            at_once = 1
            continue
        means.append(latents.mean.float() * factor)
        deviations.append(latents.std.float() * factor)
        start += at_once
    return torch.cat(means), torch.cat(deviations)
