"""MT-Bench of a model: two-turn answers to 80 questions, and a judge's ratings of them, from 1 to 10.

    python -m eval.mt_bench.run_eval --model_name_or_path output/im [--use_vllm]
    python -m eval.mt_bench.run_eval --model_name_or_path output/im --no_judge       # the answers alone
    python -m eval.mt_bench.run_eval --answers model_answer/im.jsonl --save_dir results/eval/im
    python -m eval.mt_bench.run_eval ... --mode pairwise-baseline --baseline_answers model_answer/base.jsonl

The judge is gpt-4, the one of the published numbers, with the key in OPENAI_API_KEY, or any behind an
OpenAI-compatible address (--judge_base_url, --judge_model). What it will cost is printed first, and above
--cost_limit nothing is sent without --yes. Questions, judge prompts, reference answers and the marks of
verdicts are FastChat's (sh prepare_eval_data.sh mt_bench); the last verdict of a judgment counts.

In --save_dir/mt_bench: model_answer/MODEL.jsonl and model_judgment/JUDGE_single.jsonl (or JUDGE_pair.jsonl)
in FastChat's formats, results.json, items.jsonl (each turn's score), unparsed.json (judgments without a
verdict, and why), disagreeing.json (those with several that differ, if any), categories.png, and
judge_replies.jsonl. A stopped run goes on where it was when the same command is given again: nothing is
generated or paid twice, and no judgment is written twice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.judge_options import run_until_stopped
from eval.mt_bench.options import MtBenchOptions
from eval.names import folder_name, own_folder
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.files.durable import file_sha256


def main() -> int:
    """Parse the options, answer, judge, write."""
    return run_until_stopped(evaluate_mt_bench, parse_options(MtBenchOptions))


def evaluate_mt_bench(options: MtBenchOptions) -> None:
    """Generate what is not answered yet, ask what is not judged yet, and write the results."""
    from eval.mt_bench.answers import answer_benchmark, failed_answers, read_answers
    from eval.mt_bench.questions import load_benchmark
    from eval.mt_bench.results import RESULTS, Evaluation, judge_answers

    benchmark = load_benchmark(Path(options.data_dir))
    # The figures of some questions must not be taken for the benchmark's.
    suffix = ""
    if options.max_questions is not None and options.max_questions < len(benchmark.questions):
        benchmark = replace(benchmark, questions=benchmark.questions[: options.max_questions])
        suffix = f"_first_{options.max_questions}"
    name = options.model_name
    made: dict[str, Any] = {}
    folder = Path(options.save_dir or Path("results/eval") / folder_name(name))
    if options.answers is not None:
        made = {"file": options.answers, "sha256": file_sha256(Path(options.answers))}
        if options.save_dir is None:
            folder = own_folder(folder, f"mt_bench*/{RESULTS}", "made", made)
    folder /= f"mt_bench{suffix}"
    if options.baseline == name:
        raise UserError(
            f"the model and the baseline are both called {name}; give the model another name with --model_id"
        )
    path = Path(options.answers or "")
    if options.answers is None:
        path, made = answer_benchmark(options, benchmark.questions, folder)
    answers = read_answers(path, benchmark.questions)
    made["sha256"] = file_sha256(path)
    if options.no_judge:
        print(f"{len(benchmark.questions)} questions are answered in {path}; nothing was judged")
        return
    failed = failed_answers(path) if options.answers else {}
    judge_answers(options, Evaluation(benchmark, answers, folder, name, made, failed))


if __name__ == "__main__":
    run_main(main)
