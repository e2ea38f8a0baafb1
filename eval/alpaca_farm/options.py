"""The options of AlpacaEval."""

from dataclasses import dataclass

from eval.judge_options import JudgeOptions, body_problems, temperature_problems
from instruction_modelling.generation.engine import EngineOptions


@dataclass
class AlpacaEvalOptions(JudgeOptions, EngineOptions):
    """AlpacaEval."""

    openai_engine: str | None = None
    """Answers of a model behind an OpenAI-compatible address (OPENAI_BASE_URL, else OpenAI's), by its name
    there; key, prices and limits are those of the judge's flags."""
    engine_temperature: str = "0"
    """Temperature of that model, or none to send none."""
    engine_extra_body: str | None = None
    """Further fields of every request to that model, as a JSON object."""
    max_empty_share: float = 0.05
    """Largest share of instructions that the model behind the address may leave without an answer (refused,
    filtered, cut off before any text); above it there is an error. Those below it are listed and not
    judged."""
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
        """Return every problem of the options, in words."""
        problems = self.judge_problems() + self.engine_problems()
        sources = (self.model_name_or_path, self.openai_engine, self.model_outputs)
        if sum(source is not None for source in sources) != 1:
            problems.append("give one of --model_name_or_path, --openai_engine and --model_outputs")
        problems += temperature_problems("engine_temperature", self.engine_temperature)
        problems += body_problems("engine_extra_body", self.engine_extra_body)
        if not 0 <= self.max_empty_share <= 1:
            problems.append(f"--max_empty_share {self.max_empty_share} must be between 0 and 1")
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
