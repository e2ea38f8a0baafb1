"""src/reformat_datasets.py converts what is there, says what became of it, and goes on past a set that cannot
be converted."""

import json
import os
from pathlib import Path

import pytest
from raw_samples import alpaca_rows, read_lines, turns, write_json, write_lines, write_tulu_parts
from script_loader import run_script


def test_every_set_that_is_there_is_converted_and_the_mixtures_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tulu_parts(tmp_path / "raw")
    assert (
        run_script(
            monkeypatch,
            "reformat_datasets",
            "--raw_data_dir",
            tmp_path / "raw",
            "--output_dir",
            tmp_path / "out",
        )
        == 0
    )
    made = {
        path.name: len(read_lines(path / f"{path.name}_data.jsonl")) for path in (tmp_path / "out").iterdir()
    }
    assert made == {
        "cot": 24,
        "flan_v2": 7,
        "dolly": 4,
        "code_alpaca": 6,
        "gpt4_alpaca": 30,
        "oasst1": 6,
        "sharegpt": 2,
        "sharegpt_4096": 2,
        "lima": 4,
        "wizardlm": 25,
        "open_orca": 40,
        "science": 3,
        "hard_coded": 2,
        "tulu_v1": 7 + 24 + 6 + 4 + 30 + 6 + 2,
        "tulu_v2": 5 + 24 + 3 + 4 + 6 + 1 + 25 + 40 + 3 + 20,
    }
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["set", "read", "written", "refused", "left", "out", "file"]
    line = next(line for line in table if line.startswith("tulu_v2"))
    assert line.split()[1:5] == ["165", "131", "0", "34"]
    assert any(line.split() == ["left", "out:", "30", "mentions", "gpt4"] for line in table)


def test_alpagasus_is_found_in_the_folders_of_its_own_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "alpagasus"
    for name in ("dolly/dolly_3k", "dolly/chatgpt_9k", "alpaca/claude_t45"):
        write_json(raw / f"{name}.json", alpaca_rows(name, 2))
    assert (
        run_script(monkeypatch, "reformat_datasets", "--raw_data_dir", raw, "--output_dir", tmp_path / "out")
        == 0
    )
    ids = {
        path.stem: [row["id"] for row in read_lines(path)]
        for path in (tmp_path / "out").glob("*/*_data.jsonl")
    }
    assert ids == {
        "alpagasus_3k_dolly_data": ["alpagasus_3k_0", "alpagasus_3k_1"],
        "alpagasus_9k_dolly_data": ["alpagasus_9k_0", "alpagasus_9k_1"],
        "alpagasus_claude_t45_alpaca_data": ["alpagasus_0", "alpagasus_1"],
    }


def test_a_set_that_cannot_be_converted_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    write_lines(
        raw / "dolly" / "databricks-dolly-15k.jsonl",
        [
            {"instruction": "", "context": "", "response": "x"},
            {"instruction": "a", "context": "", "response": "x"},
        ],
    )
    write_json(raw / "stanford_alpaca" / "alpaca_data.json", "not a list")
    assert (
        run_script(
            monkeypatch,
            "reformat_datasets",
            "--raw_data_dir",
            raw,
            "--output_dir",
            tmp_path / "out",
            "--dataset",
            "stanford_alpaca",
            "lima",
            "dolly",
        )
        == 2
    )
    said = capsys.readouterr().out
    assert "stanford_alpaca: " in said and "of no kind that is read here" in said
    assert "lima: its raw files are not in" in said and "train.jsonl" in said
    assert "not converted: stanford_alpaca, lima" in said and "refused: 1 no instruction" in said
    assert read_lines(tmp_path / "out" / "dolly" / "dolly_data.refused.jsonl")[0]["line"] == 1


def test_options_reach_the_converters_and_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    write_json(raw / "stanford_alpaca" / "alpaca_data.json", alpaca_rows("x", 20))
    write_json(
        raw / "sharegpt" / "sg_90k_part1_html_cleaned.json", [{"id": "a", "conversations": turns("q", "a")}]
    )
    write_json(
        raw / "sharegpt" / "sg_90k_part2_html_cleaned.json", [{"id": "b", "conversations": turns("q", "a")}]
    )
    templates = write_json(
        tmp_path / "t.json",
        {
            "with_input": [{"prompt": "{input} <- {instruction}"}],
            "without_input": [{"prompt": "-> {instruction}"}],
        },
    )
    assert (
        run_script(
            monkeypatch,
            "reformat_datasets",
            "--raw_data_dir",
            raw,
            "--output_dir",
            tmp_path / "out",
            "--seed",
            3,
            "--rows_per_file",
            5,
            "--templates",
            templates,
            "--dataset",
            "stanford_alpaca",
        )
        == 0
    )
    written = read_lines(tmp_path / "out" / "stanford_alpaca" / "stanford_alpaca_data.jsonl")
    assert len(written) == 5 and all(
        " <- " in row["messages"][0]["content"] or row["messages"][0]["content"].startswith("-> ")
        for row in written
    )
    card = json.loads((tmp_path / "out" / "stanford_alpaca" / "stanford_alpaca_data.card.json").read_text())
    assert (card["options"]["seed"], card["options"]["limit"], card["left_out"]) == (3, 5, {"not drawn": 15})
    assert (
        run_script(
            monkeypatch,
            "reformat_datasets",
            "--raw_data_dir",
            raw,
            "--output_dir",
            tmp_path / "out",
            "--max_tokens",
            0,
            "--dataset",
            "sharegpt",
        )
        == 0
    )
    assert len(read_lines(tmp_path / "out" / "sharegpt" / "sharegpt_data.jsonl")) == 2


def test_sharegpt_is_split_with_a_real_tokenizer(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer

    raw, llama = tmp_path / "raw" / "sharegpt", shared_data / "tokenizers" / "llama2"
    long = "word " * 1000
    write_json(
        raw / "sg_90k_part1_html_cleaned.json",
        [{"id": "a", "conversations": turns(long, long, "short", "answer", long, long)}],
    )
    second = write_json(
        raw / "sg_90k_part2_html_cleaned.json",
        [
            {"id": "b", "conversations": turns(long * 3, "no")},
            {"id": "c", "conversations": turns("q", "a")},
            {"id": "half a character", "conversations": turns("HALF", "a")},
        ],
    )
    second.write_text(second.read_text().replace("HALF", "\\ud800"))
    assert (
        run_script(
            monkeypatch,
            "reformat_datasets",
            "--raw_data_dir",
            tmp_path / "raw",
            "--output_dir",
            tmp_path / "out",
            "--dataset",
            "sharegpt",
            "sharegpt_4096",
            "--tokenizer_name",
            llama,
        )
        == 0
    )
    count = len(Tokenizer.from_file(os.fspath(llama / "tokenizer.json")).encode(long).ids)
    # A long turn is 2,000 tokens and some: one fits into 2048, with the short turn too; two fit into 4096.
    assert 1000 <= count <= 1002
    by_length = {
        name: [len(row["messages"]) for row in read_lines(tmp_path / "out" / name / f"{name}_data.jsonl")]
        for name in ("sharegpt", "sharegpt_4096")
    }
    assert by_length == {"sharegpt": [4, 2, 2], "sharegpt_4096": [6, 2, 2]}
    card = json.loads((tmp_path / "out" / "sharegpt" / "sharegpt_data.card.json").read_text())
    assert card["refused"] == {"one turn is longer than a piece may be": 1, "lone surrogate": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "nonsense"], "--dataset nonsense: there are super_ni, cot"),
        (["--rows_per_file", "-1"], "--rows_per_file -1 is below 0"),
        (["--raw_data_dir", "/no/such"], "there is no such folder"),
        ([], "holds no raw files"),
    ],
)
def test_options_that_do_not_fit_are_said(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_script(monkeypatch, "reformat_datasets", "--raw_data_dir", tmp_path, *arguments) == 2
    assert said in capsys.readouterr().err
