"""Keys and columns beside a row's messages that say what its texts are: honoured, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from row_files import write

from instruction_modelling.rows.conversations import read_conversations

ASKED, ANSWERED = {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes."}
CALL = json.dumps({"name": "look", "arguments": {"k": 1}})


def first(tmp_path: Path, row: dict[str, Any]) -> Any:
    read = read_conversations(write(tmp_path, row))
    return next(iter(read.conversations), None) or next(iter(read.bad_rows))


def test_a_call_behind_a_message_keeps_its_thought_or_is_refused(tmp_path: Path) -> None:
    called = {"role": "function_call", "content": CALL, "reasoning_content": "My thought."}
    result = {"role": "tool", "content": "x"}
    blank = {"role": "assistant", "content": "", "train": True}
    message = first(tmp_path, {"messages": [ASKED, blank, called, result, ANSWERED]}).messages[1]
    assert message.reasoning_content == "My thought." and len(message.tool_calls) == 1
    assert message.says_weight
    for before in (ANSWERED, {**blank, "reasoning_content": "First."}, called):
        bad = first(tmp_path, {"messages": [ASKED, before, called, result, ANSWERED]})
        assert bad.reason == "reasoning behind text" and "message 2" in bad.detail
    bad = first(tmp_path, {"messages": [ASKED, blank, {**called, "name": "Ann"}, result, ANSWERED]})
    assert bad.reason == "ambiguous name"


def test_a_part_that_is_a_thought_by_a_flag_is_reasoning(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Secret.", "thought": True}, {"type": "text", "text": "Yes."}]
    message = first(tmp_path, {"messages": [ASKED, {"role": "assistant", "content": parts}]}).messages[1]
    assert (message.content, message.reasoning_content) == ("Yes.", "Secret.")


def test_keys_of_parts_that_nothing_reads_are_named(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Yes.", "citations": [1]}]
    read = read_conversations(write(tmp_path, {"messages": [ASKED, {"role": "assistant", "content": parts}]}))
    assert "content part citations" in read.unread_keys()


@pytest.mark.parametrize(
    ("given", "weight"), [({"train": 0}, 0.0), ({"masked": 1}, 0.0), ({"train": 1}, 1.0), ({"loss": 0}, 1.0)]
)
def test_a_flag_of_a_row_may_be_a_number_but_for_a_loss(
    tmp_path: Path, given: dict[str, int], weight: float
) -> None:
    row = first(tmp_path, {"messages": [ASKED, ANSWERED], **given})
    assert [message.weight for message in row.messages] == [weight, weight]


@pytest.mark.parametrize(
    ("key", "refused", "taken"),
    [("channel", "analysis", "final"), ("channel", "commentary", ""), ("recipient", "functions.look", "all")],
)
def test_an_assistants_message_that_is_no_answer_is_refused(
    tmp_path: Path, key: str, refused: str, taken: str
) -> None:
    bad = first(tmp_path, {"messages": [ASKED, {**ANSWERED, key: refused}, ANSWERED]})
    assert bad.reason == f"{key} is not supported" and "message 1" in bad.detail
    row = first(tmp_path, {"messages": [ASKED, {**ANSWERED, key: taken}]})
    assert row.messages[1].content == "Yes."


@pytest.mark.parametrize("column", ["response", "completion", "output", "answer"])
def test_an_answer_beside_messages_without_one_is_refused(tmp_path: Path, column: str) -> None:
    bad = first(tmp_path, {"messages": [ASKED], column: "It is sunny."})
    assert bad.reason == f"{column} beside messages" and "last message" in bad.detail
    # Messages that have theirs are what is trained.
    assert (
        first(tmp_path, {"messages": [ASKED, ANSWERED], column: "It is sunny."}).messages[1].content == "Yes."
    )


@pytest.mark.parametrize("column", ["label", "kto_tag"])
def test_messages_whose_answer_is_disliked_are_refused(tmp_path: Path, column: str) -> None:
    bad = first(tmp_path, {"messages": [ASKED, ANSWERED], column: False})
    assert bad.reason == "answer that is disliked" and f'"{column}": false' in bad.detail
    assert first(tmp_path, {"messages": [ASKED, ANSWERED], column: True}).messages
