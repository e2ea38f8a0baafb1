"""The rows of a comparison: the same for every arm.

IT has nothing to train in a row without a response, and IM has its instruction; left to themselves the two
are trained on different rows for different numbers of steps. So one set of rows is fixed before anything is
trained: those with a response to train, whichever arms are compared. What is left out is counted, and listed
in rows_left_out.jsonl."""

import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from instruction_modelling.called import command
from instruction_modelling.comparison.mixtures import BEYOND_SHARE, beyond_share, write_mixture
from instruction_modelling.comparison.row_counts import RowSet, left_out_lines
from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.files.whole import write_json, write_json_lines
from instruction_modelling.progress import counted
from instruction_modelling.rows.clean import clean_row
from instruction_modelling.rows.conversations import (
    BadRow,
    Conversation,
    ConversationFile,
    check_bad_rows,
    read_conversations,
)
from instruction_modelling.rows.files import open_parts
from instruction_modelling.rows.json_lines import BLANK
from instruction_modelling.rows.mixture import RowFiles, one_file, row_files
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy, has_response

logger = logging.getLogger(__name__)

NO_RESPONSE, COPY = "no response to train", "copy of a row that is held out"
LEFT_OUT, ROWS = "rows_left_out.jsonl", "rows.json"
# About; costs are reckoned by it before anything is tokenised.
BYTES_OF_TOKEN = 4
# Fewer rows than these are no comparison.
LEAST_TO_SPLIT, LEAST_TRAINED = 10, 2


@dataclass(frozen=True)
class TrainAndTest:
    """The files of one comparison, and the folder its runs go to."""

    train: Path
    test: Path
    folder: Path
    longest: int = 0
    """Tokens of the longest sequence of both."""
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What rows.json says of each part, train and test."""
    evaluation: Path | None = None
    """Rows that are measured while training, where there are any."""
    mixture: Path | None = None
    """Where files have proportions: the mixture of the rows of `train`, which is trained on in its place."""

    @property
    def trained_on(self) -> Path:
        """Return what training reads."""
        return self.mixture or self.train

    def tokens(self, path: Path) -> float:
        """Return about how many tokens a file has: a quarter of its bytes."""
        return path.stat().st_size / BYTES_OF_TOKEN


@dataclass(frozen=True)
class _Rows:
    """A file's rows: those that are used, as they are to be written, and those that are not."""

    file: ConversationFile
    records: dict[int, Any]
    """By row of the file, the used rows."""
    left_out: list[dict[str, Any]]
    is_json: bool
    """Whether every job can read the file as it is."""
    longest: int


@dataclass(frozen=True)
class UsableRows:
    """The rows of a file that a comparison uses, the lines on those it does not, and the file's hash."""

    conversations: list[Conversation]
    left_out: list[dict[str, Any]]
    sha256: str
    longest: int
    """Tokens of the longest sequence."""


@dataclass(frozen=True)
class RowChoice:
    """Which rows of the files are used: `common`, those with a response to train, or `own`, all that can be
    read, of which each arm leaves out those that it has no loss for."""

    encoder: RowEncoder
    row_set: RowSet = "common"
    max_bad_rows: int = 0
    columns: str | None = None

    def of(self, train: Path, test: Path | None, folder: Path) -> TrainAndTest:
        """Return the training and test files of a comparison, written where they are not those given; without
        a test file, rows drawn at random are held out (`held_out_rows`).

        Raises:
            UserError: unreadable, too many unusable, or too few rows.
        """
        rows, mixture = self._read(row_files([str(train)])), folder / f"{_name_of(train)}_train.yaml"
        if test is not None:
            held = self._read(one_file(test))
            parts = {"train": rows, "test": held}
            files = {
                part: _file_of(of_part, folder / f"{part}_rows.jsonl") for part, of_part in parts.items()
            }
            trained = rows.records
            _warn_of_same_rows(rows, held)
            _warn_of_copies(held)
        else:
            files, trained, copies = _hold_out(rows, folder)
            rows = held = _without(rows, copies)
        mixed = write_mixture(rows.file, trained, mixture)
        counts = {
            part: _counts(rows if part == "train" else held, path, test is not None)
            for part, path in files.items()
        }
        if mixed is not None:
            counts["train"]["sha256"] = read_conversations(row_files([str(mixed)])).sha256
        write_json(folder / ROWS, {"row_set": self.row_set, **counts})
        left_out = [*rows.left_out, *(held.left_out if test is not None else [])]
        write_json_lines(folder / LEFT_OUT, left_out)
        for line in left_out_lines({part: counts[part] for part in ("train", "test")[: 1 + bool(test)]}):
            logger.warning("%s; they are listed in %s", line, folder / LEFT_OUT)
        longest = max(rows.longest, held.longest)
        return TrainAndTest(files["train"], files["test"], folder, longest, counts, mixture=mixed)

    def usable(self, path: Path) -> UsableRows:
        """Return the rows of a file that are used, as they were read; of a mixture with proportions, rows in
        these.

        Raises:
            UserError: unreadable, or too many unusable rows.
        """
        rows = self._read(row_files([str(path)]))
        beyond = set(beyond_share(rows.file, list(rows.records)))
        used = [each for each in rows.file.conversations if each.row in rows.records]
        left_out = [
            *rows.left_out,
            *(
                _left_out(rows.file, BadRow(each.row, each.line, each.id, BEYOND_SHARE, ""))
                for each in used
                if each.row in beyond
            ),
        ]
        return UsableRows(
            [each for each in used if each.row not in beyond], left_out, rows.file.sha256, rows.longest
        )

    def _read(self, files: RowFiles) -> _Rows:
        file, path = read_conversations(files, self.columns), files.path
        encoded = encode_file(file, self.encoder)
        check_bad_rows(file, self.max_bad_rows, encoded.refused)
        unused = {row.row: row for row in (*file.bad_rows, *encoded.refused)}
        if self.row_set == "common":
            detail = "no text of an assistant's message with a weight is left of it at --max_seq_length"
            without = set(rows_without_response(encoded))
            for c in file.conversations:
                if c.row in without:
                    unused[c.row] = BadRow(c.row, c.line, c.id, NO_RESPONSE, detail)
        left_out = [_left_out(file, unused[row]) for row in sorted(unused)]
        is_json = path.is_file() and path.suffix.lower() in (".jsonl", ".json") and not self.columns
        records = _raw_records(path) if is_json else {c.row: clean_row(c) for c in file.conversations}
        kept = {row: record for row, record in records.items() if row not in unused}
        return _Rows(file, kept, left_out, is_json, int(encoded.sequence_lengths.max(initial=0)))


def _warn_of_same_rows(trained: _Rows, held: _Rows) -> None:
    """Say how many test rows are training rows too, with the same messages."""
    told = {_what_is_said(row) for row in trained.file.conversations if row.row in trained.records}
    same = [row for row in held.file.conversations if row.row in held.records and _what_is_said(row) in told]
    if same:
        logger.warning(
            "%s: %d of its %s stand in %s too, word for word (first %s): on them the loss tells what was "
            "learnt by heart; leave --test_file out, and rows are held out, or take them out: %s",
            held.file.path,
            len(same),
            counted(len(held.records), "row"),
            trained.file.path,
            held.file.place(same[0]),
            command(
                *("find_overlap", trained.file.path, held.file.path),
                *("--output_dir", "overlap", "--write_clean"),
            ),
        )


def _warn_of_copies(held: _Rows) -> None:
    """Warn where test rows are copies of each other: each counts in the report's intervals."""
    said = [_what_is_said(row) for row in held.file.conversations if row.row in held.records]
    if copies := len(said) - len(set(said)):
        logger.warning(
            "%s: %s of its %s %s of others, word for word: the report's intervals count each, and are too "
            "narrow for it; take them out",
            *(
                held.file.path,
                f"{copies:,}",
                counted(len(said), "row"),
                "is a copy" if copies == 1 else "are copies",
            ),
        )


def _what_is_said(row: Conversation) -> int:
    return hash(tuple((message.role, message.text) for message in row.messages))


def _left_out(file: ConversationFile, row: BadRow) -> dict[str, Any]:
    """Return a line of rows_left_out.jsonl."""
    member = file.member_of(row.row)
    return {
        **{"file": str(member.path), "row": row.row - member.first_row, "line": row.line, "id": row.id},
        **{"reason": row.reason, "detail": row.detail},
    }


def rows_without_response(encoded: EncodedData) -> list[int]:
    """Return the rows, by their number in the file, in which no token of an assistant's text, reasoning or
    calls has a loss when the responses are trained: none was written, it was cut, or it weighs 0."""
    weights = encoded.weights(WeightPolicy())

    def is_trained(sequence: int) -> bool:
        span = encoded.sequence_span(sequence)
        return has_response(encoded.kinds[span], weights[span])

    return [
        int(encoded.rows[i]) for i in range(len(encoded)) if not any(map(is_trained, encoded.sequences_of(i)))
    ]


def _raw_records(path: Path) -> dict[int, Any]:
    values = (value for part in open_parts(path) for _, value in part.values if value is not BLANK)
    return dict(enumerate(values))


def _file_of(rows: _Rows, path: Path) -> Path:
    """Return the file of these rows: the given one where all of it is used and every job can read it."""
    if rows.is_json and not rows.left_out:
        return rows.file.path
    if len(rows.records) < LEAST_TRAINED:
        raise UserError(_too_few(rows, f"a comparison needs {LEAST_TRAINED}"))
    write_json_lines(path, rows.records.values())
    return path


def held_out_rows(rows: int) -> int:
    """Return how many of a file's rows are held out for testing: a fifth; where that is less than 300, up to
    300, but no more than a third. A difference of 0.05 nats takes some hundred rows to be seen."""
    return max(rows // 5, min(300, rows // 3))


def _name_of(path: Path) -> str:
    """Return what the files written of these rows are called by."""
    return path.name.replace(":", "_").partition(".")[0]


def _without(rows: _Rows, copies: Sequence[Conversation]) -> _Rows:
    """Return rows without copies of those that are held out, which are neither trained nor tested on."""
    numbers = {row.row for row in copies}
    used = {row: record for row, record in rows.records.items() if row not in numbers}
    lines = [_left_out(rows.file, BadRow(row.row, row.line, row.id, COPY, "")) for row in copies]
    return replace(rows, records=used, left_out=[*rows.left_out, *lines])


def _hold_out(rows: _Rows, folder: Path) -> tuple[dict[str, Path], dict[int, Any], list[Conversation]]:
    """Write the rows of both parts; return their files, the rows to train on, and the copies of rows that are
    held out, which are in neither."""
    said = {row.row: _what_is_said(row) for row in rows.file.conversations if row.row in rows.records}
    first: dict[int, int] = {}
    for row in rows.records:
        first.setdefault(said[row], row)
    distinct = list(first.values())
    if len(distinct) < LEAST_TO_SPLIT:
        raise UserError(_too_few(rows, "too few that differ to hold some out; give --test_file"))
    drawn = random.Random(0).sample(range(len(distinct)), held_out_rows(len(distinct)))
    held_out = {distinct[i] for i in drawn}
    trained = {row: record for row, record in rows.records.items() if first[said[row]] not in held_out}
    parts = {"train": trained, "test": {row: rows.records[row] for row in rows.records if row in held_out}}
    files = {part: folder / f"{_name_of(rows.file.path)}_{part}.jsonl" for part in parts}
    for part, path in files.items():
        write_json_lines(path, parts[part].values())
    logger.info("%s: %s held out for testing", rows.file.path, counted(len(held_out), "row"))
    copies = [
        row
        for row in rows.file.conversations
        if row.row in rows.records and row.row not in trained and row.row not in held_out
    ]
    return files, trained, copies


def _too_few(rows: _Rows, why: str) -> str:
    reasons = Counter(row["reason"] for row in rows.left_out)
    without = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return f"{rows.file.path}: {counted(len(rows.records), 'usable row')}" + (
        f" ({without} left out), {why}" if without else f" are {why}"
    )


def _counts(rows: _Rows, path: Path, has_own_file: bool) -> dict[str, Any]:
    """Return what rows.json says of one part: the file used, and, of the whole file it comes from, its rows,
    those used and the others by reason."""
    return {
        "file": str(path),
        "sha256": file_sha256(path),
        "from": str(rows.file.path),
        "rows": rows.file.rows,
        "used": len(rows.records),
        "left_out": dict(Counter(row["reason"] for row in rows.left_out).most_common()),
        "held_out_of_train": not has_own_file,
    }
