"""The file of a model's responses: written so that a stopped run can go on, and read for scoring.

`responses.jsonl` has a line per row of the evaluated file, in its order: {"row", "id", "prompt": rendered
text, "instruction": last user content, "response", "reference": str or null, "tokens": generated tokens with
the end token, "finished": true if an end token ended it}. While a run is under way, answers are in
`responses.part.jsonl` in the order they came, and `generation.json` beside it says which run they belong to.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.json_lines import BLANK, check_head, line_values, snippet

logger = logging.getLogger(__name__)

RESPONSES, PART, GENERATION = "responses.jsonl", "responses.part.jsonl", "generation.json"


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


# -- reading ----------------------------------------------------------------------------------------------


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
            for line, value in line_values(handle, digest):
                if value is BLANK:
                    continue
                try:
                    response = _response(value, len(responses))
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


def _response(value: Any, number: int) -> Response:
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
    row = given.get("row", number)
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


# -- writing ----------------------------------------------------------------------------------------------


def write_aside(path: Path, text: str) -> None:
    """Replaces the file whole, so that a reader finds the one before or this one, never half of it.

    Raises:
        UserError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.writing")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replaces the file by `value`, indented; raises `UserError` where it cannot be written."""
    write_aside(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def json_lines(records: Iterable[dict[str, Any]]) -> str:
    """A line of JSON per record."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


class ResponseWriter:
    """Collects a run's responses in a folder so that they survive a kill.

    Args:
        folder: the output folder.
        identity: what makes the run this run, JSON values by name; a folder that holds another run is
            refused.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self.folder, self.identity = folder, json.loads(json.dumps(identity))
        self._answers: dict[int, Response] = {}

    def open(self, rows: Collection[int], overwrite: bool = False) -> set[int]:
        """Makes the folder ready and gives the rows of `rows` that it already answers.

        Raises:
            UserError: the folder holds responses of another run (and not `overwrite`), or cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = [self.folder / name for name in (RESPONSES, PART) if (self.folder / name).exists()]
            if overwrite:
                for path in kept:
                    path.unlink()
            elif kept:
                self._check_same_run()
                for path in kept:
                    self._keep_whole_lines(path, rows)
        except OSError as error:
            raise UserError(f"{error.filename or self.folder}: {error.strerror or error}") from error
        # Before any answer, so that no answer is ever beside the description of another run.
        write_json(self.folder / GENERATION, {**self.identity, "complete": False})
        # Written anew, since a killed run may have left half a line at its end.
        write_aside(self.folder / PART, json_lines(asdict(answer) for answer in self._answers.values()))
        return set(self._answers)

    def _check_same_run(self) -> None:
        try:
            before = json.loads((self.folder / GENERATION).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict):
            raise UserError(
                f"{self.folder} holds responses but no readable {GENERATION} that says how they were made; "
                "choose another --output_dir, or replace them with --overwrite_output"
            )
        differing = [
            f"  - {name}: {snippet(before.get(name))} then, {snippet(value)} now"
            for name, value in self.identity.items()
            if before.get(name) != value
        ]
        if differing:
            raise UserError(
                f"{self.folder} holds the responses of another run:\n"
                + "\n".join(differing)
                + "\nChoose another --output_dir, or replace them with --overwrite_output"
            )

    def _keep_whole_lines(self, path: Path, rows: Collection[int]) -> None:
        broken = 0
        for raw in path.read_bytes().split(b"\n"):
            if not raw.strip():
                continue
            try:
                answer = Response(**json.loads(raw))
            except (ValueError, TypeError):
                broken += 1
                continue
            if answer.row in rows:
                self._answers[answer.row] = answer
        if broken:
            logger.warning(
                "%s: %d broken line%s left out; the row%s will be answered again",
                path,
                broken,
                "s" * (broken > 1),
                "s" * (broken > 1),
            )

    def append(self, answers: Iterable[Response]) -> None:
        """Adds answers to the file on disk.

        Raises:
            UserError: they cannot be written.
        """
        batch = list(answers)
        try:
            with (self.folder / PART).open("a", encoding="utf-8") as handle:
                handle.write(json_lines(asdict(answer) for answer in batch))
        except OSError as error:
            raise UserError(
                f"{self.folder / PART}: cannot be written: {error.strerror or error}; the answers before "
                "are kept, so make room and run the same command again"
            ) from error
        self._answers.update({answer.row: answer for answer in batch})

    def finish(self, facts: dict[str, Any]) -> list[Response]:
        """Writes the responses in row order, and `generation.json` with `facts`; gives the responses."""
        ordered = [self._answers[row] for row in sorted(self._answers)]
        write_aside(self.folder / RESPONSES, json_lines(asdict(answer) for answer in ordered))
        write_json(self.folder / GENERATION, {**self.identity, **facts, "complete": True})
        (self.folder / PART).unlink(missing_ok=True)
        return ordered
