"""Answers to AlpacaEval of a model here or behind an address."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from alpaca_runs import (
    COUNT,
    FIRST_WINS,
    Outcome,
    evaluate,
    instruction,
    number_in,
    output_file,
    ranking,
    read,
)
from judge_server import JudgeServer
from tiny import make_tiny_model

from instruction_modelling.generation.engine import Completion, Engine, Request, Sampling


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model's folder."""
    return make_tiny_model(tmp_path / "tiny")


def generate(
    number: int, server: JudgeServer | None, tmp_path: Path, model: Path, *arguments: object
) -> Outcome:
    """Runs the script on a model, with short answers."""
    reference = output_file(tmp_path / f"reference{number}.json", f"other{number}", lambda n: f"<other {n}>")
    return evaluate(
        number,
        server,
        "--reference_path",
        reference,
        "--model_name_or_path",
        model,
        "--save_dir",
        tmp_path / "r",
        "--max_new_tokens",
        5,
        "--dtype",
        "float32",
        *arguments,
    )


def test_answers_are_the_likeliest_tokens_and_both_benchmarks_share_them(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The flags of the authors' script and command.
    flags = [
        "--use_chat_format",
        "--chat_formatting_function",
        "eval.templates.create_prompt_with_tulu_chat_format",
        "--eval_batch_size",
        20,
        "--gptq",
        "--tokenizer_name_or_path",
        model,
    ]
    outcome = generate(2, None, tmp_path, model, *flags, "--no_evaluate_with_llm")
    assert outcome.code == 0, outcome.err
    outputs = read(tmp_path / "r" / "alpaca_eval", "model_outputs.json")
    tokenizer, net = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    for number in (0, 7, 19):
        ids = tokenizer(f"<|user|>\n{instruction(number)}\n<|assistant|>\n", return_tensors="pt").input_ids
        made = ids
        with torch.no_grad():
            for _ in range(5):
                made = torch.cat([made, net(made).logits[:, -1].argmax(-1, keepdim=True)], 1)
        assert outputs[number] == {
            "instruction": instruction(number),
            "generator": "tiny",
            "dataset": "made",
            "output": tokenizer.decode(made[0, ids.shape[1] :]),
        }
    facts = read(tmp_path / "r" / "alpaca_eval", "generation.json")
    assert (facts["engine"], facts["chat_format"], facts["max_new_tokens"]) == (
        "transformers",
        "eval.templates.create_prompt_with_tulu_chat_format",
        5,
    )
    with JudgeServer(lambda body, count: FIRST_WINS) as server, pytest.MonkeyPatch.context() as patch:
        # The answers are there, so no model is loaded for the other benchmark.
        patch.setattr("instruction_modelling.generation.engine.open_engine", None)
        outcome = generate(1, server, tmp_path, model, *flags)
        assert outcome.code == 0, outcome.err
    result = read(tmp_path / "r" / "alpaca_eval_1", "results.json")
    assert (result["model"], result["n_total"], result["outputs"]["engine"]) == ("tiny", 20, "transformers")
    assert {
        annotation["output_2"] for annotation in read(tmp_path / "r" / "alpaca_eval_1", "annotations.json")
    } == {output["output"] for output in outputs}


def test_without_the_chat_format_the_bare_instruction_is_the_prompt(model: Path, tmp_path: Path) -> None:
    assert generate(1, None, tmp_path, model, "--no_evaluate_with_llm").code == 0
    bare = read(tmp_path / "r" / "alpaca_eval", "model_outputs.json")
    assert read(tmp_path / "r" / "alpaca_eval", "generation.json")["chat_format"] is None
    outcome = generate(1, None, tmp_path, model, "--no_evaluate_with_llm", "--use_chat_format")
    assert (
        outcome.code == 2 and "completions of another model, other prompts or other sampling" in outcome.err
    )
    other = ["--use_chat_format", "--save_dir", tmp_path / "c"]
    assert generate(1, None, tmp_path, model, "--no_evaluate_with_llm", *other).code == 0
    chat = read(tmp_path / "c" / "alpaca_eval", "model_outputs.json")
    assert [output["output"] for output in bare] != [output["output"] for output in chat]


def test_generation_that_was_stopped_goes_on_with_the_missing_answers(model: Path, tmp_path: Path) -> None:
    assert generate(1, None, tmp_path, model, "--no_evaluate_with_llm").code == 0
    folder = tmp_path / "r" / "alpaca_eval"
    whole = read(folder, "model_outputs.json")
    lines = (folder / "completions.jsonl").read_text().splitlines()
    for name in ("model_outputs.json", "generation.json"):
        (folder / name).unlink()
    (folder / "completions.jsonl").write_text("\n".join(lines[:9]) + "\n" + lines[9][:12])
    asked: list[str] = []
    complete = Engine.complete

    def noted(self: Engine, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        asked.extend(request.key for request in requests)
        return complete(self, requests, sampling)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "complete", noted)
        assert generate(1, None, tmp_path, model, "--no_evaluate_with_llm").code == 0
    assert len(asked) == COUNT - 8
    assert read(folder, "model_outputs.json") == whole


def test_answers_of_a_model_behind_an_address_are_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = output_file(tmp_path / "reference.json", "other", lambda n: f"<other {n}>")
    with JudgeServer(lambda body, count: f"<mine {number_in(body)}>") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        arguments = [
            "--reference_path",
            reference,
            "--openai_engine",
            "hub/service",
            "--save_dir",
            tmp_path / "r",
            "--max_new_tokens",
            9,
        ]
        assert evaluate(1, None, *arguments, "--no_evaluate_with_llm").code == 0
        assert {(body["model"], body["max_tokens"], body["temperature"]) for body in server.requests} == {
            ("hub/service", 9, 0.0)
        }
        outputs = read(tmp_path / "r" / "alpaca_eval", "model_outputs.json")
        assert outputs == [
            {
                "instruction": instruction(n),
                "output": f"<mine {n}>",
                "generator": "service",
                "dataset": "made",
            }
            for n in range(COUNT)
        ]
        with JudgeServer(lambda body, count: ranking(body, True)) as judge:
            outcome = evaluate(1, judge, *arguments)
            assert outcome.code == 0, outcome.err
        assert len(server.requests) == COUNT
    assert read(tmp_path / "r" / "alpaca_eval_1", "results.json")["win_rate"] == 100
