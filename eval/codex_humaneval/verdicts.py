"""Verdicts on HumanEval samples, and what they come to."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from eval.codex_humaneval.problems import Sample, rates
from eval.sandbox.bubblewrap import Sandbox
from eval.sandbox.execution import Candidate, Verdict, try_all
from eval.sandbox.self_test import check_sandbox
from instruction_modelling.progress import Progress


def require_sandbox() -> None:
    """Tries whether model-written code can be run safely here.

    Raises:
        UserError: it cannot; what is missing.
    """
    with Sandbox() as sandbox:
        check_sandbox(sandbox)


def try_samples(
    samples: list[Sample], problems: dict[str, dict[str, str]], timeout: float, workers: int | None
) -> list[Verdict]:
    """The verdict of each sample, in their order.

    Raises:
        UserError: there is no working sandbox; nothing was run then.
    """
    candidates = [
        Candidate(
            number,
            problems[one.task_id]["prompt"],
            one.completion,
            problems[one.task_id]["test"],
            problems[one.task_id]["entry_point"],
        )
        for number, one in enumerate(samples)
    ]
    verdicts: dict[int, Verdict] = {}
    with Sandbox() as sandbox:
        check_sandbox(sandbox)
        progress = Progress(len(samples), "samples run")
        for verdict in try_all(sandbox, candidates, timeout, workers):
            verdicts[verdict.key] = verdict
            progress.add(1)
    return [verdicts[number] for number in range(len(samples))]


def summary(
    samples: list[Sample], verdicts: list[Verdict], ks: Sequence[int] = (1, 10, 100)
) -> dict[str, Any]:
    """pass@k over the tasks present, and every sample's verdict."""
    return {
        **rates([one.task_id for one in samples], [one.passed for one in verdicts], ks),
        "tasks": len({one.task_id for one in samples}),
        "samples": len(samples),
        "passed": sum(one.passed for one in verdicts),
        "verdicts": [
            {"line": one.line, "task_id": one.task_id, "passed": verdict.passed, "result": verdict.result}
            for one, verdict in zip(samples, verdicts, strict=True)
        ],
    }


def print_summary(results: dict[str, Any]) -> None:
    """pass@k and what went wrong, most often first."""
    print(f"{results['samples']:,} samples of {results['tasks']:,} tasks; {results['passed']:,} pass")
    for name, value in results.items():
        if name.startswith("pass@"):
            print(f"  {name:8} {value:.4f}")
    wrong = Counter(one["result"].partition("\n")[0][:70] for one in results["verdicts"] if not one["passed"])
    for words, count in wrong.most_common(8):
        print(f"  {count:6,}  {words}")
    sys.stdout.flush()
