"""The arms by name, read from arms.toml beside this file and from a file of the user's own."""

import contextlib
import io
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.arms.rules import RULES, ArmRules, read_rules, unknown
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions

SHIPPED = Path(__file__).with_name("arms.toml")
KEYS = ("about", "flags", *RULES)
# What a comparison gives to all of its arms alike, to each run a value of its own, or to none.
RESERVED = (
    "config",
    "dry_run",
    "push_to_hub",
    "hub_public",
    "model_name_or_path",
    "tokenizer_name",
    "config_name",
    "train_file",
    "dataset_name",
    "dataset_config_name",
    "columns",
    "eval_file",
    "task_score",
    "seed",
    "output_dir",
    "overwrite_output",
    "resume_from_checkpoint",
)
# What a comparison calls models that are no arm of a file.
TAKEN = ("base", "untuned", "tuned-IT", "tuned-IM")
# An arm's name is part of its folders' names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+=_-]*")


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    flags: tuple[str, ...]
    """Of src/finetune.py, beside those that all arms share."""
    about: str
    rules: ArmRules = field(default_factory=ArmRules)
    """What it has beside flags."""

    def options(self) -> FinetuneOptions:
        """Return its flags as src/finetune.py reads them, for a model and data that are not said.

        Raises:
            UserError: a flag is unknown or lacks its value, or the flags do not fit together.
        """
        needed = ["--model_name_or_path", "MODEL", "--train_file", "ROWS", "--output_dir", "OUT"]
        # What an arm chooses its weights by, if it does, is the comparison's to give.
        needed += ["--eval_file", "HELD"]
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                # Its own first: --eval_file takes several words, and would take a stray one of theirs.
                return parse_options(FinetuneOptions, [*self.flags, *needed])
        except SystemExit:
            # argparse has printed its usage, and then what is wrong.
            raise UserError(said.getvalue().strip().rpartition("error: ")[2]) from None


def read_arms(file: str | Path | None = None) -> dict[str, Arm]:
    """Return the shipped arms by name, and after them those of a file.

    Raises:
        UserError: the file cannot be read, or one of its arms is not well formed, has a name that is taken,
            sets what is not an arm's to set, or has flags that src/finetune.py refuses.
    """
    arms = {arm.name: arm for arm in _arms_of(SHIPPED)}
    for arm in _arms_of(Path(file)) if file is not None else ():
        # The shipped ones hold by a test.
        try:
            arm.options()
        except UserError as error:
            raise UserError(f"{file}: [{arm.name}]: {error}") from None
        if arm.name in arms:
            raise UserError(
                f"{file}: [{arm.name}] is the name of an arm that is there already; choose another"
            )
        arms[arm.name] = arm
    for arm in arms.values():
        _check_stop(arm, arms, file)
    return arms


def _check_stop(arm: Arm, arms: Mapping[str, Arm], file: str | Path | None) -> None:
    stop = arm.rules.stop_at
    if stop is None:
        return
    problem = None
    if stop.of not in arms:
        problem = f"of = {stop.of!r}: {unknown(stop.of, arms)}"
    elif stop.of == arm.name or arms[stop.of].rules.stop_at is not None:
        problem = f"of = {stop.of!r}: an arm that has an end of its own is needed"
    elif arm.options().max_train_steps is not None:
        problem = "--max_train_steps among the flags is what it sets; leave one out"
    if problem:
        raise UserError(f"{file}: [{arm.name}]: stop_at: {problem}")


def known_arms(names: Iterable[str], file: str | None, has_evaluation: bool = False) -> list[str]:
    """Return, in words, which names are no arm, or why the file of arms cannot be read, and which arms choose
    their weights by --eval_file where there is none."""
    try:
        arms = read_arms(file)
    except UserError as error:
        return [f"--arms_file {error}"]
    return [f"--arms {name}: {unknown(name, arms)}" for name in names if name not in arms] + [
        f"--arms {name}: chooses its weights by the loss on other rows, for which src/compare.py has "
        "--eval_file"
        for name in names
        if name in arms and not has_evaluation and arms[name].options().uses_best()
    ]


def not_honoured(names: Iterable[str], file: str | None, of_rows: str) -> list[str]:
    """Return, in words, which arms among those that are known have rules, which a script cannot honour, why,
    and what can.

    Args:
        of_rows: why it cannot give an arm rows of its own.
    """
    reasons = dict.fromkeys(RULES, of_rows)
    reasons["stop_at"] = "its steps follow from runs of another arm, which are to be measured first"
    try:
        arms = read_arms(file)
    except UserError:
        return []
    return [
        f"--arms {name}: has {kind}: {why}; src/try_im.py DATA {_arguments_of(arms[name], file)} runs it"
        for name in names
        for kind, why in reasons.items()
        if name in arms and getattr(arms[name].rules, kind) is not None
    ]


def _arguments_of(arm: Arm, file: str | None) -> str:
    """Return the arguments of src/try_im.py that run an arm, after those that it needs before it."""
    stop = arm.rules.stop_at
    names = dict.fromkeys(["IT", "IM", *([stop.of] if stop else []), arm.name])
    return f"--arms {' '.join(names)}" + (f" --arms_file {file}" if file else "")


def _arms_of(path: Path) -> Iterable[Arm]:
    try:
        text = path.read_text(encoding="utf-8")
        entries = tomllib.loads(text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: no TOML file: {error}") from None
    for name, entry in entries.items():
        try:
            yield _arm(name, entry)
        except UserError as error:
            raise UserError(f"{path}: [{name}]: {error}") from None


def _arm(name: str, entry: Any) -> Arm:
    if not _NAME.fullmatch(name):
        raise UserError("a name has letters, digits and . + = _ - only, since folders are called by it")
    if name in TAKEN:
        raise UserError("is what another model is called in answers and reports; choose another name")
    if not isinstance(entry, Mapping):
        raise UserError('an arm is a table, such as [my-arm] and under it flags = ["--use_lm_loss"]')
    if strange := sorted(set(entry) - set(KEYS)):
        if isinstance(entry[strange[0]], Mapping) and "flags" in entry[strange[0]]:
            raise UserError(f'a name with a dot stands in quotes: ["{name}.{strange[0]}"]')
        raise UserError(f"{strange[0]}: {unknown(strange[0], KEYS)}, which an arm may have")
    flags, about = entry.get("flags"), entry.get("about", "")
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise UserError('flags is a list of words in quotes, such as ["--neftune_alpha", "5"]')
    if not isinstance(about, str):
        raise UserError("about is a text")
    for flag in RESERVED:
        if any(word == f"--{flag}" or word.startswith(f"--{flag}=") for word in flags):
            raise UserError(f"--{flag} is not an arm's to set: all arms have the same, or each run its own")
    return Arm(name, tuple(flags), about, read_rules(entry))
