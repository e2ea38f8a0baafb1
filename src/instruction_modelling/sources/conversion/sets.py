"""Conversion of a set by its name, a single format or a mixture, from the folder of its downloads; and what
came of it."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.progress import Progress
from instruction_modelling.sources.conversion.formats import CONVERTERS, convert, raw_files_of, split_length
from instruction_modelling.sources.conversion.mixtures import (
    TULU_V1,
    TULU_V2,
    build_tulu_v1,
    build_tulu_v2,
    mixture_files,
)
from instruction_modelling.sources.conversion.report import ConversionReport
from instruction_modelling.sources.conversion.templates import load_templates

MIXTURES = {"tulu_v1": (TULU_V1, build_tulu_v1), "tulu_v2": (TULU_V2, build_tulu_v2)}


def set_files(name: str, raw: Path) -> list[Path]:
    """The raw files of a format or of all parts of a mixture, in the order to convert them; empty where one
    is missing."""
    try:
        if name in MIXTURES:
            return [
                path for part, files in mixture_files(MIXTURES[name][0], raw) for path in files * part.repeat
            ]
        return raw_files_of(name, raw)
    except UserError:
        return []


def output_of(name: str, output_dir: Path) -> Path:
    """Where the rows of a set go."""
    return output_dir / name / f"{name}_data.jsonl"


def convert_set(
    name: str,
    raw: Path,
    output_dir: Path,
    *,
    tokenizer: Any = None,
    seed: int = 42,
    templates: Path | None = None,
    limit: int | None = None,
    best_replies: int | None = None,
    max_tokens: int | None = None,
    released_split: bool = False,
) -> ConversionReport:
    """Converts one format or mixture; `limit` and what follows it are for formats alone (see
    `source_formats.convert`).

    Raises:
        UserError: its raw files are not there or cannot be read, or no row could be converted.
    """
    output = output_of(name, output_dir)
    progress: Callable[[int], None] = Progress(
        sum(path.stat().st_size for path in set_files(name, raw)), f"bytes of {name}"
    ).add
    if name in MIXTURES:
        return MIXTURES[name][1](
            raw,
            output,
            seed=seed,
            templates=load_templates(templates) if templates else None,
            tokenizer=tokenizer,
            progress=progress,
        )
    files = raw_files_of(name, raw)
    if not files:
        wanted = " or ".join(", ".join(group) for group in CONVERTERS[name].files)
        raise UserError(f"its raw files are not in {raw}: {wanted}; run prepare_train_data.sh first")
    return convert(
        name,
        files,
        output,
        templates=templates,
        seed=seed,
        limit=limit,
        best_replies=best_replies,
        max_tokens=max_tokens,
        tokenizer=tokenizer,
        released_split=released_split,
        progress=progress,
    )


def needs_tokenizer(name: str, raw: Path) -> bool:
    """Whether conversations of a set have to be split at a number of tokens."""
    if name in MIXTURES:
        parts = mixture_files(MIXTURES[name][0], raw)
        return any(split_length(CONVERTERS[part.format], files) for part, files in parts)
    return bool(split_length(CONVERTERS[name], raw_files_of(name, raw)))


def converted_rows(
    name: str,
    raw: Path,
    output_dir: Path,
    *,
    seed: int,
    templates: Path | None,
    tokenizer_name: str | None = None,
) -> int | None:
    """The rows of a conversion of just these raw files with these settings, if it is there, whole; else
    None."""
    output = output_of(name, output_dir)
    with suppress(OSError, ValueError, KeyError, TypeError, UserError):
        card = json.loads(output.with_name(output.stem + ".card.json").read_text(encoding="utf-8"))
        as_asked = (
            card["options"]["seed"] == seed
            and card["options"]["tokenizer"] == tokenizer_name
            and card["options"]["templates"] in ((True, str(templates)) if templates else (False, None))
        )
        files = {source["sha256"] for source in card["sources"]}
        if (
            as_asked
            and files == {file_sha256(path) for path in set_files(name, raw)}
            and file_sha256(output) == card["sha256"]
        ):
            return int(card["rows_written"])
    return None


def print_table(reports: Sequence[ConversionReport]) -> None:
    """A line a set, and under it what was refused, left out and changed, by reason."""
    if not reports:
        return
    width = max(len(report.format) for report in reports)
    print(f"{'set':{width}}  {'read':>9}  {'written':>9}  {'refused':>9}  {'left out':>9}  file")
    for report in reports:
        print(
            f"{report.format:{width}}  {report.rows_read:9,}  {report.rows_written:9,}  "
            f"{report.refused.total():9,}  "
            f"{report.left_out.total():9,}  {report.output}"
        )
        for kind, counts in (
            ("refused", report.refused),
            ("left out", report.left_out),
            ("changed", report.notes),
        ):
            for reason, count in counts.most_common():
                print(f"{'':{width}}  {kind}: {count:,} {reason}")
        if report.refused:
            print(f"{'':{width}}  every refused row: {report.refusals}")
