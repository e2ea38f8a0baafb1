"""The options of src/study.py."""

import math
from dataclasses import dataclass, field
from typing import Literal

from instruction_modelling.comparison.precision import Precision
from instruction_modelling.study.grid import GRID


@dataclass
class StudyOptions:
    """Options."""

    model_name_or_path: str = field(default="models/SmolLM2-135M-Instruct", metadata={"also": ("model",)})
    """Folder or hub name of the model to tune."""
    dolly: str = "data/processed/dolly_3k/dolly_3k_data.jsonl"
    """AlpaGasus-Dolly-3k, as prepare_train_data.sh or the paper's authors have it."""
    lima: str = "data/processed/lima/lima_data.jsonl"
    """LIMA, likewise."""
    output_dir: str = "results/study"
    """Where the work is done; nothing there is needed once a run's record is written."""
    results_dir: str = "docs/results"
    """Where the records of runs are kept, and the page's picture."""
    page: str = "docs/results.md"
    """The page that is written from the records."""
    only: list[str] = field(default_factory=list)
    """Cells to run (default: all, in order of value)."""
    more_arms: bool = False
    """Run the exploratory cells too, after all others: KL, a small weight, noise, other texts, IT that ends
    where IM does; and cells with long instructions once more."""
    tune: bool = False
    """Run what H3 compares too: IT and IM each at the best of six settings, chosen on validation rows."""
    scoring_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights that losses are measured with. bfloat16 takes less than half the time and
    moves a row's loss by up to some tenths of a nat, which is more than what is asked for."""
    at_once: int = 1
    """Runs side by side, each a process; what they say is then kept in logs/ of --output_dir. On a CPU one
    run takes all cores unless OMP_NUM_THREADS gives it fewer; a small model leaves most of a GPU idle."""
    stop_after: float | None = None
    """Seconds after which no run begins any more and what runs is ended; what is recorded stays."""
    max_tokens_per_device: int = 1024
    """Most tokens in a packed micro-batch of training; on a GPU 4096 takes less time."""
    mixed_precision: Precision | None = None
    """Number format of the matrix products of training (default: bf16 where the GPU, or without one the
    processor, multiplies bfloat16, else no)."""
    other_keys: Literal["refuse", "keep", "redo"] = "refuse"
    """Seeds that are recorded with other code, versions, machine or settings: refuse to go on, keep those
    that have every arm as they are, or run them anew."""
    dry_run: bool = False
    """Print grid, power and time, and start nothing."""
    status: bool = False
    """Print which runs are recorded, and start nothing."""
    write_page: bool = False
    """Write the page from the records, and start nothing; needs neither model nor data."""
    rate: float | None = None
    """Token-passes a second, for the time that is printed (default: measured)."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        names = [cell.name for cell in GRID]
        problems = [
            f"--only {name}: no cell; there are {', '.join(names)}" for name in self.only if name not in names
        ]
        if self.rate is not None and not 0 < self.rate < math.inf:
            problems.append(f"--rate {self.rate}: must be a number above 0")
        for name in ("at_once", "stop_after", "max_tokens_per_device"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                problems.append(f"--{name} {value}: must be a number above 0")
        return problems
