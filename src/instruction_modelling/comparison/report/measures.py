"""What a report compares, measure by measure: where its value lies, its unit and how it is written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from instruction_modelling.comparison.report.runs import ReportedRun, as_number
from instruction_modelling.progress import counted

MISSING = "missing"
# Data sets of the test rows whose losses the tables show, those with the most rows.
MOST_DATA_SETS = 10
Shown = Literal["always", "where measured", "in results.json"]


@dataclass(frozen=True)
class Measure:
    """One measured quantity.

    `source` is the evaluation record it is read from (`training`: what the run itself recorded) and `path`
    the keys inside; `row_key` is its name in the
    file with a line for each row, None where rows have no value of their own. `scale` turns the stored value
    into the shown one; `shown` says when the tables have it.
    """

    key: str
    label: str
    unit: str
    split: Literal["train", "test"]
    source: Literal["summary", "scores", "bleu", "training"]
    path: tuple[str, ...]
    row_key: str | None = None
    digits: int = 3
    scale: float = 1.0
    better: Literal["lower", "higher"] | None = None
    shown: Shown = "always"

    def value(self, run: ReportedRun) -> float | None:
        """Return the run's value, unscaled; None where it was not measured. It may be NaN."""
        evaluation = run.evaluations.get(self.split)
        holder = run if self.source == "training" else evaluation
        value: Any = getattr(holder, self.source) if holder else None
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        return as_number(value)

    def row_values(self, run: ReportedRun) -> dict[int, float]:
        """Return the run's value by row, unscaled; empty where there is no per-row file."""
        evaluation = run.evaluations.get(self.split)
        if evaluation is None or self.row_key is None:
            return {}
        rows = evaluation.losses if self.source == "summary" else evaluation.row_scores
        return {row: values[self.row_key] for row, values in rows.items() if self.row_key in values}

    @property
    def lowered_label(self) -> str:
        """Return the label as it stands inside a sentence."""
        return self.label if self.label.startswith("BLEU") else self.label[:1].lower() + self.label[1:]

    @property
    def difference_unit(self) -> str:
        """Return the unit of a difference of two values."""
        return "percentage points" if self.unit == "%" else self.unit

    def show(self, value: float) -> str:
        """Return a value in the shown unit, rounded, without the unit."""
        return f"{value * self.scale:.{self.digits}f}"

    def show_signed(self, value: float) -> str:
        """Return a difference in the shown unit, rounded, with its sign; one that rounds to 0 has none."""
        text = f"{value * self.scale:+.{self.digits}f}"
        return (text[1:] if not float(text) else text).replace("-", "\N{MINUS SIGN}")

    def show_stat(self, stat: Mapping[str, Any] | None, runs: int, show_count: bool = True) -> str:
        """Return `mean ± SD (n)` of an arm with so many runs; `missing` where nothing was measured.

        Args:
            show_count: write (n), where it is `runs`, too.
        """
        if stat is None:
            return MISSING
        spread = "" if stat["sd"] is None else f" ± {self.show(stat['sd'])}"
        if stat["n"] != runs and runs:
            count = f" ({stat['n']} of {runs})"
        else:
            count = f" ({stat['n']})" if runs and show_count else ""
        return self.show(stat["mean"]) + spread + count


def _nll(
    split: Literal["train", "test"], kind: str, label: str, better: Literal["lower"] | None = None
) -> Measure:
    return Measure(
        f"{split}_{kind}_nll",
        label,
        "nats per token",
        split,
        "summary",
        ("mean_over_examples", kind),
        row_key=kind,
        better=better,
    )


def _share(key: str, label: str, better: Literal["higher"] | None = "higher") -> Measure:
    return Measure(
        key, label, "%", "test", "scores", (key,), row_key=key, digits=1, scale=100.0, better=better
    )


def _bleu(key: str, label: str, split: Literal["train", "test"], shown: Shown) -> Measure:
    which = "corpus_bleu" if "corpus" in key else "sentence_bleu"
    return Measure(key, label, "0 to 100", split, "bleu", (which,), digits=1, shown=shown)


def _length(key: str, label: str, unit: str, shown: Shown) -> Measure:
    return Measure(key, label, unit, "test", "scores", (key,), digits=1, shown=shown)


def _training(key: str, label: str) -> Measure:
    return Measure(key, label, "training", "train", "training", (key,), digits=0, shown="where measured")


MEASURES = (
    _training("rows", "Rows"),
    _training("steps", "Steps"),
    _training("tokens_seen", "Tokens seen"),
    _nll("train", "response", "Training response loss"),
    _nll("test", "response", "Test response loss", better="lower"),
    _nll("test", "user", "Test user-message loss"),
    _share("exact_match", "Exact match"),
    _share("token_f1", "Token F1"),
    _share("finished", "Stop rate", better=None),
    _bleu("train_bleu", "BLEU with training outputs", "train", "always"),
    _bleu("train_corpus_bleu", "Corpus BLEU with training outputs", "train", "in results.json"),
    _bleu("test_bleu", "BLEU with test references", "test", "where measured"),
    _bleu("test_corpus_bleu", "Corpus BLEU with test references", "test", "in results.json"),
    _length("mean_tokens", "Response length", "tokens", "always"),
    _length("mean_words", "Response length", "words", "where measured"),
    _length("reference_mean_words", "Reference length", "words", "where measured"),
)
# Loss first: the order in which differences are listed.
LOSSES = ("test_response_nll", "train_response_nll", "test_user_nll")


def measures_of(runs: Iterable[ReportedRun]) -> list[Measure]:
    """Return every measure, the test loss of each data set where the test rows are of several, and the metric
    commands that any of the runs was scored with."""
    names: set[str] = set()
    rows: dict[str, int] = {}
    for run in runs:
        evaluation = run.evaluations.get("test")
        names.update(((evaluation and evaluation.scores) or {}).get("metrics") or {})
        for name, of_set in (((evaluation and evaluation.summary) or {}).get("by_dataset") or {}).items():
            rows[name] = max(rows.get(name, 0), of_set["rows_scored"])
    custom = [
        Measure(
            f"metrics.{name}",
            name,
            "mean of the metric command",
            "test",
            "scores",
            ("metrics", name),
            row_key=name,
            shown="where measured",
        )
        for name in sorted(names)
    ]
    return [*MEASURES, *(_of_data_sets(rows) if len(rows) > 1 else ()), *custom]


def _of_data_sets(rows: Mapping[str, int]) -> list[Measure]:
    """Return the test loss of each data set, those with the most rows first, by their numbers of rows."""
    by_rows = sorted(rows, key=lambda name: -rows[name])
    return [
        Measure(
            f"test_response_nll.{name}",
            f"Test response loss of {name}",
            f"nats per token, {counted(rows[name], 'row')}",
            "test",
            "summary",
            ("by_dataset", name, "mean_over_examples", "response"),
            better="lower",
            shown="where measured" if number < MOST_DATA_SETS else "in results.json",
        )
        for number, name in enumerate(by_rows)
    ]
