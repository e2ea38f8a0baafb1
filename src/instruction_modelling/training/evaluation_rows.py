"""The rows of --eval_file, whose loss is measured while training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from instruction_modelling.options import FinetuneOptions
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import check_bad_rows, read_conversations
from instruction_modelling.rows.mixture import files_to_measure
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.overlong import leave_out_overlong
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.training.row_losses import check_responses


@dataclass(frozen=True)
class EvaluationRows:
    """Rows to measure, of one file or of several."""

    data: EncodedData
    files: list[str] | None
    """The name of each row's file, where they are several; None for one."""
    sha256: str
    """Of the files."""


def evaluation_rows(options: FinetuneOptions, encoder: RowEncoder) -> EvaluationRows | None:
    """Return the rows of --eval_file, encoded as the training rows are; None where there is no such file.

    Raises:
        UserError: more rows than --max_bad_rows cannot be used, one is too long under --overlong error, or a
            file has none with a response to measure.
    """
    if not options.eval_file:
        return None
    file = read_conversations(files_to_measure("--eval_file", options.eval_file), options.columns, keep=False)
    rows = encode_file(file, encoder)
    check_bad_rows(file, options.max_bad_rows, rows.refused)
    rows, _ = leave_out_overlong(rows, file, options.overlong, options.max_seq_length)
    if not file.members:
        check_responses(str(file.path), rows)
        return EvaluationRows(rows, None, file.sha256)
    members = [file.member_of(row) for row in rows.rows.tolist()]
    for member in file.members:
        check_responses(
            str(member.path), rows.take(np.array([i for i, of in enumerate(members) if of == member]))
        )
    return EvaluationRows(rows, [member.name for member in members], file.sha256)


def in_words(line: Mapping[str, Any]) -> str:
    """Return a measurement's line of metrics.jsonl as one of the log."""
    files = ", ".join(f"{name} {nll:.4f}" for name, nll in line.get("eval_file_nll", {}).items())
    return (
        f"after {counted(line['step'], 'step')}: response loss on the evaluation rows "
        f"{line['eval_response_nll']:.4f}" + (f" ({files})" if files else "")
    )
