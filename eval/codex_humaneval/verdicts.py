"""Verdicts on HumanEval samples, and what they come to."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from eval.codex_humaneval.problems import Sample, pass_rates
from eval.sandbox.bubblewrap import Sandbox
from eval.sandbox.execution import Candidate, Verdict, try_all
from eval.sandbox.self_test import check_sandbox
from instruction_modelling.progress import Progress


def require_sandbox() -> None:
    """Try whether model-written code can be run safely here.

    Raises:
        UserError: it cannot; what is missing.
    """
    with Sandbox() as sandbox:
        check_sandbox(sandbox)


def try_samples(
    samples: list[Sample], problems: dict[str, dict[str, str]], timeout: float, workers: int | None
) -> list[Verdict]:
    """Return the verdict of each sample, in their order.

    Raises:
        UserError: there is no working sandbox; nothing was run then.
    """
    candidates = [
        Candidate(
            number,
            problems[sample.task_id]["prompt"],
            sample.completion,
            problems[sample.task_id]["test"],
            problems[sample.task_id]["entry_point"],
        )
        for number, sample in enumerate(samples)
    ]
    verdicts: dict[int, Verdict] = {}
    with Sandbox() as sandbox:
        check_sandbox(sandbox)
        progress = Progress(len(samples), "samples run")
        for verdict in try_all(sandbox, candidates, timeout, workers):
            verdicts[verdict.key] = verdict
            progress.add(1)
    return [verdicts[number] for number in range(len(samples))]


def summarise_verdicts(
    samples: list[Sample], verdicts: list[Verdict], ks: Sequence[int] = (1, 10, 100)
) -> dict[str, Any]:
    """Return pass@k over the tasks present, and every sample's verdict."""
    return {
        **pass_rates([sample.task_id for sample in samples], [verdict.passed for verdict in verdicts], ks),
        "tasks": len({sample.task_id for sample in samples}),
        "samples": len(samples),
        "passed": sum(verdict.passed for verdict in verdicts),
        "verdicts": [
            {
                "line": sample.line,
                "task_id": sample.task_id,
                "passed": verdict.passed,
                "result": verdict.result,
            }
            for sample, verdict in zip(samples, verdicts, strict=True)
        ],
    }


def print_pass_rates(results: dict[str, Any]) -> None:
    """Print pass@k and what went wrong, most often first."""
    print(f"{results['samples']:,} samples of {results['tasks']:,} tasks; {results['passed']:,} pass")
    for name, value in results.items():
        if name.startswith("pass@"):
            print(f"  {name:8} {value:.4f}")
    wrong = Counter(
        verdict["result"].partition("\n")[0][:70] for verdict in results["verdicts"] if not verdict["passed"]
    )
    for words, count in wrong.most_common(8):
        print(f"  {count:6,}  {words}")
    sys.stdout.flush()
