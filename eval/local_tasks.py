"""Points lm-eval's tasks at files on this machine: the same prompts, few-shot counts and metrics, without any
hub.

    python -m eval.local_tasks --data_dir data/eval --output_dir data/eval/local_tasks lm_eval --model hf
    --model_args pretrained=MODEL --tasks sft_eval_local --include_path data/eval/local_tasks

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

Rows = Iterator[dict[str, Any]]


@dataclass
class LocalOptions:
    """Local tasks."""

    data_dir: str = "data/eval"
    """Folder of the benchmark files: mmlu, piqa, winogrande, arc, hellaswag, lambada, gsm8k, bbh,
    truthfulqa."""
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
        yield {
            "id": row["id"],
            "question": row["question"]["stem"],
            "answerKey": row["answerKey"],
            "choices": {"text": [one["text"] for one in choices], "label": [one["label"] for one in choices]},
        }


def hellaswag_lines(path: Path) -> Rows:
    """Six lines an item: `activity: context`, the number of the right ending, four endings.

    What begins in small letters behind the context's last sentence is the hub's ctx_b, which the task
    capitalises."""
    with (
        bz2.open(path, "rt", encoding="utf-8") if path.suffix == ".bz2" else path.open(encoding="utf-8")
    ) as handle:
        lines = handle.read().rstrip("\n").split("\n")
    if len(lines) % 6:
        raise UserError(f"{path}: has {len(lines)} lines, which is not six for each item")
    for at in range(0, len(lines), 6):
        activity, _, context = lines[at].partition(": ")
        cut = re.fullmatch(r"(.*[.!?\"')])\s+([^.!?]+)", context, re.DOTALL)
        yield {
            "activity_label": activity,
            "ctx_a": cut[1] if cut else context,
            "ctx_b": cut[2] if cut else "",
            "endings": lines[at + 2 : at + 6],
            "label": lines[at + 1].strip(),
        }


def hellaswag(path: Path) -> Rows:
    """The published objects' columns that the task reads, the label as the hub's text."""
    for row in json_lines(path):
        yield {
            **{name: row[name] for name in ("activity_label", "ctx_a", "ctx_b", "endings")},
            "label": str(row["label"]),
        }


def truthfulqa(path: Path) -> Rows:
    """Choices and labels as two lists in place of one object."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        yield {
            "question": row["question"],
            **{
                name: {"choices": list(row[name]), "labels": list(row[name].values())}
                for name in ("mc1_targets", "mc2_targets")
            },
        }


def bbh(path: Path) -> Rows:
    """The examples of a BIG-Bench Hard file."""
    yield from json.loads(path.read_text(encoding="utf-8"))["examples"]


Files = dict[str, tuple[str, Callable[[Path], Rows]]]
"""By split: the path below the data folder, and how it is read."""


@dataclass(frozen=True)
class Source:
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
        """What is there of its files."""
        there = self.training is not None and (data / self.training[0]).exists()
        return {**({"train": self.training} if self.training and there else {}), **self.files}

    def settings(self, data: Path) -> dict[str, Any]:
        """What differs from the task's own configuration beside the files."""
        return {"training_split": None} if self.has_training and "train" not in self.splits(data) else {}


def with_labels(name: str) -> Callable[[Path], Rows]:
    """Reads a JSON Lines file whose labels are in the file NAME beside it."""
    return lambda path: labelled(path, path.with_name(name), "label")


def sources(data: Path) -> list[Source]:
    """Every task whose evaluated items are here, subtasks of MMLU and BBH each on its own."""
    found = [
        Source(
            "piqa",
            "piqa",
            {"validation": ("piqa/valid.jsonl", with_labels("valid-labels.lst"))},
            10,
            ("piqa/train.jsonl", with_labels("train-labels.lst")),
        ),
        Source(
            "hellaswag",
            "hellaswag",
            {"validation": ("hellaswag/hellaswag_val.jsonl", hellaswag)},
            10,
            ("hellaswag/hellaswag_train.jsonl", hellaswag),
        ),
        Source(
            "lambada",
            "lambada_openai",
            {"test": ("lambada/lambada_test.jsonl", json_lines)},
            0,
            has_training=False,
        ),
        *(
            Source(
                "winogrande",
                "winogrande",
                {"validation": ("winogrande/dev.jsonl", json_lines)},
                5,
                (f"winogrande/{name}", json_lines),
            )
            for name in ("train_xl.jsonl", "train_xs.jsonl")
        ),
        *(
            Source(
                "ai2_arc",
                f"arc_{level.lower()}",
                {
                    "validation": (f"arc/ARC-{level}-Dev.jsonl", arc),
                    "test": (f"arc/ARC-{level}-Test.jsonl", arc),
                },
                25,
                (f"arc/ARC-{level}-Train.jsonl", arc),
            )
            for level in ("Easy", "Challenge")
        ),
        Source("gsm8k_cot", "gsm8k_cot", {"test": ("gsm8k/test.jsonl", json_lines)}, 8, has_training=False),
        Source(
            "truthfulqa_mc2",
            "truthfulqa_mc2",
            {"validation": ("truthfulqa/mc_task.json", truthfulqa)},
            0,
            has_training=False,
        ),
    ]
    # The file that other programs take HellaSwag from, for who has that one.
    found.append(
        Source(
            "hellaswag",
            "hellaswag",
            {"validation": ("hellaswag/hellaswag_val_full.txt.bz2", hellaswag_lines)},
            10,
        )
    )
    found += [
        Source(
            "mmlu",
            f"mmlu_{path.stem.removesuffix('_test')}",
            {
                "dev": (f"mmlu/dev/{path.stem.removesuffix('_test')}_dev.csv", mmlu),
                "test": (f"mmlu/test/{path.name}", mmlu),
            },
            5,
            has_training=False,
        )
        for path in sorted((data / "mmlu" / "test").glob("*_test.csv"))
    ]
    found += [
        Source(
            "bbh_cot_fewshot",
            f"bbh_cot_fewshot_{path.stem}",
            {"test": (f"bbh/{path.name}", bbh)},
            None,
            has_training=False,
        )
        for path in sorted((data / "bbh").glob("*.json"))
    ]
    there = [source for source in found if all((data / path).exists() for path, _ in source.files.values())]
    # Of two sources of a task, the one with training items.
    best: dict[str, Source] = {}
    for source in there:
        if source.task not in best or (
            "train" in source.splits(data) and "train" not in best[source.task].splits(data)
        ):
            best[source.task] = source
    return list(best.values())


def main() -> int:
    """Converts the files and writes the groups."""
    options = parse_options(LocalOptions)
    from instruction_modelling.runs.folder import write_aside

    data, output = Path(options.data_dir), Path(options.output_dir).resolve()
    there = sources(data)
    if not there:
        raise UserError(
            f"--data_dir {data}: holds none of the files (mmlu/test/*.csv, piqa/valid.jsonl, ...); fetch "
            "them with "
            "`sh prepare_eval_data.sh`"
        )
    entries: dict[str, list[dict[str, Any]]] = {}
    counts: dict[str, int] = {}
    for source in there:
        files = {}
        for split, (path, read) in source.splits(data).items():
            target = output / source.benchmark / f"{source.task}_{split}.jsonl"
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                rows = list(read(data / path))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{data / path}: is not what its source publishes ({type(error).__name__}: {error})"
                ) from error
            write_aside(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            files[split] = str(target)
            if split == list(source.files)[-1]:
                counts[source.benchmark] = counts.get(source.benchmark, 0) + len(rows)
        shots = {} if source.num_fewshot is None else {"num_fewshot": source.num_fewshot}
        entries.setdefault(source.benchmark, []).append(
            {
                "task": source.task,
                "dataset_path": "json",
                "dataset_name": None,
                "dataset_kwargs": {"data_files": files},
                **shots,
                **source.settings(data),
            }
        )
    for name, text in groups(entries).items():
        write_aside(output / f"{name}.yaml", text)
    for benchmark in BENCHMARKS:
        tasks = entries.get(benchmark.key)
        said = (
            f"{len(tasks)} of {benchmark.count} tasks, {counts[benchmark.key]:,} items"
            if tasks
            else "no files"
        )
        print(f"{benchmark.key}: {said}")
    print(f"written to {output}: the group sft_eval_local; use --include_path {output}")
    return 0


METRICS = {
    "mmlu": {"metric": "acc", "weight_by_size": True},
    "bbh_cot_fewshot": {"metric": "exact_match", "weight_by_size": True, "filter_list": "get-answer"},
}


def groups(entries: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """The YAML of each group by its name: of each benchmark, of each category, and of all.

    Args:
        entries: the tasks of each benchmark as lm-eval's configuration has them.
    """
    import yaml

    written: dict[str, dict[str, Any]] = {}
    top = []
    for category, keys in OF_CATEGORY.items():
        own = [f"{key}_local" for key in keys if key in entries]
        for key in keys:
            if key in entries:
                written[f"{key}_local"] = {
                    "task": entries[key],
                    **({"aggregate_metric_list": [METRICS[key]]} if key in METRICS else {}),
                }
        if own:
            top.append(f"sft_eval_{category}_local")
            written[top[-1]] = {"task": own}
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
