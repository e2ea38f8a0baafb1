"""From the options to a protocol: rows read and checked, split by clusters, and the arms chosen."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instruction_modelling.arms.rules import ArmRules
from instruction_modelling.comparison.options import ComparisonOptions, data_set_name
from instruction_modelling.comparison.preflight import row_choice
from instruction_modelling.comparison.row_sets import UsableRows
from instruction_modelling.decision.options import TryOptions
from instruction_modelling.decision.protocol import (
    Protocol,
    arms_of,
    chosen_by_budget,
    hypotheses_of,
    shared_flags,
)
from instruction_modelling.decision.runs import ProtocolRuns
from instruction_modelling.decision.split import LEAST_TEST, Split, near_duplicate_clusters, split_rows
from instruction_modelling.decision.task_score import task_of
from instruction_modelling.decision.tuning import trials_of
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import digest
from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.models.identity import model_identity
from instruction_modelling.models.loading import load_outline
from instruction_modelling.models.positions import check_positions
from instruction_modelling.progress import counted
from instruction_modelling.rows.clean import clean_row
from instruction_modelling.rows.conversations import Conversation

LEFT_OUT = "rows_left_out.jsonl"
# How the folder of what protocols share begins.
SHARED = "shared-"
LEAST_VALIDATION = 20
MOST_ELSEWHERE = 300


@dataclass(frozen=True)
class Prepared:
    """A protocol that is ready to begin, with the rows of its split."""

    options: TryOptions
    protocol: Protocol
    split: Split
    records: list[dict[str, Any]]
    """The usable rows, as src/finetune.py reads them."""
    left_out: list[dict[str, Any]]
    root: Path
    conversations: Sequence[Conversation]
    """The same rows, as they were read."""
    elsewhere: tuple[dict[str, Any], ...] = ()
    """The rows of another kind."""
    alike_elsewhere: tuple[tuple[int, ...], ...] = ()
    """Those of them that say nearly the same."""
    arms_were_chosen: bool = False
    """Whether the same --budget has chosen its arms before."""

    def runs(self) -> ProtocolRuns:
        """Return the protocol's runs, which other protocols of the same rows and settings share."""
        shared = self.root / f"{SHARED}{self.protocol.shared_id}"
        return ProtocolRuns(self.options, self.protocol, self.root / self.protocol.id, shared)

    def with_arms(self, names: list[str], first_look: int | None = None) -> "Prepared":
        """Return the same with these arms only, and first looked at after so many seeds."""
        flags = {name: self.protocol.arms[name] for name in names}
        rules = {name: rules for name, rules in self.protocol.rules.items() if name in flags}
        hypotheses = hypotheses_of(names, self.options.tune)
        protocol = replace(
            self.protocol, arms=flags, rules=rules, hypotheses=hypotheses, first_look=first_look
        )
        return replace(self, protocol=protocol)

    def rows_of(self, part: str) -> list[dict[str, Any]]:
        """Return the rows of a part: test, validation or pool of the split, or out_of_domain."""
        if part == "out_of_domain":
            return list(self.elsewhere)
        return [self.records[row] for row in getattr(self.split, part)]

    def test_rows(self) -> list[Conversation]:
        """Return the rows that are tested on."""
        return [self.conversations[row] for row in self.split.test]

    def alike(self, part: str) -> list[list[int]]:
        """Return the rows of a part that say nearly the same, by their numbers in its file."""
        if part == "out_of_domain":
            return [list(rows) for rows in self.alike_elsewhere]
        place = {row: number for number, row in enumerate(self.split.test)}
        return [[place[row] for row in cluster] for cluster in self.split.alike] if part == "test" else []

    def write_split(self, runs: ProtocolRuns, seeds: int) -> None:
        """Write the files of the split that are not there yet.

        Raises:
            UserError: a sealed file is there and holds something else.
        """
        for part in ("test", "validation", "pool", "out_of_domain"):
            if rows := self.rows_of(part):
                runs.write_sealed(runs.part(part), rows)
            if alike := self.alike(part):
                runs.write_sealed(runs.alike_file(part), [{"rows": rows} for rows in alike])
        write_json_lines(runs.folder / LEFT_OUT, self.left_out)
        runs.write_training_files(self.rows_of("pool"), seeds)
        runs.write_arm_files(seeds)


def prepare(options: TryOptions) -> Prepared:
    """Return the protocol that the options ask for.

    Raises:
        UserError: unusable or too few rows, or rows longer than the model's positions.
    """
    data = options.data[0]
    root = Path(options.output_dir or Path("results") / "try_im" / data_set_name(data).partition(".")[0])
    shared = ComparisonOptions(
        options.model_name_or_path,
        [data],
        str(root),
        columns=options.columns,
        chat_format=options.chat_format,
        max_seq_length=options.max_seq_length,
        max_bad_rows=options.max_bad_rows,
    )
    used = row_choice(shared).usable(Path(data))
    outline = load_outline(options.model_name_or_path)
    if outline is not None:
        check_positions(outline, [used.longest])
    split = _split_of(used)
    records = [clean_row(conversation) for conversation in used.conversations]
    pool = len(split.pool)
    train_rows = options.train_rows or pool // 2
    _check_sizes(options, split, train_rows)
    elsewhere, alike_elsewhere, out_of_domain = _rows_elsewhere(options, shared, used.conversations)
    arms = arms_of(options.arms, options.arms_file)
    hashes: dict[str, Any] = {
        f"{part}_sha256": digest([records[row] for row in getattr(split, part)])
        for part in ("test", "validation", "pool")
    }
    protocol = Protocol(
        data=data_set_name(data),
        data_sha256=used.sha256,
        model={
            "name_or_path": options.model_name_or_path,
            "identity": model_identity(options.model_name_or_path),
        },
        arms={name: arm.flags for name, arm in arms.items()},
        rules={name: arm.rules for name, arm in arms.items() if arm.rules != ArmRules()},
        out_of_domain=out_of_domain,
        shared_flags=shared_flags(options),
        margin=options.margin,
        train_rows=train_rows,
        pool_rows=pool,
        test_rows=len(split.test),
        validation_rows=len(split.validation),
        clusters=split.clusters,
        **hashes,
        left_out_rows=len(used.left_out),
        hypotheses=hypotheses_of(options.arms, options.tune),
        trials=tuple(trials_of(options.learning_rate, options.num_train_epochs)) if options.tune else (),
        task=task_of(options),
        budget=options.budget,
        asked_arms=tuple(options.arms) if options.budget else None,
        distinct_test_rows=split.distinct if split.alike else None,
    )
    prepared = Prepared(options, protocol, split, records, used.left_out, root, used.conversations)
    prepared = replace(prepared, elsewhere=elsewhere, alike_elsewhere=alike_elsewhere)
    if options.budget and (chosen := chosen_by_budget(root, protocol)):
        return replace(prepared.with_arms(*chosen), arms_were_chosen=True)
    return prepared


def _rows_elsewhere(
    options: TryOptions, shared: ComparisonOptions, ours: Sequence[Conversation]
) -> tuple[tuple[dict[str, Any], ...], tuple[tuple[int, ...], ...], dict[str, Any] | None]:
    """Return the rows of another kind, without those that say nearly what one of ours does, which of them say
    nearly the same, and what protocol.json says of them.

    Raises:
        UserError: unusable rows, or too few are left.
    """
    if options.out_of_domain is None:
        return (), (), None
    path = Path(options.out_of_domain)
    used = _usable_elsewhere(shared, path)
    count = len(ours)
    clusters = near_duplicate_clusters([*ours, *used.conversations])
    # Clusters come in an order of their texts alone, so that the file's order chooses nothing.
    theirs = [[row - count for row in rows] for rows in clusters if min(rows) >= count]
    others = [row for rows in theirs for row in rows]
    if len(others) < LEAST_TEST:
        raise UserError(
            f"--out_of_domain {path}: {len(others)} of {len(used.conversations)} usable rows say something "
            f"else than the rows of {options.data[0]}; it takes {LEAST_TEST}"
        )
    chosen = sorted(others[:MOST_ELSEWHERE])
    rows = tuple(clean_row(used.conversations[row]) for row in chosen)
    place = {row: number for number, row in enumerate(chosen)}
    grouped = (tuple(sorted(place[row] for row in group if row in place)) for group in theirs)
    alike = tuple(sorted(group for group in grouped if len(group) > 1))
    facts = {
        "data": data_set_name(str(path)),
        "rows": len(rows),
        "sha256": digest(list(rows)),
        "too_like_ours": len(used.conversations) - len(others),
        **({"alike": [list(group) for group in alike]} if alike else {}),
    }
    return rows, alike, facts


def _usable_elsewhere(shared: ComparisonOptions, path: Path) -> UsableRows:
    """Return the usable rows of another kind: by columns of their own, or by those that ours have.

    Raises:
        UserError: they cannot be used either way.
    """
    try:
        return row_choice(replace(shared, columns=None)).usable(path)
    except UserError as error:
        if shared.columns is None:
            raise
        try:
            return row_choice(shared).usable(path)
        except UserError as with_ours:
            raise UserError(f"{error}\nand by --columns {shared.columns}: {with_ours}") from None


def _split_of(used: UsableRows) -> Split:
    """Return the split of the usable rows.

    Raises:
        UserError: too few; it says why others were left out.
    """
    try:
        return split_rows(used.conversations)
    except UserError as error:
        reasons = Counter(str(row["reason"]) for row in used.left_out)
        if not reasons:
            raise
        why = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        left_out = counted(len(used.left_out), "row")
        raise UserError(f"{error} ({left_out} left out: {why})") from None


def _check_sizes(options: TryOptions, split: Split, train_rows: int) -> None:
    pool = len(split.pool)
    if train_rows > pool:
        raise UserError(
            f"--train_rows {train_rows}: {pool} rows are left to train from, after {len(split.test)} to test "
            f"on and {len(split.validation)} to choose a weight on"
        )
    if options.tune and len(split.validation) < LEAST_VALIDATION:
        raise UserError(
            f"--tune: {len(split.validation)} validation rows are too few to choose settings on; it takes "
            f"{LEAST_VALIDATION}, so a file of about {10 * LEAST_VALIDATION} rows"
        )
