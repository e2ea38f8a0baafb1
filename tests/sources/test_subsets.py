"""Fractions, sizes and length-ratio subsets: which rows, in which order, and what their cards say."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_samples import read_lines, write_lines
from script_loader import run_script

from instruction_modelling.errors import UserError
from instruction_modelling.sources.conversion.subsets import (
    index_rows,
    nearest_row_ratio,
    proportional,
    quotas,
    write_subset,
)


def row(dataset: str, number: int, user: str = "a question", assistant: str = "an answer") -> dict[str, Any]:
    return {
        "dataset": dataset,
        "id": f"{dataset}_{number}",
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
    }


def ids(path: Path) -> list[str]:
    return [line["id"] for line in read_lines(path)]


def released_fraction(rows: list[dict[str, Any]], size: int) -> list[str]:
    """Return the released script's choice, row by row: a source's rows until its quota is used up, then any
    until none is spare."""
    left = {
        name: int(count / len(rows) * size) for name, count in Counter(r["dataset"] for r in rows).items()
    }
    spare, taken = size - sum(left.values()), []
    for line in rows:
        if left[line["dataset"]] > 0:
            left[line["dataset"]] -= 1
        elif spare > 0:
            spare -= 1
        else:
            continue
        taken.append(line["id"])
    return taken


@settings(max_examples=100, deadline=None)
@given(sources=st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), share=st.floats(0.02, 1.0))
def test_the_first_rows_of_each_source_are_those_the_released_script_takes(
    tmp_path_factory: pytest.TempPathFactory, sources: list[str], share: float
) -> None:
    rows = [row(source, number) for number, source in enumerate(sources)]
    index = index_rows(write_lines(tmp_path_factory.mktemp("rows") / "x.jsonl", rows))
    size = max(1, int(share * len(rows)))
    assert [rows[place]["id"] for place in proportional(index, size, None)] == released_fraction(rows, size)
    random = proportional(index, size, 3).tolist()
    assert len(set(random)) == size and random == sorted(random)
    taken = Counter(sources[place] for place in random)
    for source, quota in zip(
        index.sources, quotas([sources.count(s) for s in index.sources], size), strict=True
    ):
        assert quota <= taken[source] <= sources.count(source)


def test_the_papers_fractions_have_the_papers_sizes() -> None:
    # How the paper's 326,181 rows fall into parts is not known and does not matter for the totals.
    parts = [50_000, 50_000, 7_000, 1_000, 20_000, 20_000, 110_000, 30_000, 30_000, 7_500, 140, 541]
    assert sum(parts) == 326_181
    for share, size in ((0.1, 32_618), (0.2, 65_236), (0.5, 163_090)):
        assert int(share * sum(parts)) == size
        assert size - len(parts) <= sum(quotas(parts, size)) <= size


def test_random_rows_are_uniform_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    rows = [row("ab"[number % 2], number) for number in range(40)]
    index = index_rows(write_lines(tmp_path / "x.jsonl", rows))
    hits = Counter(place for seed in range(400) for place in proportional(index, 10, seed).tolist())
    # Each row 100 times on average; the standard deviation is 8.7.
    assert min(hits.values()) > 65 and max(hits.values()) < 135
    assert (
        proportional(index, 10, 7).tolist()
        == proportional(index, 10, 7).tolist()
        != proportional(index, 10, 8).tolist()
    )
    small, large = (set(proportional(index, size, 7).tolist()) for size in (10, 20))
    assert small < large


def test_words_are_counted_as_the_paper_counts_them(shared_data: Path) -> None:
    for name, expected in (("lima_data", (41.72, 442.75)), ("alpagasus_3k_dolly", (43.83, 68.08))):
        index = index_rows(shared_data / "train" / f"{name}.jsonl")
        instruction, output = index.words(np.arange(len(index)))
        assert (round(instruction.mean(), 2), round(output.mean(), 2)) == expected


def test_ratio_subsets_hold_the_nearest_rows_and_nest(shared_data: Path) -> None:
    index = index_rows(shared_data / "train" / "lima_data.jsonl")
    ratio = index.row_ratios(np.arange(1030))
    ranked = nearest_row_ratio(index, 1.0, seed=0)
    assert sorted(ranked.tolist()) == list(range(1030))
    distance = abs(ratio[ranked] - 1.0)
    assert (distance[1:] >= distance[:-1]).all()
    assert distance[:50].max() <= min(
        abs(ratio[place] - 1.0) for place in set(range(1030)) - set(ranked[:50].tolist())
    )


def test_rows_that_are_equally_near_come_in_random_order(tmp_path: Path) -> None:
    rows = [row("a", number) for number in range(30)] + [row("a", 30, user="x " * 50)]
    rows.append({"dataset": "a", "id": "a_31", "messages": [{"role": "user", "content": "no answer"}]})
    index = index_rows(write_lines(tmp_path / "x.jsonl", rows))
    one, other = (nearest_row_ratio(index, 1.0, seed).tolist() for seed in (1, 2))
    assert one[:30] != other[:30] and sorted(one[:30]) == sorted(other[:30]) == list(range(30))
    assert one[30:] == other[30:] == [30]


def test_a_subset_is_copied_byte_for_byte_and_its_card_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mix_data.jsonl"
    lines = [
        b'{"dataset":"a", "messages":[{"role":"user","content":"\\u00e4 '
        b'b"},{"role":"assistant","content":"c"}],"more": 1.50}',
        b"",
        '{"dataset":"ö","messages":[{"role":"assistant","content":"d"}]}'.encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    index = index_rows(path)
    card = write_subset(index, np.asarray([1, 0]), tmp_path / "sub" / "s.jsonl", {"how": "by hand"})
    assert (tmp_path / "sub" / "s.jsonl").read_bytes() == lines[2] + b"\n" + lines[0] + b"\n"
    assert json.loads((tmp_path / "sub" / "s.card.json").read_text()) == card
    assert card["from"] == {
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": 2,
    }
    assert card["sources"] == {"a": {"rows": 1, "taken": 1}, "ö": {"rows": 1, "taken": 1}}
    with pytest.raises(UserError, match="is the file that the subset is taken from"):
        write_subset(index, np.asarray([0]), path, {})
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == ["s.card.json", "s.jsonl"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ('{"messages": 3}\n', "x.jsonl:1: "),
        ("{}\n", "x.jsonl:1: "),
        ('[{"messages": []}]', "x.jsonl: row 1: "),
        ("\n{bad\n", "x.jsonl:2: "),
    ],
)
def test_a_file_that_is_not_of_rows_is_an_error_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(UserError, match=said):
        index_rows(tmp_path / "x.jsonl")


def test_sample_data_writes_the_fractions_under_the_published_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(f"s{number % 3}", number) for number in range(100)]
    path = write_lines(tmp_path / "tulu_v2_data.jsonl", rows)
    assert (
        run_script(
            monkeypatch,
            "sample_data",
            "--train_file",
            path,
            "--fraction",
            0.1,
            0.5,
            "--rows",
            7,
            "--how",
            "first",
            "--output_dir",
            tmp_path / "out",
        )
        == 0
    )
    assert ids(tmp_path / "out" / "tulu_dataset_01.jsonl") == released_fraction(rows, 10)
    assert ids(tmp_path / "out" / "tulu_dataset_05.jsonl") == released_fraction(rows, 50)
    assert ids(tmp_path / "out" / "tulu_dataset_rows7.jsonl") == released_fraction(rows, 7)
    assert "10 of 100 rows, first\n  s0: 4 of 34" in capsys.readouterr().out
    assert (
        run_script(
            monkeypatch,
            "sample_data",
            "--train_file",
            path,
            "--fraction",
            0.2,
            "--seed",
            5,
            "--output",
            tmp_path / "r.jsonl",
        )
        == 0
    )
    assert ids(tmp_path / "r.jsonl") == [rows[place]["id"] for place in proportional(index_rows(path), 20, 5)]
    card = json.loads((tmp_path / "r.card.json").read_text())
    assert (card["how"], card["seed"], card["fraction"], card["rows"]) == ("random", 5, 0.2, 20)


def test_select_data_writes_every_size_of_every_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A user's message of n words counts n + 1, an answer of one word 2: ratios 1 to 12.5.
    rows = [row("a", number, user="w " * (number + 1), assistant="yes") for number in range(24)]
    path = write_lines(tmp_path / "tulu_v2_data.jsonl", rows)
    assert (
        run_script(
            monkeypatch, "select_data", "--train_file", path, "--ratio", 2, 10, "--rows", 1, 3, "--seed", 1
        )
        == 0
    )
    assert ids(tmp_path / "tulu_ratio_2_1.jsonl") == ["a_2"] and ids(tmp_path / "tulu_ratio_10_1.jsonl") == [
        "a_18"
    ]
    assert ids(tmp_path / "tulu_ratio_10_3.jsonl")[0] == "a_18" and set(
        ids(tmp_path / "tulu_ratio_10_3.jsonl")
    ) == {"a_17", "a_18", "a_19"}
    card = json.loads((tmp_path / "tulu_ratio_10_3.card.json").read_text())
    assert (
        card["ratios"]["least"],
        card["ratios"]["most"],
        card["ratios"]["mean"],
        card["ratios"]["ratio of mean lengths"],
    ) == (9.5, 10.5, 10, 10)
    assert "3 of 24 rows, instruction / output words of a row 9.50 to 10.50" in capsys.readouterr().out
    assert run_script(monkeypatch, "select_data", "--train_file", path, "--rows", 25) == 2
    assert "has 24 rows with an answer, and --rows 25 are wanted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("sample_data", ["--fraction", "1.5"], "--fraction 1.5"),
        ("sample_data", [], "--fraction or --rows is needed"),
        ("sample_data", ["--rows", "5", "6", "--output", "x"], "1 files for 2 subsets"),
        ("select_data", ["--ratio", "0"], "--ratio 0.0"),
        ("select_data", ["--ratio", "1", "2", "--output", "x", "x"], "names a file twice"),
        ("select_data", [], "--train_file is needed"),
    ],
)
def test_options_that_do_not_fit_are_said(
    script: str,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_script(monkeypatch, script, *arguments) == 2
    assert said in capsys.readouterr().err
