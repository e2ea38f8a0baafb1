"""Conversion of a set by its name, a single format or a mixture, from the folder of its downloads; and what
came of it."""

from collections.abc import Sequence
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import content_of, differing, read_stamp
from instruction_modelling.progress import Progress
from instruction_modelling.sources.conversion.convert import convert, with_defaults
from instruction_modelling.sources.conversion.formats import CONVERTERS, raw_files_of, split_length
from instruction_modelling.sources.conversion.mixtures import (
    MIXTURES,
    build_mixture,
    mixture_files,
    mixture_record,
)
from instruction_modelling.sources.conversion.options import ConversionOptions
from instruction_modelling.sources.conversion.report import ConversionReport


def set_files(name: str, raw: Path) -> list[Path]:
    """Return the raw files of a format or of all parts of a mixture, in the order to convert them; empty
    where one is missing."""
    try:
        if name in MIXTURES:
            parts = mixture_files(MIXTURES[name], raw)
            return [path for part, files in parts for path in files * part.repeat]
        return raw_files_of(name, raw)
    except UserError:
        return []


def converted_path(name: str, output_dir: Path) -> Path:
    """Return where the rows of a set go."""
    return output_dir / name / f"{name}_data.jsonl"


def convert_set(name: str, raw: Path, output_dir: Path, options: ConversionOptions) -> ConversionReport:
    """Convert one format or mixture, with progress on the terminal.

    Args:
        options: of a mixture, only seed, templates and tokenizer count.

    Raises:
        UserError: its raw files are not there or cannot be read, or no row could be converted.
    """
    output = converted_path(name, output_dir)
    size = sum(path.stat().st_size for path in set_files(name, raw))
    on_read = Progress(size, f"bytes of {name}").add
    if name in MIXTURES:
        return build_mixture(MIXTURES[name], raw, output, options, on_read)
    files = raw_files_of(name, raw)
    if not files:
        patterns = " or ".join(", ".join(group) for group in CONVERTERS[name].files)
        raise UserError(f"its raw files are not in {raw}: {patterns}; run prepare_train_data.sh first")
    return convert(name, files, output, options, on_read)


def needs_tokenizer(name: str, raw: Path) -> bool:
    """Return whether conversations of a set have to be split at a number of tokens."""
    if name in MIXTURES:
        parts = mixture_files(MIXTURES[name], raw)
        return any(split_length(CONVERTERS[part.format], files) for part, files in parts)
    return bool(split_length(CONVERTERS[name], raw_files_of(name, raw)))


def converted_rows(
    name: str, raw: Path, output_dir: Path, options: ConversionOptions, tokenizer_name: str | None = None
) -> int | None:
    """Return the rows of a conversion of just these raw files with these options, if it is there, whole; else
    None.

    Its card is its stamp.

    Args:
        tokenizer_name: of the tokenizer that `options` would have; it need not be loaded to ask.
    """
    output, files = converted_path(name, output_dir), set_files(name, raw)
    card = read_stamp(ConversionReport(name, output).card)
    if card is None or not files:
        return None
    if name in MIXTURES:
        record = mixture_record(MIXTURES[name], options, tokenizer_name)
    else:
        record = with_defaults(name, files, options).record(tokenizer_name)
    asked = {
        "options": record,
        "sources": sorted({content_of(path) for path in files}),
        "sha256": content_of(output),
    }
    try:
        sources = sorted({source["sha256"] for source in card["sources"]})
        same = not differing(
            {"options": card["options"], "sources": sources, "sha256": card["sha256"]}, asked
        )
        return int(card["rows_written"]) if same else None
    except (KeyError, TypeError, ValueError):
        # Not a card of ours.
        return None


def print_table(reports: Sequence[ConversionReport]) -> None:
    """Print a line a set, and under it what was refused, left out and changed, by reason."""
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
