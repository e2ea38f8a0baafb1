"""AlpacaEval of a model: answers to 805 instructions, a judge's verdicts against a reference model's answers,
a win rate.

    export IS_ALPACA_EVAL_2=False    # AlpacaEval 1, against text_davinci_003
    export IS_ALPACA_EVAL_2=True     # AlpacaEval 2 (the default), against gpt4_1106_preview
    python -m eval.alpaca_farm.run_eval --model_name_or_path output/im --use_chat_format --use_vllm \\
        --save_dir results/eval/im
    python -m eval.alpaca_farm.run_eval ... --no_evaluate_with_llm        # the answers alone, no judge

The judge is the one of the published numbers (gpt-4; gpt-4-1106-preview), with the key in OPENAI_API_KEY, or
any behind an OpenAI-compatible address (--judge_base_url, --judge_model). What it will cost is printed first,
and above --cost_limit nothing is sent without --yes. Prompts, order of the answers, parsing and rates are the
alpaca-eval package's.

In --save_dir: alpaca_eval/model_outputs.json, which both benchmarks judge, and unanswered.json (what a model
behind an address left without an answer, if anything); and in alpaca_eval_1 or
alpaca_eval_2 results.json, annotations.json, items.jsonl (each instruction's preference from 0 to 1),
unparsed.json (judgments without a verdict) and judge_replies.jsonl. A stopped run goes on where it was when
the same command is given again: nothing is generated or paid twice. The reference answers come from
data/eval/alpaca_eval (sh prepare_eval_data.sh alpaca_eval)."""

from pathlib import Path
from typing import TYPE_CHECKING

from eval.alpaca_farm.options import AlpacaEvalOptions
from eval.judge_options import run_until_stopped
from eval.names import folder_name
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eval.alpaca_farm.generation import Answers
    from eval.alpaca_farm.pairs import Output


def main() -> int:
    """Parse the options, answer, judge, write."""
    return run_until_stopped(evaluate_alpaca, parse_options(AlpacaEvalOptions))


def evaluate_alpaca(options: AlpacaEvalOptions) -> None:
    """Generate what is not answered yet, ask what is not judged yet, and write the results."""
    from eval.alpaca_farm.benchmarks import FETCH, chosen_benchmark
    from eval.alpaca_farm.pairs import pair_up, read_outputs, sample, unanswered_items
    from eval.alpaca_farm.results import Comparison, judge_pairs

    benchmark = chosen_benchmark()
    reference = read_outputs(
        Path(options.reference_path or benchmark.reference_path),
        f"Fetch the reference answers with `{FETCH}`, or name yours with --reference_path",
    )
    asked = sample(reference, options.max_instructions)
    # A sample's figures must not be taken for the benchmark's.
    suffix = "" if len(asked) == len(reference.outputs) else f"_sample_{len(asked)}"
    answers = _answers(options, asked, suffix)
    if options.no_evaluate_with_llm:
        print(f"{len(answers.outputs)} answers are in {answers.source}; nothing was judged")
        return
    pairs = pair_up(reference, asked, answers.outputs, answers.source, options.allow_missing_outputs)
    items = unanswered_items(pairs, answers.unanswered)
    judge_pairs(
        options,
        Comparison(
            benchmark,
            reference,
            pairs,
            answers.made,
            answers.folder / f"{benchmark.name}{suffix}",
            answers.model,
            items,
        ),
    )


def _answers(options: AlpacaEvalOptions, asked: "Sequence[Output]", suffix: str) -> "Answers":
    from eval.alpaca_farm.generation import answer_instructions, answers_of_file, ask_service

    if options.model_outputs is not None:
        return answers_of_file(Path(options.model_outputs), options.save_dir)
    model = Path(options.openai_engine or options.model_name_or_path or "").resolve().name
    folder = Path(options.save_dir or Path("results/eval") / folder_name(model))
    make = answer_instructions if options.openai_engine is None else ask_service
    return make(options, asked, folder, folder / f"alpaca_eval{suffix}")


if __name__ == "__main__":
    run_main(main)
