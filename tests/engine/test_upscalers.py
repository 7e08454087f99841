"""Upscaler files: found by name, the three layouts are one network, tiles leave no line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from easyphoto.engine import upscalers
from easyphoto.engine.upscalers import find_upscalers, load_upscaler
from easyphoto.errors import Cancelled, InputError, NotFound
from tests.engine.contract import picture

FEATURES, GROWTH = 8, 4


def weights(blocks: int = 2, channels: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """A small RRDBNet of random weights, by Real-ESRGAN's names."""
    chance = torch.Generator().manual_seed(seed)
    sizes = {"conv_first": (channels, FEATURES), "conv_last": (FEATURES, 3)}
    sizes |= dict.fromkeys(("conv_body", "conv_up1", "conv_up2", "conv_hr"), (FEATURES, FEATURES))
    for block in range(blocks):
        for part in (1, 2, 3):
            for layer in range(1, 6):
                name = f"body.{block}.rdb{part}.conv{layer}"
                sizes[name] = FEATURES + (layer - 1) * GROWTH, FEATURES if layer == 5 else GROWTH
    made = {}
    for name, (seen, shown) in sizes.items():
        made[f"{name}.weight"] = torch.randn(shown, seen, 3, 3, generator=chance) * (2 / (9 * seen)) ** 0.5
        made[f"{name}.bias"] = torch.randn(shown, generator=chance) * 0.01
    made["conv_last.bias"] += 0.5
    return made


def in_first_layout(made: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of the first ESRGAN files."""
    heads = {"conv_first": "model.0", "conv_body": "model.1.sub.2", "conv_up1": "model.3", "conv_up2": "model.6",
             "conv_hr": "model.8", "conv_last": "model.10"}  # fmt: skip
    found = {}
    for key, tensor in made.items():
        head, _, end = key.rpartition(".")
        if head in heads:
            found[f"{heads[head]}.{end}"] = tensor
        else:
            _, block, part, layer = head.split(".")
            found[f"model.1.sub.{block}.RDB{part[-1]}.{layer}.0.{end}"] = tensor
    return found


def in_second_layout(made: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    heads = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    found = {}
    for key, tensor in made.items():
        head, _, end = key.rpartition(".")
        if head.startswith("body."):
            _, block, part, layer = head.split(".")
            head = f"RRDB_trunk.{block}.RDB{part[-1]}.{layer}"
        found[f"{heads.get(head, head)}.{end}"] = tensor
    return found


def test_all_layouts_and_endings_are_one_network(tmp_path: Path) -> None:
    made, image = weights(), picture(32)
    save_file(made, tmp_path / "new.safetensors")
    torch.save({"params": weights(seed=3), "params_ema": made}, tmp_path / "new.pth")
    torch.save(in_first_layout(made), tmp_path / "old.pth")
    torch.save({"state_dict": in_second_layout(made)}, tmp_path / "middle.pth")
    names = ("new.safetensors", "new.pth", "old.pth", "middle.pth")
    results = [load_upscaler(tmp_path / name).enlarge(image) for name in names]
    assert results[0].shape == (128, 128, 3)
    assert results[0].std() > 1
    assert all((result == results[0]).all() for result in results[1:])


def reference(made: dict[str, torch.Tensor], image: np.ndarray) -> np.ndarray:
    """The network of the paper, written a second time as modules, over the whole picture at once."""

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        layer = torch.nn.Conv2d(x.shape[1], made[f"{name}.weight"].shape[0], 3, padding=1)
        layer.load_state_dict({"weight": made[f"{name}.weight"], "bias": made[f"{name}.bias"]})
        return layer(x)

    act = torch.nn.LeakyReLU(0.2)
    with torch.no_grad():
        first = conv("conv_first", torch.tensor(image).permute(2, 0, 1)[None] / 255)
        x = first
        for block in range(2):
            before = x
            for part in (1, 2, 3):
                seen = [x]
                for layer in range(1, 5):
                    seen.append(act(conv(f"body.{block}.rdb{part}.conv{layer}", torch.cat(seen, 1))))
                x = x + conv(f"body.{block}.rdb{part}.conv5", torch.cat(seen, 1)) * 0.2
            x = before + x * 0.2
        x = first + conv("conv_body", x)
        for name in ("conv_up1", "conv_up2"):
            x = act(conv(name, torch.nn.Upsample(scale_factor=2, mode="nearest")(x)))
        x = conv("conv_last", act(conv("conv_hr", x)))
    return (x[0].clamp(0, 1) * 255).round().permute(1, 2, 0).byte().numpy()


def test_it_computes_what_the_paper_says(tmp_path: Path) -> None:
    made, image = weights(), picture(48)
    save_file(made, tmp_path / "net.safetensors")
    found, wanted = load_upscaler(tmp_path / "net.safetensors").enlarge(image), reference(made, image)
    inner = np.s_[80:-80, 80:-80]
    assert np.abs(found[inner].astype(int) - wanted[inner]).max() <= 1


def test_tiles_leave_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(weights(blocks=1), tmp_path / "net.safetensors")
    net, image = load_upscaler(tmp_path / "net.safetensors"), picture(96)[:70]
    whole = net.enlarge(image)
    monkeypatch.setattr(upscalers, "_TILE", 32)
    told: list[tuple[int, int]] = []
    in_tiles = net.enlarge(image, lambda done, total: told.append((done, total)))
    assert told == [(done, 9) for done in range(1, 10)]
    assert in_tiles.shape == whole.shape == (280, 384, 3)
    assert np.abs(in_tiles.astype(int) - whole).max() <= 2


def test_a_network_of_factor_two(tmp_path: Path) -> None:
    save_file(weights(channels=12), tmp_path / "x2.safetensors")
    net = load_upscaler(tmp_path / "x2.safetensors")
    assert net.factor == 2
    assert net.enlarge(picture(33)[:21]).shape == (42, 66, 3)


def test_it_can_be_stopped_between_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(weights(), tmp_path / "net.safetensors")
    monkeypatch.setattr(upscalers, "_TILE", 16)

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        load_upscaler(tmp_path / "net.safetensors").enlarge(picture(64), stop)


def test_other_networks_are_refused_with_what_they_lack(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors is no upscaler .*conv_first"):
        load_upscaler(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read"):
        load_upscaler(tmp_path / "broken.safetensors")
    with pytest.raises(NotFound):
        load_upscaler(tmp_path / "gone.safetensors")


def test_they_are_found_around_a_webuis_checkpoint_or_where_somebody_says(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in ("ESRGAN/4x_Other.pth", "RealESRGAN/RealESRGAN_x4plus.pth", "ESRGAN/readme.txt", "Stable-diffusion/base.ckpt"):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).write_bytes(b"")
    base = models / "Stable-diffusion" / "base.ckpt"
    assert list(find_upscalers(base)) == ["RealESRGAN_x4plus", "4x_Other"]
    assert list(find_upscalers(base, models / "ESRGAN")) == ["4x_Other"]
    assert find_upscalers(tmp_path / "elsewhere") == {}
    with pytest.raises(InputError, match="EASYPHOTO_UPSCALER_DIR"):
        find_upscalers(base, tmp_path / "gone")
