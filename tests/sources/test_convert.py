"""Whatever the format, no row vanishes without being counted, and files are whole or as they were."""

import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from conversions import WordTokenizer, contents, converted
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_samples import alpaca_rows, read_lines, write_json, write_lines

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.sources.conversion.convert import convert
from instruction_modelling.sources.conversion.formats import CONVERTERS, raw_files_of


def test_a_limit_draws_rows_as_random_sample_does_and_says_what_was_not_drawn(tmp_path: Path) -> None:
    rows = alpaca_rows("x", 50)
    written, report = converted("gpt4_alpaca", rows, tmp_path, limit=7, seed=5)
    assert [row["id"] for row in written] == [
        f"gpt4_alpaca_{i}" for i in random.Random(5).sample(range(50), k=7)
    ]
    assert [contents(row)[1][1] for row in written] == [
        rows[int(row["id"].rsplit("_", 1)[1])]["output"] for row in written
    ]
    assert report.left_out == {"not drawn": 43}
    assert len(converted("gpt4_alpaca", rows, tmp_path, limit=50)[0]) == 50
    with pytest.raises(UserError, match="a limit cannot be set"):
        converted("unnatural_instructions", [{}], tmp_path, limit=3)


def test_several_files_are_numbered_through_and_named_in_the_card(tmp_path: Path) -> None:
    files = [write_json(tmp_path / f"{i}.json", alpaca_rows(f"file {i}", 3)) for i in range(2)]
    report = convert("stanford_alpaca", files, tmp_path / "out" / "stanford_alpaca_data.jsonl")
    assert [row["id"] for row in read_lines(report.output)] == [f"stanford_alpaca_{i}" for i in range(6)]
    card = json.loads((tmp_path / "out" / "stanford_alpaca_data.card.json").read_text())
    assert card["sources"] == [
        {
            "file": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "bytes": file.stat().st_size,
        }
        for file in files
    ]
    assert card["sha256"] == hashlib.sha256(report.output.read_bytes()).hexdigest() == report.sha256
    assert (card["rows_read"], card["rows_written"], card["refused"], card["options"]["seed"]) == (
        6,
        6,
        {},
        42,
    )
    assert sorted(path.name for path in report.output.parent.iterdir()) == [
        "stanford_alpaca_data.card.json",
        "stanford_alpaca_data.jsonl",
    ]


def test_an_unusable_file_leaves_what_was_there_before(tmp_path: Path) -> None:
    written, report = converted("stanford_alpaca", alpaca_rows("x", 3), tmp_path)
    broken = tmp_path / "broken.json"
    broken.write_text('[{"instruction": "a", "output": "b"}, {"instr')
    with pytest.raises(UserError, match="broken in element 2"):
        converted("stanford_alpaca", broken, tmp_path)
    with pytest.raises(UserError, match=r"none of 2 rows could be converted \(2 no instruction\)"):
        converted("stanford_alpaca", [{"x": 1}, {"x": 2}], tmp_path)
    assert read_lines(report.output) == written
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_an_error_and_leaves_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, report = converted("stanford_alpaca", alpaca_rows("x", 3), tmp_path)

    def full(self: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("instruction_modelling.files.durable._Written.flush", full)
    with pytest.raises(
        UserError, match=r"stanford_alpaca_data\.jsonl could not be written: No space left on device"
    ):
        converted("stanford_alpaca", alpaca_rows("y", 30_000), tmp_path)
    assert read_lines(report.output) == written
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_list_of_refused_rows_goes_when_none_is_refused_any_more(tmp_path: Path) -> None:
    _, report = converted("stanford_alpaca", [*alpaca_rows("x", 1), {}], tmp_path)
    assert report.refusals.exists()
    _, report = converted("stanford_alpaca", alpaca_rows("x", 1), tmp_path)
    assert not report.refusals.exists()


def test_gzipped_files_convert_and_are_found(tmp_path: Path) -> None:
    path = tmp_path / "dolly" / "databricks-dolly-15k.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b'{"instruction": "a", "context": "", "response": "b"}\n'))
    assert raw_files_of("dolly", tmp_path) == [path] and raw_files_of("lima", tmp_path) == []
    assert len(converted("dolly", path, tmp_path)[0]) == 1


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    import tracemalloc

    peaks = []
    for count in (4_000, 24_000):
        # Every tenth row is refused.
        rows = [
            {"instruction": f"say {i} " + "word " * 60, "input": ""} | ({"output": "yes"} if i % 10 else {})
            for i in range(count)
        ]
        path = write_lines(tmp_path / f"{count}.jsonl", rows)
        del rows
        tracemalloc.start()
        report = convert("stanford_alpaca", [path], tmp_path / "out.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (report.rows_written, report.refused.total()) == (count * 9 // 10, count // 10)
    # The larger file alone is 8 MB; the buffers of reading and writing are 3 MB.
    assert peaks[1] < peaks[0] + 1_500_000 and peaks[1] < 6_000_000


TEXTS = st.one_of(
    st.none(), st.text(max_size=6), st.integers(0, 3), st.lists(st.text(max_size=3), max_size=2)
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "from": st.sampled_from(["human", "gpt", "system", "bing", 3, None]),
        "value": TEXTS,
        "role": st.sampled_from(["user", "assistant", "x", None]),
        "content": TEXTS,
    },
)
TREE: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.fixed_dictionaries({"role": st.sampled_from(["prompter", "assistant", "x"]), "text": TEXTS}),
    lambda inner: st.fixed_dictionaries(
        {
            "role": st.sampled_from(["prompter", "assistant"]),
            "text": TEXTS,
            "replies": st.lists(inner, max_size=3),
        },
        optional={
            "deleted": st.booleans(),
            "labels": st.sampled_from([None, {}, {"quality": {}}, {"quality": {"value": 0.5}}]),
        },
    ),
    max_leaves=6,
)
FIELD_VALUES = {
    **dict.fromkeys(
        [
            "instruction",
            "input",
            "output",
            "context",
            "response",
            "inputs",
            "targets",
            "dataset",
            "Prompt",
            "Output",
            "question",
            "system_prompt",
            "Definition",
        ],
        TEXTS,
    ),
    "instances": st.one_of(
        TEXTS,
        st.lists(
            st.fixed_dictionaries({}, optional={"input": TEXTS, "output": TEXTS, "constraints": TEXTS}),
            max_size=3,
        ),
    ),
    "conversations": st.one_of(TEXTS, st.lists(st.one_of(MESSAGE, TEXTS), max_size=4)),
    "messages": st.one_of(TEXTS, st.lists(st.one_of(MESSAGE, TEXTS), max_size=4)),
    "prompt": st.one_of(TEXTS, TREE),
    "Instances": st.lists(st.fixed_dictionaries({}, optional={"input": TEXTS, "output": TEXTS}), max_size=3),
    "Positive Examples": st.one_of(
        st.none(), st.lists(st.fixed_dictionaries({}, optional={"input": TEXTS, "output": TEXTS}), max_size=3)
    ),
}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(CONVERTERS)))
def test_whatever_a_file_holds_every_row_is_written_or_refused_and_nothing_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    rows = data.draw(
        st.lists(st.one_of(st.fixed_dictionaries({}, optional=FIELD_VALUES), TEXTS), min_size=1, max_size=6)
    )
    folder = tmp_path_factory.mktemp("any")
    options: dict[str, Any] = {"best_replies": data.draw(st.sampled_from([None, 1]))}
    if name.startswith("sharegpt"):
        options |= {"max_tokens": data.draw(st.sampled_from([0, 16])), "tokenizer": WordTokenizer()}
    path = write_json(folder / "x.json", rows[0] if CONVERTERS[name].whole_files else rows)
    try:
        _, report = converted(name, path, folder, **options)
    except UserError as error:
        assert "could be converted" in str(error)
        return
    if CONVERTERS[name].one_to_one:
        assert report.rows_read == len(rows)
        numbers = [int(row["id"].rsplit("_", 1)[1]) for row in read_lines(report.output)]
        assert numbers == sorted(numbers)
    # What was written is what training reads.
    assert all(bad.reason == "no content" for bad in read_conversations(report.output).bad_rows)
