"""Win rates of judged pairs, computed by the alpaca-eval package.

A preference is from 1 (the reference's answer is better) to 2 (the model's is), 1.5 a draw; older files write
a draw as 0. Anything else is no verdict: it is counted as unparsed and is in no rate."""

import json
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.alpaca_farm.benchmarks import package
from instruction_modelling.errors import UserError
from instruction_modelling.rows.json_lines import read_records

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WinRate:
    """Rates in percent, None where there are too few verdicts; `n_total` verdicts count, `unparsed` judgments
    have none."""

    win_rate: float | None
    standard_error: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    unparsed: int

    @property
    def parsed_share(self) -> float:
        """Return which share of the judgments has a verdict."""
        return self.n_total / max(1, self.n_total + self.unparsed)


def read_annotations(path: Path) -> list[dict[str, Any]]:
    """Return the judged pairs of a file in the package's format: objects with `preference`, in a JSON list
    or a line each.

    Raises:
        UserError: it is none.
    """
    hint = "Name an annotations.json of AlpacaEval"
    annotations = [annotation for _, annotation in read_records(path, hint)]
    if not annotations:
        raise UserError(f"{path}: holds no annotations. {hint}")
    # One that lacks it has no verdict; where all lack it, they are no annotations.
    if not any("preference" in annotation for annotation in annotations):
        raise UserError(f'{path}: none of its {len(annotations)} entries has a "preference". {hint}')
    return annotations


def mixture(annotations: Sequence[dict[str, Any]]) -> list[str]:
    """Return what one rate of these annotations would hide, a line each.

    That is several models, references or judges, and judgments of the same answer by the same judge."""
    remarks = []
    for name, noun in (("generator_2", "models"), ("generator_1", "references"), ("annotator", "annotators")):
        counts = Counter(str(annotation.get(name)) for annotation in annotations)
        if len(counts) > 1:
            shown = ", ".join(f"{value} {count}" for value, count in counts.most_common(5))
            remarks.append(
                f"annotations of {len(counts)} {noun} enter one rate "
                f"({shown}{', ...' if len(counts) > 5 else ''})"
            )
    judgments = Counter(
        json.dumps(
            [annotation.get(name) for name in ("instruction", "generator_1", "generator_2", "annotator")]
        )
        for annotation in annotations
        if "instruction" in annotation
    )
    repeated = sum(count - 1 for count in judgments.values())
    if repeated:
        remarks.append(f"duplicates enter the rate: {repeated} annotations judge again what another judges")
    return remarks


def verdict(preference: Any) -> float | None:
    """Return a preference from 1 to 2, None where there is none."""
    if isinstance(preference, bool) or not isinstance(preference, int | float):
        return None
    value = 1.5 if preference == 0 else preference
    return float(value) if 1 <= value <= 2 else None


def unparsed_indices(annotations: Sequence[dict[str, Any]]) -> list[int]:
    """Return the positions of the annotations that hold no verdict, from 0."""
    return [
        index for index, annotation in enumerate(annotations) if verdict(annotation.get("preference")) is None
    ]


def win_rate(annotations: Sequence[dict[str, Any]]) -> WinRate:
    """Return the win rate of a model's judged pairs, as the package's leaderboards have it."""
    verdicts = [verdict(annotation.get("preference")) for annotation in annotations]
    counted = [value for value in verdicts if value is not None]
    if not counted:
        return WinRate(None, None, 0, 0, 0, 0, len(verdicts))
    rates = package().metrics.get_winrate([{"preference": value} for value in counted])
    return WinRate(
        _percent(rates["win_rate"]),
        _percent(rates["standard_error"]),
        int(rates["n_wins"]),
        int(rates["n_wins_base"]),
        int(rates["n_draws"]),
        int(rates["n_total"]),
        len(verdicts) - len(counted),
    )


def _percent(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


@dataclass(frozen=True)
class LengthControlledRate:
    """The win rate at equal lengths, in percent."""

    win_rate: float
    standard_error: float


def length_controlled_rate(annotations: Sequence[dict[str, Any]], gamed: Path) -> LengthControlledRate | str:
    """Return the length-controlled win rate (Dubois et al. 2024, `length_controlled_v1`), or in words why
    there is none.

    Args:
        annotations: the judged pairs, in the order of the reference answers, none left out.
        gamed: the package's `df_gamed.csv`, which holds each instruction's difficulty by its number.
    """
    if not gamed.is_file():
        return f"{gamed} is not there"
    import pandas

    alpaca_eval = package()
    from alpaca_eval.metrics import glm_winrate

    try:
        instructions = pandas.read_csv(gamed)["index"].nunique()
    except (OSError, ValueError, KeyError) as error:
        return f"{gamed} is not the package's df_gamed.csv ({error})"
    if instructions != len(annotations):
        return f"{gamed} is of {instructions} instructions and the annotations of {len(annotations)}"
    needed = ("output_1", "output_2", "generator_1", "generator_2")
    for number, annotation in enumerate(annotations):
        if any(not isinstance(annotation.get(name), str) for name in needed):
            return f"annotation {number} lacks one of {', '.join(needed)}"
    table = pandas.DataFrame(
        [
            {
                **{name: annotation[name] for name in needed},
                "preference": verdict(annotation.get("preference")),
            }
            for annotation in annotations
        ]
    )
    with _fetched_from(glm_winrate, gamed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Its weights would be written into the package's own folder.
            rates = alpaca_eval.metrics.get_length_controlled_winrate(
                table, save_weights_dir=None, is_add_glm_preference_inplace=False
            )
        except (ValueError, AssertionError, KeyError, TypeError) as error:
            return f"the fit failed: {error}"
    return LengthControlledRate(float(rates["length_controlled_winrate"]), float(rates["lc_standard_error"]))


@contextmanager
def _fetched_from(module: Any, path: Path) -> Iterator[None]:
    """Give the package the local file where it would fetch it from the hub, as it does each time."""
    fetch = module.hf_hub_download
    module.hf_hub_download = lambda **asked: str(path)
    try:
        yield
    finally:
        module.hf_hub_download = fetch
