"""The Tülu V2 and V1 mixtures, built from their parts, and the filter on mentions of other models and their
makers.

Parts, limits and filter are those of the published script for these mixtures; the public Tülu V2 has 326,154
rows, the paper's 326,181. What is drawn is drawn part after part from one generator, as there, so seed 42
draws the rows which that script draws from the same files when it makes this mixture alone. Different on
purpose: the parts follow each other in the order of the tables below (there, in whatever order the folder was
listed), repeated rows have ids of their own, and no words are put around instructions unless templates are
given."""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.sources.conversion.convert import OnRead, convert_into
from instruction_modelling.sources.conversion.drafts import Messages
from instruction_modelling.sources.conversion.formats import CONVERTERS, raw_files_of, split_length
from instruction_modelling.sources.conversion.options import Conversion, ConversionOptions
from instruction_modelling.sources.conversion.report import ConversionReport, conversion_outputs

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


@dataclass(frozen=True)
class Mixture:
    """A mixture of several formats' rows."""

    name: str
    parts: tuple[Part, ...]
    filtered: bool
    """Whether rows that mention other models or their makers are left out."""


TULU_V2 = Mixture(
    "tulu_v2",
    (
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
    ),
    filtered=True,
)
TULU_V1 = Mixture(
    "tulu_v1",
    (
        Part("flan_v2", ("tulu_v1_resampled_flan_100k.jsonl",)),
        Part("cot", limit=50_000),
        Part("oasst1"),
        Part("dolly"),
        Part("gpt4_alpaca"),
        Part("code_alpaca"),
        Part("sharegpt"),
    ),
    filtered=False,
)
MIXTURES = {mixture.name: mixture for mixture in (TULU_V1, TULU_V2)}


def mention(messages: Messages) -> str | None:
    """Return the first of `MENTIONS` that a message contains, or None."""
    for message in messages:
        content = message["content"].lower()
        for words in MENTIONS:
            if words in content:
                return words
    return None


def mixture_files(mixture: Mixture, raw_folder: Path) -> list[tuple[Part, list[Path]]]:
    """Return each part with its raw files, in order.

    Raises:
        UserError: files of parts are missing; all such parts are named.
    """
    files = [(part, _part_files(part, raw_folder)) for part in mixture.parts]
    missing = [
        f"{part.format} "
        f"({', '.join(part.files) or ' or '.join(map(', '.join, CONVERTERS[part.format].files))})"
        for part, paths in files
        if not paths
    ]
    if missing:
        raise UserError(
            f"{raw_folder} lacks parts of the mixture: {'; '.join(missing)}. Download them first."
        )
    return files


def _part_files(part: Part, raw_folder: Path) -> list[Path]:
    folder = raw_folder / part.format
    named = [path for name in part.files for path in (folder / name, folder / f"{name}.gz")]
    return [path for path in named if path.exists()] if named else raw_files_of(part.format, raw_folder)


def build_mixture(
    mixture: Mixture,
    raw_folder: Path,
    output: Path,
    options: ConversionOptions | None = None,
    on_read: OnRead | None = None,
) -> ConversionReport:
    """Build a mixture in one JSON Lines file; rows that its filter takes out are listed beside it.

    Args:
        raw_folder: holds a folder of raw files for each part, named as its format.
        output: has its name only once it is whole.
        options: seed, templates, and the tokenizer to split ShareGPT where its split file is not there, then
        as
            the published splitter does; the rest is the mixture's own.

    Raises:
        UserError: a part is missing, or cannot be read.
    """
    options = options or ConversionOptions()

    def left_out_reason(format_name: str, messages: Messages) -> str | None:
        words = mention(messages) if mixture.filtered and format_name not in _UNFILTERED else None
        return words and f"mentions {words}"

    report = ConversionReport(mixture.name, output)
    files = mixture_files(mixture, raw_folder)
    conversion = Conversion(replace(options, max_tokens=None), random.Random(options.seed))
    record = mixture_record(mixture, options, options.tokenizer_name())
    with conversion_outputs(report, record, left_out_reason) as outputs:
        for part, paths in files:
            part_options = replace(
                options,
                limit=part.limit,
                best_replies=part.best_replies,
                max_tokens=split_length(CONVERTERS[part.format], paths),
                released_split=True,
            )
            shared = replace(conversion, options=part_options)
            convert_into(outputs, part.format, paths * part.repeat, shared, on_read)
    return report


def mixture_record(
    mixture: Mixture, options: ConversionOptions, tokenizer_name: str | None
) -> dict[str, Any]:
    """Return how a mixture is built, as the card beside it keeps it, by which it is known again."""
    asked = options.record(tokenizer_name)
    return {
        **{name: asked[name] for name in ("seed", "templates", "templates_sha256", "tokenizer")},
        "filtered": mixture.filtered,
        "parts": [vars(part) for part in mixture.parts],
    }
