"""The study: what is kept of a run, what is run anew, when a comparison is read, and what the page says."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files_page import check_page
from scipy.stats import t

from instruction_modelling.decision.crossed import crossed_mean
from instruction_modelling.decision.protocol import PROTOCOL
from instruction_modelling.decision.runs import BASE
from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json
from instruction_modelling.study.claims import claims_of
from instruction_modelling.study.grid import GRID, SEEDS, StudyCell, confidence, family_size
from instruction_modelling.study.options import StudyOptions
from instruction_modelling.study.page import page_text, write_results
from instruction_modelling.study.reading import confirm, gain_contrast, read_cells, trained_difference
from instruction_modelling.study.records import Record, read_record, record_path, write_record

ROOT = Path(__file__).resolve().parents[2]
KEY: dict[str, Any] = {
    "code": "c0de",
    "versions": {"torch": "2"},
    "machine": {"cpu": "a processor", "gpu": None},
    "threads": "1",
    "model": "sha256:m",
    "data": "sha256:d",
    "test": "sha256:t",
    "pool": "sha256:p",
    "elsewhere": "sha256:e",
    "train_rows": 64,
    "scoring_dtype": "float32",
    "flags": "--packing",
    "measured_rows": [10, 8],
}
POOL = 400
GAINS = {
    "IT": 0.0,
    "IM": 0.2,
    "reweighted-IT": 0.2,
    "IM-response": 0.1,
    "others-beside": 0.05,
    "healed-base": -0.4,
    "IM-w0.1": 0.25,
    BASE: -0.5,
}


def nlls(cell: StudyCell, arm: str, seed: int, part: str, count: int) -> list[float | None]:
    hard = np.random.default_rng(len(cell.rows_name)).normal(3, 1, count)
    noise = np.random.default_rng([seed, *arm.encode(), *part.encode()]).normal(0, 0.01, count)
    gain = GAINS[arm] if part != "train" else -GAINS[arm]
    return [round(float(value), 4) for value in hard - gain + noise]


def noisy(of: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same losses, with a part that is the seed's of every arm but IT."""

    def with_seeds(cell: StudyCell, arm: str, seed: int, part: str, count: int) -> list[float]:
        of_seed = 0.0 if arm == "IT" else 0.04 * (-1) ** seed
        return [round(value + of_seed, 4) for value in of(cell, arm, seed, part, count)]

    return with_seeds


def record(cell: StudyCell, arm: str, seed: int | None, **changes: object) -> Record:
    parts = {"test": 40, "elsewhere": 10, **({} if seed is None else {"train": 8})}
    losses = {part: nlls(cell, arm, seed or 0, part, count) for part, count in parts.items()}
    facts = {} if seed is None else {"steps": cell.all_steps, "seconds": 60.0}
    made = Record(cell.name, arm, seed, flags_of(arm), key_of(cell), losses, facts)
    return replace(made, **changes)  # type: ignore[arg-type]


def key_of(cell: StudyCell, **changes: object) -> dict[str, Any]:
    of_rows = {"test": f"sha256:{cell.rows_name}", "train_rows": cell.train_rows}
    return {**KEY, **of_rows, **changes}


def flags_of(arm: str) -> str:
    return "" if arm in ("IT", BASE) else f"--as {arm}"


def write_protocol(results: Path, cell: StudyCell) -> None:
    """Writes what the records of a cell are of."""
    key = key_of(cell)
    hashes = {f"{part}_sha256": key[part] for part in ("data", "test", "pool")}
    write_json(
        results / "runs" / cell.name / PROTOCOL,
        {
            **hashes,
            "margin": 0.05,
            "hypotheses": [{"name": hypothesis.name} for hypothesis in cell.hypotheses],
            "arms": [{"name": arm, "flags": flags_of(arm).split()} for arm in GAINS if arm != BASE],
            "model": {"identity": key["model"]},
            "shared_flags": ["--packing"],
            "train_rows": cell.train_rows,
            "pool_rows": POOL,
            "test_rows": 40,
        },
    )


Fill = Callable[..., None]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    def records_of(cell: StudyCell, arms: tuple[str, ...], seeds: int = SEEDS) -> None:
        write_protocol(tmp_path, cell)
        write_record(tmp_path, record(cell, BASE, None))
        for arm in arms:
            for seed in range(seeds):
                write_record(tmp_path, record(cell, arm, seed))

    return records_of


def test_numbers_that_are_none_are_refused() -> None:
    given = StudyOptions(at_once=0, stop_after=-1.0, max_tokens_per_device=0, rate=float("inf"))
    assert [problem.split(":")[0] for problem in given.check()] == [
        *("--rate inf", "--at_once 0", "--stop_after -1.0", "--max_tokens_per_device 0")
    ]
    assert StudyOptions(at_once=12, stop_after=240.0).check() == []


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = record(GRID[0], "IM", 3)
    kept.losses["test"][1] = None
    write_record(tmp_path, kept)
    assert read_record(tmp_path, GRID[0].name, "IM", 3) == kept
    assert read_record(tmp_path, GRID[0].name, "IM", 4) is None
    # One line a part: a change of one run is a change of a few lines.
    assert len(record_path(tmp_path, GRID[0].name, "IM", 3).read_text().splitlines()) < 40
    record_path(tmp_path, GRID[0].name, "IM", 4).write_text('{"cell": "high-64"}')
    with pytest.raises(UserError, match=r"IM-seed4\.json: is no record of a run"):
        read_record(tmp_path, GRID[0].name, "IM", 4)


def test_a_comparison_is_read_when_both_arms_have_every_seed(tmp_path: Path, fill: Fill) -> None:
    fill(GRID[0], ("IT", "IM"), seeds=4)
    assert all(one.decision is None for one in confirm(read_cells(tmp_path)))
    assert page_text(tmp_path).splitlines()[2].startswith("No cell has all its runs yet (9 runs recorded)")
    fill(GRID[0], ("IT", "IM"))
    first, second, *_ = confirm(read_cells(tmp_path))
    assert first.decision and second.decision is None
    matrix = np.array([[nlls(GRID[0], arm, seed, "test", 40) for seed in range(5)] for arm in ("IT", "IM")])
    gain = crossed_mean((matrix[0] - matrix[1]).astype(float))
    assert first.decision.mean == pytest.approx(gain.mean) == pytest.approx(0.2, abs=0.01)
    assert first.decision.interval == pytest.approx(gain.interval(1 - 0.05 / family_size()))
    assert first.decision.verdict == "helps"
    # Holm with everything that has no runs yet as if nothing were found there.
    assert first.p_value == pytest.approx(min(1, family_size() * gain.p_value()))


def test_the_family_is_every_confirmed_comparison_of_the_grid() -> None:
    assert family_size() == 13 and confidence() == pytest.approx(1 - 0.05 / 13)
    assert {cell.name: cell.all_steps for cell in GRID} == {
        **{"high-64": 24, "low-64": 24, "high-224": 84, "low-224": 84},
        **{"high-64-long": 84, "lima-128": 48, "high-64-clipped": 24, "high-64-more": 24},
        **{"high-224-again": 84, "high-64-long-again": 84, "low-224-again": 84},
    }
    assert {cell.passes for cell in GRID if cell.steps} == {11}


def test_claims_have_a_standing_by_their_intervals(tmp_path: Path, fill: Fill) -> None:
    fill(GRID[0], ("IT", "IM"))
    fill(GRID[2], ("IT", "IM"))
    readings = read_cells(tmp_path)
    standing = {claim.text: claim.standing for claim in claims_of(readings)}
    assert standing["Lower test loss at higher training loss: high-64"] == "held"
    assert standing["A larger gain with fewer rows: high-64 against high-224, passes alike"] == "did not hold"
    assert standing["A larger gain at a high length ratio: high-64 against low-64"] == "not run yet"
    assert standing["Less memorisation (BLEU on training rows)"] == "tested apart"
    trained = trained_difference(readings[0])
    by_seed = [
        np.mean(nlls(GRID[0], "IM", s, "train", 8)) - np.mean(nlls(GRID[0], "IT", s, "train", 8))  # type: ignore[arg-type]
        for s in range(5)
    ]
    half = t.ppf(0.975, 4) * np.std(by_seed, ddof=1) / 5**0.5
    assert (trained.mean, trained.low) == pytest.approx((np.mean(by_seed), np.mean(by_seed) - half))
    contrast = gain_contrast(readings[0], readings[2])
    assert contrast.low < 0 < contrast.high or abs(contrast.mean) < 0.01


def test_a_gain_that_is_told_from_none_and_matters_to_nobody_is_said_to_be_both(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GAINS, "IM", 0.03)
    fill(GRID[0], ("IT", "IM"))
    standing = {claim.text: claim.standing for claim in claims_of(read_cells(tmp_path))}
    name = "Lower test loss at higher training loss: high-64"
    assert standing[name] == "held, by less than matters"
    # The same gain with a training loss that is lower too is not what the paper says.
    for seed in range(SEEDS):
        made = record(GRID[0], "IM", seed)
        trained = nlls(GRID[0], "IT", seed, "train", 8)
        lower: list[float | None] = [value - 0.1 for value in trained if value is not None]
        write_record(tmp_path, replace(made, losses={**made.losses, "train": lower}))
    found = {claim.text: claim.standing for claim in claims_of(read_cells(tmp_path))}
    assert found[name] == "did not hold"


def test_arms_of_a_seed_made_by_different_code_are_not_compared(tmp_path: Path, fill: Fill) -> None:
    fill(GRID[0], ("IT", "IM"))
    write_record(tmp_path, record(GRID[0], "IM", 2, key=key_of(GRID[0], code="other")))
    with pytest.raises(UserError, match="high-64, seed 2: its arms were made by different code"):
        page_text(tmp_path)


def _changed(path: Path, **changes: Any) -> None:
    """Writes other values into a record, by the path of their names."""
    kept = json.loads(path.read_text())
    for names, value in changes.items():
        *within, last = names.split("__")
        place = kept
        for name in within:
            place = place[name]
        place[last] = value
    path.write_text(json.dumps(kept))


_LOSSES = [1.0 + at / 100 for at in range(40)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key__data": "sha256:x"}, "data is sha256:x, the protocol's sha256:d"),
        ({"key__test": "sha256:x"}, "test is sha256:x"),
        ({"key__train_rows": 999}, "train_rows is 999"),
        ({"key__model": "sha256:x"}, "model is sha256:x"),
        ({"key__flags": "--packing --learning_rate 0.01"}, "flags are --packing --learning_rate 0.01"),
        ({"flags": ""}, "the arm's flags are '', the protocol's '--as IM'"),
        ({"facts__steps": 12}, "12 steps, where the cell has 24"),
        ({"losses__test": _LOSSES[:39]}, "39 losses of test"),
        ({"losses__train": [1.0] * 7}, "7 losses of train"),
        ({"losses__test": [*_LOSSES[:39], -5.0]}, "test, row 40: -5.0 is no loss"),
        ({"losses__test": [*_LOSSES[:39], float("nan")]}, "test, row 40: nan is no loss"),
        ({"losses__test": [*_LOSSES[:39], "2.5"]}, "test, row 40: '2.5' is no loss"),
        ({"losses__elsewhere": [True] * 10}, "elsewhere, row 1: True is no loss"),
        ({"losses__test": [None, *_LOSSES[1:]]}, "lacks losses of other test rows than base.json"),
        ({"losses": {"test": _LOSSES}}, "has losses of test, not of test, elsewhere, train"),
        ({"losses": [1.0]}, "is no record of a run"),
        ({"key": {}}, "its key lacks code, versions"),
        ({"key__machine": {}}, "its key names no machine"),
        ({"key__machine": None}, "its key names no machine"),
        ({"key__elsewhere": "sha256:x"}, "has another elsewhere than base.json"),
    ],
)
def test_a_record_that_is_not_what_its_protocol_says_is_refused_by_its_name(
    tmp_path: Path, fill: Fill, changes: dict[str, Any], says: str
) -> None:
    fill(GRID[0], ("IT", "IM"))
    path = record_path(tmp_path, "high-64", "IM", 2)
    # Alike in all arms of the seed, so that no other rule finds it.
    if all(name.startswith("key__") for name in changes):
        _changed(record_path(tmp_path, "high-64", "IT", 2), **changes)
    _changed(path, **changes)
    with pytest.raises(UserError) as raised:
        page_text(tmp_path)
    assert says in str(raised.value) and "-seed2.json: " in str(raised.value)
    # Once a record that has it.
    assert 1 <= str(raised.value).count(says) <= 2


def test_a_copy_of_another_run_and_records_without_a_protocol_are_refused(tmp_path: Path, fill: Fill) -> None:
    fill(GRID[0], ("IT", "IM"))
    first = json.loads(record_path(tmp_path, "high-64", "IM", 0).read_text())
    path = record_path(tmp_path, "high-64", "IM", 1)
    before = path.read_text()
    _changed(path, losses=first["losses"])
    with pytest.raises(UserError, match=r"IM-seed1\.json: has the losses of IM-seed0\.json"):
        page_text(tmp_path)
    path.write_text(before)
    page_text(tmp_path)
    protocol = tmp_path / "runs" / "high-64" / PROTOCOL
    _changed(protocol, margin=0.1)
    with pytest.raises(UserError, match=r"protocol\.json: has another margin"):
        page_text(tmp_path)
    protocol.unlink()
    with pytest.raises(UserError, match=r"protocol\.json: is missing"):
        page_text(tmp_path)
    protocol.write_text("{}")
    with pytest.raises(
        UserError, match=r"high-64: a record, protocol\.json or tuned\.json is not what a study"
    ):
        page_text(tmp_path)


def test_cells_of_the_same_rows_must_have_been_measured_on_the_same(tmp_path: Path, fill: Fill) -> None:
    first, second = (next(cell for cell in GRID if cell.name == name) for name in ("high-64", "high-64-more"))
    fill(first, ("IT", "IM"))
    fill(second, ("IT", "IM"))
    page_text(tmp_path)
    for path in (tmp_path / "runs" / "high-64-more").glob("*.json"):
        path.write_text(path.read_text().replace("sha256:dolly-high", "sha256:other"))
    with pytest.raises(UserError, match="high-64-more was measured on other rows than high-64"):
        page_text(tmp_path)


def test_without_the_untuned_models_record_the_page_leaves_out_what_is_held_against_it(
    tmp_path: Path, fill: Fill
) -> None:
    fill(GRID[0], ("IT", "IM"))
    record_path(tmp_path, "high-64", BASE, None).unlink()
    page = page_text(tmp_path)
    assert "| high-64 | IM |" in page and "| high-64 | untuned |" not in page


def test_a_comparison_says_what_its_interval_would_be_for_other_data(tmp_path: Path, fill: Fill) -> None:
    fill(GRID[0], ("IT", "IM"))
    page = page_text(tmp_path)
    assert "two of them share rows (16% with 64 rows)" in page
    gain = crossed_mean(
        np.array([nlls(GRID[0], "IT", seed, "test", 40) for seed in range(SEEDS)], float)
        - np.array([nlls(GRID[0], "IM", seed, "test", 40) for seed in range(SEEDS)], float)
    )
    # A seed's mean square counts 1 + 5 x 0.16/0.84 times.
    times = 1 + SEEDS * (64 / POOL) / (1 - 64 / POOL)
    wider = replace(gain, seed_ms=gain.seed_ms * times).half_width(confidence())
    (row,) = (line for line in page.splitlines() if line.startswith("| high-64 | H1"))
    assert f"| {gain.half_width(confidence()):.3f} | {wider:.3f} |" in row


def test_the_page_says_what_the_records_say(tmp_path: Path, fill: Fill) -> None:
    fill(GRID[0], ("IT", "IM", "reweighted-IT"))
    page = tmp_path / "results.md"
    write_results(tmp_path, page)
    text = page.read_text()
    assert text == page_text(tmp_path) and (tmp_path / "gains.png").stat().st_size > 1000
    decision = confirm(read_cells(tmp_path))[0].decision
    assert decision and decision.interval
    low, high = decision.interval
    head = text.splitlines()
    assert head[2] == (
        "Over 1 cell, a loss on the instruction helps in 1 (IM against IT, loss of unseen responses); "
        "against IT whose responses weigh as little as under IM, it makes no difference that matters in 1. "
        "Cut for time: lima-128. 4 cells of 6 have not all their runs yet, so this is a part of the answer."
    )
    assert head[4].startswith(
        "- high-64, 64 rows of Dolly-3k with long instructions (at least as many words as the response), 24 "
        f"steps: it helps ({decision.mean:+.3f} ({low:+.3f} to {high:+.3f}) nats a response token), and it "
        "differs from reweighting the responses alone by less than matters ("
    )
    assert f"| high-64 | H1: IM against IT | 40 | {decision.mean:+.3f} | {low:+.3f} to {high:+.3f} |" in text
    assert "- high-64: it differs from reweighting the responses alone by less than matters" in text
    assert "13 comparisons were fixed beforehand, and 2 are read" in text and "†" not in text
    assert "- high-64: IM-response (5 seeds), tuned-IT (5 seeds), tuned-IM (5 seeds)" in text
    assert "- lima-128: IT (5 seeds, cut for time), IM (5 seeds, cut for time)" in text
    assert "| lima-128 | H1: IM against IT | | | | | | | cut for time |" in text


def test_the_page_says_which_machine_made_what(tmp_path: Path, fill: Fill) -> None:
    fill(GRID[0], ("IT", "IM"))
    machine = KEY["machine"]["cpu"]
    assert f"\n- high-64: {machine}\n" in page_text(tmp_path)
    other = key_of(GRID[0], machine={"cpu": "a processor", "gpu": "a card"})
    write_record(tmp_path, record(GRID[0], BASE, None, key=other))
    assert f"\n- high-64: a card (the untuned model); {machine} (IT, IM)\n" in page_text(tmp_path)


def test_a_comparison_that_cannot_tell_says_what_it_would_take(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A gain that is of the size of what seeds do to it.
    monkeypatch.setitem(GAINS, "IM", 0.03)
    monkeypatch.setattr(f"{__name__}.nlls", noisy(nlls))
    fill(GRID[0], ("IT", "IM"))
    decision = confirm(read_cells(tmp_path))[0].decision
    assert decision and decision.verdict == "cannot tell"
    seeds, rows = decision.needed()
    assert seeds and seeds > SEEDS
    ways = [f"about {count:,} {of}" for count, of in ((seeds, "seeds"), (rows, "rows")) if count]
    assert f"| cannot tell; it would take {' or '.join(ways)} |" in page_text(tmp_path)


def test_the_page_holds_im_against_what_it_does_not_confirm_here_and_elsewhere(
    tmp_path: Path, fill: Fill
) -> None:
    cell, arms = (
        next(cell for cell in GRID if "others-beside" in cell.arms),
        ("reweighted-IT", "others-beside"),
    )
    # Its H2 holds IM against reweighted IT.
    fill(GRID[0], ("IT", "IM", "reweighted-IT"))
    fill(cell, ("IT", "IM", *arms))
    (line,) = (line for line in page_text(tmp_path).splitlines() if "[further controls]" in line)
    gains = []
    for arm, (part, count) in product(arms, (("test", 40), ("elsewhere", 10))):
        other, own = (
            np.array([nlls(cell, name, seed, part, count) for seed in range(SEEDS)], float).mean()
            for name in (arm, "IM")
        )
        gains.append(f"{other - own:+.3f} ")
    assert re.findall(r"[+-]\d\.\d{3} (?=\()", line) == gains


def test_a_text_beside_the_rows_is_held_against_the_same_without_it_and_mending_against_the_untuned_model(
    tmp_path: Path, fill: Fill
) -> None:
    cell = next(cell for cell in GRID if "others-beside" in cell.arms)
    fill(GRID[0], ("IT", "IM"))
    fill(cell, ("IT", "IM", "reweighted-IT", "others-beside", "healed-base", "IM-w0.1"))
    text, reading = page_text(tmp_path), read_cells(tmp_path)[GRID.index(cell)]

    def gains(arm: str, reference: str) -> str:
        found = [reading.decision(arm, reference, part) for part in ("test", "elsewhere")]
        by_hand = []
        for part, count in (("test", 40), ("elsewhere", 10)):
            own, other = (
                np.array([nlls(cell, name, s * (name != BASE), part, count) for s in range(SEEDS)], float)
                for name in (arm, reference)
            )
            by_hand.append(other.mean() - own.mean())
        assert [one.mean for one in found] == pytest.approx(by_hand)
        words = [f"{o.mean:+.3f} ({o.interval[0]:+.3f} to {o.interval[1]:+.3f})" for o in found if o.interval]
        return ", elsewhere ".join(words)

    assert (
        "- high-64-more, what a text beside the rows adds to reweighted-IT (exploratory): others-beside "
        f"{gains('others-beside', 'reweighted-IT')}; the row's own instruction before its response (IM) "
        f"{gains('IM', 'reweighted-IT')}."
    ) in text
    against = [f"{other} {gains('IM-w0.1', other)}" for other in ("IM", "IT", "reweighted-IT")]
    assert f"- high-64-more, IM-w0.1 against others (exploratory): {'; '.join(against)}." in text
    mended = gains("healed-base", BASE).replace(", elsewhere", " over the untuned model, elsewhere")
    assert f"as many steps on unrelated text alone (healed-base) gain {mended}, in high-64-more." in text
    # It was not trained on the rows that the seed's other models were.
    (row,) = (line for line in text.splitlines() if line.startswith("| high-64-more | healed-base |"))
    assert row.endswith("|  |")


def test_the_page_says_what_another_number_format_of_training_or_measuring_makes_of_it_and_im(
    tmp_path: Path, fill: Fill
) -> None:
    first, second = (next(cell for cell in GRID if cell.name == name) for name in ("high-64", "high-64-more"))
    fill(second, ("IT", "IM"))
    assert "once more, trained" not in page_text(tmp_path)
    write_protocol(tmp_path, first)
    write_record(tmp_path, record(first, BASE, None))
    for arm, higher in (("IT", 0.3), ("IM", 0.1)):
        for seed in range(SEEDS):
            made = record(first, arm, seed, key=key_of(first, flags="--packing --mixed_precision bf16"))
            for values in made.losses.values():
                values[:] = [value + higher for value in values if value is not None]
            write_record(tmp_path, made)
    page = page_text(tmp_path)
    assert "measured by their float32 weights" not in page and "†" not in page
    for path in (tmp_path / "runs" / "high-64").glob("I*-seed*.json"):
        text = path.read_text()
        path.write_text(text.replace("--mixed_precision bf16", "--mixed_precision bf16 --save_dtype float32"))
    marked = page_text(tmp_path)
    assert "†: these models were trained with products in bfloat16 and measured by their float32" in marked
    assert "| high-64† | H1: IM against IT |" in marked and "high-64-more†" not in marked
    (line,) = (line for line in page.splitlines() if "once more, trained" in line)
    assert line.startswith(
        "- high-64-more has IT and IM of high-64 once more, trained with products in float32 (high-64: "
        "bfloat16), on another machine or with other versions too."
    )
    # IT's loss, IM's, the gain on test rows and elsewhere: as they were made again, less what they were.
    changes = ["-0.300 ", "-0.100 ", "-0.200 ", "-0.200 "]
    assert re.findall(r"[+-]\d\.\d{3} (?=\()", line)[:4] == changes
    again = read_cells(tmp_path)[GRID.index(second)].decision("IM", "IT", sure=confidence())
    assert again.verdict == "helps" and again.interval
    shown = f"{again.mean:+.3f} ({again.interval[0]:+.3f} to {again.interval[1]:+.3f})"
    assert f"{again.verdict} ({shown}). All of this is exploratory." in line
    (of_cell,) = (line for line in marked.splitlines() if line.startswith("- high-64†, 64 rows"))
    assert of_cell.endswith(f"Made anew in float32 (high-64-more, exploratory), it helps ({shown}).")


def test_the_projects_page_follows_from_its_committed_records() -> None:
    page, results = ROOT / "docs" / "results.md", ROOT / "docs" / "results"
    assert page.read_text(encoding="utf-8") == page_text(results)
    for path in sorted(results.rglob("runs/*/*-seed*.json")):
        kept = json.loads(path.read_text())
        rows = {part: len(of_part) for part, of_part in kept["losses"].items()}
        if "cpu-120" in path.parts:
            assert (rows["test"], rows["elsewhere"]) == (120, 30), path
        else:
            # All of LIMA's that are as short; of LIMA's own test rows all that its split keeps.
            assert rows["elsewhere"] == (300 if kept["cell"] == "lima-128" else 187), path
            assert rows["test"] in (300, 298, 185), path
        assert path == record_path(path.parents[2], kept["cell"], kept["arm"], kept["seed"])
    files = [
        json.loads(path.read_text())
        for path in (*results.rglob("runs/*/*-seed*.json"), *results.rglob("runs/*/base.json"))
    ]
    check_page("## A record of the study: `src/study.py`", files)


def test_an_earlier_study_stays_on_the_page_with_its_own_figures(tmp_path: Path, fill: Fill) -> None:
    fill(GRID[0], ("IT", "IM"))
    assert "An earlier" not in page_text(tmp_path)
    (tmp_path / "cpu-120").mkdir()
    (tmp_path / "runs").rename(tmp_path / "cpu-120" / "runs")
    found = confirm(read_cells(tmp_path / "cpu-120"))[0].decision
    assert found
    text = page_text(tmp_path)
    assert text.splitlines()[2].startswith("No cell has all its runs yet (0 runs recorded)")
    earlier = text.partition("## An earlier, smaller study\n")[2]
    assert "11 runs in `docs/results/cpu-120/`, all that 1 of its 13 comparisons take" in earlier
    assert f"| high-64 | H1: IM against IT | 40 | {found.mean:+.3f} |" in earlier and "H2" not in earlier
