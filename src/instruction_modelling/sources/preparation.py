"""Prepare training sets: fetch them, convert them, and say what is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.sources.conversion.options import ConversionOptions
from instruction_modelling.sources.conversion.sets import (
    convert_set,
    converted_path,
    converted_rows,
    needs_tokenizer,
    print_table,
)
from instruction_modelling.sources.conversion.templates import load_templates
from instruction_modelling.sources.downloads.catalogue import ALPAGASUS_SETS, CATALOGUE
from instruction_modelling.sources.downloads.published import PublishedSet
from instruction_modelling.sources.downloads.sets import DownloadOptions, fetch_sets, print_states


@dataclass
class Preparation:
    """How sets are converted once they are fetched."""

    data_dir: Path
    download_only: bool
    seed: int
    templates: Path | None
    tokenizer_name: str
    """Folder or hub name of the tokenizer that measures conversations."""
    load_tokenizer: Callable[[str], Any]
    """Loads it; called only where a set needs it."""


def prepare_sets(sets: Sequence[PublishedSet], downloads: DownloadOptions, preparation: Preparation) -> int:
    """Fetch and convert sets; return the exit code: 0 if every one is there, else 2."""
    problems = fetch_sets(with_parts(sets), downloads)
    rows = []
    for published in sets:
        names = (published.name, *published.parts)
        problem = next((problems[name] for name in names if name in problems), None)
        if problem is None:
            rows.append((published.name, *finish_set(published, preparation)))
        else:
            rows.append((published.name, "failed", "", problem))
    return print_states(rows)


def with_parts(sets: Sequence[PublishedSet]) -> list[PublishedSet]:
    """Return the sets and the parts of mixtures among them, each once."""
    every = [entry for mixture in sets for entry in (*map(CATALOGUE.get, mixture.parts), mixture) if entry]
    return list({entry.name: entry for entry in every}.values())


def finish_set(published: PublishedSet, preparation: Preparation) -> tuple[str, str, str]:
    """Convert a set whose files are there; return (ready or failed, rows, where it is or what went wrong)."""
    if published.formats and not preparation.download_only:
        try:
            return _converted_set(published, preparation)
        except UserError as error:
            return "failed", "", str(error)
    files = published.paths(preparation.data_dir)
    where = " ".join(map(str, files)) or str(preparation.data_dir / published.folder)
    if published.formats:
        return "ready", "", where
    rows = sum(map(count_lines, files))
    if rows != published.rows:
        where += f" (the published set has {published.rows:,} rows)"
    return "ready", f"{rows:,}", where


def _converted_set(published: PublishedSet, preparation: Preparation) -> tuple[str, str, str]:
    output_dir = preparation.data_dir / "processed"
    raw = preparation.data_dir / ("alpagasus" if published.folder.startswith("alpagasus") else "raw_train")
    templates = load_templates(preparation.templates) if preparation.templates else None
    options = ConversionOptions(seed=preparation.seed, templates=templates)
    total, outputs = 0, []
    for name in published.formats:
        splitter = preparation.tokenizer_name if needs_tokenizer(name, raw) else None
        rows = converted_rows(name, raw, output_dir, options, splitter)
        if rows is None:
            tokenizer = preparation.load_tokenizer(splitter) if splitter else None
            report = convert_set(name, raw, output_dir, replace(options, tokenizer=tokenizer))
            print_table([report])
            rows = report.rows_written
        total += rows
        outputs.append(str(converted_path(name, output_dir)))
    return "ready", f"{total:,}", " ".join(outputs)


def count_lines(path: Path) -> int:
    """Count the lines of a file that are not empty."""
    with path.open("rb") as handle:
        return sum(1 for line in handle if line.strip())


def print_markdown(sets: Sequence[PublishedSet]) -> None:
    """Print the sets as the Markdown table of data/README.md."""
    print(
        "| set | rows | words: instruction / output | licence | source | command |\n|---|--:|--:|---|---|---|"
    )
    for published in sets:
        script = "prepare_alpagasus_data.sh" if published.name in ALPAGASUS_SETS else "prepare_train_data.sh"
        rows = f"{published.rows:,}" if published.rows else "-"
        words = " / ".join(f"{mean:.0f}" for mean in published.words) if published.words else "-"
        print(
            f"| `{published.name}` | {rows} | {words} | "
            f"{published.licence}{', on consent' if published.access else ''} | "
            f"<{published.source}> | `sh {script} {published.name}` |"
        )
