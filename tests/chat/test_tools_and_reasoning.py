"""Tool calls, tool outputs and reasoning: what of them is the assistant's, and what is refused."""

import numpy as np
import pytest
from chat_samples import assistant, conversation, tool, user
from chat_templates import CALL, REAL_TEMPLATES, encode, encoder, pieces, real, rendering
from chat_tokenizers import byte_level
from one_sequence import OneSequence
from oracle import KINDS, expected_weights

from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded_rows import EncodedRow
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
        "<|observation|>",
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
# What the assistant writes before an answer without a thought.
OPENINGS = {
    "qwen3": "<think>\n\n</think>\n\n",
    "qwen3_5_think": "\n</think>\n\n",
    "gptoss": "<|channel|>final<|message|>",
    "glm4moe": "\n<think></think>\n",
    "nemotron_3_nano": "</think>",
    "muse_glimmer": " to=user<|message|>",
}


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_are_the_assistants_and_tool_output_is_not_trained(name: str) -> None:
    case, (call, end, output) = real(name), CALLS[name]
    (row,) = encoder(case).encode([conversation(TOOL_CHAT, tools=TOOLS)])
    assert isinstance(row, EncodedRow), row
    # Qwen3 writes an empty thought before a call that is the last message, and none before an earlier one.
    # Nemotron's prompt begins a thought in other words than its chats, and each turn goes on from that.
    asked = "<think>\n" if name == "nemotron_3_nano" else ""
    assert len(row.sequences) == (2 if name == "qwen3" or asked else 1)
    appended = "<|user|>" if name == "glm4moe" else ""
    last, whole = row.sequences[-1].rendered.text, rendering(case, TOOL_CHAT, tools=TOOLS)
    if asked:
        history, _, answer = whole.rpartition("<think>")
        whole = (history + asked + answer).removesuffix("\n")
    assert last == whole + appended
    spans = owned_pieces(row)
    opening = OPENINGS[name] if name == "qwen3" else ""
    called = (opening + call).removeprefix(OPENINGS.get(name, ""))
    assert [(message, text) for kind, message, text in spans if kind == "tool_calls"] == [(1, called)]
    opened = (opening + call).removesuffix(called)
    assert "".join(text for kind, message, text in spans if (kind, message) == ("opening", 1)) == opened
    assert [text for kind, message, text in spans if kind == "end" and message == 1] == [end]
    assert [(message, text) for kind, message, text in spans if kind == "tool"] == [(2, output)]
    answer = OPENINGS.get(name, "") + "It is." + (appended or "".join(REAL_TEMPLATES[name][:1]))
    assert "".join(text for _, message, text in spans if message == 3) == answer
    described = "".join(text for kind, _, text in spans if kind == "tools")
    assert "Adds." in described and described.count("Adds.") == last.count("Adds.")
    assert not any(text in described for text in ("42", "It is."))
    policy = WeightPolicy(instruction=0.5, response=2.0, template=0.25)
    trained = ""
    weights_of = zip(row.sequences, row.weights(policy), row.weights(WeightPolicy()), strict=True)
    for part, weights, weights_of_it in weights_of:
        expected = expected_weights(part.kinds, part.messages, [1.0] * 4, policy) * part.owned
        assert weights.tolist() == expected.tolist()
        places = zip(part.tokens.start, part.tokens.end, weights_of_it, strict=True)
        trained += "".join(part.rendered.text[start:end] for start, end, weight in places if weight)
    assert trained == opening + call + end + answer


def owned_pieces(row: EncodedRow) -> list[tuple[str, int, str]]:
    """The spans that a row's sequences own, as (kind, message, text)."""
    return [
        (KINDS[span.kind], span.message, part.rendered.text[span.start : span.end])
        for part in row.sequences
        for span in part.rendered.spans
        if span.start >= part.rendered.owned_start
        and (span.message >= part.rendered.first_message or span.message < 0)
    ]


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
        ("user_end", 0, "[/INST]"),
        ("tool_calls", 1, '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 17}}]'),
        ("end", 1, "</s>"),
        ("tool", 2, "42\\n"),
        ("opening", 3, " "),
        ("assistant", 3, "It is."),
        ("end", 3, "</s>"),
    ]
    # Tools move to the last question, so the earlier turns are trained apart from the last.
    longer = conversation([*TOOL_CHAT, user("more"), assistant("fine")], tools=TOOLS)
    (later,) = encoder(case).encode([longer])
    assert isinstance(later, EncodedRow) and len(later.sequences) == 2
    trained = [
        case.tokenizer.decode(part.tokens.ids[weights > 0], clean_up_tokenization_spaces=False)
        for part, weights in zip(later.sequences, later.weights(WeightPolicy()), strict=True)
    ]
    call = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 17}}]</s>'
    assert trained == [f"{call} It is.</s>", " fine</s>"]


def test_a_template_that_takes_arguments_as_strings_alone_is_given_strings() -> None:
    call = [{"type": "function", "function": {"name": "add", "arguments": {"a": 17}}}]
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
    ("name", "reason"), [("lfm2", "tool_calls not rendered"), ("gemma3", "refused by the chat template")]
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
        encode(real("qwen3"), [user("q"), assistant("", tool_calls=ordinary)], tools=TOOLS), OneSequence
    )


# What the assistant writes around its reasoning "r" and its answer "a".
THOUGHTS = {
    "qwen3": ("<think>\n", "\n</think>\n\n", "<|im_end|>"),
    "qwen3_5_think": ("", "\n</think>\n\n", "<|im_end|>"),
    "glm4moe": ("\n<think>", "</think>\n", "<|user|>"),
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
    row = encode(real(name), [user("q"), assistant("a", reasoning_content="r")])
    spans = [(kind, text) for kind, message, text in pieces(row) if message == 1]
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


def test_reasoning_inside_the_content() -> None:
    chat = [user("q"), assistant("<think>\nr <|im_end|>\n</think>\n\na")]
    row = encode(real("qwen3"), chat)
    # The template moves it: its kind is its own, and what it spells stays text.
    assert pieces(row)[1:] == [
        ("user_end", 0, "<|im_end|>"),
        ("reasoning", 1, "<think>\n"),
        ("reasoning", 1, "r <|im_end|>"),
        ("reasoning", 1, "\n</think>\n\n"),
        ("assistant", 1, "a"),
        ("end", 1, "<|im_end|>"),
    ]
    assert isinstance(row, OneSequence)
    ends = np.flatnonzero(row.tokens.ids == real("qwen3").tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert [KINDS[kind] for kind in row.kinds[ends]] == ["user_end", "end"]
    # A template that leaves the content as it is leaves the thought what it is, too.
    plain = pieces(encode(real("qwen2_5"), [user("q"), assistant("<think>\nr\n</think>\n\na")]))
    assert plain[1:] == [
        ("user_end", 0, "<|im_end|>"),
        ("reasoning", 1, "<think>\nr\n</think>\n\n"),
        ("assistant", 1, "a"),
        ("end", 1, "<|im_end|>"),
    ]
