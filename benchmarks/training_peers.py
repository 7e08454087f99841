"""Other trainers on the same work, as their own scripts run it; nothing of them is part of this project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_PHOTOS = 10
_EPOCH = 40
"""Times that diffusers' script is given each photo: it starts its workers anew after all of them."""
_CAPTION = "easyphoto_face, easyphoto, 1person"
_RUN = str(Path(__file__).parent / "training_peer_run.py")
_FROM = 20
"""Steps before this one are warming up."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a peer is asked to train."""

    sdxl: bool
    side: int
    batch: int
    rank: int
    text: bool
    steps: int
    least: bool = False
    """Memory before speed."""


def write_photos(folder: Path, side: int) -> Path:
    """Made-up photos, captioned, as kohya and as diffusers want them."""
    place = folder / "1000_person"
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(_PHOTOS):
        coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(np.kron(coarse, np.ones((side // 16, side // 16, 1), np.uint8))).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(_CAPTION, encoding="utf-8")
    rows = [json.dumps({"file_name": f"{number}.png", "text": _CAPTION}) for number in range(_PHOTOS)]
    (place / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def _repeat(photos: Path, times: int) -> None:
    """Have each photo so often, under other names, and its caption in the list alone."""
    rows = []
    for path in sorted(photos.glob("*.png")):
        path.with_suffix(".txt").unlink()
        for turn in range(times):
            name = f"{turn}-{path.name}"
            os.link(path, photos / name)
            rows.append(json.dumps({"file_name": name, "text": _CAPTION}))
        path.unlink()
    (photos / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")


def write_tokenizers(folder: Path) -> Path:
    """Where kohya looks for the tokenizers that it would fetch."""
    from tests.tiny import _write_tokenizer

    for name in ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k"):
        _write_tokenizer(folder / name)
    return folder


def kohya(checkout: Path, packages: Path | None, base: Path, scratch: Path, work: Work) -> dict[str, float | str]:
    """Seconds of kohya's sd-scripts: latents cached, bfloat16, torch's attention, AdamW, no samples.

    Args:
        checkout: Its repository.
        packages: A folder with the packages it wants, put before ours; None uses ours.
        base: The base model's folder.
        scratch: An empty folder.
        work: What to train.
    """
    photos, tokenizers = write_photos(scratch / "photos", work.side), write_tokenizers(scratch / "tokenizers")
    script = "sdxl_train_network.py" if work.sdxl else "train_network.py"
    command = [
        sys.executable, _RUN, script, f"--pretrained_model_name_or_path={base}", f"--train_data_dir={photos}",
        f"--output_dir={scratch / 'out'}", f"--tokenizer_cache_dir={tokenizers}", "--output_name=peer",
        f"--resolution={work.side},{work.side}", f"--train_batch_size={work.batch}", f"--max_train_steps={work.steps}",
        "--network_module=networks.lora", f"--network_dim={work.rank}", f"--network_alpha={work.rank / 2}",
        "--learning_rate=1e-4", "--text_encoder_lr=5e-5", "--optimizer_type=AdamW", "--lr_scheduler=constant",
        "--cache_latents", "--sdpa", "--caption_extension=.txt", "--save_model_as=safetensors", "--save_precision=fp16",
        "--max_data_loader_n_workers=2", "--persistent_data_loader_workers", "--seed=0",
        "--mixed_precision=" + ("no" if _on_cpu() else "bf16"),
    ]  # fmt: skip
    command += [] if work.text else ["--network_train_unet_only"]
    command += ["--no_half_vae"] if work.sdxl else []
    command += ["--gradient_checkpointing", "--vae_batch_size=1"] if work.least else []
    command += ["--cache_text_encoder_outputs"] if work.least and work.sdxl and not work.text else []
    before = [str(packages)] if packages else []
    path = os.pathsep.join([*before, str(checkout), *([] if packages else [os.environ.get("PYTHONPATH", "")])])
    return _timed(command, checkout, {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}, work)


def diffusers(checkout: Path, packages: Path | None, base: Path, scratch: Path, work: Work) -> dict[str, float | str]:
    """Seconds of diffusers' own script: UNet's attention alone, photos encoded anew in every step; as `kohya`."""
    photos = write_photos(scratch / "photos", work.side) / "1000_person"
    _repeat(photos, _EPOCH)
    script = f"train_text_to_image_lora{'_sdxl' if work.sdxl else ''}.py"
    command = [
        sys.executable, _RUN, str(checkout / "examples" / "text_to_image" / script),
        f"--pretrained_model_name_or_path={base}", f"--train_data_dir={photos}", f"--output_dir={scratch / 'out'}",
        f"--cache_dir={scratch / 'cache'}", f"--resolution={work.side}", f"--train_batch_size={work.batch}",
        f"--max_train_steps={work.steps}", f"--rank={work.rank}", "--learning_rate=1e-4", "--lr_warmup_steps=0",
        "--dataloader_num_workers=4", "--checkpointing_steps=100000", "--seed=0",
        "--mixed_precision=" + ("no" if _on_cpu() else "bf16"),
    ]  # fmt: skip
    command += ["--train_text_encoder"] if work.text and work.sdxl else []
    command += ["--gradient_checkpointing"] if work.least else []
    path = os.pathsep.join([*([str(packages)] if packages else []), os.environ.get("PYTHONPATH", "")])
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return _timed(command, scratch, {**os.environ, "PYTHONPATH": path, **offline}, work)


def _on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()


def _timed(command: list[str], folder: Path, environment: dict[str, str], work: Work) -> dict[str, float | str]:
    """Run it, and read from its progress line when which step was done."""
    began, seen, tail = time.perf_counter(), {}, ""
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        while chunk := child.stdout.read1(65_536):
            tail = (tail + chunk.decode(errors="replace"))[-6000:]
            for step in re.findall(r"(?i)steps:[^\r\n]*?\| (\d+)/\d+", tail[-1500:]):
                seen.setdefault(int(step), time.perf_counter())
    whole = time.perf_counter() - began
    first = next((step for step in sorted(seen) if step >= min(_FROM, work.steps // 3)), 0)
    if child.returncode or not seen or max(seen) <= first:
        return {"error": f"exit code {child.returncode}", "tail": tail[-3000:]}
    step = (seen[max(seen)] - seen[first]) / (max(seen) - first)
    peaks = re.findall(r"PEAK (\S+) (\S+)", tail)
    memory = {"allocated_gib": float(peaks[-1][0]), "reserved_gib": float(peaks[-1][1])} if peaks else {}
    return {
        **memory,
        "ms_a_step": 1e3 * step, "ms_a_picture": 1e3 * step / work.batch, "pictures_a_second": work.batch / step,
        "whole_process_s": whole, "around_steps_s": whole - step * work.steps,
    }  # fmt: skip
