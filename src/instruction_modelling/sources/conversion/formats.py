"""Published instruction data, converted to rows of chat: the formats by name, and one function that converts
files.

`convert` streams: a row is read, converted and written before the next one is, so memory does not grow with
the file (only rows drawn by `limit` are held). Every row read is written, refused with a reason, or left out
on purpose: `rows_read == rows_written + refused + left out`, always. What a row is depends on the source: a
line of most files, an instance of a task, a path through a tree of messages, a piece of a split conversation.

A row gets the id `PREFIX_n`, n counting the rows read from 0, so an id says which row of the source it was.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.sources.conversion import dialogues as dialogue_formats
from instruction_modelling.sources.conversion import instructions as instruction_formats
from instruction_modelling.sources.conversion.readers import SourceFile, SourceRow
from instruction_modelling.sources.conversion.report import ConversionReport, Outputs
from instruction_modelling.sources.conversion.settings import Chat, Draft, LeftOut, Settings
from instruction_modelling.sources.conversion.templates import PromptTemplates, load_templates

__all__ = [
    "CONVERTERS",
    "ConversionReport",
    "Converter",
    "convert",
    "convert_into",
    "converter_of",
    "raw_files_of",
    "split_length",
]


@dataclass(frozen=True)
class Converter:
    """A format: how its rows become chats, and what its files are called."""

    convert: Callable[[Any, Settings], Iterable[Draft]]
    """(row of the source, settings) to rows of chat."""
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


def convert(
    format_name: str,
    raw_files: Sequence[Path],
    output: Path,
    *,
    templates: Path | PromptTemplates | None = None,
    seed: int = 42,
    limit: int | None = None,
    best_replies: int | None = None,
    max_tokens: int | None = None,
    tokenizer: Any = None,
    released_split: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ConversionReport:
    """Converts files of one format to one JSON Lines file, with a card and a list of refused rows beside it.

    Args:
        format_name: a key of `CONVERTERS`.
        raw_files: read in this order.
        output: written aside and renamed.
        templates: words around instructions, or the file that holds them.
        seed: of what is drawn.
        limit: most rows from each file, drawn at random; 0 for all (default: the converter's).
        best_replies, released_split: as in `Settings`.
        max_tokens: ShareGPT: longest piece of a conversation; 0 for whole conversations (default: the
            converter's, or
            whole ones from files that have `_split_` in their names).
        tokenizer: a transformers tokenizer, to split conversations.
        progress: called with the number of bytes read since the last call.

    Raises:
        UserError: a file cannot be read, an option does not fit the format, or no row could be converted.
    """
    converter = converter_of(format_name)
    settings = Settings(
        random.Random(seed),
        load_templates(templates) if isinstance(templates, Path) else templates,
        best_replies,
        released_split=released_split,
    )
    if max_tokens is None:
        max_tokens = split_length(converter, raw_files)
    if max_tokens:
        settings.split_at(max_tokens, tokenizer)
    for _ in range(converter.drawn_before):
        settings.rng.random()
    limit = converter.limit if limit is None else limit
    options = {
        "seed": seed,
        "limit": limit,
        "best_replies": best_replies,
        "max_tokens": max_tokens,
        "released_split": released_split,
        "templates": str(templates) if isinstance(templates, Path) else templates is not None,
        "tokenizer": getattr(tokenizer, "name_or_path", None),
    }
    report = ConversionReport(format_name, output)
    with Outputs(report) as outputs:
        convert_into(outputs, format_name, raw_files, settings, limit, progress)
        outputs.finish(options)
    return report


def split_length(converter: Converter, raw_files: Sequence[Path]) -> int | None:
    """Tokens at which the conversations of these files are to be split; None where they need not be."""
    return None if all("_split_" in path.name for path in raw_files) else converter.max_tokens


def converter_of(format_name: str) -> Converter:
    """The converter of a format.

    Raises:
        UserError: there is none of that name.
    """
    if format_name not in CONVERTERS:
        raise UserError(f"there is no format {format_name}; there are {', '.join(CONVERTERS)}")
    return CONVERTERS[format_name]


def raw_files_of(format_name: str, raw_folder: Path) -> list[Path]:
    """The raw files of a format, in the order to convert them; empty where there are none.

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
            found = [
                sorted(folder.glob(pattern)) or sorted(folder.glob(pattern + ".gz")) for pattern in group
            ]
            if all(found):
                files = [path for paths in found for path in paths]
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


def convert_into(
    outputs: Outputs,
    format_name: str,
    raw_files: Sequence[Path],
    settings: Settings,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Converts files of one format into outputs that may hold other formats' rows already.

    Raises:
        UserError: a file cannot be read, or `limit` is given for a format whose rows cannot be counted
        beforehand.
    """
    converter, report = converter_of(format_name), outputs.report
    if limit and not converter.one_to_one:
        raise UserError(
            f"{format_name}: a limit cannot be set, as one row of its files is several rows; sample the "
            "output"
        )
    dataset = converter.dataset or format_name
    prefix = converter.prefix or dataset
    before, notes_before = report.rows_read, settings.notes.copy()
    for source, place, row in _rows(converter, raw_files, settings, limit, report, progress):
        for draft in _drafts(converter, row.value, settings):
            if type(draft) is LeftOut:
                report.left_out[draft.reason] += draft.rows
                report.rows_read += draft.rows
                continue
            number = place if converter.one_to_one else report.rows_read - before
            report.rows_read += 1
            try:
                messages, own_dataset, own_id = _answered(draft)
                outputs.write(
                    format_name,
                    {
                        "dataset": own_dataset or dataset,
                        "id": own_id or f"{prefix}_{number}",
                        "messages": messages,
                    },
                )
            except RowRefused as refused:
                outputs.refuse(source, row.line, refused)
            except orjson.JSONEncodeError:
                outputs.refuse(
                    source,
                    row.line,
                    RowRefused(
                        "lone surrogate", "the text has half of a surrogate pair, or bytes that are not UTF-8"
                    ),
                )
    report.notes.update(settings.notes - notes_before)


def _drafts(converter: Converter, value: Any, settings: Settings) -> Iterable[Draft]:
    if isinstance(value, RowRefused):
        return (value,)
    try:
        drafts = converter.convert(value, settings)
    except RowRefused as refused:
        return (refused,)
    # Only what is made bit by bit can still be refused.
    return drafts if type(drafts) is tuple else _guarded(drafts)


def _guarded(drafts: Iterable[Draft]) -> Iterator[Draft]:
    try:
        yield from drafts
    except RowRefused as refused:
        yield refused


def _answered(draft: Draft) -> Chat:
    """The chat, if it has an answer; raises the refusal that stands for one."""
    if isinstance(draft, RowRefused):
        raise draft
    assert isinstance(draft, Chat)
    if draft.messages[-1]["role"] == "assistant" or any(
        message["role"] == "assistant" for message in draft.messages
    ):
        return draft
    raise RowRefused("no answer", f"none of the row's {len(draft.messages)} messages is the assistant's")


def _rows(
    converter: Converter,
    raw_files: Sequence[Path],
    settings: Settings,
    limit: int | None,
    report: ConversionReport,
    progress: Callable[[int], None] | None,
) -> Iterator[tuple[Path, int, SourceRow]]:
    """(file, number among the rows of all files, row); of a file with more than `limit` rows, those that are
    drawn."""
    before = 0
    for path in raw_files:
        file = SourceFile(path)
        count = file.count() if limit else 0
        rows = file.document() if converter.whole_files else file.rows()
        if progress is not None:
            rows = _watched(file, rows, progress)
        if limit and count > limit:
            drawn = _draw(settings.rng, count, limit, converter.shuffled)
            report.left_out["not drawn"] += count - limit
            report.rows_read += count - limit
            wanted = set(drawn)
            held = {place: row for place, row in enumerate(rows) if place in wanted}
            for place in drawn:
                # Let go of a row once it is written.
                yield path, before + place, held.pop(place)
            before += count
        else:
            for row in rows:
                yield path, before, row
                before += 1
        source = {"file": str(path), "sha256": file.sha256, "bytes": file.bytes}
        if source not in report.sources:
            report.sources.append(source)


def _draw(rng: random.Random, count: int, wanted: int, shuffled: bool) -> list[int]:
    """Which of `count` rows are taken, in the order in which they are written."""
    if not shuffled:
        return rng.sample(range(count), k=wanted)
    order = list(range(count))
    rng.shuffle(order)
    return order[:wanted]


def _watched(
    file: SourceFile, rows: Iterator[SourceRow], progress: Callable[[int], None]
) -> Iterator[SourceRow]:
    """The rows of a file; `progress` hears of the bytes read now and then."""
    told = 0
    for number, row in enumerate(rows):
        yield row
        if number % 1000 == 999:
            # Reading is ahead of the rows, a piece at a time.
            if file.bytes > told:
                progress(file.bytes - told)
            told = file.bytes
    if file.bytes > told:
        progress(file.bytes - told)
