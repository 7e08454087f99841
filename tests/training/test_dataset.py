from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from easyphoto.engine.models import Models
from easyphoto.errors import Cancelled
from easyphoto.records import Photo, PreparedSet
from easyphoto.specs import DataSpec, TrainSpec
from easyphoto.training.dataset import batch_places, cache_latents, generator, inference_ratio, training_crops


def test_every_photo_comes_once_before_any_comes_again() -> None:
    drawn = torch.cat([batch_places(5, 3, first, seed=1) for first in range(0, 15, 3)]).tolist()
    for turn in range(3):
        assert sorted(drawn[5 * turn : 5 * turn + 5]) == [0, 1, 2, 3, 4]
    assert drawn == batch_places(5, 15, 0, seed=1).tolist(), "the order does not depend on the batch size"
    assert drawn != batch_places(5, 15, 0, seed=2).tolist()


def test_random_numbers_depend_on_seed_and_place_alone() -> None:
    first = torch.rand(4, generator=generator(1, "step", 7, 0))
    torch.manual_seed(123)
    assert torch.equal(first, torch.rand(4, generator=generator(1, "step", 7, 0)))
    assert not torch.equal(first, torch.rand(4, generator=generator(1, "step", 8, 0)))
    assert not torch.equal(first, torch.rand(4, generator=generator(2, "step", 7, 0)))


def test_crops_come_with_their_mirror_images(prepared: PreparedSet, spec: TrainSpec) -> None:
    crops = list(training_crops(prepared.photos[0], spec, 0))
    assert [crop.shape for crop in crops] == [(64, 64, 3)] * 4
    for plain, mirrored in zip(crops[::2], crops[1::2]):
        np.testing.assert_array_equal(plain[:, ::-1], mirrored)
    assert not np.array_equal(crops[0], crops[2])
    again = list(training_crops(prepared.photos[0], spec, 0))
    assert all(np.array_equal(one, other) for one, other in zip(crops, again))
    assert len(list(training_crops(prepared.photos[0], replace(spec, data=DataSpec(size=64, crops=0, flip=False)), 0))) == 1


def test_a_face_has_the_size_that_inference_gives_it(prepared: PreparedSet, spec: TrainSpec) -> None:
    """The embedded family's first pass shows a face box on 256 / 1.55 px, whatever the size of the training crop."""
    photo = prepared.photos[0]
    pixels = np.zeros((384, 384, 3), np.uint8)
    pixels[128:256, 128:256] = 255
    box = replace(photo.face.box, left=128, top=128, right=256, bottom=256)
    photo = replace(photo, crop=Photo(pixels=pixels, name="x"), face=replace(photo.face, box=box))
    for size in (192, 256):
        sized = replace(spec, data=DataSpec(size=size, crops=0, flip=False))
        (crop,) = training_crops(photo, sized, 0)
        assert (crop > 127).any(2).any(0).sum() == pytest.approx(size / inference_ratio(sized), abs=1.5)
        assert size / inference_ratio(sized) == pytest.approx(256 / 1.55)
        middle = np.argwhere(crop[..., 0] > 127).mean(0)
        assert middle == pytest.approx([size / 2 - 0.5] * 2, abs=1.0)


def test_latents_are_those_of_the_autoencoder(models: Models, prepared: PreparedSet, spec: TrainSpec) -> None:
    told: list[tuple[int, int]] = []
    cache = cache_latents(models, prepared, spec, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert tuple(cache.mean.shape) == tuple(cache.deviation.shape) == (3, 4, 4, 8, 8)
    crop = list(training_crops(prepared.photos[1], spec, 1))[2]
    picture = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latents = models.vae.encode(picture).latent_dist
    torch.testing.assert_close(cache.mean[1, 2], latents.mean[0] * models.vae.config.scaling_factor, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(cache.deviation[1, 2], latents.std[0] * models.vae.config.scaling_factor, rtol=1e-3, atol=1e-4)
    drawn = cache.draw(torch.tensor([0, 2]), generator(0, "x"))
    assert torch.equal(drawn, cache.draw(torch.tensor([0, 2]), generator(0, "x")))
    assert not cache.mean.requires_grad


def test_caching_can_be_stopped(models: Models, prepared: PreparedSet, spec: TrainSpec) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        cache_latents(models, prepared, spec, stop)
