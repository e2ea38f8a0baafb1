"""What the authors' released code (src/finetune.py at 325b77e) keeps of the rows that `--use_lm_modelling`
cuts into blocks.

It has the datasets library group the rows and cuts each group by itself, so the tokens that fill no block are
lost once in every group, not once in the file: a group is a batch of consecutive rows of one worker, and
workers are given consecutive shares of the rows. For four files of the paper a batch is the whole file. Rows
without a label are gone before."""

from dataclasses import dataclass, replace

import numpy as np

from instruction_modelling.errors import UserError
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weights import WeightPolicy

# Rows a batch by a part of the file's name, the first that fits, as the released code has them; else 1,000.
BATCHES = {"lima": 1030, "alpagasus_3k": 2996, "alpagasus_9k": 9229, "alpagasus_claude_t45_alpaca": 5305}
OTHER_BATCH = 1000


@dataclass(frozen=True)
class ReleasedGroups:
    """Which rows the released code puts end to end before it cuts them into blocks."""

    batch: int
    """Rows of a group, at most."""
    workers: int
    """Processes that the rows are shared among first."""

    @classmethod
    def of_file(cls, name: str, workers: int | None) -> "ReleasedGroups":
        """Return the groups of a file, by its name, for a number of preprocessing workers (None: one)."""
        last = name.rsplit("/", 1)[-1]
        batch = next((rows for part, rows in BATCHES.items() if part in last), OTHER_BATCH)
        return cls(batch, workers or 1)

    def bounds(self, rows: int) -> list[tuple[int, int]]:
        """Return the first row of each group and the one behind its last."""
        workers = max(1, min(self.workers, rows))
        # The first shares have a row more where the rows do not divide evenly.
        shares = [rows // workers + (worker < rows % workers) for worker in range(workers)]
        starts = [0, *np.cumsum(shares).tolist()]
        return [
            (start, min(start + self.batch, starts[worker + 1]))
            for worker in range(workers)
            for start in range(starts[worker], starts[worker + 1], self.batch)
        ]

    def kept(self, data: EncodedData, policy: WeightPolicy, block_size: int) -> EncodedData:
        """Return the rows that have a label, without the tokens that fill no block of their group.

        Raises:
            UserError: no group fills a block.
        """
        weights = data.weights(policy)
        labelled = [i for i in range(len(data)) if weights[data.span(i)].any()]
        data = data.take(np.array(labelled, dtype=np.int64))
        owned = data.owned.copy()
        for first, behind in self.bounds(len(data)):
            start, end = int(data.offsets[first]), int(data.offsets[behind])
            places = start + np.flatnonzero(owned[start:end])
            owned[places[len(places) // block_size * block_size :]] = False
        if not owned.any():
            raise UserError(
                f"--block_size {block_size}: no group of rows fills one block (the released recipe has "
                f"groups of up to {self.batch:,} rows of {self.workers:,} workers); give a smaller one"
            )
        return replace(data, owned=owned)
