"""Long rows are put together from renderings of a few messages, and are what the template writes of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from long_chats import exchanges, loop, odd, rendered_one_by_one, talk
from template_toys import installed_templates, toy_tokenizer

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation

ROWS: dict[str, Callable[[], Conversation]] = {
    "calls": lambda: exchanges(12),
    "calls with reasoning": lambda: exchanges(12, reasoning=True),
    "talk": lambda: talk(20),
    "a loop": lambda: loop(22),
    "odd": lambda: odd(13),
}
REWRITING = (
    "cohere2",
    "deepseekv3",
    "gemma4_v5",
    "glm4moe",
    "gptoss",
    "lfm2_2_5",
    "nemotron_3_nano",
    "qwen3",
    "qwen3_5_think",
    "qwen3_6",
)
# Command-R counts calls, Mistral's tools stand before the last question, Solar names a result by its call.
OF_FILES = (
    "llamacpp__CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "llamacpp__CohereForAI-c4ai-command-r-plus-tool_use",
    "xinf__mistral-instruct-v0.3",
    "llamacpp__Mistral-Small-3.2-24B-Instruct-2506",
    "llamacpp__upstage-Solar-Open-100B",
    "llamacpp__Apriel-1.6-15b-Thinker-fixed",
)


def check(template: str, row: Conversation, monkeypatch: pytest.MonkeyPatch) -> int:
    """Hold a row's sequences against those where each turn is rendered; return how many there are."""
    chat_format = load_chat_format("tokenizer", toy_tokenizer(template))
    try:
        expected = rendered_one_by_one(chat_format, row, monkeypatch)
    except RowRefused as refused:
        with pytest.raises(RowRefused) as found:
            chat_format.sequences(row)
        assert (found.value.reason, str(found.value)) == (refused.reason, str(refused))
        return 0
    made = chat_format.sequences(row)
    for ours, theirs in zip(made, expected, strict=True):
        assert ours == theirs
    return len(made)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", REWRITING)
def test_a_long_row_is_what_the_template_writes_of_every_turn(
    name: str, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = installed_templates()
    if f"{name}.jinja" not in templates:
        pytest.skip(f"the installed trl has no {name}.jinja")
    check(templates[f"{name}.jinja"], ROWS[row](), monkeypatch)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", OF_FILES)
def test_so_it_is_by_templates_that_look_far_away(
    name: str, row: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_data / "templates" / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    check(path.read_text(encoding="utf-8"), ROWS[row](), monkeypatch)


LAST_QUESTION = (
    "{% set ns = namespace(last=-1, calls=0, seen=false) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% if tools %}<tools>{{ tools | tojson }}</tools>"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
)
THOUGHT = "{% if m.reasoning_content and CONDITION %}<think>{{ m.reasoning_content }}</think>{% endif %}"
REST = (
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    "condition",
    [
        "loop.index0 > ns.last",
        "loop.index0 > ns.last - 5",  # the thoughts of the last two questions
        "loop.index0 > ns.last - 9",  # and of the last three
        "(loop.index0 > ns.last or loop.index0 % 7 == 0)",
        "(loop.index0 > ns.last or messages | length > 40)",
        "(loop.index0 > ns.last or messages[-1].role == 'tool')",
        "(loop.index0 > ns.last or '7 C' in (messages[loop.index0 + 1] | default(m)).content)",
    ],
)
def test_thoughts_are_where_the_template_leaves_them(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = LAST_QUESTION + THOUGHT.replace("CONDITION", condition) + REST
    assert check(template, exchanges(14, reasoning=True), monkeypatch) > 1
    check(template, odd(16), monkeypatch)


@pytest.mark.parametrize(
    "extra",
    [
        "{{ loop.index }}",  # messages are numbered
        "{{ messages | length }}",
        "{% if m.tool_calls %}{% set ns.calls = ns.calls + 1 %}{{ ns.calls }}{% endif %}",
        "{% if 'Q6' in m.tool_calls | string %}{% set ns.seen = true %}{% endif %}{{ ns.seen }}",
        "{% if loop.revindex > 30 %}old{% endif %}",
    ],
)
def test_what_a_template_writes_by_number_is_so_in_each_turn(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = LAST_QUESTION + extra + THOUGHT.replace("CONDITION", "loop.index0 > ns.last") + REST
    assert check(template, exchanges(14, reasoning=True), monkeypatch) > 1


@pytest.mark.parametrize("name", ["qwen3", "gemma4_v5", "gptoss"])
def test_a_row_of_400_messages_takes_renderings_of_few(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = installed_templates().get(f"{name}.jinja")
    if template is None:
        pytest.skip(f"the installed trl has no {name}.jinja")
    chat_format = load_chat_format("tokenizer", toy_tokenizer(template))
    rendered = 0
    render = TemplateRenderer.render_fields

    def counted(self, messages, *rest):  # type: ignore[no-untyped-def]
        nonlocal rendered
        rendered += len(messages)
        return render(self, messages, *rest)

    monkeypatch.setattr(TemplateRenderer, "render_fields", counted)
    made = chat_format.sequences(exchanges(100))
    # One by one, 400 messages are rendered in 200 turns, twice at least: 80,000 and more.
    assert len(made) > 50 or len(made) == 1
    assert rendered < 400 * 60
