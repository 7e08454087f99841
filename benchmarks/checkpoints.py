"""Do checkpoints of the true size load weight for weight, from one file and from a folder, and how fast?

    python benchmarks/checkpoints.py                     SD1.5, then SDXL: 15 GB of disk, 12 of memory
    python benchmarks/checkpoints.py sd15 --device cuda --paint

Writes a file of random half-precision weights in LDM layout, tells its family by the header, loads it, compares every weight
with what diffusers' own converters find in the file, writes the model as a diffusers folder, loads that and compares again.
With --paint one picture is painted, to see the whole engine run at that size (on random weights it shows noise).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_models import SD15, SDXL, Shape

from easyphoto.engine.detect import detect_family
from easyphoto.engine.models import Models, load_models, resolve_device
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.records import InpaintJob
from easyphoto.store.ldm_family import CLIP, CLIP_XL, OPEN_CLIP_XL, UNET, VAE
from easyphoto.store.ldm_layout import unet_names, vae_name
from easyphoto.store.ldm_open_clip import open_clip_origin

Shapes = dict[str, tuple[int, ...]]
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
LOOKS = 9
"""How often the family is told; the first time counts like the others."""


def ldm_shapes(shape: Shape) -> Shapes:
    """Name and shape of every tensor of a checkpoint."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**shape.unet).state_dict(), AutoencoderKL(**shape.vae).state_dict()
        first = CLIPTextModel(CLIPTextConfig(**shape.texts[0])).state_dict()
        two = len(shape.texts) == 2
        second = CLIPTextModelWithProjection(CLIPTextConfig(**shape.texts[1])).state_dict() if two else {}
    names, levels = unet_names(unet, shape.unet["layers_per_block"]), len(shape.vae["block_out_channels"])
    found = {UNET + names[name]: tuple(tensor.shape) for name, tensor in unet.items()}
    for name, tensor in vae.items():
        ones = (1, 1) if ".attentions." in name and tensor.ndim == 2 else ()
        found[VAE + vae_name(name, levels)] = (*tensor.shape, *ones)
    prefix = CLIP_XL if two else CLIP
    found |= {f"{prefix}text_model.{name.removeprefix('text_model.')}": tuple(tensor.shape) for name, tensor in first.items()}
    for name, tensor in second.items():
        origin, sides = open_clip_origin(name), tuple(tensor.shape)
        found[OPEN_CLIP_XL + origin.key] = (3 * sides[0], *sides[1:]) if origin.third is not None else sides
    return found


def write_random(path: Path, shapes: Shapes) -> None:
    """A safetensors file of half-precision numbers between -1 and 1."""
    end, entries = 0, {}
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    noise = np.random.Generator(np.random.SFC64(0))
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for shape in shapes.values():
            count = int(np.prod(shape))
            bits = noise.integers(0, 0x3C00, count, dtype=np.uint16) | (noise.integers(0, 2, count, dtype=np.uint16) << 15)
            file.write(bits.tobytes())


def look(path: Path) -> dict[str, Any]:
    """How long the family takes to tell, in ms."""
    times = [timed(lambda: detect_family(path))[1] * 1000 for _ in range(LOOKS)]
    family = detect_family(path).value
    return {"family": family, "median_ms": round(statistics.median(times), 1), "worst_ms": round(max(times), 1)}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and its seconds."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def networks(models: Models) -> Iterator[tuple[str, Any]]:
    """The networks that the model has, by name."""
    yield from ((name, network) for name in NETWORKS if (network := getattr(models, name)) is not None)


def compare(path: Path, models: Models) -> dict[str, int]:
    """How many weights of each network equal what diffusers reads; raises where one does not."""
    from diffusers.loaders import single_file_utils as reader

    two = models.text_encoder_2 is not None
    prefix = CLIP_XL if two else CLIP

    def words() -> dict[str, torch.Tensor]:
        return {name.removeprefix(f"{prefix}text_model."): tensor for name, tensor in part(path, prefix).items()}

    readers: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
        "unet": lambda: reader.convert_ldm_unet_checkpoint(part(path, UNET), dict(models.unet.config)),
        "vae": lambda: reader.convert_ldm_vae_checkpoint(part(path, VAE), dict(models.vae.config)),
        "text_encoder": words,
        "text_encoder_2": lambda: reader.convert_open_clip_checkpoint(
            models.text_encoder_2, part(path, OPEN_CLIP_XL), OPEN_CLIP_XL
        ),
    }
    equal = {}
    for name, network in networks(models):
        theirs = {key: tensor for key, tensor in readers[name]().items() if not key.endswith("position_ids")}
        own = network.state_dict()
        assert set(own) == set(theirs), sorted(set(own) ^ set(theirs))[:5]
        for key, tensor in own.items():
            assert torch.equal(tensor.cpu().flatten(), theirs[key].to(tensor.dtype).flatten()), f"{name}: {key}"
        equal[name] = len(own)
    return equal


def part(path: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors below a prefix, mapped from the disk."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def digests(models: Models) -> dict[str, dict[str, str]]:
    """A digest of every weight."""

    def digest(tensor: torch.Tensor) -> str:
        return hashlib.blake2b(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()

    return {
        name: {key: digest(tensor) for key, tensor in network.state_dict().items()} for name, network in networks(models)
    }


def write_folder(models: Models, folder: Path) -> None:
    """The model in diffusers' layout, the UNet in parts."""
    for name, network in networks(models):
        network.save_pretrained(folder / name, **({"max_shard_size": "3GB"} if name == "unet" else {}))
    for name, tokenizer in zip(("tokenizer", "tokenizer_2"), models.tokenizers):
        tokenizer.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(models.scheduler_config))
    (folder / "model_index.json").write_text("{}")


def paint(models: Models, side: int) -> float:
    """Seconds of one inpainting of eight guided steps, the first already behind it."""
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    mask = np.zeros((side, side), np.float32)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = 1
    job = InpaintJob(image=image, mask=mask, prompt="a woman", negative="blurry", strength=0.5, steps=16, guidance=7.0)
    with StandaloneEngine(models) as engine:
        engine.inpaint(job)
        return timed(lambda: engine.inpaint(job))[1]


def measure(shape: Shape, folder: Path, device: str, painting: bool) -> dict[str, Any]:
    """One family's row."""
    path = folder / f"{shape.family.value}.safetensors"
    write_random(path, ldm_shapes(shape))
    row: dict[str, Any] = {"gigabytes": round(path.stat().st_size / 1e9, 2), **look(path)}
    models, row["file_seconds"] = timed(lambda: load_models(path, device, torch.float16))
    row["equal_to_diffusers"] = compare(path, models)
    if painting:
        row["paint_seconds"] = paint(models, shape.vae["sample_size"])
    wanted, other = digests(models), folder / shape.family.value
    write_folder(models, other)
    del models
    models, row["folder_seconds"] = timed(lambda: load_models(other, device, torch.float16))
    assert digests(models) == wanted
    row["folder_equals_file"] = True
    path.unlink()
    shutil.rmtree(other)
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=["sd15", "sdxl"], default=["sd15", "sdxl"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where there is room for the files (default: the temporary folder)")
    parser.add_argument("--paint", action="store_true")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    for shape in (SD15, SDXL):
        if shape.family.value in arguments.families:
            with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="easyphoto-checkpoints-") as folder:
                print(json.dumps(measure(shape, Path(folder), device, arguments.paint)), flush=True)


if __name__ == "__main__":
    main()
