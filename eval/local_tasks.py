"""Points lm-eval's tasks at files on this machine: the same prompts, few-shot counts and metrics, without any hub.

    python -m eval.local_tasks --data_dir data/eval --output_dir data/eval/local_tasks
    lm_eval --model hf --model_args pretrained=MODEL --tasks sft_eval_local --include_path data/eval/local_tasks

Converts the benchmark files it finds below --data_dir (sh prepare_eval_data.sh fetches them) to the columns that lm-eval's tasks
read, one JSON Lines file a split, and writes the group sft_eval_local with a group for each of the paper's categories that has
tasks. What is not there is left out and said. A file without a training part gives its few-shot examples from the evaluated part
itself, never the item that is asked. Scores are of these files: collect_results says so beside them.
"""

import bz2
import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main

Rows = Iterator[dict[str, Any]]


@dataclass
class LocalOptions:
    """Local tasks."""

    data_dir: str = "data/eval"
    """Folder of the benchmark files: mmlu, piqa, winogrande, arc, hellaswag, lambada, gsm8k, bbh, truthfulqa."""
    output_dir: str = "data/eval/local_tasks"
    """Folder of the converted files and the groups."""


def json_lines(path: Path) -> Rows:
    """The objects of a JSON Lines file."""
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise UserError(f"{path}:{number}: not JSON: {error}") from None


def mmlu(path: Path) -> Rows:
    """question, four choices and the letter of the answer, without a header."""
    with path.open(encoding="utf-8", newline="") as handle:
        for question, *choices, answer in csv.reader(handle):
            yield {"question": question, "choices": choices, "answer": "ABCD".index(answer)}


def labelled(path: Path, labels: Path, name: str) -> Rows:
    """The objects of a JSON Lines file with the labels of another file, a line each."""
    values = labels.read_text(encoding="utf-8").split()
    rows = list(json_lines(path))
    if len(values) != len(rows):
        raise UserError(f"{labels}: has {len(values)} labels for {len(rows)} rows of {path}")
    yield from ({**row, name: int(value)} for row, value in zip(rows, values, strict=True))


def arc(path: Path) -> Rows:
    """The AI2 file's nested question as the hub's columns."""
    for row in json_lines(path):
        choices = row["question"]["choices"]
        yield {"id": row["id"], "question": row["question"]["stem"], "answerKey": row["answerKey"],
               "choices": {"text": [one["text"] for one in choices], "label": [one["label"] for one in choices]}}


def hellaswag(path: Path) -> Rows:
    """Six lines an item: `activity: context`, the number of the right ending, four endings.

    What begins in small letters behind the context's last sentence is the hub's ctx_b, which the task capitalises.
    """
    with (bz2.open(path, "rt", encoding="utf-8") if path.suffix == ".bz2" else path.open(encoding="utf-8")) as handle:
        lines = [line.rstrip("\n") for line in handle]
    lines = lines[:len(lines) - len(lines) % 6] if not "".join(lines[len(lines) - len(lines) % 6:]).strip() else lines
    if len(lines) % 6:
        raise UserError(f"{path}: has {len(lines)} lines, which is not six for each item")
    for at in range(0, len(lines), 6):
        activity, _, context = lines[at].partition(": ")
        cut = re.fullmatch(r"(.*[.!?\"')])\s+([^.!?]+)", context, re.DOTALL)
        yield {"activity_label": activity, "ctx_a": cut[1] if cut else context, "ctx_b": cut[2] if cut else "",
               "endings": lines[at + 2:at + 6], "label": lines[at + 1].strip()}


def truthfulqa(path: Path) -> Rows:
    """Choices and labels as two lists in place of one object."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        yield {"question": row["question"], **{name: {"choices": list(row[name]), "labels": list(row[name].values())}
                                               for name in ("mc1_targets", "mc2_targets")}}


def bbh(path: Path) -> Rows:
    """The examples of a BIG-Bench Hard file."""
    yield from json.loads(path.read_text(encoding="utf-8"))["examples"]


@dataclass(frozen=True)
class Source:
    """A task's files: split to (path below the data folder, how it is read)."""

    task: str
    category: str
    splits: dict[str, tuple[str, Callable[[Path], Rows]]]
    num_fewshot: int | None
    settings: dict[str, Any]
    """What differs from the task's own configuration beside the files."""


_NO_TRAINING = {"training_split": None}


def sources(data: Path) -> list[Source]:
    """Every task that may have files here, subtasks of MMLU and BBH each on its own."""
    found = [
        Source("piqa", "understanding", {"validation": ("piqa/valid.jsonl", lambda path: labelled(
            path, path.with_name("valid-labels.lst"), "label"))}, 10, _NO_TRAINING),
        Source("hellaswag", "understanding", {"validation": ("hellaswag/hellaswag_val_full.txt.bz2", hellaswag)}, 10, _NO_TRAINING),
        Source("lambada_openai", "understanding", {"test": ("lambada/lambada_test.jsonl", json_lines)}, 0, {}),
        Source("winogrande", "commonsense", {"train": ("winogrande/train_xs.jsonl", json_lines),
                                             "validation": ("winogrande/dev.jsonl", json_lines)}, 5, {}),
        Source("arc_challenge", "commonsense", {"validation": ("arc/ARC-Challenge-Dev.jsonl", arc),
                                                "test": ("arc/ARC-Challenge-Test.jsonl", arc)}, 25, _NO_TRAINING),
        Source("gsm8k_cot", "math", {"test": ("gsm8k/test.jsonl", json_lines)}, 8, {}),
        Source("truthfulqa_mc2", "safety", {"validation": ("truthfulqa/mc_task.json", truthfulqa)}, 0, {}),
    ]
    found += [Source(f"mmlu_{path.stem.removesuffix('_test')}", "mmlu",
                     {"dev": (f"mmlu/dev/{path.stem.removesuffix('_test')}_dev.csv", mmlu), "test": (f"mmlu/test/{path.name}", mmlu)}, 5, {})
              for path in sorted((data / "mmlu" / "test").glob("*_test.csv"))]
    found += [Source(f"bbh_cot_fewshot_{path.stem}", "bbh", {"test": (f"bbh/{path.name}", bbh)}, None, {})
              for path in sorted((data / "bbh").glob("*.json"))]
    return [source for source in found if all((data / path).exists() for path, _ in source.splits.values())]


def main() -> int:
    """Converts the files and writes the groups."""
    options = parse_options(LocalOptions)
    from instruction_modelling.run_folder import write_aside

    data, output = Path(options.data_dir), Path(options.output_dir).resolve()
    there = sources(data)
    if not there:
        raise UserError(f"--data_dir {data}: holds none of the files (mmlu/test/*.csv, piqa/valid.jsonl, ...); fetch them with "
                        "`sh prepare_eval_data.sh`")
    entries: dict[str, list[dict[str, Any]]] = {}
    counts: dict[str, int] = {}
    for source in there:
        files = {}
        for split, (path, read) in source.splits.items():
            target = output / source.category / f"{source.task}_{split}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                rows = list(read(data / path))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{data / path}: is not what its source publishes ({type(error).__name__}: {error})") from error
            write_aside(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            files[split] = str(target)
            counts[source.category] = counts.get(source.category, 0) + (len(rows) if split != "dev" and split != "train" else 0)
        shots = {} if source.num_fewshot is None else {"num_fewshot": source.num_fewshot}
        entries.setdefault(source.category, []).append({
            "task": source.task, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}, **shots,
            **source.settings})
    for name, text in groups(entries).items():
        write_aside(output / f"{name}.yaml", text)
    for category, count in counts.items():
        print(f"{category}: {len(entries[category])} tasks, {count:,} items")
    print(f"written to {output}: the group sft_eval_local; use --include_path {output}")
    return 0


def groups(entries: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """The YAML of each group by its name."""
    import yaml

    metrics = {"mmlu": {"metric": "acc", "weight_by_size": True},
               "bbh": {"metric": "exact_match", "weight_by_size": True, "filter_list": "get-answer"}}
    written: dict[str, dict[str, Any]] = {}
    for category, tasks in entries.items():
        name = "mmlu_local" if category == "mmlu" else f"sft_eval_{category}_local"
        written[name] = {"group": name, "task": tasks, **({"aggregate_metric_list": [metrics[category]]} if category in metrics else {}),
                         "metadata": {"version": 1.0}}
    if "mmlu" in entries:
        understanding = written.setdefault("sft_eval_understanding_local", {
            "group": "sft_eval_understanding_local", "task": [], "metadata": {"version": 1.0}})
        understanding["task"].append("mmlu_local")
    top = [name for name in written if name != "mmlu_local"]
    written["sft_eval_local"] = {"group": "sft_eval_local", "task": top, "metadata": {"version": 1.0}}
    return {name: yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=130) for name, value in written.items()}


if __name__ == "__main__":
    run_main(main)
