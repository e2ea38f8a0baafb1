"""A run's end of turn and history stay its own: in the saved model, and in whatever reads that."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model
from training_runs import Outcome, record, run, sample_rows, write_rows

ENDLESS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# Writes what an assistant thought in the last message alone.
FORGETS = ENDLESS.replace(
    "{{ m['content'] }}",
    "{% if loop.last and m.reasoning_content %}({{ m.reasoning_content }}) {% endif %}{{ m['content'] }}</s>",
)


def tune(place: Path, folder: str, *arguments: object) -> Outcome:
    names = ("--model_name_or_path", place / "model", "--train_file", place / "rows.jsonl")
    steps = ("--per_device_train_batch_size", 2, "--checkpointing_steps", 1, "--num_train_epochs", 1)
    return run("finetune", *names, "--output_dir", place / folder, *steps, *arguments)


def make_place(
    folder: Path, template: str, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(folder / "cache"))
    make_tiny_model(folder / "model", template)
    write_rows(folder / "rows.jsonl", rows)


def test_the_token_that_ends_a_turn_is_trained_saved_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    make_place(tmp_path, ENDLESS, sample_rows(4), monkeypatch)
    flag = ("--end_of_turn", "</s>")
    assert tune(tmp_path, "run", *flag).code == 0 and tune(tmp_path, "without").code == 0
    with_end, without = (record(tmp_path / name)["data"]["by_kind"] for name in ("run", "without"))
    answers = sum(m["role"] == "assistant" for row in sample_rows(4) for m in row["messages"])
    assert with_end["end"]["tokens_with_loss"] == answers and "end" not in without
    assert record(tmp_path / "run")["options"]["end_of_turn"] == "</s>"
    stop = AutoTokenizer.from_pretrained(tmp_path / "run").convert_tokens_to_ids("</s>")  # type: ignore[no-untyped-call]
    config = json.loads((tmp_path / "run" / "generation_config.json").read_text())
    assert stop in [
        config["eos_token_id"],
        *(config["eos_token_id"] if isinstance(config["eos_token_id"], list) else []),
    ]
    # What scores the saved model is told nothing, and measures the end of each turn.
    scored = run(
        "compute_loss",
        "--model_name_or_path",
        tmp_path / "run",
        "--eval_file",
        tmp_path / "rows.jsonl",
        "--output_dir",
        tmp_path / "scored",
    )
    assert scored.code == 0, scored.err
    assert json.loads((tmp_path / "scored" / "summary.json").read_text())["tokens"]["end"] == answers
    inspected = run(
        "inspect_weights",
        "--tokenizer_name",
        tmp_path / "model",
        "--train_file",
        tmp_path / "rows.jsonl",
        *flag,
        "--summary_file",
        tmp_path / "summary.json",
    )
    assert inspected.code == 0, inspected.err
    assert json.loads((tmp_path / "summary.json").read_text())["by_kind"]["end"]["tokens"] == answers
    other = tune(tmp_path, "run", "--resume_from_checkpoint", tmp_path / "run" / "step_1")
    assert other.code == 2 and "end_of_turn: '</s>' then, None now" in other.err
    refused = tune(tmp_path, "refused", "--end_of_turn", "</stop>")
    assert refused.code == 2 and "--end_of_turn </stop>: none of the tokenizer's added tokens" in refused.err


def test_a_whole_history_is_one_sequence_and_stays_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def thinking(*thoughts: str | None) -> dict[str, Any]:
        turns = [
            (
                {"role": "user", "content": f"q{n}"},
                {"role": "assistant", "content": f"a{n}", "reasoning_content": thought},
            )
            for n, thought in enumerate(thoughts)
        ]
        return {"messages": [{k: v for k, v in m.items() if v is not None} for turn in turns for m in turn]}

    rows = [thinking(None, "why"), thinking("why", None), thinking("why"), thinking(None, None)]
    make_place(tmp_path, FORGETS, rows, monkeypatch)
    assert tune(tmp_path, "as_written").code == 0
    assert record(tmp_path / "as_written")["data"]["sequences"] == 5
    whole = tune(tmp_path, "whole", "--history", "whole")
    assert whole.code == 2 and "rows.jsonl:2" in whole.err and "reasoning_content not rendered" in whole.err
    assert tune(tmp_path, "whole", "--history", "whole", "--max_bad_rows", 1).code == 0
    data = record(tmp_path / "whole")["data"]
    assert (data["used"], data["sequences"], data["context_tokens"]) == (3, 3, 0)
    scored = run(
        "compute_loss",
        "--model_name_or_path",
        tmp_path / "whole",
        "--eval_file",
        tmp_path / "rows.jsonl",
        "--output_dir",
        tmp_path / "scored",
    )
    assert (
        scored.code == 2 and "--history whole trains the text of the whole conversation alone" in scored.err
    )
    again = ("--max_bad_rows", 1, "--resume_from_checkpoint", tmp_path / "whole" / "step_1")
    other = tune(tmp_path, "whole", "--history", "as_written", *again)
    assert other.code == 2 and "history: 'whole' then, 'as_written' now" in other.err
