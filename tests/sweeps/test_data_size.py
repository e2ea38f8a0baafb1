"""The rows and tokens of a file before it is tokenised, by hand."""

import json
from pathlib import Path

import pytest
from training_runs import write_rows

from instruction_modelling.sweeps.data_size import tokens_in


def test_tokens_are_counted_by_characters_and_cut(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "x" * 40}, {"role": "assistant", "content": "y" * 60}]}
    ] * 2
    rows.append({"messages": [{"role": "user", "content": "z" * 4000}]})
    assert tokens_in(write_rows(tmp_path / "rows.jsonl", rows), 512) == (3, 26 + 26 + 512)
    pairs = [{"prompt": "x" * 10, "completion": "y" * 30}] * 3
    assert tokens_in(write_rows(tmp_path / "pairs.jsonl", pairs), 512) == (3, 3 * 11)
    (tmp_path / "array.json").write_text(json.dumps(pairs))
    assert tokens_in(tmp_path / "array.json", 512) == (3, 3 * 11)
    assert tokens_in(Path("data/lima_data.jsonl"), 2048) == (1030, round(1030 * 484.47 * 1.5))


def test_an_epoch_of_a_mixture_is_as_many_rows_as_there_are_in_its_proportions(tmp_path: Path) -> None:
    short = [{"prompt": "x" * 10, "completion": "y" * 30}] * 30
    long = [{"prompt": "x" * 40, "completion": "y" * 360}] * 10
    write_rows(tmp_path / "short.jsonl", short)
    write_rows(tmp_path / "long.jsonl", long)
    (tmp_path / "all.yaml").write_text("files: [short.jsonl, long.jsonl]\n")
    assert tokens_in(tmp_path / "all.yaml", 512) == (40, 30 * 11 + 10 * 101)
    (tmp_path / "half.yml").write_text("files: {short.jsonl: 1, long.jsonl: 1}\n")
    assert tokens_in(tmp_path / "half.yml", 512) == (40, 20 * 11 + 20 * 101)
    (tmp_path / "absent.yaml").write_text("files: [short.jsonl, none.jsonl]\n")
    with pytest.raises(FileNotFoundError):
        tokens_in(tmp_path / "absent.yaml", 512)
