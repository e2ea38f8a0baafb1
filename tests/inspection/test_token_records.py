"""What the inspector says about every token, and about rows that are left out."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from inspections import ANSWER, GOOD, QUESTION, Inspect, chat, some_rows


def tulu_characters(messages: list[dict[str, str]]) -> tuple[str, list[str]]:
    """The Tülu text of a conversation and the kind of each of its characters, by its definition."""
    text, kinds = "", []
    for index, message in enumerate(messages):
        parts = [("\n" if index else "") + f"<|{message['role']}|>\n", message["content"].strip(), ""]
        if message["role"] == "assistant":
            parts[2] = "</s>"
        for part, kind in zip(parts, ("template", message["role"], "end"), strict=True):
            text += part
            kinds += [kind] * len(part)
    return text, kinds


@pytest.mark.parametrize("name", ["lima_data.jsonl", "alpagasus_3k_dolly.jsonl"])
@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_records_of_real_rows_equal_an_independent_recomputation(
    shared_data: Path, inspect: Inspect, name: str, weight: float
) -> None:
    from tokenizers import Tokenizer

    folder = shared_data / "tokenizers" / "llama2"
    engine = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = some_rows(shared_data, name, 12)
    result = inspect(rows, "--instruction_loss_weight", weight, tokenizer=folder)
    of_kind = {"template": 0.0, "system": weight, "user": weight, "assistant": 1.0, "end": 1.0}
    assert len(result.records) == len(rows)
    for number, (row, record) in enumerate(zip(rows, result.records, strict=True)):
        text, kinds = tulu_characters(row["messages"])
        encoding = engine.encode(text, add_special_tokens=False)
        expected = [{"id": 1, "start": 0, "end": 0, "kind": "template", "weight": 0.0}]
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            kind = kinds[end - 1]
            expected.append({"id": id_, "start": start, "end": end, "kind": kind, "weight": of_kind[kind]})
        assert record == {
            "row": number,
            "part": 0,
            "id": row["id"],
            "text": text,
            "dropped": None,
            "tokens": expected[:2048],
        }


@pytest.mark.parametrize("name", ["lima_data", "alpagasus_3k_dolly"])
@pytest.mark.parametrize("arm", ["IT", "IM"])
def test_released_masks_give_the_labels_of_the_released_code(
    shared_data: Path, inspect: Inspect, name: str, arm: str
) -> None:
    expected = json.loads((shared_data / "released_labels.json").read_text())[f"{name}:{arm}"]["first_rows"]
    with (shared_data / "train" / f"{name}.jsonl").open(encoding="utf-8") as handle:
        rows = [json.loads(next(handle)) for _ in expected]
    flags = ["--mask_style", "released", *(["--use_lm_loss"] if arm == "IM" else [])]
    result = inspect(rows, *flags, tokenizer=shared_data / "tokenizers" / "llama2")
    hashes = []
    for record in result.records:
        labels = [token["id"] if token["weight"] else -100 for token in record["tokens"]]
        hashes.append(hashlib.sha256(json.dumps(labels, separators=(",", ":")).encode()).hexdigest()[:12])
    assert hashes == expected


def test_byte_level_tokens_cover_the_text_and_take_the_kind_of_their_last_character(
    inspect: Inspect, tiny_tokenizer: Path
) -> None:
    from transformers import AutoTokenizer

    rows = [chat("Add 17 and 25. 👩‍🚀 日本", " The sum is 42.\n", "naïve?", ""), chat("\n\n  Oslo?", "Oslo")]
    result = inspect(rows, "--use_lm_loss")
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    for row, record in zip(rows, result.records, strict=True):
        text, kinds = tulu_characters(row["messages"])
        assert record["text"] == text
        assert [token["id"] for token in record["tokens"]] == tokenizer(text)["input_ids"]
        covered = set()
        for token in record["tokens"][1:]:
            assert token["kind"] == kinds[token["end"] - 1]
            assert token["weight"] == (0.0 if token["kind"] == "template" else 1.0)
            covered |= set(range(token["start"], token["end"]))
        assert covered == set(range(len(text)))


def test_message_weights_multiply_and_stay_short_decimals(inspect: Inspect) -> None:
    row = chat(QUESTION, ANSWER)
    row["messages"][0]["weight"] = 0.5
    row["messages"][1]["weight"] = 0.1
    record = inspect([row], "--instruction_loss_weight", 0.2).records[0]
    weights = {token["kind"]: token["weight"] for token in record["tokens"]}
    assert weights == {"template": 0.0, "user": 0.1, "assistant": 0.1, "end": 0.1}


def test_the_weights_shown_are_the_final_ones(inspect: Inspect, tmp_path: Path) -> None:
    row = chat(QUESTION, "No.", QUESTION, ANSWER)
    row["messages"][3] |= {"weight": 0.5, "loss_spans": [[0, len(ANSWER), 0.5]]}
    patterns = tmp_path / "patterns.json"
    patterns.write_text('{"Seine|No": 0.25, "Loire": 2}', encoding="utf-8")
    result = inspect([row, GOOD], "--train_turns", "last", "--loss_patterns", patterns)
    first, second = result.records
    for record, outside in ((first, 0.25), (second, 1.0)):
        start = record["text"].rindex("Seine")
        last = record["text"].rindex("<|assistant|>")
        for token in record["tokens"][1:]:
            weight = {"assistant": outside, "end": 0.5 if record is first else 1.0}.get(token["kind"], 0.0)
            within = start < token["end"] <= start + len("Seine")
            assert token["weight"] == weight * (0.25 if within else 1.0) * (token["end"] > last)
    line = "'Seine|No' x 0.25: 3 matches in 2 rows; 'Loire' x 2: 0 matches in 0 rows"
    assert line in result.out and "the assistant's last turns alone" in result.out
    assert result.summary["loss_patterns"]["Seine|No"] == {
        "weight": 0.25,
        "matches": 3,
        "rows": 2,
        "characters": 12,
        "not_to_the_letter": 0,
    }
    assert [warning for warning in result.summary["warnings"] if "'Loire' matches nothing" in warning]


def test_rows_too_long_are_dropped_or_an_error(inspect: Inspect) -> None:
    rows = [GOOD, chat(QUESTION, ANSWER + " " + ANSWER)]
    length, longer = (len(record["tokens"]) for record in inspect(rows).records)
    result = inspect(rows, "--max_seq_length", length, "--overlong", "drop")
    assert [record["dropped"] for record in result.records] == [None, "longer than --max_seq_length"]
    assert result.code == 0 and result.summary["rows_used"] == 1
    assert result.summary["dropped"] == {"longer than --max_seq_length": 1}
    error = inspect(rows, "--max_seq_length", length, "--overlong", "error")
    assert error.code == 2 and f"({longer} tokens)" in error.error


def test_rows_are_cut_at_the_maximum_length_and_keep_their_whole_text(inspect: Inspect) -> None:
    rows = [GOOD, chat(QUESTION, ANSWER + " " + ANSWER)]
    length, longer = (len(record["tokens"]) for record in inspect(rows).records)
    most = length + 2
    assert most < longer
    result = inspect(rows, "--max_seq_length", most)
    whole, cut = result.records
    assert len(whole["tokens"]) == length
    assert len(cut["tokens"]) == most
    assert cut["text"].endswith(ANSWER + "</s>")
    lengths = result.summary["lengths"]
    assert lengths["row"]["min"] == length
    assert lengths["row"]["max"] == most
    assert lengths["row"]["mean"] == (length + most) / 2
    assert lengths["truncated_rows"] == 1
    assert lengths["longest_before_cutting"] == longer
    assert lengths["tokens_cut"] == longer - most


BAD_ROWS = [
    "{not json",
    GOOD,
    {"id": "w", "messages": [{"role": "wizard", "content": "x"}]},
    {"id": "t", **chat("a", "b"), "tools": [{"type": "function", "function": {"name": "f"}}]},
    {"id": "q", "messages": [{"role": "user", "content": "only a question"}]},
]


def test_rows_left_out_appear_in_their_places_with_the_reason(inspect: Inspect) -> None:
    result = inspect(BAD_ROWS, "--max_bad_rows", 3)
    assert result.code == 0
    assert [(record["row"], record["id"], record["dropped"]) for record in result.records] == [
        (0, "rows_0", "not JSON"),
        (1, "rows_1", None),
        (2, "w", "unknown role"),
        (3, "t", "tools not in this format"),
        (4, "q", "no token with a loss weight"),
    ]
    assert [bool(record["tokens"]) for record in result.records] == [False, True, False, False, False]
    assert [record["text"] for record in result.records[2:]] == ["", "", "<|user|>\nonly a question"]
    assert result.summary["rows"] == 5
    assert result.summary["rows_used"] == 1
    assert result.summary["dropped"] == {
        "not JSON": 1,
        "unknown role": 1,
        "tools not in this format": 1,
        "no token with a loss weight": 1,
    }
    assert result.summary["tokens"] == len(result.records[1]["tokens"])
    (warning,) = result.warned("rows dropped")
    assert "4 of 5" in warning
    assert warning.endswith("rows.jsonl:1)")


def test_too_many_bad_rows_write_everything_and_exit_with_2(inspect: Inspect) -> None:
    result = inspect(BAD_ROWS, "--max_bad_rows", 2)
    assert result.code == 2
    assert len(result.records) == 5
    assert "3 of 5 rows cannot be used" in result.error
    assert "rows.jsonl:3: unknown role" in result.error
    assert "Traceback" not in result.error
    assert result.summary["rows_used"] == 1
    assert QUESTION in result.out


def test_a_file_without_a_usable_row_is_shown_too(inspect: Inspect) -> None:
    result = inspect(["{", "[]"])
    assert result.code == 2
    assert [record["dropped"] for record in result.records] == ["not JSON", "not an object"]
    assert result.summary["by_kind"] == {}
    assert result.summary["arms"] == {"IT": {}, "IM": {}}


def test_rows_without_a_response_for_the_denominator_are_dropped_as_in_training(inspect: Inspect) -> None:
    rows = [GOOD, chat("only a question")]
    flags = ["--use_lm_loss", "--loss_denominator", "response"]
    assert inspect(rows, *flags).records[1]["dropped"] == "no response token for the denominator"
    assert inspect(rows, *flags, "--loss_normalization", "sum").records[1]["dropped"] is None
    assert inspect(rows, "--use_lm_loss").records[1]["dropped"] is None


def test_the_files_are_whole_or_what_they_were(inspect: Inspect, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inspect([GOOD])

    def full_disk(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full_disk)
    after = inspect([chat("Another", "row")])
    assert after.code != 0 and "could not be written: No space left on device" in after.error
    assert (after.records, after.summary, after.page) == (before.records, before.summary, before.page)
