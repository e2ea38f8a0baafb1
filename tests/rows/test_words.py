"""The word counter and the length ratio."""

import pytest
from chat_samples import chats, conversation, texts
from hypothesis import given
from training_runs import SAMPLE

from instruction_modelling.analysis.analysis import analyse
from instruction_modelling.analysis.words import row_lengths
from instruction_modelling.comparison.report.training_data import file_length_ratio
from instruction_modelling.rows.words import length_ratio, message_words, row_words
from instruction_modelling.sources.conversion.subsets import index_rows, row_ratio_spread


def rendered_words(role: str, content: str) -> int:
    """The definition, word for word."""
    return len((f"<|{role}|>\n" + content.strip() + ("</s>" if role == "assistant" else "") + "\n").split())


@given(texts(), texts(["</s>", "\x1c", "\x85", "\u2028"]))
def test_a_message_has_the_words_of_its_rendered_text(first: str, second: str) -> None:
    for role in ("system", "user", "assistant", "tool"):
        for content in (first, second, first + second):
            assert message_words(role, content) == rendered_words(role, content)


@given(chats(texts()))
def test_a_rows_words_are_those_of_the_statistics(chat: list[dict[str, str]]) -> None:
    lengths = row_lengths([conversation(chat)])
    assert row_words((message["role"], message["content"]) for message in chat) == (
        lengths.instruction[0],
        lengths.output[0],
    )


def test_system_and_user_words_are_instruction_and_each_header_counts() -> None:
    messages = [
        ("system", "be kind"),
        ("user", " a\nb "),
        ("assistant", ""),
        ("user", "c"),
        ("assistant", "d e f"),
    ]
    assert row_words(messages) == (3 + 3 + 2, 2 + 4)


def test_a_file_without_output_has_no_ratio() -> None:
    assert length_ratio(3.0, 1.5) == 2.0 and length_ratio(3.0, 0) is None


@pytest.mark.parametrize(("name", "ratio"), [("brief_answers_train", 16.12), ("long_answers_train", 0.17)])
def test_every_command_shows_the_same_ratio_of_a_file(name: str, ratio: float) -> None:
    path = SAMPLE / f"{name}.jsonl"
    words = analyse(path, near=None).results["words"]
    assert round(words["instruction_to_output"], 2) == ratio
    assert file_length_ratio(path)["ratio"] == words["instruction_to_output"]
    index = index_rows(path)
    assert row_ratio_spread(index, range(len(index)))["ratio of mean lengths"] == pytest.approx(
        words["instruction_to_output"]
    )
