"""Exact match, token F1, stop rate and lengths of a model's responses, and a metric of your own.

    python src/score_responses.py --responses output/it/eval/test/responses.jsonl
    python src/score_responses.py --responses R.jsonl --metric_command "python my_metric.py" \\
        --metric_name my_metric

Exact match and token F1 compare lower-cased words without punctuation and without a, an, the, as SQuAD does,
with one difference: numbers and units matter. Punctuation inside a number and its sign stay (3.5 is not 35,
-5 is not 5; 1,000 is 1000), and % and currency signs are words (5% is not 5). "12" is not an exact match of
"12 km".

--metric_command is run once, without a shell. It reads one line of JSON per row on standard input, {"id",
"prompt", "response", "reference"}, and prints one number a row in the same order, bare or as {"score":
number}.

Writes scores.json (means; fractions from 0 to 1) and scores.jsonl (a line per row).
"""

from dataclasses import dataclass
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main


@dataclass
class ResponseScoreOptions:
    """Options."""

    responses: str
    """The responses.jsonl of src/generate.py, or any JSON Lines with "response" and "reference"."""
    output_dir: str | None = None
    """Where scores.json and scores.jsonl go (default: beside the responses)."""
    metric_command: str | None = None
    """A command that scores the responses; its words are split as a shell does, and no shell is run."""
    metric_name: str = "metric"
    """The name of its score: letters, digits, `_`, `-`, `.`."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        from instruction_modelling.generation.scores import METRIC_NAME, ROW_KEYS

        if not METRIC_NAME(self.metric_name):
            return [f"--metric_name {self.metric_name!r}: letters, digits, _, - and ., a letter first"]
        if self.metric_name in ROW_KEYS:
            return [f"--metric_name {self.metric_name}: is the name of a score already; choose another"]
        return []


def main() -> None:
    """Read the responses, score them, write and print the result."""
    options = parse_options(ResponseScoreOptions)
    from instruction_modelling.files.whole import write_json, write_json_lines
    from instruction_modelling.generation.responses import read_responses
    from instruction_modelling.generation.scores import row_scores, run_metric, summarise_scores

    file = read_responses(options.responses)
    rows = row_scores(file.responses)
    metrics = []
    if options.metric_command is not None:
        metrics.append(options.metric_name)
        for row, score in zip(rows, run_metric(options.metric_command, file.responses), strict=True):
            row[options.metric_name] = score
    summary = summarise_scores(rows, metrics)
    folder = Path(options.output_dir) if options.output_dir else file.path.parent
    write_json_lines(folder / "scores.jsonl", rows)
    write_json(
        folder / "scores.json", {**summary, "responses": str(file.path), "responses_sha256": file.sha256}
    )
    shown = {name: value for name, value in summary.items() if name != "metrics"} | summary["metrics"]
    for name, value in shown.items():
        print(f"{name:<22}{'-' if value is None else f'{value:.4f}' if isinstance(value, float) else value}")
    print(f"written to {folder / 'scores.json'} and scores.jsonl")


if __name__ == "__main__":
    run_main(main)
