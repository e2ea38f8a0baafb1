"""The word counter and the length ratio."""

import random

import numpy as np
import pytest
from chat_samples import assistant, chats, conversation, texts, user
from hypothesis import given
from training_runs import SAMPLE

from instruction_modelling.analysis.analysis import analyse
from instruction_modelling.analysis.words import counting_note, row_lengths, word_statistics
from instruction_modelling.comparison.report.training_data import file_length_ratio
from instruction_modelling.rows.words import length_ratio, message_words, row_words, text_words
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


def test_words_are_set_apart_where_one_character_in_a_thousand_needs_it() -> None:
    # Header and five words; header, five characters and a mark.
    assert row_words([("user", "a b c d e"), ("assistant", "今天很好吗？")]) == (6, 7)
    # 2,000 letters and one character: counted as the paper counts.
    rare = [("user", "ab " * 1000), ("assistant", "日本")]
    assert row_words(rare)[1] == 2 and row_words([("user", "ab " * 800), rare[1]])[1] == 3
    assert text_words("ประเทศไทยคืออะไร") == text_words("ประเทศไทย คือ อะไร") == 3


def test_a_file_of_chinese_has_the_words_of_the_same_file_with_spaces() -> None:
    draw = random.Random(5)
    characters = [chr(code) for code in range(0x4E00, 0x4E00 + 500)]
    long, short = ("".join(draw.choices(characters, k=length)) for length in (99, 10))
    plain = conversation([user(long + "？"), assistant(short + "。")])
    spaced = conversation([user(" ".join(long + "？")), assistant(" ".join(short + "。"))])
    for rows in ([plain], [spaced]):
        lengths = row_lengths(rows)
        assert (lengths.instruction, lengths.output, lengths.set_apart) == ([101], [12], True)
    statistics = word_statistics(row_lengths([plain, conversation([user("Why?"), assistant("So.")])]))
    assert statistics["unspaced_share"] == {"instruction": 99 / 104, "output": 10 / 14}


@pytest.mark.parametrize(
    ("question", "answer", "share"),
    [
        ("Why?", "“Naïve” — ok…", 0.0),
        ("क्या?", "So.", 2 / 8),
        ("Почему?", "Так.", 9 / 11),
        ("今日", "です", 1.0),
    ],
)
def test_letters_of_other_scripts_than_the_latin_one_are_counted(
    question: str, answer: str, share: float
) -> None:
    words = word_statistics(row_lengths([conversation([user(question), assistant(answer)])]))
    assert words["not_latin_share"] == pytest.approx(share)


def test_a_note_says_how_words_were_counted_and_where_the_ratio_compares_unlike_words() -> None:
    def note(question: str, answer: str, token_ratio: float | None = None) -> str | None:
        rows = [conversation([user(question), assistant(answer)])]
        return counting_note(word_statistics(row_lengths(rows)), token_ratio)

    assert note("Why?", "Because.") is None
    alike = note("今天天气好吗", "很好")
    assert alike and alike.startswith("100.0% of the characters of instructions and 100.0%")
    assert "unlike" not in alike
    unlike = note("Translate to Chinese: how are you?", "你好吗")
    assert unlike and "0.0% of the characters of instructions" in unlike
    assert "compares unlike words: count tokens (--tokenizer_name)" in unlike
    assert (note("Translate: how are you?", "你好吗", 2.5) or "").endswith("in tokens it is 2.5.")


def test_a_file_without_output_has_no_ratio() -> None:
    assert length_ratio(3.0, 1.5) == 2.0 and length_ratio(3.0, 0) is None


@pytest.mark.parametrize(("name", "ratio"), [("brief_answers_train", 16.12), ("long_answers_train", 0.17)])
def test_every_command_shows_the_same_ratio_of_a_file(name: str, ratio: float) -> None:
    path = SAMPLE / f"{name}.jsonl"
    words = analyse(path, near=None).results["words"]
    assert round(words["instruction_to_output"], 2) == ratio
    assert file_length_ratio(path)["ratio"] == words["instruction_to_output"]
    index = index_rows(path)
    assert row_ratio_spread(index, np.arange(len(index)))["ratio of mean lengths"] == pytest.approx(
        words["instruction_to_output"]
    )
