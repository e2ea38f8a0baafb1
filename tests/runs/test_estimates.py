"""What a run will need, by hand: hours, memory, disk, and the tokens of a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_tiny_model

from instruction_modelling.runs.estimates import (
    Hardware,
    ModelSize,
    Workload,
    estimate,
    hours_in_words,
    model_size,
    training_hours,
)


def test_the_estimate_by_hand() -> None:
    """Llama-2-7B on LIMA-like data: 1,000 rows of 700 tokens, 2 epochs, 2 A100s at 40 %."""
    size = model_size("meta-llama/Llama-2-7b-hf")
    assert size is not None and (size.parameters, size.layers, size.width) == (6.738e9, 32, 4096)
    work, hardware = Workload(1000, 700_000, 2, 2048, 1, 1), Hardware(2, 312, 0.4, 80)
    found = estimate(size, work, hardware)
    assert found.tokens == 1_400_000
    # 6 x 6.738e9 + 6 x 32 x 4096 x 700 operations a token.
    assert found.hours == pytest.approx((4.0428e10 + 5.505024e8) * 1.4e6 / (2 * 312e12 * 0.4) / 3600)
    assert found.memory == pytest.approx(6.738 * 18 / 2 + (24 * 4096 + 8 * 11008) * 32 * 2048 / 1e9)
    assert (found.disk, found.kept_disk) == (
        pytest.approx(6.738 * (2 + 2 * 12)),
        pytest.approx(6.738 * (2 + 12)),
    )
    assert (
        found.line(2)
        == "2 GPUs, about 3 min 50 s (0.13 GPU-hours), 73 GB of memory each, 175 GB of disk (94.3 GB once "
        "finished)"
    )
    assert found.line(0).startswith("1 process on the CPU, hours not estimated, ")
    assert (
        replace(found, hours=1e-5, memory=143.7)
        .line(2)
        .startswith("2 GPUs, about 0 s (less than 0.001 GPU-hours), 144 GB of memory each, ")
    )
    with_base = estimate(size, replace(work, has_base_model=True), hardware)
    assert with_base.memory - found.memory == pytest.approx(6.738)


def test_a_layer_keeps_what_was_measured() -> None:
    """133 kB of a 1B model (Llama-3.2's shape), 236 kB of a 7B one, a token, as measured under autocast."""
    billion = ModelSize(1.24e9, 16, 2048, 512, 8192, True)
    seven = model_size("llama-2-7b")
    assert seven is not None
    assert billion.activation_bytes(autocast=True) == pytest.approx(133e3, rel=0.005)
    assert seven.activation_bytes(autocast=True) == pytest.approx(236e3, rel=0.005)
    assert seven.activation_bytes(autocast=False) == 24 * 4096 + 8 * 11008


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16"])
@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "intermediate_size": 1024, "num_key_value_heads": 4},
        {"model_type": "llama", "intermediate_size": 512, "num_key_value_heads": 1},
        {"model_type": "opt", "ffn_dim": 1024, "word_embed_proj_dim": 256, "dropout": 0.0},
    ],
    ids=["llama", "grouped heads", "opt"],
)
def test_a_layer_keeps_what_autograd_keeps(tmp_path: Path, config: dict[str, Any], autocast: bool) -> None:
    """Counted: the storages that one layer more lets autograd keep, less what is packed twice."""
    widths = {"vocab_size": 64, "hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 256}
    (tmp_path / "config.json").write_text(json.dumps({**widths, **config, "num_hidden_layers": 2}))
    size = model_size(str(tmp_path))
    assert size is not None
    kept = [kept_by_autograd({**widths, **config}, layers, autocast) for layers in (1, 3)]
    # Packing keeps each example's outputs and all of them end to end: two bytes a unit of width.
    packed = 2 * size.width if autocast else 0
    expected = size.activation_bytes(autocast) - packed
    assert (kept[1] - kept[0]) / 2 == pytest.approx(expected, rel=0.02)


def kept_by_autograd(config: dict[str, Any], layers: int, autocast: bool, tokens: int = 96) -> float:
    """Bytes a token, weights and their casts left out."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.for_model(num_hidden_layers=layers, **config)
    model: Any = AutoModelForCausalLM.from_config(settings, attn_implementation="sdpa")
    model = model.float() if autocast else model.bfloat16()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    shapes = {tuple(shape) for weight in model.parameters() for shape in (weight.shape, weight.T.shape)}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights and tuple(tensor.shape) not in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        model.base_model(input_ids=torch.arange(tokens)[None] % 64, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / tokens


def test_a_models_size_is_that_of_its_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    make_tiny_model(tmp_path)
    size = model_size(str(tmp_path))
    assert size is not None
    count = sum(weight.numel() for weight in load_file(tmp_path / "model.safetensors").values())
    assert size.parameters == pytest.approx(count, rel=0.01)
    assert model_size("someone/unknown") is None


def test_hours_by_hand() -> None:
    """A billion tokens in rows of 1,000 on 8 GPUs that compute 10^14 operations a second."""
    size = ModelSize(1e9, 20, 2000, 500, 8000, True)
    per_token = 6e9 + 6 * 20 * 2000 * 1000
    hours = training_hours(size, 1e9, 1000, Hardware(8, 200, 0.5, 80))
    assert hours == pytest.approx(per_token * 1e9 / (8 * 1e14) / 3600)
    assert [hours_in_words(h) for h in (0.01, 0.5, 2.5, 1234.5)] == ["36 s", "30 min", "2.5 h", "1.23e+03 h"]


@pytest.mark.parametrize("kind", ["llama", "opt", "qwen3_moe"])
def test_a_models_size_and_its_adapters_are_those_that_are_made(kind: str, tmp_path: Path) -> None:
    """Counted on models without weights, by transformers and peft."""
    import transformers
    from peft import LoraConfig, get_peft_model

    shape: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 500,
    }
    more: dict[str, dict[str, Any]] = {
        "llama": {"intermediate_size": 96, "num_key_value_heads": 2, "tie_word_embeddings": True},
        "opt": {
            "ffn_dim": 128,
            "word_embed_proj_dim": 64,
            "max_position_embeddings": 2,
            "tie_word_embeddings": True,
        },
        "qwen3_moe": {
            "moe_intermediate_size": 32,
            "intermediate_size": 96,
            "num_experts": 8,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "decoder_sparse_step": 1,
        },
    }
    config = transformers.AutoConfig.for_model(kind, **shape, **more[kind])
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    size = model_size(str(tmp_path))
    made = sum(parameter.numel() for parameter in model.parameters())
    # Norms, biases and positions are not counted.
    assert size is not None and made * 0.97 < size.parameters <= made
    if kind == "qwen3_moe":
        return
    with torch.device("meta"):
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert size.adapter_parameters(8) == trained


def test_a_name_is_known_whole_and_a_folders_config_comes_first(tmp_path: Path) -> None:
    assert model_size("meta-llama/Llama-2-7b-chat-hf") == model_size("llama-2-7b")
    assert model_size("someone/TinyLlama-2-7b-tenth") is None
    make_tiny_model(tmp_path / "llama-2-7b")
    found = model_size(str(tmp_path / "llama-2-7b"))
    assert found is not None and found.parameters < 1e6
