"""What run.json and the log say of each of several training files."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import ConversationFile
from instruction_modelling.tokens.quotas import Quotas

logger = logging.getLogger(__name__)


def describe_members(
    file: ConversationFile, left_out: Sequence[Mapping[str, Any]], quotas: Quotas | None
) -> list[dict[str, Any]]:
    """Return of each of several files its data set's name, path, sha256, rows, those used and those left out
    by reason, and, where the files have proportions, its share, its examples an epoch and how often an epoch
    goes through it; [] of one file. The most of it goes to the log.

    Args:
        left_out: the lines of bad_rows.jsonl.
        quotas: of the rows that are used.
    """
    starts = [member.first_row for member in file.members]
    ends = [*starts[1:], file.rows]
    records = []
    for number, (member, start, end) in enumerate(zip(file.members, starts, ends, strict=False)):
        reasons = Counter(line["reason"] for line in left_out if line["file"] == str(member.path))
        record: dict[str, Any] = {
            "name": member.name,
            "path": str(member.path),
            "sha256": member.sha256,
            "rows": end - start,
            "used": end - start - sum(reasons.values()),
            "left_out": dict(reasons.most_common()),
        }
        if quotas and file.proportions:
            record["proportion"] = file.proportions[number]
            record["examples_per_epoch"] = quotas.an_epoch[number]
            record["passes_per_epoch"] = quotas.passes[number]
        logger.info("  %s", _in_words(record))
        records.append(record)
    return records


def _in_words(record: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in record["left_out"].items())
    said = f"{record['path']}: {counted(record['rows'], 'row')}, {record['used']:,} used"
    said += f" (left out: {reasons})" if reasons else ""
    if (passes := record.get("passes_per_epoch")) is None:
        return said
    said += f"; {record['proportion']:.1%} of an epoch, {counted(record['examples_per_epoch'], 'example')}: "
    if passes == 1:
        return said + "each row once"
    if passes < 1:
        return said + f"{passes:.1%} of its rows, other ones each epoch"
    least, rest = divmod(record["examples_per_epoch"], record["used"])
    if not rest:
        return said + f"each row {least} times"
    return said + f"each row {least} or {least + 1} times, {passes:.2f} on average"


def members_in_words(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the files of `describe_members` with their shares, in a line of the model card."""
    return "; ".join(
        f"{record['name']}: {record['used']:,} of {counted(record['rows'], 'row')}"
        + (
            f", {counted(record['examples_per_epoch'], 'example')} an epoch"
            if "examples_per_epoch" in record
            else ""
        )
        for record in records
    )
