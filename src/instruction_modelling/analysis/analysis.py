"""One file's analysis, from its rows to the numbers that the table, the page and the JSON show."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.analysis.advisor import SetNumbers, advise
from instruction_modelling.analysis.duplicates import (
    compared_instruction_text,
    compared_row_text,
    exact_duplicates,
    group_summary,
    listed_rows,
)
from instruction_modelling.analysis.near_duplicates import (
    DEFAULT_SETTINGS,
    NearDuplicateSettings,
    find_near_duplicates,
)
from instruction_modelling.analysis.tokens import TokenSettings, token_statistics
from instruction_modelling.analysis.words import RowLengths, counting_note, row_lengths, word_statistics
from instruction_modelling.errors import UserError
from instruction_modelling.progress import Progress
from instruction_modelling.rows.conversations import (
    BadRow,
    Conversation,
    ConversationFile,
    Message,
    bad_rows_table,
    check_bad_rows,
    read_conversations,
)
from instruction_modelling.rows.words import length_ratio
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.encoded import EncodedData

_BAD_ROWS_LISTED = 100
_EMPTY_LISTED = 50
_ROLE_ORDERS = 10
# From here on the search for near-duplicates takes long enough to say how far it is.
_MANY_ROWS = 20_000


@dataclass(frozen=True)
class Analysis:
    """A file's numbers (`results`, plain JSON values, unrounded), and the lengths that the histograms
    draw."""

    results: dict[str, Any]
    lengths: RowLengths
    file: ConversationFile
    refused: list[BadRow] = field(default_factory=list)
    """Rows that the chat format refused."""


def analyse(
    path: str | Path,
    near: NearDuplicateSettings | None = DEFAULT_SETTINGS,
    tokens: TokenSettings | None = None,
    columns: str | None = None,
) -> Analysis:
    """Read a file and count all that is in it.

    Args:
        near: None leaves the search for near-duplicates out.
        tokens: None counts words only.
        columns: what its columns are, as `read_conversations` takes it.

    Raises:
        UserError: the file cannot be read, or none of its rows can be used.
    """
    file = read_conversations(path, columns)
    rows = file.conversations
    if not rows:
        first = file.bad_rows[0]
        raise UserError(
            f"{path}: none of its {file.rows} rows can be used ({file.place(first)}: {first.reason}: "
            f"{first.detail})"
        )
    lengths = row_lengths(rows)
    words = word_statistics(lengths)
    duplicates = exact_duplicates(rows)
    empty = [row for row, conversation in enumerate(rows) if _has_empty_output(conversation)]
    without = [row for row, conversation in enumerate(rows) if not _has_response(conversation)]
    results: dict[str, Any] = {
        "path": str(path),
        "sha256": file.sha256,
        "rows": len(rows),
        "blank_lines": file.blank_lines,
        "unread_keys": dict(file.unknown_keys),
        "bad_rows": _bad_rows(file, file.bad_rows),
        "words": words,
        "without_response": {"rows": len(without), "listed": listed_rows(rows, without[:_EMPTY_LISTED])},
        "empty_outputs": {"rows": len(empty), "listed": listed_rows(rows, empty[:_EMPTY_LISTED])},
        "turns": turn_statistics(rows),
        "duplicates": duplicates,
        "near_duplicates": _near_duplicates(rows, near) if near else None,
        "tokens": None,
    }
    refused: list[BadRow] = []
    if tokens:
        data = _encoded(file, tokens)
        refused = data.refused
        results["tokens"] = _token_results(file, data, tokens)
    results["advice"] = advise(_numbers(results, columns))
    return Analysis(results, lengths, file, refused)


def bad_row_problems(analyses: Sequence[Analysis], most: int) -> list[str]:
    """Return a problem for each file that has more unusable rows than `most`, with those rows."""
    problems = []
    for analysis in analyses:
        try:
            check_bad_rows(analysis.file, most, analysis.refused)
        except UserError as error:
            problems.append(str(error))
    return problems


def _is_empty(message: Message) -> bool:
    return not (message.content.strip() or message.tool_calls or message.reasoning_content)


def _has_empty_output(conversation: Conversation) -> bool:
    return any(message.role == "assistant" and _is_empty(message) for message in conversation.messages)


def _has_response(conversation: Conversation) -> bool:
    """Return whether a row has something of the assistant's to train."""
    return any(
        message.role == "assistant" and message.weight and not _is_empty(message)
        for message in conversation.messages
    )


def _bad_rows(file: ConversationFile, bad: Sequence[BadRow]) -> dict[str, Any]:
    listed = [{"place": file.place(b), **asdict(b)} for b in bad[:_BAD_ROWS_LISTED]]
    return {"rows": len(bad), "reasons": bad_rows_table(bad), "listed": listed}


def turn_statistics(rows: Sequence[Conversation]) -> dict[str, Any]:
    """Return messages by role, rows by number of messages and of responses, and the most frequent orders of
    roles."""
    orders = Counter(" ".join(message.role for message in row.messages) for row in rows)
    responses = Counter(sum(message.role == "assistant" for message in row.messages) for row in rows)
    sizes = Counter(len(row.messages) for row in rows)
    return {
        "messages_by_role": dict(Counter(message.role for row in rows for message in row.messages)),
        "rows_by_messages": {str(size): sizes[size] for size in sorted(sizes)},
        "rows_by_responses": {str(size): responses[size] for size in sorted(responses)},
        "multi_turn_rows": sum(count for size, count in responses.items() if size > 1),
        "rows_with_system": sum(any(m.role == "system" for m in row.messages) for row in rows),
        "rows_without_response": responses[0],
        "rows_not_ending_with_response": sum(row.messages[-1].role != "assistant" for row in rows),
        "plain_rows": sum(row.plain for row in rows),
        "datasets": dict(Counter(row.dataset for row in rows).most_common()),
        "role_orders": dict(orders.most_common(_ROLE_ORDERS)),
    }


def _near_duplicates(rows: Sequence[Conversation], settings: NearDuplicateSettings) -> dict[str, Any]:
    text_of = compared_row_text if settings.of == "row" else compared_instruction_text
    progress = Progress(len(rows), "rows searched for near-duplicates", shown=len(rows) >= _MANY_ROWS)
    near = find_near_duplicates(lambda row: text_of(rows[row]), len(rows), settings, progress)
    pairs = sorted(((value, pair) for pair, value in near.similarity.items() if value < 1.0), reverse=True)
    examples = [{"similarity": value, "rows": listed_rows(rows, pair)} for value, pair in pairs[:20]]
    return {
        "of": settings.of,
        **near.statistics(settings),
        **group_summary(near.groups, rows),
        "pairs": examples,
    }


def _encoded(file: ConversationFile, tokens: TokenSettings) -> EncodedData:
    data = encode_file(file, tokens.encoder, tokens.overwrite_cache)
    if not len(data):
        first = data.refused[0]
        raise UserError(
            f"{file.path}: none of its rows can be encoded ({file.place(first)}: {first.reason}: "
            f"{first.detail})"
        )
    return data


def _token_results(file: ConversationFile, data: EncodedData, tokens: TokenSettings) -> dict[str, Any]:
    return {
        **token_statistics(data, tokens),
        "chat_format": tokens.encoder.chat_format.name,
        "refused_rows": _bad_rows(file, data.refused),
    }


def _numbers(results: dict[str, Any], columns: str | None) -> SetNumbers:
    words, tokens, near = results["words"], results["tokens"], results["near_duplicates"]
    rows = results["rows"]
    return SetNumbers(
        rows,
        words["instruction"],
        words["output"],
        response_share_im=tokens["loss_shares"]["IM"]["example"]["response"] if tokens else None,
        duplicate_share=results["duplicates"]["row"]["extra_rows"] / rows,
        near_duplicate_share=near["extra_rows"] / rows if near else None,
        conflicting_rows=results["duplicates"]["conflicting"]["rows"],
        empty_outputs=results["empty_outputs"]["rows"],
        without_response=results["without_response"]["rows"],
        tokens_lost_share=tokens["truncation"]["token_share_lost"] if tokens else None,
        not_latin_share=words["not_latin_share"],
        counting=counting_note(
            words, length_ratio(tokens["instruction"]["mean"], tokens["output"]["mean"]) if tokens else None
        ),
        path=results["path"],
        columns=columns,
    )
