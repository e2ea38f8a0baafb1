"""Started by a launcher on every process: fails every operation of a save, on one process after the other.

    torchrun --nproc_per_node 2 tests/crash/failing_saves.py MODEL ROWS.jsonl FOLDER

Of a checkpoint and of the model. Each time every process has to be told the same, and the checkpoint before
has to be whole. The first process writes FOLDER.json: each process's operations, and what went wrong."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

import torch  # noqa: E402
from accelerate.utils import gather_object  # noqa: E402
from faults import Faults  # noqa: E402
from script_loader import load_script  # noqa: E402

from instruction_modelling.errors import UserError  # noqa: E402
from instruction_modelling.options import FinetuneOptions  # noqa: E402
from instruction_modelling.processes.signals import StopSignals  # noqa: E402
from instruction_modelling.runs import checkpoints  # noqa: E402
from instruction_modelling.runs import model as saving  # noqa: E402
from instruction_modelling.runs.checkpoint_folders import check_contents, repair  # noqa: E402
from instruction_modelling.runs.folder import RunFolder  # noqa: E402
from instruction_modelling.runs.state import training_state  # noqa: E402
from instruction_modelling.training.batches import step_micro_batches  # noqa: E402
from instruction_modelling.training.launch import start_processes  # noqa: E402
from instruction_modelling.training.plan import GlobalBatch  # noqa: E402
from instruction_modelling.training.step_totals import NllSums  # noqa: E402


def main() -> None:
    """One step of training; then both saves, with every fault."""
    model_folder, rows, folder = (Path(argument) for argument in sys.argv[1:])
    torch.set_num_threads(1)
    script: Any = load_script("finetune")
    options = FinetuneOptions(
        model_name_or_path=str(model_folder),
        train_file=[str(rows)],
        output_dir=str(folder),
        per_device_train_batch_size=4,
    ).with_recipe()
    accelerator = start_processes(options)
    this_run = script.Run(options, accelerator, RunFolder(folder, accelerator.is_main_process), StopSignals())
    this_run.data = script.load_data(this_run)
    this_run.plan, this_run.layout = script.plan_steps(this_run)
    this_run.window = NllSums(this_run.data.weighted.data.datasets)
    this_run.model, this_run.optimizer, _ = script.load_model(this_run)
    batch = GlobalBatch(0, this_run.plan.batch(0))
    micro_batches = step_micro_batches(
        this_run.data.weighted, batch, this_run.layout, accelerator.process_index, accelerator.num_processes
    )
    script.train_step(this_run, micro_batches)

    def checkpoint(step: int = 2, metrics: str = "{}\n") -> None:
        checkpoints.save_checkpoint(
            accelerator,
            training_state(accelerator, this_run.model, this_run.optimizer),
            folder / f"step_{step}",
            {"step": step, "fingerprint": {}},
            metrics,
        )

    def whole_model() -> None:
        form = saving.SavedForm(this_run.data.tokenizer, this_run.data.chat_format, torch.float32)
        saving.save_model(accelerator, this_run.model, this_run.optimizer, form, folder)

    checkpoint(1, "")
    faults = Faults(folder)
    found = {
        name: fail_every_operation(save, faults, accelerator, folder)
        for name, save in (("checkpoint", checkpoint), ("model", whole_model))
    }
    if accelerator.is_main_process:
        Path(f"{folder}.json").write_text(json.dumps(found))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def fail_every_operation(
    save: Callable[[], None], faults: Faults, accelerator: Any, folder: Path
) -> dict[str, Any]:
    """The operations of each process in one save, and every problem of one save for each of them and each
    kind of error."""
    save()
    faults.arm(0)
    save()
    operations = gather_object([list(faults.names)])
    problems = []
    for rank, names in enumerate(operations):
        for at, name in enumerate(names, start=1):
            for how in ("ENOSPC", "EIO"):
                mine = rank == accelerator.process_index
                faults.arm(at if mine else 0, how)
                problem = attempt(save)
                told = gather_object([problem])
                what = f"{how} at operation {at} ({name}) of process {rank}"
                if len({text is None for text in told}) > 1 or any(
                    "Traceback" in (text or "") for text in told
                ):
                    problems.append(f"{what}: {told}")
                if accelerator.is_main_process:
                    problems += [f"{what}: {text}" for text in left_wrong(folder, told[0] is not None)]
    faults.arm(0)
    problem = attempt(save)
    return {"operations": operations, "problems": [*problems, *([problem] if problem else [])]}


def attempt(save: Callable[[], None]) -> str | None:
    """What a save said, if it failed."""
    try:
        save()
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"Traceback: {error!r}"
    return None


def left_wrong(folder: Path, failed: bool) -> list[str]:
    """What is not as it should be after a save: the checkpoints there, and the half-written folders."""
    problems = []
    for name in ("step_1", "step_2"):
        # A failed rename may leave the second one put by, from where `repair` brings it back at the next
        # start.
        put_by = folder / f".{name}.replaced"
        try:
            check_contents(
                put_by if failed and put_by.exists() and not (folder / name).exists() else folder / name
            )
        except UserError as error:
            problems.append(str(error))
    if failed and (folder / ".saving-model").exists():
        problems.append("a half-written model was left")
    repair(folder)
    return problems + [f"{path.name} was left" for path in folder.glob(".*step_*")]


if __name__ == "__main__":
    main()
