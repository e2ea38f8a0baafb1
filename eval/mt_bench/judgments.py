"""Judgments in FastChat's format: their verdicts, by FastChat's marks, and the rates of a file of them.

FastChat takes a judgment's first mark, this code the last, which is what the judge concluded; of the 800
published judgments that the tests read, no two marks of one differ.

A verdict that cannot be read is -1 (single) or "error" (pair), as in FastChat's files. It enters no mean, and
is counted."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.mt_bench.questions import QuestionId, read_lines
from eval.verdict_text import conclusion
from instruction_modelling.errors import UserError
from instruction_modelling.rows.json_lines import snippet

UNREAD = -1
# A score beyond it is none; comparing with it sorts out NaN and integers that no float holds, too.
LARGEST = 1e300
_ONE = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
_TWO = (re.compile(r"\[\[(\d+\.?\d*),\s?(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*),\s?(\d+\.?\d*)\]"))
_MARKS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
_WINNER = re.compile("|".join(map(re.escape, _MARKS)))
_TIE = 0.1
# So many of a judgment's verdicts are shown.
MOST_VERDICTS = 4
_WINNERS = ("model_1", "model_2", "tie")


def verdicts_in(judgment: str, output: str) -> list[Any]:
    """Return every verdict that a judgment spells, in its order: ratings, or A, B, tie.

    The marks are FastChat's, in the form that the prompt asks for (`[[rating]]`, `[[A]]`,
    `[[rating_a,rating_b]]`); where there is none in double brackets, those in single ones."""
    if output == "[[A]]":
        return [_MARKS[mark] for mark in _WINNER.findall(judgment)]
    for pattern in _ONE if output == "[[rating]]" else _TWO:
        found = [_verdict_of(match) for match in pattern.finditer(judgment)]
        if found := [verdict for verdict in found if verdict is not None]:
            return found
    return []


def _verdict_of(match: re.Match[str]) -> Any:
    """Return the rating, or the better of two ratings; None where a number is none that a float holds."""
    numbers = [float(text) for text in match.groups()]
    if not all(map(math.isfinite, numbers)):
        return None
    if len(numbers) == 1:
        return numbers[0] if "." in match[1] else int(numbers[0])
    first, second = numbers
    return "tie" if abs(first - second) <= _TIE else "A" if first > second else "B"


def read_rating(judgment: str) -> float:
    """Return the rating in a judgment, the last that it spells; -1 where there is none."""
    return next(reversed(verdicts_in(judgment, "[[rating]]")), UNREAD)


def read_winner(judgment: str, output: str) -> str:
    """Return A, B, tie or error: the verdict of a judgment between two answers, the last that it spells in
    the form that its prompt asks for."""
    return next(reversed(verdicts_in(judgment, output)), "error")


def disagreeing(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the judgments that spell several verdicts which differ, as "MODEL QUESTION_TURN: 4, 9 counted as
    9".

    What counts is what the row says; FastChat's own files have the first."""
    names = []
    for row in rows:
        for name, verdict in (
            ("judgment", "score"),
            ("g1_judgment", "g1_winner"),
            ("g2_judgment", "g2_winner"),
        ):
            judgment = row.get(name)
            if not isinstance(judgment, str):
                continue
            said = verdicts_in(conclusion(judgment), "[[rating]]" if name == "judgment" else "[[A]]")
            if len(set(said)) > 1:
                who = row.get("model") or f"{row.get('model_1')} and {row.get('model_2')}"
                shown = ", ".join(map(str, said[-MOST_VERDICTS:]))
                names.append(
                    f"{who} {row['question_id']}_{row['turn']}: {shown} counted as {row.get(verdict)}"
                )
    return names


def read_judgments(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file of judgments, single or pairwise.

    Raises:
        UserError: the file cannot be read, holds none, or holds both kinds; a row is no judgment (with where
        it stands).
    """
    rows = read_lines(path, ("question_id", "turn"))
    if not rows:
        raise UserError(f"{path}: holds no judgments")
    pairwise = ["g1_winner" in row for _, row in rows]
    if any(pairwise) != all(pairwise):
        raise UserError(f"{path}: holds judgments of single answers and of pairs; keep them in two files")
    models, verdicts = (
        (("model_1", "model_2"), ("g1_winner", "g2_winner")) if pairwise[0] else (("model",), ("score",))
    )
    for where, row in rows:
        # A verdict may be missing from a row, but not from all of them: those are no judgments.
        lacking = [name for name in models if not isinstance(row.get(name), str)]
        lacking += [
            name for name in verdicts if name not in row and not any(name in other for _, other in rows)
        ]
        if lacking:
            raise UserError(f"{where}: is no judgment: it lacks {', '.join(lacking)}")
        if isinstance(row["turn"], bool) or row["turn"] not in (1, 2):
            raise UserError(f"{where}: has the turn {snippet(row['turn'])}; it must be 1 or 2")
    return [row for _, row in rows]


def is_pairwise(rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether these are judgments of pairs."""
    return "g1_winner" in rows[0]


def score_of(row: dict[str, Any]) -> float | None:
    """Return the score of a judgment of one answer; None where there is no verdict (-1, null, NaN, no
    number at all)."""
    score = row.get("score")
    if (
        isinstance(score, bool)
        or not isinstance(score, int | float)
        or not -LARGEST < score < LARGEST
        or score == UNREAD
    ):
        return None
    return score


def off_scale(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the judgments whose score is not on the scale from 1 to 10, as "MODEL QUESTION_TURN: SCORE"."""
    return [
        f"{row['model']} {row['question_id']}_{row['turn']}: {score:g}"
        for row in rows
        if (score := score_of(row)) is not None and not 1 <= score <= 10
    ]


def winner_of(row: dict[str, Any]) -> str | None:
    """Return who won a pair judged in both orders: model_1, model_2 or tie.

    It is a tie where the two orders disagree, and None without both verdicts."""
    first, second = row.get("g1_winner"), row.get("g2_winner")
    if first not in _WINNERS or second not in _WINNERS:
        return None
    return first if first == second else "tie"


def unread_judgments(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return of each model (each pair) the judgments without a verdict, as QUESTION_TURN."""
    unread: dict[str, list[str]] = {}
    for row in rows:
        pair = "g1_winner" in row or "model_1" in row
        if (winner_of(row) if pair else score_of(row)) is None:
            name = f"{row['model_1']} and {row['model_2']}" if pair else row["model"]
            unread.setdefault(name, []).append(f"{row['question_id']}_{row['turn']}")
    return unread


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def single_rates(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rates of each model over judgments of single answers.

    Duplicates enter the means like any others, as in FastChat.

    Returns:
        by model: the mean score of each turn (`turn_1`, `turn_2`) and of all judgments (`average`), how many
        entered (`n`), how many have no verdict (`unparsed`), and how many say again what another judgment of
        the file says of the same answer (`duplicates`: by the same judge and prompt, on the same question and
        turn).
    """
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    rates = {}
    for model, judgments in sorted(by_model.items()):
        scores = [(row["turn"], score) for row in judgments if (score := score_of(row)) is not None]
        answers_judged = Counter(
            (row["question_id"], row["turn"], str(row.get("judge"))) for row in judgments
        )
        rates[model] = {
            **{
                f"turn_{turn}": _mean([score for judged_turn, score in scores if judged_turn == turn])
                for turn in (1, 2)
            },
            "average": _mean([score for _, score in scores]),
            "n": len(scores),
            "unparsed": len(judgments) - len(scores),
            "duplicates": sum(count - 1 for count in answers_judged.values()),
        }
    return rates


def category_rates(
    rows: Iterable[dict[str, Any]], categories: Mapping[QuestionId, str]
) -> dict[str, dict[str, float | None]]:
    """Return of each model the mean score by category of question."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        score = score_of(row)
        if score is not None and row["question_id"] in categories:
            scores.setdefault(row["model"], {}).setdefault(categories[row["question_id"]], []).append(score)
    return {
        model: {category: _mean(values) for category, values in categories_of_model.items()}
        for model, categories_of_model in sorted(scores.items())
    }


def _outcome(winner: str | None, role: str) -> str:
    if winner is None:
        return "unparsed"
    return "tie" if winner == "tie" else "win" if winner == role else "loss"


def pair_rates(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return of each model wins, losses and ties over its games.

    A game is judged in both orders; where the two disagree it is a tie. `win_rate_adjusted` counts a
    tie as half a win. Games with a verdict that cannot be read are counted apart."""
    outcomes: dict[str, Counter[str]] = {}
    judgments_of: dict[str, Counter[Any]] = {}
    for row in rows:
        both = (row["model_1"], row["model_2"])
        winner = winner_of(row)
        for model, role in zip(both, ("model_1", "model_2"), strict=True):
            counts = outcomes.setdefault(model, Counter())
            counts[_outcome(winner, role)] += 1
            judgments_of.setdefault(model, Counter())[
                row["question_id"], row["turn"], both, str(row.get("judge"))
            ] += 1
    rates = {}
    for model, counts in sorted(outcomes.items()):
        games = counts["win"] + counts["loss"] + counts["tie"]
        rates[model] = {
            "win": counts["win"],
            "loss": counts["loss"],
            "tie": counts["tie"],
            "n": games,
            "unparsed": counts["unparsed"],
            "duplicates": sum(count - 1 for count in judgments_of[model].values()),
            "win_rate": counts["win"] / games if games else None,
            "win_rate_adjusted": (counts["win"] + 0.5 * counts["tie"]) / games if games else None,
        }
    return rates
