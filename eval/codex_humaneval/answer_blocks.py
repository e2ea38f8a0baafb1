"""The pieces of a chat answer that may be code: fenced blocks, and runs of code without a fence.

A Markdown parser reads well-formed answers alone: here fences stand at any indentation, inside one another
and within docstrings, share a line with code or prose, and lack their beginning or end.
"""

import html
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from eval.codex_humaneval.answer_code import returns_outside, tree_of
from eval.codex_humaneval.problems import is_python, tree_or_wrong_line
from eval.thinking import without_thinking

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^`]*)")
_FENCE_AROUND_A_LINE = re.compile(r"^([ \t]*```+)(?:(?:python3?|py)\b)?([^\n`]+)```+[ \t]*$", re.MULTILINE)
_CODE_BEHIND_FENCE = re.compile(
    r"^([ \t]*```+(?:python3?|py)?)[ \t]+((?:import |from |def |class |async def |@)[^\n`]*)$", re.MULTILINE
)
_QUOTED_FENCE = re.compile(r"^[ \t]*> ?(?:```|~~~)", re.MULTILINE)
_QUOTE = re.compile(r"^[ \t]*>(?!>) ?", re.MULTILINE)
# At the ends of lines alone: within one they may be what the code is about.
_CODE_TAG = re.compile(
    r"^[ \t]*(?:{0})|(?:{0})[ \t]*$".format(r"\[/?PYTHON\]|</?(?:code|python)>"), re.M | re.I
)
_ANSWER_TAG = re.compile(
    r"^[ \t]*(?:{0})|(?:{0})[ \t]*$".format(r"</?(?:answer|solution|final)>"), re.M | re.I
)
# No code has the first kind in it; the others may be what code is about: at the end of a line alone.
_END_TOKEN = re.compile(
    r"<[|｜](?:im_end|im_start|endoftext|end_of_text|end▁of▁sentence|eot_id|eom_id|eot|end|return|user"
    r"|end_of_turn|start_header_id)[|｜]>|(?:</s>|<eos>|<end_of_turn>|\[/INST\])[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
# Spaces that Python does not take for spaces, and marks that no editor shows.
_SPACES = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_UNSEEN = re.compile(r"[\u200b-\u200d\u2060\ufeff]")
# Of blocks within one another; nobody writes more, and Python's recursion has an end.
_DEEPEST = 20
_STARTS = re.compile(r"(?:import |from \w[\w.]* import |@|class |def |async def )")
_LAMBDA = re.compile(r"[A-Za-z_]\w* *(?::[^=]+)?= *lambda\b")


@dataclass(frozen=True)
class Block:
    """A piece of an answer that may be code, `whole` unless the answer was cut within it."""

    code: str
    fenced: bool
    whole: bool


def blocks_of(answer: str) -> list[Block]:
    """Return the pieces of a chat answer that may be code, in their order; thoughts are no part of it."""
    text = re.sub(r"\r\n?", "\n", without_thinking(answer))
    if _QUOTED_FENCE.search(text):
        text = _QUOTE.sub("", text)
    text = _CODE_TAG.sub("\n```\n", _ANSWER_TAG.sub("\n", _before_its_end(text)))
    text = _FENCE_AROUND_A_LINE.sub(r"\1\n\2\n\1", text)
    text = _CODE_BEHIND_FENCE.sub(r"\1\n\2", text)
    return list(_blocks([part for line in text.split("\n") for part in _fence_apart(line)]))


def _fence_apart(line: str) -> list[str]:
    """Return a line, in two where a fence ends what it says ("return x```", "The code: ```python")."""
    fence = re.search(r"```+\w*[ \t]*$", line)
    before = line[: fence.start()] if fence else ""
    return [before, line[len(before) :]] if before.strip() and "`" not in before else [line]


def _before_its_end(text: str) -> str:
    """Return a text up to its first end token: what a model wrote behind that is no part of its answer."""
    for match in _END_TOKEN.finditer(text):
        if text[: match.start()].strip():
            return text[: match.start()]
    return text


def _blocks(lines: list[str], depth: int = 0) -> Iterator[Block]:
    """Yield the blocks of some lines.

    Args:
        lines: of an answer, or of a block that is no program.
        depth: of how many blocks they are within; the first lines of one are code without another fence.
    """
    within = depth > 0
    loose: list[str] = []
    position = 0
    while position < len(lines):
        fence = _FENCE.fullmatch(lines[position])
        if not fence:
            loose.append(lines[position])
            position += 1
            continue
        yield from _loose_blocks(loose, within)
        loose, within = [], False
        end, closed = _end_of_block(lines, position + 1, fence[2])
        inner = [_outdented(line, len(fence[1])) for line in lines[position + 1 : end]]
        text = "\n".join(inner)
        nested = depth < _DEEPEST and any(map(_FENCE.fullmatch, inner))
        if nested and not is_python(textwrap.dedent(text)):
            yield from _blocks(inner, depth + 1)
        elif text.strip():
            for part in _body_apart(inner):
                code = mended(part)
                yield Block(code, True, closed or is_python(code))
        position = end + 1
    yield from _loose_blocks(loose, within)


def _end_of_block(lines: list[str], start: int, opening: str) -> tuple[int, bool]:
    """Return the number of the line that ends the block which `opening` begins, and whether there is one.

    A fence within a docstring ends nothing, unless what comes of that is no program."""
    ends = [
        number
        for number in range(start, len(lines))
        if (fence := _FENCE.fullmatch(lines[number])) and fence[2].startswith(opening) and not fence[3]
    ]
    if not ends:
        return len(lines), False
    for end in ends:
        text = "\n".join(lines[start:end])
        if text.count('"""') % 2 == 0 and text.count("'''") % 2 == 0:
            return (end if end == ends[0] or is_python(textwrap.dedent(text)) else ends[0]), True
    return ends[0], True


def _outdented(line: str, width: int) -> str:
    """Return a line without the indentation of its block's fence."""
    return line[width:] if not line[:width].strip() else line


def _loose_blocks(lines: list[str], within: bool) -> Iterator[Block]:
    """Yield the code among lines without a fence of their own: from each line that starts an import, a
    decorator, a class, a function or a lambda, as far as it is Python; and what may be a function's body."""
    if not any(line.strip() for line in lines):
        return
    if within:
        yield Block(mended("\n".join(lines)), True, True)
        return
    starts = [number for number, line in enumerate(lines) if _STARTS.match(line) or _LAMBDA.match(line)]
    for part in _indented_parts(lines[: starts[0]] if starts else lines):
        yield Block(part, False, True)
    taken = 0
    for start in starts:
        if start >= taken:
            code = python_part(mended("\n".join(lines[start:])))
            taken = start + max(1, code.count("\n") + 1)
            yield Block(code, False, True)


def _indented_parts(lines: list[str]) -> list[str]:
    """Return the parts of a text that may be code for their indentation: all of it where that is a
    function's body, else its runs of indented lines; all of it where there are none."""
    whole = mended("\n".join(lines))
    tree = tree_of(python_part(whole))
    if tree is not None and returns_outside(tree):
        return [whole]
    runs: list[list[str]] = [[]]
    before = ""
    for line in lines:
        if line[:1] in (" ", "\t") or (not line.strip() and runs[-1]):
            # The line before may have lost its indentation.
            runs[-1] = runs[-1] or [before]
            runs[-1].append(line)
        elif runs[-1]:
            runs.append([])
        before = line
    parts = [_run_of_code(run) for run in runs if any(line.strip() for line in run)]
    returns = [n for n, line in enumerate(lines) if line.startswith("return ") and is_python(line)]
    return parts or [mended("\n".join(lines[returns[0] :])) if returns else whole]


def _run_of_code(run: list[str]) -> str:
    """Return a run of indented lines, with the line before them where both together are a function's body."""
    with_first = mended("\n".join(run))
    tree = tree_of(with_first)
    if run[0].strip() and tree is not None and returns_outside(tree):
        return with_first
    return mended("\n".join(run[1:]))


def _body_apart(lines: list[str]) -> list[str]:
    """Return the text of a block, in two where it goes on from a function's body to other definitions."""
    first = next(line for line in lines if line.strip())
    starts = [number for number, line in enumerate(lines) if _STARTS.match(line)]
    if starts and first[:1] in (" ", "\t"):
        return ["\n".join(lines[: starts[0]]), "\n".join(lines[starts[0] :])]
    return ["\n".join(lines)]


# -- text to Python ---------------------------------------------------------------------------------------


def mended(text: str) -> str:
    """Return a block's text as the Python it was before it was carried here, as far as that can be told.

    Of several readings (its spaces as spaces, its first line's indentation put back, ...) that one counts
    which has the most lines of Python at its beginning, the least changed one of those."""
    readings: dict[str, None] = {}
    spaced = _UNSEEN.sub("", _SPACES.sub(" ", text))
    for reading in (text, spaced, _without_prompts(spaced), spaced.expandtabs(4), html.unescape(spaced)):
        first, newline, rest = reading.strip("\n").partition("\n")
        for variant in (
            textwrap.dedent(reading),
            first.lstrip() + newline + rest,
            first.lstrip() + newline + textwrap.dedent(rest),
            first.lstrip() + newline + textwrap.dedent(_to_last_indented(rest)),
        ):
            readings.setdefault(variant.strip("\n").rstrip())
    best, most = "", -1
    for reading in readings:
        lines = _lines_of_python(reading)
        if lines > most:
            best, most = reading, lines
        if lines == text.strip("\n").rstrip().count("\n") + 1:
            break
    return best


def _to_last_indented(text: str) -> str:
    """Return a text up to its last indented line: words behind a body stand at the margin, and would keep its
    lines from being moved there."""
    lines = text.split("\n")
    while lines and not (lines[-1][:1].isspace() and lines[-1].strip()):
        lines.pop()
    return "\n".join(lines)


def _lines_of_python(code: str) -> int:
    part = python_part(code, "")
    return part.count("\n") + 1 if part else 0


def _without_prompts(text: str) -> str:
    """Return what was typed at an interpreter's prompts (`>>>`), without what it answered."""
    typed = [line for line in text.split("\n") if re.match(r"\s*(?:>>>|\.\.\.)", line)]
    return "\n".join(re.sub(r"^\s*(?:>>>|\.\.\.) ?", "", line) for line in typed) if typed else text


def python_part(code: str, otherwise: str | None = None) -> str:
    """Return the most lines of code, from its first, that are Python; `otherwise` (all of it) where none
    are."""
    lines = code.split("\n")
    count = len(lines)
    while count > 0:
        kept = "\n".join(lines[:count]).rstrip()
        wrong = tree_or_wrong_line(kept)
        if not isinstance(wrong, int):
            return kept or (code if otherwise is None else otherwise)
        # No program goes beyond a line that is wrong, so nothing longer need be tried.
        count = min(count - 1, wrong - 1)
    return code if otherwise is None else otherwise
