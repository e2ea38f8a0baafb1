"""AlpacaEval of a model: answers to 805 instructions, a judge's verdicts against a reference model's answers,
a win rate.

    export IS_ALPACA_EVAL_2=False    # AlpacaEval 1, against text_davinci_003; True (the default): 2, against
    gpt4_1106_preview python -m eval.alpaca_farm.run_eval --model_name_or_path output/im --use_chat_format
    --use_vllm \\
        --save_dir results/eval/im
    python -m eval.alpaca_farm.run_eval ... --no_evaluate_with_llm        # the answers alone, no judge

The judge is the one of the published numbers (gpt-4; gpt-4-1106-preview), with the key in OPENAI_API_KEY, or
any behind an OpenAI-compatible address (--judge_base_url, --judge_model). What it will cost is printed first,
and above --cost_limit nothing is sent without --yes. Prompts, order of the answers, parsing and rates are the
alpaca-eval package's.

In --save_dir: alpaca_eval/model_outputs.json, which both benchmarks judge; and in alpaca_eval_1 or
alpaca_eval_2 results.json, annotations.json, items.jsonl (each instruction's preference from 0 to 1),
unparsed.json (judgments without a verdict) and judge_replies.jsonl. A stopped run goes on where it was when
the same command is given again: nothing is generated or paid twice. The reference answers come from
data/eval/alpaca_eval (sh prepare_eval_data.sh alpaca_eval). """

from dataclasses import dataclass
from pathlib import Path

from eval.judge_options import JudgeOptions, run_until_stopped
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.generation.engine import EngineOptions


@dataclass
class AlpacaEvalOptions(JudgeOptions, EngineOptions):
    """AlpacaEval."""

    openai_engine: str | None = None
    """Answers of a model behind an OpenAI-compatible address (OPENAI_BASE_URL, else OpenAI's), by its name
    there; key, prices and limits are those of the judge's flags."""
    model_outputs: str | None = None
    """Answers to judge instead of a model's own: a file in the package's format (a JSON list of "instruction"
    and "output")."""
    save_dir: str | None = None
    """Folder of everything about this model (default: results/eval/ and the model's name)."""
    reference_path: str | None = None
    """The reference's answers (default: in data/eval/alpaca_eval, text_davinci_003.json or
    gpt4_1106_preview.json)."""
    use_chat_format: bool = False
    """Ask in the chat format, the checkpoint's own or --chat_formatting_function's; without, the bare
    instruction is the prompt."""
    max_new_tokens: int = 8192
    """Tokens an answer may have, as in the paper."""
    no_evaluate_with_llm: bool = False
    """Only generate."""
    max_instructions: int | None = None
    """A fixed random sample of so many instructions (default: all 805), in folders of its own:
    alpaca_eval_1_sample_20."""
    gptq: bool = False
    """Changes nothing: a quantised checkpoint says of itself that it is one. Taken because the authors'
    script has it."""
    load_in_8bit: bool = False
    """Refused: the authors' script has it, but a model is answered with as it was saved; give a quantised
    checkpoint instead."""
    allow_missing_outputs: bool = False
    """Leave out instructions that --model_outputs does not answer, instead of refusing."""
    length_controlled_file: str | None = None
    """The package's df_gamed.csv, for the length-controlled win rate (default:
    data/eval/alpaca_eval/df_gamed.csv, if it is there)."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = self.judge_problems() + self.engine_problems()
        if (
            sum(
                given is not None
                for given in (self.model_name_or_path, self.openai_engine, self.model_outputs)
            )
            != 1
        ):
            problems.append("give one of --model_name_or_path, --openai_engine and --model_outputs")
        if self.load_in_8bit:
            problems.append(
                "--load_in_8bit is not offered: leave it out, or give the folder of a checkpoint that was "
                "saved quantised"
            )
        if self.chat_formatting_function is not None and not self.use_chat_format:
            problems.append("--chat_formatting_function has no effect without --use_chat_format")
        problems += [
            f"--{name} {getattr(self, name)} must be 1 or more"
            for name in ("max_new_tokens", "max_instructions")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        return problems


def main() -> int:
    """Options, answers, judgments, files."""
    return run_until_stopped(run, parse_options(AlpacaEvalOptions))


def run(options: AlpacaEvalOptions) -> None:
    """Generates what is not answered yet, asks what is not judged yet, and writes the results."""
    from eval.alpaca_farm import results
    from eval.alpaca_farm.benchmarks import FETCH, chosen
    from eval.alpaca_farm.generation import asked_of_service, generated
    from eval.alpaca_farm.pairs import pair_up, read_outputs, sample

    benchmark = chosen()
    reference = read_outputs(
        Path(options.reference_path or benchmark.reference_path),
        f"Fetch the reference answers with `{FETCH}`, or name yours with --reference_path",
    )
    asked = sample(reference, options.max_instructions)
    # A sample's figures must not be taken for the benchmark's.
    suffix = "" if len(asked) == len(reference.outputs) else f"_sample_{len(asked)}"
    if options.model_outputs is not None:
        file = read_outputs(Path(options.model_outputs), "Name a file in the package's format")
        answers, made, source = file.outputs, {"file": str(file.path), "sha256": file.sha256}, str(file.path)
        name = answers[0].generator
        folder = Path(options.save_dir or Path("results/eval") / name)
    else:
        name = Path(options.openai_engine or options.model_name_or_path or "").resolve().name
        folder = Path(options.save_dir or Path("results/eval") / name)
        generate = generated if options.openai_engine is None else asked_of_service
        answers, made = generate(options, asked, folder / f"alpaca_eval{suffix}", name)
        source = str(folder / f"alpaca_eval{suffix}")
    if options.no_evaluate_with_llm:
        print(f"{len(answers)} answers are in {source}; nothing was judged")
        return
    pairs = pair_up(reference, asked, answers, source, options.allow_missing_outputs)
    results.judged(options, benchmark, reference, pairs, made, folder / f"{benchmark.name}{suffix}", name)


if __name__ == "__main__":
    run_main(main)
