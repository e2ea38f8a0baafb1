"""Statistics of a file's lengths in words, as the paper's Table 5 and Figure 7 give them (`rows.words`
counts)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, multimode
from typing import Any

from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.rows.words import Characters, length_ratio, message_words

# How far the shares of scripts without spaces may lie apart before a ratio compares characters with words.
_SHARES_APART = 0.25
_QUANTILES = {"least": 0.0, "p5": 0.05, "p25": 0.25, "p75": 0.75, "p95": 0.95, "most": 1.0}


@dataclass(frozen=True)
class RowLengths:
    """Words of each row, in file order."""

    instruction: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    by_role: dict[str, list[int]] = field(default_factory=dict)
    """Words of each role's messages, for the roles that occur; 0 where a row has none."""
    instruction_characters: Characters = field(default_factory=Characters)
    output_characters: Characters = field(default_factory=Characters)
    """Of all rows: what tells whether white space parts their words."""

    @property
    def set_apart(self) -> bool:
        """Return whether words of scripts without spaces were set apart to be counted."""
        return (self.instruction_characters + self.output_characters).need_setting_apart

    @property
    def not_latin_share(self) -> float:
        """Return the share of 1 of all characters that are letters of another script than the Latin one."""
        both = self.instruction_characters + self.output_characters
        return both.not_latin / both.all if both.all else 0.0

    @property
    def total(self) -> list[int]:
        """Return the words of each row, all roles."""
        return [
            instruction + output for instruction, output in zip(self.instruction, self.output, strict=True)
        ]


def row_lengths(conversations: Sequence[Conversation]) -> RowLengths:
    """Return the words of each row, all counted alike (`rows.words`)."""
    instruction, output = Characters(), Characters()
    for conversation in conversations:
        for message in conversation.messages:
            if message.role == "assistant":
                output += Characters.of(message.content)
            else:
                instruction += Characters.of(message.content)
    lengths = RowLengths(instruction_characters=instruction, output_characters=output)
    apart = lengths.set_apart
    for number, conversation in enumerate(conversations):
        counts: Counter[str] = Counter()
        for message in conversation.messages:
            counts[message.role] += message_words(message.role, message.content, apart)
        lengths.output.append(counts["assistant"])
        lengths.instruction.append(counts.total() - counts["assistant"])
        for role, count in counts.items():
            if count:
                column = lengths.by_role.setdefault(role, [])
                column.extend([0] * (number - len(column)) + [count])
    for column in lengths.by_role.values():
        column.extend([0] * (len(conversations) - len(column)))
    return lengths


def mean_and_population_sd(values: Sequence[int]) -> tuple[float, float]:
    """Return mean and population standard deviation of whole numbers, from exact sums."""
    count, total, squares = len(values), sum(values), sum(value * value for value in values)
    return total / count, math.sqrt((count * squares - total * total) / (count * count))


def mode(values: Sequence[int]) -> int:
    """Return the most frequent value; of several, the least."""
    return min(multimode(values))


def row_quantiles(values: Sequence[int]) -> dict[str, int]:
    """Return least, 5 %, 25 %, 75 %, 95 % and most: the value of the row at that rank, never between two
    rows."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {name: ordered[min(last, int(share * len(ordered)))] for name, share in _QUANTILES.items()}


def word_statistics(lengths: RowLengths) -> dict[str, Any]:
    """Return Table 5 and Figure 7 of one file, unrounded: means, population SDs, medians, modes; ratios of
    the means, None where the divisor is 0."""
    statistics: dict[str, Any] = {
        "set_apart": lengths.set_apart,
        "not_latin_share": lengths.not_latin_share,
        "unspaced_share": {
            "instruction": lengths.instruction_characters.unspaced_share,
            "output": lengths.output_characters.unspaced_share,
        },
    }
    columns = {"total": lengths.total, "output": lengths.output, "instruction": lengths.instruction}
    for name, values in columns.items():
        statistics[name], statistics[f"{name}_sd"] = mean_and_population_sd(values)
        statistics[f"{name}_median"], statistics[f"{name}_mode"] = median(values), mode(values)
        statistics[f"{name}_quantiles"] = row_quantiles(values)
    instruction, output = statistics["instruction"], statistics["output"]
    statistics["instruction_to_output"] = length_ratio(instruction, output)
    statistics["output_to_instruction"] = length_ratio(output, instruction)
    statistics["by_role"] = {role: sum(column) / len(column) for role, column in lengths.by_role.items()}
    return statistics


def counting_note(words: Mapping[str, Any], token_ratio: float | None = None) -> str | None:
    """Return how the words of a file were counted, where white space does not part them: a sentence or two;
    None where it does.

    Args:
        words: what `word_statistics` gave.
        token_ratio: of mean instruction tokens to mean output tokens, where tokens were counted.
    """
    if not words["set_apart"]:
        return None
    shares = words["unspaced_share"]
    note = (
        f"{shares['instruction']:.1%} of the characters of instructions and {shares['output']:.1%} of those "
        "of outputs are of scripts that write without spaces. There each Chinese character, kana and wide "
        "punctuation mark counts as a word, and Thai, Lao, Khmer and Burmese words are those of ICU's "
        "dictionaries; the paper's figures are of English words."
    )
    if abs(shares["instruction"] - shares["output"]) < _SHARES_APART:
        return note
    better = (
        "count tokens (--tokenizer_name)" if token_ratio is None else f"in tokens it is {token_ratio:.3g}"
    )
    return (
        f"{note} Instructions and outputs differ in script, so the length ratio compares unlike words: "
        f"{better}."
    )
