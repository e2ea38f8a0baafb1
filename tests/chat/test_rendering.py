"""Rendering is as safe as transformers', and fast enough for rows of hundreds of turns."""

import pytest
from chat_sweep import long_row_seconds
from template_toys import installed_templates, toy_tokenizer

from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Message

CHAT = [Message("user", "Hi"), Message("assistant", "Hello")]
# Reads of what is allowed come first, so that a remembered answer would be the wrong one.
READS = (
    "{% set ns = namespace(a=1) %}{% for m in messages %}{{ m.get('role') }}{{ ns.a }}{{ loop.index0 }}"
    "{% endfor %}"
)


@pytest.mark.parametrize(
    "reach",
    [
        "{{ messages[0].clear() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].role.__class__ }}{{ messages[0].role.__class__.mro() }}",
        "{{ ns.__class__.__base__.__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['os'] }}",
    ],
)
def test_a_template_that_changes_the_row_or_reaches_beyond_it_is_refused(reach: str) -> None:
    renderer = TemplateRenderer(toy_tokenizer(READS), READS)
    assert renderer.render(CHAT) == "user10assistant11"
    # Parsed text and safe reads first: the refusal must not depend on what was read before.
    hostile = READS + reach
    for _ in range(2):
        with pytest.raises(RowRefused):
            TemplateRenderer(toy_tokenizer(hostile), hostile).render(CHAT)
    assert CHAT[0].role == "user"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in installed_templates()
        if any(part in name for part in ("gemma4", "qwen3", "gptoss")) and "_training" not in name
    ],
)
def test_a_tool_row_of_200_turns_takes_half_a_second_or_so(name: str) -> None:
    template = installed_templates()[name]
    taken = [long_row_seconds(template)]
    # 0.3 at most on a quiet processor; a busy or an older one is slower.
    if taken[0] and taken[0][0] > 0.6:
        taken.append(long_row_seconds(template))
    assert min((one[0] for one in taken if one), default=0.0) <= 1.0
