"""What stands behind a task's prompt, taken out of a chat answer by the rules of docs/evaluation.md."""

import ast
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eval.codex_humaneval.answer_blocks import Block, blocks_of, python_part
from eval.codex_humaneval.answer_code import (
    defines,
    function_alone,
    imports_within,
    lacking_definitions,
    names_bound,
    names_of_module,
    returns_outside,
    tree_of,
)
from eval.codex_humaneval.problems import Sample, is_python

ReadAs = Literal["function", "body", "no code", "empty"]


@dataclass(frozen=True)
class ReadAnswer:
    """The completion that an answer comes to, to be run behind the prompt, and what it was taken from."""

    completion: str
    read_as: ReadAs


def completion_from_answer(answer: str, prompt: str, entry_point: str) -> str:
    """Return the completion of `read_answer`."""
    return read_answer(answer, prompt, entry_point).completion


def read_answer(answer: str, prompt: str, entry_point: str) -> ReadAnswer:
    """Return what a chat answer comes to behind the prompt of its task.

    An answer without code for the function gives a completion that fails: what stands there instead.
    """
    blocks = blocks_of(answer)
    programs = [(block, python_part(block.code)) for block in blocks]
    trees = [(block, code, tree) for block, code in programs if (tree := tree_of(code)) is not None]
    indent = _indentation(prompt)
    asked = tree_of(prompt) or tree_of(f"{prompt}\n{indent}pass\n") or ast.Module([], [])
    # A prompt whose docstring is its function's body stands by itself.
    stands = is_python(prompt)
    opening = ("" if prompt.endswith("\n") else "\n") + ("\n" if stands else f"{indent}pass\n\n")
    chosen = _best([(block, code) for block, code, tree in trees if defines(tree, entry_point)])
    others = [code for _, code, _ in trees]
    if chosen is not None:
        code = function_alone(chosen, entry_point).strip("\n")
        # What the prompt's own function imports is in the answer only if it repeats that.
        others = [imports_within(asked), *others]
        helpers = lacking_definitions(code, names_of_module(asked), others)
        return ReadAnswer(opening + (f"{helpers}\n\n" if helpers else "") + code + "\n", "function")
    chosen = _best([(block, code) for block, code, tree in trees if returns_outside(tree)])
    if chosen is not None:
        helpers = lacking_definitions(chosen, names_bound(asked), others)
        body = ("" if prompt.endswith("\n") else "\n") + textwrap.indent(chosen, indent)
        return ReadAnswer(body + "\n" + (f"\n\n{helpers}\n" if helpers else ""), "body")
    return ReadAnswer(_what_is_there(programs, opening, indent), "no code" if answer.strip() else "empty")


def completions_of(
    answers: Sequence[Sample], problems: dict[str, dict[str, str]]
) -> tuple[list[Sample], list[ReadAs]]:
    """Return samples of chat answers as samples of completions, and how each was read."""
    read = [
        read_answer(
            answer.completion, problems[answer.task_id]["prompt"], problems[answer.task_id]["entry_point"]
        )
        for answer in answers
    ]
    samples = [replace(answer, completion=one.completion) for answer, one in zip(answers, read, strict=True)]
    return samples, [one.read_as for one in read]


def how_read(read: Sequence[ReadAs]) -> str:
    """Return in words how many answers were read as what."""
    words = {
        "function": "with the whole function",
        "body": "with its body",
        "no code": "without code for it",
        "empty": "empty",
    }
    return ", ".join(f"{read.count(kind):,} {said}" for kind, said in words.items() if kind in read)


def _best(candidates: list[tuple[Block, str]]) -> str | None:
    """Return the code of the last candidate: of fenced ones the answer does not end within, else of fenced
    ones, else of all."""
    whole = [code for block, code in candidates if block.fenced and block.whole]
    fenced = [code for block, code in candidates if block.fenced]
    every = [code for _, code in candidates]
    return [None, *(whole or fenced or every)][-1]


def _indentation(prompt: str) -> str:
    """Return the indentation of the body that a prompt's function is to have."""
    ends = re.search(r"(?:^|\n)([ \t]+)\S[^\n]*\s*\Z", prompt)
    for indent in ("    ", ends[1] if ends else "    ", "  ", "\t"):
        if is_python(f"{prompt}\n{indent}pass\n"):
            return indent
    return "    "


def _what_is_there(programs: list[tuple[Block, str]], opening: str, indent: str) -> str:
    code = [code for _, code in programs]
    if code and is_python(code[-1]):
        return opening + code[-1] + "\n"
    return textwrap.indent("\n".join(block.code for block, _ in programs), indent) + "\n"
