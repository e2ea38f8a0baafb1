"""Convert files of published instruction data to rows of chat.

Conversion streams: a row is read, converted and written before the next one is, so memory does not grow with
the file (only rows drawn by a limit are held). Every row read is written, refused with a reason, or left out
on purpose: `rows_read == rows_written + refused + left out`, always. What a row is depends on the source: a
line of most files, an instance of a task, a path through a tree of messages, a piece of a split conversation.

A row gets the id `PREFIX_n`, n counting the rows read from 0, so an id says which row of the source it was.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.sources.conversion.drafts import Chat, Draft, LeftOut
from instruction_modelling.sources.conversion.formats import Converter, converter_of, split_length
from instruction_modelling.sources.conversion.options import Conversion, ConversionOptions
from instruction_modelling.sources.conversion.readers import SourceFile, SourceRow
from instruction_modelling.sources.conversion.report import ConversionReport, Outputs, conversion_outputs

OnRead = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


def convert(
    format_name: str,
    raw_files: Sequence[Path],
    output: Path,
    options: ConversionOptions | None = None,
    on_read: OnRead | None = None,
) -> ConversionReport:
    """Convert files of one format to one JSON Lines file, with a card and a list of refused rows beside it.

    Args:
        format_name: a key of `formats.CONVERTERS`.
        raw_files: read in this order.
        output: has its name only once it is whole.

    Raises:
        UserError: a file cannot be read, an option does not fit the format, or no row could be converted.
    """
    options = with_defaults(format_name, raw_files, options or ConversionOptions())
    conversion = Conversion(options, random.Random(options.seed))
    for _ in range(converter_of(format_name).drawn_before):
        conversion.rng.random()
    report = ConversionReport(format_name, output)
    with conversion_outputs(report, options.record(options.tokenizer_name())) as outputs:
        convert_into(outputs, format_name, raw_files, conversion, on_read)
    return report


def with_defaults(
    format_name: str, raw_files: Sequence[Path], options: ConversionOptions
) -> ConversionOptions:
    """Return the options with what the format decides filled in where nothing is asked for."""
    converter = converter_of(format_name)
    limit, max_tokens = options.limit, options.max_tokens
    return replace(
        options,
        limit=converter.limit if limit is None else limit,
        max_tokens=split_length(converter, raw_files) if max_tokens is None else max_tokens,
    )


def convert_into(
    outputs: Outputs,
    format_name: str,
    raw_files: Sequence[Path],
    conversion: Conversion,
    on_read: OnRead | None = None,
) -> None:
    """Convert files of one format into outputs that may hold other formats' rows already.

    Raises:
        UserError: a file cannot be read, or there is a limit for a format whose rows cannot be counted
            beforehand.
    """
    converter, report = converter_of(format_name), outputs.report
    if conversion.options.limit and not converter.one_to_one:
        raise UserError(
            f"{format_name}: a limit cannot be set, as one row of its files is several rows; sample the "
            "output"
        )
    dataset = converter.dataset or format_name
    prefix = converter.prefix or dataset
    rows_before, notes_before = report.rows_read, conversion.notes.copy()
    for source, position, row in _rows(converter, raw_files, conversion, report, on_read):
        for draft in _drafts(converter, row.value, conversion):
            if type(draft) is LeftOut:
                report.left_out[draft.reason] += draft.rows
                report.rows_read += draft.rows
                continue
            number = position if converter.one_to_one else report.rows_read - rows_before
            report.rows_read += 1
            try:
                chat = _answered(draft)
                written = {
                    "dataset": chat.dataset or dataset,
                    "id": chat.id or f"{prefix}_{number}",
                    "messages": chat.messages,
                }
                outputs.write(format_name, written)
            except RowRefused as refused:
                outputs.refuse(source, row.line, refused)
                # Else it and the frames that hold it hold the row until cycles are looked for.
                refused.__traceback__ = None
            except orjson.JSONEncodeError:
                half = "the text has half of a surrogate pair, or bytes that are not UTF-8"
                outputs.refuse(source, row.line, RowRefused("lone surrogate", half))
    report.notes.update(conversion.notes - notes_before)


def _drafts(converter: Converter, value: Any, conversion: Conversion) -> Iterable[Draft]:
    if isinstance(value, RowRefused):
        return (value,)
    try:
        drafts = converter.convert(value, conversion)
    except RowRefused as refused:
        return (refused,)
    # Only what is made bit by bit can still be refused.
    return drafts if type(drafts) is tuple else _refusals_caught(drafts)


def _refusals_caught(drafts: Iterable[Draft]) -> Iterator[Draft]:
    try:
        yield from drafts
    except RowRefused as refused:
        yield refused


def _answered(draft: Draft) -> Chat:
    """Return the chat, if it has an answer; raise the refusal that stands for one."""
    if isinstance(draft, RowRefused):
        raise draft
    assert isinstance(draft, Chat)
    # Nearly every chat ends in an answer, which is quicker to see.
    if draft.messages[-1]["role"] == "assistant" or any(
        message["role"] == "assistant" for message in draft.messages
    ):
        return draft
    raise RowRefused("no answer", f"none of the row's {len(draft.messages)} messages is the assistant's")


def _rows(
    converter: Converter,
    raw_files: Sequence[Path],
    conversion: Conversion,
    report: ConversionReport,
    on_read: OnRead | None,
) -> Iterator[tuple[Path, int, SourceRow]]:
    """Yield (file, position among the rows of all files, row); of a file with more rows than the limit, those
    that are drawn."""
    earlier, limit = 0, conversion.options.limit
    for path in raw_files:
        file = SourceFile(path)
        count = file.count() if limit else 0
        rows = file.document() if converter.whole_files else file.rows()
        if on_read is not None:
            rows = _reported(file, rows, on_read)
        if limit and count > limit:
            drawn = _draw(conversion.rng, count, limit, converter.shuffled)
            report.left_out["not drawn"] += count - limit
            report.rows_read += count - limit
            chosen = set(drawn)
            held = {position: row for position, row in enumerate(rows) if position in chosen}
            for position in drawn:
                # Let go of a row once it is written.
                yield path, earlier + position, held.pop(position)
            earlier += count
        else:
            for row in rows:
                yield path, earlier, row
                earlier += 1
        source = {"file": str(path), "sha256": file.sha256, "bytes": file.bytes}
        if source not in report.sources:
            report.sources.append(source)


def _draw(rng: random.Random, count: int, limit: int, shuffled: bool) -> list[int]:
    """Return which `limit` of `count` rows are taken, in the order in which they are written."""
    if not shuffled:
        return rng.sample(range(count), k=limit)
    order = list(range(count))
    rng.shuffle(order)
    return order[:limit]


def _reported(file: SourceFile, rows: Iterator[SourceRow], on_read: OnRead) -> Iterator[SourceRow]:
    """Yield the rows of a file; `on_read` hears of the bytes read, every thousand rows."""
    reported = 0
    for number, row in enumerate(rows):
        yield row
        if number % 1000 == 999:
            # Reading is ahead of the rows, a piece at a time.
            if file.bytes > reported:
                on_read(file.bytes - reported)
            reported = file.bytes
    if file.bytes > reported:
        on_read(file.bytes - reported)
