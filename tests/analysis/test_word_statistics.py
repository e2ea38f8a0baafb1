"""Lengths in words, as the paper's Table 5 and Figure 7 count them."""

import json
import math
import statistics
from collections import Counter
from pathlib import Path

import pytest
from chat_samples import CHATS, assistant, conversation, system, tool, user

from instruction_modelling.analysis.words import mode, row_lengths, word_statistics
from instruction_modelling.rows.conversations import read_conversations

# Name: total, output, its SD, instruction, its SD, and of the output the median and the mode.
PUBLISHED = {
    "lima_data": (484.47, 442.75, 491.34, 41.72, 79.28, 269, 29),
    "alpagasus_3k_dolly": (111.91, 68.08, 106.38, 43.83, 107.53, 36, 7),
}


def rendered_words(role: str, content: str) -> int:
    """The definition, word for word."""
    return len((f"<|{role}|>\n" + content.strip() + ("</s>" if role == "assistant" else "") + "\n").split())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers_come_out(shared_data: Path, name: str) -> None:
    rows = read_conversations(shared_data / "train" / f"{name}.jsonl").conversations
    found = word_statistics(row_lengths(rows))
    keys = ("total", "output", "output_sd", "instruction", "instruction_sd")
    assert [round(found[key], 2) for key in keys] == list(PUBLISHED[name][:5])
    assert (found["output_median"], found["output_mode"]) == PUBLISHED[name][5:]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_number_is_that_of_the_definition(shared_data: Path, name: str) -> None:
    path = shared_data / "train" / f"{name}.jsonl"
    instruction, output = [], []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            counts: Counter[bool] = Counter()
            for message in json.loads(line)["messages"]:
                counts[message["role"] == "assistant"] += rendered_words(message["role"], message["content"])
            instruction.append(counts[False])
            output.append(counts[True])
    found = word_statistics(row_lengths(read_conversations(path).conversations))
    for key, values in (("instruction", instruction), ("output", output)):
        assert found[key] == pytest.approx(statistics.fmean(values), rel=1e-15)
        assert found[f"{key}_sd"] == pytest.approx(statistics.pstdev(values), rel=1e-14)
        assert found[f"{key}_median"] == statistics.median(values)
    assert found["instruction_to_output"] == pytest.approx(sum(instruction) / sum(output), rel=1e-15)


def test_system_and_tool_messages_are_instruction_and_every_row_counts() -> None:
    rows = [
        conversation([system("be brief"), user("one two three"), assistant("a b"), tool("x"), assistant("")]),
        conversation([user("q"), assistant(" \n ")]),
    ]
    lengths = row_lengths(rows)
    # 1 header + 2, 1 + 3, 1 + 1; and 1 + 1.
    assert lengths.instruction == [3 + 4 + 2, 2]
    # 1 + 2 with the end mark on the last word, and 1 + the end mark alone.
    assert lengths.output == [3 + 2, 2]
    assert lengths.by_role == {"system": [3, 0], "user": [4, 2], "assistant": [5, 2], "tool": [2, 0]}
    found = word_statistics(lengths)
    assert (found["total"], found["output"], found["instruction"]) == (9.0, 3.5, 5.5)
    assert (found["output_sd"], found["instruction_sd"]) == (1.5, 3.5)
    assert found["by_role"] == {"system": 1.5, "user": 3.0, "assistant": 3.5, "tool": 1.0}
    assert found["output_to_instruction"] == 3.5 / 5.5


def test_rows_without_responses_have_no_ratio_and_no_division_by_zero() -> None:
    found = word_statistics(row_lengths([conversation([user("only a question")])]))
    assert (
        found["output"] == 0.0
        and found["instruction_to_output"] is None
        and found["output_to_instruction"] == 0.0
    )


def test_of_several_modes_the_least_is_given() -> None:
    assert mode([5, 3, 3, 5, 9]) == 3


def test_the_roles_columns_add_up_to_the_total() -> None:
    lengths = row_lengths([conversation(chat) for chat in CHATS])
    assert [sum(column) for column in zip(*lengths.by_role.values(), strict=True)] == lengths.total
    assert math.isfinite(word_statistics(lengths)["total_sd"])
