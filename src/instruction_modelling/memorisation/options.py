"""The options of src/measure_memorisation.py and of src/probe_memorisation.py, which measures one model for
it."""

import math
from dataclasses import dataclass, field
from typing import Literal

from instruction_modelling.arms.rules import ArmRules
from instruction_modelling.arms.table import known_arms, read_arms
from instruction_modelling.comparison.precision import Precision


@dataclass
class MemorisationOptions:
    """Options."""

    model_name_or_path: str
    """Folder or hub name of the model to tune; it is measured untuned too."""
    train_file: str
    """Rows to draw from, in any file that src/finetune.py takes."""
    output_dir: str
    """Where rows, runs, measurements and the result go; the same command goes on there."""
    arms: list[str] = field(default_factory=lambda: ["IT", "IM", "IM-w0.1"])
    """Arms by name, as of src/compare.py."""
    arms_file: str | None = None
    """A TOML file of more arms."""
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    """Seeds; each draws rows, canaries and secrets of its own, the same for every arm."""
    rows: int = 260
    """Rows trained on; what the canaries do not take stays as it is."""
    canaries: int = 10
    """Canaries of each number of repeats."""
    repeats: list[int] = field(default_factory=lambda: [1, 4, 16])
    """In how many rows' instructions a canary stands."""
    secret_digits: int = 4
    """Digits of a secret."""
    candidates: int = 1000
    """Unseen secrets of the same form among which a secret is ranked."""
    unseen: int = 40
    """Instructions completed that were trained on, and as many that were not."""
    max_characters: int = 400
    """Rows with longer instruction and response together are left out, and counted."""
    requests: bool = True
    """Leave out the requests that are answered to count refusals."""
    chat_format: str = "auto"
    """As in src/finetune.py."""
    num_train_epochs: int = 3
    """Passes over the training rows."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    batch_size: int = 8
    """Examples a step."""
    max_seq_length: int = 512
    """Tokens of a row beyond which it is cut."""
    mixed_precision: Precision | None = None
    """Number format of the matrix products of training (default: bf16 where the GPU, or without one the
    processor, multiplies bfloat16, else no)."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of the weights when measured (default: bfloat16 on a GPU that has it, else float32)."""
    keep_models: bool = False
    """Keep the tuned weights once they are measured."""
    dry_run: bool = False
    """Print what there is to do and what it costs, and leave nothing behind."""
    so_far: bool = False
    """Run nothing, and write the result of what is measured so far with these options; what is missing or
    was measured with others is named in it."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        least = {"rows": 2, "canaries": 1, "secret_digits": 1, "candidates": 1, "unseen": 0}
        least |= {"max_characters": 1, "num_train_epochs": 1, "batch_size": 1, "max_seq_length": 16}
        problems = [
            f"--{name} {getattr(self, name)}: must be {value} or more"
            for name, value in least.items()
            if getattr(self, name) < value
        ]
        for name, smallest in (("repeats", 1), ("seeds", 0)):
            values = getattr(self, name)
            if not values or min(values) < smallest or len(set(values)) < len(values):
                problems.append(f"--{name}: different numbers, each {smallest} or more")
        if self.secret_digits > 12:
            problems.append(f"--secret_digits {self.secret_digits}: at most 12")
        if not 0 < self.learning_rate < math.inf:
            problems.append(f"--learning_rate {self.learning_rate}: must be a number above 0")
        if not self.arms or len(set(self.arms)) < len(self.arms):
            problems.append("--arms: one or more, each once")
        if not problems and self.canary_rows > self.rows:
            problems.append(
                f"--rows {self.rows}: the canaries alone take {self.canary_rows} (each of --canaries "
                f"{self.canaries} and --repeats {' '.join(map(str, self.repeats))} a row for each repeat)"
            )
        problems += (unknown := known_arms(self.arms, self.arms_file))
        if not unknown:
            arms = read_arms(self.arms_file)
            problems += [
                f"--arms {name}: it has rules beside flags, and here all arms have the same rows and steps; "
                "choose an arm of flags alone"
                for name in self.arms
                if arms[name].rules != ArmRules()
            ]
        return problems

    @property
    def canary_rows(self) -> int:
        """Return how many rows begin with a canary."""
        return self.canaries * sum(self.repeats)


@dataclass
class ProbeOptions:
    """Options."""

    model_name_or_path: str
    """Folder or hub name of the model to measure."""
    rows_dir: str
    """The folder of one seed that src/measure_memorisation.py made: canaries.json, train.jsonl,
    unseen.jsonl."""
    output_dir: str
    """Where memorisation.json goes."""
    requests: bool = True
    """Leave out the requests that are answered to count refusals."""
    chat_format: str = "auto"
    """As in src/finetune.py."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of the weights (default: bfloat16 on a GPU that has it, else float32)."""
