"""Counts the examples that lm-eval cut because they did not fit the model, from the samples it logged.

    python -m eval.nlp.cut_examples results/eval/it [--tokenizer_name_or_path MODEL]

lm-eval drops the beginning of a prompt that is too long, few-shot examples and instruction first, and says so
in its log alone. Writes cut_DATE.json beside each results file, from which src/collect_results.py tells it;
python -m eval.nlp.run_eval does this after each benchmark."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.table.items import read_lines
from eval.table.layout import model_layouts
from eval.table.lm_eval_files import cut_file, is_result, read_object, record, samples_of
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.files.whole import write_json

# What lm-eval leaves for an answer where a task does not say.
ANSWER_TOKENS = 256


@dataclass
class CutOptions:
    """Counting."""

    folders: list[str] = field(metadata={"positional": "FOLDER"})
    """Result folders, as for src/collect_results.py."""
    tokenizer_name_or_path: str | None = None
    """Tokenizer to count with (default: that of the model that the results name)."""


def main() -> int:
    """Count in every results file of the folders, and print what was cut."""
    options = parse_options(CutOptions)
    done, failed = 0, 0
    for layout in model_layouts([Path(folder) for folder in options.folders]):
        for path in layout.nlp_files:
            run = read_object(path, [])
            if run is None or not is_result(run):
                continue
            try:
                print(f"{path}: {cut_in_words(write_cut(path, options.tokenizer_name_or_path))}", flush=True)
                done += 1
            except UserError as error:
                print(f"not counted: {error}", file=sys.stderr)
                failed += 1
    if not done and not failed:
        raise UserError(f"{', '.join(options.folders)}: no results of lm-eval are there")
    return 2 if failed else 0


def cut_in_words(found: dict[str, Any]) -> str:
    """Return how many examples were cut."""
    cut = sum(task["cut"] for task in found["tasks"].values())
    items = sum(task["items"] for task in found["tasks"].values())
    return f"{cut:,} of {items:,} examples were cut at the model's {found['max_length']:,} tokens"


def write_cut(path: Path, tokenizer_name: str | None = None) -> dict[str, Any]:
    """Count the cut examples of a results file and write them beside it.

    Args:
        path: lm-eval's results file.
        tokenizer_name: folder or hub name (default: the one that the results name).

    Returns:
        {"max_length", "tasks": {TASK: {"cut", "items"}}}.

    Raises:
        UserError: the file does not say how long the model is, or there is no tokenizer.
    """
    from instruction_modelling.models.loading import load_tokenizer

    run = read_object(path, []) or {}
    longest = run.get("max_length")
    if not isinstance(longest, int):
        raise UserError(f"{path}: does not say how many tokens the model takes (max_length)")
    name = tokenizer_name or _tokenizer_of(record(run.get("config")).get("model_args"))
    if not name:
        raise UserError(f"{path}: names no model; give --tokenizer_name_or_path")
    tokenizer = load_tokenizer(name)

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    tasks = {
        task: _cut_of_task(samples_of(path, task), longest, tokens)
        for task in record(run.get("results"))
        if samples_of(path, task).is_file()
    }
    found = {"max_length": longest, "tasks": tasks}
    write_json(cut_file(path), found)
    return found


def _tokenizer_of(given: Any) -> str | None:
    """Return the tokenizer, else the model, that lm-eval's --model_args name."""
    if isinstance(given, str):
        given = dict(pair.split("=", 1) for pair in given.split(",") if "=" in pair)
    arguments = record(given)
    return arguments.get("tokenizer") or arguments.get("pretrained")


def _cut_of_task(samples: Path, longest: int, tokens: Callable[[str], int]) -> dict[str, int]:
    items: dict[Any, bool] = {}
    for row in read_lines(samples, []):
        # A task with several filters logs each item once for each.
        if row.get("doc_id") not in items:
            items[row.get("doc_id")] = any(
                # No token is shorter than a byte, so most texts need not be tokenised.
                len(text.encode("utf-8", "surrogatepass")) > limit and tokens(text) > limit
                for text, limit in _requests(row.get("arguments"), longest)
            )
    return {"cut": sum(items.values()), "items": len(items)}


def _requests(arguments: Any, longest: int) -> Iterator[tuple[str, int]]:
    """Yield the text of each of an item's requests, and the tokens it may have to be read whole: the last
    token of a continuation is not read, and an answer needs room behind its prompt."""
    if isinstance(arguments, dict):
        given = [[*record(one).values()] for one in arguments.values()]
    else:
        given = arguments if isinstance(arguments, list) else []
    for prompt, second in (one for one in given if isinstance(one, list) and len(one) == 2):
        if isinstance(second, dict):
            room = second.get("max_gen_toks", ANSWER_TOKENS)
            yield str(prompt), longest - (room if isinstance(room, int) else ANSWER_TOKENS)
        elif isinstance(second, str):
            yield str(prompt) + second, longest + 1


if __name__ == "__main__":
    run_main(main)
