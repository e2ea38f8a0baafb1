"""The options of src/try_im.py."""

import math
import re
from dataclasses import dataclass, field

from instruction_modelling.arms.table import known_arms, read_arms
from instruction_modelling.comparison.precision import Precision

REFERENCE, TREATMENT, REWEIGHTED, HEALED = "IT", "IM", "reweighted-IT", "healed-base"
# A loss on instructions that takes nothing from the responses.
ADDED = "IM-response"
# By priority: what --budget takes first. The first two are the question, the third is the control that says
# what an answer means; the others ask which weight.
DEFAULT_ARMS = (REFERENCE, TREATMENT, REWEIGHTED, "IM-w0.1", "IM-w0.3")
LEAST_SEEDS = 5
# Peaks in bfloat16 without sparsity, of the makers' data sheets, TFLOP/s.
GPU_TFLOPS = {
    **{"RTX-3090": 71.0, "L4": 121.0, "A10": 125.0, "RTX-4090": 165.0, "A100": 312.0, "L40S": 362.0},
    **{"H100": 989.0, "H200": 989.0},
}
_LEAST = {
    "train_rows": 1,
    "num_train_epochs": 1,
    "batch_size": 1,
    "max_seq_length": 1,
    "max_tokens_per_device": 1,
    "max_new_tokens": 1,
    "max_bad_rows": 0,
    "shown_responses": 0,
}


@dataclass
class QuestionOptions:
    """What is asked."""

    data: list[str] = field(metadata={"positional": "DATA", "input": "rows"})
    """Your conversations: any file, folder, data set of the hub or mixture that src/finetune.py trains on; of
    a mixture with proportions, as many rows as are in these without repeating any."""
    model_name_or_path: str = field(default="models/SmolLM2-135M-Instruct", metadata={"also": ("model",)})
    """Folder or hub name of the model to tune."""
    output_dir: str | None = None
    """Where everything goes (default: results/try_im/NAME, NAME being that of the data)."""
    margin: float = 0.05
    """The smallest gain that matters, in nats a response token."""
    arms: list[str] = field(default_factory=lambda: list(DEFAULT_ARMS))
    """Arms, as in src/compare.py; IT and IM are always among them, and the order is the priority under
    --budget."""
    arms_file: str | None = None
    """A TOML file of more arms: [NAME] and under it flags = ["--FLAG", "VALUE"] of src/finetune.py, and
    perhaps select, data_transform and stop_at (docs/deciding.md)."""
    out_of_domain: str | None = None
    """Rows of another kind, in any file that src/finetune.py takes: the loss on up to 300 of them is measured
    beside that on your own, exploratory. Rows that say nearly what one of yours does are left out."""
    task_score: str | None = None
    """A command of yours that reads responses.jsonl, given as its last argument, and prints a number for each
    line, more being better: a second outcome. All test rows are answered then, by every model."""
    task_margin: float = 0.02
    """The smallest gain in that score that matters."""
    tune: bool = False
    """Compare IT and IM also each at the best of six settings (learning rate, passes and IM's weight), chosen
    on the validation rows; takes about as long again as four arms."""


@dataclass
class TrainingOptions:
    """How every arm is trained."""

    train_rows: int | None = None
    """Rows that each seed draws for itself from the rows to train from (default: half of them)."""
    num_train_epochs: int = 3
    """Passes over the training rows."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    batch_size: int = 8
    """Examples a step."""
    max_seq_length: int = 1024
    """Tokens of a row beyond which it is cut."""
    max_tokens_per_device: int = 1024
    """Most tokens in a packed micro-batch."""
    mixed_precision: Precision | None = None
    """Number format of the matrix products of training (default: bf16 where the GPU, or without one the
    processor, multiplies bfloat16, else no)."""
    use_lora: bool = False
    """Tune adapters in place of all weights, as in src/finetune.py."""
    use_qlora: bool = False
    """Tune adapters over a model in 4 bits, as in src/finetune.py."""
    with_clipping: bool = False
    """Clip gradients at 1 and give AdamW an epsilon of 1e-6, as src/finetune.py does by itself; without it
    neither is done, so that a smaller coefficient of the responses is a mere scale."""
    chat_format: str = "auto"
    """As in src/finetune.py."""
    columns: str | None = None
    """What columns of other names are: question=user,answer=assistant, a role or a known column each."""
    max_bad_rows: int = 0
    """Rows that may be unusable; they are left out and listed."""


@dataclass
class WorkOptions:
    """What to do now."""

    dry_run: bool = False
    """Print the protocol and what it will cost, and start nothing."""
    status: bool = False
    """Print which runs are still to do, and start nothing."""
    next_look: bool = False
    """Go on with more seeds: 8 after 5, 12 after 8. Each look spends a third of the error that is allowed."""
    budget: str | None = None
    """Time to take, as 2h or 45m, before any result is seen: arms are left out from the last on until five
    seeds of each fit; then as many seeds are taken, 12, 8 or 5, as fit. --next_look is time beyond it."""
    gpu: str | None = None
    """Print, by formula, what it takes on a GPU too: A100, H100 or another known one, or the peak in TFLOP/s
    in bfloat16 of any; several with commas between, A100,H100, each by itself."""
    no_texts: bool = False
    """Keep the texts of your rows and of the models out of the page."""
    shown_responses: int = 6
    """Test rows whose responses by every arm are shown on the page; 0 generates none."""
    max_new_tokens: int = 128
    """Longest response generated."""


@dataclass
class TryOptions(WorkOptions, TrainingOptions, QuestionOptions):
    """Every option of src/try_im.py."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words; IT and IM are put first among the arms."""
        self.arms = [REFERENCE, TREATMENT, *(a for a in self.arms if a not in (REFERENCE, TREATMENT))]
        problems = [*known_arms(self.arms, self.arms_file), *self._number_problems()]
        if not problems:
            problems = self._stop_problems()
        if len(self.data) != 1:
            problems.append("DATA: give one file, folder or data set")
        if self.use_lora and self.use_qlora:
            problems.append("--use_lora and --use_qlora: give one of them")
        if len(set(self.arms)) < len(self.arms):
            problems.append(f"--arms {' '.join(self.arms)}: one is given twice")
        for name in self.gpus:
            if gpu_tflops(name) is None:
                known = ", ".join(GPU_TFLOPS)
                problems.append(f"--gpu {name}: give one of {known}, or its peak in TFLOP/s")
        if self.task_score is None and self.task_margin != TryOptions.task_margin:
            problems.append("--task_margin: is the margin of a score, and no --task_score is given")
        if self.budget is not None and budget_seconds(self.budget) is None:
            problems.append(f"--budget {self.budget}: write a time as 2h, 1.5h or 45m")
        return problems

    @property
    def gpus(self) -> list[str]:
        """Return the GPUs that are named."""
        return [] if self.gpu is None else [name.strip() for name in self.gpu.split(",")]

    @property
    def adapters(self) -> bool:
        """Return whether adapters are tuned in place of all weights."""
        return self.use_lora or self.use_qlora

    def _stop_problems(self) -> list[str]:
        known, problems = read_arms(self.arms_file), []
        for number, name in enumerate(self.arms):
            stop = known[name].rules.stop_at
            # --budget leaves out arms from the last on.
            if stop is not None and stop.of not in self.arms[:number]:
                problems.append(
                    f"--arms {name}: stops where {stop.of} ends, so {stop.of} is to stand before it among "
                    "--arms"
                )
        return problems

    def _number_problems(self) -> list[str]:
        problems = [
            f"--{name} {getattr(self, name)}: must be a number above 0"
            for name in ("margin", "task_margin", "learning_rate")
            if not 0 < getattr(self, name) < math.inf
        ]
        return problems + [
            f"--{name} {value}: must be {least} or more"
            for name, least in _LEAST.items()
            for value in [getattr(self, name)]
            if value is not None and value < least
        ]


def budget_seconds(text: str) -> float | None:
    """Return the seconds of a time such as 2h, 1.5h or 45m; None where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(h|m|min)", text.strip())
    return float(match[1]) * (3600 if match[2] == "h" else 60) if match and float(match[1]) else None


def gpu_tflops(name: str) -> float | None:
    """Return the peak of a GPU that is named, or given as a number, in TFLOP/s; None of one not known."""
    if (known := {of.casefold(): peak for of, peak in GPU_TFLOPS.items()}.get(name.casefold())) is not None:
        return known
    try:
        peak = float(name)
    except ValueError:
        return None
    return peak if 0 < peak < math.inf else None
