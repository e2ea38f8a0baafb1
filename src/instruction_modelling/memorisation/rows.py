"""The rows of one seed: training rows some of whose instructions begin with a canary, and rows kept out."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json, write_json_lines
from instruction_modelling.memorisation.canaries import FORM, Canary, draw_canaries, draw_candidates
from instruction_modelling.memorisation.options import MemorisationOptions
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import Conversation, check_bad_rows, read_conversations
from instruction_modelling.rows.json_lines import read_appended

TRAIN, UNSEEN, CANARIES = "train.jsonl", "unseen.jsonl", "canaries.json"
# An instruction of fewer words has no half to be completed from.
LEAST_WORDS = 8


@dataclass(frozen=True)
class Pool:
    """The rows of a file that can be drawn: instruction and response, with a system message where there is
    one. `left_out` counts the others by reason."""

    rows: list[list[dict[str, str]]]
    left_out: dict[str, int]

    def lines(self) -> list[str]:
        """Return, for each reason, how many rows were left out."""
        return [
            f"{counted(count, 'row')} left out: {reason}" for reason, count in self.left_out.items() if count
        ]


def read_pool(options: MemorisationOptions) -> Pool:
    """Return the rows that can be drawn; of several with one instruction, the first.

    Raises:
        UserError: the file cannot be read, has unusable rows, or too few that can be drawn.
    """
    file = read_conversations(options.train_file)
    check_bad_rows(file, 0)
    shape, long, twice = (
        "not one instruction with one response, in a chat without tools",
        f"more than {options.max_characters} characters (--max_characters)",
        "the same instruction as a row before",
    )
    left_out = dict.fromkeys((shape, long, twice), 0)
    rows, seen = [], set()
    for conversation in file.conversations:
        instruction = _instruction_of(conversation)
        if instruction is None:
            left_out[shape] += 1
        elif sum(len(message.content) for message in conversation.messages) > options.max_characters:
            left_out[long] += 1
        elif (key := " ".join(instruction.lower().split())) in seen:
            left_out[twice] += 1
        else:
            seen.add(key)
            rows.append([{"role": m.role, "content": m.content} for m in conversation.messages])
    needed = options.rows + options.unseen
    if len(rows) < needed:
        counts = "; ".join(Pool(rows, left_out).lines()) or "none left out"
        raise UserError(
            f"{options.train_file}: {len(rows)} rows can be drawn and {needed} are needed (--rows "
            f"{options.rows}, --unseen {options.unseen}); {counts}"
        )
    return Pool(rows, left_out)


def _instruction_of(conversation: Conversation) -> str | None:
    roles = [message.role for message in conversation.messages]
    if (
        conversation.plain
        or conversation.tools
        or roles not in (["user", "assistant"], ["system", "user", "assistant"])
    ):
        return None
    if any(message.tool_calls for message in conversation.messages):
        return None
    return conversation.messages[-2].content.strip() or None


def write_rows(options: MemorisationOptions, pool: Pool, seed: int, folder: Path) -> None:
    """Write a seed's training rows, rows kept out, and canaries; the same options write the same bytes."""
    canaries = draw_canaries(seed, options.canaries, options.repeats, options.secret_digits)
    candidates = draw_candidates(seed, options.candidates, canaries, options.secret_digits)
    generator = random.Random(f"rows {seed}")
    drawn = generator.sample(pool.rows, options.rows + options.unseen)
    train, unseen = drawn[: options.rows], drawn[options.rows :]
    places = iter(generator.sample(range(options.rows), options.canary_rows))
    records: list[dict[str, Any]] = [{"messages": messages} for messages in train]
    written = []
    for canary in canaries:
        rows = sorted(next(places) for _ in range(canary.repeats))
        for row in rows:
            records[row] = {"messages": with_canary(train[row], canary)}
        written.append({**asdict(canary), "text": canary.text, "rows": rows})
    write_json_lines(folder / TRAIN, records)
    write_json_lines(folder / UNSEEN, ({"messages": messages} for messages in unseen))
    about = {"form": FORM, "seed": seed, "digits": options.secret_digits}
    write_json(folder / CANARIES, {**about, "canaries": written, "candidates": candidates})


def with_canary(messages: Sequence[dict[str, str]], canary: Canary) -> list[dict[str, str]]:
    """Return a row's messages with the canary in front of the instruction."""
    return [
        {**message, "content": f"{canary.text} {message['content']}"}
        if message["role"] == "user"
        else message
        for message in messages
    ]


def instructions(path: Path, without: Sequence[str]) -> list[list[dict[str, str]]]:
    """Return the messages up to the instruction, of each row of a file whose instruction has at least eight
    words and begins with none of the texts `without`."""
    found = []
    for _, record in read_appended(path).records:
        asked = record["messages"][:-1]
        text = asked[-1]["content"]
        if len(text.split()) >= LEAST_WORDS and not text.startswith(tuple(without)):
            found.append(asked)
    return found
