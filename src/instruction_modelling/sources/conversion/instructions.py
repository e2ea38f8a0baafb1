"""Formats of one instruction and one output a row: a function for each, from a row of the source to rows of
chat.

Each takes (row, settings) and gives `Chat`, `RowRefused` or `LeftOut` values; a row of one chat that cannot
be used may be raised as `RowRefused`. White space around instruction, input and output goes; an empty output
stays."""

from collections.abc import Iterable, Iterator
from typing import Any

from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.json_lines import snippet
from instruction_modelling.sources.conversion.settings import (
    Chat,
    Draft,
    LeftOut,
    Settings,
    exchange,
    fields,
    items,
    optional_text,
    text,
)


def stanford_alpaca(row: Any, settings: Settings) -> Iterable[Draft]:
    """Stanford Alpaca: `instruction`, `input`, `output`."""
    row = fields(row)
    return (settings.chat(text(row, "instruction"), optional_text(row, "input"), text(row, "output")),)


def code_alpaca(row: Any, settings: Settings) -> Iterable[Draft]:
    """Code Alpaca: as Stanford Alpaca."""
    return stanford_alpaca(row, settings)


def gpt4_alpaca(row: Any, settings: Settings) -> Iterable[Draft]:
    """GPT-4 Alpaca: as Stanford Alpaca."""
    return stanford_alpaca(row, settings)


def alpagasus(row: Any, settings: Settings) -> Iterable[Draft]:
    """AlpaGasus: as Stanford Alpaca, for its selections from Alpaca and from Dolly."""
    return stanford_alpaca(row, settings)


def dolly(row: Any, settings: Settings) -> Iterable[Draft]:
    """Dolly: `instruction`, `context`, `response`."""
    row = fields(row)
    return (settings.chat(text(row, "instruction"), optional_text(row, "context"), text(row, "response")),)


def self_instruct(row: Any, settings: Settings) -> Iterator[Draft]:
    """Self-Instruct: `instruction`, `input`, `output`, or a seed task whose `instances` hold the last two."""
    row = fields(row)
    if "instances" not in row:
        yield from stanford_alpaca(row, settings)
        return
    instruction = text(row, "instruction")
    for instance in items(row, "instances"):
        try:
            instance = fields(instance)
            yield settings.chat(instruction, optional_text(instance, "input"), text(instance, "output"))
        except RowRefused as refused:
            yield refused


def unnatural_instructions(row: Any, settings: Settings) -> Iterator[Draft]:
    """Unnatural Instructions: `instruction` and `instances` of `input`, `constraints`, `output`.

    Constraints follow the instruction on a line of their own, unless they say "None".
    """
    row = fields(row)
    instruction = text(row, "instruction")
    for instance in items(row, "instances"):
        try:
            instance = fields(instance)
            constraints = optional_text(instance, "constraints")
            bound = instruction
            if constraints.strip() and constraints.strip().lower() not in ("none", "none."):
                bound = f"{instruction}\n{constraints}"
            yield settings.chat(bound, optional_text(instance, "input"), text(instance, "output"))
        except RowRefused as refused:
            yield refused


def flan_v2(row: Any, settings: Settings) -> Iterable[Draft]:
    """Flan v2: `inputs`, `targets`, both as they are; a prompt that ends in neither a line break nor a colon
    gets a line break."""
    row = fields(row)
    prompt = text(row, "inputs")
    if not prompt.strip():
        raise RowRefused("no instruction", "inputs is empty")
    if not prompt.endswith("\n") and not prompt.rstrip().endswith(":"):
        prompt += "\n"
    return (exchange(prompt, text(row, "targets")),)


def cot(row: Any, settings: Settings) -> Iterable[Draft]:
    """Chain of thought: Flan v2's rows, or FLAN's three columns (question, answer, rationale; `\\n` for a
    line break).

    Of the columns, the response is the rationale and, on its last line, the answer.
    """
    if not isinstance(row, list):
        return flan_v2(row, settings)
    if len(row) != 3:
        raise RowRefused(
            "not three columns",
            f"the line has {len(row)} columns, {snippet(row)}; they must be question, "
            "answer and rationale, with tabs between them",
        )
    question, answer, rationale = (column.replace("\\n", "\n").strip() for column in row)
    if not answer or not rationale:
        missing = "rationale" if answer else "answer"
        raise RowRefused(f"no {missing}", f"the {missing} of {snippet(question)} is empty")
    return flan_v2({"inputs": question, "targets": f"{rationale}\n{answer}"}, settings)


def science(row: Any, settings: Settings) -> Iterable[Draft]:
    """Science: `input`, `output`, and in `dataset` the task, which becomes `science.TASK`."""
    row = fields(row)
    user = text(row, "input")
    if not user.strip():
        raise RowRefused("no instruction", "input is empty")
    return (exchange(user, text(row, "output"))._replace(dataset=f"science.{text(row, 'dataset')}"),)


def hard_coded(row: Any, settings: Settings) -> Iterable[Draft]:
    """Hard-coded answers: the sheet's columns `Prompt` and `Output`, or `instruction`, `input` and
    `output`."""
    row = fields(row)
    if "instruction" in row:
        return stanford_alpaca(row, settings)
    prompt = text(row, "Prompt")
    if not prompt.strip():
        raise RowRefused("no instruction", "Prompt is empty")
    return (exchange(prompt, text(row, "Output")),)


def super_ni(task: Any, settings: Settings) -> Iterator[Draft]:
    """Super-NaturalInstructions: one task, with its `Definition`, `Positive Examples` and `Instances`.

    Of more instances than `zero_shot` + `few_shot`, so many are drawn. The first ones stand alone; the others
    come after the definition and up to `examples` of the positive examples, drawn for each."""
    task = fields(task)
    definition = _first_text(task, "Definition")
    instances = items(task, "Instances")
    wanted = settings.zero_shot + settings.few_shot
    if wanted < len(instances):
        yield LeftOut("not drawn", len(instances) - wanted)
        instances = settings.rng.sample(instances, k=wanted)
    solved = [example for example in task.get("Positive Examples") or [] if isinstance(example, dict)]
    for place, instance in enumerate(instances):
        try:
            instance = fields(instance)
            question, output = text(instance, "input"), _first_text(instance, "output")
            if place < settings.zero_shot:
                yield settings.chat(definition, question, output)
                continue
            shown = (
                settings.rng.sample(solved, k=settings.examples)
                if settings.examples < len(solved)
                else solved
            )
            yield _few_shot(definition, shown, question, output)
        except RowRefused as refused:
            yield refused


def _few_shot(definition: str, solved: list[dict[str, Any]], question: str, output: str) -> Chat:
    parts = [definition.strip()]
    parts += [
        f"Input:\n{text(e, 'input').strip()}\nOutput:\n{_first_text(e, 'output').strip()}" for e in solved
    ]
    parts.append(f"Input:\n{question.strip()}\nOutput:\n")
    return exchange("\n\n".join(parts), output.strip())


def _first_text(row: dict[str, Any], name: str) -> str:
    """A field that is a list of strings in most files and one string in others: the string, or the first."""
    value = row.get(name)
    return text({name: value[0]} if isinstance(value, list) and value else row, name)
