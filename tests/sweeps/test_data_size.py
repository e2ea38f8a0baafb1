"""The rows and tokens of a file before it is tokenised, by hand."""

import json
from pathlib import Path

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
