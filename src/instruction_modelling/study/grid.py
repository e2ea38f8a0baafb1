"""What the study asks: cells of data, ratio and size, the arms of each, and what is confirmed in them."""

from dataclasses import dataclass
from typing import Literal

from instruction_modelling.decision.options import ADDED, HEALED, REFERENCE, REWEIGHTED, TREATMENT
from instruction_modelling.decision.protocol import ERROR, Hypothesis
from instruction_modelling.decision.tuning import TUNED_REFERENCE, TUNED_TREATMENT

# {no loss on instructions, one} x {a response token's coefficient as under IT, as under IM}.
CORE_ARMS = (REFERENCE, TREATMENT, REWEIGHTED, ADDED)
# Another text in place of the instruction, or none of the rows; IT that ends where IM is.
OTHER_TEXTS = ("others-beside", "unrelated-beside", "permuted-beside", HEALED)
MATCHED = ("IT-matched-loss", "IT-matched-KL")
# Exploratory, of rows where a gain is likeliest. A weight of 0.3 is what tuned IM has.
MORE_ARMS = (REWEIGHTED, ADDED, "KL", "IM-w0.1", "NEFTune", "IM+NEFTune", *OTHER_TEXTS, *MATCHED)
SEEDS, MARGIN = 5, 0.05
EPOCHS, BATCH_SIZE, LEARNING_RATE = 3, 8, 1e-4
# What a model is measured on: the cell's test rows, rows of another corpus, rows that it was trained on.
TEST, ELSEWHERE, TRAIN = "test", "elsewhere", "train"
# Rows that every model is measured on besides, at most: of another corpus, and of those it was trained on.
ELSEWHERE_ROWS, TRAINED_ROWS = 300, 32
_H1, _H2 = Hypothesis("H1", TREATMENT, REFERENCE), Hypothesis("H2", TREATMENT, REWEIGHTED)
_H3 = Hypothesis("H3", TUNED_TREATMENT, TUNED_REFERENCE)
Corpus = Literal["dolly", "lima"]


@dataclass(frozen=True)
class StudyCell:
    """One comparison: rows of a kind, so many of them, so many steps."""

    name: str
    corpus: Corpus
    train_rows: int
    least_ratio: float = 0.0
    """Instruction words / response words of a row, as the paper counts them: this or more ..."""
    below_ratio: float = float("inf")
    """... and less than this."""
    max_tokens: int = 256
    """Longer rows are left out."""
    steps: int | None = None
    """Steps where they are not those of `EPOCHS` passes."""
    arms: tuple[str, ...] = CORE_ARMS
    hypotheses: tuple[Hypothesis, ...] = (_H1, _H2)
    """What is confirmed; H3 once its arms are tuned."""
    test_rows: int = 300
    """The first so many of the rows that the split keeps to test on, or all where it keeps fewer."""
    is_extra: bool = False
    """Whether it is run only where it is asked for."""
    with_clipping: bool = False
    """Whether gradients are clipped and AdamW's epsilon is that of src/finetune.py: there a smaller weight of
    the responses is no mere scale."""

    @property
    def rows_name(self) -> str:
        """Return what the rows that the cell draws on are called; cells may share them."""
        bounds = (self.least_ratio, self.below_ratio)
        kind = {(0.0, float("inf")): "", (1.0, float("inf")): "-high", (0.0, 0.3): "-low"}[bounds]
        return f"{self.corpus}{kind}"

    @property
    def all_steps(self) -> int:
        """Return the steps of a run."""
        return self.steps or EPOCHS * -(-self.train_rows // BATCH_SIZE)

    @property
    def passes(self) -> int:
        """Return the passes over the training rows that the steps take, the last one begun."""
        return EPOCHS if self.steps is None else -(-self.steps * BATCH_SIZE // self.train_rows)


# By value: a cell is finished before the next begins.
GRID = (
    StudyCell("high-64", "dolly", 64, least_ratio=1.0, hypotheses=(_H1, _H2, _H3)),
    StudyCell("low-64", "dolly", 64, below_ratio=0.3, hypotheses=(_H1, _H2, _H3)),
    StudyCell("high-224", "dolly", 224, least_ratio=1.0),
    StudyCell("low-224", "dolly", 224, below_ratio=0.3),
    # Fixed passes give fewer rows fewer steps; here 64 rows have as many as 224.
    StudyCell("high-64-long", "dolly", 64, least_ratio=1.0, steps=84),
    StudyCell("lima-128", "lima", 128, max_tokens=512, arms=(REFERENCE, TREATMENT), hypotheses=(_H1,)),
    # As one trains by default; exploratory, so that it takes nothing from what is confirmed.
    StudyCell("high-64-clipped", "dolly", 64, least_ratio=1.0, hypotheses=(), with_clipping=True),
    # IT and IM once more, made by the same as what is held against them: what is confirmed stays as it was
    # read.
    StudyCell(
        "high-64-more",
        "dolly",
        64,
        least_ratio=1.0,
        arms=(REFERENCE, TREATMENT, *MORE_ARMS),
        hypotheses=(),
        is_extra=True,
    ),
    # The 2x2 once more where steps are many: the confirmed cells' models saw other weights in training than
    # they were measured by, and lack IM-response.
    StudyCell("high-224-again", "dolly", 224, least_ratio=1.0, hypotheses=(), is_extra=True),
    StudyCell("high-64-long-again", "dolly", 64, least_ratio=1.0, steps=84, hypotheses=(), is_extra=True),
    StudyCell("low-224-again", "dolly", 224, below_ratio=0.3, hypotheses=(), is_extra=True),
)
EXTRAS = tuple(cell.name for cell in GRID if cell.is_extra)

# What there was no time for, by cell: LIMA first, whose rows hardly vary in what is asked here, then arms
# that stop where IM is.
CUT: dict[str, tuple[str, ...]] = {"lima-128": (REFERENCE, TREATMENT), "high-64-more": MATCHED}

# Studies of the same grid before this one, by the folder of their records: other rows measured, another
# machine. What they found stays on the page.
EARLIER = {
    "cpu-120": "on a CPU, measured on the first 120 of the same test rows and on 30 rows of the other corpus"
}


# Of comparisons that were read more than once, what was read before; docs/LOG.md has when and why.
READ_BEFORE = (
    "Three comparisons were read before on the first 120 of their test rows (the last section; 300 were "
    "taken after that): H1 and H2 of high-64, H1 of low-64. H1 of high-224 was read before from runs on a "
    "GPU, with the same rows and seeds (-0.002, -0.039 to +0.034); that the later reading stands was "
    "written down before it."
)


def family_size(grid: tuple[StudyCell, ...] = GRID) -> int:
    """Return the number of confirmed comparisons of all cells, run or not: the error is shared among them."""
    return sum(len(cell.hypotheses) for cell in grid)


def confidence(grid: tuple[StudyCell, ...] = GRID) -> float:
    """Return the confidence of a confirming interval, such that all of the study's hold together with one of
    95 % (Bonferroni). The runs are read once, when a cell has all its seeds."""
    return 1 - ERROR / family_size(grid)
