"""What becomes of rows longer than the maximum length: cut at the end, left out, or an error."""

import logging
from dataclasses import replace
from typing import Literal

import numpy as np

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import BadRow, ConversationFile
from instruction_modelling.tokens.encoded import EncodedData

logger = logging.getLogger(__name__)

Overlong = Literal["cut", "drop", "error"]
OVERLONG = "longer than --max_seq_length"
# Rows that are named, the longest ones.
_MOST_NAMED = 5


def leave_out_overlong(
    data: EncodedData, file: ConversationFile, choice: Overlong, max_seq_length: int
) -> tuple[EncodedData, list[BadRow]]:
    """Return the rows as --overlong says, and those that are left out, with their lengths.

    A row of several sequences is too long if one of them is; its length is that of the longest.

    Args:
        data: the file's rows, cut at the maximum length.

    Raises:
        UserError: a row is too long and the choice is `error`, or every row is and it is `drop`. It names how
            many there are, and the longest.
    """
    lengths = data.sequence_lengths + data.tokens_cut
    rows_of_sequences = np.repeat(np.arange(len(data)), np.diff(data.first_sequence))
    longest = np.zeros(len(data), dtype=np.int64)
    np.maximum.at(longest, rows_of_sequences, lengths)
    too_long = np.flatnonzero(longest > max_seq_length).tolist()
    if choice == "cut" or not too_long:
        return data, []
    wanted = {int(data.rows[index]) for index in too_long}
    of_row = {row.row: (row.line, row.id) for row in file.conversations if row.row in wanted}
    rows = []
    for index in too_long:
        row = int(data.rows[index])
        detail = f"{longest[index]} tokens, where --max_seq_length is {max_seq_length}"
        rows.append((int(longest[index]), BadRow(row, *of_row[row], OVERLONG, detail)))
    said = _said(rows, len(data), file, max_seq_length)
    if choice == "error":
        raise UserError(
            f"{said}. Raise --max_seq_length, cut them (--overlong cut), or leave them out (--overlong drop)"
        )
    if len(too_long) == len(data):
        raise UserError(f"{said}, so --overlong drop leaves none. Raise --max_seq_length, or cut them")
    logger.warning("%s; left out (--overlong drop)", said)
    kept = data.take(np.setdiff1d(np.arange(len(data)), too_long))
    counts = replace(data.counts, truncated_rows=0, tokens_cut=0, turns_cut=0)
    return replace(kept, counts=counts), [row for _, row in rows]


def _said(rows: list[tuple[int, BadRow]], count: int, file: ConversationFile, max_seq_length: int) -> str:
    """Return how many of `count` rows are too long, and which are the longest, in words."""
    named = sorted(rows, key=lambda item: (-item[0], item[1].row))[:_MOST_NAMED]
    places = ", ".join(
        f"{file.place(row, named[0][1] if number else None)} ({length} tokens)"
        for number, (length, row) in enumerate(named)
    )
    more = f" and {len(rows) - len(named)} more" if len(rows) > len(named) else ""
    were = "is" if len(rows) == 1 else "are"
    return (
        f"{file.path}: {len(rows)} of {count} rows {were} longer than --max_seq_length "
        f"{max_seq_length}, the longest first: {places}{more}"
    )
