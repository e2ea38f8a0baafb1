"""The one word counter, and the one length ratio: those of the paper's Table 5 and Figure 7.

A message's words are the whitespace-separated words of its text in the paper's format,

    len(("<|role|>\\n" + content.strip() + ("</s>" if role == "assistant" else "") + "\\n").split())

so the header is a word, and so is the end mark of an empty response. The output of a row is the sum over its
assistant messages, the instruction that over all others (system and tool messages too). The length ratio of a
file is that of the means of the two; the ratio of one row, which subsets are selected by, and ratios of
tokens are other quantities, and say so by their names.

White space parts no words in Chinese, Japanese, Thai, Lao, Khmer, Burmese or Tibetan. Where at least one in a
thousand characters of what is counted (a file, or one row for its own ratio) is of such a script, its words
are set apart first (`rows.scripts`): each Chinese character and kana is a word, Thai words are a
dictionary's. Below that, as in the paper's own files, the count is the paper's to the word."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from instruction_modelling.rows.scripts import letters_not_latin, set_apart, unspaced_letters

# The paper's LIMA has 2 in 10,000.
_SET_APART_FROM = 0.001


class Characters(NamedTuple):
    """How many characters texts have (spaces left out), how many of them are of scripts that write without
    spaces, and how many are letters of another script than the Latin one."""

    all: int = 0
    unspaced: int = 0
    not_latin: int = 0

    @classmethod
    def of(cls, *texts: str) -> "Characters":
        """Count those of texts."""
        return cls(
            sum(len(text) - text.count(" ") for text in texts),
            sum(map(unspaced_letters, texts)),
            sum(map(letters_not_latin, texts)),
        )

    def __add__(self, other: "Characters") -> "Characters":  # type: ignore[override]
        return Characters(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))

    @property
    def unspaced_share(self) -> float:
        """Return the share of 1 that is of scripts without spaces; 0 of no characters."""
        return self.unspaced / self.all if self.all else 0.0

    @property
    def need_setting_apart(self) -> bool:
        """Return whether white space misses words that matter (module docstring)."""
        return needs_setting_apart(self.unspaced, self.all)


def needs_setting_apart(unspaced: Any, characters: Any) -> Any:
    """Return the same of numbers, or of arrays of them."""
    return (unspaced > 0) & (unspaced >= _SET_APART_FROM * characters)


def text_words(text: str) -> int:
    """Return the words of one text, without any header (module docstring)."""
    return _words(text, Characters.of(text).need_setting_apart)


def _words(text: str, apart: bool) -> int:
    return len((set_apart(text) if apart else text).split())


def message_words(role: str, content: str, apart: bool = False) -> int:
    """Return the words of one message in the paper's format (module docstring); `apart` says whether words of
    scripts without spaces are set apart."""
    count = _words(content, apart)
    return 1 + (max(count, 1) if role == "assistant" else count)


def row_words(messages: Iterable[tuple[str, str]], apart: bool | None = None) -> tuple[int, int]:
    """Return the (instruction, output) words of one row, given as (role, content) of each message; `apart` as
    for `message_words`, None where the row itself decides."""
    messages = list(messages)
    if apart is None:
        apart = Characters.of(*(content for _, content in messages)).need_setting_apart
    instruction = output = 0
    for role, content in messages:
        if role == "assistant":
            output += message_words(role, content, apart)
        else:
            instruction += message_words(role, content, apart)
    return instruction, output


def length_ratio(instruction: float, output: float) -> float | None:
    """Return mean instruction words over mean output words; None for a file without output."""
    return instruction / output if output else None
