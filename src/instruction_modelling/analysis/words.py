"""Lengths in words, counted as the paper's Table 5 and Figure 7 count them.

A message's words are the whitespace-separated words of its text in the paper's format,

    len(("<|role|>\\n" + content.strip() + ("</s>" if role == "assistant" else "") + "\\n").split())

so the header is a word, and so is the end mark of an empty response. The output of a row is the sum over its
assistant messages, the instruction that over all others (system and tool messages too), the total both."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from instruction_modelling.rows.conversations import Conversation


def message_words(role: str, content: str) -> int:
    """Words of one message in the paper's format."""
    count = len(content.split())
    return 1 + (max(count, 1) if role == "assistant" else count)


@dataclass(frozen=True)
class Lengths:
    """Words of each row, in file order."""

    instruction: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    by_role: dict[str, list[int]] = field(default_factory=dict)
    """Words of each role's messages, for the roles that occur; 0 where a row has none."""

    @property
    def total(self) -> list[int]:
        """Words of each row, all roles."""
        return [a + b for a, b in zip(self.instruction, self.output, strict=True)]


def row_lengths(conversations: Sequence[Conversation]) -> Lengths:
    """The words of each row."""
    lengths = Lengths()
    for number, conversation in enumerate(conversations):
        counts: Counter[str] = Counter()
        for message in conversation.messages:
            counts[message.role] += message_words(message.role, message.content)
        lengths.output.append(counts["assistant"])
        lengths.instruction.append(counts.total() - counts["assistant"])
        for role, count in counts.items():
            if count:
                column = lengths.by_role.setdefault(role, [])
                column.extend([0] * (number - len(column)) + [count])
    for column in lengths.by_role.values():
        column.extend([0] * (len(conversations) - len(column)))
    return lengths


def mean_and_sd(values: Sequence[int]) -> tuple[float, float]:
    """Mean and population standard deviation of whole numbers, from exact sums."""
    count, total, squares = len(values), sum(values), sum(value * value for value in values)
    return total / count, math.sqrt((count * squares - total * total) / (count * count))


def mode(values: Sequence[int]) -> int:
    """The most frequent value; of several, the least."""
    counts = Counter(values)
    most = max(counts.values())
    return min(value for value, count in counts.items() if count == most)


def quantiles(values: Sequence[int]) -> dict[str, int]:
    """Least, 5 %, 25 %, 75 %, 95 % and most: the value at that place of the sorted rows."""
    ordered = sorted(values)
    return {
        name: ordered[min(len(ordered) - 1, int(part * len(ordered)))]
        for name, part in (
            ("least", 0.0),
            ("p5", 0.05),
            ("p25", 0.25),
            ("p75", 0.75),
            ("p95", 0.95),
            ("most", 1.0),
        )
    }


def word_statistics(lengths: Lengths) -> dict[str, Any]:
    """Table 5 and Figure 7 of one file, unrounded: means, population SDs, medians, modes; ratios of the
    means, null where the divisor is 0."""
    found: dict[str, Any] = {}
    for name, values in (
        ("total", lengths.total),
        ("output", lengths.output),
        ("instruction", lengths.instruction),
    ):
        found[name], found[f"{name}_sd"] = mean_and_sd(values)
        found[f"{name}_median"], found[f"{name}_mode"] = median(values), mode(values)
        found[f"{name}_quantiles"] = quantiles(values)
    instruction, output = found["instruction"], found["output"]
    found["instruction_to_output"] = instruction / output if output else None
    found["output_to_instruction"] = output / instruction if instruction else None
    found["by_role"] = {role: sum(column) / len(column) for role, column in lengths.by_role.items()}
    return found
