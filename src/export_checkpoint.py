"""Make a model folder of a checkpoint, which every script that measures a model takes.

    python src/export_checkpoint.py output/it/epoch_1 --output_dir output/it_epoch_1
    python src/compute_loss.py --model_name_or_path output/it_epoch_1 --eval_file F.jsonl --output_dir ...

The folder is what the run would have saved had it ended there: weights (adapters merged), tokenizer, chat
template, stop tokens, and run.json with the steps and epochs done. Run.json and the model before tuning are
read, and must be the run's own."""

from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.progress import counted


@dataclass
class ExportOptions:
    """Options."""

    checkpoint: str = field(metadata={"positional": "CHECKPOINT"})
    """A folder epoch_N or step_N of a run."""
    output_dir: str | None = None
    """Where the model goes (default: RUN_epoch_N beside the run)."""
    model_name_or_path: str | None = None
    """Where the model before tuning lies now, if it has moved (default: as in run.json)."""
    overwrite_output: bool = False
    """Replace a model that is there already."""


def main() -> None:
    """Export the checkpoint and say where it is."""
    options = parse_options(ExportOptions)
    checkpoint = Path(options.checkpoint)
    run = checkpoint.resolve().parent
    folder = Path(options.output_dir or run.with_name(f"{run.name}_{checkpoint.name}"))
    if (folder / "config.json").exists() and not options.overwrite_output:
        raise UserError(
            f"{folder} holds a model already: choose another --output_dir, or replace it with "
            "--overwrite_output"
        )
    from instruction_modelling.quiet import silence_libraries
    from instruction_modelling.runs.export import export_checkpoint

    silence_libraries()
    record = export_checkpoint(checkpoint, folder, options.model_name_or_path)
    steps, epochs = counted(record["steps"], "step"), record["epochs"]
    print(f"saved {folder}: {record['arm']} after {steps} ({epochs:.3g} epoch{'' if epochs == 1 else 's'})")


if __name__ == "__main__":
    run_main(main)
