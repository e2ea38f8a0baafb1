"""What every token of a file is and weighs: row by row, and summed by span kind.

The share of a kind in the loss is the sum of its tokens' coefficients over the sum of all coefficients, with
the whole file as one step: with c_t as in `losses`, sum over the kind's tokens of c_t / sum over all tokens
of c_t. Under `example` normalisation every row so counts the same, however long it is.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from instruction_modelling.chat.spans import INSTRUCTION_KINDS, KIND_NAMES, RESPONSE_KINDS
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import BadRow, ConversationFile
from instruction_modelling.tokens.encoded import EncodedData, EncodedRow, RowEncoder, collect
from instruction_modelling.tokens.weighted import WeightedData, count_reasons, totals_by_kind, weigh_rows
from instruction_modelling.tokens.weights import WeightPolicy


@dataclass(frozen=True)
class Arm:
    """How a loss is made of token weights; `block_size`: of blocks of the concatenated rows, on every
    token."""

    name: str
    policy: WeightPolicy
    normalization: str = "example"
    denominator: str = "nonzero"
    block_size: int | None = None

    def instruction_tuning(self) -> "Arm":
        """IT (loss on the response alone), all else as in this arm."""
        return replace(
            self, name="IT", policy=replace(self.policy, instruction=0.0, response=1.0), block_size=None
        )

    def instruction_modelling(self) -> "Arm":
        """IM (loss on instruction and response), all else as in this arm."""
        return replace(
            self, name="IM", policy=replace(self.policy, instruction=1.0, response=1.0), block_size=None
        )


@dataclass(frozen=True)
class ArmTotals:
    """Sums over the rows (or blocks) that an arm trains on."""

    examples: int
    """How many rows (or blocks) these are."""
    by_kind: dict[str, dict[str, Any]]
    """As `totals_by_kind` gives them; blocks keep the kinds of the rows they are cut from."""
    dropped: dict[int, str]
    """Rows that no loss can be taken of: index into the data to reason. None where the loss is on blocks."""

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(entry["tokens"] for entry in self.by_kind.values())

    def shares(self) -> dict[str, float]:
        """Kind to share of the loss, 0..1."""
        return {kind: entry["loss_share"] for kind, entry in self.by_kind.items()}


def arm_totals(data: EncodedData, arm: Arm) -> ArmTotals:
    """The totals of an arm on encoded rows."""
    if arm.block_size:
        blocks = data.blocks(arm.block_size)
        named = replace(blocks, kinds=data.kinds[: len(blocks.ids)])
        weighted = WeightedData(named, blocks.weights(arm.policy), arm.normalization)
        return ArmTotals(len(named), totals_by_kind(weighted), {})
    weighted, dropped = weigh_rows(data, arm.policy, arm.normalization, arm.denominator)
    return ArmTotals(len(weighted.data), totals_by_kind(weighted), dropped)


def spread(values: np.ndarray) -> dict[str, float]:
    """min, median, mean, p90, p99 and max of some counts; empty where there are none."""
    if not len(values):
        return {}
    median, p90, p99 = np.percentile(values, [50, 90, 99])
    return {
        "min": int(values.min()),
        "median": float(median),
        "mean": float(values.mean()),
        "p90": float(p90),
        "p99": float(p99),
        "max": int(values.max()),
    }


@dataclass(frozen=True)
class Inspection:
    """A file as one arm sees it; `items` are its rows in file order, encoded or refused."""

    file: ConversationFile
    items: list[EncodedRow | BadRow]
    data: EncodedData
    arm: Arm

    @cached_property
    def totals(self) -> dict[str, ArmTotals]:
        """The totals under IT, under IM and under this arm, by name."""
        arms = (self.arm.instruction_tuning(), self.arm.instruction_modelling())
        totals = {arm.name: arm_totals(self.data, arm) for arm in arms}
        same = next((arm for arm in arms if replace(arm, name=self.arm.name) == self.arm), None)
        totals[self.arm.name] = totals[same.name] if same else arm_totals(self.data, self.arm)
        return totals

    @property
    def own(self) -> ArmTotals:
        """This arm's totals."""
        return self.totals[self.arm.name]

    @cached_property
    def dropped(self) -> dict[int, str]:
        """Every row left out, in file order: 0-based row of the file to reason."""
        reasons = {item.row: item.reason for item in self.items if isinstance(item, BadRow)}
        reasons |= {int(self.data.rows[index]): reason for index, reason in self.own.dropped.items()}
        return dict(sorted(reasons.items()))

    @cached_property
    def encoded(self) -> list[EncodedRow]:
        """The rows that could be encoded, in file order."""
        return [item for item in self.items if isinstance(item, EncodedRow)]

    @cached_property
    def used(self) -> list[EncodedRow]:
        """The rows that are trained on, in file order."""
        return [row for row in self.encoded if row.conversation.row not in self.dropped]

    def weights(self, row: EncodedRow) -> np.ndarray:
        """float32[n]: the weight of each token of a row by its kind; its first token keeps its weight
        here."""
        if self.arm.block_size:
            return np.ones(len(row.kinds), dtype=np.float32)
        return row.weights(self.arm.policy)

    def lengths(self) -> dict[str, Any]:
        """Tokens a used row: `row`, `instruction` (system and user) and `response`, each as in `spread`; the
        ratio of the means of the last two; and what was cut off."""
        used = self.used
        uncut = np.array([len(row.kinds) + row.tokens_cut for row in used], dtype=np.int64)
        rows = np.array([len(row.kinds) for row in used], dtype=np.int64)
        instruction = np.array([np.isin(row.kinds, INSTRUCTION_KINDS).sum() for row in used], dtype=np.int64)
        response = np.array([np.isin(row.kinds, RESPONSE_KINDS).sum() for row in used], dtype=np.int64)
        return {
            "row": spread(rows),
            "instruction": spread(instruction),
            "response": spread(response),
            "instruction_to_response": instruction.sum() / response.sum() if response.sum() else None,
            "longest_before_cutting": int(uncut.max()) if len(uncut) else 0,
            "truncated_rows": sum(row.tokens_cut > 0 for row in used),
            "tokens_cut": sum(row.tokens_cut for row in used),
        }

    def records(self) -> Iterator[dict[str, Any]]:
        """For each row of the file, in order: row, id, text, dropped and tokens (see `token_records`)."""
        for item in self.items:
            if isinstance(item, BadRow):
                yield {
                    "row": item.row,
                    "id": item.id or f"{self.file.path.stem}_{item.row}",
                    "text": "",
                    "dropped": item.reason,
                    "tokens": [],
                }
                continue
            reason = self.dropped.get(item.conversation.row)
            yield {
                "row": item.conversation.row,
                "id": item.conversation.id,
                "text": item.rendered.text,
                "dropped": reason,
                "tokens": [] if reason else token_records(item, self.weights(item)),
            }

    def summary(self, warnings: list[str]) -> dict[str, Any]:
        """The file's totals, lengths, warnings and left-out rows, and the shares of the loss under each
        arm."""
        return {
            "file": str(self.file.path),
            "sha256": self.file.sha256,
            "arm": self.arm.name,
            "rows": self.file.rows,
            "rows_used": len(self.used),
            "tokens": self.own.tokens,
            "by_kind": self.own.by_kind,
            "lengths": self.lengths(),
            "warnings": warnings,
            "dropped": count_reasons(self.dropped.values()),
            "arms": {name: totals.shares() for name, totals in self.totals.items()},
        }


def short_weights(weights: np.ndarray) -> list[float]:
    """float32 weights as the shortest decimals that stand for them: 0.1, not 0.10000000149011612."""
    values, places = np.unique(weights, return_inverse=True)
    short = [float(str(value)) for value in values]
    return [short[place] for place in places.tolist()]


def token_records(row: EncodedRow, weights: np.ndarray) -> list[dict[str, Any]]:
    """id, start, end (characters of the row's text; 0, 0 for a BOS that the tokenizer adds), kind and weight
    of each token that is kept."""
    tokens = row.tokens
    columns = (
        tokens.ids.tolist(),
        tokens.start.tolist(),
        tokens.end.tolist(),
        row.kinds.tolist(),
        short_weights(weights),
    )
    return [
        {"id": id_, "start": start, "end": end, "kind": KIND_NAMES[kind], "weight": weight}
        for id_, start, end, kind, weight in zip(*columns, strict=True)
    ]


def inspect_file(file: ConversationFile, encoder: RowEncoder, arm: Arm) -> Inspection:
    """Encodes the file's rows and puts the bad ones back in their places."""
    encoded = list(encoder.encode(file.conversations))
    items = sorted(
        [*encoded, *file.bad_rows],
        key=lambda item: item.row if isinstance(item, BadRow) else item.conversation.row,
    )
    return Inspection(file, items, collect(encoded), arm)


def write_records(inspection: Inspection, path: Path) -> None:
    """One JSON line a row of the file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="\n") as handle:
            for record in inspection.records():
                handle.write(json.dumps(record) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; choose another file") from error


def write_text(text: str, path: Path) -> None:
    """A whole file at once.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; choose another file") from error
