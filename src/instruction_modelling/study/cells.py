"""The rows of a cell, its protocol, and the jobs that measure it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from instruction_modelling.analysis.words import row_lengths
from instruction_modelling.comparison.jobs import Job, Measured, delete_weights
from instruction_modelling.comparison.row_sets import TrainAndTest
from instruction_modelling.decision.options import TryOptions
from instruction_modelling.decision.prepare import Prepared, prepare
from instruction_modelling.decision.protocol import ERROR
from instruction_modelling.decision.runs import ProtocolRuns
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import content_of, digest, is_made, mark_made
from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.models.loading import load_tokenizer
from instruction_modelling.rows.clean import clean_row
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.rows.json_lines import read_appended
from instruction_modelling.study.grid import (
    BATCH_SIZE,
    ELSEWHERE,
    ELSEWHERE_ROWS,
    GRID,
    LEARNING_RATE,
    MARGIN,
    SEEDS,
    TEST,
    TRAIN,
    TRAINED_ROWS,
    StudyCell,
    family_size,
)
from instruction_modelling.study.options import StudyOptions
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.row_encoder import row_encoder

_ALL = "all"
# Beyond every row that is asked for: what is longer is left out here, and never cut.
_LONGEST = 100_000


def rows_of_kind(file: Path, output: Path, cell: StudyCell, model: str) -> Path:
    """Write the rows of a file that are of a cell's kind, unless the same are written already; return where.

    A row's length is in tokens of the model and its chat format; its ratio in words, those of what the user
    and others say over those of the responses.

    Raises:
        UserError: the file cannot be read.
    """
    kind = [cell.least_ratio, cell.below_ratio, cell.max_tokens]
    stamp = {"file": content_of(file), "kind": kind, "model": str(model)}
    if is_made([output], stamp):
        return output
    if not file.is_file():
        raise UserError(f"{file}: no such file; prepare_train_data.sh makes it, or give another place")
    read = read_conversations(file)
    encoded = encode_file(read, row_encoder(load_tokenizer(model), "auto", _LONGEST))
    tokens = dict(zip(encoded.rows.tolist(), np.diff(encoded.offsets).tolist(), strict=True))
    words = row_lengths(read.conversations)
    chosen = []
    for row, instruction, response in zip(read.conversations, words.instruction, words.output, strict=True):
        ratio = instruction / response if response else float("inf")
        is_of_kind = cell.least_ratio <= ratio < cell.below_ratio and response > 0
        if is_of_kind and tokens.get(row.row, _LONGEST) <= cell.max_tokens:
            chosen.append(clean_row(row))
    write_json_lines(output, chosen)
    mark_made(output, stamp)
    return output


@dataclass(frozen=True)
class PreparedCell:
    """A cell whose rows are split, and the files that its models are measured on."""

    cell: StudyCell
    prepared: Prepared
    runs: ProtocolRuns
    elsewhere: Path
    """Rows of another corpus."""
    scoring_dtype: str

    def begin(self) -> None:
        """Write the files of the split, and of what is measured."""
        self.prepared.write_split(self.runs, SEEDS)
        for seed in (None, *range(SEEDS)):
            parts = self.parts(seed)
            write_json_lines(self._measured(seed), [row for rows in parts.values() for row in rows])

    def parts(self, seed: int | None) -> dict[str, list[Any]]:
        """Return the rows that a model is measured on, by part: test rows, rows of another corpus, and the
        first of the rows that the models of a seed were trained on."""
        rows = {TEST: _rows(self.runs.part("test"), None), ELSEWHERE: _rows(self.elsewhere, ELSEWHERE_ROWS)}
        if seed is not None:
            rows[TRAIN] = _rows(self.runs.training_file(seed), TRAINED_ROWS)
        return rows

    def run(self, arm: str, seed: int | None) -> Path:
        """Return the folder of a run; without a seed that of the untuned model."""
        return self.runs.base if seed is None else self.runs.run(arm, seed)

    def losses(self, arm: str, seed: int | None) -> Path:
        """Return where the losses of a run's parts are, one part after the other."""
        return self.run(arm, seed) / "eval" / _ALL / "losses.jsonl"

    def jobs(self, arm: str, seed: int | None) -> list[Job]:
        """Return what trains an arm with a seed, measures it, and deletes its weights; of the untuned model,
        what measures it; nothing of an arm that is to stop where it never gets."""
        run, base = self.run(arm, seed), None
        if arm in self.runs.not_reached(SEEDS):
            return []
        if seed is None:
            base = self.prepared.options.model_name_or_path
        training = [job for job in self.runs.jobs(SEEDS) if job.outputs[0] == run / "run.json"]
        files = TrainAndTest(self.runs.part("pool"), self.runs.part("test"), self.runs.folder)
        of_model = Measured(files, run, base, _ALL, self._measured(seed))
        job, out = of_model.job(self.runs.shared_options(), "losses", "compute_loss", None)
        measuring = replace(
            job,
            arguments=[*job.arguments, "--dtype", self.scoring_dtype],
            outputs=[out / "losses.jsonl", out / "summary.json"],
        )
        return [*training, measuring, *([] if seed is None else [delete_weights(run, [measuring])])]

    def _measured(self, seed: int | None) -> Path:
        return self.runs.folder / "measured" / ("rows.jsonl" if seed is None else f"rows-seed{seed}.jsonl")


def _rows(path: Path, count: int | None) -> list[Any]:
    return [record for _, record in read_appended(path).records][:count]


def prepare_cell(cell: StudyCell, options: StudyOptions) -> PreparedCell:
    """Return a cell that is ready to run.

    Raises:
        UserError: a file is not there or has too few rows of the kind.
    """
    folder, model = Path(options.output_dir), options.model_name_or_path
    files = {"dolly": Path(options.dolly), "lima": Path(options.lima)}
    data = rows_of_kind(files[cell.corpus], folder / "data" / f"{cell.rows_name}.jsonl", cell, model)
    other = StudyCell("elsewhere", "dolly" if cell.corpus == "lima" else "lima", 0)
    elsewhere = folder / "data" / f"elsewhere-{other.rows_name}.jsonl"
    elsewhere = rows_of_kind(files[other.corpus], elsewhere, other, model)
    has_trials = options.tune and any(h.name == "H3" for h in cell.hypotheses)
    asked = TryOptions(
        [str(data)],
        model_name_or_path=model,
        output_dir=str(folder / cell.name),
        margin=MARGIN,
        arms=[*cell.arms],
        train_rows=cell.train_rows,
        num_train_epochs=cell.passes,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        max_seq_length=cell.max_tokens,
        max_tokens_per_device=options.max_tokens_per_device,
        mixed_precision=options.mixed_precision,
        with_clipping=cell.with_clipping,
        shown_responses=0,
        tune=has_trials,
    )
    prepared = prepare(asked)
    # The split keeps more to test on than there is time for; validation rows are for arms that are chosen, or
    # end, by them.
    test = prepared.split.test[: cell.test_rows]
    stops = [rules.stop_at for rules in prepared.protocol.rules.values() if rules.stop_at]
    is_chosen = has_trials or any(stop.quantity == "kl" for stop in stops)
    validation = prepared.split.validation if is_chosen else []
    # On a GPU a run would answer rows at its end, which takes longer than the run.
    flags = (*prepared.protocol.shared_flags, "--check_answers", "0")
    protocol = replace(
        prepared.protocol,
        shared_flags=(*flags, "--max_train_steps", str(cell.steps)) if cell.steps else flags,
        test_rows=len(test),
        validation_rows=len(validation),
        test_sha256=digest([prepared.records[row] for row in test]),
        validation_sha256=digest([prepared.records[row] for row in validation]),
        hypotheses=cell.hypotheses,
        # The protocol shares it among its own hypotheses: that is each one's share of the whole family.
        error=ERROR * len(cell.hypotheses) / family_size(GRID),
        look_seeds=(SEEDS,),
        distinct_test_rows=None,
    )
    # Each row counts by itself: so it was fixed before near-duplicates (5 rows of 598) were counted as one.
    split = replace(prepared.split, test=test, validation=validation, alike=[])
    prepared = replace(prepared, protocol=protocol, split=split)
    runs = ProtocolRuns(asked, protocol, Path(asked.output_dir or "") / "work")
    return PreparedCell(cell, prepared, runs, elsewhere, options.scoring_dtype)
