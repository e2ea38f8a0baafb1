"""The rows of a sweep: which training runs there are, their folders and commands, and how far each has
come."""

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.runs.fingerprint import RUN_OPTIONS

ROOT = Path(__file__).resolve().parents[3]
# A failed or killed write of a checkpoint leaves the one before, so two are enough.
CHECKPOINTS_KEPT = 1


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
        """Micro-batches a step."""
        return self.total_batch_size // (max(self.num_gpus, 1) * self.batch_size_per_gpu)

    def check(self) -> "list[str]":
        """Every problem of the options, in words."""
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
        ):
            if len(set(names)) != len(names):
                problems.append(f"{what} names one value twice: {' '.join(map(str, names))}")
        if self.recipe not in ("paper", "released"):
            problems.append(f"--recipe {self.recipe}: paper or released")
        if self.use_lm_loss and self.instruction_loss_weights:
            problems.append("--use_lm_loss is an instruction loss weight of 1: give only one of them")
        if self.rows and self.shard:
            problems.append("--rows and --shard both choose rows: give one of them")
        if not 0 < self.utilisation <= 1:
            problems.append(f"--utilisation {self.utilisation}: a share, more than 0 and at most 1")
        return problems


@dataclass(frozen=True)
class Row:
    """One training run of a sweep."""

    number: int
    folder: Path
    data: Path
    epochs: int
    flags: tuple[str, ...]
    """Every flag of src/finetune.py."""
    launcher: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        """What is started."""
        return [*self.launcher, "src/finetune.py", *self.flags]

    def options(self) -> FinetuneOptions:
        """The flags as the training script reads them."""
        return parse_options(FinetuneOptions, [*self.flags]).with_recipe()


def make_rows(options: AllSweepOptions, extra: Sequence[str]) -> list[Row]:
    """Every row: data sets x learning rates x epochs x KL weights x loss weights x seeds.

    Args:
        extra: more flags of src/finetune.py, for all rows.

    Raises:
        UserError: the extra flags are not the training script's.
    """
    rows: list[Row] = []
    kls: list[str | None] = [*options.kl_weights] or [None]
    weights: list[str | None] = [*options.instruction_loss_weights] or [None]
    paths = options.dataset_paths or options.data_names
    for name, path in zip(options.data_names, paths, strict=True):
        for rate in options.learning_rates:
            for epochs in options.epochs:
                for kl in kls:
                    for weight in weights:
                        for seed in options.seeds:
                            rows.append(
                                _row(
                                    options, extra, len(rows) + 1, name, path, rate, epochs, kl, weight, seed
                                )
                            )
    return rows


def _row(
    options: AllSweepOptions,
    extra: Sequence[str],
    number: int,
    name: str,
    path: str,
    rate: str,
    epochs: int,
    kl: str | None,
    weight: str | None,
    seed: int,
) -> Row:
    folder = (
        f"{name}_{options.model_name}_bs{options.total_batch_size}_lr{rate}_ml{options.max_length}_ep{epochs}"
        f"{'_bf16' if options.mixed_precision == 'bf16' else ''}"
    )
    chosen: list[str] = []
    for given, suffix, flags in (
        (options.use_lm_loss, "_im", ["--use_lm_loss"]),
        (weight, f"_w{weight}", ["--instruction_loss_weight", str(weight)]),
        (
            options.neftune_alpha,
            f"_alpha{options.neftune_alpha}",
            ["--neftune_alpha", str(options.neftune_alpha)],
        ),
        (kl, f"_kl{kl}", ["--apply_kl_div_loss", "--kl_penalty_ctl", str(kl)]),
        (options.recipe == "released", "_released", ["--recipe", "released", "--chat_format", "tulu"]),
        (seed, f"_seed{seed}", ["--seed", str(seed)]),
    ):
        if given:
            folder += suffix
            chosen += flags
    output, data = Path(options.output_root) / folder, Path(options.data_root) / f"{path}.jsonl"
    flags = [
        "--model_name_or_path",
        options.model_path,
        "--use_flash_attn",
        "--tokenizer_name",
        options.model_path,
        "--train_file",
        str(data),
        "--max_seq_length",
        str(options.max_length),
        "--per_device_train_batch_size",
        str(options.batch_size_per_gpu),
        "--gradient_accumulation_steps",
        str(options.accumulation()),
        "--learning_rate",
        rate,
        "--lr_scheduler_type",
        "linear",
        "--warmup_ratio",
        "0.03",
        "--weight_decay",
        "0.",
        "--checkpointing_steps",
        "epoch",
        "--save_total_limit",
        str(CHECKPOINTS_KEPT),
        "--resume_from_checkpoint",
        "latest",
        "--num_train_epochs",
        str(epochs),
        "--output_dir",
        str(output),
        "--logging_steps",
        "1",
        *chosen,
        *extra,
    ]
    if not options.num_gpus:
        flags.remove("--use_flash_attn")
    return Row(number, output, data, epochs, tuple(flags), tuple(_launcher(options)))


def _launcher(options: AllSweepOptions) -> list[str]:
    if not options.num_gpus:
        return [sys.executable]
    return [
        str(Path(sys.executable).with_name("accelerate")),
        "launch",
        "--mixed_precision",
        options.mixed_precision,
        "--num_machines",
        "1",
        "--num_processes",
        str(options.num_gpus),
        "--use_deepspeed",
        "--main_process_port",
        str(options.main_process_port),
        "--deepspeed_config_file",
        options.deepspeed_config,
    ]


def select(rows: Sequence[Row], chosen: str | None, shard: str | None) -> list[Row]:
    """The rows that --rows or --shard name.

    Raises:
        UserError: they name none, or are not numbers.
    """
    try:
        if chosen:
            numbers: set[int] = set()
            for part in chosen.split(","):
                first, _, last = part.partition("-")
                numbers |= set(range(int(first), int(last or first) + 1))
            if not numbers or not numbers <= {row.number for row in rows}:
                raise ValueError
            return [row for row in rows if row.number in numbers]
        if shard:
            place, of = (int(part) for part in shard.split("/"))
            if not 1 <= place <= of:
                raise ValueError
            return [row for row in rows if (row.number - place) % of == 0]
    except ValueError:
        raise UserError(
            f"{f'--rows {chosen}' if chosen else f'--shard {shard}'}: the rows are 1 to {len(rows)}; write "
            "3, 1-4 "
            "or 1,3,5, and shards as 1/4"
        ) from None
    return list(rows)


# -- how far a row has come -------------------------------------------------------------------------------


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a run folder; empty where there is none."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def differences(row: Row, record: dict[str, Any], examples_a_step: int) -> list[str]:
    """What tells the run in a folder from the row's; empty where they are the same run."""
    wanted, there = row.options().as_dict(), record.get("options", {})
    found = [
        f"{name}: {there.get(name)!r} there, {wanted[name]!r} here"
        for name in (*RUN_OPTIONS, "model_name_or_path")
        if name in there and there[name] != wanted[name]
    ]
    if record.get("examples_per_step", examples_a_step) != examples_a_step:
        found.append(f"examples a step: {record['examples_per_step']} there, {examples_a_step} here")
    if record.get("data", {}).get("sha256") not in (None, file_sha256(row.data)):
        found.append(f"the contents of {row.data}")
    return found


def last_metrics(folder: Path) -> tuple[int, float | None]:
    """The last step in metrics.jsonl, and its loss."""
    step, loss = 0, None
    try:
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "loss" in entry:
                step, loss = int(entry["step"]), float(entry["loss"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return step, loss


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Keeps a run folder for one runner as long as the block, and as long as anything it has handed the
    lock's descriptor to; None where the folder is another's."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".sweep.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield handle
    finally:
        os.close(handle)
