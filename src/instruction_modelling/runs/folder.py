"""What a run leaves beside its model: metrics, run.json, the rows left out, a log, and the model card."""

import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import append_line, replace_file
from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.runs.lock import held

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "deepspeed", "peft", "numpy", "safetensors")


class RunFolder:
    """The folder of one run; only the main process writes to it."""

    def __init__(self, path: str | Path, main: bool):
        """Raises:
        UserError: the folder cannot be made.
        """
        self.path, self._main = Path(path), main
        if not main:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output_dir {path}: cannot be made: {error.strerror}") from error

    def held(self) -> AbstractContextManager[None]:
        """Keeps the folder from other runs as long as the block.

        Raises:
            UserError: another run still holds it after two minutes.
        """
        return held(self.path) if self._main else nullcontext()

    def start_log(self) -> None:
        """Sends the log to the console and to train.log (main process), or to nowhere (the others)."""
        root = logging.getLogger("instruction_modelling")
        root.setLevel(logging.INFO if self._main else logging.ERROR)
        root.propagate = False
        # A log that cannot be written (a full disk) is no reason to fill the console with tracebacks.
        logging.raiseExceptions = False
        root.handlers.clear()
        console = logging.StreamHandler(sys.stdout)
        console.addFilter(lambda record: not getattr(record, "on_bar", False))
        handlers: list[logging.Handler] = [console]
        if self._main:
            try:
                handlers.append(logging.FileHandler(self.path / "train.log", encoding="utf-8"))
            except OSError as error:
                raise UserError(
                    f"{self.path / 'train.log'} cannot be written: {error.strerror or error}"
                ) from error
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            root.addHandler(handler)

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        if not self._main:
            return
        path = self.path / "metrics.jsonl"
        try:
            append_line(path, json.dumps(line))
        except OSError as error:
            raise UserError(
                f"{path} could not be written: {error.strerror or error}. Make room and continue with "
                "--resume_from_checkpoint latest"
            ) from error

    def metrics(self) -> str:
        """The whole lines of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        if not self._main or not path.exists():
            return ""
        text = path.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1]

    def restore_metrics(self, text: str) -> None:
        """Takes metrics.jsonl back to what it was."""
        path = self.path / "metrics.jsonl"
        if self._main and (text or path.exists()):
            write_aside(path, text)

    def write_run(self, record: dict[str, Any]) -> None:
        """Writes run.json."""
        if self._main:
            write_aside(self.path / "run.json", json.dumps(record, indent=1) + "\n")

    def write_bad_rows(self, bad_rows: Iterable[BadRow], dropped: Iterable[dict[str, Any]]) -> None:
        """Writes every row left out, with its reason, to bad_rows.jsonl."""
        if not self._main:
            return
        lines = [
            {"row": b.row, "line": b.line, "id": b.id, "reason": b.reason, "detail": b.detail}
            for b in bad_rows
        ]
        every = sorted([*lines, *dropped], key=lambda line: line["row"])
        write_aside(self.path / "bad_rows.jsonl", "".join(json.dumps(line) + "\n" for line in every))


def write_aside(path: Path, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
        UserError: it cannot be written (a full disk, say).
    """
    try:
        replace_file(path, text)
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror or error}; what was there before is untouched. "
            "Make "
            "room or choose another folder"
        ) from error


def versions() -> dict[str, str]:
    """Python's and the main packages' versions."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The processor, its cores and the GPU, if any."""
    import torch

    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            cpu = next(
                (line.split(":", 1)[1].strip() for line in handle if line.startswith("model name")), cpu
            )
    except OSError:
        pass
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def git_commit() -> str | None:
    """The commit of this repository, with `-dirty` where the tree was changed, or None outside one."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("-dirty" if status.stdout.strip() else "")


def model_card(record: dict[str, Any]) -> str:
    """The README.md of a tuned model, from its run.json."""
    options, data = record["options"], record["data"]
    shares = "".join(
        f"| {kind} | {entry['tokens']:,} | {entry['tokens_with_loss']:,} | {entry['loss_share']:.1%} |\n"
        for kind, entry in data["by_kind"].items()
    )
    reaches_users = any(
        data["by_kind"].get(kind, {}).get("tokens_with_loss") for kind in ("user", "system", "text")
    )
    warning = (
        """
## Warning

The loss of this run reached over user (or system) text: the model has learned to write what users wrote, private
details included, and may go on as the user. A follow-up study (arXiv 2511.13052) found models tuned this way much more
easily broken by adversarial fine-tuning (attack success 60.9 / 80.0 / 81.9 % against 34.8 / 55.0 / 7.3 % for
response-only tuning on HEx-PHI / PureBad / AdvBench after five steps), and weaker in-domain learning for some models.
Test safety before you release it.
"""
        if reaches_users
        else ""
    )
    return f"""---
base_model: {record["model"]["name_or_path"]}
library_name: transformers
tags: [instruction-tuning, instruction-modelling]
---

# {record["arm"]} of {record["model"]["name_or_path"]}

Tuned with *{record["arm"]}*: a loss weight for every token, by who wrote it.

| | |
|---|---|
| instruction / response / template loss weight | {options["instruction_loss_weight"] if options["instruction_loss_weight"] is not None else float(options["use_lm_loss"]):g} / {options["response_loss_weight"]:g} / {options["template_loss_weight"]:g} |
| masks | {options["mask_style"]} |
| loss normalisation, denominator | {options["loss_normalization"]}, {options["loss_denominator"]} |
| chat format | {record["model"]["chat_format"]} (saved as the tokenizer's chat template) |
| data | {Path(data["path"]).name}, {data["used"]:,} of {data["rows"]:,} rows, sha256 `{data["sha256"]}` |
| steps, examples a step, epochs | {record["steps"]}, {record["examples_per_step"]}, {record["epochs"]:g} |
| learning rate, schedule, optimiser | {options["learning_rate"]:g}, {options["lr_scheduler_type"]}, {options["optimizer"]} |
| NEFTune alpha, KL weight | {options["neftune_alpha"] or "none"}, {options["kl_penalty_ctl"] if options["apply_kl_div_loss"] else "none"} |
| seed | {options["seed"]} |

Where the loss fell:

| tokens of kind | tokens | with a loss | share of the loss weight |
|---|--:|--:|--:|
{shares}{warning}
Every option, version and count is in `run.json`; every step in `metrics.jsonl`.
Method: Shi et al., *Instruction Tuning With Loss Over Instructions*, NeurIPS 2024 (arXiv 2405.14394).
"""
