from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.lora_patch import lora_layers, patched
from easyphoto.engine.models import Models
from easyphoto.errors import LoraError
from easyphoto.records import LoraUse
from easyphoto.specs import LoraSpec
from easyphoto.store.lora_file import LoraFile, check_lora, write_lora
from easyphoto.training.lora import LoraNetwork
from tests.tiny import WIDTH

SPEC = LoraSpec(rank=4, alpha=2.0)


@pytest.fixture
def network(models: Models):
    """A LoRA that does something: its ups are not zero."""
    made = LoraNetwork(models, SPEC, (3,))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in made.layers:
            layer.up.copy_(torch.randn(layer.up.shape, generator=noise) * 0.3)
    yield made
    made.detach()


def outputs(models: Models) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=noise)
    with torch.no_grad():
        states = models.text_encoder(torch.tensor([[512, 68, 64, 513]]))[0]
        return models.unet(latents, 10, states).sample, states


def test_layers_and_names_are_kohyas(models: Models) -> None:
    """Counted by hand: 4 transformers of (proj_in, 2 attentions of 4, feed-forward of 2, proj_out), 1 text layer of 4 + 2."""
    network = LoraNetwork(models, SPEC)
    assert len(network.unet_layers) == 4 * 12
    names = {layer.name: layer for layer in network.layers}
    block = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0"
    for end in ("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn1_to_out_0", "attn2_to_k", "ff_net_0_proj", "ff_net_2"):
        assert f"{block}_{end}" in names
    assert "lora_unet_mid_block_attentions_0_proj_in" in names
    assert {layer.name for layer in network.text_layers} == {
        f"lora_te_text_model_encoder_layers_0_{end}"
        for end in (*(f"self_attn_{part}_proj" for part in "qkv"), "self_attn_out_proj", "mlp_fc1", "mlp_fc2")
    }
    point = names["lora_unet_mid_block_attentions_0_proj_in"]
    tensors = network.state_dict()
    assert tensors[f"{point.name}.lora_down.weight"].shape == (4, 64, 1, 1)
    assert tensors[f"{point.name}.lora_up.weight"].shape == (64, 4, 1, 1)
    assert tensors[f"{block}_attn2_to_k.lora_down.weight"].shape == (4, WIDTH)


def test_it_begins_as_the_base_model(models: Models) -> None:
    before = outputs(models)
    network = LoraNetwork(models, SPEC)
    network.attach()
    after = outputs(models)
    network.detach()
    assert all(torch.equal(one, other) for one, other in zip(before, after))


def test_downs_begin_as_kaiming_uniform_and_by_seed(models: Models) -> None:
    first, again, other = (LoraNetwork(models, SPEC, (seed,)) for seed in (0, 0, 1))
    for one, same, different in zip(first.layers, again.layers, other.layers):
        bound = one.down.shape[-1] ** -0.5
        assert one.down.abs().max() <= bound
        assert one.down.abs().max() > 0.9 * bound
        assert torch.equal(one.down, same.down)
        assert not torch.equal(one.down, different.down)


def test_detaching_leaves_no_trace(models: Models, network: LoraNetwork) -> None:
    before = outputs(models)
    network.attach()
    assert not torch.equal(outputs(models)[0], before[0])
    network.detach()
    assert all(torch.equal(one, other) for one, other in zip(before, outputs(models)))
    assert all("forward" not in module.__dict__ for module in models.unet.modules())


def test_fused_weights_give_the_same_result_and_come_back_bit_for_bit(models: Models, network: LoraNetwork) -> None:
    weights = {name: value.clone() for name, value in models.unet.state_dict().items()}
    network.attach()
    wrapped = outputs(models)
    with network.fused():
        fused = outputs(models)
    for one, other in zip(wrapped, fused):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(one, other) for one, other in zip(wrapped, outputs(models)))
    network.detach()
    assert all(torch.equal(value, weights[name]) for name, value in models.unet.state_dict().items())


def test_text_encoder_is_left_out_when_told(models: Models) -> None:
    assert LoraNetwork(models, LoraSpec(rank=4, alpha=2.0, text_encoder=False)).text_layers == []


def test_factors_survive_the_file(models: Models, network: LoraNetwork, tmp_path: Path) -> None:
    other = LoraNetwork(models, SPEC, (9,))
    other.load_state_dict(network.state_dict(np.float32))
    for one, same in zip(network.layers, other.layers):
        assert torch.equal(one.down, same.down)
        assert torch.equal(one.up, same.up)
    small = LoraNetwork(models, LoraSpec(rank=2, alpha=2.0))
    with pytest.raises(LoraError, match="does not fit"):
        small.load_state_dict(network.state_dict())


def test_the_file_fits_the_base_model_and_does_in_our_engine_what_training_did(
    models: Models, network: LoraNetwork, tmp_path: Path
) -> None:
    file = LoraFile(tensors=network.state_dict(np.float32))
    check_lora(file, {name: tuple(layer.weight.shape) for name, layer in lora_layers(models).items()})
    write_lora(tmp_path / "a.safetensors", file)
    network.attach()
    wanted = outputs(models)
    network.detach()
    with patched(models, (LoraUse(path=tmp_path / "a.safetensors", weight=1.0),)):
        got = outputs(models)
    for one, other in zip(wanted, got):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*(torchvision|torch_dtype|peft|PEFT|keys).*")
def test_the_file_loads_in_diffusers_and_does_there_what_training_did(
    tiny_base: Path, models: Models, network: LoraNetwork, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    write_lora(tmp_path / "a.safetensors", LoraFile(tensors=network.state_dict(np.float32)))
    untouched = outputs(models)
    network.attach()
    wanted = outputs(models)
    network.detach()
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, low_cpu_mem_usage=False)
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    noise = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=noise)
    with torch.no_grad():
        states = pipe.text_encoder(torch.tensor([[512, 68, 64, 513]]))[0]
        predicted = pipe.unet(latents, 10, states).sample
    torch.testing.assert_close(states, wanted[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted, wanted[0], rtol=1e-4, atol=1e-5)
    assert (wanted[1] - untouched[1]).abs().max() > 1e-3, "the text encoder's part does something"
