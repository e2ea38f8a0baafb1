"""Run folders and their evaluations, read as they lie on disk."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError

SPLITS = ("train", "test")
BASE = "base"


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no such file.

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
    """The objects of a JSON Lines file; none where there is no such file.

    Raises:
        UserError: a line is not a JSON object, with file:line.
    """
    if not path.is_file():
        return
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                raise UserError(
                    f"{path}:{number}: not JSON ({error}); the file may be cut off: make it again"
                ) from None
            if not isinstance(value, dict):
                raise UserError(
                    f"{path}:{number}: holds {type(value).__name__}, not an object; make the file again"
                )
            yield value


def number(value: Any) -> float | None:
    """A JSON number (or true, false as 1, 0) as a float; None for anything else. NaN and infinities stay."""
    return float(value) if isinstance(value, int | float) else None


def finite(value: Any) -> float | None:
    """A JSON number as a float if it is finite, else None."""
    known = number(value)
    return known if known is not None and math.isfinite(known) else None


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one model on one split; a measurement that was not made is None or empty.

    `problems` says in words what lies there and cannot be used.
    """

    folder: Path
    summary: dict[str, Any] | None = None
    generation: dict[str, Any] | None = None
    bleu: dict[str, Any] | None = None
    scores: dict[str, Any] | None = None
    problems: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was measured."""
        return not any((self.summary, self.generation, self.bleu, self.scores))

    def measured_file(self, source: str) -> str | None:
        """Which file the `summary` or the `generation` was made from: its hash, else its path."""
        record = self.summary if source == "summary" else self.generation
        return None if record is None else record.get("sha256") or record.get("file")

    @cached_property
    def losses(self) -> dict[int, dict[str, float]]:
        """Mean NLL in nats per token by span kind, by row; empty for a row that was left out."""
        by_row = {}
        for record in self._rows("losses.jsonl"):
            nll = record["nll"] if isinstance(record.get("nll"), dict) else {}
            by_row[record["row"]] = {
                kind: value for kind, raw in nll.items() if (value := finite(raw)) is not None
            }
        return by_row

    @cached_property
    def row_scores(self) -> dict[int, dict[str, float]]:
        """Scores by row and name; whether a response ended is taken from the responses where no score says
        so."""
        by_row: dict[int, dict[str, float]] = {}
        scored = [] if self.scores is None else self._rows("scores.jsonl")
        for record in [*self.responses.values(), *scored]:
            known = {name: value for name, raw in record.items() if (value := finite(raw)) is not None}
            by_row.setdefault(record["row"], {}).update(known)
        return by_row

    @cached_property
    def responses(self) -> dict[int, dict[str, Any]]:
        """The generated responses, by row."""
        return {} if self.generation is None else {row["row"]: row for row in self._rows("responses.jsonl")}

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        for count, record in enumerate(read_rows(self.folder / name), start=1):
            if not isinstance(record.get("row"), int):
                raise UserError(
                    f'{self.folder / name}: record {count} has no whole number "row"; make the file again'
                )
            yield record


@dataclass(frozen=True)
class Run:
    """One training run (or the untuned base model): its run.json and its evaluations by split."""

    folder: Path
    arm: str
    finished: bool
    record: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """The options the run was started with."""
        return self.record.get("options") or {}

    @property
    def seed(self) -> Any:
        """The run's seed, None for the base model."""
        return self.options.get("seed")

    @property
    def data(self) -> dict[str, Any]:
        """What run.json says about the training data."""
        return self.record.get("data") or {}

    @property
    def data_stem(self) -> str:
        """The training file's name without its ending (of a hub data set: its name)."""
        path = self.data.get("path") or self.options.get("train_file")
        return Path(path).stem if path else str(self.options.get("dataset_name") or "unnamed data")

    def metrics(self) -> list[dict[str, Any]]:
        """The logged steps, in file order."""
        return list(read_rows(self.folder / "metrics.jsonl"))


def read_evaluations(folder: Path) -> dict[str, Evaluation]:
    """The evaluations under a run folder, by split."""
    evaluations = {}
    for split in SPLITS:
        at = folder / "eval" / split
        summary, generation = read_json(at / "summary.json"), read_json(at / "generation.json")
        judged = {name: read_json(at / f"{name}.json") for name in ("bleu", "scores")}
        problems = []
        if generation and generation.get("complete") is False:
            problems.append(
                f"{at}: src/generate.py did not finish; its responses and their scores are left out."
            )
            generation, judged = None, {}
        digest = _sha256(at / "responses.jsonl")
        for name, record in judged.items():
            if record and digest and record.get("responses_sha256", digest) != digest:
                problems.append(
                    f"{at / name}.json is of other responses than those beside it, and left out; make it "
                    "again."
                )
                judged[name] = None
        evaluations[split] = Evaluation(
            at, summary, generation, judged.get("bleu"), judged.get("scores"), tuple(problems)
        )
    return evaluations


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def read_run(folder: Path) -> Run:
    """A run folder, as src/finetune.py and the evaluation scripts left it.

    Raises:
        UserError: it is no run folder, or its run.json lacks what the report needs.
    """
    record = read_json(folder / "run.json")
    if record is None:
        if (folder / "metrics.jsonl").is_file():
            return Run(folder, "unknown arm", finished=False)
        why = "it has no run.json" if folder.is_dir() else "there is no such folder"
        raise UserError(f"{folder}: is not a run folder, {why}; name the --output_dir of src/finetune.py")
    if not isinstance(record.get("arm"), str) or not isinstance(record.get("finished"), bool):
        raise UserError(
            f'{folder / "run.json"}: needs "arm" (a string) and "finished" (true or false); '
            "was it written by src/finetune.py?"
        )
    for name in ("options", "data", "versions", "machine", "model"):
        if not isinstance(record.get(name) or {}, dict):
            raise UserError(
                f'{folder / "run.json"}: "{name}" is not an object; was it written by src/finetune.py?'
            )
    return Run(folder, record["arm"], record["finished"], record, read_evaluations(folder))


def read_base(folder: Path) -> Run:
    """The untuned model's evaluations.

    Raises:
        UserError: there is nothing under the folder's eval/train and eval/test.
    """
    if not any((folder / "eval" / split).is_dir() for split in SPLITS):
        raise UserError(
            f"{folder}: holds no evaluation of the base model, neither eval/train nor eval/test; "
            "make one with src/compute_loss.py, or leave out --base"
        )
    return Run(folder, BASE, finished=True, evaluations=read_evaluations(folder))
