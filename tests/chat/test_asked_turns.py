"""A turn is trained behind the prompt that asks for it, also where the chat has another text there."""

import time
from copy import deepcopy

import pytest
from chat_samples import conversation
from template_toys import toy_tokenizer
from todays_chats import CHATS, TOOLS, assistant, call, tool, user
from turn_oracle import Oracle

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.prompts import takes_up
from instruction_modelling.chat.spans import RESPONSE_KINDS, Rendered, SpanKind

HEAD = (
    "{{ bos_token }}{% if tools %}<|tools|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>"
)
BODY = (
    "{% if m.role == 'assistant' %}{{ thought }}{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<|call|>{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ prompt }}{% endif %}"
)


def template(prompt: str, thought: str = "") -> str:
    """A template whose generation prompt ends by `prompt`, where its chats have `thought`."""
    return f"{{% set prompt, thought = {prompt!r}, {thought!r} %}}" + HEAD + BODY


def sequences(text: str, chat: str) -> tuple[Rendered, ...]:
    messages, tools = deepcopy(CHATS[chat])
    chat_format = load_chat_format("tokenizer", toy_tokenizer(text))
    return chat_format.sequences(conversation(messages, tools=tools or []))


@pytest.mark.parametrize(
    ("prompt", "thought"),
    [
        ("<think></think>", ""),
        ("<|channel>thought\n<channel|>", ""),
        ("<think>", "</think>"),
        ("<think>\n", "<think></think>"),
        ("<|START_THINKING|><|END_THINKING|>", "<|START_RESPONSE|>"),
        ("\n", ""),
    ],
)
@pytest.mark.parametrize("chat", ["two exchanges", "tool", "a tool, then a user"])
def test_each_turn_stands_behind_what_it_is_asked(prompt: str, thought: str, chat: str) -> None:
    tokenizer = toy_tokenizer(template(prompt, thought))
    messages, tools = deepcopy(CHATS[chat])
    oracle = Oracle(tokenizer, messages, tools)
    made = sequences(template(prompt, thought), chat)
    assert len(made) == len(oracle.answers)
    for sequence, index in zip(made, oracle.answers, strict=True):
        asked = str(oracle.render(messages[:index], prompted=True))
        assert sequence.text == asked + oracle.turn(index).text
        own = [span for span in sequence.spans if span.kind in RESPONSE_KINDS and span.message == index]
        assert "".join(sequence.text[s.start : s.end] for s in own) == oracle.turn(index).text
        assert own[0].start == len(asked) and not sequence.prompts_differ
        described = [s for s in sequence.spans if s.kind == SpanKind.TOOLS]
        assert bool(described) == bool(tools)


def test_a_template_that_always_writes_its_prompt_has_the_same_turns() -> None:
    """Command-R7B's ends by the generation prompt, asked for it or not."""
    given = template("<|START_THINKING|><|END_THINKING|>", "<|START_RESPONSE|>")
    always = given.replace("{% if add_generation_prompt %}", "{% if true %}")
    assert [sequence.text for sequence in sequences(always, "two exchanges")] == [
        sequence.text for sequence in sequences(given, "two exchanges")
    ]
    assert "<|END_THINKING|><|START_RESPONSE|>The Oder.<|end|>" in sequences(always, "two exchanges")[1].text


@pytest.mark.parametrize(
    ("prompt", "thought"),
    [
        ("<think>\n", ""),  # DeepSeek-R1: the answer never closes it
        ("<think></think>", "</think>"),  # closed twice
        ("<judge>\n", ""),
        ("Here are my steps:", ""),
        ("[THINK]", ""),
    ],
)
def test_a_turn_that_leaves_its_prompt_is_trained_as_the_chat_has_it_and_counted(
    prompt: str, thought: str
) -> None:
    (sequence,) = sequences(template(prompt, thought), "two exchanges")
    assert sequence.prompts_differ == 2 and prompt not in sequence.text


def test_what_a_turn_takes_up() -> None:
    assert takes_up("<|assistant|><think>", "\n", "</think>Yes")
    assert takes_up("", "<think>", "</think><think>\nOne.\n</think>Yes <b>so</b>")
    assert takes_up("<|turn>model\n", "<|channel>thought\n<channel|>", "<|tool_call>call<tool_call|>")
    assert not takes_up("<think>\n", "\n</think>\n\n", "One.\n</think>\n\nYes")
    assert not takes_up("", "<think>\n", "Yes, by </b>")
    assert not takes_up("", "<start_of_turn>model\n", "Yes")
    assert not takes_up("", "x<think></think>", "Yes")


def test_a_long_row_of_asked_turns_is_made_in_a_moment() -> None:
    """Two hundred calls and answers: as many sequences, from one rendering."""
    messages = []
    for number in range(100):
        messages += [user(f"Weather {number}?"), assistant("", tool_calls=[call(f"Q{number}")])]
        messages += [tool(f"{number} C"), assistant(f"It has {number}.")]
    chat_format = load_chat_format("tokenizer", toy_tokenizer(template("<think>", "</think>")))
    started = time.monotonic()
    made = chat_format.sequences(conversation(messages, tools=TOOLS))
    seconds = time.monotonic() - started
    assert len(made) == 200
    assert made[-1].text.endswith("<|tool|>99 C<|end|><|assistant|><think></think>It has 99.<|end|>")
    assert made[150].text.endswith(
        "<|assistant|><think></think><|call|>" + 'weather_now{"place": "Q75"}<|end|>'
    )
    # About 0.5 s on a quiet machine; by a rendering for each turn it would be ten times that.
    assert seconds < 3
