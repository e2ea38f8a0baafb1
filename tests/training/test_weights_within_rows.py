"""Whole runs with weights by turn, by pattern and by span, with --overlong, and by the root of n."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import finetune_runs
import pytest
from finetune_runs import ARGUMENTS, tune
from training_runs import Outcome, finetune, losses, record, run, same_bits, sample_rows, write_rows

place = finetune_runs.place
FEW = (*ARGUMENTS, "--max_train_steps", 2)


def talks() -> list[dict[str, Any]]:
    """Rows of three turns, made of the sample's."""
    rows = sample_rows(24)
    return [
        {"messages": [message for row in rows[i : i + 3] for message in row["messages"]]}
        for i in range(0, 24, 3)
    ]


def refused(place: Path, folder: Path, rows: Path, *arguments: object) -> Outcome:
    outcome = run(
        *("finetune", "--model_name_or_path", place / "model", "--train_file", rows),
        *("--output_dir", folder, *FEW, *arguments),
    )
    assert outcome.code == 2 and "Traceback" not in outcome.err
    return outcome


@pytest.mark.parametrize("turns", ["first", "last"])
@pytest.mark.parametrize("blocks", [(), ("--use_lm_modelling", "--block_size", "64")], ids=["rows", "blocks"])
def test_turns_are_the_weights_that_their_messages_would_have(
    place: Path, tmp_path: Path, turns: str, blocks: tuple[str, ...]
) -> None:
    rows = talks()
    weighed = deepcopy(rows)
    for row in weighed:
        answers = [m for m in row["messages"] if m["role"] == "assistant"]
        for message in answers[1:] if turns == "first" else answers[:-1]:
            message["weight"] = 0
    write_rows(tmp_path / "rows.jsonl", rows)
    write_rows(tmp_path / "weighed.jsonl", weighed)
    flags = ("--instruction_loss_weight", "0.3", *blocks)
    one = finetune(
        place / "model", tmp_path / "rows.jsonl", tmp_path / "one", *FEW, *flags, "--train_turns", turns
    )
    other = finetune(place / "model", tmp_path / "weighed.jsonl", tmp_path / "other", *FEW, *flags)
    plain = finetune(place / "model", tmp_path / "rows.jsonl", tmp_path / "plain", *FEW, *flags)
    assert same_bits(one, other) and not same_bits(one, plain)
    assert record(one)["arm"] == record(plain)["arm"] + f" {turns} turns"
    assert f"the {turns} turns alone" in (one / "README.md").read_text(encoding="utf-8")


def test_patterns_are_the_spans_that_they_match(place: Path, tmp_path: Path) -> None:
    rows = talks()
    patterns = {r"\b[Tt]he\b": 0.25, r"[0-9]+": 3.0, "zzz|never": 0.5}
    (tmp_path / "patterns.json").write_text(json.dumps(patterns), encoding="utf-8")
    spanned, counts = deepcopy(rows), dict.fromkeys(patterns, 0)
    for row in spanned:
        for message in row["messages"]:
            if message["role"] == "assistant":
                message["loss_spans"] = []
                for pattern, weight in patterns.items():
                    for match in re.finditer(pattern, message["content"]):
                        message["loss_spans"].append([*match.span(), weight])
                        counts[pattern] += 1
    write_rows(tmp_path / "rows.jsonl", rows)
    write_rows(tmp_path / "spanned.jsonl", spanned)
    asked = ("--loss_patterns", tmp_path / "patterns.json")
    one = finetune(place / "model", tmp_path / "rows.jsonl", tmp_path / "one", *FEW, *asked)
    other = finetune(place / "model", tmp_path / "spanned.jsonl", tmp_path / "other", *FEW)
    plain = finetune(place / "model", tmp_path / "rows.jsonl", tmp_path / "plain", *FEW)
    assert same_bits(one, other) and not same_bits(one, plain)
    found = record(one)["data"]["loss_patterns"]
    assert {name: one["matches"] for name, one in found.items()} == counts and counts["[0-9]+"] > 0
    assert set(found["[0-9]+"]) == {"weight", "matches", "rows", "characters", "not_to_the_letter"}
    assert record(one)["arm"] == "IT patterns patterns"
    log = (one / "train.log").read_text(encoding="utf-8")
    assert "'zzz|never' matches nothing" in log and f"{counts['[0-9]+']} matches" in log
    card = (one / "README.md").read_text(encoding="utf-8")
    assert f"`[0-9]+` x 3 ({counts['[0-9]+']} matches)" in card and "`zzz\\|never` x 0.5 (0 matches)" in card
    # A continuation is compared by what the file holds, whatever its name.
    again = tmp_path / "again"
    finetune(place / "model", tmp_path / "rows.jsonl", again, *FEW, *asked, "--checkpointing_steps", "1")
    (tmp_path / "same.json").write_text(json.dumps(patterns), encoding="utf-8")
    resumed = ("--checkpointing_steps", "1", "--resume_from_checkpoint", again / "step_1", "--loss_patterns")
    finetune(place / "model", tmp_path / "rows.jsonl", again, *FEW, *resumed, tmp_path / "same.json")
    assert same_bits(again, one)
    (tmp_path / "same.json").write_text(json.dumps(patterns | {"[0-9]+": 2}), encoding="utf-8")
    outcome = refused(place, again, tmp_path / "rows.jsonl", *resumed, tmp_path / "same.json")
    assert "loss_patterns" in outcome.err and "belongs to another run" in outcome.err


def test_rows_too_long_are_left_out_or_an_error(place: Path, tmp_path: Path) -> None:
    rows = sample_rows(10)
    for number in (3, 7):
        rows[number]["messages"][-1]["content"] += " again" * (100 + number)
    short = [row for number, row in enumerate(rows) if number not in (3, 7)]
    write_rows(tmp_path / "rows.jsonl", rows)
    write_rows(tmp_path / "short.jsonl", short)
    files = ("--eval_file", tmp_path / "rows.jsonl", "--max_seq_length", "300")
    dropped = finetune(
        place / "model", tmp_path / "rows.jsonl", tmp_path / "dropped", *FEW, *files, "--overlong", "drop"
    )
    files = ("--eval_file", tmp_path / "short.jsonl", "--max_seq_length", "300")
    other = finetune(place / "model", tmp_path / "short.jsonl", tmp_path / "other", *FEW, *files)
    assert same_bits(dropped, other) and losses(dropped) == losses(other)
    measured, expected = (
        [
            json.loads(line)
            for line in (folder / "metrics.jsonl").read_text().splitlines()
            if "eval_rows" in line
        ]
        for folder in (dropped, other)
    )
    assert measured == expected and measured[0]["eval_rows"] == 8
    lines = [json.loads(line) for line in (dropped / "bad_rows.jsonl").read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in lines] == [
        (3, "longer than --max_seq_length"),
        (7, "longer than --max_seq_length"),
    ]
    assert all(re.match(r"\d{3,} tokens, where --max_seq_length is 300", line["detail"]) for line in lines)
    assert record(dropped)["data"]["dropped"] == {"longer than --max_seq_length": 2}
    assert record(dropped)["data"]["used"] == 8 and record(dropped)["data"]["truncated_rows"] == 0
    outcome = run(
        *("finetune", "--model_name_or_path", place / "model", "--train_file", tmp_path / "rows.jsonl"),
        *("--output_dir", tmp_path / "error", *FEW, *files, "--overlong", "error"),
    )
    assert outcome.code == 2 and "2 of 10 rows are longer than --max_seq_length 300" in outcome.err
    scored = run(
        *("compute_loss", "--model_name_or_path", place / "model", "--eval_file", tmp_path / "rows.jsonl"),
        *("--output_dir", tmp_path / "scored", "--max_seq_length", 300, "--overlong", "drop"),
    )
    assert scored.code == 0, scored.err
    summary = json.loads((tmp_path / "scored" / "summary.json").read_text())
    assert summary["rows_scored"] == 8 and summary["dropped"] == {"longer than --max_seq_length": 2}
    by_row = [json.loads(line) for line in (tmp_path / "scored" / "losses.jsonl").read_text().splitlines()]
    assert [line["row"] for line in by_row if "dropped" in line] == [3, 7]


@pytest.mark.parametrize("flags", [("--train_turns", "last"), ("--loss_patterns", "patterns.json")])
def test_released_masks_refuse_weights_within_rows(
    place: Path, tmp_path: Path, flags: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patterns.json").write_text('{"a": 0.5}', encoding="utf-8")
    write_rows(tmp_path / "rows.jsonl", talks())
    for asked in (("--mask_style", "released"), ("--recipe", "released")):
        outcome = refused(place, tmp_path / "run", tmp_path / "rows.jsonl", *flags, *asked)
        assert f"leave out {flags[0]}" in outcome.err


def test_the_root_of_n_is_the_same_run_in_every_layout(place: Path, tmp_path: Path) -> None:
    flags = ("--loss_normalization", "square", "--instruction_loss_weight", "0.3", "--max_train_steps", 3)
    layouts = {
        "padded": (),
        "packed": ("--packing", "--max_tokens_per_device", "600"),
        "singly": ("--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "8"),
    }
    found = {}
    for name, layout in layouts.items():
        folder = tune(place, tmp_path / name, *flags, *layout)
        found[name] = losses(folder)
    by_example = losses(tune(place, tmp_path / "example", *flags[2:]))
    assert found["packed"] == pytest.approx(found["padded"], rel=1e-5)
    assert found["singly"] == pytest.approx(found["padded"], rel=1e-5)
    assert found["padded"][0] != pytest.approx(by_example[0], rel=1e-3)
