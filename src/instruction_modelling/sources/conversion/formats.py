"""Formats of published instruction data by name: how their rows become chats, and what their files are
called."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.sources.conversion import dialogues as dialogue_formats
from instruction_modelling.sources.conversion import instructions as instruction_formats
from instruction_modelling.sources.conversion.drafts import Draft
from instruction_modelling.sources.conversion.options import Conversion


@dataclass(frozen=True)
class Converter:
    """A format: how its rows become chats, and what its files are called."""

    convert: Callable[[Any, Conversion], Iterable[Draft]]
    """(row of the source, conversion) to rows of chat."""
    files: tuple[tuple[str, ...], ...]
    """Names of the raw files, as patterns; the first group of which every pattern is there is the one to
    convert."""
    folders: tuple[str, ...] = ()
    """Of the raw files (default: one of the format's name)."""
    dataset: str | None = None
    """What the rows say they are from (default: the format's name)."""
    prefix: str | None = None
    """Of the ids (default: as the rows' dataset)."""
    max_tokens: int | None = None
    """Longest piece of a conversation, where conversations come whole."""
    drawn_before: int = 0
    """Random numbers the published conversion has used up, on other sets, before this one."""
    limit: int | None = None
    """Rows drawn from each file where no other limit is given (default: all)."""
    shuffled: bool = False
    """Whether the published data were drawn by shuffling the whole file rather than by sampling from it."""
    whole_files: bool = False
    """Whether a file is one JSON value, not a table of rows."""
    one_to_one: bool = True
    """Whether a row of the source is one row of chat, so that a limit can be set."""


_ALPAGASUS = instruction_formats.alpagasus
_SHAREGPT_WHOLE = ("sg_90k_part1_html_cleaned.json", "sg_90k_part2_html_cleaned.json")

CONVERTERS: dict[str, Converter] = {
    "super_ni": Converter(
        instruction_formats.super_ni,
        (("splits/xlingual/train_tasks.txt",), ("tasks/*.json",)),
        whole_files=True,
        one_to_one=False,
    ),
    "cot": Converter(
        instruction_formats.cot, (("cot_zsopt.jsonl", "cot_fsopt.jsonl"), ("*_train.tsv",)), limit=50_000
    ),
    "flan_v2": Converter(
        instruction_formats.flan_v2,
        (
            ("tulu_v1_resampled_flan_100k.jsonl",),
            ("tulu_v2_resampled_flan_50k.jsonl",),
            ("flan_v2_resampled_100k.jsonl",),
        ),
    ),
    "dolly": Converter(instruction_formats.dolly, (("databricks-dolly-15k.jsonl",),)),
    "self_instruct": Converter(
        instruction_formats.self_instruct,
        (("all_instances_82K.jsonl",), ("seed_tasks.jsonl",)),
        one_to_one=False,
    ),
    "unnatural_instructions": Converter(
        instruction_formats.unnatural_instructions, (("core_data.jsonl",),), one_to_one=False
    ),
    "stanford_alpaca": Converter(instruction_formats.stanford_alpaca, (("alpaca_data.json",),)),
    "code_alpaca": Converter(instruction_formats.code_alpaca, (("code_alpaca_20k.json",),)),
    "gpt4_alpaca": Converter(instruction_formats.gpt4_alpaca, (("alpaca_gpt4_data.json",),)),
    "baize": Converter(
        dialogue_formats.baize,
        (tuple(f"{source}_chat_data.json" for source in ("alpaca", "medical", "quora", "stackoverflow")),),
    ),
    "oasst1": Converter(
        dialogue_formats.oasst1, (("2023-04-12_oasst_ready.trees.jsonl",),), one_to_one=False
    ),
    "sharegpt": Converter(
        dialogue_formats.sharegpt,
        (("sharegpt_html_cleaned_and_split_2048.json",), _SHAREGPT_WHOLE),
        max_tokens=2048,
        one_to_one=False,
    ),
    "sharegpt_4096": Converter(
        dialogue_formats.sharegpt,
        (("sharegpt_html_cleaned_and_split_4096.json",), _SHAREGPT_WHOLE),
        folders=("sharegpt",),
        dataset="sharegpt",
        max_tokens=4096,
        one_to_one=False,
    ),
    "lima": Converter(dialogue_formats.lima, (("train.jsonl",),)),
    "wizardlm": Converter(
        dialogue_formats.wizardlm,
        (("WizardLM_evol_instruct_V2_143k.json",), ("train-*.parquet",)),
        limit=30_000,
    ),
    "open_orca": Converter(
        dialogue_formats.open_orca, (("1M-GPT4-Augmented.parquet",),), limit=30_000, shuffled=True
    ),
    "science": Converter(instruction_formats.science, (("science_train.jsonl",),)),
    "hard_coded": Converter(instruction_formats.hard_coded, (("hard_coded_examples.xlsx",),)),
    "less": Converter(dialogue_formats.less, (("*.jsonl",),), one_to_one=False),
    "alpagasus_3k_dolly": Converter(
        _ALPAGASUS, (("dolly_3k.json",),), folders=("dolly",), prefix="alpagasus_3k", drawn_before=5305 + 9229
    ),
    "alpagasus_9k_dolly": Converter(
        _ALPAGASUS, (("chatgpt_9k.json",),), folders=("dolly",), prefix="alpagasus_9k", drawn_before=5305
    ),
    "alpagasus_claude_t45_alpaca": Converter(
        _ALPAGASUS, (("claude_t45.json",),), folders=("alpaca",), prefix="alpagasus"
    ),
}


def split_length(converter: Converter, raw_files: Sequence[Path]) -> int | None:
    """Return the tokens at which the conversations of these files are to be split; None where they need not
    be."""
    return None if all("_split_" in path.name for path in raw_files) else converter.max_tokens


def converter_of(format_name: str) -> Converter:
    """Return the converter of a format.

    Raises:
        UserError: there is none of that name.
    """
    if format_name not in CONVERTERS:
        raise UserError(f"there is no format {format_name}; there are {', '.join(CONVERTERS)}")
    return CONVERTERS[format_name]


def raw_files_of(format_name: str, raw_folder: Path) -> list[Path]:
    """Return the raw files of a format, in the order to convert them; empty where there are none.

    Of Super-NaturalInstructions, the tasks of `splits/xlingual/train_tasks.txt`, without those made from the
    MMLU benchmark.

    Args:
        format_name: a key of `CONVERTERS`.
        raw_folder: holds the format's folder.

    Raises:
        UserError: a task that the list names is not there.
    """
    converter = converter_of(format_name)
    for group in converter.files:
        for folder in (raw_folder / name for name in converter.folders or (format_name,)):
            matches = [
                sorted(folder.glob(pattern)) or sorted(folder.glob(pattern + ".gz")) for pattern in group
            ]
            if all(matches):
                files = [path for paths in matches for path in paths]
                return _listed_tasks(files[0]) if files[0].name == "train_tasks.txt" else files
    return []


def _listed_tasks(task_list: Path) -> list[Path]:
    listed = task_list.read_text(encoding="utf-8").split()
    names = [name for name in listed if "_mmmlu_" not in name]
    files = [task_list.parents[2] / "tasks" / f"{name}.json" for name in names]
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise UserError(
            f"{task_list}: {len(missing)} of its {len(files)} tasks are not in {files[0].parent}, the first "
            f"{missing[0]}; unpack the whole repository of tasks"
        )
    return files
