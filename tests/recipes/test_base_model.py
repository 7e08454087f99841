"""The embedded base model: its parts are what the card says, its galleries are what the issue of them promised."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from easyphoto.faces.embed import distance
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging.io import load_photo, photo_files
from easyphoto.records import CAPTION
from easyphoto.store.templates import list_templates


def test_everything_together_is_at_most_120_mb_and_safetensors_alone(base_model: Path) -> None:
    files = [path for path in base_model.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 120e6
    assert not [path for path in files if path.suffix in {".bin", ".ckpt", ".pt", ".pth", ".pkl"}]


def test_the_parts_have_the_promised_shapes() -> None:
    import torch

    from recipes.base_model.architecture import build_controlnet, build_unet, build_vae, count_parameters

    unet, vae = build_unet(), build_vae()
    assert 20e6 <= count_parameters(unet) <= 30e6
    with torch.inference_mode():
        assert vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mode().shape == (1, 4, 8, 8)
        shown, states = torch.rand(1, 3, 64, 64), torch.randn(1, 77, 256)
        parts = build_controlnet(unet)(torch.randn(1, 4, 8, 8), 10, states, shown, return_dict=False)
    assert all(float(part.abs().max()) == 0 for part in [*parts[0], parts[1]]), "an untrained ControlNet changes nothing"


def test_a_maps_embedding_starts_awake_even_for_thin_lines() -> None:
    import torch

    from recipes.base_model.architecture import build_controlnet, build_unet
    from recipes.base_model.controlnet import wake_embedding

    embedding = build_controlnet(build_unet()).controlnet_cond_embedding
    lines = torch.zeros(2, 3, 64, 64)
    lines[:, :, 20, 10:50] = lines[:, :, 10:50, 30] = 1
    with torch.inference_mode():
        assert float(embedding(lines).std()) == 0, "diffusers' start lets nothing through"
        wake_embedding(embedding, lines, strength=0.5)
        assert float(embedding(lines).std()) == pytest.approx(0.5, rel=0.01)


def test_other_cameras_soften_half_of_a_batch_and_keep_its_order() -> None:
    import torch

    from recipes.base_model.autoencoder import PATCH, like_other_cameras

    checks = (torch.arange(PATCH)[:, None] + torch.arange(PATCH)[None]) % 2 * 1.0 - 0.5
    levels = torch.linspace(-0.3, 0.3, 16).view(16, 1, 1, 1)
    made = like_other_cameras(checks.expand(16, 3, PATCH, PATCH) * 0.4 + levels, np.random.default_rng(0))
    assert made.shape == (16, 3, PATCH, PATCH)
    detail = made.std((1, 2, 3))
    assert float(detail[:8].min()) > 3 * float(detail[8:].max())
    assert float(torch.corrcoef(torch.stack([made.mean((1, 2, 3)), levels.flatten()]))[0, 1]) > 0.8


def test_the_caption_is_few_tokens_and_any_text_has_some(base_model: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(base_model / "tokenizer", local_files_only=True)
    assert len(tokenizer(CAPTION).input_ids) <= 12
    for text in ("masterpiece, beauty", "Ein Porträt, 阿梅 🙂", "x" * 500):
        assert len(tokenizer(text, truncation=True, max_length=77).input_ids) > 2


def test_the_gallery_shows_women_and_men_of_different_ages(templates: Path, tools: FaceTools) -> None:
    gallery = list_templates(templates)
    assert len(gallery) == 8
    assert {sex: sum(item.sex == sex for item in gallery) for sex in ("woman", "man")} == {"woman": 4, "man": 4}
    assert len({item.age for item in gallery}) >= 4
    for item in gallery:
        photo = load_photo(item.path)
        assert min(photo.width, photo.height) >= 512
        assert len(tools.faces(photo)) == 1, item.name


@pytest.mark.parametrize("sex", ["woman", "man"])
def test_a_sample_person_is_one_person_in_ten_different_photos(sample_people: Path, tools: FaceTools, sex: str) -> None:
    photos = [load_photo(path) for path in photo_files([sample_people / sex])]
    assert len(photos) == 10
    vectors = []
    for photo in photos:
        (face,) = tools.faces(photo)
        vectors.append(tools.with_embedding(photo, face).embedding)
    assert np.median([distance(a, b) for a, b in itertools.combinations(vectors, 2)]) <= 0.45
    assert len({photo.digest for photo in photos}) == 10


def test_how_the_sample_people_were_made_is_written_down(sample_people: Path) -> None:
    facts = json.loads((sample_people / "people.json").read_text(encoding="utf-8"))
    assert {fact["sex"] for fact in facts} == {"woman", "man"}
    assert all("seed" in fact["face"] for fact in facts)
