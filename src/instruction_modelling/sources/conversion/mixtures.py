"""The Tülu V2 (and V1) mixture, built from its parts, and its filter on mentions of other models and their
makers.

Parts, limits and filter are those of the published script for these mixtures; the public Tülu V2 has 326,154
rows, the paper's 326,181. What is drawn is drawn part after part from one generator, as there, so seed 42
draws the rows which that script draws from the same files when it makes this mixture alone. Different on
purpose: the parts follow each other in the order of the tables below (there, in whatever order the folder was
listed), repeated rows have ids of their own, and no words are put around instructions unless templates are
given."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.sources.conversion.formats import (
    CONVERTERS,
    convert_into,
    raw_files_of,
    split_length,
)
from instruction_modelling.sources.conversion.report import ConversionReport, Outputs
from instruction_modelling.sources.conversion.settings import Messages, Settings
from instruction_modelling.sources.conversion.templates import PromptTemplates

# In any case and anywhere in a message: "palm" drops palm trees and "bard" bombardments, as in the published
# mixture.
MENTIONS = (
    "openai",
    "open ai",
    "chatgpt",
    "chat gpt",
    "gpt-3",
    "gpt3",
    "gpt 3",
    "gpt-4",
    "gpt4",
    "gpt 4",
    "bingchat",
    "bing chat",
    "bard",
    "palm",
    "anthropic",
    "claude",
    "laion",
    "open assistant",
    "openassistant",
)
_UNFILTERED = ("hard_coded",)


@dataclass(frozen=True)
class Part:
    """One source of a mixture; `limit` is the most rows from each of its files."""

    format: str
    files: tuple[str, ...] = ()
    """Names of the raw files (default: the format's)."""
    limit: int | None = None
    best_replies: int | None = None
    repeat: int = 1
    """How often all rows are written."""


TULU_V2 = (
    Part("flan_v2", ("tulu_v2_resampled_flan_50k.jsonl",)),
    Part("cot", limit=25_000),
    Part("oasst1", best_replies=1),
    Part("lima"),
    Part("gpt4_alpaca", limit=20_000),
    Part("code_alpaca"),
    Part("sharegpt_4096"),
    Part("wizardlm", limit=30_000),
    Part("open_orca", limit=30_000),
    Part("science"),
    Part("hard_coded", repeat=10),
)
TULU_V1 = (
    Part("flan_v2", ("tulu_v1_resampled_flan_100k.jsonl",)),
    Part("cot", limit=50_000),
    Part("oasst1"),
    Part("dolly"),
    Part("gpt4_alpaca"),
    Part("code_alpaca"),
    Part("sharegpt"),
)


def build_tulu_v2(
    raw_folder: Path,
    output: Path,
    *,
    seed: int = 42,
    templates: PromptTemplates | None = None,
    tokenizer: Any = None,
    progress: Callable[[int], None] | None = None,
) -> ConversionReport:
    """The Tülu V2 mixture in one JSON Lines file; rows that the filter takes out are listed beside it.

    Args:
        raw_folder: holds a folder of raw files for each part, named as its format.
        output: written aside and renamed.
        seed: of what is drawn.
        templates: words around instructions.
        tokenizer: a transformers tokenizer, to split ShareGPT where its split file is not there; then split
            as the
            published splitter does.
        progress: called with the number of bytes read since the last call.

    Raises:
        UserError: a part is missing, or cannot be read.
    """
    return _build(
        "tulu_v2",
        TULU_V2,
        raw_folder,
        output,
        Settings(random.Random(seed), templates),
        tokenizer,
        seed,
        progress,
        filtered=True,
    )


def build_tulu_v1(
    raw_folder: Path,
    output: Path,
    *,
    seed: int = 42,
    templates: PromptTemplates | None = None,
    tokenizer: Any = None,
    progress: Callable[[int], None] | None = None,
) -> ConversionReport:
    """The Tülu V1 mixture; as `build_tulu_v2`, without a filter."""
    return _build(
        "tulu_v1",
        TULU_V1,
        raw_folder,
        output,
        Settings(random.Random(seed), templates),
        tokenizer,
        seed,
        progress,
        filtered=False,
    )


def mention(messages: Messages) -> str | None:
    """The first of `MENTIONS` that a message contains, or None."""
    for message in messages:
        content = message["content"].lower()
        for words in MENTIONS:
            if words in content:
                return words
    return None


def mixture_files(parts: tuple[Part, ...], raw_folder: Path) -> list[tuple[Part, list[Path]]]:
    """Each part with its raw files, in order.

    Raises:
        UserError: files of parts are missing; all such parts are named.
    """
    found = []
    for part in parts:
        folder = raw_folder / part.format
        named = [path for name in part.files for path in (folder / name, folder / f"{name}.gz")]
        found.append(
            (
                part,
                [path for path in named if path.exists()] if named else raw_files_of(part.format, raw_folder),
            )
        )
    missing = [
        f"{part.format} "
        f"({', '.join(part.files) or ' or '.join(map(', '.join, CONVERTERS[part.format].files))})"
        for part, files in found
        if not files
    ]
    if missing:
        raise UserError(
            f"{raw_folder} lacks parts of the mixture: {'; '.join(missing)}. Download them first."
        )
    return found


def _build(
    name: str,
    parts: tuple[Part, ...],
    raw_folder: Path,
    output: Path,
    settings: Settings,
    tokenizer: Any,
    seed: int,
    progress: Callable[[int], None] | None,
    filtered: bool,
) -> ConversionReport:
    def keep(format_name: str, messages: Messages) -> str | None:
        words = mention(messages) if filtered and format_name not in _UNFILTERED else None
        return words and f"mentions {words}"

    report = ConversionReport(name, output)
    found = mixture_files(parts, raw_folder)
    with Outputs(report, keep) as outputs:
        for part, files in found:
            own = replace(settings, best_replies=part.best_replies, released_split=True)
            if most := split_length(CONVERTERS[part.format], files):
                own.split_at(most, tokenizer)
            convert_into(outputs, part.format, files * part.repeat, own, part.limit, progress)
        outputs.finish(
            {
                "seed": seed,
                "templates": settings.templates is not None,
                "filtered": filtered,
                "tokenizer": getattr(tokenizer, "name_or_path", None),
                "parts": [vars(part) for part in parts],
            }
        )
    return report
