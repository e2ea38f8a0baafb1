"""Responses while a model is trained: what they are, where they go, and that the run is none the wiser."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoint_runs
import pytest
import torch
from checkpoint_runs import RESUME, attempt, interrupt
from row_files import write
from tiny import make_tiny_model, make_tiny_tokenizer
from training_runs import finetune, losses, same_bits, sample_rows, write_rows

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.errors import UserError
from instruction_modelling.generation.respond import GenerateOptions, respond
from instruction_modelling.generation.samples import MOST_PROMPTS, sample_prompts
from instruction_modelling.options import FinetuneOptions

quiet = checkpoint_runs.quiet
# Six steps of 8 of the 20 rows.
ARMS: dict[str, tuple[object, ...]] = {
    "packed": ("--packing", "--neftune_alpha", 5),
    "adapters with dropout": ("--use_lora", "--lora_rank", 4, "--learning_rate", 0.05),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(20))
    asked = [
        *sample_rows(2, "brief_answers_test"),
        {"messages": [{"role": "user", "content": "Name a river.\x1b[31m"}]},
    ]
    write_rows(folder / "prompts.jsonl", asked)
    return folder


def tune(place: Path, folder: Path, *arguments: object) -> Path:
    return finetune(place / "model", place / "rows.jsonl", folder, *checkpoint_runs.ARGUMENTS, *arguments)


def asking(place: Path) -> tuple[object, ...]:
    return "--sample_file", place / "prompts.jsonl", "--sample_steps", 2, "--sample_tokens", 6


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=ARMS)
def arm(request: pytest.FixtureRequest) -> tuple[object, ...]:
    return ARMS[request.param]


@pytest.fixture(scope="module")
def asked(place: Path, arm: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked") / "run"
    return tune(place, folder, *arm, *asking(place), "--with_tracking", "--report_to", "tensorboard")


def test_the_run_is_the_one_without_samples(
    place: Path, asked: Path, arm: tuple[object, ...], tmp_path: Path
) -> None:
    plain = tune(place, tmp_path, *arm)
    assert losses(plain) == losses(asked) and same_bits(plain, asked)
    assert not (plain / "samples.jsonl").exists()


def test_the_last_responses_are_those_of_the_saved_model(place: Path, asked: Path, tmp_path: Path) -> None:
    """By src/generate.py's path from the files on disk."""
    lines = samples(asked)
    assert [(line["step"], line["row"]) for line in lines] == [(s, r) for s in (2, 4, 6) for r in (0, 1, 2)]
    given = str(asked), str(place / "prompts.jsonl"), str(tmp_path)
    responses, _ = respond(GenerateOptions(*given, max_new_tokens=6, dtype="float32"))
    for line, response in zip(lines[-3:], responses, strict=True):
        assert line["response"] == response.response and line["instruction"] == response.instruction
        assert (line["tokens"], line["finished"]) == (response.tokens, response.finished)
    assert len({json.dumps([line["response"] for line in lines[at : at + 3]]) for at in (0, 3, 6)}) > 1


def test_log_and_trackers_have_them(asked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = (asked / "train.log").read_text()
    assert "after 6 steps, prompts_2: " in log and "\\u001b[31m" in log and "\x1b" not in log
    events = EventAccumulator(str(asked / "instruction_modelling"))
    events.Reload()
    texts = events.Tensors("sample/prompts_2/text_summary")
    assert [event.step for event in texts] == [2, 4, 6]
    said = [line["response"] for line in samples(asked) if line["row"] == 2]
    assert [event.tensor_proto.string_val[0].decode() for event in texts] == said


def test_a_run_that_goes_on_has_the_samples_of_the_undisturbed_one(
    place: Path, asked: Path, arm: tuple[object, ...], tmp_path: Path
) -> None:
    """Killed in the sixth step with checkpoints after the second and the fourth, the later one lost."""
    import shutil

    interrupt(place, tmp_path, 5, *arm, *asking(place))
    shutil.rmtree(tmp_path / "step_4")
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 4, "ro')
    outcome = attempt(place, tmp_path, *arm, *asking(place), *RESUME)
    assert outcome.code == 0, outcome.err
    assert samples(tmp_path) == samples(asked) and same_bits(tmp_path, asked)
    interrupt(place, tmp_path, 1, *arm, *asking(place), "--overwrite_output")
    assert not (tmp_path / "samples.jsonl").exists()


def test_the_model_and_the_random_state_are_put_back(place: Path) -> None:
    from transformers import AutoModelForCausalLM

    from instruction_modelling.generation.samples import _ready_to_write
    from instruction_modelling.models.attention import register

    register()
    model = AutoModelForCausalLM.from_pretrained(place / "model", attn_implementation="sdpa_per_example")
    model.train()
    model.model.layers[0].eval()
    config, state = model.generation_config, torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    with pytest.raises(KeyError), _ready_to_write(model):
        assert model.config._attn_implementation == "sdpa" and not model.training
        torch.rand(3)
        raise KeyError
    assert model.config._attn_implementation == "sdpa_per_example" and model.generation_config is config
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_answered_is_refused(place: Path, tmp_path: Path) -> None:
    refused = attempt(place, tmp_path / "a", "--sample_steps", 2)
    assert refused.code == 2 and "--sample_steps: give --sample_file too" in refused.err
    refused = attempt(place, tmp_path / "b", "--packing", "--compile", *asking(place))
    assert refused.code == 2 and "--sample_file: compiled layers (--compile)" in refused.err
    tokenizer = make_tiny_tokenizer()
    data = SimpleNamespace(tokenizer=tokenizer, chat_format=load_chat_format("auto", tokenizer))

    def asked_for(file: Path, tokens: int = 64) -> Any:
        options = FinetuneOptions(model_name_or_path=str(place / "model"), output_dir="out")
        options.sample_file, options.sample_tokens = str(file), tokens
        return SimpleNamespace(options=options, data=data)

    bad = write(tmp_path, {"messages": [{"role": "assistant", "content": "Hello"}]})
    with pytest.raises(UserError, match=r"data\.jsonl: 1 of 1 rows cannot be used \(1 no prompt\)"):
        sample_prompts(asked_for(bad))
    many = write(tmp_path, *sample_rows(1) * (MOST_PROMPTS + 1), name="many.jsonl")
    with pytest.raises(UserError, match=r"many\.jsonl: 65 rows, and at most 64 are answered while training"):
        sample_prompts(asked_for(many))
    with pytest.raises(UserError, match="no such file"):
        sample_prompts(asked_for(tmp_path / "absent.jsonl"))
    # Before anything is trained, not at the first step that answers.
    some = write(tmp_path, *sample_rows(1), name="some.jsonl")
    assert len(sample_prompts(asked_for(some, 512)).prompts) == 1
    with pytest.raises(UserError, match=f"--sample_tokens {2**63 - 1}: the model has 2048 positions"):
        sample_prompts(asked_for(some, 2**63 - 1))
    long = write(tmp_path, {"prompt": "word " * 2100, "response": "x", "id": "of-2100"}, name="long.jsonl")
    with pytest.raises(
        UserError, match=r"long\.jsonl: the prompt of of-2100 has \d{3,} tokens, .* 2048 positions"
    ):
        sample_prompts(asked_for(long))
