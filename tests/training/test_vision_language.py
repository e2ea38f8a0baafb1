"""Models as they are published, tuned on text: Llama-4, Mllama, Hy3, Laguna, and those whose language model
is a part of something larger, Mistral-3 and Qwen2.5-VL."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from model_families import SIZES
from step_samples import LENGTHS, PER_EXAMPLE, random_data, random_model, token_nlls, weigh, wrap
from tiny import make_tiny_tokenizer
from training_runs import finetune, record, sample_rows, write_rows
from transformers.models.mllama.configuration_mllama import MllamaTextConfig

from instruction_modelling.errors import UserError
from instruction_modelling.models import loading
from instruction_modelling.models.adapters import AdapterReach, adapter_layers, add_lora, merge_adapters
from instruction_modelling.training.model_check import check_model
from instruction_modelling.training.plan import Layout

LLAMA4 = {
    **SIZES,
    "num_hidden_layers": 4,
    "head_dim": 6,
    "intermediate_size_mlp": 40,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    # Shorter than the examples.
    "attention_chunk_size": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS: dict[str, Any] = {
    **SIZES,
    "head_dim": 6,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA4_VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 28,
    "patch_size": 14,
    "vision_output_dim": 24,
    "projector_input_dim": 16,
    "projector_output_dim": 24,
}


def mistral3(text: dict[str, Any]) -> Any:
    """A tiny Mistral-3 with a Pixtral tower."""
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 28,
        "patch_size": 14,
        "head_dim": 8,
    }
    text = {**text, "model_type": "mistral", "head_dim": 6}
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, image_token_index=60)
    return transformers.Mistral3ForConditionalGeneration(config)


def qwen25_vl(tied: bool = False) -> Any:
    """A tiny Qwen2.5-VL."""
    rope = {"type": "default", "mrope_section": [1, 1, 1], "rope_theta": 1e4}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 32,
        "out_hidden_size": 24,
        "patch_size": 14,
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config={**SIZES, "rope_scaling": rope, "bos_token_id": 1, "eos_token_id": 2},
        vision_config=vision,
        tie_word_embeddings=tied,
        image_token_id=58,
        video_token_id=59,
        vision_start_token_id=57,
        vision_end_token_id=56,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def llama4_with_vision() -> Any:
    """A tiny Llama-4 as it is published, with its tower."""
    config = transformers.Llama4Config(text_config=LLAMA4, vision_config=LLAMA4_VISION)
    return transformers.Llama4ForConditionalGeneration(config)


MODELS = {
    "llama-4, text": lambda: transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**LLAMA4)),
    "llama-4": llama4_with_vision,
    "hy-3": lambda: transformers.HYV3ForCausalLM(transformers.HYV3Config(**EXPERTS)),
    "laguna": lambda: transformers.LagunaForCausalLM(transformers.LagunaConfig(**EXPERTS, sliding_window=5)),
    "mistral-3": lambda: mistral3(SIZES),
    "qwen2.5-vl": qwen25_vl,
    "qwen2.5-vl, tied": lambda: qwen25_vl(tied=True),
}


def spread_out(model: Any) -> Any:
    """The model with matrices large enough for its parts to matter."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15, generator=draw)
    return model.eval()


def plain_nlls(model: Any, example: int) -> np.ndarray:
    """The NLLs of an example's weighted tokens by transformers' own forward."""
    rows = weigh(random_data())
    at = rows.data.span(example)
    ids = torch.from_numpy(rows.data.ids[at].astype(np.int64))
    with torch.no_grad():
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    return nll[torch.from_numpy(rows.weights[at][1:] != 0)].numpy()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_every_layout_gives_plain_transformers_losses(make: Any, tmp_path: Path) -> None:
    plain = spread_out(make())
    plain.save_pretrained(tmp_path)
    for layout in (Layout(True, 1, 40), Layout(False, 8, 0), Layout(False, 3, 0, "left")):
        model = loading.load_model(str(tmp_path), torch.float32, PER_EXAMPLE if layout.packing else "sdpa")
        check_model(model, layout.packing, "cpu")
        found = token_nlls(wrap(model.train()), weigh(random_data()), layout, range(len(LENGTHS)))
        for example in range(len(LENGTHS)):
            np.testing.assert_allclose(found[example], plain_nlls(plain, example), atol=1e-5)
        frozen = {name.split(".")[1] for name, w in model.named_parameters() if not w.requires_grad}
        assert not frozen & {"language_model", "layers", "embed_tokens", "lm_head"}
        assert bool(frozen) == ("model.language_model.norm.weight" in dict(model.named_parameters()))


def test_the_chunks_of_llama_4_are_a_test() -> None:
    """The examples are longer than a chunk, and chunks change their losses."""
    assert max(LENGTHS) > LLAMA4["attention_chunk_size"]
    one = spread_out(transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**LLAMA4)))
    wide = {**LLAMA4, "attention_chunk_size": 64}
    two = spread_out(transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**wide)))
    longest = int(np.argmax(LENGTHS))
    assert np.abs(plain_nlls(one, longest) - plain_nlls(two, longest)).max() > 1e-3


def test_a_causal_model_that_calls_itself_its_decoder() -> None:
    text = MllamaTextConfig(**SIZES, cross_attention_layers=[1], pad_token_id=0)
    model = spread_out(transformers.MllamaForCausalLM(text))
    assert model.get_decoder() is model and loading.backbone(model) is model.model
    check_model(model, False, "cpu")


def test_what_cannot_be_packed_says_how_to_train_it() -> None:
    """Qwen3.5's linear attention keeps packed examples apart only with a library of its own."""
    config = transformers.Qwen3_5TextConfig(
        **{**SIZES, "head_dim": 8},
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        layer_types=["linear_attention", "full_attention"],
    )
    check_model(random_model(config), False, "cpu")
    if not transformers.utils.is_flash_linear_attention_available():
        with pytest.raises(UserError, match=r"packed.*train it without --packing"):
            check_model(random_model(config, PER_EXAMPLE), True, "cpu")


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_adapters_and_new_tokens_merge_to_what_was_trained(make: Any) -> None:
    tuned = add_lora(spread_out(make()), 2, 4.0, 0.0, AdapterReach(new_tokens=(3, 5)))
    draw, ids = torch.Generator().manual_seed(0), torch.arange(3, 13)[None]
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=draw)
        expected = tuned.eval()(input_ids=ids).logits
        plain = spread_out(make())
        before = plain(input_ids=ids).logits
        plain.load_state_dict(merge_adapters(dict(tuned.state_dict()), adapter_layers(tuned)))
        found = plain(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - before).abs().max() > 0.1


def test_adapters_are_on_the_language_model_alone(tmp_path: Path) -> None:
    spread_out(mistral3(SIZES)).save_pretrained(tmp_path)
    tuned = add_lora(loading.load_model(str(tmp_path), torch.float32), 2, 4.0, 0.0)
    names = [name for name, weight in tuned.named_parameters() if weight.requires_grad]
    assert len(names) == 2 * 7 * 2 and all("language_model" in name for name in names)


@pytest.mark.parametrize("arm", [(), ("--use_lora", "--lora_rank", 2)], ids=["all weights", "LoRA"])
def test_a_vision_language_model_is_tuned_on_text_and_saved_whole(
    tmp_path: Path, arm: tuple[object, ...]
) -> None:
    from safetensors.torch import load_file

    tokenizer = make_tiny_tokenizer()
    size = {**SIZES, "vocab_size": 512, "max_position_embeddings": 2048, "eos_token_id": 1, "bos_token_id": 0}
    spread_out(mistral3(size)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(4))
    options = ("--max_train_steps", 2, "--learning_rate", 1e-2, "--packing", *arm)
    folder = finetune(tmp_path / "model", rows, tmp_path / "run", *options)
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "model", folder))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("language_model" in name or "lm_head" in name for name in moved)
    plain = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    assert plain.config.model_type == "mistral3" and plain.generation_config.eos_token_id == 1
    counts = record(folder)["model"]
    assert counts["trainable_parameters"] < counts["parameters"]
