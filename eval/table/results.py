"""What a model's results hold: the score of every benchmark, and how it was made.

What is missing is missing; what cannot be read is named."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.table.items import finite_number, mt_bench_questions, read_items
from eval.table.layout import ResultPlaces, model_layout, model_layouts
from eval.table.lm_eval_files import read_object, record
from eval.table.nlp_scores import read_nlp
from eval.table.scores import Results, Score
from eval.table.suite import FIXED_TEMPERATURE, HUMANEVAL, JUDGED, TEMPERATURES
from instruction_modelling.errors import UserError
from instruction_modelling.statistics import mean_and_sample_sd


def read_results(folder: Path, corrected: bool = False) -> Results:
    """Read everything that a result folder holds.

    Args:
        folder: the model's.
        corrected: whether scores are put together as `suite.AGGREGATIONS` says under that name.
    """
    return _read(model_layout(folder), corrected)


def _read(layout: ResultPlaces, corrected: bool) -> Results:
    results = Results(layout, corrected=corrected, problems=list(layout.unread))
    read_nlp(results)
    _read_humaneval(results)
    _read_judged(results)
    _read_losses(results)
    if not results.scores and not results.losses:
        there = sorted(path.name for path in layout.folder.glob("**/*") if path.is_file())
        if there:
            results.problems.append(
                f"{layout.folder}: of its {len(there):,} files none is a result that can be read "
                f"({', '.join(there[:5])}{', ...' if len(there) > 5 else ''})"
            )
    return results


def read_models(folders: Sequence[Path], corrected: bool = False) -> list[Results]:
    """Return what several result folders hold, one a model, or all models of the authors' folders in one; see
    `layout`.

    Raises:
        UserError: a folder is not there, or two have one name.
    """
    models = [_read(layout, corrected) for layout in model_layouts(folders)]
    names = [results.name for results in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two folders have one name: {', '.join(twice)}")
    return models


# -- this project's own ------------------------------------------------------------------------------------


def _read_humaneval(results: Results) -> None:
    """Read pass@1: the better of the two temperatures (as the paper), or that of the fixed one."""
    runs: dict[float, dict[str, Any]] = {}
    for temperature in TEMPERATURES:
        folder = results.layout.humaneval[temperature]
        # The authors' script leaves pass@k alone, in metrics.json.
        path = next(
            (folder / name for name in ("results.json", "metrics.json") if (folder / name).exists()), None
        )
        run = read_object(path, results.problems) if path else None
        if run is None:
            continue
        if finite_number(run.get("pass@1")) is None:
            results.problems.append(f"{path}: has no pass@1")
            continue
        runs[temperature] = run
    if results.corrected:
        runs = {temperature: run for temperature, run in runs.items() if temperature == FIXED_TEMPERATURE}
    if not runs:
        return
    chosen = max(runs, key=lambda temperature: runs[temperature]["pass@1"])
    run = runs[chosen]
    differs: list[str] = []
    if results.corrected:
        differs.append(f"temperature {chosen} fixed, not the better of two")
    elif len(runs) < len(TEMPERATURES):
        differs.append(f"temperature {chosen} alone, not the better of two")
        results.problems.append(f"{results.folder}: HumanEval is there at temperature {chosen} alone")
    differs += _unlike(run, {"tasks": 164, "n": 20, "top_p": 0.95, "max_new_tokens": 512})
    if run.get("chat_format"):
        differs.append("asked in the chat format")
    items = read_items(results.layout.humaneval[chosen], results.problems)
    results.temperature = chosen
    results.scores[HUMANEVAL] = Score(
        100 * run["pass@1"],
        _standard_error([100 * score for score in items.values()]),
        {"num_fewshot": ["0"], **_about(run)},
        differs,
        part=_part(run, "tasks", 164),
    )


def _part(run: dict[str, Any], name: str, whole: int) -> str:
    """Return of how many of its `whole` items a score is, nothing where it is of all or does not say."""
    count = run.get(name)
    return f"{count:,} of {whole:,} {name}" if isinstance(count, int) and count < whole else ""


def _unlike(run: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return the settings that are recorded and not as in the paper."""
    return [
        f"{name} {run[name]}, not {value}"
        for name, value in settings.items()
        if run.get(name) not in (None, value)
    ]


_ABOUT = (
    "harness",
    "temperature",
    "top_p",
    "n",
    "n_total",
    "unparsed",
    "judge",
    "judge_service",
    "annotator",
    "reference",
    "reference_sha256",
    "engine",
    "max_new_tokens",
    "dtype",
    "chat_answer",
    "chat_format",
    "made",
    "outputs",
    "model",
)


# Of how the judge was asked, and how the answers were made that it judged.
_ASKED = ("temperature", "max_tokens", "extra_body")
_ANSWERED = ("max_new_tokens", "max_model_len", "dtype", "chat_formatting_function")


def _about(run: dict[str, Any]) -> dict[str, Any]:
    asked = record(run.get("judging")) or record(run.get("judge_usage"))
    answered = record(run.get("outputs")) or record(run.get("made"))
    return {
        **{name: answered[name] for name in _ANSWERED if name in answered},
        **{name: run[name] for name in _ABOUT if name in run},
        **{f"judge_{name}": asked[name] for name in _ASKED if name in asked},
    }


def _standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean, None of fewer than two values."""
    spread = mean_and_sample_sd(values)
    return spread["sd"] / math.sqrt(len(values)) if spread and spread["sd"] is not None else None


@dataclass(frozen=True)
class _PaperJudging:
    """How the paper's numbers were judged: the key of the score, the judges, and the settings."""

    key: str
    judges: tuple[str, ...]
    settings: dict[str, Any]


_GPT4 = ("gpt-4", "gpt-4-0613", "gpt-4-0314")
_JUDGED_AS = {
    "mt_bench": _PaperJudging("average", _GPT4, {"questions": 80}),
    "alpaca_eval_1": _PaperJudging(
        "win_rate",
        _GPT4,
        {"instructions": 805, "annotator": "alpaca_eval_gpt4", "reference": "text_davinci_003"},
    ),
    "alpaca_eval_2": _PaperJudging(
        "win_rate",
        ("gpt-4-1106-preview", "gpt-4-turbo-1106"),
        {
            "instructions": 805,
            "annotator": "weighted_alpaca_eval_gpt4_turbo",
            "reference": "gpt4_1106_preview",
        },
    ),
}


def _read_judged(results: Results) -> None:
    for name in JUDGED:
        path = results.layout.judged[name] / "results.json"
        run = read_object(path, results.problems)
        if run is None:
            _read_authors_judged(results, name)
            continue
        paper = _JUDGED_AS[name]
        value = finite_number(run.get(paper.key))
        if value is None:
            results.problems.append(f"{path}: has no {paper.key}")
            continue
        differs = (
            []
            if run.get("judge") in paper.judges
            else [f"judged by {run.get('judge') or 'no one that is named'}, not {paper.judges[0]}"]
        )
        if not differs and run.get("judge_service") not in (None, "api.openai.com"):
            differs.append(f"judged at {run['judge_service']}")
        differs += _unlike(run, paper.settings)
        if run.get("unparsed"):
            differs.append(f"{run['unparsed']} judgments without a verdict")
        error = finite_number(run.get("standard_error"))
        if name == "mt_bench":
            error = _standard_error(
                list(mt_bench_questions(read_items(path.parent, results.problems)).values())
            )
        results.scores[name] = Score(value, error, _about(run), differs, part=_judged_part(run))


def _judged_part(run: dict[str, Any]) -> str:
    return _part(run, "questions", 80) or _part(run, "instructions", 805)


# -- the authors' ------------------------------------------------------------------------------------------


def _read_authors_judged(results: Results, name: str) -> None:
    """Read a judged score as the authors' scripts leave it: a row of mt_bench_average_results.csv, or
    AlpacaEval's table in metrics.json."""
    differs = ["judged by no one that is named"]
    if name == "mt_bench":
        score = _mt_bench_row(results)
        if score is not None:
            results.scores[name] = Score(score, None, {}, differs)
        return
    path = results.layout.judged[name] / "metrics.json"
    table = read_object(path, results.problems)
    if table is None:
        return
    rates = record(table.get("win_rate"))
    # The model's own column: the leaderboard holds others' too.
    own = [key for key in rates if key in (results.name, f"{results.name}-greedy-long")] or [*rates][:1]
    value = (
        finite_number(rates.get(own[0]))
        if own and (len(rates) == 1 or own[0].startswith(results.name))
        else None
    )
    if value is None:
        results.problems.append(f"{path}: has no win_rate of {results.name}")
        return
    error = finite_number(record(table.get("standard_error")).get(own[0]))
    part = _part({"instructions": record(table.get("n_total")).get(own[0])}, "instructions", 805)
    results.scores[name] = Score(value, error, {}, ([part] if part else []) + differs, part=part)


def _mt_bench_row(results: Results) -> float | None:
    path = results.layout.mt_bench_csv
    if path is None or not path.is_file():
        return None
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        return next((float(row["score"]) for row in rows if row.get("model") == results.name), None)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        results.problems.append(f"{path}: is no table of model and score ({error})")
        return None


def _read_losses(results: Results) -> None:
    """Read the losses on files: summary.json of src/compute_loss.py, or the authors' eval_losses.npy."""
    for file, folder in results.layout.losses.items():
        summary = read_object(folder / "summary.json", results.problems)
        if summary is not None:
            mean = finite_number(record(summary.get("mean_over_examples")).get("response"))
            found = {
                "mean": mean,
                "examples": summary.get("rows_scored"),
                "cut": summary.get("truncated_rows"),
            }
        else:
            found = _authors_losses(folder / "eval_losses.npy", results.problems)
        if found.get("mean") is None:
            results.problems.append(
                f"{folder}: holds no losses that can be read (summary.json, eval_losses.npy)"
            )
        else:
            results.losses[file] = found


def _authors_losses(path: Path, problems: list[str]) -> dict[str, Any]:
    import numpy as np

    if not path.is_file():
        return {}
    try:
        losses = np.asarray(np.load(path, allow_pickle=False), dtype=np.float64).ravel()
    except (OSError, ValueError) as error:
        problems.append(f"{path}: cannot be read ({error})")
        return {}
    return {
        "mean": finite_number(float(losses.mean())) if losses.size else None,
        "examples": losses.size,
        "cut": None,
    }
