"""Templates that need tools, name reasoning otherwise, or write the same message in two ways."""

from typing import Any

from chat_samples import assistant, conversation, tool, user
from template_toys import toy_tokenizer

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import Rendered, SpanKind
from instruction_modelling.rows.conversations import Conversation

_TURN = "<|im_start|>{{ m.role }}\n"
REASONING_UNDER_ANOTHER_KEY = (
    "{% for m in messages %}" + _TURN + "{% if m.thinking %}<think>{{ m.thinking }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_END_AFTER_CALLS = (
    "{% for m in messages %}" + _TURN + "{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "</tool_call>{% endfor %}{% if not m.tool_calls %}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ONLY_WITH_TOOLS = (
    "{% if not tools %}{{ raise_exception('give tools') }}{% endif %}"
    "<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n"
    "{% for m in messages %}" + _TURN + "{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>system\nAnswer.<|im_end|>\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ANOTHER_END_WHERE_LAST = (
    "{% for m in messages %}" + _TURN + "{{ m.content }}{% if m.role == 'tool' and not loop.last %} "
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"a": "b"}}}
TOOLS = [{"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {}}}]


def sequences(template: str, row: Conversation) -> tuple[Rendered, ...]:
    """The sequences of a row by a template."""
    return load_chat_format("tokenizer", toy_tokenizer(template)).sequences(row)


def parts(rendered: Rendered) -> list[tuple[str, str]]:
    """The kinds and texts of the spans of a sequence."""
    return [(span.kind.name, rendered.text[span.start : span.end]) for span in rendered.spans]


def test_reasoning_stands_under_the_key_that_the_template_reads() -> None:
    row = conversation([user("Why?"), assistant("So.", reasoning_content="Hm.")])
    (rendered,) = sequences(REASONING_UNDER_ANOTHER_KEY, row)
    assert parts(rendered) == [
        ("USER", "Why?"),
        ("USER_END", "<|im_end|>"),
        ("REASONING", "<think>"),
        ("REASONING", "Hm."),
        ("REASONING", "</think>"),
        ("ASSISTANT", "So."),
        ("END", "<|im_end|>"),
    ]


def test_the_end_of_one_of_two_calls_stops_nothing() -> None:
    assert load_chat_format("tokenizer", toy_tokenizer(NO_END_AFTER_CALLS)).end_strings == ("<|im_end|>",)


def test_a_template_that_needs_tools_is_probed_with_some() -> None:
    row = conversation([user("Why?"), assistant("So."), user("And?"), assistant("Thus.")], tools=TOOLS)
    first, second = sequences(ONLY_WITH_TOOLS, row)
    assert parts(first)[-2:] == [("ASSISTANT", "So."), ("END", "<|im_end|>")]
    assert parts(second)[-2:] == [("ASSISTANT", "Thus."), ("END", "<|im_end|>")]


def test_a_turn_whose_prompt_writes_the_message_before_it_otherwise_follows_its_prompt() -> None:
    row = conversation([user("Why?"), assistant("I look."), tool("It is.", name="look"), assistant("So.")])
    chat = load_chat_format("tokenizer", toy_tokenizer(ANOTHER_END_WHERE_LAST))
    asked = chat.prompt(Conversation(0, 1, "a", "b", row.messages[:3])).text
    assert asked.endswith("It is.<|im_end|>\n<|im_start|>assistant\n")
    last = chat.sequences(row)[-1]
    assert last.text == asked + "So.<|im_end|>"
    own = [text for kind, text in parts(last) if kind in ("ASSISTANT", "END", "OPENING")]
    assert own[-2:] == ["So.", "<|im_end|>"]
    assert all(span.kind != SpanKind.OPENING for span in last.spans)


def test_an_end_that_answers_get_from_the_next_message_ends_calls_too() -> None:
    # As Hy3's: the end stands in front of the user's header, and calls write it themselves.
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ eos_token if not loop.first }}<|im_start|>"
        "{{ m.content }}{% elif m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>{% else %}"
        "<|sep|>{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}"
        "{{ c.function.arguments | tojson }}</tool_call>{{ eos_token }}{% endfor %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|sep|>{% endif %}{# <|im_end|> #}"
    )
    chat = load_chat_format("tokenizer", toy_tokenizer(template))
    assert chat.end_strings == ("<|im_end|>",)
    row = conversation([user("Why?"), assistant("", tool_calls=(CALL,)), tool("It is."), assistant("So.")])
    (rendered,) = chat.sequences(row)
    assert [part for part in parts(rendered) if part[0] == "END"] == [("END", "<|im_end|>")] * 2
