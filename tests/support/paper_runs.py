"""Run folders and benchmark results for the paper's figures, with numbers of the test's choice."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark_fixtures import write_model, write_part
from report_fixtures import write_run

from instruction_modelling.files.durable import file_sha256
from instruction_modelling.files.whole import write_json, write_json_lines


def train_file(path: Path, instruction: int, output: int, rows: int = 4) -> Path:
    """Write rows whose instruction and output have so many words by the paper's count, the header's among
    them."""
    messages = [
        {"role": "user", "content": " ".join(["ask"] * (instruction - 1))},
        {"role": "assistant", "content": " ".join(["say"] * (output - 1))},
    ]
    write_json_lines(path, [{"messages": messages} for _ in range(rows)])
    return path


def tuned(folder: Path, arm: str, data: Path, seed: int = 0, rows: int = 4, **record: Any) -> Path:
    """Write a run folder of an arm on a training file; `record` changes its run.json."""
    known = {"path": str(data), "sha256": file_sha256(data) if data.is_file() else "0" * 64, "used": rows}
    write_run(folder, arm, seed, data=known, **record.pop("options", {}))
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **record}))
    return folder


def alpaca_eval(
    results: Path,
    win_rate: float,
    items: Mapping[str, float] | None = None,
    words: Sequence[int] = (),
    **changes: Any,
) -> None:
    """Write AlpacaEval 1 of a model into its results folder, and answers of so many words."""
    judged = {"win_rate": win_rate, "standard_error": 1.0, "judge": "gpt-4", "instructions": 805, **changes}
    write_part(results, "alpaca_eval_1", judged, items or {})
    if words:
        answers = [
            {"instruction": f"question {number}", "output": " ".join(["word"] * count), "generator": "mine"}
            for number, count in enumerate(words)
        ]
        write_json(results / "alpaca_eval" / "model_outputs.json", answers)


def all_benchmarks(results: Path, score: float, leave_out: tuple[str, ...] = ()) -> None:
    """Write every benchmark of a model, `score` (a multiple of 0.25) of the items of each right."""
    write_model(results, score, leave_out=leave_out)
