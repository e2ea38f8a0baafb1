"""Chat answers to a HumanEval task, in the shapes in which models and services give them."""

import re
import textwrap
from collections.abc import Iterator

# ruff: noqa: E501 (an answer is one text)
FENCE = "```"


def _block(code: str, language: str = "python") -> str:
    return f"{FENCE}{language}\n{code}\n{FENCE}\n"


def _argument(code: str, name: str) -> str:
    return re.search(rf"def {name}\((\w+)", code)[1]  # type: ignore[index]


def right_answers(name: str, prompt: str, good: str, bad: str) -> Iterator[tuple[str, str]]:
    """Yield names of shapes and answers that a person would read as `good`.

    Args:
        name: of the task's function.
        prompt: ends within the function, behind its docstring.
        good: the whole function with its imports, right; its body is more than one line.
        bad: the whole function, wrong.
    """
    header, _, body = good[good.index(f"def {name}") :].partition("\n")
    imports = good[: good.index(f"def {name}")]
    body = textwrap.dedent(body)
    lost_first = textwrap.indent(body, "    ").lstrip(" ")
    stub = f"{prompt.rstrip()}\n    pass"
    yield from _several_blocks(name, prompt, good, bad, stub)
    yield from _thoughts(good, bad)
    yield from _text(name, good, bad)
    yield from _fences(good)
    yield from {
        "body_first_line_stripped": lost_first,
        "body_first_line_stripped_and_words": f"{lost_first}\n\nThat is all there is to it: simple.",
        "words_and_body_first_line_stripped": f"So I would write:\n\n{lost_first}\n\nThat is all.",
        "body_only_fenced": _block(body),
        "body_fenced_first_line_stripped": _block(lost_first),
        "body_rest_stripped": f"    {body}",
        "body_after_a_sentence": f"The missing lines:\n\n{textwrap.indent(body, '    ')}\n\nThat is all.",
        "body_then_a_function": f"{textwrap.indent(body, '    ')}\n\n\ndef another():\n    pass\n",
        "body_then_a_function_fenced": _block(
            f"{textwrap.indent(body, '    ')}\n\n\ndef another():\n    pass"
        ),
        "body_in_tabs": _block(textwrap.indent(body, "\t").replace("    ", "\t")),
        "body_needs_a_helper_block": (
            f"{_block('def passed_on(*values):' + chr(10) + '    return values[0] if len(values) == 1 else values')}and\n"
            + _block("result = None\n" + body.replace("return ", "return passed_on(", 1).rstrip() + ")")
            if body.count("return ") == 1 and body.rstrip().split("\n")[-1].startswith("return ")
            else _block(body)
        ),
        "tab_indent": _block(good.replace("    ", "\t")),
        "imports_in_a_block_of_their_own": (
            f"First import:\n{_block(imports or 'import math')}then\n{_block(header + chr(10) + textwrap.indent(body, '    '))}"
        ),
    }.items()


def _several_blocks(name: str, prompt: str, good: str, bad: str, stub: str) -> Iterator[tuple[str, str]]:
    helper = "def passed_on(value):\n    return value\n"
    through = (
        f"{good}\n\n_own_{name} = {name}\n\ndef {name}(*given):\n    return passed_on(_own_{name}(*given))"
    )
    yield from {
        "naive_then_corrected": f"A first version:\n\n{_block(bad)}\nWrong. Corrected:\n\n{_block(good)}",
        "naive_then_corrected_without_fences": f"A first version:\n\n{bad}\n\nWrong. Corrected:\n\n{good}\n\nDone.",
        "corrected_then_cut_off": f"{_block(good)}\nOr with other names:\n\n{FENCE}python\n{bad}\n    if 1 in [",
        "stub_then_code": f"You gave me:\n\n{_block(stub)}\nCompleted:\n\n{_block(good)}",
        "code_then_stub": f"{_block(good)}\nIt has the form you gave:\n{_block(stub)}",
        "dots_then_code": f"{_block(good)}\nIn short:\n{_block(f'def {name}(*given):' + chr(10) + '    ...')}",
        "not_implemented_after": (
            f"{_block(good)}\nOthers begin with\n"
            + _block(f"def {name}(*given):\n    '''Words.'''\n    raise NotImplementedError('later')")
        ),
        "prompt_then_code": f"The task is:\n\n{_block(prompt)}\nSolution:\n\n{_block(good)}",
        "usage_after": f"{_block(good + f'{chr(10)}{chr(10)}print({name})')}\nHope it helps!",
        "usage_in_a_block_of_its_own": f"{_block(good)}\nTry it:\n{_block(f'print({name}(1, 2))')}",
        "usage_with_input": _block(f"{good}\n\nnumber = int(input())\nprint({name}(number))"),
        "usage_with_input_of_an_arguments_name": _block(
            f"{good}\n\n{_argument(good, name)} = int(input())\nprint({name}({_argument(good, name)}))"
        ),
        "wrong_asserts_of_its_own": _block(f"{good}\n\nassert {name}() == 'never'\nprint('all pass')"),
        "tests_of_its_own": _block(
            f"import unittest\n\n{good}\n\nclass Test(unittest.TestCase):\n    def test_it(self):\n"
            f"        self.assertEqual({name}(), 1)\n\nunittest.main()"
        ),
        "main_function": _block(f"{good}\n\ndef main():\n    print({name}(input()))\n\nmain()"),
        "helper_in_other_block": f"Helper:\n{_block(helper)}Then:\n{_block(through)}",
        "helper_in_a_later_block": f"{_block(through)}where\n{_block(helper)}",
        "helper_of_a_helper": (
            f"{_block('ONCE = 1')}{_block('def times(value):' + chr(10) + '    return value if ONCE else None')}"
            + _block(through.replace("passed_on", "times"))
        ),
        "constants_of_constants": (
            f"{_block('ONE = 1' + chr(10) + 'TWO = ONE + ONE')}{_block(good + chr(10) + '_SEEN = (TWO, ONE)')}"
        ),
        "other_language_after": f"{_block(good)}In JavaScript:\n{_block(f'function {name}(x) {{ return x }}', 'js')}",
        "shell_before": f"{_block('pip install numpy', 'bash')}then\n{_block(good)}",
        "doctest_before": f"{_block(f'>>> {name}(1)' + chr(10) + '6', 'pycon')}{_block(good)}",
    }.items()


def _thoughts(good: str, bad: str) -> Iterator[tuple[str, str]]:
    draft = f"First try:\n{_block(bad)}Wrong. Fix it.\n"
    for shape, opening, closing in (
        ("think", "<think>\n", "</think>\n"),
        ("thinking", "<thinking>\n", "</thinking>"),
        ("magistral", "[THINK]", "[/THINK]"),
        ("kimi", "◁think▷", "◁/think▷"),
        ("harmony", "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("harmony_without_tokens", "analysis", "assistantfinal"),
    ):
        yield f"{shape}_then_fenced", f"{opening}{draft}{closing}\n{_block(good)}"
        yield f"{shape}_then_bare", f"{opening}{draft}{closing}\n{good}\n"
    yield "think_without_opening", f"{draft}</think>\n\n{_block(good)}"
    yield "think_twice", f"<think>{draft}</think>So far.\n<think>{draft}</think>\n{_block(good)}"
    yield "think_code_after_answer", f"{_block(good)}<think>\nBut perhaps\n{_block(bad)}"


def _text(name: str, good: str, bad: str) -> Iterator[tuple[str, str]]:
    yield from {
        "bare": good,
        "markdowns_indentation": f"A first one:\n\n{textwrap.indent(bad, '    ')}\n\nNo:\n\n{textwrap.indent(good, '    ')}\n\nSo.",
        "words_around": f"Sure! This is it.\n\n{good}\n\nIt does so",
        "one_word_behind": f"{good}\n\nDone",
        "nbsp_indent": _block(good.replace("    ", "\u00a0" * 4)),
        "wide_spaces": _block(good.replace("    ", "\u3000" * 4)),
        "zero_width": _block("\ufeff" + good.replace("return", "return\u200b")),
        "no_fence_nbsp": good.replace("    ", "\u00a0" * 4),
        "crlf": _block(good).replace("\n", "\r\n"),
        "old_line_ends": _block(good).replace("\n", "\r"),
        "end_token_on_a_line": f"{good}\n<|endoftext|>\n",
        "end_token_on_the_last_line": f"{good}<|im_end|>",
        "end_token_behind_the_fence": f"{_block(good).rstrip()}</s>",
        "end_token_of_deepseek": f"{good}<｜end▁of▁sentence｜>",
        "another_turn_on_the_same_line": f"{good}<|endoftext|>Human: Write another.\n{bad}",
        "another_turn_behind": (
            f"{_block(good)}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nNow badly.\n"
            + _block(f"def {name}(*given):\n    return None")
        ),
        "python_tags": f"[PYTHON]\n{good}\n[/PYTHON]\n",
        "answer_tags": f"<answer>\n{good}</answer>",
        "code_tags": f"<code>{good}</code>",
        "interpreter": _block(
            "\n".join((">>> " if line[:1].strip() else "... ") + line for line in good.split("\n"))
        ),
        "html": _block(good.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")),
        "future_import": _block(f"from __future__ import annotations\n{good}"),
    }.items()


def _fences(good: str) -> Iterator[tuple[str, str]]:
    indented = "\n".join("   " + line for line in _block(good).split("\n"))
    quoted = "\n".join("> " + line for line in _block(good).split("\n"))
    yield from {
        "fenced": _block(good),
        "tildes": f"~~~py\n{good}\n~~~",
        "no_language": _block(good, ""),
        "no_end": f"Here:\n{FENCE}python\n{good}",
        "no_end_and_words": f"{FENCE}python\n{good}\n\nThis adds them up: it is simple.",
        "no_beginning": f"{good}\n{FENCE}\nThis adds them up.",
        "end_on_the_last_line": f"{FENCE}python\n{good}{FENCE}\nSo.",
        "beginning_behind_words": f"The code: {FENCE}python\n{good}\n{FENCE}",
        "code_on_the_fences_line": f"{FENCE}python {good}\n{FENCE}",
        "within_a_longer_fence": f"`{FENCE}markdown\nExplanation\n{_block(good)}`{FENCE}\n",
        "within_a_fence_of_the_same_length": f"{FENCE}markdown\nExplanation\n{_block(good)}{FENCE}\n",
        "unclosed_outer": f"Plan:\n  `{FENCE}python\n  # step one\n\n  {FENCE}\n\nNow:\n\n{_block(good)}",
        "unclosed_before": f"{FENCE}python\nprint('a start'\n\nNow:\n\n{_block(good)}",
        "list_item": f"1. Write it:\n\n{indented}\n2. Done.",
        "behind_a_list_marker": f"1. {indented.lstrip()}\n2. Done.",
        "quoted": f"He says:\n\n{quoted}\nSo.",
        "fence_in_a_docstring": _block(
            good.replace("\n", f'\n    """Words.\n\n    {FENCE}\n    >>> 1\n    {FENCE}\n    """\n', 1)
            if good.startswith("def ")
            else good
        ),
    }.items()


def wrong_answers(name: str, good: str, bad: str) -> Iterator[tuple[str, str]]:
    """Yield names of shapes and answers that a person would read as wrong, or as none."""
    yield from {
        "empty": "",
        "blank": "\n\n\n",
        "refusal": "I'm sorry, I can't help with that.",
        "bad": _block(bad),
        "right_then_wrong": f"{_block(good)}\nBetter:\n{_block(bad)}",
        "wrong_name": _block(good.replace(name, f"another_{name}")),
        "right_in_thoughts_alone": f"<think>{_block(good)}</think>\n{_block(bad)}",
        "thought_never_ends": f"<think>\nPerhaps\n{_block(good)}",
        "stub_alone": _block(f"def {name}(*given):\n    pass"),
        "other_data": _block('{"a": 1}', "json"),
        "no_lines": "```python\n```",
        "nothing_within": "```\n```",
    }.items()
