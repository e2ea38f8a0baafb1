"""Judgments in FastChat's format: their verdicts, read by FastChat's rules, and the rates of a file of them.

A verdict that cannot be read is -1 (single) or "error" (pair), as in FastChat's files. It enters no mean, and is counted.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eval.mt_bench.questions import read_lines
from instruction_modelling.errors import UserError

UNREAD = -1
_ONE = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
_TWO = (re.compile(r"\[\[(\d+\.?\d*),\s?(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*),\s?(\d+\.?\d*)\]"))
_TIE = 0.1


def read_rating(judgment: str) -> float:
    """The rating in a judgment: the first [[number]], else the first [number]; -1 where there is none."""
    for pattern in _ONE:
        if match := pattern.search(judgment):
            number = match[1]
            return float(number) if "." in number else int(number)
    return UNREAD


def read_winner(judgment: str, output: str) -> str:
    """A, B, tie or error: the verdict of a judgment between two answers, in the form that its prompt asks for."""
    if output == "[[A]]":
        return next((winner for mark, winner in (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie")) if mark in judgment), "error")
    for pattern in _TWO:
        if match := pattern.search(judgment):
            first, second = float(match[1]), float(match[2])
            return "tie" if abs(first - second) <= _TIE else "A" if first > second else "B"
    return "error"


def read_judgments(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of judgments, single or pairwise.

    Raises:
        UserError: the file cannot be read, holds none, or holds both kinds; a row is no judgment (with file:line).
    """
    rows = list(read_lines(path, ("question_id", "turn")))
    if not rows:
        raise UserError(f"{path}: holds no judgments")
    pairwise = ["g1_winner" in row for row in rows]
    if any(pairwise) != all(pairwise):
        raise UserError(f"{path}: holds judgments of single answers and of pairs; keep them in two files")
    for number, row in enumerate(rows, start=1):
        wanted = ("model_1", "model_2", "g1_winner", "g2_winner") if pairwise[0] else ("model", "score")
        lacking = [name for name in wanted if name not in row]
        if lacking or row["turn"] not in (1, 2) or not (pairwise[0] or isinstance(row["score"], int | float)):
            raise UserError(f"{path}: judgment {number} needs {', '.join(wanted)}, a turn of 1 or 2 and a score that is a number"
                            + (f"; it lacks {', '.join(lacking)}" if lacking else ""))
    return rows


def is_pairwise(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether these are judgments of pairs."""
    return "g1_winner" in rows[0]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def rates(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each model: the mean score of each turn and of all judgments, how many entered (`n`), how many could not be read
    (`unparsed`), and how many say again what another judgment of the file says of the same answer (`duplicates`: by
    the same judge and prompt, on the same question and turn). Duplicates enter the means like any others, as in FastChat."""
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(str(row["model"]), []).append(row)
    found = {}
    for model, own in sorted(by_model.items()):
        read = [row for row in own if row["score"] != UNREAD]
        places = Counter((row["question_id"], row["turn"], str(row.get("judge"))) for row in own)
        found[model] = {**{f"turn_{turn}": _mean([row["score"] for row in read if row["turn"] == turn]) for turn in (1, 2)},
                        "average": _mean([row["score"] for row in read]), "n": len(read), "unparsed": len(own) - len(read),
                        "duplicates": sum(count - 1 for count in places.values())}
    return found


def category_rates(rows: Iterable[dict[str, Any]], categories: dict[int, str]) -> dict[str, dict[str, float | None]]:
    """Of each model: the mean score by category of question."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["score"] != UNREAD and row["question_id"] in categories:
            scores.setdefault(str(row["model"]), {}).setdefault(categories[row["question_id"]], []).append(row["score"])
    return {model: {category: _mean(values) for category, values in own.items()} for model, own in sorted(scores.items())}


def pair_rates(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each model: wins, losses and ties over its games. A game is judged in both orders; where the two disagree it is a
    tie. `win_rate_adjusted` counts a tie as half a win. Games with a verdict that cannot be read are counted apart."""
    found: dict[str, Counter[str]] = {}
    places: dict[str, Counter[Any]] = {}
    for row in rows:
        both = (str(row["model_1"]), str(row["model_2"]))
        for model in both:
            found.setdefault(model, Counter())
            places.setdefault(model, Counter())[row["question_id"], row["turn"], both, str(row.get("judge"))] += 1
        if "error" in (row["g1_winner"], row["g2_winner"]):
            for model in both:
                found[model]["unparsed"] += 1
        elif row["g1_winner"] == "tie" or row["g1_winner"] != row["g2_winner"]:
            for model in both:
                found[model]["tie"] += 1
        else:
            winner = both[0] if row["g1_winner"] == "model_1" else both[1]
            for model in both:
                found[model]["win" if model == winner else "loss"] += 1
    rates = {}
    for model, counts in sorted(found.items()):
        games = counts["win"] + counts["loss"] + counts["tie"]
        rates[model] = {"win": counts["win"], "loss": counts["loss"], "tie": counts["tie"], "n": games, "unparsed": counts["unparsed"],
                        "duplicates": sum(count - 1 for count in places[model].values()),
                        "win_rate": counts["win"] / games if games else None,
                        "win_rate_adjusted": (counts["win"] + 0.5 * counts["tie"]) / games if games else None}
    return rates
