"""Runs in kohya's own environment: makes, reads and applies LoRAs with kohya's code; `test_kohya.py` compares.

    python kohya_child.py CHECKOUT FAMILY FOLDER

FOLDER holds `base.safetensors` (a small model in LDM layout), `unet.safetensors` (its UNet in diffusers' names), `words.npz`,
`ours.safetensors` (a LoRA of ours for the whole-size model), `sizes.json` (the whole-size text encoders'). Written here:
`theirs.safetensors`, `small.safetensors` (kohya's LoRAs for the whole-size and the small model), `outputs.npz`, `report.json`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch

CHECKOUT, FAMILY, FOLDER = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
sys.path.insert(0, str(CHECKOUT))


def unet(small: bool):
    """kohya's own UNet, whole-size or with a tenth of the channels."""
    from library import original_unet, sdxl_original_unet

    if FAMILY == "sdxl":
        sdxl_original_unet.MODEL_CHANNELS = 32 if small else 320
        sdxl_original_unet.TIME_EMBED_DIM = 4 * sdxl_original_unet.MODEL_CHANNELS
        return sdxl_original_unet.SdxlUNet2DConditionModel()
    original_unet.BLOCK_OUT_CHANNELS = (32, 32, 64, 64) if small else (320, 640, 1280, 1280)
    original_unet.TIMESTEP_INPUT_DIM = original_unet.BLOCK_OUT_CHANNELS[0]
    original_unet.TIME_EMBED_DIM = 4 * original_unet.BLOCK_OUT_CHANNELS[0]
    return original_unet.UNet2DConditionModel(sample_size=64, attention_head_dim=8, cross_attention_dim=768)


def encoders(small: bool):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    less = {"num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 514} if small else {}
    less |= {"bos_token_id": 512, "eos_token_id": 513} if small else {}
    first, second = json.loads((FOLDER / "sizes.json").read_text())
    found = [CLIPTextModel(CLIPTextConfig(**first | less, hidden_act="quick_gelu"))]
    if FAMILY == "sdxl":
        found.append(CLIPTextModelWithProjection(CLIPTextConfig(**second | less, hidden_act="gelu")))
    return found


def network(text, base, file: str, seed: int):
    """kohya's LoRA with random factors, saved by kohya in half precision."""
    from networks import lora

    made = lora.create_network(1.0, 4, 2.0, None, text if len(text) > 1 else text[0], base)
    noise = torch.Generator().manual_seed(seed)
    for module in made.text_encoder_loras + made.unet_loras:
        for factor in (module.lora_down.weight, module.lora_up.weight):
            factor.data = (torch.randn(factor.shape, generator=noise) * 0.1).half().float()
    made.apply_to(text, base)
    made.save_weights(str(FOLDER / file), torch.float16, metadata())
    return made


def metadata() -> dict[str, str]:
    from library import sai_model_spec

    own = {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_network_alpha": "2.0", "ss_v2": "False",
           "ss_base_model_version": "sdxl_base_v1-0" if FAMILY == "sdxl" else "sd_v1"}  # fmt: skip
    two = FAMILY == "sdxl"
    size = 1024 if two else 512
    spec = sai_model_spec.build_metadata(None, False, False, two, True, False, 1.7e9, title="Ada", reso=(size, size))
    return own | spec


def whole() -> dict[str, object]:
    from library import train_util
    from safetensors import safe_open
    from safetensors.torch import load_file

    with torch.device("meta"):
        text, base = encoders(small=False), unet(small=False)
    made = network(text, base, "theirs.safetensors", 0)
    missing, unexpected = made.load_weights(str(FOLDER / "ours.safetensors"))
    with safe_open(FOLDER / "ours.safetensors", "pt") as file:
        kept = file.metadata()
    hashes = train_util.precalculate_safetensors_hashes(load_file(FOLDER / "ours.safetensors"), kept)
    source = (CHECKOUT / "train_network.py").read_text(encoding="utf-8")
    fields = sorted(set(re.findall(r'"(ss_[a-z0-9_]+)"', source)))
    base = train_util.model_hash(FOLDER / "base.safetensors")
    return {"base": base, "missing": missing, "unexpected": unexpected, "hashes": hashes, "fields": fields}


def small() -> None:
    import numpy as np
    from library import sdxl_model_util, sdxl_train_util
    from safetensors.torch import load_file

    tensors = load_file(FOLDER / "base.safetensors")

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}

    text, base = encoders(small=True), unet(small=True)
    seen = {name: torch.from_numpy(array) for name, array in np.load(FOLDER / "words.npz").items()}
    two = FAMILY == "sdxl"
    base.load_state_dict(part("model.diffusion_model.") if two else load_file(FOLDER / "unet.safetensors"))
    names = {"cond_stage_model.transformer.": 0} if not two else {"conditioner.embedders.0.transformer.": 0}
    for prefix, number in names.items():
        missing, _ = text[number].load_state_dict(part(prefix), strict=False)
        assert not [name for name in missing if "position_ids" not in name], missing
    if two:
        second, _ = sdxl_model_util.convert_sdxl_text_encoder_2_checkpoint(tensors, 77)
        # kohya reads the projection as it lies, OpenCLIP (whose pooled text is words @ projection) means it turned over; as the
        # matrix is square nothing tells. The small model is turned here, so that both compute the same.
        second["text_projection.weight"] = second["text_projection.weight"].T
        text[1].load_state_dict(second, strict=False)
    for part_of in (*text, base):
        part_of.eval()
    network(text, base, "small.safetensors", 1)
    latents, time = seen["latents"], torch.tensor([300])
    with torch.no_grad():
        if two:
            states = [encoder(seen["words"], output_hidden_states=True) for encoder in text]
            words = torch.cat([state.hidden_states[-2] for state in states], dim=-1)
            size = torch.tensor([[64, 64]])
            sizes = sdxl_train_util.get_size_embeddings(size, size * 0, size, "cpu")
            out = base(latents, time, words, torch.cat([states[1].text_embeds, sizes], dim=1))
        else:
            words = text[0](seen["words"])[0]
            out = base(latents, time, words).sample
    np.savez(FOLDER / "outputs.npz", words=words.numpy(), out=out.numpy())


if __name__ == "__main__":
    report = whole()
    small()
    (FOLDER / "report.json").write_text(json.dumps(report))
