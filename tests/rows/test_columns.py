"""`--columns`: columns under names of their own."""

from pathlib import Path
from typing import Any

import pytest
from row_files import GOOD_MESSAGES, write

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.rows.columns import column_problems, parse_columns
from instruction_modelling.rows.conversations import Message, read_conversations

GOOD_QA = {"q": "Hi", "a": "Hello"}


@pytest.mark.parametrize(
    ("columns", "row", "messages"),
    [
        ("q=user,a=assistant", GOOD_QA, GOOD_MESSAGES),
        (" q = User , a=assistant", GOOD_QA | {"messages": []}, GOOD_MESSAGES),
        ("q=instruction,a=output", GOOD_QA, GOOD_MESSAGES),
        ("q=question,a=response", GOOD_QA, GOOD_MESSAGES),
        ("talk=messages", {"talk": [{"role": "user", "content": "Hi"}]}, GOOD_MESSAGES[:1]),
        (
            "a=assistant,q=user,s=system",
            GOOD_QA | {"s": "S"},
            (Message("system", "S"), GOOD_MESSAGES[1], GOOD_MESSAGES[0]),
        ),
        ("q=user,a=assistant,s=system", GOOD_QA | {"s": " "}, GOOD_MESSAGES),
        (
            "q=user,a=assistant,q2=user,a2=assistant,s=system_prompt,w=weight",
            GOOD_QA | {"q2": "1?", "a2": "2", "s": "S", "w": 0.5},
            tuple(
                Message(role, text, weight=0.5)
                for role, text in zip(
                    ("system", "user", "assistant", "user", "assistant"),
                    ("S", "Hi", "Hello", "1?", "2"),
                    strict=True,
                )
            ),
        ),
        ("output=input,input=output", {"instruction": "Hi", "output": "", "input": "Hello"}, GOOD_MESSAGES),
    ],
)
def test_columns_by_role_and_by_known_name(
    tmp_path: Path, columns: str, row: dict[str, Any], messages: tuple[Message, ...]
) -> None:
    file = read_conversations(write(tmp_path, row), columns)
    assert file.bad_rows == []
    assert file.conversations[0].messages == messages


@pytest.mark.parametrize(
    ("columns", "fragments"),
    [
        ("q=asistant", ["'asistant'", "did you mean 'assistant'?"]),
        ("q=mesages", ["did you mean 'messages'?"]),
        ("q=zzz", ["no role and no known column", "there are system, user"]),
        ("q", ["'q'", "COLUMN=ROLE"]),
        ("q=user,", ["''", "COLUMN=ROLE"]),
        ("q=user,q=assistant", ["named twice"]),
        ("q=output,a=output", ["two columns for 'output'"]),
    ],
)
def test_what_cannot_be_meant_is_refused_before_reading(columns: str, fragments: list[str]) -> None:
    (problem,) = column_problems(columns)
    with pytest.raises(UserError) as caught:
        read_conversations("absent.jsonl", columns)
    for fragment in fragments:
        assert fragment in problem and fragment in str(caught.value)


def test_a_column_that_no_row_has_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "Hi", "answer": "Hello"})
    with pytest.raises(UserError, match=r"no row has a column 'anwser'; did you mean 'answer'\?"):
        read_conversations(path, "question=user,anwser=assistant")


def test_rows_that_lack_a_column_are_refused_one_by_one(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD_QA, {"q": "Hi"}, {"q": "Hi", "a": 3}, {"q": "Hi", "a": "b", "output": "c"})
    reasons = [bad.reason for bad in read_conversations(path, "q=user,a=assistant").bad_rows]
    assert reasons == ["missing column", "bad a"]
    reasons = [bad.reason for bad in read_conversations(path, "q=instruction,a=output").bad_rows]
    assert reasons == ["no recognised columns", "bad output", "ambiguous columns"]


def test_other_columns_are_other_conversations_of_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD_QA)
    one, other = (
        read_conversations(path, "q=user,a=assistant"),
        read_conversations(path, "a=user,q=assistant"),
    )
    assert one.sha256 == other.sha256 and one.reading != other.reading


def test_no_option_is_no_change() -> None:
    assert column_problems(None) == [] and not parse_columns(None).text


def test_a_flag_of_columns_that_is_given_again_adds_to_the_one_before() -> None:
    """Else the first columns would be lost without a word, and the rows refused for want of them."""
    flags = ["--model_name_or_path", "m", "--output_dir", "o", "--train_file", "f"]
    again = ["--columns", "q=user", "--columns", "a=assistant", "--columns", "key=id"]
    assert parse_options(FinetuneOptions, [*flags, *again]).columns == "q=user,a=assistant,key=id"
    assert parse_options(FinetuneOptions, [*flags, *again[:2]]).columns == "q=user"
