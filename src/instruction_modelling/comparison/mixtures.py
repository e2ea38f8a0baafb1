"""A mixture's rows as a comparison trains on them: each file's in a file of its own, and the shares."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json_lines, write_text
from instruction_modelling.rows.conversations import ConversationFile
from instruction_modelling.tokens.quotas import largest_remainders

BEYOND_SHARE = "beyond its file's share of the mixture"


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


def beyond_share(file: ConversationFile, rows: Sequence[int]) -> list[int]:
    """Return which of these rows to leave out so that those of each file are in proportion and none repeats:
    as few as can be, drawn at random, the same each time; [] of files without proportions.

    Raises:
        UserError: none of a file's rows is among them.
    """
    if file.proportions is None:
        return []
    of_members = [[row for row in rows if file.member_of(row) == member] for member in file.members]
    for member, share, own in zip(file.members, file.proportions, of_members, strict=True):
        if not own:
            raise UserError(f"{member.path}: has no usable row, so it cannot be {share:.1%} of the rows")
    whole = math.floor(
        min(len(own) / share for own, share in zip(of_members, file.proportions, strict=True)) + 1e-9
    )
    left_out = []
    for number, (own, quota) in enumerate(
        zip(of_members, largest_remainders(whole, file.proportions), strict=True)
    ):
        drawing = np.random.Generator(np.random.Philox(key=[0, number]))
        kept = set(drawing.choice(len(own), min(quota, len(own)), replace=False).tolist())
        left_out += [row for index, row in enumerate(own) if index not in kept]
    return left_out
