"""Answers to AlpacaEval's instructions, read and put beside the reference's."""

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.answer_facts import FAILED_ANSWER
from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.rows.json_lines import read_records, snippet

logger = logging.getLogger(__name__)

SAMPLE_SEED = 42


@dataclass(frozen=True)
class Output:
    """One answer: the instruction, the part of the evaluation set it is from, who answered, and what."""

    instruction: str
    output: str
    generator: str
    dataset: str


@dataclass(frozen=True)
class OutputFile:
    """The answers of a file, in its order; `sha256` is the hex digest of its bytes."""

    path: Path
    sha256: str
    outputs: list[Output]


def read_outputs(path: Path, hint: str, null_is_empty: bool = False) -> OutputFile:
    """Return the answers of a file in the package's format.

    It is a JSON list, or a line each, of objects with `instruction` and `output`. An `input` is joined to its
    instruction by an empty line, as AlpacaEval's own instructions were made. Answers that name no `generator`
    are called as the file is. With `null_is_empty`, an `output` of null, an answer that was not given, is
    read as "".

    Raises:
        UserError: it cannot be read (then followed by `hint`), or an entry is no answer or occurs twice.
    """
    records = read_records(path, hint)
    outputs: list[Output] = []
    where_of: dict[str, str] = {}
    joined = 0
    for where, record in records:
        if null_is_empty and record.get("output", "") is None:
            record["output"] = ""
        output = _output(record, where, path.stem)
        joined += output.instruction != record["instruction"]
        if output.instruction in where_of:
            raise UserError(
                f"{where}: answers the same instruction as {where_of[output.instruction]}: "
                f"{snippet(output.instruction)}; remove one of them"
            )
        where_of[output.instruction] = where
        outputs.append(output)
    if not outputs:
        raise UserError(f"{path}: holds no answers. {hint}")
    if joined:
        logger.info('%s: the "input" of %d entries is joined to their instruction', path, joined)
    generators = Counter(output.generator for output in outputs)
    if len(generators) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in generators.most_common(5))
        logger.warning(
            "%s: holds answers of %d generators (%s%s), which are judged as one model's",
            path,
            len(generators),
            shown,
            ", ..." if len(generators) > 5 else "",
        )
    return OutputFile(path, file_sha256(path), outputs)


def _output(record: dict[str, Any], where: str, generator: str) -> Output:
    for name in ("instruction", "output"):
        if not isinstance(record.get(name), str):
            raise UserError(f'{where}: "{name}" is {snippet(record.get(name))}; it must be a string')
    given = record.get("input") or ""
    if not isinstance(given, str):
        raise UserError(f'{where}: "input" is {snippet(given)}; it must be a string')
    instruction = record["instruction"]
    if given.strip() and not instruction.endswith(given):
        instruction = f"{instruction}\n\n{given}"
    return Output(
        instruction,
        record["output"],
        str(record.get("generator") or generator),
        str(record.get("dataset") or ""),
    )


@dataclass(frozen=True)
class Pair:
    """The reference's answer and the model's to one instruction; `item` is the instruction's number in the
    reference's file, from 0."""

    item: int
    instruction: str
    dataset: str
    output_1: str
    generator_1: str
    output_2: str
    generator_2: str


def sample(reference: OutputFile, count: int | None) -> list[Output]:
    """Return a fixed random sample of the reference's answers, in their order; all of them for None."""
    if count is None or count >= len(reference.outputs):
        return reference.outputs
    kept = sorted(random.Random(SAMPLE_SEED).sample(range(len(reference.outputs)), count))
    return [reference.outputs[index] for index in kept]


def pair_up(
    reference: OutputFile,
    asked: Sequence[Output],
    model: Sequence[Output],
    source: str,
    allow_missing: bool = False,
) -> list[Pair]:
    """Return the answers of a model beside the reference's, in the reference's order.

    Args:
        reference: the other model's answers.
        asked: those of them whose instructions count.
        model: the model's.
        source: where the model's come from, for messages.
        allow_missing: whether instructions without an answer are left out instead of refused.

    Raises:
        UserError: answers are missing, or answer no instruction of the reference.
    """
    answers = {output.instruction: output for output in model}
    item_of = {output.instruction: item for item, output in enumerate(reference.outputs)}
    strange = [output.instruction for output in model if output.instruction not in item_of]
    if strange:
        raise UserError(
            f"{source}: {len(strange)} answers are to no instruction of {reference.path}, the first to "
            f"{snippet(strange[0])}; are these the answers to another set of instructions?"
        )
    missing = [output.instruction for output in asked if output.instruction not in answers]
    if missing and not (allow_missing and len(missing) < len(asked)):
        raise UserError(
            f"{source}: no answer to {len(missing)} of the {len(asked)} instructions of {reference.path}, "
            f"the first {snippet(missing[0])}; add them, or leave those instructions out with "
            "--allow_missing_outputs"
        )
    return [
        Pair(
            item_of[other.instruction],
            other.instruction,
            other.dataset,
            other.output,
            other.generator,
            answers[other.instruction].output,
            answers[other.instruction].generator,
        )
        for other in asked
        if other.instruction in answers
    ]


def unanswered_items(pairs: Sequence[Pair], unanswered: Mapping[str, str]) -> dict[int, str]:
    """Return the items of pairs of which one answer is none, and what it is.

    Args:
        pairs: answers beside the reference's.
        unanswered: the instructions that the model did not answer, and what is there instead.
    """
    items = {
        pair.item: f"the reference's answer is {FAILED_ANSWER}"
        for pair in pairs
        if pair.output_1.strip() == FAILED_ANSWER
    }
    return items | {
        pair.item: unanswered[pair.instruction] for pair in pairs if pair.instruction in unanswered
    }
