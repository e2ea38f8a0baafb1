"""The folder of a run: its log, metrics, run.json and the rows left out, written by the main process
alone."""

import errno
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import append_line
from instruction_modelling.files.stamps import plain, read_stamp
from instruction_modelling.files.whole import write_json, write_json_lines, write_text
from instruction_modelling.processes.collectives import together
from instruction_modelling.rows.conversations import BadRow, ConversationFile
from instruction_modelling.rows.json_lines import read_appended
from instruction_modelling.runs.card import model_card
from instruction_modelling.runs.lock import held

if TYPE_CHECKING:
    from accelerate import Accelerator

    from instruction_modelling.tokens.encoded import EncodedData

logger = logging.getLogger(__name__)

# The metrics of a run: a line of JSON per logged step or evaluation.
METRICS = "metrics.jsonl"
# Responses to the prompts of --sample_file, a line of JSON each.
SAMPLES = "samples.jsonl"
# The folder in a run's that other scripts write what they measure of its model to.
EVALUATIONS = "eval"
_NOT_OF_THE_MODEL = ("overwrite_output", "resume_from_checkpoint", "dry_run", "output_dir", "check_answers")


class RunFolder:
    """The folder of one run; only the main process writes to it, and on the others nothing happens."""

    def __init__(self, path: str | Path, main: bool, dry: bool = False):
        """Make the folder where it is absent.

        Args:
            main: whether this is the main process.
            dry: write nothing, make no folder either.

        Raises:
            UserError: the folder cannot be made.
        """
        self.path, self._main, self._writes = Path(path), main, main and not dry
        if not main:
            return
        try:
            if self._writes:
                self.path.mkdir(parents=True, exist_ok=True)
            elif problem := _why_not_made(self.path):
                raise OSError(problem, os.strerror(problem))
        except OSError as error:
            raise UserError(f"--output_dir {path}: cannot be made: {error.strerror}") from error

    def held(self) -> AbstractContextManager[None]:
        """Keep the folder from other runs as long as the block.

        Raises:
            UserError: another run still holds it after two minutes.
        """
        if self._writes:
            return held(self.path)
        # A dry run would wait for nothing that it could spoil.
        return held(self.path, 0.0) if self._main and self.path.exists() else nullcontext()

    def refuse_finished(self, accelerator: "Accelerator") -> None:
        """Refuse to replace a finished run; the main process looks, and every process fails.

        Raises:
            UserError: the folder holds one.
        """
        with together(accelerator):
            arm = self._finished_arm() if self._main else None
            if arm:
                raise UserError(
                    f"{self.path} holds a finished run ({arm}): choose another --output_dir, or replace it "
                    "with --overwrite_output"
                )

    def _finished_arm(self) -> str | None:
        try:
            record = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            return str(record["arm"]) if record["finished"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def start_log(self) -> None:
        """Send the log to the console and to train.log (main process), or to nowhere (the others).

        Raises:
            UserError: train.log cannot be written.
        """
        root = logging.getLogger("instruction_modelling")
        root.setLevel(logging.INFO if self._main else logging.ERROR)
        root.propagate = False
        # A log that cannot be written (a full disk) is no reason to fill the console with tracebacks.
        logging.raiseExceptions = False
        root.handlers.clear()
        console = logging.StreamHandler(sys.stdout)
        console.addFilter(lambda record: not getattr(record, "on_bar", False))
        handlers: list[logging.Handler] = [console]
        if self._writes:
            try:
                handlers.append(logging.FileHandler(self.path / "train.log", encoding="utf-8"))
            except OSError as error:
                raise UserError(
                    f"{self.path / 'train.log'} cannot be written: {error.strerror or error}"
                ) from error
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            root.addHandler(handler)

    def add_metrics(self, line: dict[str, Any], accelerator: "Accelerator") -> None:
        """Append a line to metrics.jsonl, and give its numbers to the trackers; every process calls it.

        Raises:
            UserError: the disk is full or fails.
        """
        accelerator.log(scalars(line), line["step"])
        self._append(METRICS, line)

    def add_sample(self, line: dict[str, Any]) -> None:
        """Append a line to samples.jsonl.

        Raises:
            UserError: the disk is full or fails.
        """
        self._append(SAMPLES, line)

    def _append(self, name: str, line: dict[str, Any]) -> None:
        if not self._writes:
            return
        path = self.path / name
        try:
            append_line(path, json.dumps(line))
        except OSError as error:
            raise UserError(
                f"{path} could not be written: {error.strerror or error}. Make room and continue with "
                "--resume_from_checkpoint latest"
            ) from error

    def metrics(self) -> str:
        """Return the lines of metrics.jsonl, without one that a kill left unfinished."""
        path = self.path / METRICS
        if not self._main or not path.exists():
            return ""
        text = path.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1]

    def restore_metrics(self, text: str) -> None:
        """Take metrics.jsonl back to what it was at a checkpoint; `""` where a run starts anew."""
        path = self.path / METRICS
        if self._writes and (text or path.exists()):
            write_text(path, text)

    def restore_samples(self, done: int) -> None:
        """Take samples.jsonl back to what it was after so many steps; none where a run starts anew."""
        path = self.path / SAMPLES
        if not self._writes or not path.exists():
            return
        lines = [line for _, line in read_appended(path).records if line["step"] <= done]
        if lines:
            write_json_lines(path, lines, ascii_only=True)
        else:
            path.unlink()

    def write_run(self, record: dict[str, Any]) -> None:
        """Write run.json."""
        if self._writes:
            write_json(self.path / "run.json", record, ascii_only=True)

    def write_card(self, record: dict[str, Any], every_token_weighs_1: bool = False) -> None:
        """Write README.md, the model card, from the record of run.json; as `model_card`."""
        if self._writes:
            write_text(self.path / "README.md", model_card(record, self.path, every_token_weighs_1))

    def write_stop(self, record: dict[str, Any], signal: str | None, done: int) -> None:
        """Say in run.json and the log that a signal ended the run after `done` steps, and how to go on."""
        self.write_run({**record, "stopped": {"signal": signal, "step": done}})
        logger.info(
            "stopped by %s after %d of %d steps; go on with --resume_from_checkpoint latest",
            signal,
            done,
            record["steps"],
        )

    def write_bad_rows(self, lines: Iterable[dict[str, Any]]) -> None:
        """Write bad_rows.jsonl, as `rows_left_out` gives it."""
        if self._writes:
            write_json_lines(self.path / "bad_rows.jsonl", lines, ascii_only=True)

    def begin(self, record: dict[str, Any], left_out: Iterable[dict[str, Any]], is_new: bool = False) -> None:
        """Write run.json and bad_rows.jsonl of a run that begins (`is_new`) or goes on, over what was there;
        what was measured of another model in this folder is moved aside."""
        if is_new and self._writes:
            self._set_measurements_aside(record)
        self.write_bad_rows(left_out)
        self.write_run(record)

    def _set_measurements_aside(self, record: dict[str, Any]) -> None:
        measured, before = self.path / EVALUATIONS, read_stamp(self.path / "run.json")
        # The same training makes the same model once more.
        if not measured.is_dir() or before is None or _training(before) == _training(record):
            return
        names = (self.path / f"{EVALUATIONS}-before-{number}" for number in count(1))
        aside = next(path for path in names if not path.exists())
        measured.rename(aside)
        logger.warning("%s is of the model that this run takes the place of; moved to %s", measured, aside)


def _training(record: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return what a run's model follows from, of run.json."""
    options, data = plain(record.get("options") or {}), record.get("data") or {}
    return {name: value for name, value in options.items() if name not in _NOT_OF_THE_MODEL}, data.get(
        "sha256"
    )


def existing_parent(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _why_not_made(path: Path) -> int | None:
    """Return the system's number for why a folder could not be made or written to; None where it could."""
    nearest = existing_parent(path)
    if not nearest.is_dir():
        return errno.EEXIST if nearest == path else errno.ENOTDIR
    return None if os.access(nearest, os.W_OK | os.X_OK) else errno.EACCES


def rows_left_out(
    file: ConversationFile,
    bad_rows: Iterable[BadRow],
    encoded: "EncodedData | None" = None,
    dropped: Mapping[int, str] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Return the lines of bad_rows.jsonl: every row left out, with its reason, in the order of the file.

    Args:
        file: what they are rows of. Where it is several files, each line names its own, and the row there.
        bad_rows: rows that could not be read or rendered.
        encoded: the other rows.
        dropped: index into `encoded` to the reason why a row has no loss.
    """
    lines: list[dict[str, Any]] = [
        {"row": bad.row, "line": bad.line, "id": bad.id, "reason": bad.reason, "detail": bad.detail}
        for bad in bad_rows
    ]
    if encoded is not None:
        lines += [
            {"row": int(encoded.rows[i]), "id": encoded.row_ids[i], "reason": reason}
            for i, reason in dropped.items()
        ]
    lines.sort(key=lambda line: line["row"])
    if not file.members:
        return lines
    members = [file.member_of(line["row"]) for line in lines]
    return [
        {"file": str(member.path), **line, "row": line["row"] - member.first_row}
        for member, line in zip(members, lines, strict=True)
    ]


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of metrics.jsonl for trackers, which take no groups: `nll/assistant`."""
    flat: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{label}": number for label, number in scalars(value).items()})
        elif isinstance(value, int | float):
            flat[name] = value
    return flat
