"""Calls that a later sequence reads again are context: each is trained once, and what opens a turn of calls
alone is an opening."""

from typing import Any

import pytest
from chat_samples import assistant, conversation, tool, user
from chat_templates import encoder, real
from template_toys import installed_templates, toy_tokenizer

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "d",
            "parameters": {"type": "object", "properties": {"x": {"type": "string"}}},
        },
    }
]


def call(argument: str, number: int) -> list[dict[str, Any]]:
    function = {"name": "look", "arguments": {"x": argument}}
    return [{"id": f"abcdef12{number}", "type": "function", "function": function}]


def result(content: str, number: int) -> dict[str, Any]:
    return tool(content, name="look", tool_call_id=f"abcdef12{number}")


ALONE = [user("Uone"), assistant("", tool_calls=call("Cone", 1)), result("Tone", 1), assistant("Aone")]
BESIDE = [
    user("Uone"),
    assistant("Bone", tool_calls=call("Cone", 1), reasoning_content="Rone"),
    result("Tone", 1),
    assistant("", tool_calls=call("Ctwo", 2)),
    result("Ttwo", 2),
    assistant("Aone", reasoning_content="Rtwo"),
    user("Utwo"),
    assistant("Athree", reasoning_content="Rthree"),
]
WORDS = ("Uone", "Bone", "Rone", "Cone", "Tone", "Ctwo", "Ttwo", "Aone", "Rtwo", "Utwo", "Athree", "Rthree")
# A call is written with its id and an end once its result is there.
REWRITTEN = (
    "{% for m in messages %}{% set last = loop.last %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{{ '' if last else '#' + c.id }}(done){% endfor %}{{ '<|end|>' if not last or not m.tool_calls }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize(
    ("part", "least"),
    [
        pytest.param("", 30, id="every template", marks=pytest.mark.slow),
        pytest.param("qwen3_", 4, id="Qwen 3's"),
    ],
)
def test_every_text_is_owned_once(part: str, least: int) -> None:
    several = 0
    templates = {name: template for name, template in installed_templates().items() if part in name}
    for name, template in {**templates, "rewritten": REWRITTEN}.items():
        tokenizer = toy_tokenizer(template)
        rows = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 9000)
        for chat in (ALONE, BESIDE):
            tools = [] if name == "rewritten" else TOOLS
            (row,) = rows.encode([conversation(chat, tools=tools)])
            if isinstance(row, BadRow):
                # A template that leaves out the calls, the tools, or the thought.
                continue
            owned = [tokenizer.decode(sequence.tokens.ids[sequence.owned]) for sequence in row.sequences]
            counts = {word: sum(text.count(word) for text in owned) for word in WORDS if word in str(chat)}
            assert counts == dict.fromkeys(counts, 1), name
            several += len(owned) > 1
    assert several >= least and name == "rewritten" and len(owned) == 2


def test_the_template_weight_reaches_no_call_that_is_read_again() -> None:
    case = real("qwen3")
    (row,) = encoder(case).encode([conversation(ALONE, tools=TOOLS)])
    assert isinstance(row, EncodedRow)
    weights = row.weights(WeightPolicy(response=0.0, template=1.0))[1]
    tokens = row.sequences[1].tokens.ids[weights != 0]
    # The <|im_end|> behind the call was trained as the call's end.
    assert case.tokenizer.decode(tokens) == (
        "\n<|im_start|>user\n<tool_response>\n\n</tool_response><|im_end|>\n<|im_start|>assistant\n\n"
    )


def test_an_empty_thought_before_calls_alone_is_an_opening() -> None:
    (row,) = encoder(real("qwen3")).encode([conversation(ALONE, tools=TOOLS)])
    assert isinstance(row, EncodedRow)
    sequence = row.first
    opened = sequence.tokens.ids[sequence.kinds == SpanKind.OPENING]
    called = sequence.tokens.ids[sequence.kinds == SpanKind.TOOL_CALLS]
    assert real("qwen3").tokenizer.decode(opened) == "<think>\n\n</think>\n\n"
    assert real("qwen3").tokenizer.decode(called) == (
        '<tool_call>\n{"name": "look", "arguments": {"x": "Cone"}}\n</tool_call>'
    )
