"""Rows that nobody would write, and what has to hold of each from its line in a file to its tokens' weights.

Nothing here knows how spans come about: what is asked of them is worked out a second time, character by
character and token by token."""

import functools
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from oracle import released_chat_labels
from row_files import GOOD
from template_toys import installed_templates, templates_in, toy_tokenizer
from transformers import PreTrainedTokenizerBase

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import RESPONSE_KINDS, Rendered, SpanKind
from instruction_modelling.chat.tulu import TuluFormat
from instruction_modelling.rows.clean import clean_row
from instruction_modelling.rows.conversations import (
    BadRow,
    Conversation,
    ConversationFile,
    read_conversations,
)
from instruction_modelling.tokens.encoded_rows import EncodedRow, EncodedSequence
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import TABLE_KINDS, WeightPolicy

TULU, RELEASED = "tulu", "released"
_SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "templates"

# -- rows -------------------------------------------------------------------------------------------------

PIECES = (
    *("", " ", "\n", "\t\n ", "\x85", "\u00a0", "\u3000", "\u2028", "\r", "\x0b", "\x1c"),
    *("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u2066", "\u200f", "\0", "\x1b[31m"),
    *("e\u0301", "\u0301", "\U0001f469\u200d\U0001f469", "\U0001f1e9", "\ufb01", "\u01c5", "\u0130"),
    *("\U000f0000", "\U0010fffd", "\ue000", "\ufffd", "\uffff", "\u05e9\u05dc", "\u0645\u0631", "東京"),
    *("{{ messages }}", "{% endfor %}", "{#", "%s", "\\n", "\\ud800", "<b>", "&lt;", "null", '"', "'", "`"),
    *(
        "<think>",
        "</think>",
        "<think>\n\n</think>\n\n",
        "<tool_call>",
        "</tool_call>",
        "<s>",
        "</s>",
        "<BOS>",
    ),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"),
    *(
        "system",
        "user",
        "assistant",
        "Hm.",
        "yes",
        "A b  c",
        '{"name": "f", "arguments": {}}',
        "0",
        "ab" * 40,
    ),
)


def texts(control: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """Contents: pieces put together, the template's own signs among them."""
    piece = st.sampled_from([*PIECES, *control]) | st.text(
        st.characters(exclude_categories=["Cs"]), max_size=5
    )
    return st.lists(piece, max_size=5).map("".join)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
    max_leaves=6,
)
ODD = JSON | st.floats() | st.sampled_from(["\ud800", "a\udfff", [], {}, [None], 10**30, -1, True])
WEIGHTS = st.sampled_from([0, 0.5, 1, 2.0, 1e-30])


def calls(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Calls of tools, most of them well formed."""
    arguments = st.dictionaries(text, JSON, max_size=3)
    function = st.fixed_dictionaries(
        {
            "name": st.sampled_from(["f", "weather_now"]) | text,
            "arguments": arguments | arguments.map(json.dumps),
        }
    )
    call = st.fixed_dictionaries({"type": st.just("function"), "function": function}, optional={"id": text})
    return st.lists(call | function, max_size=2)


def message(role: str, text: st.SearchStrategy[str], odd: bool) -> st.SearchStrategy[dict[str, Any]]:
    """A message of a role; an odd one has fields of wrong types and fields of other roles."""
    content: st.SearchStrategy[Any] = text
    parts = text.map(lambda value: [{"type": "text", "text": value}])
    spans = text.map(lambda value: {"content": value + "abc", "loss_spans": [[0, len(value) + 1, 0.5]]})
    optional: dict[str, st.SearchStrategy[Any]] = {"weight": WEIGHTS, "name": text}
    if role == "assistant" or odd:
        optional |= {"reasoning_content": text, "thinking": text, "tool_calls": calls(text)}
    if role == "tool":
        optional |= {"tool_call_id": text}
    if odd:
        optional |= dict.fromkeys(("weight", "loss", "tool_calls", "name", "reasoning", "loss_spans"), ODD)
        content = text | parts | ODD
    made = st.fixed_dictionaries({"role": st.just(role), "content": content | parts}, optional=optional)
    return made | st.builds(lambda fields, more: {**fields, **more}, made, spans)


def rows(control: Sequence[str] = ()) -> st.SearchStrategy[Any]:
    """Rows: chats as they should be, chats in any order, and fields of any kind."""
    text = texts(control)
    system, user, tool = (message(role, text, False) for role in ("system", "user", "tool"))
    assistant = message("assistant", text, False)
    with_call = st.builds(
        lambda said, called, result, answer: [said | {"tool_calls": called}, *result, answer],
        assistant,
        calls(text),
        st.lists(tool, max_size=2),
        assistant,
    )
    exchange = st.builds(
        lambda asked, answered: [asked, *answered], user, assistant.map(lambda answer: [answer]) | with_call
    )
    orderly = st.builds(
        lambda first, exchanges: [*first, *itertools.chain.from_iterable(exchanges)],
        st.lists(system, max_size=1),
        st.lists(exchange, min_size=1, max_size=3),
    )
    any_role = st.sampled_from(["system", "user", "assistant", "tool"])
    disorderly = st.lists(
        any_role.flatmap(lambda role: message(role, text, False))
        | any_role.flatmap(lambda role: message(role, text, True)),
        min_size=1,
        max_size=4,
    )
    tools = st.lists(
        st.fixed_dictionaries(
            {
                "type": st.just("function"),
                "function": st.fixed_dictionaries(
                    {"name": text, "description": text, "parameters": st.dictionaries(text, JSON, max_size=2)}
                ),
            }
        ),
        max_size=2,
    )
    beside = {
        "id": text | ODD,
        "tools": tools | ODD,
        "weight": WEIGHTS | ODD,
        "chat_template_kwargs": st.dictionaries(
            st.sampled_from(["enable_thinking", "thinking", "date_string"]), JSON, max_size=2
        ),
        "text_beside": text,
    }
    plain = st.fixed_dictionaries({"messages": orderly})
    return (
        plain
        | plain
        | st.fixed_dictionaries({"messages": orderly}, optional={**beside, "id": text, "tools": tools})
        | st.fixed_dictionaries({"messages": disorderly | ODD}, optional=beside)
        | st.fixed_dictionaries({"prompt": text, "completion": text}, optional={"weight": WEIGHTS})
        | st.fixed_dictionaries({"instruction": text, "output": text}, optional={"input": text})
        | ODD
    )


# -- formats ----------------------------------------------------------------------------------------------


@functools.cache
def templates() -> dict[str, str]:
    """Real templates, those beside the repository where they are there."""
    found = {f"trl/{name}": text for name, text in installed_templates().items() if "messages" in text}
    return found | (templates_in(_SHARED) if _SHARED.is_dir() else {})


@dataclass(frozen=True)
class Format:
    """A chat format with its tokenizer, as rows are encoded by it."""

    name: str
    encoder: RowEncoder
    tokenizer: PreTrainedTokenizerBase
    signs: tuple[str, ...]
    """The texts of its control tokens."""


@functools.lru_cache(maxsize=400)
def format_of(name: str, limit: int = 1 << 20) -> Format:
    """A template, or the Tülu format with or without the released masks."""
    if name in (TULU, RELEASED):
        tokenizer = toy_tokenizer("{{ bos_token }}</s>")
        tokenizer.chat_template = None
        encoder = RowEncoder(tokenizer, TuluFormat("</s>"), limit, released=name == RELEASED)
        return Format(name, encoder, tokenizer, ("</s>", "<BOS>", "<|user|>", "<|assistant|>"))
    tokenizer = toy_tokenizer(templates()[name])
    encoder = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), limit)
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
    return Format(name, encoder, tokenizer, tuple(sorted(added)))


POLICIES = st.builds(
    WeightPolicy,
    instruction=WEIGHTS,
    response=WEIGHTS,
    template=st.sampled_from([0.0, 0.25]),
    table=st.dictionaries(st.sampled_from(sorted(TABLE_KINDS.values())), WEIGHTS, max_size=3).map(
        lambda table: tuple(sorted(table.items()))
    ),
)

# -- what has to hold -------------------------------------------------------------------------------------


def line_of(row: Any) -> bytes:
    """A row as a line of a file; half of a surrogate pair as JSON escapes it."""
    return json.dumps(row).encode()


def check_reading(folder: Path, lines: Sequence[bytes]) -> ConversationFile:
    """Read lines that hold JSON values: each is a row, good or bad, and a good one is read again as itself
    from what it is written as. A row that is good stands in front: a lone list would be a file of its own."""
    lines = [json.dumps(GOOD).encode(), *lines]
    path = folder / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    file = read_conversations(path)
    places = [row.row for row in file.conversations] + [row.row for row in file.bad_rows]
    assert sorted(places) == list(range(len(lines)))
    for bad in file.bad_rows:
        assert bad.reason and bad.detail and "\n" not in bad.reason + bad.detail, bad
        (bad.reason + bad.detail).encode("utf-8")
    if file.conversations:
        again = folder / "again.jsonl"
        written = [json.dumps(clean_row(row), ensure_ascii=False).encode() for row in file.conversations]
        again.write_bytes(b"\n".join(written) + b"\n")
        back = read_conversations(again)
        assert back.bad_rows == [] and len(back.conversations) == len(written)
        for row, other in zip(file.conversations, back.conversations, strict=True):
            assert _told(row) == _told(other)
    return file


def _told(row: Conversation) -> tuple[Any, ...]:
    """All of a row but where it stands."""
    return (
        row.id,
        row.dataset,
        row.messages,
        row.tools,
        row.plain,
        dict(row.template_variables),
        row.text_beside,
    )


def check_encoding(file: ConversationFile, by: Format, policy: WeightPolicy) -> int:
    """Encode a file's rows and hold each against what its text, spans and weights have to be; return how many
    are not refused."""
    encoder, released = by.encoder, by.name == RELEASED
    encoded = list(encoder.encode(file.conversations))
    assert len(encoded) == len(file.conversations)
    for conversation, row in zip(file.conversations, encoded, strict=True):
        if isinstance(row, BadRow):
            assert row.reason and row.detail and "\n" not in row.reason + row.detail, row
            assert (row.row, row.line) == (conversation.row, conversation.line)
            continue
        assert row.conversation is conversation and row.sequences
        if released:
            check_released(row, by.tokenizer)
        # A text beside is other text under the instruction's weights, so it has no spans of its own.
        for sequence in () if released else (part for part in row.sequences if not part.rendered.is_beside):
            check_spans(sequence.rendered, conversation)
            check_tokens(sequence, encoder)
            check_weights(sequence, conversation, policy)
        check_owners(row)
        check_contents(row)
        (again,) = encoder.encode([conversation])
        assert isinstance(again, EncodedRow)
        for one, other in zip(row.sequences, again.sequences, strict=True):
            np.testing.assert_array_equal(one.tokens.ids, other.tokens.ids)
            np.testing.assert_array_equal(one.kinds, other.kinds)
    return sum(isinstance(row, EncodedRow) for row in encoded)


def check_spans(rendered: Rendered, conversation: Conversation) -> None:
    """Spans are in order, cover their text once, and what is said to be a message's own text is that."""
    at, pieces = 0, []
    for span in rendered.spans:
        assert at <= span.start < span.end <= len(rendered.text)
        assert -1 <= span.message < len(conversation.messages)
        pieces += [rendered.text[at : span.start], rendered.text[span.start : span.end]]
        at = span.end
    assert "".join([*pieces, rendered.text[at:]]) == rendered.text
    for source in rendered.sources:
        own = conversation.messages[source.message].text
        length = source.end - source.start
        assert rendered.text[source.start : source.end] == own[source.offset : source.offset + length]
    for start, end in rendered.data_ranges:
        assert 0 <= start <= end <= len(rendered.text)


def _deciding(sequence: EncodedSequence) -> list[int]:
    """The character that decides a token's kind, -1 for a BOS that the tokenizer puts in front."""
    text, found = sequence.rendered.text, []
    for start, end, control in zip(
        sequence.tokens.start.tolist(), sequence.tokens.end.tolist(), sequence.tokens.is_control, strict=True
    ):
        if control and start == end:
            found.append(-1)
        elif control:
            blank = len(text[start:end]) - len(text[start:end].lstrip())
            found.append(start + blank)
        else:
            found.append(max(start, end - 1))
    return found


def check_tokens(sequence: EncodedSequence, encoder: RowEncoder) -> None:
    """Tokens go through the text from left to right, take the kind of the character that decides, and none
    within the data's own text is a control token."""
    tokens, rendered = sequence.tokens, sequence.rendered
    count, length = len(tokens.ids), len(rendered.text)
    for array in (
        tokens.start,
        tokens.end,
        tokens.is_control,
        sequence.kinds,
        sequence.messages,
        sequence.owned,
    ):
        assert len(array) == count
    assert count <= encoder.max_seq_length
    assert (np.diff(tokens.start) >= 0).all() and (tokens.end >= tokens.start).all()
    assert not count or int(tokens.end.max()) <= length
    kind_at, message_at = [SpanKind.TEMPLATE] * (length + 1), [-1] * (length + 1)
    for span in rendered.spans:
        kind_at[span.start : span.end] = [span.kind] * (span.end - span.start)
        message_at[span.start : span.end] = [span.message] * (span.end - span.start)
    of_data = np.zeros(length + 1, dtype=bool)
    for start, end in rendered.data_ranges:
        of_data[start:end] = True
    for index, place in enumerate(_deciding(sequence)):
        kind, message = (SpanKind.TEMPLATE, -1) if place < 0 else (kind_at[place], message_at[place])
        assert (sequence.kinds[index], sequence.messages[index]) == (kind, message)
        if tokens.is_control[index] and place >= 0:
            assert not of_data[place]


def check_weights(sequence: EncodedSequence, conversation: Conversation, policy: WeightPolicy) -> None:
    """Each token weighs what its kind, its message and the data's own spans say; context weighs nothing."""
    own = [message.weight for message in conversation.messages]
    weights = sequence.weights(own, policy)
    by_kind = policy.by_kind()
    place_of = {}
    for source in sequence.rendered.sources:
        for place in range(source.start, source.end):
            place_of[place] = source.message, source.offset + place - source.start
    for index, place in enumerate(_deciding(sequence)):
        kind, message = int(sequence.kinds[index]), int(sequence.messages[index])
        expected = (
            float(by_kind[kind]) * (own[message] if message >= 0 else 1.0) * bool(sequence.owned[index])
        )
        found = place_of.get(place)
        if found and found[0] == message:
            for start, end, factor in conversation.messages[message].loss_spans:
                expected *= factor if start <= found[1] < end else 1.0
        if expected > np.finfo(np.float32).max:
            # Refused once all of the file's weights are put together (`EncodedData.weights`).
            continue
        assert math.isclose(float(weights[index]), expected, rel_tol=1e-5, abs_tol=1e-37)
        if weights[index]:
            assert by_kind[kind] > 0 and sequence.owned[index]


def check_owners(row: EncodedRow) -> None:
    """What the assistant wrote in a message is trained in one sequence alone."""
    owners: dict[int, int] = {}
    for number, sequence in enumerate(part for part in row.sequences if not part.rendered.is_beside):
        trained = sequence.owned & np.isin(sequence.kinds, RESPONSE_KINDS)
        for message in set(sequence.messages[trained].tolist()):
            assert owners.setdefault(message, number) == number
            assert row.conversation.messages[message].role == "assistant"


def check_contents(row: EncodedRow) -> None:
    """No text of a message is lost: all but its whitespace stands, in order, in the spans of its message."""
    if any(part.rendered.is_beside for part in row.sequences):
        return
    written: dict[int, str] = {}
    for part in row.sequences:
        rendered = part.rendered
        for span in rendered.spans:
            if span.message >= rendered.first_message:
                written[span.message] = written.get(span.message, "") + rendered.text[span.start : span.end]
    for index, message in enumerate(row.conversation.messages):
        if index in row.changed_messages or message.tool_calls:
            continue
        text = "".join(written.get(index, "").split())
        for part_of in (message.content, message.reasoning_content or ""):
            # The tag that opens a thought may be the generation prompt's, which nobody has to write.
            wanted = "".join(part_of.split()).removeprefix("<think>")
            assert wanted in text, (index, message, text)


def check_released(row: EncodedRow, tokenizer: PreTrainedTokenizerBase) -> None:
    """The released style gives the labels that the released code gives, worked out by its own way."""
    conversation = row.conversation
    if conversation.plain or conversation.text_beside or any(m.tool_calls for m in conversation.messages):
        return
    chat = [{"role": message.role, "content": message.content} for message in conversation.messages]
    (sequence,) = row.sequences
    for instruction in (0.0, 1.0):
        policy = WeightPolicy(instruction=instruction, mask_style="released")
        ids, labels = released_chat_labels(
            lambda text: tokenizer(text)["input_ids"],
            chat,
            "</s>",
            1 << 20,
            instruction_loss=bool(instruction),
        )
        assert sequence.tokens.ids.tolist() == ids
        weights = sequence.weights([1.0] * len(chat), policy)
        assert np.where(weights > 0, sequence.tokens.ids, -100).tolist() == labels
