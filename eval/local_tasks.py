"""Points lm-eval's tasks at files on this machine: the same prompts, few-shot counts and metrics, without any
hub.

    python -m eval.local_tasks --data_dir data/eval --output_dir data/eval/local_tasks
    lm_eval --model hf --model_args pretrained=MODEL --tasks sft_eval_local \\
        --include_path data/eval/local_tasks

Converts the benchmark files it finds below --data_dir (`sh prepare_eval_data.sh mmlu piqa ...` fetches them)
to the columns that lm-eval's tasks read, one JSON Lines file a split, and writes the group sft_eval_local: a
group for each of the paper's categories that has tasks, made of a group for each benchmark (piqa_local, ...).
What is not there is said. Where training items are not there, few-shot examples are drawn from the evaluated
items, never the one that is asked. Scores are of these files: collect_results says so beside them."""

import bz2
import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.table.suite import BENCHMARKS, OF_CATEGORY
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.files.whole import write_json_lines, write_text
from instruction_modelling.rows.json_lines import stream_records

Rows = Iterator[dict[str, Any]]


@dataclass
class LocalOptions:
    """Local tasks."""

    data_dir: str = "data/eval"
    """Folder of the benchmark files: mmlu, piqa, winogrande, arc, hellaswag, lambada, gsm8k, bbh,
    truthfulqa."""
    output_dir: str = "data/eval/local_tasks"
    """Folder of the converted files and the groups."""


def objects(path: Path) -> Rows:
    """Yield the objects of a JSON Lines file."""
    return (row for _, row in stream_records(path))


def mmlu(path: Path) -> Rows:
    """Read question, four choices and the letter of the answer, without a header."""
    with path.open(encoding="utf-8", newline="") as handle:
        for question, *choices, answer in csv.reader(handle):
            yield {"question": question, "choices": choices, "answer": "ABCD".index(answer)}


def labelled(path: Path, labels: Path, name: str) -> Rows:
    """Yield the objects of a JSON Lines file with the labels of another file, a line each."""
    values = labels.read_text(encoding="utf-8").split()
    rows = list(objects(path))
    if len(values) != len(rows):
        raise UserError(f"{labels}: has {len(values)} labels for {len(rows)} rows of {path}")
    yield from ({**row, name: int(value)} for row, value in zip(rows, values, strict=True))


def arc(path: Path) -> Rows:
    """Turn the AI2 file's nested question into the hub's columns."""
    for row in objects(path):
        choices = row["question"]["choices"]
        yield {
            "id": row["id"],
            "question": row["question"]["stem"],
            "answerKey": row["answerKey"],
            "choices": {
                "text": [choice["text"] for choice in choices],
                "label": [choice["label"] for choice in choices],
            },
        }


def hellaswag_lines(path: Path) -> Rows:
    """Read six lines an item: `activity: context`, the number of the right ending, four endings.

    What begins in small letters behind the context's last sentence is the hub's ctx_b, which the task
    capitalises."""
    with (
        bz2.open(path, "rt", encoding="utf-8") if path.suffix == ".bz2" else path.open(encoding="utf-8")
    ) as handle:
        lines = handle.read().rstrip("\n").split("\n")
    if len(lines) % 6:
        raise UserError(f"{path}: has {len(lines)} lines, which is not six for each item")
    for first in range(0, len(lines), 6):
        activity, _, context = lines[first].partition(": ")
        cut = re.fullmatch(r"(.*[.!?\"')])\s+([^.!?]+)", context, re.DOTALL)
        yield {
            "activity_label": activity,
            "ctx_a": cut[1] if cut else context,
            "ctx_b": cut[2] if cut else "",
            "endings": lines[first + 2 : first + 6],
            "label": lines[first + 1].strip(),
        }


def hellaswag(path: Path) -> Rows:
    """Keep the published objects' columns that the task reads, the label as the hub's text."""
    for row in objects(path):
        yield {
            **{name: row[name] for name in ("activity_label", "ctx_a", "ctx_b", "endings")},
            "label": str(row["label"]),
        }


def truthfulqa(path: Path) -> Rows:
    """Turn one object of choices and labels into two lists."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        yield {
            "question": row["question"],
            **{
                name: {"choices": list(row[name]), "labels": list(row[name].values())}
                for name in ("mc1_targets", "mc2_targets")
            },
        }


def bbh(path: Path) -> Rows:
    """Yield the examples of a BIG-Bench Hard file."""
    yield from json.loads(path.read_text(encoding="utf-8"))["examples"]


Files = dict[str, tuple[str, Callable[[Path], Rows]]]
"""By split: the path below the data folder, and how it is read."""


@dataclass(frozen=True)
class LocalTask:
    """A task's files."""

    benchmark: str
    task: str
    files: Files
    """Of the evaluated items, and whatever else the task cannot do without."""
    num_fewshot: int | None
    training: tuple[str, Callable[[Path], Rows]] | None = None
    """Where training items are, for the few-shot examples, if they are there."""
    has_training: bool = True
    """Whether lm-eval's task draws its examples from training items."""

    def splits(self, data: Path) -> Files:
        """Return what is there of its files below the data folder."""
        if self.training is not None and (data / self.training[0]).exists():
            return {"train": self.training, **self.files}
        return dict(self.files)

    def settings(self, data: Path) -> dict[str, Any]:
        """Return what differs from the task's own configuration beside the files."""
        return {"training_split": None} if self.has_training and "train" not in self.splits(data) else {}


def with_labels(name: str) -> Callable[[Path], Rows]:
    """Return a reader of a JSON Lines file whose labels are in the file NAME beside it."""
    return lambda path: labelled(path, path.with_name(name), "label")


def available_tasks(data: Path) -> list[LocalTask]:
    """Return every task whose evaluated items are here, subtasks of MMLU and BBH each on its own."""
    available = [
        task
        for task in (*SINGLE_TASKS, *_mmlu_tasks(data), *_bbh_tasks(data))
        if all((data / path).exists() for path, _ in task.files.values())
    ]
    # Of two sources of a task, the one with training items.
    best: dict[str, LocalTask] = {}
    for task in available:
        if task.task not in best or (
            "train" in task.splits(data) and "train" not in best[task.task].splits(data)
        ):
            best[task.task] = task
    return list(best.values())


SINGLE_TASKS = (
    LocalTask(
        "piqa",
        "piqa",
        {"validation": ("piqa/valid.jsonl", with_labels("valid-labels.lst"))},
        10,
        ("piqa/train.jsonl", with_labels("train-labels.lst")),
    ),
    LocalTask(
        "hellaswag",
        "hellaswag",
        {"validation": ("hellaswag/hellaswag_val.jsonl", hellaswag)},
        10,
        ("hellaswag/hellaswag_train.jsonl", hellaswag),
    ),
    LocalTask(
        "lambada", "lambada_openai", {"test": ("lambada/lambada_test.jsonl", objects)}, 0, has_training=False
    ),
    *(
        LocalTask(
            "winogrande",
            "winogrande",
            {"validation": ("winogrande/dev.jsonl", objects)},
            5,
            (f"winogrande/{name}", objects),
        )
        for name in ("train_xl.jsonl", "train_xs.jsonl")
    ),
    *(
        LocalTask(
            "ai2_arc",
            f"arc_{level.lower()}",
            {"validation": (f"arc/ARC-{level}-Dev.jsonl", arc), "test": (f"arc/ARC-{level}-Test.jsonl", arc)},
            25,
            (f"arc/ARC-{level}-Train.jsonl", arc),
        )
        for level in ("Easy", "Challenge")
    ),
    LocalTask("gsm8k_cot", "gsm8k_cot", {"test": ("gsm8k/test.jsonl", objects)}, 8, has_training=False),
    LocalTask(
        "truthfulqa_mc2",
        "truthfulqa_mc2",
        {"validation": ("truthfulqa/mc_task.json", truthfulqa)},
        0,
        has_training=False,
    ),
    # The file that other programs take HellaSwag from, for who has that one.
    LocalTask(
        "hellaswag",
        "hellaswag",
        {"validation": ("hellaswag/hellaswag_val_full.txt.bz2", hellaswag_lines)},
        10,
    ),
)


def _mmlu_tasks(data: Path) -> Iterator[LocalTask]:
    for path in sorted((data / "mmlu" / "test").glob("*_test.csv")):
        subject = path.stem.removesuffix("_test")
        files: Files = {
            "dev": (f"mmlu/dev/{subject}_dev.csv", mmlu),
            "test": (f"mmlu/test/{path.name}", mmlu),
        }
        yield LocalTask("mmlu", f"mmlu_{subject}", files, 5, has_training=False)


def _bbh_tasks(data: Path) -> Iterator[LocalTask]:
    for path in sorted((data / "bbh").glob("*.json")):
        files: Files = {"test": (f"bbh/{path.name}", bbh)}
        yield LocalTask("bbh_cot_fewshot", f"bbh_cot_fewshot_{path.stem}", files, None, has_training=False)


def main() -> int:
    """Convert the files and write the groups."""
    options = parse_options(LocalOptions)
    data, output = Path(options.data_dir), Path(options.output_dir).resolve()
    tasks = available_tasks(data)
    if not tasks:
        raise UserError(
            f"--data_dir {data}: holds none of the files (mmlu/test/*.csv, piqa/valid.jsonl, ...); fetch "
            "them with `sh prepare_eval_data.sh`"
        )
    entries: dict[str, list[dict[str, Any]]] = {}
    items: dict[str, int] = {}
    for task in tasks:
        entry, count = convert_task(task, data, output)
        entries.setdefault(task.benchmark, []).append(entry)
        items[task.benchmark] = items.get(task.benchmark, 0) + count
    for name, text in groups(entries).items():
        write_text(output / f"{name}.yaml", text)
    for benchmark in BENCHMARKS:
        converted = len(entries.get(benchmark.key, ()))
        count_text = (
            f"{converted} of {benchmark.count} tasks, {items[benchmark.key]:,} items" if converted else ""
        )
        print(f"{benchmark.key}: {count_text or 'no files'}")
    print(f"written to {output}: the group sft_eval_local; use --include_path {output}")
    return 0


def convert_task(task: LocalTask, data: Path, output: Path) -> tuple[dict[str, Any], int]:
    """Convert a task's files, and return its entry in lm-eval's configuration and its evaluated items.

    Raises:
        UserError: a file is not what its source publishes, or cannot be written.
    """
    files, count = {}, 0
    for split, (path, read) in task.splits(data).items():
        target = output / task.benchmark / f"{task.task}_{split}.jsonl"
        try:
            rows = list(read(data / path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{data / path}: is not what its source publishes ({type(error).__name__}: {error})"
            ) from error
        write_json_lines(target, rows)
        files[split] = str(target)
        if split == list(task.files)[-1]:
            count = len(rows)
    entry = {
        "task": task.task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        **({} if task.num_fewshot is None else {"num_fewshot": task.num_fewshot}),
        **task.settings(data),
    }
    return entry, count


METRICS = {
    "mmlu": {"metric": "acc", "weight_by_size": True},
    "bbh_cot_fewshot": {"metric": "exact_match", "weight_by_size": True, "filter_list": "get-answer"},
}


def groups(entries: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return the YAML of each group by its name: of each benchmark, of each category, and of all.

    Args:
        entries: the tasks of each benchmark as lm-eval's configuration has them.
    """
    import yaml

    written: dict[str, dict[str, Any]] = {}
    top = []
    for category, keys in OF_CATEGORY.items():
        members = [f"{key}_local" for key in keys if key in entries]
        for key in keys:
            if key in entries:
                written[f"{key}_local"] = {
                    "task": entries[key],
                    **({"aggregate_metric_list": [METRICS[key]]} if key in METRICS else {}),
                }
        if members:
            top.append(f"sft_eval_{category}_local")
            written[top[-1]] = {"task": members}
    written["sft_eval_local"] = {"task": top}
    return {
        name: yaml.safe_dump(
            {"group": name, **value, "metadata": {"version": 1.0}},
            sort_keys=False,
            allow_unicode=True,
            width=130,
        )
        for name, value in written.items()
    }


if __name__ == "__main__":
    run_main(main)
