"""The paper's claims, each with what the study's records say of it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from instruction_modelling.decision.options import REFERENCE, TREATMENT
from instruction_modelling.study.grid import CUT, ELSEWHERE, GRID, TEST
from instruction_modelling.study.reading import (
    EXPLORATORY,
    CellReading,
    Contrast,
    gain_contrast,
    trained_difference,
    verdict_of_contrast,
)

Standing = Literal[
    "held",
    "held, by less than matters",
    "did not hold",
    "cannot tell",
    "not run yet",
    "not run",
    "not tested here",
    "tested apart",
]
# The claim, two cells of which the first should gain more, and what is alike in them.
_LARGER = (
    ("at a high length ratio", "high-64", "low-64", ""),
    ("at a high length ratio", "high-64-more", "low-64", ""),
    ("at a high length ratio", "high-224", "low-224", ""),
    ("at a high length ratio", "high-224-again", "low-224-again", ""),
    ("with fewer rows", "high-64", "high-224", ", passes alike"),
    ("with fewer rows", "high-64-more", "high-224-again", ", passes alike"),
    ("with fewer rows", "high-64-long", "high-224", ", steps alike"),
    ("with fewer rows", "high-64-long-again", "high-224-again", ", steps alike"),
    ("with fewer rows", "low-64", "low-224", ", passes alike"),
)
# BLEU of greedy answers to training rows, by arm and set of rows; docs/claims.md has how it was made.
BLEU = "training_bleu.json"
_NOT_YET: tuple[Standing, str] = ("not run yet", "its runs are not all there")
_CUT: tuple[Standing, str] = ("not run", "cut for time")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, whether it held at this size, and by which figures (exploratory, 95 %)."""

    text: str
    standing: Standing
    figures: str


def claims_of(readings: Sequence[CellReading], of_bleu: str = "on the same rows") -> list[Claim]:
    """Return every claim with its standing; `of_bleu` is what was found of BLEU on training rows."""
    by_name = {reading.cell.name: reading for reading in readings}
    found = []
    both = [reading for reading in readings if {REFERENCE, TREATMENT} <= set(reading.cell.arms)]
    for reading in both:
        text = f"Lower test loss at higher training loss: {reading.label}"
        found.append(Claim(text, *_train_and_test(reading)))
    for reading in both:
        text = f"Lower test loss on rows of another corpus, as the paper measures it: {reading.label}"
        found.append(Claim(text, *_elsewhere(reading)))
    for claim, first, second, alike in _LARGER:
        pair = by_name[first], by_name[second]
        text = f"A larger gain {claim}: {pair[0].label} against {pair[1].label}{alike}"
        found.append(Claim(text, *_larger(*pair)))
    for text, arm, reference in (
        ("KL to the untuned model is no substitute", TREATMENT, "KL"),
        ("NEFTune adds to IM", "IM+NEFTune", TREATMENT),
    ):
        found.append(Claim(f"{text}: test rows", *_better(by_name, arm, reference, TEST)))
        found.append(Claim(f"{text}: rows of another corpus", *_better(by_name, arm, reference, ELSEWHERE)))
    apart = f"no responses are generated here; {of_bleu}: [claims.md](claims.md)"
    found.append(Claim("Less memorisation (BLEU on training rows)", "tested apart", apart))
    nothing = "no responses are generated; benchmarks take a larger model to mean anything"
    found.append(Claim("Better answers (AlpacaEval, MT-Bench, 18 tasks)", "not tested here", nothing))
    return found


def bleu_words(results: Path) -> str:
    """Return what was found of BLEU on training rows, by its record beside those of the study."""
    path = results / BLEU
    if not path.exists():
        return "on the same rows"
    of_arms = json.loads(path.read_text(encoding="utf-8"))["sentence_bleu"]
    less = np.array(of_arms[TREATMENT]) - np.array(of_arms[REFERENCE])
    half = stats.t.ppf((1 + EXPLORATORY) / 2, len(less) - 1) * less.std(ddof=1) / math.sqrt(len(less))
    return (
        f"{TREATMENT} minus {REFERENCE} {less.mean():+.1f} points of BLEU ({less.mean() - half:+.1f} to "
        f"{less.mean() + half:+.1f}), over five sets of rows of high-64"
    )


def _train_and_test(reading: CellReading) -> tuple[Standing, str]:
    if not reading.can_compare(REFERENCE, TREATMENT):
        return _CUT if reading.cell.name in CUT else _NOT_YET
    trained, test = trained_difference(reading), reading.decision(TREATMENT, REFERENCE)
    low, high = test.interval or (0.0, 0.0)
    figures = f"training loss {trained}, test loss {-test.mean:+.3f} ({-high:+.3f} to {-low:+.3f})"
    if trained.high < 0:
        return "did not hold", figures
    of_test = _standing(Contrast(test.mean, low, high))
    is_open = of_test.startswith("held") and trained.low <= 0
    return "cannot tell" if is_open else of_test, figures


def _elsewhere(reading: CellReading) -> tuple[Standing, str]:
    if not reading.can_compare(REFERENCE, TREATMENT):
        return _CUT if reading.cell.name in CUT else _NOT_YET
    decision = reading.decision(TREATMENT, REFERENCE, ELSEWHERE)
    gain = Contrast(decision.mean, *(decision.interval or (0.0, 0.0)))
    return _standing(gain), f"gain {gain}"


def _larger(first: CellReading, second: CellReading) -> tuple[Standing, str]:
    if not all(reading.can_compare(REFERENCE, TREATMENT) for reading in (first, second)):
        return _NOT_YET
    contrast = gain_contrast(first, second)
    return _standing(contrast), f"difference of the gains {contrast}"


def _better(by_name: Mapping[str, CellReading], arm: str, reference: str, part: str) -> tuple[Standing, str]:
    # Both are in one cell, since they are made by the same.
    reading = next(by_name[cell.name] for cell in GRID if {arm, reference} <= set(cell.arms))
    if not reading.can_compare(arm, reference):
        return _NOT_YET
    decision = reading.decision(arm, reference, part)
    contrast = Contrast(decision.mean, *(decision.interval or (0.0, 0.0)))
    return _standing(contrast), f"gain of {arm} over {reference} in {reading.cell.name} {contrast}"


def _standing(contrast: Contrast) -> Standing:
    verdict = verdict_of_contrast(contrast)
    if verdict == "cannot tell":
        return verdict
    if contrast.low <= 0:
        return "did not hold"
    return "held" if verdict == "helps" else "held, by less than matters"
