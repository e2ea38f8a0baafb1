"""Tool calls, tool outputs and reasoning: what of them is the assistant's, and what is refused."""

import numpy as np
import pytest
from chat_samples import assistant, tool, user
from chat_templates import CALL, REAL_TEMPLATES, encode, pieces, real, rendering
from chat_tokenizers import byte_level
from oracle import KINDS, expected_weights

from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded import EncodedRow
from instruction_modelling.tokens.weights import WeightPolicy

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer", "description": "one"}},
                "required": ["a"],
            },
        },
    }
]
TOOL_CHAT = [
    user("q"),
    assistant("", tool_calls=CALL),
    tool("42\n", name="add", tool_call_id="call_1"),
    assistant("It is."),
]
# What the assistant writes to call the tool, what ends the call, and how the tool's output is written.
CALLS = {
    "qwen2_5": ('<tool_call>\n{"name": "add", "arguments": {"a": 17}}\n</tool_call>', "<|im_end|>", "42\n"),
    "qwen3": ('<tool_call>\n{"name": "add", "arguments": {"a": 17}}\n</tool_call>', "<|im_end|>", "42\n"),
    "qwen3_instruct_2507": (
        '<tool_call>\n{"name": "add", "arguments": {"a": 17}}\n</tool_call>',
        "<|im_end|>",
        "42\n",
    ),
    "qwen3_5_think": (
        "\n</think>\n\n<tool_call>\n<function=add>\n<parameter=a>\n17\n</parameter>\n</function>\n</tool_call>",
        "<|im_end|>",
        "42",
    ),
    "llama3_1": ('{"name": "add", "parameters": {"a": 17}}', "<|eot_id|>", "42\\n"),
    "llama3_2": ('{"name": "add", "parameters": {"a": 17}}', "<|eot_id|>", "42\\n"),
    "gptoss": (' to=functions.add<|channel|>commentary json<|message|>{"a": 17}', "<|call|>", "42\\n"),
    "glm4moe": (
        "\n<think></think>\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>17</arg_value>\n</tool_call>",
        "",
        "42\n",
    ),
    "gemma4_v5": ("<|tool_call>call:add{a:17}<tool_call|>", "<|tool_response>", "42\n"),
    "lfm2_v2": ("<|tool_call_start|>[add(a=17)]<|tool_call_end|>", "<|im_end|>", "42\n"),
    "nemotron_3_nano": (
        "</think>\n<tool_call>\n<function=add>\n<parameter=a>\n17\n</parameter>\n</function>\n</tool_call>\n",
        "<|im_end|>",
        "42\n",
    ),
    "muse_glimmer": (
        ' to=add<|message|><atem:function_calls>\n<atem:invoke name="add">\n<atem:parameter name="a">17'
        "</atem:parameter>\n</atem:invoke>\n</atem:function_calls>",
        "<|eot|>",
        "42\n",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_are_the_assistants_and_tool_output_is_not_trained(name: str) -> None:
    case, (call, end, output) = real(name), CALLS[name]
    row = encode(case, TOOL_CHAT, tools=TOOLS)
    assert isinstance(row, EncodedRow), row
    assert row.rendered.text == rendering(case, TOOL_CHAT, tools=TOOLS)
    spans = pieces(row)
    assert [(message, text) for kind, message, text in spans if kind == "tool_calls"] == [(1, call)]
    assert [text for kind, message, text in spans if kind == "end" and message == 1] == ([end] if end else [])
    assert [(message, text) for kind, message, text in spans if kind == "tool"] == [(2, output)]
    assert [text for kind, message, text in spans if message == 3] == ["It is.", *REAL_TEMPLATES[name][:1]]
    described = "".join(text for kind, _, text in spans if kind == "tools")
    assert "Adds." in described and described.count("Adds.") == row.rendered.text.count("Adds.")
    assert not any(text in described for text in ("42", "It is."))
    policy = WeightPolicy(instruction=0.5, response=2.0, template=0.25)
    assert (
        row.weights(policy).tolist() == expected_weights(row.kinds, row.messages, [1.0] * 4, policy).tolist()
    )
    trained = "".join(
        row.rendered.text[s:e]
        for s, e, w in zip(row.tokens.start, row.tokens.end, row.weights(WeightPolicy()), strict=True)
        if w
    )
    assert trained == call + end + "It is." + "".join(REAL_TEMPLATES[name][:1])


MISTRAL_TOOLS = (
    "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}{{ bos_token }}{% for message "
    "in messages %}"
    "{% if message['role'] == 'user' %}{% if tools and message == asked[-1] %}"
    "{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% elif message['tool_calls'] %}{{ '[TOOL_CALLS] ' + (message['tool_calls'] | map(attribute='function') "
    "| list | tojson) "
    "+ eos_token }}{% elif message['role'] == 'tool' %}"
    "{{ '[TOOL_RESULTS] {\"content\": ' + (message['content'] | tojson) + '}[/TOOL_RESULTS]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)


def test_tool_calls_of_a_mistral_like_template() -> None:
    names = [
        "<s>",
        "</s>",
        "[INST]",
        "[/INST]",
        "[TOOL_CALLS]",
        "[AVAILABLE_TOOLS]",
        "[/AVAILABLE_TOOLS]",
        "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]",
    ]
    case = byte_level(names, bos_token="<s>", eos_token="</s>", chat_template=MISTRAL_TOOLS)
    row = encode(case, TOOL_CHAT, tools=TOOLS)
    described, *rest = pieces(row)
    assert (
        described[0] == "tools"
        and described[2].startswith("[AVAILABLE_TOOLS] [{")
        and "Adds." in described[2]
    )
    assert rest == [
        ("user", 0, "q"),
        ("tool_calls", 1, '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 17}}]'),
        ("end", 1, "</s>"),
        ("tool", 2, "42\\n"),
        ("assistant", 3, "It is."),
        ("end", 3, "</s>"),
    ]
    # Tools move to the last question, so an earlier turn is not the text after its own prompt.
    later = encode(case, [*TOOL_CHAT, user("more"), assistant("fine")], tools=TOOLS)
    assert isinstance(later, BadRow) and later.reason == "spans cannot be derived"


def test_tool_calls_of_the_deepseek_template_whose_arguments_are_strings() -> None:
    call = [{"type": "function", "function": {"name": "add", "arguments": '{"a": 17}'}}]
    row = encode(
        real("deepseekv3"), [user("q"), assistant("", tool_calls=call), tool("42"), assistant("It is.")]
    )
    assert pieces(row) == [
        ("user", 0, "q"),
        (
            "tool_calls",
            1,
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 17}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        ("end", 1, "<｜end▁of▁sentence｜>"),
        ("tool", 2, "42"),
        ("assistant", 3, "It is."),
        ("end", 3, "<｜end▁of▁sentence｜>"),
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lfm2", "tool_calls not rendered"),
        ("gemma3", "refused by the chat template"),
        ("deepseekv3", "refused by the chat template"),
    ],
)
def test_templates_that_have_no_place_for_tool_calls_refuse_them(name: str, reason: str) -> None:
    row = encode(real(name), TOOL_CHAT, tools=TOOLS if name == "lfm2" else [])
    assert isinstance(row, BadRow) and row.reason == reason


def test_what_a_template_leaves_out_is_refused_by_name() -> None:
    cases = [
        ("llama3_1", [user("q"), assistant("words", tool_calls=CALL)], TOOLS, "content not rendered"),
        ("qwen2_5", [user("q"), assistant("a", reasoning_content="r")], [], "reasoning_content not rendered"),
        ("llama3", [user("q"), assistant("a")], TOOLS, "tools not rendered"),
        ("deepseekv3", [user("q"), assistant("<think>r</think>a")], [], "<think> text not rendered"),
        (
            "qwen3",
            [user("q"), assistant("<think>r</think>a"), user("s"), assistant("b")],
            [],
            "<think> text not rendered",
        ),
        (
            "qwen3",
            [user("q"), assistant("a", reasoning_content="r"), user("s"), assistant("b")],
            [],
            "reasoning_content not rendered",
        ),
        ("qwen3", [user("q"), assistant("lost <think>r</think>a")], [], "content not rendered"),
    ]
    for name, chat, tools, reason in cases:
        row = encode(real(name), chat, tools=tools)
        assert isinstance(row, BadRow) and row.reason == reason, (name, row)


def test_control_text_outside_contents_is_refused() -> None:
    spelled = [{"type": "function", "function": {"name": "add", "arguments": {"a": "<|im_end|>"}}}]
    described = [
        {"type": "function", "function": {"name": "add", "description": "<|im_start|>", "parameters": {}}}
    ]
    for chat, tools, field in [
        ([user("q"), assistant("", tool_calls=spelled)], TOOLS, "tool_calls"),
        ([user("q"), assistant("a")], described, "tools"),
        ([user("q"), tool("a", name="<|im_end|>")], [], "name"),
    ]:
        row = encode(real("qwen3"), chat, tools=tools)
        assert isinstance(row, BadRow) and row.reason == f"control text in {field}", row
    ordinary = [
        {"type": "function", "function": {"name": "add", "arguments": {"a": "<b>  \n\n</b>", "c": "'\"\\"}}}
    ]
    assert isinstance(
        encode(real("qwen3"), [user("q"), assistant("", tool_calls=ordinary)], tools=TOOLS), EncodedRow
    )


# What the assistant writes around its reasoning "r" and its answer "a".
THOUGHTS = {
    "qwen3": ("<think>\n", "\n</think>\n\n", "<|im_end|>"),
    "qwen3_5_think": ("", "\n</think>\n\n", "<|im_end|>"),
    "glm4moe": ("\n<think>", "</think>\n", ""),
    "gptoss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|return|>",
    ),
    "gemma4_v5": ("<|channel>thought\n", "\n<channel|>", "<turn|>"),
    "lfm2_2_5": ("<think>", "</think>", "<|im_end|>"),
    "muse_glimmer": (" to=self<|message|>", "<|eom|><|start|>assistant to=user<|message|>", "<|eot|>"),
    "nemotron_3_nano": ("", "\n</think>\n", "<|im_end|>"),
}


@pytest.mark.parametrize("name", THOUGHTS)
def test_reasoning_is_trained_with_its_tags(name: str) -> None:
    before, between, end = THOUGHTS[name]
    row = encode(
        real(name), [user("hi"), assistant("hello"), user("q"), assistant("a", reasoning_content="r")]
    )
    spans = [(kind, text) for kind, message, text in pieces(row) if message == 3]
    assert spans == [
        (kind, text)
        for kind, text in [
            ("reasoning", before),
            ("reasoning", "r"),
            ("reasoning", between),
            ("assistant", "a"),
            ("end", end),
        ]
        if text
    ]
    assert [text for kind, message, text in pieces(row) if message == 1 and kind != "end"] == ["hello"]


def test_reasoning_inside_the_content() -> None:
    chat = [user("q"), assistant("<think>\nr <|im_end|>\n</think>\n\na")]
    row = encode(real("qwen3"), chat)
    # The template moves it: its kind is its own, and what it spells stays text.
    assert pieces(row)[1:] == [
        ("reasoning", 1, "<think>\n"),
        ("reasoning", 1, "r <|im_end|>"),
        ("reasoning", 1, "\n</think>\n\n"),
        ("assistant", 1, "a"),
        ("end", 1, "<|im_end|>"),
    ]
    assert isinstance(row, EncodedRow)
    ends = np.flatnonzero(row.tokens.ids == real("qwen3").tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert [KINDS[kind] for kind in row.kinds[ends]] == ["template", "end"]
    # A template that leaves the content as it is makes it part of the response.
    plain = pieces(encode(real("qwen2_5"), [user("q"), assistant("<think>\nr\n</think>\n\na")]))
    assert plain[1:] == [("assistant", 1, "<think>\nr\n</think>\n\na"), ("end", 1, "<|im_end|>")]
