"""The options of a sweep: which runs there are, which of them to start, and on what."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from instruction_modelling.arms.table import known_arms, not_honoured, read_arms

# Flags of src/finetune.py by which a row's folder is named, or that each row has of its own, and the options
# here that set them.
SET_BY = {
    "model_name_or_path": "--model_path",
    "train_file": "--data_names",
    "dataset_name": "--data_names",
    "output_dir": "--output_root",
    "seed": "--seeds",
    "learning_rate": "--learning_rates",
    "num_train_epochs": "--epochs",
    "max_seq_length": "--max_length",
    "per_device_train_batch_size": "--batch_size_per_gpu",
    "gradient_accumulation_steps": "--total_batch_size",
    "mixed_precision": "--mixed_precision",
    "use_lm_loss": "--use_lm_loss",
    "instruction_loss_weight": "--instruction_loss_weights",
    "neftune_alpha": "--neftune_alpha",
    "apply_kl_div_loss": "--kl_weights",
    "kl_penalty_ctl": "--kl_weights",
    "recipe": "--recipe",
    "dry_run": "--dry_run",
}
_GOES_ON = "a row goes on from what its folder holds, whatever is said: leave it out"
# Others that cannot be the same for all rows, and why.
NOT_FOR_ALL = {
    "resume_from_checkpoint": _GOES_ON,
    "overwrite_output": _GOES_ON,
    "push_to_hub": "the rows would replace one another there: upload each folder by src/push_to_hub.py",
    "config": "it may set what the rows' folders are named by: give what it holds as flags",
}


@dataclass
class SweepOptions:
    """Sweep."""

    name: str
    """The sweep's name: its table goes to OUTPUT_ROOT/NAME.sweep.md and .json."""
    model_path: str
    """Folder or hub name of the model to tune."""
    model_name: str
    """The model in folder names, llama2_7b for example."""
    data_names: list[str]
    """The data sets in folder names."""
    dataset_paths: list[str] = field(default_factory=list)
    """Their files under DATA_ROOT without .jsonl, one for each name (default: the names)."""
    data_root: str = "data"
    """Where the data sets are."""
    output_root: str = "model"
    """Where the run folders go."""
    num_gpus: int = 2
    """Processes, each with a GPU; 0: one process on the CPU, without a launcher."""
    batch_size_per_gpu: int = 1
    """Examples a GPU computes at once."""
    total_batch_size: int = 128
    """Examples a step."""
    max_length: int = 2048
    """Tokens of a row beyond which it is cut."""
    epochs: list[int] = field(default_factory=lambda: [2])
    """Passes over the data; each number is a run of its own, with its own schedule."""
    learning_rates: list[str] = field(default_factory=lambda: ["2e-5"])
    """Peak learning rates, as they are written in folder names."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds; seed 0 keeps the plain folder name, others add _seed1 and so on."""
    arms: list[str] = field(default_factory=list)
    """Arms of src/compare.py by name, a run each; folders end in _NAME."""
    arms_file: str | None = None
    """As in src/compare.py: a TOML file of more arms."""
    use_lm_loss: bool = False
    """Instruction Modelling; folders end in _im."""
    neftune_alpha: str | None = None
    """NEFTune's alpha; folders end in _alpha5."""
    kl_weights: list[str] = field(default_factory=list)
    """Weights of the KL term, a run each; folders end in _kl0.1."""
    instruction_loss_weights: list[str] = field(default_factory=list)
    """Fractional instruction loss weights, a run each; folders end in _w0.1."""
    recipe: str = "paper"
    """paper or released, as in src/finetune.py; folders of the second end in _released."""
    mixed_precision: str = "bf16"
    """bf16 or no."""
    deepspeed_config: str = "ds_configs/stage3_no_offloading_accelerate.conf"
    """What accelerate's DeepSpeed shards by."""
    main_process_port: int = 29521
    """Where the processes of a run meet."""


@dataclass
class SelectionOptions:
    """Which rows, and on what."""

    rows: str | None = None
    """Rows to run, by number: 3, 1-4 or 1,3,5 (for a job of an array)."""
    shard: str | None = None
    """K/M: every M-th row from the K-th on."""
    list: bool = False
    """Print the numbered rows and their state, and start nothing."""
    dry_run: bool = False
    """Print every row's command and what it will need, and start nothing."""
    ignore_room: bool = False
    """Start a row even where the disk has less room than its estimate."""
    gpu_tflops: float = 312.0
    """Peak of a GPU in bfloat16, in TFLOP/s, for the estimate (default: an A100's)."""
    gpu_memory: float = 80.0
    """Memory of a GPU in GB, for the estimate."""
    utilisation: float = 0.4
    """Share of the peak assumed for the estimate; set it to what your runs reach."""


@dataclass
class AllSweepOptions(SelectionOptions, SweepOptions):
    """Every option of src/sweep.py."""

    def accumulation(self) -> int:
        """Return the micro-batches a step."""
        return self.total_batch_size // (max(self.num_gpus, 1) * self.batch_size_per_gpu)

    def check(self) -> "list[str]":
        """Return every problem of the options, in words."""
        problems = [
            f"--{name} {getattr(self, name)}: must be 1 or more"
            for name in ("batch_size_per_gpu", "total_batch_size", "max_length")
            if getattr(self, name) < 1
        ]
        if self.num_gpus < 0:
            problems.append(f"--num_gpus {self.num_gpus}: 0 or more")
        at_once = max(self.num_gpus, 1) * self.batch_size_per_gpu
        if not problems and self.total_batch_size % at_once:
            problems.append(
                f"TOTAL_BATCH_SIZE {self.total_batch_size} is no multiple of NUM_GPUS x BATCH_SIZE_PER_GPU = "
                f"{at_once}: "
                "the steps would have another size than the folder's name says"
            )
        if self.dataset_paths and len(self.dataset_paths) != len(self.data_names):
            problems.append(
                f"{len(self.data_names)} data names and {len(self.dataset_paths)} data set paths: give one "
                "for each"
            )
        for names, what in (
            (self.epochs, "EPOCH"),
            (self.seeds, "SEEDS"),
            (self.learning_rates, "LR"),
            (self.data_names, "DATA_NAME_LIST"),
            (self.arms, "--arms"),
            (self.kl_weights, "--kl_weights (KL_PENALTY_CTL)"),
            (self.instruction_loss_weights, "--instruction_loss_weights (INSTRUCTION_LOSS_WEIGHTS)"),
        ):
            if len(set(map(_as_number, names))) != len(names):
                problems.append(f"{what} names one value twice: {' '.join(map(str, names))}")
        if self.recipe not in ("paper", "released"):
            problems.append(f"--recipe {self.recipe}: paper or released")
        if self.use_lm_loss and self.instruction_loss_weights:
            problems.append("--use_lm_loss is an instruction loss weight of 1: give only one of them")
        problems += self._arm_problems()
        if self.rows and self.shard:
            problems.append("--rows and --shard both choose rows: give one of them")
        if not 0 < self.utilisation <= 1:
            problems.append(f"--utilisation {self.utilisation}: a share, more than 0 and at most 1")
        return problems

    def _arm_problems(self) -> list[str]:
        if not self.arms:
            return ["--arms_file: give --arms too"] if self.arms_file else []
        why = "a sweep trains on files as they are"
        rules = not_honoured(self.arms, self.arms_file, why)
        return [*known_arms(self.arms, self.arms_file), *rules] + [
            f"--{name} beside --arms: an arm is all that its row adds; give it in an arm of --arms_file"
            for name in ("use_lm_loss", "neftune_alpha", "kl_weights", "instruction_loss_weights")
            if getattr(self, name)
        ]

    def extra_problems(self, extra: Iterable[str]) -> list[str]:
        """Return, in words, which of the flags behind a -- are not theirs to set.

        Args:
            extra: flags of src/finetune.py, for all rows.
        """
        arms = read_arms(self.arms_file) if self.arms else {}
        why = NOT_FOR_ALL | {
            flag: f"{option}, before the --, sets it for each row" for flag, option in SET_BY.items()
        }
        why |= {
            flag: f"the arm {name} sets it: change it in an arm of --arms_file"
            for name in self.arms
            for flag in _flags(arms[name].flags)
        }
        return [f"--{flag} behind the --: {why[flag]}" for flag in _flags(extra) if flag in why]


def _flags(words: Iterable[str]) -> list[str]:
    """Return the names of the flags among the words of a command."""
    return [word[2:].split("=")[0] for word in words if word.startswith("--")]


def _as_number(value: object) -> object:
    """Return a value as the number that it is, for 0.1 and 0.10 are one; others as they are."""
    try:
        return float(str(value))
    except ValueError:
        return value
