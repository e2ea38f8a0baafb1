"""Templates, the words put around an instruction: none (the default), or drawn for each row from a file of
templates.

Words of a template are part of the user's message, so a loss over instructions trains them and a loss over
responses does not. The plain form adds no word: the instruction, an empty line, the input.

A templates file is one JSON object with two lists, for rows with an input and for those without:

    {"with_input": [{"prompt": "{instruction}\\n\\n{input}", "completion": "{output}", "weight": 2}, ...],
     "without_input": [{"prompt": "Task: {instruction}"}, ...]}

`completion` is `{output}` and `weight` 1 where they are left out; a template is drawn with chance weight /
sum."""

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from instruction_modelling.errors import UserError

_FIELD = re.compile(r"\{(instruction|input|output)\}")


@dataclass(frozen=True)
class PromptTemplate:
    """One wrapper: `prompt` with `{instruction}` (and `{input}`), `completion` with `{output}`."""

    prompt: str
    completion: str = "{output}"
    weight: float = 1.0

    def fill(self, instruction: str, context: str, output: str) -> tuple[str, str]:
        """Return (user's text, assistant's text); braces in the texts themselves stay as they are."""
        texts = {"instruction": instruction, "input": context, "output": output}
        return (
            _FIELD.sub(lambda field: texts[field[1]], self.prompt),
            _FIELD.sub(lambda field: texts[field[1]], self.completion),
        )


class PromptTemplates:
    """Templates for rows with an input and for those without.

    Args:
        source: the file they come from, as given.
        sha256: the hex digest of that file.
    """

    def __init__(
        self,
        with_input: Sequence[PromptTemplate],
        without_input: Sequence[PromptTemplate],
        source: str = "given in memory",
        sha256: str | None = None,
    ):
        self.source, self.sha256 = source, sha256
        self._choices = {True: tuple(with_input), False: tuple(without_input)}
        self._chances = {
            has: list(accumulate(t.weight for t in templates)) for has, templates in self._choices.items()
        }

    def draw(self, rng: random.Random, has_input: bool) -> PromptTemplate:
        """Draw one template, with exactly one number from `rng`."""
        return rng.choices(self._choices[has_input], cum_weights=self._chances[has_input])[0]


def plain_prompt(instruction: str, context: str) -> str:
    """Return the user's text without a template: the parts that are not empty, an empty line between them."""
    return f"{instruction}\n\n{context}" if instruction and context else instruction or context


def load_templates(path: Path) -> PromptTemplates:
    """Read the templates of a file.

    Raises:
        UserError: the file cannot be read, or a template lacks a field or a proper weight.
    """
    try:
        raw = path.read_bytes()
        lists = json.loads(raw.decode("utf-8"))
        with_input, without_input = (
            _templates(lists[key], key, path) for key in ("with_input", "without_input")
        )
        return PromptTemplates(with_input, without_input, str(path), hashlib.sha256(raw).hexdigest())
    except OSError as error:
        raise UserError(f"--templates {path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--templates {path}: is not an object with the lists with_input and without_input ({error})"
        ) from None


def _templates(entries: list[dict], key: str, path: Path) -> list[PromptTemplate]:
    templates = [PromptTemplate(**entry) for entry in entries]
    needed = ["input", "instruction"] if key == "with_input" else ["instruction"]
    for number, template in enumerate(templates, start=1):
        if sorted(_FIELD.findall(template.prompt)) != needed or _FIELD.findall(template.completion) != [
            "output"
        ]:
            raise UserError(
                f"--templates {path}: {key}, template {number}: the prompt needs "
                f"{' and '.join(f'{{{name}}}' for name in needed)}, the completion {{output}}, once"
            )
        if not (isinstance(template.weight, int | float) and 0 < template.weight < float("inf")):
            raise UserError(
                f"--templates {path}: {key}, template {number}: weight {template.weight!r} is not above 0"
            )
    if not templates:
        raise UserError(f"--templates {path}: {key} is empty; it needs one template at least")
    return templates
