"""The options of MT-Bench."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.judge_options import JudgeOptions
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
        """Return every problem of the options, in words."""
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

    @property
    def model_name(self) -> str:
        """Return the name that answers and judgments carry."""
        if self.model_id or self.answers:
            return self.model_id or Path(self.answers or "").stem
        return Path(self.model_name_or_path or "").resolve().name

    @property
    def baseline(self) -> str | None:
        """Return the baseline's name, None where each answer is rated on its own."""
        return Path(self.baseline_answers).stem if self.baseline_answers else None
