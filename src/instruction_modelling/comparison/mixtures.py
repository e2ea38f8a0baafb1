"""A mixture's rows as a comparison trains on them: each file's in a file of its own, and the shares."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json_lines, write_text
from instruction_modelling.rows.conversations import ConversationFile


def write_mixture(file: ConversationFile, records: Mapping[int, Any], path: Path) -> Path | None:
    """Write a mixture of some rows of several files, in the files' proportions; None where they have none.

    Args:
        records: what is written of each row, by its number in `file`.
        path: of the mixture; its files go to a folder beside it, of the same name.

    Raises:
        UserError: none of a file's rows is among them.
    """
    import yaml

    if file.proportions is None:
        return None
    shares = {}
    for number, (member, share) in enumerate(zip(file.members, file.proportions, strict=True), start=1):
        rows = [record for row, record in records.items() if file.member_of(row) == member]
        if not rows:
            raise UserError(
                f"{member.path}: none of its rows is trained on, so it cannot be {share:.1%} of an epoch"
            )
        name = f"{path.stem}/{number}-{member.name.replace('/', '_').replace(':', '_')}.jsonl"
        write_json_lines(path.parent / name, rows)
        shares[name] = share
    write_text(path, yaml.safe_dump({"files": shares}, sort_keys=False, allow_unicode=True))
    return path
