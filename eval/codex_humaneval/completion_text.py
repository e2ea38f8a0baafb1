"""What stands behind a task's prompt, taken out of a chat answer by these rules, in this order:

1. With fenced blocks (``` or ~~~, the last may lack its end): the first that defines the task's function;
   else the first that is Python; else the first.
2. Without: from the first line that starts an import, a decorator, a class or a function; where there is
   none, all of it.
3. Code that defines the function replaces the prompt's: it follows the prompt as a program of its own, so
   that what the prompt imports and defines is there. Other code is the function's body.
4. Lines at the end which are no Python (words about the code) are left out.
"""

import re
import textwrap

from eval.codex_humaneval.problems import is_python

_FENCE = re.compile(
    r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
_STARTS = re.compile(r"^(?:import |from \w[\w.]* import |@|class |def |async def )", re.MULTILINE)


def completion_from_answer(answer: str, prompt: str, entry_point: str) -> str:
    """Return the completion, to be run behind `prompt`; rules above. An answer without code gives one that
    fails."""
    code = textwrap.dedent(_code(answer, entry_point)).strip("\n")
    if _defines(code, entry_point):
        # A prompt whose docstring is its function's body stands by itself.
        opening = "\n" if is_python(prompt) else "    pass\n\n"
        return opening + _cut(code, prompt + opening) + "\n"
    return _cut(textwrap.indent(code, "    "), prompt) + "\n"


def _code(answer: str, entry_point: str) -> str:
    answer = answer.replace("\r\n", "\n")
    blocks = [(match[2].lower(), match[3]) for match in _FENCE.finditer(answer)]
    if not blocks:
        start = _STARTS.search(answer)
        return answer[start.start() :] if start else answer
    defining = [text for _, text in blocks if _defines(textwrap.dedent(text), entry_point)]
    python = [text for language, text in blocks if language in ("python", "python3", "py")]
    return [*defining, *python, blocks[0][1]][0]


def _defines(code: str, name: str) -> bool:
    return re.search(rf"^(?:async )?def {re.escape(name)}\s*\(", code, re.MULTILINE) is not None


def _cut(code: str, before: str) -> str:
    """Return the most lines of the code that are Python behind `before`; all of it where none are."""
    lines = code.split("\n")
    for count in range(len(lines), 0, -1):
        kept = "\n".join(lines[:count]).rstrip()
        if kept and is_python(before + kept + "\n"):
            return kept
    return code
