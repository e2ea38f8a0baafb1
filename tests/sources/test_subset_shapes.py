"""Subsets of everything that training reads: which rows, in which shape, and what is said of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_samples import read_lines, write_lines
from script_loader import run_script

from instruction_modelling.rows.conversations import read_conversations

# Ratios (1 + 3 n) / 2 for n = 1 to 6: a header and 3 n words against a header and one word.
ROWS: list[dict[str, Any]] = [
    {"id": f"r{n}", "instruction": " ".join(["w"] * 3 * n), "output": "yes"} for n in range(1, 7)
]
SHAREGPT = [
    {
        "id": row["id"],
        "conversations": [
            {"from": "human", "value": row["instruction"]},
            {"from": "gpt", "value": row["output"]},
        ],
    }
    for row in ROWS
]


def json_lines(folder: Path, rows: list[dict[str, Any]] = ROWS) -> bytes:
    return write_lines(folder / "lines.tmp", rows).read_bytes()


def parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    return folder / "rows.parquet"


def sharegpt(folder: Path) -> Path:
    (folder / "sharegpt.json").write_text(json.dumps(SHAREGPT))
    return folder / "sharegpt.json"


def csv_packed(folder: Path) -> Path:
    lines = ["id\tinstruction\toutput", *("\t".join(row.values()) for row in ROWS)]
    (folder / "rows.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder / "rows.tsv.gz"


def zst(folder: Path) -> Path:
    (folder / "rows.jsonl.zst").write_bytes(pa.compress(json_lines(folder), "zstd", asbytes=True))
    return folder / "rows.jsonl.zst"


def saved(folder: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    return folder / "saved"


def many_files(folder: Path) -> Path:
    (folder / "parts").mkdir()
    for number, row in enumerate(ROWS):
        write_lines(folder / "parts" / f"part-{number}.jsonl", [row])
    return folder / "parts"


def lines_of_alpaca(folder: Path) -> Path:
    return write_lines(folder / "alpaca.jsonl", ROWS)


@pytest.mark.parametrize(
    "make",
    [parquet, sharegpt, csv_packed, zst, saved, many_files, lines_of_alpaca],
    ids=lambda make: make.__name__,
)
def test_rows_are_taken_from_every_shape(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = make(tmp_path), tmp_path / "near.jsonl"
    select = ("select_data", "--train_file", path, "--ratio", 5, "--rows", 1, "--output", out)
    assert run_script(monkeypatch, *select) == 0
    assert "1 of 6 rows, instruction / output words of a row 5.00 to 5.00" in capsys.readouterr().out
    chosen = read_conversations(out).conversations
    assert [(row.id, row.messages[0].content) for row in chosen] == [("r3", "w w w w w w w w w")]
    sample = ("sample_data", "--train_file", path, "--rows", 4, "--how", "first", "--output", out)
    assert run_script(monkeypatch, *sample) == 0
    taken = read_conversations(out).conversations
    assert [row.messages for row in taken] == [
        row.messages for row in read_conversations(path).conversations
    ][:4]


def test_rows_are_taken_from_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, config: str | None, split: str) -> datasets.Dataset:
        assert (name, config, split) == ("some/set", None, "dev")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    arguments = ("--train_file", "some/set::dev", "--rows", 2, "--how", "first")
    assert run_script(monkeypatch, "sample_data", *arguments) == 0
    assert [row["id"] for row in read_lines(tmp_path / "set_dataset_rows2.jsonl")] == ["r1", "r2"]


def test_lines_of_any_shape_are_copied_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    lines = [json.dumps(row | {"score": 1.50}) for row in ROWS]
    path.write_text("\ufeff" + "\n\n".join(lines))
    out = tmp_path / "out.jsonl"
    assert run_script(monkeypatch, "sample_data", "--train_file", path, "--rows", 6, "--output", out) == 0
    assert sorted(out.read_text().splitlines()) == sorted(lines)


def test_what_nothing_reads_is_named_where_rows_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.Table.from_pylist([row | {"score": 1.5} for row in ROWS]), tmp_path / "x.parquet")
    arguments = ("--train_file", tmp_path / "x.parquet", "--rows", 2, "--output", tmp_path / "out.jsonl")
    assert run_script(monkeypatch, "sample_data", *arguments) == 0
    assert "left out, since nothing reads them: column score (6 rows)" in capsys.readouterr().err


def test_columns_are_named_and_bad_rows_are_refused_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"q": row["instruction"], "a": row["output"]} for row in ROWS]
    path = write_lines(tmp_path / "own.jsonl", [*rows, {"q": 3, "a": "x"}])
    out = tmp_path / "out.jsonl"
    arguments = ("--train_file", path, "--columns", "q=user,a=assistant", "--rows", 6, "--output", out)
    assert run_script(monkeypatch, "sample_data", *arguments) == 2
    assert "1 of 7 rows cannot be used" in capsys.readouterr().err
    assert run_script(monkeypatch, "sample_data", *arguments, "--max_bad_rows", 1) == 0
    assert "unusable rows, which no subset holds: 1 " in capsys.readouterr().err
    # Written as messages, so that they are read without --columns.
    assert [row.messages[0].content for row in read_conversations(out).conversations] == [
        row["q"] for row in rows
    ]
    card = json.loads((tmp_path / "out.card.json").read_text())
    assert list(card["from"]["bad_rows"].values()) == [1]


def test_files_are_named_after_what_they_are_taken_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (csv_packed(tmp_path), saved(tmp_path)):
        assert run_script(monkeypatch, "select_data", "--train_file", path, "--ratio", 5, "--rows", 1) == 0
    assert {path.name for path in tmp_path.glob("*_5_1.jsonl")} == {
        "rows_ratio_5_1.jsonl",
        "saved_ratio_5_1.jsonl",
    }


def test_a_ratio_that_cannot_be_met_says_what_it_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines_of_alpaca(tmp_path)
    out = tmp_path / "out.jsonl"
    arguments = ("--train_file", path, "--rows", 3, "--output", out)
    assert run_script(monkeypatch, "select_data", *arguments, "--ratio", 15) == 0
    said = capsys.readouterr().out
    # The nearest are 9.5, 8 and 6.5.
    assert "warning: --ratio 15 cannot be met with 3 rows: 3 of them" in said and "the mean is 8.00" in said
    notes = json.loads((tmp_path / "out.card.json").read_text())["notes"]
    assert len(notes) == 1 and notes[0] in said
    assert run_script(monkeypatch, "select_data", *arguments[:3], 1, *arguments[4:], "--ratio", 5) == 0
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("unit", ["今", "วัน"])
def test_rows_of_scripts_without_spaces_are_chosen_by_their_words(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(number: int, instruction: int, output: int, separator: str = "") -> dict[str, Any]:
        words = [separator.join([unit] * count) for count in (instruction, output)]
        return {
            "id": f"r{number}",
            "messages": [{"role": "user", "content": words[0]}, {"role": "assistant", "content": words[1]}],
        }

    rows = [row(0, 4, 49), row(1, 99, 9), row(2, 49, 4, " "), row(3, 4, 4), row(4, 19, 9)]
    path = write_lines(tmp_path / "x.jsonl", rows)
    out = tmp_path / "out.jsonl"
    select = ("select_data", "--train_file", path, "--ratio", 10, "--rows", 2, "--output", out)
    assert run_script(monkeypatch, *select) == 0
    assert {line["id"] for line in read_lines(out)} == {"r1", "r2"}
    said = capsys.readouterr().out
    assert "of a row 10.00 to 10.00, mean 10.00; length ratio of the subset 10.00" in said
    assert "2 rows hold text without spaces between words" in said


def test_the_default_is_a_random_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines_of_alpaca(tmp_path)
    assert run_script(monkeypatch, "sample_data", "--train_file", path, "--rows", 3) == 0
    assert (tmp_path / "alpaca_dataset_rows3_random_seed42.jsonl").exists()
    assert "3 of 6 rows, random" in capsys.readouterr().out
