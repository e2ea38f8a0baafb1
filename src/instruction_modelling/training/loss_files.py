"""The files that src/compute_loss.py writes: losses.jsonl, a line per row, and summary.json."""

import logging
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json, write_json_lines
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import ConversationFile, bad_rows_table
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weighted import count_reasons
from instruction_modelling.training.row_losses import by_dataset, summarise

logger = logging.getLogger(__name__)

NOTHING_SCORED = "no token after the first"


def write_losses(
    folder: Path,
    model: str,
    file: ConversationFile,
    scored: tuple[EncodedData, list[dict[str, Any]]],
    made_with: dict[str, Any],
) -> None:
    """Write losses.jsonl with every row of the file in order, and summary.json; log the means.

    Args:
        scored: the usable rows, and what `row_losses` gave for them.
        made_with: further facts for summary.json.

    Raises:
        UserError: no row could be scored; both files are written all the same.
    """
    data, losses = scored
    bad_rows = [*file.bad_rows, *data.refused]
    lines: dict[int, dict[str, Any]] = {
        bad.row: {"row": bad.row, "id": bad.id, "dropped": bad.reason, "tokens": {}, "nll": {}}
        for bad in bad_rows
    }
    for row, row_id, dataset, loss in zip(
        data.rows.tolist(), data.row_ids, data.datasets, losses, strict=True
    ):
        lines[row] = {"row": row, "id": row_id, "dataset": dataset, **loss}
        if not loss["tokens"]:
            lines[row]["dropped"] = NOTHING_SCORED
    write_json_lines(folder / "losses.jsonl", (lines[row] for row in sorted(lines)))
    with_tokens = [loss for loss in losses if loss["tokens"]]
    sets = by_dataset(losses, data.datasets)
    empty = [NOTHING_SCORED] * (len(losses) - len(with_tokens))
    summary = {
        "model": model,
        "file": str(file.path),
        "sha256": file.sha256,
        "rows": file.rows,
        "rows_scored": len(with_tokens),
        **summarise(with_tokens),
        "by_dataset": sets,
        "dropped": {**bad_rows_table(bad_rows), **count_reasons(empty)},
        "truncated_rows": data.counts.truncated_rows,
        "tokens_cut": data.counts.tokens_cut,
        **made_with,
    }
    write_json(folder / "summary.json", summary)
    if not with_tokens:
        raise UserError(f"{file.path}: no row could be scored ({summary['dropped']})")
    _say_means(summary)
    for name, of in sets.items() if len(sets) > 1 else ():
        if "response" in of["tokens"]:
            logger.info(
                "responses of %s: %.4f nats a token (mean over %s)  %.4f (over %s)",
                name,
                of["mean_over_examples"]["response"],
                counted(of["rows_scored"], "row"),
                of["mean_over_tokens"]["response"],
                counted(of["tokens"]["response"], "token"),
            )
    logger.info("written to %s: losses.jsonl, summary.json", folder)


def _say_means(summary: dict[str, Any]) -> None:
    """Log the mean loss of each kind, the response's first: it is what is mostly asked for."""
    for kind in sorted(summary["mean_over_examples"], key=lambda kind: kind != "response"):
        logger.info(
            "%-10s %8.4f nats a token (mean over examples)  %8.4f (over tokens)  %9d tokens",
            kind,
            summary["mean_over_examples"][kind],
            summary["mean_over_tokens"][kind],
            summary["tokens"][kind],
        )
