"""One set of rows for all arms: what is left out, counted and listed, and what is held out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from row_files import write
from tiny import make_tiny_tokenizer

from instruction_modelling.comparison.jobs import plan, report_job
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.report.training_data import file_length_ratio
from instruction_modelling.comparison.row_counts import left_out_lines
from instruction_modelling.comparison.row_sets import LEFT_OUT, ROWS, RowChoice, TrainAndTest, held_out_rows
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.rows.mixture import row_files
from instruction_modelling.tokens.row_encoder import row_encoder


def choice(max_seq_length: int = 256, **changes: Any) -> RowChoice:
    """Return the choice of rows of a tiny tokenizer in the Tülu format."""
    return RowChoice(row_encoder(make_tiny_tokenizer(), "auto", max_seq_length), **changes)


def split(train: Path, test: Path | None, folder: Path, columns: str | None = None) -> TrainAndTest:
    """Return the files of a comparison with everything else left as it is."""
    return choice(columns=columns).of(train, test, folder)


def chat(*pairs: tuple[str, Any]) -> dict[str, Any]:
    """Return a row of (role, content), or (role, message)."""
    return {
        "messages": [
            {"role": role, **(given if isinstance(given, dict) else {"content": given})}
            for role, given in pairs
        ]
    }


GOOD = [chat(("user", f"Question {i}?"), ("assistant", f"Answer {i}.")) for i in range(12)]
WITHOUT = {
    "no assistant": chat(("user", "Only asked")),
    "empty": chat(("user", "Hi"), ("assistant", "")),
    "weight 0": chat(("user", "Hi"), ("assistant", {"content": "unwanted", "weight": 0})),
    "cut off": chat(("user", "long " * 300), ("assistant", "never seen")),
}


def rows_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("why", WITHOUT)
def test_a_row_without_a_response_to_train_is_left_out_of_every_arm_and_listed(
    tmp_path: Path, why: str
) -> None:
    train = write(tmp_path, *GOOD[:3], WITHOUT[why], *GOOD[3:])
    test = write(tmp_path, *GOOD, name="test.jsonl")
    files = choice().of(train, test, tmp_path / "set")
    assert rows_of(files.train) == GOOD and files.test == test
    (left_out,) = rows_of(tmp_path / "set" / LEFT_OUT)
    assert (left_out["row"], left_out["line"], left_out["reason"]) == (3, 4, "no response to train")
    record = json.loads((tmp_path / "set" / ROWS).read_text())
    assert (record["train"]["rows"], record["train"]["used"]) == (13, 12)
    assert left_out_lines({"train": record["train"]}) == [
        "1 of 13 training rows are left out of every arm (1 no response to train)"
    ]


def test_each_arm_keeps_its_rows_where_that_is_asked_for(tmp_path: Path) -> None:
    train = write(tmp_path, *GOOD, *WITHOUT.values())
    test = write(tmp_path, *GOOD, name="test.jsonl")
    files = choice(row_set="own").of(train, test, tmp_path / "set")
    assert files.train == train and rows_of(tmp_path / "set" / LEFT_OUT) == []


def test_test_rows_that_are_training_rows_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Words, not ids, are compared; the command that takes them out stands there."""
    train = write(tmp_path, *GOOD, WITHOUT["empty"])
    others = [chat(("user", "Another?"), ("assistant", "Answer 1."))]
    test = write(tmp_path, *others, GOOD[7] | {"id": "x"}, GOOD[2], WITHOUT["empty"], name="test.jsonl")
    choice().of(train, test, tmp_path / "set")
    said = f"{test}: 2 of its 3 rows stand in {train} too, word for word (first {test}:2): "
    (line,) = [record.message for record in caplog.records if "word for word" in record.message]
    assert line.startswith(said) and f"find_overlap.py {train} {test} --output_dir overlap" in line
    caplog.clear()
    choice().of(train, write(tmp_path, *others, name="test.jsonl"), tmp_path / "other")
    choice().of(train, None, tmp_path / "held")
    assert "word for word" not in caplog.text


def test_copies_of_a_row_that_is_held_out_are_neither_trained_nor_tested_on(tmp_path: Path) -> None:
    twice = [row | {"id": f"again {number}"} for number, row in enumerate(GOOD)]
    files = choice().of(write(tmp_path, *GOOD, *twice), None, tmp_path / "set")
    told = [[json.dumps(row["messages"]) for row in rows_of(file)] for file in (files.train, files.test)]
    assert len(set(told[1])) == len(told[1]) == held_out_rows(len(GOOD)) and not {*told[0]} & {*told[1]}
    left_out = rows_of(tmp_path / "set" / LEFT_OUT)
    assert {row["reason"] for row in left_out} == {"copy of a row that is held out"}
    assert len(left_out) == len(told[1]) and len(told[0]) + len(told[1]) + len(left_out) == 2 * len(GOOD)
    record = json.loads((tmp_path / "set" / ROWS).read_text())
    assert record["train"]["used"] == len(told[0]) + len(told[1])
    # Without copies the same rows are drawn as ever.
    alone = choice().of(write(tmp_path, *GOOD), None, tmp_path / "alone")
    assert [json.dumps(row["messages"]) for row in rows_of(alone.test)] == told[1]


def test_copies_among_test_rows_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = [chat(("user", f"Another {i}?"), ("assistant", "Yes.")) for i in range(3)]
    test = write(tmp_path, *others, others[0] | {"id": "x"}, name="test.jsonl")
    choice().of(write(tmp_path, *GOOD), test, tmp_path / "set")
    assert f"{test}: 1 of its 4 rows is a copy of others, word for word" in caplog.text


def test_one_part_of_a_response_is_enough(tmp_path: Path) -> None:
    """One answer of two is left after cutting, and one is empty: both rows are trained by every arm."""
    two = chat(("user", "Hi"), ("assistant", "Yes"), ("user", "long " * 300), ("assistant", "never seen"))
    empty_first = chat(("user", "Hi"), ("assistant", ""), ("user", "And?"), ("assistant", "Yes"))
    train = write(tmp_path, *GOOD, two, empty_first)
    files = choice().of(train, train, tmp_path / "set")
    assert files.train == train


def test_unusable_rows_stop_it_or_are_left_out_as_asked(tmp_path: Path) -> None:
    train = write(tmp_path, *GOOD, b"{broken", {"messages": []})
    test = write(tmp_path, *GOOD, name="test.jsonl")
    with pytest.raises(UserError, match="2 of 14 rows cannot be used"):
        choice().of(train, test, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    files = choice(max_bad_rows=2).of(train, test, tmp_path / "set")
    assert rows_of(files.train) == GOOD
    assert [row["row"] for row in rows_of(tmp_path / "set" / LEFT_OUT)] == [12, 13]


def test_held_out_rows_are_those_with_a_response_too(tmp_path: Path) -> None:
    train = write(tmp_path, *WITHOUT.values(), *GOOD)
    files = choice().of(train, None, tmp_path / "set")
    both = rows_of(files.train) + rows_of(files.test)
    assert sorted(map(json.dumps, both)) == sorted(map(json.dumps, GOOD))
    assert len(rows_of(files.test)) == held_out_rows(len(GOOD))


def test_a_fifth_is_held_out_and_up_to_300_rows_where_that_is_no_more_than_a_third() -> None:
    assert {rows: held_out_rows(rows) for rows in (10, 300, 900, 1500, 10_000)} == {
        10: 3,
        300: 100,
        900: 300,
        1500: 300,
        10_000: 2000,
    }


def test_rows_are_held_out_once_and_for_all(tmp_path: Path) -> None:
    mine = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(20)]
    rows = write(tmp_path, *mine, name="mine.jsonl").read_text().splitlines()
    first, again = (
        [path.read_text().splitlines() for path in (files.train, files.test)]
        for files in (split(tmp_path / "mine.jsonl", None, tmp_path / name) for name in "ab")
    )
    assert first == again and len(first[1]) == 6 and sorted(first[0] + first[1]) == sorted(rows)
    assert first[1] != rows[-6:] and first[1] != rows[:6]
    array = tmp_path / "array.json"
    array.write_text(json.dumps([json.loads(row) for row in rows]))
    assert split(array, None, tmp_path / "c").test.read_text().splitlines() == first[1]


@pytest.mark.parametrize("held_out", [True, False])
def test_tables_and_columns_of_other_names_become_files_that_every_job_reads(
    tmp_path: Path, held_out: bool
) -> None:
    rows = "".join(f"q{number},a{number}\n" for number in range(12))
    (tmp_path / "mine.csv").write_text("ask,answer\n" + rows)
    test = tmp_path / "mine.csv" if held_out else None
    files = split(tmp_path / "mine.csv", test, tmp_path / "set", "ask=user,answer=assistant")
    for path, count in ((files.train, 12 if held_out else 8), (files.test, 12 if held_out else 4)):
        file = read_conversations(path)
        assert len(file.conversations) == count and file.bad_rows == []
    row = read_conversations(files.train).conversations[0]
    assert row.messages[0].content == row.messages[1].content.replace("a", "q")


def test_too_few_rows_to_hold_some_out_is_an_error(tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text('{"prompt": "a", "completion": "b"}\n' * 9)
    with pytest.raises(UserError, match="9 usable rows are too few"):
        split(few, None, tmp_path / "x")


# -- mixtures ----------------------------------------------------------------------------------------------


def mixture(folder: Path, text: str) -> Path:
    """A mixture of twelve rows, one without a response, and ten that are of a data set by name."""
    write(folder, *GOOD[:5], WITHOUT["empty"], *GOOD[5:], name="a.jsonl")
    others = [chat(("user", f"Query {i}?"), ("assistant", f"Reply {i}.")) for i in range(10)]
    write(folder, *({**row, "dataset": "named"} for row in others), name="b.jsonl")
    path = folder / "mix.yaml"
    path.write_text(text)
    return path


def test_a_mixture_is_trained_on_in_its_proportions_without_the_rows_held_out(tmp_path: Path) -> None:
    path = mixture(tmp_path, "files: {a.jsonl: 3, b.jsonl: 1}")
    files = choice().of(path, None, tmp_path / "set")
    assert files.trained_on == files.mixture == tmp_path / "set" / "mix_train.yaml"
    read = read_conversations(row_files([str(files.mixture)]))
    assert read.proportions == (0.75, 0.25)
    held = held_out_rows(22)
    assert read.rows == len(rows_of(files.train)) == 22 - held and len(rows_of(files.test)) == held
    texts = [[m["content"] for m in row["messages"]] for row in rows_of(files.train)]
    assert [[message.content for message in row.messages] for row in read.conversations] == texts
    assert [row["dataset"] for row in rows_of(files.train)] == [row.dataset for row in read.conversations]
    assert {row["dataset"] for row in (*rows_of(files.train), *rows_of(files.test))} == {"a", "named"}
    (left_out,) = rows_of(tmp_path / "set" / LEFT_OUT)
    assert (left_out["file"], left_out["row"], left_out["line"]) == (str(tmp_path / "a.jsonl"), 5, 6)
    written = json.loads((tmp_path / "set" / ROWS).read_text())["train"]
    assert written["sha256"] == read.sha256 and written["from"] == str(path)
    again = choice().of(path, None, tmp_path / "set")
    assert again == files


def test_a_mixture_without_proportions_is_one_file(tmp_path: Path) -> None:
    path = mixture(tmp_path, "files: [a.jsonl, b.jsonl]")
    test = write(tmp_path, *GOOD, name="test.jsonl")
    files = choice().of(path, test, tmp_path / "set")
    assert files.mixture is None and files.trained_on == files.train
    assert [row["dataset"] for row in rows_of(files.train)] == ["a"] * 12 + ["named"] * 10
    with pytest.raises(UserError, match="is a mixture of files"):
        choice().of(test, path, tmp_path / "other")


def test_a_comparison_trains_on_the_mixture_and_reports_on_it(tmp_path: Path) -> None:
    path = mixture(tmp_path, "files: {a.jsonl: 3, b.jsonl: 1}")
    files = choice().of(path, None, tmp_path / "set")
    options = ComparisonOptions(str(tmp_path / "model"), [str(path)], str(tmp_path))
    jobs, runs = plan(options, files)
    training = [job for job in jobs if job.script == "finetune"]
    for job in training:
        assert job.arguments[job.arguments.index("--train_file") + 1] == str(files.mixture)
        assert job.inputs == [files.train, files.mixture]
    losses = next(job for job in jobs if job.script == "compute_loss")
    assert str(files.train) in losses.arguments
    report = report_job(options, runs, [files]).arguments
    assert report[report.index("--train_file") + 1] == str(files.mixture)
    ratio = file_length_ratio(files.trained_on)
    assert (ratio["rows"], ratio["sha256"]) == (len(rows_of(files.train)), files.counts["train"]["sha256"])


def test_usable_rows_of_a_mixture_are_in_its_proportions_and_the_others_are_listed(tmp_path: Path) -> None:
    path = mixture(tmp_path, "files: {a.jsonl: 1, b.jsonl: 3}")
    used = choice().usable(path)
    assert [row.dataset for row in used.conversations] == ["a"] * 3 + ["named"] * 10
    assert len({row.row for row in used.conversations}) == 13
    assert Counter(line["reason"] for line in used.left_out) == {
        "no response to train": 1,
        "beyond its file's share of the mixture": 9,
    }
    assert {line["file"] for line in used.left_out} == {str(tmp_path / "a.jsonl")}
    rows = {line["row"] for line in used.left_out} | {row.row for row in used.conversations if row.row < 13}
    assert rows == set(range(13))
    assert choice().usable(path) == used
    path.write_text("files: [a.jsonl, b.jsonl]")
    assert len(choice().usable(path).conversations) == 22


def test_a_file_of_which_no_row_is_left_to_train_on_is_named(tmp_path: Path) -> None:
    write(tmp_path, *GOOD, *GOOD, name="a.jsonl")
    write(tmp_path, WITHOUT["empty"], name="b.jsonl")
    path = tmp_path / "mix.yaml"
    path.write_text("files: {a.jsonl: 3, b.jsonl: 1}")
    with pytest.raises(UserError, match=r"b\.jsonl: none of its rows is trained on, so it cannot be 25\.0%"):
        choice().of(path, None, tmp_path / "set")
    with pytest.raises(UserError, match=r"b\.jsonl: has no usable row, so it cannot be 25\.0% of the rows"):
        choice().usable(path)
