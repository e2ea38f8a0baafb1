"""The code taken out of a chat answer: by the shape of the answer, and on HumanEval's own tasks."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from chat_answers import right_answers, wrong_answers
from humaneval_samples import needs_bubblewrap, run_score

from eval.codex_humaneval.completion_text import completion_from_answer, read_answer
from eval.codex_humaneval.problems import load_problems
from eval.thinking import without_thinking

PROMPT = 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef area(r):\n    """Of a circle."""\n'
CODE = "def area(r):\n    square = r ** 2\n    return math.pi * square"
BAD = "def area(r):\n    return 2 * math.pi * r"
AREA = 28.274333882308138


def program_of(answer: str, prompt: str = PROMPT, name: str = "area") -> dict[str, Any]:
    """Run what an answer comes to behind the prompt. (The code is these tests' own, not a model's.)"""
    space: dict[str, Any] = {}
    exec(prompt + completion_from_answer(answer, prompt, name), space)
    return space


RIGHT = dict(right_answers("area", PROMPT, CODE, BAD))
WRONG = dict(wrong_answers("area", CODE, BAD))


@pytest.mark.parametrize("shape", RIGHT)
def test_an_answer_is_read_as_a_person_would(shape: str) -> None:
    assert program_of(RIGHT[shape])["area"](3) == pytest.approx(AREA), RIGHT[shape]


@pytest.mark.parametrize("shape", WRONG)
def test_nothing_else_is_read_into_an_answer(shape: str) -> None:
    try:
        value = program_of(WRONG[shape])["area"](3)
    except SyntaxError:
        value = None
    assert value != pytest.approx(AREA)


def test_tasks_of_the_benchmark_pass_by_their_own_solutions_in_every_shape() -> None:
    """Each task in one shape, so that all shapes and all tasks occur."""
    shapes = list(RIGHT)
    wrong = []
    for number, problem in enumerate(load_problems().values()):
        prompt, name = problem["prompt"], problem["entry_point"]
        start = prompt.rindex(f"def {name}")
        header = prompt[start:].split("\n")[0]
        good = f"{prompt[:start]}{header}\n{problem['canonical_solution']}".strip("\n")
        bad = f"{header}\n    return object()"
        shape = shapes[number % len(shapes)]
        if shape == "code_on_the_fences_line" and not good.startswith(("def ", "import ", "from ")):
            continue
        try:
            space = program_of(dict(right_answers(name, prompt, good, bad))[shape], prompt, name)
            exec(problem["test"], space)
            space["check"](space[name])
        except Exception as error:
            wrong.append((problem["task_id"], shape, error))
    assert not wrong


@pytest.mark.parametrize(
    ("answer", "completion", "read_as"),
    [
        (f"```python\n{CODE}\n\nprint(area(1))\n```", f"\n{CODE}\n", "function"),
        (
            "```python\nimport cmath\nTWO = 2\n```\n"
            "```python\ndef area(r):\n    return cmath.pi * r ** TWO\n```",
            "\nimport cmath\n\nTWO = 2\n\ndef area(r):\n    return cmath.pi * r ** TWO\n",
            "function",
        ),
        ("```\nx = r\n    return x\n```", "    x = r\n    return x\n", "body"),
        ("I cannot do that.", "    I cannot do that.\n", "no code"),
        ("```python\ndef other(r):\n    return 1\n```", "\ndef other(r):\n    return 1\n", "no code"),
        ("  \n", "\n", "empty"),
    ],
)
def test_what_is_run_is_the_answers_own_text(answer: str, completion: str, read_as: str) -> None:
    read = read_answer(answer, PROMPT, "area")
    assert (read.completion, read.read_as) == (completion, read_as)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("def area(r):\n", "```\ndef area(r):\n  return 3 * r\n```"),
        ("def area(r):\n", "return 3 * r"),
        ('def area(r):\n  """Doc."""', "return 3 * r"),
        ('def area(r):\n  """Doc."""', "def area(r): return 3 * r"),
        ('def area(r):\n\t"""Doc."""\n', "x = 3 * r\nreturn x"),
        ('def area(r):\n    """Doc."""\n    ', "    return 3 * r"),
    ],
)
def test_prompts_of_other_indentations_and_ends_take_an_answer(prompt: str, answer: str) -> None:
    assert program_of(answer, prompt)["area"](2) == 6


def test_a_settings_statement_and_a_table_that_is_filled_stay() -> None:
    code = (
        "import sys\nsys.setrecursionlimit(4321)\nTABLE = {}\nfor i in range(5):\n    TABLE[i] = i * i\n"
        "def area(r):\n    area.calls += 1\n    return TABLE[r], sys.getrecursionlimit()\n"
        "area.calls = 0\nresult = area(2)\nprint(result)\nassert result == 'no'\n"
    )
    import sys

    limit = sys.getrecursionlimit()
    try:
        space = program_of(f"```python\n{code}```")
        assert space["area"](3) == (9, 4321) and space["area"].calls == 1
    finally:
        sys.setrecursionlimit(limit)


def test_thoughts_are_left_out_and_the_rest_stays() -> None:
    assert without_thinking("<think>a</think>b<think>c</think>d") == "bd"
    assert without_thinking("a</think>b") == "b"
    assert without_thinking("a<THINK>b") == "a"
    assert without_thinking("<think>a<think>b</think>c</think>d") == "d"
    assert without_thinking("analysis of this: a < b") == "analysis of this: a < b"
    assert without_thinking("<thinker>a</thinker>") == "<thinker>a</thinker>"


@pytest.mark.parametrize(
    "answer",
    [
        "-" * 200_000,
        "(" * 5000,
        "<think>" * 20_000,
        "a `" * 30_000,
        "```\n" * 500,
        "\0\ud800",
        "x\n" + "\n \n" * 5000,
        " " * 50_000,
    ],
)
def test_no_answer_is_too_strange_to_be_read(answer: str) -> None:
    assert read_answer(answer, PROMPT, "area").read_as in ("no code", "empty")


# -- the script -------------------------------------------------------------------------------------------


@needs_bubblewrap
def test_raw_chat_answers_are_scored_and_what_was_run_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {
        "task_id": "T/0",
        "prompt": PROMPT,
        "entry_point": "area",
        "test": "def check(f):\n    assert abs(f(3) - 28.27433388) < 1e-6\n",
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    answers: list[dict[str, str | None]] = [
        {"answer": f"<think>{BAD}</think>\n```python\n{CODE}\n```"},
        {"response": "return half(2 * math.pi * r ** 2)"},
        {"content": f"```python\n{BAD}\n```"},
        {"answer": None},
        {"text": "I'd rather not."},
    ]
    with gzip.open(tmp_path / "answers.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"task_id": "T/0", **answer}) + "\n" for answer in answers)
    given = ["--problem_file", tmp_path / "tasks.jsonl", "--output_file", tmp_path / "out.json"]
    monkeypatch.setattr("eval.codex_humaneval.verdicts.check_sandbox", lambda sandbox: None)
    assert run_score(monkeypatch, Path("--chat_answers"), tmp_path / "answers.jsonl.gz", *given) == 0
    said = capsys.readouterr().out
    assert (
        "5 chat answers: 2 with the whole function, 1 with its body, 1 without code for it, 1 empty" in said
    )
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["pass@1"] == pytest.approx(0.4)
    verdicts = results["verdicts"]
    assert [verdict["passed"] for verdict in verdicts] == [True, True, False, False, False]
    assert [one["read_as"] for one in verdicts] == ["function", "body", "function", "empty", "no code"]
    assert verdicts[0]["completion"] == f"\n{CODE}\n"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"task_id": "HumanEval/0", "answer": "a", "text": "b"}], "has several of answer, response"),
        ([{"task_id": "HumanEval/0", "reply": "a"}], "has no answer, response"),
        ([{"task_id": "HumanEval/999", "answer": "a"}], "there is no task 'HumanEval/999'"),
    ],
)
def test_lines_that_are_no_answers_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: Any, said: str
) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_score(monkeypatch, Path("--chat_answers"), tmp_path / "a.jsonl") == 2
    error = capsys.readouterr().err
    assert said in error and "a.jsonl:1" in error
