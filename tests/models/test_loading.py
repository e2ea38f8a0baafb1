"""Models and tokenizers as they are loaded: dtype, attention, embeddings, fused layers, dropout."""

import sys
import time
import types
from pathlib import Path
from typing import Any

import model_families
import pytest
import torch
from step_samples import PER_EXAMPLE
from tiny import make_tiny_model, make_tiny_tokenizer

from instruction_modelling.errors import UserError
from instruction_modelling.generation.engine import model_limits
from instruction_modelling.models import adapters, loading
from instruction_modelling.training.hidden_states import output_head

warnings_said = model_families.warnings_said


def test_loading_by_value_and_what_is_not_there(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "m")
    model = loading.load_model(str(tmp_path / "m"), torch.bfloat16)
    assert model.dtype == torch.bfloat16 and model.config.use_cache is False
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("absent", "there is no such folder"),
        ("empty", "no model there: the folder has no"),
    ):
        with pytest.raises(UserError, match=words):
            loading.load_model(str(tmp_path / name), torch.float32)
    for name, words in (
        ("absent", "there is no such folder"),
        ("empty", "no model there: the folder has no"),
    ):
        with pytest.raises(UserError, match=words):
            loading.load_tokenizer(str(tmp_path / name))


def test_attention_falls_back_with_one_warning(
    warnings_said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loading.pick_attention(True, False, False, False) == PER_EXAMPLE
    assert loading.pick_attention(False, False, True, True) == "sdpa"
    assert warnings_said == []
    assert loading.pick_attention(True, True, False, False) == PER_EXAMPLE
    assert len(warnings_said) == 1 and "using torch's own attention" in warnings_said[0]
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    assert loading.pick_attention(True, True, True, True) == "flash_attention_2"
    assert loading.pick_attention(False, True, True, False) == "sdpa"


def test_embeddings_grow_to_the_tokenizer_and_never_shrink(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "m", vocab=512)
    tokenizer = make_tiny_tokenizer()
    model: Any = loading.load_model(str(tmp_path / "m"), torch.float32)
    rows = model.get_input_embeddings().weight.shape[0]
    loading.fit_embeddings(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == rows == 512
    before = model.get_input_embeddings().weight[:rows].detach().clone()
    tokenizer.add_tokens([f"<{i}>" for i in range(512 - len(tokenizer) + 3)])
    loading.fit_embeddings(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == 515
    assert model.get_output_embeddings().weight.shape[0] == output_head(model).vocabulary == 515
    assert torch.equal(model.get_input_embeddings().weight[:rows], before)


def test_fused_layers_are_used_on_a_gpu_only_and_never_with_their_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    fake = types.ModuleType("liger_kernel.transformers")
    fake.__dict__["_apply_liger_kernel_to_instance"] = lambda model, **keywords: calls.append(
        (model, keywords)
    )
    monkeypatch.setitem(sys.modules, "liger_kernel", types.ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", fake)
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: object())
    model = object()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loading.use_fused_layers(model)  # type: ignore[arg-type]
    assert calls == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    loading.use_fused_layers(model)  # type: ignore[arg-type]
    assert calls == [(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})]


def test_a_model_that_draws_dropout_is_known(tmp_path: Path) -> None:
    """OPT's own configuration has dropout; Llama's has none; adapters may."""
    from transformers import OPTConfig, OPTForCausalLM

    opt = OPTForCausalLM(
        OPTConfig(
            vocab_size=64,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
        )
    )
    make_tiny_model(tmp_path)
    llama = loading.load_model(str(tmp_path), torch.float32, "sdpa")
    assert loading.draws_dropout(opt) and not loading.draws_dropout(llama)
    assert not loading.draws_dropout(adapters.add_lora(llama, 2, 4, 0.0))
    assert loading.draws_dropout(
        adapters.add_lora(loading.load_model(str(tmp_path), torch.float32, "sdpa"), 2, 4, 0.1)
    )


@pytest.mark.parametrize("name", ["model", "runs/one"])
def test_a_name_that_is_not_on_the_hub_may_be_a_mistyped_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two parts in no folder of ours, and one of one part, may be the hub's: both are said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(UserError, match="no folder of that name is here either") as caught:
        loading.load_tokenizer(name)
    assert ("did you mean models?" in str(caught.value)) == (name == "model")
    with pytest.raises(UserError, match=r"no model there: .*; no folder of that name is here either"):
        model_limits(name)
    with pytest.raises(UserError, match=r"models/absent: there is no such folder"):
        model_limits("models/absent")


def test_a_hub_that_does_not_answer_is_asked_once_and_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client would ask six times, half a minute, for what is most often a mistyped folder."""
    from huggingface_hub import constants

    from instruction_modelling import hub
    from instruction_modelling.rows.conversations import read_conversations

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    begun = time.monotonic()
    words = (
        r"ru2: no model there: http://127.0.0.1:9 cannot be reached \(.*\); no folder of that name is here"
    )
    for read in (loading.load_tokenizer, loading.stored_dtype, loading.load_outline, model_limits):
        with pytest.raises(UserError, match=words):
            read("ru2")
    with pytest.raises(
        UserError, match=r"lab/x::train: cannot be loaded: http://127.0.0.1:9 cannot be reached"
    ):
        read_conversations("lab/x:")
    assert time.monotonic() - begun < 20
    assert constants.HF_HUB_OFFLINE is False
    # A model that is kept here is not asked for, nor is any where the hub is not to be.
    kept = tmp_path / "cache" / "models--ru2" / "snapshots" / "c1"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text("{}")
    (kept.parents[1] / "refs").mkdir()
    (kept.parents[1] / "refs" / "main").write_text("c1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert hub.why_no_answer("ru2") is None and hub.why_no_answer("ru3") is not None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.why_no_answer("ru3") is None


def test_a_folder_of_models_is_not_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "one").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"models: no model there: .*; give the folder that its config.json is in"
    ):
        model_limits("models")
    (tmp_path / "models" / "one" / "config.json").write_text("{}")
    (tmp_path / "a run" / "step_2").mkdir(parents=True)
    for file in ("run.json", "step_2/checkpoint.json", "step_2/state-000-0000.safetensors"):
        (tmp_path / "a run" / file).write_text("{}")
    for read in (model_limits, loading.load_tokenizer):
        with pytest.raises(UserError, match=r"checkpoint of a run; .*export_checkpoint.py 'a run/step_2'$"):
            read("a run/step_2")
        with pytest.raises(UserError, match=r"a run: no model there: its run has not ended; let it go on"):
            read("a run")
        with pytest.raises(
            UserError, match=r"models: no model there: .* no config.json; did you mean models/one\?"
        ):
            read("models")
