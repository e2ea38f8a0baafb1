"""The one word counter, and the one length ratio: those of the paper's Table 5 and Figure 7.

A message's words are the whitespace-separated words of its text in the paper's format,

    len(("<|role|>\\n" + content.strip() + ("</s>" if role == "assistant" else "") + "\\n").split())

so the header is a word, and so is the end mark of an empty response. The output of a row is the sum over its
assistant messages, the instruction that over all others (system and tool messages too). The length ratio of a
file is that of the means of the two; the ratio of one row, which subsets are selected by, and ratios of
tokens are other quantities, and say so by their names."""

from collections.abc import Iterable


def text_words(text: str) -> int:
    """Return how many words whitespace separates in `text`, without any header."""
    return len(text.split())


def message_words(role: str, content: str) -> int:
    """Return the words of one message in the paper's format (module docstring)."""
    count = text_words(content)
    return 1 + (max(count, 1) if role == "assistant" else count)


def row_words(messages: Iterable[tuple[str, str]]) -> tuple[int, int]:
    """Return the (instruction, output) words of one row, given as (role, content) of each message."""
    instruction = output = 0
    for role, content in messages:
        if role == "assistant":
            output += message_words(role, content)
        else:
            instruction += message_words(role, content)
    return instruction, output


def length_ratio(instruction: float, output: float) -> float | None:
    """Return mean instruction words over mean output words; None for a file without output."""
    return instruction / output if output else None
