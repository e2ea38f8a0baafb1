"""MT-Bench of a model: two-turn answers to 80 questions, and a judge's ratings of them, from 1 to 10.

    python -m eval.mt_bench.run_eval --model_name_or_path output/im [--use_vllm] python -m
    eval.mt_bench.run_eval --model_name_or_path output/im --no_judge                 # the answers alone
    python -m eval.mt_bench.run_eval --answers model_answer/im.jsonl --save_dir results/eval/im python -m
    eval.mt_bench.run_eval ... --mode pairwise-baseline --baseline_answers model_answer/base.jsonl

The judge is gpt-4, the one of the published numbers, with the key in OPENAI_API_KEY, or any behind an
OpenAI-compatible address (--judge_base_url, --judge_model). What it will cost is printed first, and above
--cost_limit nothing is sent without --yes. Questions, judge prompts, reference answers and the reading of
verdicts are FastChat's (sh prepare_eval_data.sh mt_bench).

In --save_dir/mt_bench: model_answer/MODEL.jsonl and model_judgment/JUDGE_single.jsonl (or JUDGE_pair.jsonl)
in FastChat's formats, results.json, items.jsonl (each turn's score), unparsed.json, categories.png, and
judge_replies.jsonl. A stopped run goes on where it was when the same command is given again: nothing is
generated or paid twice, and no judgment is written twice."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from eval.judge_options import JudgeOptions, run_until_stopped
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.generation.engine import EngineOptions


@dataclass
class MtBenchOptions(JudgeOptions, EngineOptions):
    """MT-Bench."""

    answers: str | None = None
    """Answers to judge instead of a model's own: a file in FastChat's format."""
    model_id: str | None = None
    """The name that answers and judgments carry (default: the model's or the file's)."""
    save_dir: str | None = None
    """Folder of everything about this model (default: results/eval/ and the model's name)."""
    data_dir: str = "data/eval/mt_bench"
    """Folder of the questions, judge prompts and reference answers."""
    mode: Literal["single", "pairwise-baseline"] = "single"
    """Rate each answer on its own, or beside the baseline's, in both orders."""
    baseline_answers: str | None = None
    """The baseline's answers, in FastChat's format."""
    no_judge: bool = False
    """Only generate."""
    max_new_tokens: int = 1024
    """Tokens an answer may have, as in FastChat."""
    seed: int = 0
    """Of the categories that are answered above temperature 0."""
    max_questions: int | None = None
    """The first so many questions (default: all 80), in a folder of their own (mt_bench_first_5): the means
    compare with no published ones."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = self.judge_problems() + self.engine_problems()
        if (self.model_name_or_path is None) == (self.answers is None):
            problems.append("give either --model_name_or_path or --answers")
        if (self.mode == "pairwise-baseline") != (self.baseline_answers is not None):
            problems.append("--mode pairwise-baseline and --baseline_answers go together")
        problems += [
            f"--{name} {getattr(self, name)} must be 1 or more"
            for name in ("max_new_tokens", "max_questions")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        return problems


def main() -> int:
    """Options, answers, judgments, files."""
    return run_until_stopped(run, parse_options(MtBenchOptions))


def run(options: MtBenchOptions) -> None:
    """Generates what is not answered yet, asks what is not judged yet, and writes the results."""
    from eval.mt_bench import results
    from eval.mt_bench.answers import answered, read_answers
    from eval.mt_bench.questions import load_benchmark

    benchmark = load_benchmark(Path(options.data_dir))
    # The figures of some questions must not be taken for the benchmark's.
    suffix = ""
    if options.max_questions is not None and options.max_questions < len(benchmark.questions):
        benchmark, suffix = (
            replace(benchmark, questions=benchmark.questions[: options.max_questions]),
            f"_first_{options.max_questions}",
        )
    name = options.model_id or (
        Path(options.answers).stem
        if options.answers
        else Path(options.model_name_or_path or "").resolve().name
    )
    folder = Path(options.save_dir or Path("results/eval") / name) / f"mt_bench{suffix}"
    if options.baseline_answers and Path(options.baseline_answers).stem == name:
        raise UserError(
            f"the model and the baseline are both called {name}; give the model another name with --model_id"
        )
    made: dict[str, Any]
    if options.answers is None:
        path, made = answered(
            options, name, benchmark.questions, folder, options.max_new_tokens, options.seed
        )
    else:
        path, made = Path(options.answers), {"file": options.answers}
    answers = read_answers(path, benchmark.questions)
    made["sha256"] = file_sha256(path)
    if options.no_judge:
        print(f"{len(benchmark.questions)} questions are answered in {path}; nothing was judged")
        return
    results.judged(options, benchmark, answers, folder, name, made)


if __name__ == "__main__":
    run_main(main)
