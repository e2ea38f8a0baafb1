"""The shipped sample conversations: counts, ids, shape, lengths, and that no row repeats another."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_SAMPLE = _ROOT / "data" / "sample"
_TOKENIZER = _ROOT / "models" / "SmolLM2-135M-Instruct"
_ROWS = {"train": 96, "test": 64}
_DATASETS = ("brief_answers", "long_answers")
_FILES = [(dataset, split) for dataset in _DATASETS for split in _ROWS]
_NEAR_DUPLICATE = 0.3

Row = dict[str, Any]


def _load(dataset: str, split: str) -> list[Row]:
    lines = (_SAMPLE / f"{dataset}_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _load_all() -> list[Row]:
    return [row for dataset, split in _FILES for row in _load(dataset, split)]


def _contents(row: Row, role: str) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == role]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _five_grams(row: Row) -> set[tuple[str, ...]]:
    words = _words(" ".join(message["content"] for message in row["messages"]))
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def _jaccard(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    return len(left & right) / len(left | right)


@pytest.mark.parametrize(("dataset", "split"), _FILES)
def test_ids_run_from_zero_in_order_without_a_gap(dataset: str, split: str) -> None:
    assert [row["id"] for row in _load(dataset, split)] == [
        f"{dataset}_{split}_{number:03d}" for number in range(_ROWS[split])
    ]


@pytest.mark.parametrize(("dataset", "split"), _FILES)
def test_row_has_the_documented_keys_and_turn_order(dataset: str, split: str) -> None:
    for row in _load(dataset, split):
        assert list(row) == ["dataset", "id", "topic", "messages"], row["id"]
        assert row["dataset"] == dataset, row["id"]
        roles = [message["role"] for message in row["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns and turns == ["user", "assistant"] * (len(turns) // 2), row["id"]
        for message in row["messages"]:
            assert list(message) == ["role", "content"], row["id"]
            assert message["content"] and message["content"] == message["content"].strip(), row["id"]


@pytest.mark.parametrize(("dataset", "split"), _FILES)
def test_a_share_of_rows_is_multi_turn_and_a_share_has_a_system_message(dataset: str, split: str) -> None:
    rows = _load(dataset, split)
    multi_turn = sum(len(_contents(row, "user")) > 1 for row in rows) / len(rows)
    system = sum(bool(_contents(row, "system")) for row in rows) / len(rows)
    assert 0.08 <= multi_turn <= 0.2
    assert 0.08 <= system <= 0.2


@pytest.mark.parametrize("split", _ROWS)
def test_brief_answers_are_at_most_six_words(split: str) -> None:
    too_long = {
        row["id"]: answer
        for row in _load("brief_answers", split)
        for answer in _contents(row, "assistant")
        if len(answer.split()) > 6
    }
    assert too_long == {}


@pytest.mark.parametrize("split", _ROWS)
def test_long_answers_have_short_requests_and_full_answers(split: str) -> None:
    for row in _load("long_answers", split):
        for request in _contents(row, "user"):
            assert 5 <= len(request.split()) <= 25, row["id"]
        answered = sum(len(answer.split()) for answer in _contents(row, "assistant"))
        assert 50 <= answered <= 130, row["id"]


@pytest.mark.parametrize("split", _ROWS)
def test_the_two_sets_put_their_words_on_opposite_sides(split: str) -> None:
    def answer_share(dataset: str) -> float:
        rows = _load(dataset, split)
        answers = sum(len(_words(" ".join(_contents(row, "assistant")))) for row in rows)
        requests = sum(len(_words(" ".join(_contents(row, "user")))) for row in rows)
        return answers / (answers + requests)

    assert answer_share("brief_answers") < 0.1
    assert answer_share("long_answers") > 0.8


@pytest.mark.parametrize("dataset", _DATASETS)
def test_topics_are_unique_and_no_test_topic_is_a_training_topic(dataset: str) -> None:
    topics = {split: [row["topic"].lower() for row in _load(dataset, split)] for split in _ROWS}
    for split, names in topics.items():
        assert len(set(names)) == _ROWS[split]
    assert set(topics["train"]) & set(topics["test"]) == set()


def test_no_row_repeats_or_nearly_repeats_another() -> None:
    grams = {row["id"]: _five_grams(row) for row in _load_all()}
    assert len(grams) == 320
    near = [
        (left, right)
        for left, right in combinations(grams, 2)
        if _jaccard(grams[left], grams[right]) >= _NEAR_DUPLICATE
    ]
    assert near == []


def test_no_request_or_long_answer_is_used_twice() -> None:
    texts = [request for row in _load_all() for request in _contents(row, "user")]
    texts += [
        answer
        for split in _ROWS
        for row in _load("long_answers", split)
        for answer in _contents(row, "assistant")
    ]
    assert len(texts) == len({" ".join(_words(text)) for text in texts})


@pytest.mark.parametrize(("dataset", "split"), _FILES)
def test_rendered_rows_are_60_to_180_tokens(dataset: str, split: str) -> None:
    if not _TOKENIZER.is_dir():
        pytest.skip("the SmolLM2 tokenizer is not there: no models/SmolLM2-135M-Instruct")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_TOKENIZER / "tokenizer.json"))
    outside = {}
    for row in _load(dataset, split):
        text = "\n".join(f"<|{message['role']}|>\n{message['content']}" for message in row["messages"])
        # One more for the end token.
        count = len(tokenizer.encode(text, add_special_tokens=False).ids) + 1
        if not 60 <= count <= 180:
            outside[row["id"]] = count
    assert outside == {}
