"""The code taken out of a chat answer."""

from typing import Any

import pytest

from eval.codex_humaneval.completion_text import completion_from_answer

PROMPT = 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef area(r):\n    """Of a circle."""\n'


CODE = "def area(r):\n    return math.pi * r ** 2"


def value_of(answer: str) -> float:
    space: dict[str, Any] = {}
    exec(PROMPT + completion_from_answer(answer, PROMPT, "area"), space)
    return space["area"](2)


@pytest.mark.parametrize(
    "answer",
    [
        f"Here it is:\n\n```python\n{CODE}\n```\nThis squares the radius.",
        f"```\n{CODE}\n```",
        f"```python\n{CODE}",
        f"~~~py\n{CODE}\n~~~",
        f"```python\r\n{CODE.replace(chr(10), chr(13) + chr(10))}\r\n```\r\n",
        f"First an example:\n```python\nprint(area(1))\n```\nand the function:\n```python\n{CODE}\n```",
        f"Run\n```bash\npip install numpy\n```\nthen\n```python\n{CODE}\n```",
        f"  1. So:\n\n    ```python\n    {CODE.replace(chr(10), chr(10) + '    ')}\n    ```\n",
        CODE,
        f"Sure! This is it.\n\n{CODE}\n\nIt multiplies pi by the square.",
        "from math import pi\n\ndef area(r):\n    return pi * r ** 2\n\nHope this helps",
        "    return math.pi * r ** 2\n",
        "return math.pi * r ** 2",
        "```python\nreturn math.pi * r ** 2\n```",
        "```python\n    square = r ** 2\n    return math.pi * square\n```",
        f"{CODE}\n\nprint(area(2))\n```",
    ],
)
def test_the_function_is_taken_out_of_an_answer(answer: str) -> None:
    assert value_of(answer) == pytest.approx(12.566370614)


def test_what_the_prompt_defines_is_there_for_a_whole_function() -> None:
    assert value_of("```python\ndef area(r):\n    return half(4 * math.pi * r)\n```") == pytest.approx(
        12.566370614
    )


@pytest.mark.parametrize(
    "answer", ["", "I cannot do that.", "```\n```", '```json\n{"a": 1}\n```', "\n\n\n", "```python\n```"]
)
def test_an_answer_without_code_gives_a_completion_that_fails(answer: str) -> None:
    with pytest.raises((SyntaxError, AssertionError)):
        assert value_of(answer) == 1
