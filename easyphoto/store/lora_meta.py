"""The metadata that kohya's trainer writes into a LoRA file, which the WebUI shows and sorts by, and our whole spec."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.__version__ import __version__
from easyphoto.families import Family
from easyphoto.records import TrainKind
from easyphoto.specs import RateSchedule, TrainSpec
from easyphoto.store.codec import loads, to_json
from easyphoto.store.lora_file import BASE_VERSIONS, SPEC_KEY, Array, LoraFile, serialize

_ARCHITECTURES = {
    Family.EMBEDDED: ("easyphoto-embedded", "diffusers"),
    Family.SD15: ("stable-diffusion-v1", "diffusers"),
    Family.SDXL: ("stable-diffusion-xl-v1-base", "https://github.com/Stability-AI/generative-models"),
}
"""Name of the network and of the code that its names come from."""
SCENE_MARK, SCENE_PROMPT = "ep_lora_version", "ep_prompt"
"""Keys that the EasyPhoto extension writes into a scene's LoRA."""
APOSTROPHE = "\u2019"
_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000
"""The window of the file that the oldest WebUI hash looks at."""


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What the spec does not say: what was really done."""

    steps: int
    photos: int
    base_digest: str = ""
    """SHA-256 of the base model's file, where it is one."""
    prediction: str = "epsilon"
    """What the base model predicts, in diffusers' words."""
    precision: str = "no"
    """What was computed in besides float32: "fp16", "bf16" or "no"."""
    started: float = 0.0
    """Seconds since 1970."""
    finished: float = 0.0
    merged_steps: tuple[int, ...] = ()
    """Steps of the checkpoints that were merged; () for a single one."""
    captions: tuple[str, ...] = ()
    """Of each photo; () where all have the spec's."""


def kohya_metadata(spec: TrainSpec, facts: TrainingFacts) -> dict[str, str]:
    """The `ss_*` and `modelspec.*` fields of kohya's trainer, and the spec itself under `easyphoto_spec`."""
    fields = {
        **_training_fields(spec, facts), **_data_fields(spec, facts), **_modelspec(spec, facts), **_scene_fields(spec, facts),
        "ss_training_comment": f"easyphoto {__version__}",
        "easyphoto_version": __version__,
        "easyphoto_merged_steps": json.dumps(list(facts.merged_steps)),
        SPEC_KEY: json.dumps(to_json(spec), ensure_ascii=False, sort_keys=True),
    }  # fmt: skip
    return {key: value if isinstance(value, str) else str(value) for key, value in fields.items()}


def _training_fields(spec: TrainSpec, facts: TrainingFacts) -> dict[str, object]:
    """What was trained, on what, and how."""
    text, steps = spec.lora.text_encoder, spec.optim.steps_for(facts.photos)
    constant = spec.optim.schedule is RateSchedule.CONSTANT
    fields: dict[str, object] = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": spec.lora.rank,
        "ss_network_alpha": spec.lora.file_alpha,
        "ss_base_model_version": BASE_VERSIONS[spec.family],
        "ss_sd_model_name": spec.base_model.name,
        "ss_v2": False,
        "ss_learning_rate": spec.optim.learning_rate,
        "ss_unet_lr": spec.optim.learning_rate,
        "ss_text_encoder_lr": spec.optim.text_learning_rate if text else 0.0,
        "ss_network_dropout": None,
        "ss_optimizer": "torch.optim.adamw.AdamW",
        "ss_lr_scheduler": "constant_with_warmup" if constant and spec.optim.warmup else spec.optim.schedule.value,
        "ss_lr_warmup_steps": math.ceil(spec.optim.warmup * steps),
        "ss_mixed_precision": facts.precision,
        "ss_full_fp16": False,
        "ss_noise_offset": None,
        "ss_loss_type": "l2",
        "ss_max_grad_norm": spec.optim.max_grad_norm,
        "ss_min_snr_gamma": spec.optim.snr_gamma,
        "ss_gradient_accumulation_steps": spec.optim.accumulation,
        "ss_batch_size_per_device": spec.optim.batch_size,
        "ss_total_batch_size": spec.optim.batch_size * spec.optim.accumulation,
        "ss_steps": facts.steps,
        "ss_max_train_steps": steps,
        "ss_clip_skip": None,
        "ss_max_token_length": None,
        "ss_seed": spec.seed,
        "ss_output_name": spec.person,
        "ss_training_started_at": facts.started,
        "ss_training_finished_at": facts.finished,
    }
    # kohya leaves out what it does not know; an empty hash would match other empty ones.
    known = {"ss_new_sd_model_hash": facts.base_digest, "ss_sd_model_hash": legacy_hash(spec.base_model)}
    return fields | {name: value for name, value in known.items() if value}


def legacy_hash(path: Path) -> str:
    """The hash by which the oldest WebUIs tell a checkpoint, of 64 KiB inside it; "" for what is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(_LEGACY_START)
            return hashlib.sha256(file.read(_LEGACY_LENGTH)).hexdigest()[:8]
    except OSError:
        return ""


def _data_fields(spec: TrainSpec, facts: TrainingFacts) -> dict[str, object]:
    """The pictures, in kohya's words: one folder, each picture once, all of one size."""
    size, folder = spec.data.size, "easyphoto"
    batches = max(1, math.ceil(facts.photos / spec.optim.batch_size))
    return {
        "ss_num_train_images": facts.photos,
        "ss_num_reg_images": 0,
        "ss_num_batches_per_epoch": batches,
        "ss_num_epochs": math.ceil(facts.steps * spec.optim.accumulation / batches),
        "ss_resolution": f"({size}, {size})",
        "ss_cache_latents": True,
        "ss_flip_aug": spec.data.flip,
        "ss_random_crop": False,
        "ss_enable_bucket": False,
        "ss_dataset_dirs": json.dumps({folder: {"n_repeats": 1, "img_count": facts.photos}}),
        "ss_tag_frequency": json.dumps({folder: Counter(_captions(spec, facts))}, ensure_ascii=False),
    }


def _captions(spec: TrainSpec, facts: TrainingFacts) -> list[str]:
    """One for each photo."""
    return [caption or spec.data.caption for caption in facts.captions] or [spec.data.caption] * facts.photos


def _scene_fields(spec: TrainSpec, facts: TrainingFacts) -> dict[str, object]:
    """How the EasyPhoto extension knows a scene, and what it puts into the prompt with it."""
    if spec.kind is not TrainKind.SCENE:
        return {}
    captions = _captions(spec, facts)
    if len(set(captions)) == 1:
        return {SCENE_MARK: "scene", SCENE_PROMPT: captions[0]}
    # That extension looks for what stands between apostrophes, so no caption may have one inside.
    quoted = ", ".join(f"'{caption.replace(chr(39), APOSTROPHE)}'" for caption in captions)
    return {SCENE_MARK: "scene", SCENE_PROMPT: f"[{quoted}]"}


def scene_prompts(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """What a scene LoRA, ours or that extension's, was trained with, each caption once; None for any other file."""
    if not metadata.get(SCENE_MARK, "").startswith("scene"):
        return None
    text = metadata.get(SCENE_PROMPT, "")
    if text.startswith("[") and text.endswith("]"):
        return tuple(dict.fromkeys(re.findall(r"'(.*?)'", text)))
    return (text,) if text else ()


def _modelspec(spec: TrainSpec, facts: TrainingFacts) -> dict[str, object]:
    """Stability's fields, which newer tools read in place of kohya's (ModelSpec 1.0.1)."""
    architecture, code = _ARCHITECTURES[spec.family]
    fields: dict[str, object] = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": code,
        "modelspec.implementation_version": f"easyphoto/{__version__}",
        "modelspec.title": spec.person,
        "modelspec.resolution": f"{spec.data.size}x{spec.data.size}",
        "modelspec.prediction_type": "v" if facts.prediction == "v_prediction" else "epsilon",
    }
    if facts.finished:
        when = datetime.fromtimestamp(int(facts.finished), timezone.utc)
        fields["modelspec.date"] = when.replace(tzinfo=None).isoformat()
    return fields


def spec_of(file: LoraFile) -> TrainSpec | None:
    """The spec a LoRA of ours was trained with; None for a file of another maker.

    Raises:
        SpecError: What the file says of its spec is no spec.
    """
    text = file.metadata.get(SPEC_KEY)
    return None if text is None else loads(TrainSpec, text)


def renamed(file: LoraFile, name: str) -> LoraFile:
    """The same LoRA for a person who is called `name` now; a file of another maker stays as it is."""
    spec = spec_of(file)
    if spec is None:
        return file
    kept = json.dumps(to_json(replace(spec, person=name)), ensure_ascii=False, sort_keys=True)
    return with_hashes(file.tensors, {**file.metadata, "ss_output_name": name, "modelspec.title": name, SPEC_KEY: kept})


def with_hashes(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> LoraFile:
    """The file with the two hashes the WebUI looks up: over the weights and the `ss_*` fields alone.

    Other fields may be edited later without changing a file's identity (kohya's `precalculate_safetensors_hashes`).
    """
    immutable = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    data = serialize(tensors, immutable)
    body = data[8 + int.from_bytes(data[:8], "little") :]
    legacy = data[_LEGACY_START : _LEGACY_START + _LEGACY_LENGTH]
    hashes = {
        "sshs_model_hash": hashlib.sha256(body).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(legacy).hexdigest()[:8],
    }
    return LoraFile(tensors=dict(tensors), metadata={**metadata, **hashes})
