"""The file of a model's responses.

`responses.jsonl` has a line per row of the evaluated file, in its order: {"row", "id", "prompt": rendered
text, "instruction": last user content, "response", "reference": str or null, "tokens": generated tokens with
the end token, "finished": true if an end token ended it}."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.json_lines import BLANK, check_head, snippet, stream_values

RESPONSES = "responses.jsonl"


@dataclass(frozen=True)
class Response:
    """One row's response; `tokens` and `finished` are None where the file does not say."""

    row: int
    id: str
    prompt: str
    instruction: str
    response: str
    reference: str | None
    tokens: int | None = None
    finished: bool | None = None


@dataclass(frozen=True)
class ResponseFile:
    """The responses of a file, in its order; `sha256` is the hex digest of its bytes."""

    path: Path
    sha256: str
    responses: list[Response]


def read_responses(path: str | Path) -> ResponseFile:
    """Read a file of responses; only `response` must be in a line, `row` counts from 0 where it is absent.

    Raises:
        UserError: the file cannot be read, is empty, a row occurs twice, or a line is not a response (with
            file:line).
    """
    path = Path(path)
    digest = hashlib.sha256()
    responses: list[Response] = []
    line_of_row: dict[int, int] = {}
    try:
        with path.open("rb") as handle:
            head = handle.peek(1024)[:1024]
            if head:
                check_head(head, path)
            for line, value in stream_values(handle, path, head, digest):
                if value is BLANK:
                    continue
                try:
                    response = response_from(value, len(responses))
                except RowRefused as refused:
                    raise UserError(f"{path}:{line}: {refused.reason}: {refused.detail}") from None
                if response.row in line_of_row:
                    raise UserError(
                        f"{path}:{line}: row {response.row} was on line {line_of_row[response.row]} "
                        "already and would count twice; remove one of them"
                    )
                line_of_row[response.row] = line
                responses.append(response)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror or error}; name the responses.jsonl that "
            "src/generate.py wrote"
        ) from None
    if not responses:
        raise UserError(f"{path}: holds no responses")
    return ResponseFile(path, digest.hexdigest(), responses)


_FIELDS: dict[str, tuple[type, ...]] = {
    "row": (int,),
    "id": (str, int),
    "prompt": (str,),
    "instruction": (str,),
    "response": (str,),
    "reference": (str,),
    "tokens": (int,),
    "finished": (bool,),
}


def response_from(value: Any, row: int) -> Response:
    """Return the response that a JSON value holds; `row` is its row's number where it names none.

    Raises:
        RowRefused: it is no object, has no "response", or a field is of another type.
    """
    if isinstance(value, RowRefused):
        raise value
    if not isinstance(value, dict):
        raise RowRefused(
            "not a response", f'the line is {snippet(value)}; it must be an object with "response"'
        )
    given = {name: value[name] for name in _FIELDS if value.get(name) is not None}
    for name, content in given.items():
        # In Python a bool is an int; in the file it is not a count.
        if not isinstance(content, _FIELDS[name]) or (
            isinstance(content, bool) and bool not in _FIELDS[name]
        ):
            expected = " or ".join(kind.__name__ for kind in _FIELDS[name])
            raise RowRefused(
                "not a response", f'"{name}" is {snippet(content)}; it must be of type {expected}'
            )
    if "response" not in given:
        raise RowRefused(
            "no response",
            f'it has the keys {", ".join(map(str, value)) or "(none)"}; "response" must be a string',
        )
    row = given.get("row", row)
    return Response(
        row=row,
        id=str(given.get("id", row)),
        prompt=given.get("prompt", ""),
        instruction=given.get("instruction", ""),
        response=given["response"],
        reference=given.get("reference"),
        tokens=given.get("tokens"),
        finished=given.get("finished"),
    )
