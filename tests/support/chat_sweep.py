"""What becomes of every row of `todays_chats` by one template: trained right or wrong, or refused, and why.

The judge is `turn_oracle`, which knows `apply_chat_template` alone."""

import json
import time
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from long_chats import exchanges
from template_toys import toy_tokenizer
from todays_chats import ROWS, TOOLS, Row
from transformers import PreTrainedTokenizerBase
from turn_oracle import Oracle, Untold

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import RESPONSE_KINDS, SpanKind
from instruction_modelling.models.stop_tokens import stop_ids
from instruction_modelling.rows.conversations import (
    BadRow,
    Conversation,
    ConversationFile,
    read_conversations,
)
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy

RIGHT, WRONG = "right", "wrong"
RIGHTLY_REFUSED, WRONGLY_REFUSED = "rightly refused", "wrongly refused"
REFUSED_BY_TEMPLATE = "refused by the template"
VERDICTS = (RIGHT, RIGHTLY_REFUSED, REFUSED_BY_TEMPLATE, WRONG, WRONGLY_REFUSED)


@dataclass(frozen=True)
class Outcome:
    """What became of one row."""

    template: str
    chat: str
    family: str
    verdict: str
    """One of `VERDICTS`."""
    reason: str = ""
    """What is wrong, or why it is refused."""
    sequences: int = 0
    compared: int = 0
    """Turns held against the oracle."""
    untold: int = 0
    """Turns of which the oracle, which looks for words, cannot tell what they are."""


def long_row_seconds(template: str) -> tuple[float, int] | None:
    """The processor's time to encode a row of 200 messages with calls, and the number of its sequences; None
    where the template refuses it."""
    tokenizer = toy_tokenizer(template)
    encoder = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 1_000_000)
    messages = exchanges(50).messages
    (tried,) = encoder.encode([Conversation(0, 1, "short", "", messages[:8], tuple(TOOLS))])
    if isinstance(tried, BadRow):
        return None
    begin = time.process_time()
    (encoded,) = encoder.encode([Conversation(0, 1, "long", "", messages, tuple(TOOLS))])
    seconds = time.process_time() - begin
    return None if isinstance(encoded, BadRow) else (seconds, len(encoded.sequences))


class Wrong(Exception):
    """What is trained is not what the model has to write."""


def rows_file(folder: Path) -> ConversationFile:
    """The rows, read from a file as a user's are."""
    path = folder / "todays_chats.jsonl"
    lines = [json.dumps({**row.written, "id": name}) for name, row in ROWS.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_conversations(path)


def sweep_template(name: str, template: str, file: ConversationFile) -> list[Outcome]:
    """What becomes of each row of `rows_file` by a template."""
    tokenizer = toy_tokenizer(template)
    encoder = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 40_000)
    stops = stop_ids(tokenizer, encoder.chat_format.end_strings, None)
    assert not file.bad_rows
    return [
        _outcome(name, conversation.id, encoded, tokenizer, stops)
        for conversation, encoded in zip(file.conversations, encoder.encode(file.conversations), strict=True)
    ]


def _outcome(
    template: str,
    chat: str,
    encoded: EncodedRow | BadRow,
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
) -> Outcome:
    row = ROWS[chat]
    oracle = Oracle(tokenizer, deepcopy(row.messages), deepcopy(row.tools), row.variables)
    if oracle.render(oracle.messages) is None:
        verdict = REFUSED_BY_TEMPLATE if isinstance(encoded, BadRow) else WRONG
        return Outcome(template, chat, row.family, verdict, "the template refuses it")
    lost = oracle.lost()
    if isinstance(encoded, BadRow):
        if lost:
            return Outcome(template, chat, row.family, RIGHTLY_REFUSED, f"the template drops {lost}")
        return Outcome(template, chat, row.family, WRONGLY_REFUSED, f"{encoded.reason}: {encoded.detail}")
    try:
        if lost:
            raise Wrong(f"the template drops {lost}, and the row is trained all the same")
        compared, untold = _compare(row, oracle, encoded, tokenizer, stops)
    except Wrong as wrong:
        return Outcome(template, chat, row.family, WRONG, str(wrong), len(encoded.sequences))
    return Outcome(template, chat, row.family, RIGHT, "", len(encoded.sequences), compared, untold)


def decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of ids, to the letter."""
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


@dataclass(frozen=True)
class _Trained:
    """What is trained of one message: its ids, what stands before them in the sequence, and their weights."""

    ids: list[int]
    before: str
    weights: set[float]


def _trained(row: Row, encoded: EncodedRow, tokenizer: PreTrainedTokenizerBase) -> dict[int, _Trained]:
    """What is trained of each assistant's message under IT; no message in two sequences."""
    found: dict[int, _Trained] = {}
    # Weights of 0 would hide which tokens are a message's: ids and kinds never depend on weights.
    own = [message.weight for message in encoded.conversation.messages]
    for sequence in encoded.sequences:
        factors = sequence.weights([1.0] * len(own), WeightPolicy())
        weights = sequence.weights(own, WeightPolicy())
        of_message: dict[int, list[int]] = defaultdict(list)
        for number, (factor, kind, message) in enumerate(
            zip(factors, sequence.kinds, sequence.messages, strict=True)
        ):
            if factor:
                if factor != 1 or kind not in RESPONSE_KINDS:
                    raise Wrong(f"message {message}: a token of kind {kind} weighs {factor}")
                of_message[int(message)].append(number)
        for message, numbers in of_message.items():
            if message in found:
                raise Wrong(f"message {message} is trained in two sequences")
            if numbers != list(range(numbers[0], numbers[-1] + 1)):
                raise Wrong(f"message {message}: what is trained is not in one piece")
            ids = sequence.tokens.ids.tolist()
            found[message] = _Trained(
                [ids[number] for number in numbers],
                decoded(tokenizer, ids[: numbers[0]]),
                {float(weights[number]) for number in numbers},
            )
    return found


def _compare(
    row: Row, oracle: Oracle, encoded: EncodedRow, tokenizer: PreTrainedTokenizerBase, stops: list[int]
) -> tuple[int, int]:
    """Hold a row against the oracle: return the turns compared, and those that it cannot tell."""
    trained = _trained(row, encoded, tokenizer)
    _check_user_ends(oracle, encoded, tokenizer)
    if not trained.keys() <= set(oracle.answers):
        raise Wrong(f"messages {sorted(trained.keys() - set(oracle.answers))} of other roles are trained")
    compared = untold = 0
    for index in oracle.answers:
        found = trained.get(index, _Trained([], "", set()))
        text = decoded(tokenizer, found.ids)
        if found.ids and found.weights != {row.weights.get(index, 1.0)}:
            raise Wrong(f"message {index} weighs {sorted(found.weights)}")
        others = [
            str(message["content"]).strip()
            for number, message in enumerate(oracle.messages)
            if number != index and message["role"] != "assistant"
        ]
        if any(other and other in text for other in others):
            raise Wrong(f"message {index}: another role's text is trained: {text!r}")
        try:
            expected = oracle.turn(index)
        except Untold:
            untold += 1
            continue
        if text != expected.text:
            raise Wrong(f"message {index}: {text!r} is trained, and the model has to write {expected.text!r}")
        if found.ids and found.before != expected.before:
            raise Wrong(
                f"message {index}: the model reads {found.before!r} before it, and is asked "
                f"{expected.before!r}"
            )
        _check_stop(index, found.ids, stops, tokenizer)
        compared += 1
    if not untold and trained:
        # Messages behind the last turn may stand in a sequence of their own, in which nothing is trained.
        own = [sequence.kinds[sequence.owned] for sequence in encoded.sequences]
        made, least = (
            sum(bool(np.isin(kinds, RESPONSE_KINDS).any()) for kinds in own),
            oracle.fewest_sequences(),
        )
        if made > least:
            raise Wrong(f"{made} sequences, and {least} hold each turn in place")
    return compared, untold


def _check_user_ends(oracle: Oracle, encoded: EncodedRow, tokenizer: PreTrainedTokenizerBase) -> None:
    """Hold what is marked behind each user's text against the oracle, and that it weighs what a table says of
    it times the weight of its message."""
    policy = WeightPolicy(response=0.0, table=((SpanKind.USER_END, 0.5),))
    own = [message.weight for message in encoded.conversation.messages]
    found: dict[int, list[int]] = defaultdict(list)
    for sequence, weights in zip(encoded.sequences, encoded.weights(policy), strict=True):
        marked = (sequence.kinds == SpanKind.USER_END) & sequence.owned
        for number in np.flatnonzero(marked):
            message = int(sequence.messages[number])
            found[message].append(int(sequence.tokens.ids[number]))
            if weights[number] != 0.5 * own[message]:
                raise Wrong(f"message {message}: the end of the user's turn weighs {weights[number]}")
        if weights[~marked].any():
            raise Wrong("something weighs that the table does not name")
    for index, given in enumerate(oracle.messages):
        expected = oracle.user_end(index) if given["role"] == "user" else ""
        text = decoded(tokenizer, found[index])
        if expected is not None and text != expected:
            raise Wrong(f"message {index}: {text!r} is marked as the end, and it is {expected!r}")


def _check_stop(index: int, ids: list[int], stops: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Hold a turn against the stop tokens: a model that writes it is not stopped before its last words."""
    at = next((number for number, token in enumerate(ids) if token in stops), len(ids))
    cut = [token for token in ids[at:] if token not in tokenizer.added_tokens_decoder]
    if decoded(tokenizer, cut).strip():
        raise Wrong(f"message {index}: generation stops before {decoded(tokenizer, ids[at:])!r}")
