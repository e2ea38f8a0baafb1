"""docs/claims.md has the findings that the paper's printed numbers give, and each number is what other ways
of computing it give."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from eval.paper.claims import by_ratio_in_table_1, findings, gains, relative_gains, rows_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "claims.md"
STATUSES = {
    "recomputed from its tables",
    "retrained",
    "tested at small size",
    "tested against the released code",
    "untested",
}


def test_the_page_has_every_finding_as_it_is_computed() -> None:
    page = PAGE.read_text(encoding="utf-8").lower()
    missing = [f"{name}: {text}" for name, text in findings().items() if text.lower() not in page]
    assert not missing


def test_every_row_of_the_page_has_one_of_the_statuses_and_what_was_tried_a_command_and_a_date() -> None:
    rows = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    rows = [[cell.strip() for cell in row.split(" | ")] for row in rows]
    claims = [row for row in rows if row[1] != "claim"]
    assert len(claims) > 30
    for where, claim, status, *rest in claims:
        assert status in STATUSES, (where, claim, status)
        finding, command, date = rest
        if status == "recomputed from its tables":
            assert "`python -m eval.paper.claims`" in command
        assert finding and command and re.fullmatch(r"\d{4}-\d\d-\d\d", date), (where, claim)


_NUMBER = r"([+-]?\d\.\d{3})"


def test_what_was_tested_at_small_size_is_what_the_study_says() -> None:
    """Each figure of a row that has the study's page as its source stands there, and each mean with the
    interval that it has there, whichever way round: IM's loss minus IT's is the gain with another sign."""
    results = PAGE.with_name("results.md").read_text(encoding="utf-8")
    known = set(re.findall(r"\d\.\d{3}", results))
    printed = re.findall(rf"{_NUMBER}(?: \(| \| ){_NUMBER} to {_NUMBER}", results)
    intervals = {tuple(float(number) for number in one) for one in printed}
    intervals |= {(-mean, -high, -low) for mean, low, high in intervals}
    rows = [
        row
        for row in PAGE.read_text(encoding="utf-8").split("\n")
        if "| `scripts/study.sh`, [results.md](results.md) |" in row
    ]
    findings_of_study = [row.split(" | ")[3] for row in rows]
    found = [number for text in findings_of_study for number in re.findall(r"\d\.\d{3}", text)]
    assert len(rows) == 9 and len(found) > 20 and set(found) <= known
    said = [
        tuple(float(number) for number in one)
        for text in findings_of_study
        for one in re.findall(rf"{_NUMBER}(?: nats)?(?: \(|, )(?:[\d.]+ %: )?{_NUMBER} to {_NUMBER}", text)
    ]
    assert len(said) > 40 and not set(said) - intervals


def test_the_bleu_of_training_rows_is_that_of_its_record() -> None:
    record = json.loads((PAGE.parent / "results" / "training_bleu.json").read_text(encoding="utf-8"))
    by_arm = {arm: np.array(values) for arm, values in record["sentence_bleu"].items()}
    less = by_arm["IM"] - by_arm["IT"]
    half = stats.t.ppf(0.975, len(less) - 1) * less.std(ddof=1) / math.sqrt(len(less))
    said = (
        f"IM minus IT {less.mean():.1f} points (95 %: {less.mean() - half:.1f} to {less.mean() + half:.1f})"
    )
    page = PAGE.read_text(encoding="utf-8")
    assert said in page
    for arm, values in by_arm.items():
        assert f"{arm} {values.min():.1f} to {values.max():.1f}" in page


def test_every_table_and_figure_of_the_paper_has_a_row() -> None:
    page = PAGE.read_text(encoding="utf-8").split("\n## Before")[0]
    for kind, numbers in (("Table", range(1, 8)), ("Figure", range(1, 12))):
        named = " ".join(re.findall(rf"{kind}s? ([\d, and]+)", page))
        assert {str(number) for number in numbers} <= set(re.findall(r"\d+", named)), kind


def test_numbers_are_those_of_the_tables_by_hand() -> None:
    """Some of them, worked out from the printed pages."""
    assert gains("table_1", "mean")["alpagasus_9k_dolly"] == pytest.approx(48.00 - 45.54)
    assert relative_gains()["Less MMLU Chat"] == pytest.approx(100 * (9.78 / 4.42 - 1))
    assert gains("table_2", "bleu")["bbh_icl"] == pytest.approx(53.94 - 60.96)
    assert rows_of("table_3")["none"]["base"] == {"mean": 49.32, "alpaca_eval_2": 0.01}
    log_ratio = np.log([0.0942, 26.3316, 5.862, 3.265, 0.6439, 0.2965, 0.5672])
    first = [-0.363, 121.267, 97.266, 21.961, 12.593, 42.851, 19.828]
    mean = [0.81, 0.66, 0.49, 0.87, 2.37, 2.46, 2.18]
    expected = np.corrcoef(log_ratio, first)[0, 1], np.corrcoef(log_ratio, mean)[0, 1]
    assert by_ratio_in_table_1() == pytest.approx(expected, abs=2e-3)
    assert math.copysign(1, by_ratio_in_table_1()[1]) == -1
