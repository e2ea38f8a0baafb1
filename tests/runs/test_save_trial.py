"""Training is never lost at the save: what saving needs is tried before the first step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_tiny_model
from training_runs import Outcome, finetune, run, sample_rows, write_rows

from instruction_modelling.errors import UserError
from instruction_modelling.models.loading import load_model
from instruction_modelling.models.stop_tokens import fit_generation_config, stop_ids
from instruction_modelling.runs import save_trial

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
VICUNA = {"do_sample": False, "temperature": 0.9, "top_p": 0.6}


def model_with(folder: Path, generation: dict[str, Any], template: str | None = None) -> Path:
    """A tiny model with a generation_config.json."""
    make_tiny_model(folder, template)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def attempt(model: Path, tmp_path: Path, *arguments: object) -> Outcome:
    """One step on a few rows, which may fail."""
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(4))
    names = ("--model_name_or_path", model, "--train_file", rows, "--output_dir", tmp_path / "run")
    return run("finetune", *names, "--max_train_steps", 1, *arguments)


def saved_generation(folder: Path) -> dict[str, Any]:
    """The saved generation_config.json."""
    return json.loads((folder / "generation_config.json").read_text())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "it is no JSON object but [1]"),
        ("{bad", "Expecting property name enclosed in double quotes"),
        ('{"eos_token_id": "</s>"}', "eos_token_id is '</s>'; it must be the number of a token"),
        ('{"eos_token_id": [1, true]}', "eos_token_id is [1, True]; it must be the number of a token"),
        ('{"early_stopping": "x"}', "`early_stopping` must be a boolean or 'never'"),
    ],
)
def test_a_generation_config_that_nothing_can_read_is_refused_by_its_name(
    tmp_path: Path, text: str, words: str
) -> None:
    """An end token by its text was saved as one for each of its letters; broken JSON was passed over."""
    model = make_tiny_model(tmp_path / "model")
    path = model / "generation_config.json"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_model(str(model), torch.float32)
    assert str(refused.value).startswith(f"{path} cannot be used: ") and words in str(refused.value)
    path.write_text('{"eos_token_id": [1, 2]}')
    assert load_model(str(model), torch.float32).generation_config.eos_token_id == [1, 2]


def test_a_generation_config_that_contradicts_itself_is_mended_and_said_once(tmp_path: Path) -> None:
    """Vicuna's, and old Llama-2-chat's: greedy, with a temperature."""
    from transformers import AutoModelForCausalLM

    model = model_with(tmp_path / "model", {"eos_token_id": 1, **VICUNA})
    outcome = attempt(model, tmp_path)
    assert outcome.code == 0, outcome.err
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("leaves out temperature 0.9, top_p 0.6") == 1
    found = saved_generation(tmp_path / "run")
    assert found["do_sample"] is False and found["eos_token_id"] == 1
    assert "temperature" not in found and "top_p" not in found
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run").generation_config.top_p in (None, 1.0)


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        (VICUNA, ["temperature", "top_p"]),
        ({"top_k": 3, "min_p": 0.1, "typical_p": 0.2}, ["top_k", "min_p", "typical_p"]),
        ({"temperature": 0.9, "length_penalty": 2.0, "num_beams": 4}, ["temperature"]),
        ({"length_penalty": 2.0, "early_stopping": True}, ["length_penalty", "early_stopping"]),
        ({"output_scores": True, "output_logits": True}, ["output_scores", "output_logits"]),
        ({"use_cache": False, "cache_implementation": "static"}, ["cache_implementation"]),
        ({"pad_token_id": -1}, []),
        ({"do_sample": True, "temperature": 0.9, "top_p": 0.6, "top_k": 7}, []),
    ],
    ids=str,
)
def test_what_contradicts_goes_and_the_rest_stays(
    tmp_path: Path, given: dict[str, Any], gone: list[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model_with(tmp_path / "model", {"eos_token_id": 1, **given})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    fit_generation_config(model, AutoTokenizer.from_pretrained(tmp_path / "model"), ["</s>"])
    model.save_pretrained(tmp_path / "saved")
    found = saved_generation(tmp_path / "saved")
    kept = {name: value for name, value in given.items() if name not in {*gone, "pad_token_id"}}
    assert found.items() >= {**kept, "eos_token_id": 1, "pad_token_id": 1}.items()
    assert found.keys().isdisjoint(gone)


def test_a_model_that_nothing_would_stop_is_refused_before_training(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model", {}, NO_END)
    for name, fields in (("config.json", ("eos_token_id",)), ("tokenizer_config.json", ("eos_token",))):
        content = json.loads((model / name).read_text())
        for field in fields:
            content[field] = None
        (model / name).write_text(json.dumps(content))
    outcome = attempt(model, tmp_path)
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert "nothing would end a response" in outcome.err and "generation_config.json" in outcome.err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / ".saving-model").exists()


def test_a_disk_without_room_for_the_model_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_model(tmp_path / "model")
    usage = save_trial.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(save_trial.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    outcome = attempt(tmp_path / "model", tmp_path)
    assert (
        outcome.code == 2
        and "has no room for the tuned model: it takes 1.21 MB, and 1 MB are free" in outcome.err
    )
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert attempt(tmp_path / "model", tmp_path, "--save_dtype", "bfloat16").code == 0


def test_what_a_killed_save_left_makes_room_before_the_room_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_model(tmp_path / "model")
    left = tmp_path / "run" / ".step_1.saving"
    left.mkdir(parents=True)
    usage = save_trial.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        save_trial.shutil,
        "disk_usage",
        lambda path: usage._replace(free=1_000_000 if left.exists() else 10**9),
    )
    outcome = attempt(tmp_path / "model", tmp_path, "--resume_from_checkpoint", "latest")
    assert outcome.code == 0, outcome.err
    assert not left.exists()


def test_a_tokenizer_that_cannot_be_saved_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> None:
        raise TypeError("Object of type bytes is not JSON serializable")

    make_tiny_model(tmp_path / "model")
    monkeypatch.setattr(save_trial, "save_tokenizer", refused)
    outcome = attempt(tmp_path / "model", tmp_path)
    assert outcome.code == 2 and "could not be saved (TypeError: Object of type bytes" in outcome.err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / ".saving-model").exists()


# -- stop tokens -------------------------------------------------------------------------------------------


def test_stop_tokens_are_the_formats_and_the_models_and_no_others(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    end: Any = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stop_ids(tokenizer, ["<|im_end|>"], None) == [end]
    assert stop_ids(tokenizer, ["<|im_end|>"], 7) == [end, 7]
    assert stop_ids(tokenizer, ["<|im_end|>", "<|absent|>"], [9, end]) == [end, 9]
    assert stop_ids(tokenizer, [], [9, 1]) == [9, 1]


def test_the_models_own_ends_come_from_its_configuration_where_generation_has_none(tmp_path: Path) -> None:
    """A base model whose generation_config.json names no EOS; tuned with ChatML."""
    from transformers import AutoTokenizer

    model = model_with(tmp_path / "model", {}, CHATML)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(model)
    folder = finetune(
        model, write_rows(tmp_path / "rows.jsonl", sample_rows(4)), tmp_path / "run", "--max_train_steps", 1
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert saved_generation(folder)["eos_token_id"] == [end, 1]


# -- named templates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("other_format", [False, True])
def test_named_templates_are_saved_with_the_format_they_belong_to(tmp_path: Path, other_format: bool) -> None:
    """Hermes-2-Pro and Command-R have a template `tool_use`, which transformers takes for rows with tools."""
    from transformers import AutoTokenizer

    model = make_tiny_model(tmp_path / "model", CHATML)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ tools | tojson }}" + CHATML}
    tokenizer.save_pretrained(model)
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(4))
    arguments = ("--overwrite_output", *(("--chat_format", "tulu") if other_format else ()))
    for _ in range(2):
        # The second save goes over the first one's files.
        folder = finetune(model, rows, tmp_path / "run", "--max_train_steps", 1, *arguments)
        saved = AutoTokenizer.from_pretrained(folder).chat_template
        if other_format:
            assert isinstance(saved, str) and "<|assistant|>" in saved
        else:
            assert saved == tokenizer.chat_template
