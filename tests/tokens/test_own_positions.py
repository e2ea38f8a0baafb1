"""Every token knows where its last character stands in its message's own text, whatever the template."""

from copy import deepcopy
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from chat_samples import conversation
from chat_tokenizers import byte_level_with_bos
from template_toys import installed_templates, toy_tokenizer
from todays_chats import CHATS

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.rows.conversations import BadRow, Conversation
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.row_encoder import RowEncoder

TEMPLATES = installed_templates()


def with_characters_of_their_own(name: str) -> Conversation:
    """Return a chat whose texts have each character once, so that a character tells where it comes from;
    edges are whitespace."""
    messages, tools = deepcopy(CHATS[name])
    numbers = count(0x4E00)

    def replaced(text: str) -> str:
        # Tags of thoughts within a content stay.
        words = [
            word if word in ("<think>", "</think>") else "".join(chr(next(numbers)) for _ in word[:3])
            for word in text.split()
        ]
        return " ".join(words)

    for message in messages:
        changes: dict[str, Any] = {
            key: f" {replaced(message[key])}\n"
            if key == "content" and "<think>" not in message[key]
            else replaced(message[key])
            for key in ("content", "reasoning_content")
            if message.get(key)
        }
        message.update(changes)
    return conversation(messages, tools=tools or [])


def check_positions(row: EncodedRow) -> int:
    """Hold the positions of a row's tokens against its characters; return how many characters were met."""
    places = {
        character: (index, place)
        for index, message in enumerate(row.conversation.messages)
        for place, character in enumerate(message.content + (message.reasoning_content or ""))
        if ord(character) >= 0x4E00
    }
    met = set()
    for sequence in row.sequences:
        text, tokens = sequence.rendered.text, sequence.tokens
        for number, position in enumerate(sequence.positions.tolist()):
            if tokens.is_control[number] or tokens.end[number] == tokens.start[number]:
                assert position == -1
                continue
            character = text[tokens.end[number] - 1]
            message = int(sequence.messages[number])
            is_tool = message >= 0 and row.conversation.messages[message].role == "tool"
            if is_tool and position == -1:
                # Some templates write a tool's output as JSON, with its line break escaped.
                assert "\n" not in text[tokens.start[number] :].split(character, 1)[1][:3]
            elif character in places:
                assert (message, position) == places[character]
                met.add(character)
            elif position >= 0:
                own = row.conversation.messages[message]
                assert (own.content + (own.reasoning_content or ""))[position] == character
    return len(met)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_positions_under_installed_templates(name: str) -> None:
    tokenizer = toy_tokenizer(TEMPLATES[name])
    encoder = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 40_000)
    met = 0
    for row in encoder.encode(with_characters_of_their_own(chat) for chat in CHATS):
        met += 0 if isinstance(row, BadRow) else check_positions(row)
    assert met > 40


def test_positions_under_tulu_and_in_plain_rows() -> None:
    tokenizer = byte_level_with_bos().tokenizer
    encoder = RowEncoder(tokenizer, load_chat_format("tulu", tokenizer), 40_000)
    chats = [with_characters_of_their_own(chat) for chat in ("one exchange", "system, two exchanges")]
    chats.append(replace(conversation(deepcopy(CHATS["one exchange"][0])), plain=True))
    rows = list(encoder.encode(chats))
    for row in rows[:2]:
        assert isinstance(row, EncodedRow) and check_positions(row)
    plain = rows[2]
    assert isinstance(plain, EncodedRow)
    assert check_positions(plain) == 0
    # BOS, the prompt, the completion behind a space, EOS: every character of both texts has its place.
    prompt, completion = (message.content for message in plain.conversation.messages)
    first = plain.first
    assert first.positions[0] == first.positions[-1] == -1
    for message, text in enumerate((prompt, completion)):
        own = first.positions[(first.messages == message) & (first.positions >= 0)]
        assert own.max() == len(text) - 1 and (own[1:] > own[:-1]).all()


def test_a_text_that_the_template_changes_has_no_positions() -> None:
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | upper if m.role == 'user' else m.content }}"
        "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = toy_tokenizer(template)
    encoder = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 40_000)
    (row,) = encoder.encode([conversation(deepcopy(CHATS["one exchange"][0]))])
    assert isinstance(row, EncodedRow)
    of_user = row.first.positions[row.first.messages == 0]
    assert len(of_user) and (of_user == -1).all()
    assert (row.first.positions[row.first.messages == 1] >= 0).sum() > 5
