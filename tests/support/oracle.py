"""What the spans, tokens and weights are held against: everything worked out a second time, by other means.

Nothing of the library is imported here. A content's place in a rendered chat is found by rendering again with
that content replaced by a plain word; a token's place by the bytes it stands for, never by a tokenizer's
offsets; the released code's labels by tokenising prefixes and searching token ids, as that code does."""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instruction_modelling.tokens.weights import WeightPolicy

KINDS = (
    "template",
    "system",
    "user",
    "assistant",
    "end",
    "tool",
    "tools",
    "tool_calls",
    "reasoning",
    "text",
    "opening",
    "user_end",
)
ROLE_LABELS = {role: KINDS.index(role) for role in ("system", "user", "assistant", "tool")}
TEMPLATE, END, OPENING, USER_END = map(KINDS.index, ("template", "end", "opening", "user_end"))

Chat = Sequence[Mapping[str, Any]]


@dataclass
class Expected:
    """A rendered chat, and for each of its characters the index of its kind in `KINDS` and its message (-1:
    none). `vague`: whitespace that a template wrote for a content that is nothing else; it may count as the
    template's."""

    text: str
    kind: np.ndarray
    message: np.ndarray
    vague: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.vague = np.zeros(len(self.kind), dtype=bool)

    def label(self, start: int, end: int, kind: int, message: int) -> None:
        """Label the characters [start, end)."""
        self.kind[start:end], self.message[start:end] = kind, message


def blank(text: str) -> Expected:
    """A text that is template throughout."""
    return Expected(
        text, np.full(len(text) + 1, TEMPLATE, dtype=np.int8), np.full(len(text) + 1, -1, dtype=np.int16)
    )


def pieced(pieces: Iterable[tuple[str, int, int]]) -> Expected:
    """The labels of a text put together from pieces (text, kind, message)."""
    listed = list(pieces)
    expected, at = blank("".join(text for text, _, _ in listed)), 0
    for text, kind, message in listed:
        expected.label(at, at + len(text), kind, message)
        at += len(text)
    return expected


# -- chats ----------------------------------------------------------------------------------------------


def tulu_chat(messages: Chat, eos: str) -> Expected:
    """The Tülu format as the paper's code writes it: `<|role|>`, newline, stripped content, EOS after a
    response, newline; the whole stripped."""
    pieces: list[tuple[str, int, int]] = []
    for index, message in enumerate(messages):
        pieces.append((f"<|{message['role']}|>\n", TEMPLATE, -1))
        pieces.append((message["content"].strip(), ROLE_LABELS[message["role"]], index))
        if message["role"] == "assistant":
            pieces.append((eos, END, index))
        pieces.append(("\n", TEMPLATE, -1))
    expected = pieced(pieces)
    length = len(expected.text.rstrip())
    return Expected(
        expected.text[:length],
        np.append(expected.kind[:length], TEMPLATE),
        np.append(expected.message[:length], -1),
    )


def content_place(
    render: Callable[[Chat], str], messages: Chat, index: int, text: str, field: str = "content"
) -> tuple[int, int] | None:
    """Where the text of one message lies in the rendered chat: what gives way when a plain word takes its
    place. None where the template writes something else around the word than around the text, or nothing at
    all."""
    word = "qzxword"
    while word in text:
        word += "z"
    swapped = [dict(message) for message in messages]
    swapped[index][field] = word
    changed = render(swapped)
    if changed.count(word) != 1:
        return None
    before, after = changed.split(word)
    if len(before) + len(after) > len(text) or not (text.startswith(before) and text.endswith(after)):
        return None
    return len(before), len(text) - len(after)


def template_chat(
    render: Callable[..., str], messages: Chat, ends: Sequence[str], user_end: str | None = None
) -> Expected:
    """The labels of a template's chat of plain messages; `ends` are what may follow a response to end it,
    whitespace before it aside, longest first; `user_end` what ends a user's turn, where it is not the last
    of these."""
    user_end = ends[-1] if user_end is None else user_end
    text = render(messages)
    expected = blank(text)
    for index, message in enumerate(messages):
        place = content_place(render, messages, index, text)
        if place is None:
            assert not message["content"].strip(), f"the template drops the content of message {index}"
            prompt = render(messages[:index], add_generation_prompt=True) if index else ""
            if message["role"] == "assistant" and prompt and text.startswith(prompt):
                end = min(text.find(end, len(prompt)) for end in ends if text.find(end, len(prompt)) >= 0)
                expected.label(len(prompt), end, OPENING, index)
                mark_end(expected, end, ends, index)
            continue
        expected.label(*place, ROLE_LABELS[message["role"]], index)
        expected.vague[place[0] : place[1]] = not message["content"].strip()
        if message["role"] == "user" and user_end:
            mark_end(expected, place[1], (user_end,), index, USER_END)
        if message["role"] == "assistant":
            mark_opening(expected, render, messages[:index], place[0], index)
            mark_end(expected, place[1], ends, index)
            if not message["content"].strip():
                # Whitespace around a content that is nothing: before it, or after?
                rest = text[place[1] :]
                gap = place[1] + len(rest) - len(rest.lstrip())
                expected.vague[place[0] : gap] = True
    return expected


def mark_opening(
    expected: Expected, render: Callable[..., str], history: Chat, content: int, message: int
) -> None:
    """Label what the model writes between its prompt and its content, which begins at `content`."""
    if not history:
        return
    prompt = render(history, add_generation_prompt=True)
    pairs = zip(prompt, expected.text, strict=False)
    start = next((i for i, (asked, written) in enumerate(pairs) if asked != written), len(prompt))
    if start < content:
        expected.label(start, content, OPENING, message)


def mark_end(expected: Expected, at: int, ends: Sequence[str], message: int, kind: int = END) -> None:
    """Label the end token that follows position `at`, if one does, with the whitespace before it."""
    content_end = at
    while at < len(expected.text) and expected.text[at].isspace():
        at += 1
    for end in ends:
        if expected.text.startswith(end, at):
            expected.label(content_end, at + len(end), kind, message)
            return


# -- tokens ---------------------------------------------------------------------------------------------


def _byte_characters() -> dict[str, int]:
    """The characters by which byte-level vocabularies write bytes: printable ones as they are, the rest from
    256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    table.update({chr(256 + number): byte for number, byte in enumerate(hidden)})
    return table


class TokenBytes:
    """The bytes each token of a vocabulary stands for.

    `spaces` says where a sentencepiece tokenizer writes a space that the text does not have: "section" (at
    the start and after every control token), "first" (at the start, unless a space is there), or ""
    (nowhere)."""

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        added: Mapping[int, str],
        special: Iterable[int],
        style: str,
        spaces: str = "",
    ):
        self.spaces, self.special = spaces, set(special)
        self.added = dict(added)
        characters = _byte_characters()
        self.table: dict[int, bytes] = {}
        for piece, number in vocabulary.items():
            if number in added:
                self.table[number] = added[number].encode()
            elif style == "byte-level":
                self.table[number] = bytes(characters[c] for c in piece)
            elif found := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
                self.table[number] = bytes([int(found[1], 16)])
            else:
                self.table[number] = piece.replace("\u2581", " ").encode()
        self.table.update({number: text.encode() for number, text in added.items()})
        # Bytes that a byte-level vocabulary lacks vanish.
        known = {piece[0] for piece in self.table.values() if len(piece) == 1}
        lost = [byte for byte in range(256) if byte not in known] if style == "byte-level" else []
        self._lost = np.array(lost, dtype=np.uint8)

    def places(self, ids: Sequence[int], text: str) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last character of each token; a token that stands for no character of the text
        has the place of the next one as both. Fails where the tokens do not spell the text."""
        pieces = [self.table[number] for number in ids]
        if self.spaces:
            fresh = True
            for at, number in enumerate(ids):
                if (
                    fresh
                    and number not in self.added
                    and (self.spaces == "section" or not text.startswith(" "))
                ):
                    assert pieces[at].startswith(b" "), f"no space in front of {pieces[at]!r}"
                    pieces[at] = pieces[at][1:]
                fresh = self.spaces == "section" and number in self.added
        raw = np.frombuffer(text.encode(), dtype=np.uint8)
        kept = ~np.isin(raw, self._lost)
        assert b"".join(pieces) == raw[kept].tobytes(), "the tokens do not spell the text"
        # A byte of the form 10xxxxxx goes on with a character.
        character = np.append(np.cumsum((raw & 0xC0) != 0x80)[kept] - 1, len(text))
        end = np.cumsum([len(piece) for piece in pieces])
        start = np.concatenate([[0], end[:-1]]).astype(np.int64)
        return character[start], np.where(end > start, character[np.maximum(end - 1, 0)], character[start])


# -- the released code's labels -------------------------------------------------------------------------


def _concatenated(messages: Chat, eos: str) -> str:
    text = ""
    for message in messages:
        if message["role"] == "assistant":
            text += "<|assistant|>\n" + message["content"].strip() + eos + "\n"
        else:
            text += f"<|{message['role']}|>\n" + message["content"].strip() + "\n"
    return text


def released_chat_labels(
    encode: Callable[[str], list[int]], messages: Chat, eos: str, limit: int, instruction_loss: bool
) -> tuple[list[int], list[int]]:
    """Ids and labels (-100: no loss) of a chat as the released code makes them; `encode` tokenises with
    BOS."""

    def ids_of(text: str) -> list[int]:
        return encode(text)[:limit]

    ids = ids_of(_concatenated(messages, eos).strip())
    labels = list(ids)
    if instruction_loss:
        for text in ("wa\n", "<|system|>\n", "<|user|>\n"):
            _mask_matches(labels, ids, ids_of(text))
        return ids, labels
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            continue
        start = 0 if number == 0 else len(ids_of(_concatenated(messages[:number], eos)))
        so_far = _concatenated(messages[: number + 1], eos)
        if number + 1 < len(messages) and messages[number + 1]["role"] == "assistant":
            so_far += "<|assistant|>\n"
        end = len(ids_of(so_far))
        for index in range(start, min(end, len(labels))):
            labels[index] = -100
        if end >= limit:
            break
    return ids, labels


def _mask_matches(labels: list[int], ids: list[int], pattern: list[int]) -> None:
    for start in range(len(ids) - len(pattern) + 1):
        if ids[start : start + len(pattern)] == pattern:
            labels[start : start + len(pattern)] = [-100] * len(pattern)


def released_plain_labels(
    encode: Callable[[str], list[int]], texts: tuple[str, str], eos: str, limit: int, instruction_loss: bool
) -> tuple[list[int], list[int]]:
    """Ids and labels of a prompt and its completion (`texts`) as the released code makes them."""
    prompt, completion = texts
    gap = "" if prompt[-1:].isspace() or completion[:1].isspace() else " "
    ids = encode(prompt + gap + completion + eos)[:limit]
    masked = 0 if instruction_loss else len(encode(prompt)[:limit])
    return ids, [-100 if index < masked else id_ for index, id_ in enumerate(ids)]


# -- comparing ------------------------------------------------------------------------------------------


def check_row(row: Any, expected: Expected, tokens: TokenBytes, bos: Sequence[int] = ()) -> None:
    """Hold an encoded row against the labels of its text: the text, every token's kind and message, that its
    tokens spell the text, that control tokens stand where the chat wrote them and nowhere else, and the
    straddling count."""
    assert row.rendered.text == expected.text
    ids = row.tokens.ids.tolist()
    assert ids[: len(bos)] == list(bos)
    assert (
        all(KINDS[k] == "template" for k in row.kinds[: len(bos)]) and (row.messages[: len(bos)] == -1).all()
    )
    ids = ids[len(bos) :]
    start, last = tokens.places(ids, expected.text)
    kinds, messages = row.kinds[len(bos) :], row.messages[len(bos) :]
    lenient = expected.vague[last] & np.isin(kinds, (TEMPLATE, OPENING, END, USER_END))
    np.testing.assert_array_equal(kinds, np.where(lenient, kinds, expected.kind[last]), err_msg=expected.text)
    np.testing.assert_array_equal(
        messages, np.where(lenient, messages, expected.message[last]), err_msg=expected.text
    )
    _check_control(ids, start, last, expected, tokens)
    if not expected.vague.any():
        assert row.straddling == int((expected.kind[start] != expected.kind[last]).sum())


def _check_control(
    ids: Sequence[int], start: np.ndarray, last: np.ndarray, expected: Expected, tokens: TokenBytes
) -> None:
    """Control tokens are exactly those spelled in what the chat itself wrote."""
    names = {tokens.added[number]: number for number in tokens.special}
    if not names:
        return
    pattern = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))
    own = np.isin(expected.kind[: len(expected.text)], (TEMPLATE, END, OPENING, USER_END))
    edges = [0, *(np.flatnonzero(np.diff(own)) + 1).tolist(), len(expected.text)]
    wanted = [
        (first + match.start(), names[match[0]])
        for first, stop in itertools.pairwise(edges)
        if first < stop and own[first]
        for match in pattern.finditer(expected.text[first:stop])
    ]
    found = [(int(at), number) for at, number in zip(start, ids, strict=True) if number in tokens.special]
    assert found == wanted
    assert all(
        last[i] - start[i] + 1 == len(tokens.added[n]) for i, n in enumerate(ids) if n in tokens.special
    )


def expected_weights(
    kinds: np.ndarray, messages: np.ndarray, message_weights: Sequence[float], policy: WeightPolicy
) -> np.ndarray:
    """The loss weight of each token from its kind's name and its message's weight."""
    instruction, response, template = policy.instruction, policy.response, policy.template
    by_name = {
        "system": instruction,
        "user": instruction,
        "assistant": response,
        "end": response,
        "reasoning": response,
        "tool_calls": response,
        "opening": response,
        "template": template,
        "tools": template,
        "tool": 0.0,
        "user_end": 0.0,
        "text": 1.0,
    }
    by_name.update({KINDS[kind]: weight for kind, weight in policy.table})
    of_message = dict(enumerate(message_weights)) | {-1: 1.0}
    both = {
        (kind, message): by_name[KINDS[kind]] * of_message[message]
        for kind, message in set(zip(kinds.tolist(), messages.tolist(), strict=True))
    }
    return np.array(
        [both[pair] for pair in zip(kinds.tolist(), messages.tolist(), strict=True)], dtype=np.float32
    )
