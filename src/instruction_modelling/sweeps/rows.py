"""The rows of a sweep: which training runs there are, their folders and commands, and how far each has
come."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from instruction_modelling.arms.table import Arm, read_arms
from instruction_modelling.called import LIBRARY_FOLDER, SCRIPTS, shortest
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import content_of, read_stamp
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.rows.conversations import digest_of
from instruction_modelling.rows.json_lines import read_appended
from instruction_modelling.rows.mixture import SUFFIXES, is_mixture, read_mixture
from instruction_modelling.runs.fingerprint import RUN_OPTIONS, option_of
from instruction_modelling.sweeps.options import AllSweepOptions

# One is enough to go on from: it is removed only when the next is whole, so a write that fails or is killed
# leaves it. Meanwhile there are two on the disk.
CHECKPOINTS_KEPT = 1
# Of a model, whole or as an adapter.
_WEIGHTS = ("*.safetensors", "adapter/*.safetensors")


@dataclass(frozen=True)
class SweepRow:
    """One training run of a sweep."""

    number: int
    folder: Path
    data: Path
    """The file of the rows, or the mixture of several files."""
    epochs: int
    flags: tuple[str, ...]
    """Every flag of src/finetune.py."""
    launcher: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        """Return the command line."""
        return [*self.launcher, shortest(SCRIPTS / "finetune.py"), *self.flags]

    def files(self) -> list[Path]:
        """Return the files that its rows are in, data sets of the hub left out.

        Raises:
            UserError: its mixture cannot be read.
        """
        if not is_mixture(self.data):
            return [self.data]
        return [Path(name) for name in read_mixture(self.data).names if ":" not in name]

    def absent(self) -> list[Path]:
        """Return those of its files that are not there."""
        return [path for path in self.files() if not path.exists()]

    def options(self) -> FinetuneOptions:
        """Return the flags as the training script reads them.

        Raises:
            UserError: it would refuse them.
        """
        return parse_options(FinetuneOptions, [*self.flags]).with_recipe()


@dataclass(frozen=True)
class _Settings:
    """What tells the rows of a sweep apart."""

    data_name: str
    data_path: str
    learning_rate: str
    epochs: int
    kl_weight: str | None
    instruction_loss_weight: str | None
    arm: Arm | None
    seed: int


def make_rows(options: AllSweepOptions, extra: Sequence[str]) -> list[SweepRow]:
    """Return every row: data sets x learning rates x epochs x KL weights x loss weights x arms x seeds.

    Args:
        extra: more flags of src/finetune.py, for all rows.
    """
    kl_weights: list[str | None] = [*options.kl_weights] or [None]
    loss_weights: list[str | None] = [*options.instruction_loss_weights] or [None]
    known = read_arms(options.arms_file) if options.arms else {}
    arms: list[Arm | None] = [known[name] for name in options.arms] or [None]
    paths = options.dataset_paths or options.data_names
    settings = [
        _Settings(name, path, rate, epochs, kl_weight, loss_weight, arm, seed)
        for (name, path), rate, epochs, kl_weight, loss_weight, arm, seed in product(
            list(zip(options.data_names, paths, strict=True)),
            options.learning_rates,
            options.epochs,
            kl_weights,
            loss_weights,
            arms,
            options.seeds,
        )
    ]
    return [_row(options, extra, number, given) for number, given in enumerate(settings, start=1)]


def _row(options: AllSweepOptions, extra: Sequence[str], number: int, settings: _Settings) -> SweepRow:
    folder = (
        f"{settings.data_name}_{options.model_name}_bs{options.total_batch_size}_lr{settings.learning_rate}"
        f"_ml{options.max_length}_ep{settings.epochs}{'_bf16' if options.mixed_precision == 'bf16' else ''}"
    )
    chosen: list[str] = []
    for is_given, suffix, flags in _variants(options, settings):
        if is_given:
            folder += suffix
            chosen += flags
    output = Path(options.output_root) / folder
    data = _data_file(Path(options.data_root), settings.data_path)
    given: dict[str, object] = {
        "--model_name_or_path": options.model_path,
        # Where nothing launches it, the run is told itself what its folder is named by.
        **(
            {"--use_flash_attn": None} if options.num_gpus else {"--mixed_precision": options.mixed_precision}
        ),
        "--tokenizer_name": options.model_path,
        "--train_file": data,
        "--max_seq_length": options.max_length,
        "--per_device_train_batch_size": options.batch_size_per_gpu,
        "--gradient_accumulation_steps": options.accumulation(),
        "--learning_rate": settings.learning_rate,
        "--lr_scheduler_type": "linear",
        "--warmup_ratio": "0.03",
        "--weight_decay": "0.",
        "--checkpointing_steps": "epoch",
        "--save_total_limit": CHECKPOINTS_KEPT,
        "--resume_from_checkpoint": "latest",
        "--num_train_epochs": settings.epochs,
        "--output_dir": output,
        "--logging_steps": "1",
    }
    flags = [*(str(word) for pair in given.items() for word in pair if word is not None), *chosen, *extra]
    return SweepRow(number, output, data, settings.epochs, tuple(flags), tuple(_launcher(options)))


def _data_file(root: Path, name: str) -> Path:
    """Return the file of this name: rows, or a mixture of several files where there are no such rows."""
    rows = root / f"{name}.jsonl"
    mixtures = [root / name if is_mixture(name) else root / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((path for path in mixtures if path.is_file() and not rows.exists()), rows)


def _variants(options: AllSweepOptions, settings: _Settings) -> list[tuple[object, str, list[str]]]:
    """Return, in the order of folder names: whether it is given, how a folder's name ends with it, its
    flags."""
    alpha, weight, kl, arm, seed = (
        options.neftune_alpha,
        settings.instruction_loss_weight,
        settings.kl_weight,
        settings.arm,
        settings.seed,
    )
    return [
        (options.use_lm_loss, "_im", ["--use_lm_loss"]),
        (weight, f"_w{weight}", ["--instruction_loss_weight", str(weight)]),
        (alpha, f"_alpha{alpha}", ["--neftune_alpha", str(alpha)]),
        (kl, f"_kl{kl}", ["--apply_kl_div_loss", "--kl_penalty_ctl", str(kl)]),
        (arm, f"_{arm.name if arm else ''}", [*(arm.flags if arm else ())]),
        (options.recipe == "released", "_released", ["--recipe", "released", "--chat_format", "tulu"]),
        (seed, f"_seed{seed}", ["--seed", str(seed)]),
    ]


def _launcher(options: AllSweepOptions) -> list[str]:
    if not options.num_gpus:
        return [shortest(sys.executable)]
    config = Path(options.deepspeed_config)
    if not config.exists() and (LIBRARY_FOLDER.parent / config).exists():
        config = LIBRARY_FOLDER.parent / config
    return [
        shortest(Path(sys.executable).with_name("accelerate")),
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
        str(config),
    ]


def select(rows: Sequence[SweepRow], chosen: str | None, shard: str | None) -> list[SweepRow]:
    """Return the rows that --rows or --shard name.

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
            first_row, step = (int(part) for part in shard.split("/"))
            if not 1 <= first_row <= step:
                raise ValueError
            return [row for row in rows if (row.number - first_row) % step == 0]
    except ValueError:
        raise UserError(
            f"{f'--rows {chosen}' if chosen else f'--shard {shard}'}: the rows are 1 to {len(rows)}; write "
            "3, 1-4 or 1,3,5, and shards as 1/4"
        ) from None
    return list(rows)


# -- how far a row has come -------------------------------------------------------------------------------


def read_record(folder: Path) -> dict[str, Any]:
    """Return run.json of a run folder; empty where there is none that can be read."""
    return read_stamp(folder / "run.json") or {}


def is_finished(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a run folder holds a run that has ended, by its record and what lies beside it."""
    return bool(record.get("finished")) and not lacking(folder, record)


def lacking(folder: Path, record: Mapping[str, Any]) -> str:
    """Return, in words, what a record that says that its run is finished has nothing to show for; empty where
    it lacks nothing, or does not say so."""
    if not record.get("finished"):
        return ""
    if _part(record, "options"):
        return ""
    without = "" if has_weights(folder) else " and has no weights beside it"
    return f"run.json says that the run is finished, but names no options{without}"


def has_weights(folder: Path) -> bool:
    """Return whether a model lies in a run folder; weights may be deleted once they are evaluated."""
    return any(path for pattern in _WEIGHTS for path in folder.glob(pattern))


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of a record that is named facts; empty where it is none."""
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def differences(row: SweepRow, record: dict[str, Any], examples_per_step: int) -> list[str]:
    """Return what tells the run in a folder from the row's, in words; empty where they are the same run.

    Args:
        record: the folder's run.json.
    """
    options, recorded = row.options().as_dict(), _part(record, "options")
    words = [
        f"{name}: {option_of(recorded, name)!r} there, {options[name]!r} here"
        for name in (*RUN_OPTIONS, "model_name_or_path")
        if recorded and option_of(recorded, name) != options[name]
    ]
    if record.get("examples_per_step", examples_per_step) != examples_per_step:
        words.append(f"examples a step: {record['examples_per_step']} there, {examples_per_step} here")
    if _part(record, "data").get("sha256") not in (
        None,
        digest_of([content_of(path) for path in row.files()]),
    ):
        words.append(f"the contents of {row.data}")
    return words


def last_metrics(folder: Path) -> tuple[int, float | None]:
    """Return the last step in metrics.jsonl, and its loss; 0 and None where there is none."""
    steps = [entry for _, entry in read_appended(folder / "metrics.jsonl").records if "loss" in entry]
    return (int(steps[-1]["step"]), float(steps[-1]["loss"])) if steps else (0, None)
