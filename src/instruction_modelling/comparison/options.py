"""What src/compare.py compares: its options and the arms."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.arms.table import known_arms, not_honoured
from instruction_modelling.comparison.precision import Precision
from instruction_modelling.comparison.row_counts import RowSet

# What the jobs would refuse, each after the models before it are made.
_LEAST = {
    "num_train_epochs": 1,
    "batch_size": 1,
    "max_seq_length": 1,
    "max_tokens_per_device": 1,
    "max_new_tokens": 1,
    "train_losses": 1,
    "train_responses": 0,
    "test_responses": 0,
    "max_bad_rows": 0,
}


def data_set_name(train_file: str) -> str:
    """Return the name of a training file's data set, which its folder has."""
    return Path(train_file).stem.removesuffix("_train")


@dataclass
class ComparisonOptions:
    """Options."""

    model_name_or_path: str = field(metadata={"input": "model"})
    """Folder or hub name of the model to tune and compare with."""
    train_file: list[str] = field(metadata={"input": "rows"})
    """Training rows, in any files that src/finetune.py takes; several are several comparisons, and a mixture
    (a YAML file) is one, in whose proportions every arm is trained."""
    output_dir: str = field(metadata={"input": "output"})
    """Where runs, measurements and the report go."""
    test_file: list[str] = field(default_factory=list, metadata={"input": "rows"})
    """Test rows, one file for each training file (default: training rows drawn at random, which are then
    not trained on: a fifth, or up to 300 where that is no more than a third)."""
    eval_file: list[str] = field(default_factory=list, metadata={"input": "rows"})
    """Rows whose loss is measured while training (after each pass), one file for each training file: what
    arms with --keep_best or --early_stopping_patience (--arms_file) choose by. None of them may be a test
    row."""
    arms: list[str] = field(default_factory=lambda: ["IT", "IM"])
    """Arms by name: IT, IM, NEFTune, IM+NEFTune, IM-w0.01, -w0.03, -w0.1, -w0.2, -w0.3, -w0.5, prompt-only,
    KL, reweighted-IT, IM-response, released-masks, released-recipe, and those of --arms_file."""
    arms_file: str | None = None
    """A TOML file of more arms: [NAME] and under it flags = ["--FLAG", "VALUE"] of src/finetune.py."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds; each arm is trained once with each."""
    dry_run: bool = False
    """Print the jobs that are still to come and what they will take, by a trial step, and start none of
    them; of --output_dir the sets of rows alone are written."""
    columns: str | None = None
    """What columns of other names are: question=user,answer=assistant, a role or a known column each."""
    row_set: RowSet = "common"
    """common: every arm is trained on the same rows, those with a response to train; own: on all rows, of
    which each arm leaves out those that it has no loss for (IT those without a response)."""
    max_bad_rows: int = 0
    """Rows of a file that may be unusable; they are left out of every arm and listed in
    rows_left_out.jsonl."""
    chat_format: str = "auto"
    """As in src/finetune.py."""
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
    max_new_tokens: int = 32
    """Longest response generated."""
    train_losses: int | None = None
    """Training rows, from the first on, whose losses are taken (default: all)."""
    train_responses: int = 32
    """Training rows, from the first on, whose responses are generated (for BLEU against the training
    outputs)."""
    test_responses: int = 64
    """Test rows, from the first on, whose responses are generated."""
    mixed_precision: Precision | None = None
    """Number format of the matrix products of training (default: bf16 where the GPU, or without one the
    processor, multiplies bfloat16, else no)."""
    # On by default, so its flag is --no_keep_models, and the docstring is that flag's.
    keep_models: bool = True
    """Delete each tuned model's weights once it is measured, instead of keeping them."""
    weights_json: list[str] = field(default_factory=list)
    """Summaries by src/inspect_weights.py, for the report's figure of where the loss falls."""
    page: list[str] = field(default_factory=list)
    """Pages that the report links to, each as LABEL=FILE (src/inspect_weights.py, src/analyze_data.py)."""
    title: str = "Where should the loss fall?"
    """The report's title."""
    note: str = ""
    """A caveat shown on the report."""

    def _arm_problems(self) -> list[str]:
        why = "a comparison's report holds arms of the same rows side by side"
        rules = not_honoured(self.arms, self.arms_file, why)
        return [*known_arms(self.arms, self.arms_file, bool(self.eval_file)), *rules]

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = self._arm_problems()
        if self.test_file and len(self.test_file) != len(self.train_file):
            problems.append(
                f"--test_file: {len(self.test_file)} files for {len(self.train_file)} training files"
            )
        if self.eval_file and len(self.eval_file) != len(self.train_file):
            problems.append(
                f"--eval_file: {len(self.eval_file)} files for {len(self.train_file)} training files"
            )
        problems += [f"--page {page}: give LABEL=FILE" for page in self.page if "=" not in page]
        named = [("page", page.partition("=")[2]) for page in self.page if "=" in page]
        named += [("weights_json", name) for name in self.weights_json]
        # The report reads them, which is made last.
        problems += [
            f"--{flag} {name}: there is no such file" for flag, name in named if not Path(name).is_file()
        ]
        problems += [
            f"--{name} {value}: must be {least} or more"
            for name, least in _LEAST.items()
            for value in [getattr(self, name)]
            if value is not None and value < least
        ]
        problems += [f"--seeds {seed}: must be 0 or more" for seed in self.seeds if seed < 0]
        if not 0 < self.learning_rate < math.inf:
            problems.append(f"--learning_rate {self.learning_rate}: must be a number above 0")
        names = [data_set_name(name) for name in self.train_file]
        if len(set(names)) < len(names):
            problems.append("--train_file: two files have the same name (without _train); rename one")
        problems += [
            f"--{option} {' '.join(map(str, given))}: one is given twice"
            for option, given in (("arms", self.arms), ("seeds", self.seeds))
            if len(set(given)) < len(given)
        ]
        return problems
