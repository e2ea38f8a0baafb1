"""Formats of one instruction and one output a row: a function for each, from a row of the source to rows of
chat.

Each takes (row, conversion) and returns `Chat`, `RowRefused` or `LeftOut` values; a row of one chat that
cannot be used may be raised as `RowRefused`. White space around instruction, input and output goes; an empty
output stays."""

from collections.abc import Iterable, Iterator
from typing import Any

from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.json_lines import snippet
from instruction_modelling.sources.conversion.drafts import Chat, Draft, LeftOut, exchange
from instruction_modelling.sources.conversion.fields import as_object, list_field, optional_text, text_field
from instruction_modelling.sources.conversion.options import Conversion

# Super-NaturalInstructions: instances of a task that stand alone, those that follow solved examples, and how
# many examples.
_ZERO_SHOT, _FEW_SHOT, _EXAMPLES = 60, 20, 2


def stanford_alpaca(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert Stanford Alpaca: `instruction`, `input`, `output`."""
    row = as_object(row)
    return (
        conversion.chat(
            text_field(row, "instruction"), optional_text(row, "input"), text_field(row, "output")
        ),
    )


def code_alpaca(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert Code Alpaca: as Stanford Alpaca."""
    return stanford_alpaca(row, conversion)


def gpt4_alpaca(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert GPT-4 Alpaca: as Stanford Alpaca."""
    return stanford_alpaca(row, conversion)


def alpagasus(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert AlpaGasus: as Stanford Alpaca, for its selections from Alpaca and from Dolly."""
    return stanford_alpaca(row, conversion)


def dolly(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert Dolly: `instruction`, `context`, `response`."""
    row = as_object(row)
    return (
        conversion.chat(
            text_field(row, "instruction"), optional_text(row, "context"), text_field(row, "response")
        ),
    )


def self_instruct(row: Any, conversion: Conversion) -> Iterator[Draft]:
    """Convert Self-Instruct: `instruction`, `input`, `output`, or a seed task whose `instances` hold the last
    two."""
    row = as_object(row)
    if "instances" not in row:
        yield from stanford_alpaca(row, conversion)
        return
    instruction = text_field(row, "instruction")
    for instance in list_field(row, "instances"):
        try:
            instance = as_object(instance)
            yield conversion.chat(
                instruction, optional_text(instance, "input"), text_field(instance, "output")
            )
        except RowRefused as refused:
            yield refused


def unnatural_instructions(row: Any, conversion: Conversion) -> Iterator[Draft]:
    """Convert Unnatural Instructions: `instruction` and `instances` of `input`, `constraints`, `output`.

    Constraints follow the instruction on a line of their own, unless they say "None".
    """
    row = as_object(row)
    instruction = text_field(row, "instruction")
    for instance in list_field(row, "instances"):
        try:
            instance = as_object(instance)
            constraints = optional_text(instance, "constraints")
            whole = instruction
            if constraints.strip() and constraints.strip().lower() not in ("none", "none."):
                whole = f"{instruction}\n{constraints}"
            yield conversion.chat(whole, optional_text(instance, "input"), text_field(instance, "output"))
        except RowRefused as refused:
            yield refused


def flan_v2(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert Flan v2: `inputs`, `targets`, both as they are; a prompt that ends in neither a line break nor
    a colon gets a line break."""
    row = as_object(row)
    prompt = text_field(row, "inputs")
    if not prompt.strip():
        raise RowRefused("no instruction", "inputs is empty")
    if not prompt.endswith("\n") and not prompt.rstrip().endswith(":"):
        prompt += "\n"
    return (exchange(prompt, text_field(row, "targets")),)


def cot(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert chain of thought: Flan v2's rows, or FLAN's three columns (question, answer, rationale; `\\n`
    for a line break).

    Of the columns, the response is the rationale and, on its last line, the answer.
    """
    if not isinstance(row, list):
        return flan_v2(row, conversion)
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
    return flan_v2({"inputs": question, "targets": f"{rationale}\n{answer}"}, conversion)


def science(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert Science: `input`, `output`, and in `dataset` the task, which becomes `science.TASK`."""
    row = as_object(row)
    user = text_field(row, "input")
    if not user.strip():
        raise RowRefused("no instruction", "input is empty")
    return (
        exchange(user, text_field(row, "output"))._replace(dataset=f"science.{text_field(row, 'dataset')}"),
    )


def hard_coded(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert hard-coded answers: the sheet's columns `Prompt` and `Output`, or `instruction`, `input` and
    `output`."""
    row = as_object(row)
    if "instruction" in row:
        return stanford_alpaca(row, conversion)
    prompt = text_field(row, "Prompt")
    if not prompt.strip():
        raise RowRefused("no instruction", "Prompt is empty")
    return (exchange(prompt, text_field(row, "Output")),)


def super_ni(task: Any, conversion: Conversion) -> Iterator[Draft]:
    """Convert Super-NaturalInstructions: one task, with its `Definition`, `Positive Examples` and
    `Instances`.

    Of more instances than 80, so many are drawn. The first 60 stand alone; the others come after the
    definition and up to two of the positive examples, drawn for each: the numbers of the published script."""
    task = as_object(task)
    definition = _first_text(task, "Definition")
    instances = list_field(task, "Instances")
    most = _ZERO_SHOT + _FEW_SHOT
    if most < len(instances):
        yield LeftOut("not drawn", len(instances) - most)
        instances = conversion.rng.sample(instances, k=most)
    solved = [example for example in task.get("Positive Examples") or [] if isinstance(example, dict)]
    for number, instance in enumerate(instances):
        try:
            instance = as_object(instance)
            question, output = text_field(instance, "input"), _first_text(instance, "output")
            if number < _ZERO_SHOT:
                yield conversion.chat(definition, question, output)
                continue
            shown = conversion.rng.sample(solved, k=_EXAMPLES) if len(solved) > _EXAMPLES else solved
            yield _few_shot(definition, shown, question, output)
        except RowRefused as refused:
            yield refused


def _few_shot(definition: str, solved: list[dict[str, Any]], question: str, output: str) -> Chat:
    parts = [definition.strip()]
    parts += [
        f"Input:\n{text_field(e, 'input').strip()}\nOutput:\n{_first_text(e, 'output').strip()}"
        for e in solved
    ]
    parts.append(f"Input:\n{question.strip()}\nOutput:\n")
    return exchange("\n\n".join(parts), output.strip())


def _first_text(row: dict[str, Any], name: str) -> str:
    """Return a field that is a list of strings in most files and one string in others: the string, or the
    first."""
    value = row.get(name)
    return text_field({name: value[0]} if isinstance(value, list) and value else row, name)
