"""Run folders and their evaluations, read as they lie on disk."""

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.rows.json_lines import stream_records
from instruction_modelling.rows.mixture import is_mixture

SPLITS = ("train", "test")
BASE = "base"
# What a script leaves of an evaluation, beside its rows.
RECORDS = {
    "compute_loss": "summary.json",
    "generate": "generation.json",
    "compute_bleu": "bleu.json",
    "score_responses": "scores.json",
}
_RUN_OBJECTS = ("options", "data", "versions", "machine", "model")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None where there is no such file.

    Raises:
        UserError: the file is not one JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); make it again, or remove it") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: holds {type(value).__name__}, not a JSON object; make it again, or remove it"
        )
    return value


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file; none where there is no such file.

    Raises:
        UserError: a line is not a JSON object, with file:line.
    """
    if path.is_file():
        hint = "The file may be cut off: make it again"
        yield from (record for _, record in stream_records(path, hint))


def as_number(value: Any) -> float | None:
    """Return a JSON number (or true, false as 1, 0) as a float; None for anything else. NaN and infinities
    stay."""
    return float(value) if isinstance(value, int | float) else None


def finite(value: Any) -> float | None:
    """Return a JSON number as a float if it is finite, else None."""
    as_float = as_number(value)
    return as_float if as_float is not None and math.isfinite(as_float) else None


def _finite_values(values: Any) -> dict[str, float]:
    """Return the entries of a JSON object that are finite numbers; none where it is no object."""
    pairs = values.items() if isinstance(values, dict) else ()
    return {name: value for name, raw in pairs if (value := finite(raw)) is not None}


@dataclass(frozen=True)
class SplitEvaluation:
    """What was measured of one model on one split; a measurement that was not made is None or empty.

    `summary` is of src/compute_loss.py, `generation` of src/generate.py, `bleu` and `scores` of the scripts
    that score responses. `problems` says in words what lies there and cannot be used.
    """

    folder: Path
    summary: dict[str, Any] | None = None
    generation: dict[str, Any] | None = None
    bleu: dict[str, Any] | None = None
    scores: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was measured."""
        return not any((self.summary, self.generation, self.bleu, self.scores))

    def measured_file(self, source: str) -> str | None:
        """Return which file the `summary` or the `generation` was made from: its hash, else its path."""
        record = self.summary if source == "summary" else self.generation
        return None if record is None else record.get("sha256") or record.get("file")

    @cached_property
    def losses(self) -> dict[int, dict[str, float]]:
        """Return the mean NLL in nats per token by row and span kind; empty for a row that was left out."""
        rows = [] if self.summary is None else self._rows("losses.jsonl")
        return {record["row"]: _finite_values(record.get("nll")) for record in rows}

    @cached_property
    def row_scores(self) -> dict[int, dict[str, float]]:
        """Return scores by row and name; whether a response ended comes from the responses where no score
        says it."""
        by_row: dict[int, dict[str, float]] = {}
        scores = [] if self.scores is None else self._rows("scores.jsonl")
        for record in [*self.responses.values(), *scores]:
            by_row.setdefault(record["row"], {}).update(_finite_values(record))
        return by_row

    @cached_property
    def responses(self) -> dict[int, dict[str, Any]]:
        """Return the generated responses, by row."""
        return {} if self.generation is None else {row["row"]: row for row in self._rows("responses.jsonl")}

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        for count, record in enumerate(read_rows(self.folder / name), start=1):
            if not isinstance(record.get("row"), int):
                raise UserError(
                    f'{self.folder / name}: record {count} has no whole number "row"; make the file again'
                )
            yield record


@dataclass(frozen=True)
class ReportedRun:
    """One training run (or the untuned base model): its run.json and its evaluations by split."""

    folder: Path
    arm: str
    finished: bool
    record: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, SplitEvaluation] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """Return the options the run was started with."""
        return self.record.get("options") or {}

    @property
    def seed(self) -> Any:
        """Return the run's seed, None for the base model."""
        return self.options.get("seed")

    @property
    def data(self) -> dict[str, Any]:
        """Return what run.json says about the training data."""
        return self.record.get("data") or {}

    @property
    def data_stem(self) -> str:
        """Return the training file's name without its ending (of a hub data set: its name)."""
        if self.data.get("files") and not is_mixture(self.data["path"]):
            # The names of the data sets of several files.
            return str(self.data["path"])
        given = self.options.get("train_file")
        path = self.data.get("path") or (given[0] if isinstance(given, list) else given)
        return Path(path).stem if path else str(self.options.get("dataset_name") or "unnamed data")

    @property
    def training(self) -> dict[str, float]:
        """Return how much the run was trained: steps, rows, and tokens seen over all epochs (of a part of an
        epoch, the same part of its tokens); of the untuned model, none."""
        if self.arm == BASE:
            return dict.fromkeys(("steps", "rows", "tokens_seen"), 0.0)
        steps, epochs = as_number(self.record.get("steps")), as_number(self.record.get("epochs"))
        rows = as_number(self.data.get("used"))
        tokens = as_number(self.data.get("tokens_per_epoch", self.data.get("tokens")))
        known = {"steps": steps, "rows": rows}
        if tokens is not None and epochs is not None:
            known["tokens_seen"] = tokens * epochs
        return {name: value for name, value in known.items() if value is not None}

    def samples(self) -> list[dict[str, Any]]:
        """Return the responses to --sample_file while training, in file order."""
        return list(read_rows(self.folder / "samples.jsonl"))

    def metrics(self) -> list[dict[str, Any]]:
        """Return the logged steps, in file order."""
        return list(read_rows(self.folder / "metrics.jsonl"))


def read_evaluations(folder: Path, left_out: Collection[Path] = ()) -> dict[str, SplitEvaluation]:
    """Return the evaluations under a run folder, by split, without the records that are to be left out."""
    return {split: _read_evaluation(folder / "eval" / split, left_out) for split in SPLITS}


def _read_evaluation(folder: Path, left_out: Collection[Path]) -> SplitEvaluation:
    """Return one split's evaluation, without responses that are unfinished and scores of other responses."""
    problems = [
        f"{folder / name} is of an earlier command, and left out."
        for name in RECORDS.values()
        if folder / name in left_out
    ]
    summary, generation, *of_responses = (
        None if folder / name in left_out else read_json(folder / name) for name in RECORDS.values()
    )
    scored = dict(zip(("bleu", "scores"), of_responses, strict=True))
    if generation is None and folder / RECORDS["generate"] in left_out:
        scored = {}
    if generation and generation.get("complete") is False:
        problems.append(
            f"{folder}: src/generate.py did not finish; its responses and their scores are left out."
        )
        generation, scored = None, {}
    responses = folder / "responses.jsonl"
    sha256 = file_sha256(responses) if responses.is_file() else None
    for name, record in scored.items():
        if record and sha256 and record.get("responses_sha256", sha256) != sha256:
            problems.append(
                f"{folder / name}.json is of other responses than those beside it, and left out; make it "
                "again."
            )
            scored[name] = None
    return SplitEvaluation(
        folder, summary, generation, scored.get("bleu"), scored.get("scores"), tuple(problems)
    )


def read_run(folder: Path, left_out: Collection[Path] = ()) -> ReportedRun:
    """Return a run folder, as src/finetune.py and the evaluation scripts left it.

    Args:
        left_out: records of evaluations that are not read.

    Raises:
        UserError: it is no run folder, or its run.json lacks what the report needs.
    """
    path = folder / "run.json"
    record = None if folder.is_file() else read_json(path)
    if record is None:
        if (folder / "metrics.jsonl").is_file():
            return ReportedRun(folder, "unknown arm", finished=False)
        why = "it has no run.json" if folder.is_dir() else "there is no such folder"
        why = "it is a file" if folder.is_file() else why
        raise UserError(f"{folder}: is not a run folder, {why}; name the --output_dir of src/finetune.py")
    if not isinstance(record.get("arm"), str) or not isinstance(record.get("finished"), bool):
        raise UserError(
            f'{path}: needs "arm" (a string) and "finished" (true or false); was it written by '
            "src/finetune.py?"
        )
    for name in _RUN_OBJECTS:
        if not isinstance(record.get(name) or {}, dict):
            raise UserError(f'{path}: "{name}" is not an object; was it written by src/finetune.py?')
    return ReportedRun(folder, record["arm"], record["finished"], record, read_evaluations(folder, left_out))


def read_base(folder: Path, left_out: Collection[Path] = ()) -> ReportedRun:
    """Return the untuned model's evaluations, as `read_run` does a run's.

    Raises:
        UserError: there is nothing under the folder's eval/train and eval/test.
    """
    if not any((folder / "eval" / split).is_dir() for split in SPLITS):
        raise UserError(
            f"{folder}: holds no evaluation of the base model, neither eval/train nor eval/test; "
            "make one with src/compute_loss.py, or leave out --base"
        )
    return ReportedRun(folder, BASE, finished=True, evaluations=read_evaluations(folder, left_out))
