"""Chat formats: the text is the template's own, and every character of it belongs to whom it should."""

import copy
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import (
    CHATS,
    Chat,
    alternating,
    assistant,
    chats,
    conversation,
    plain_row,
    system,
    texts,
    tool,
    user,
)
from chat_tokenizers import CHATML, Case, byte_level, byte_level_with_bos, chatml, llama2, mistral, smollm2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import KINDS, check_row, content_place, expected_weights, template_chat

from instruction_modelling.chat.formats import ChatFormat, load_chat_format
from instruction_modelling.chat.tulu import TuluFormat
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded import EncodedRow, RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

# The templates that trl carries, each with what ends a response, longest first.
CHATML_END = ("<|im_end|>",)
REAL_TEMPLATES: dict[str, tuple[str, ...]] = {
    "cohere": ("<|END_OF_TURN_TOKEN|>",),
    "cohere2": ("<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",),
    "deepseek_r1_distill": ("<｜end▁of▁sentence｜>",),
    "deepseekv3": ("<｜end▁of▁sentence｜>",),
    "diffusion_gemma": ("<turn|>",),
    "gemma": ("<end_of_turn>",),
    "gemma3": ("<end_of_turn>",),
    "gemma4": ("<turn|>",),
    "gemma4_v2": ("<turn|>",),
    "gemma4_v5": ("<turn|>",),
    # GLM's chats have no end token of their own: the next message's header ends a response.
    "glm4moe": (),
    "gptoss": ("<|return|>", "<|end|>"),
    "lfm2": CHATML_END,
    "lfm2_2_5": CHATML_END,
    "lfm2_v2": CHATML_END,
    "llama3": ("<|eot_id|>",),
    "llama3_1": ("<|eot_id|>",),
    "llama3_2": ("<|eot_id|>",),
    "muse_glimmer": ("<|eot|>", "<|eom|>"),
    "nemotron_3_5_lightning": CHATML_END,
    "nemotron_3_nano": CHATML_END,
    "nemotron_3_super": CHATML_END,
    "nemotron_3_ultra": CHATML_END,
    "phi3": ("<|end|>",),
    "phi3_5": ("<|end|>",),
    "qwen2_5": CHATML_END,
    "qwen2_5_vl": CHATML_END,
    "qwen3": CHATML_END,
    "qwen3_5_nothink": CHATML_END,
    "qwen3_5_think": CHATML_END,
    "qwen3_6": CHATML_END,
    "qwen3_8": CHATML_END,
    "qwen3_instruct_2507": CHATML_END,
    "qwen3_vl": CHATML_END,
}
# Templates that take only contents in parts: text alone is refused.
PARTS_ONLY = ("idefics3", "llava_next", "smolvlm")
NO_EOS_IN_CHAT = {"gemma": "<eos>", "gemma3": "<eos>", "glm4moe": "<|endoftext|>", "phi3": "<|endoftext|>"}

_CONTROL = re.compile(r"<\|[A-Za-z_\"]+\|?>|<[a-z_]+\|>|<｜[^｜]+｜>|\[gMASK\]|<sop>|<(?:start|end)_of_turn>")
# Added tokens that real tokenizers of these families do not call special.
_PLAIN = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<｜User｜>", "<｜Assistant｜>")


def template_text(name: str) -> str:
    """A template as trl ships it."""
    found = importlib.util.find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("trl, whose chat templates this reads, is not installed")
    path = Path(found.origin).parent / "chat_templates" / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"the installed trl has no {path.name}")
    return path.read_text(encoding="utf-8")


@functools.cache
def real(name: str) -> Case:
    """A tokenizer that holds a template's control tokens, with the template."""
    template = template_text(name)
    ends = REAL_TEMPLATES.get(name, ())
    eos = NO_EOS_IN_CHAT.get(name, ends[0][ends[0].rindex("<") :] if ends else "<|endoftext|>")
    control = dict.fromkeys([*_CONTROL.findall(template), "<BOS>", eos])
    return byte_level(
        [token for token in control if token not in _PLAIN],
        _PLAIN,
        name=name,
        bos_token="<BOS>",
        eos_token=eos,
        chat_template=template,
    )


@functools.cache
def encoder(case: Case, choice: str = "auto") -> RowEncoder:
    """An encoder with the tokenizer's chat format."""
    return RowEncoder(case.tokenizer, load_chat_format(choice, case.tokenizer), 1 << 20)


def chat_format(case: Case) -> ChatFormat:
    """The tokenizer's own chat format."""
    return encoder(case).chat_format


def encode(case: Case, chat: Chat, **fields: Any) -> EncodedRow | BadRow:
    """One chat, encoded or refused."""
    return next(iter(encoder(case).encode([conversation(chat, **fields)])))


def rendering(case: Case, chat: Any, **settings: Any) -> str:
    """The chat as transformers renders it."""
    return str(
        case.tokenizer.apply_chat_template([dict(message) for message in chat], tokenize=False, **settings)
    )


def check_chat(case: Case, chat: Chat, ends: tuple[str, ...]) -> bool:
    """Hold one chat against the oracle; whether the template takes it at all."""
    row = encode(case, chat)
    try:
        text = rendering(case, chat)
    except Exception as error:
        assert isinstance(row, BadRow) and row.reason == "refused by the chat template"
        assert str(error) in row.detail
        return False
    if isinstance(row, BadRow):
        # Refused by name, and only where the template changes or cuts a content, or strips one that is
        # whitespace alone and keeps or leaves out another.
        assert row.reason in ("spans cannot be derived", "content not rendered"), row
        places = [
            content_place(functools.partial(rendering, case), chat, index, text) for index in range(len(chat))
        ]
        changed = any(
            m["content"].strip() and (place is None or text[slice(*place)].strip() != m["content"].strip())
            for m, place in zip(chat, places, strict=True)
        )
        assert changed or any(m["content"].isspace() for m in chat), (row, chat)
        return False
    assert row.rendered.text == text
    check_row(row, template_chat(functools.partial(rendering, case), chat, ends), case.bytes)
    control = [case.bytes.added[number] for number in case.special_ids]
    if not any(token in message["content"] for message in chat for token in control):
        wanted = case.tokenizer.apply_chat_template([dict(message) for message in chat], return_dict=False)
        assert row.tokens.ids.tolist() == wanted
    return True


def pieces(row: EncodedRow | BadRow) -> list[tuple[str, int, str]]:
    """A row's spans as (kind, message, text), the template's left out."""
    assert isinstance(row, EncodedRow), row
    text = row.rendered.text
    return [(KINDS[span.kind], span.message, text[span.start : span.end]) for span in row.rendered.spans]


# -- templates that others wrote --------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL_TEMPLATES)
def test_real_templates_text_ids_and_spans(name: str) -> None:
    case = real(name)
    taken = [check_chat(case, chat, REAL_TEMPLATES[name]) for chat in CHATS]
    assert sum(taken) >= 12


@pytest.mark.parametrize("name", PARTS_ONLY)
def test_templates_that_need_content_in_parts_are_refused(name: str) -> None:
    row = encode(real(name), [user("hello"), assistant("there")])
    assert isinstance(row, BadRow) and row.reason in ("content not rendered", "refused by the chat template")


@pytest.mark.parametrize("name", REAL_TEMPLATES)
@FEW
@given(data=st.data())
def test_real_templates_with_control_text_in_contents(name: str, data: st.DataObject) -> None:
    case = real(name)
    control = [
        token.content for token in case.tokenizer.added_tokens_decoder.values() if token.content not in _PLAIN
    ]
    contents = texts(control).filter(lambda text: "think>" not in text)
    check_chat(case, data.draw(alternating(contents, system=True)), REAL_TEMPLATES[name])


# -- templates written here -------------------------------------------------------------------------------

LOOP = "{% for message in messages %}"
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set start = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% else %}{% set rest = messages %}{% set start = '' %}{% endif %}"
    "{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.first %}{% set content = start + message['content'] %}{% else %}{% set content = "
    "message['content'] %}"
    "{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_V3 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set first = "
    "messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}{% for message in rest %}"
    "{% if message['role'] == 'user' %}{% if loop.last and first is defined %}"
    "{{ '[INST] ' + first + '\\n\\n' + message['content'] + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + message['content'] + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    LOOP + "{% if message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ '<|system|>\\n' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\\n' + message['content'] + eos_token }}{% "
    "endif %}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '\\n<|assistant|>\\n' }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{{ bos_token }}" + LOOP + "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# Empty messages are left out, and the rest is upside down: what a place-finder must not stumble over.
SKIPS_EMPTY = (
    LOOP + "{% if message['content'] %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SHOUTS = LOOP + "{{ message['role'] + ': ' + message['content'] | upper + eos_token }}{% endfor %}"
CUTS = LOOP + "{{ message['role'] + ': ' + message['content'][:4] + eos_token }}{% endfor %}"
WRITTEN = {
    "llama2": (LLAMA2, ("</s>",)),
    "mistral_v3": (MISTRAL_V3, ("</s>",)),
    "zephyr": (ZEPHYR, ("</s>",)),
    "vicuna": (VICUNA, ("</s>",)),
    "chatml": (CHATML, ("<|im_end|>",)),
}


@functools.cache
def written(name: str, tokenizer: str, shared_data: Path | None = None) -> Case:
    """A template of this module with a real sentencepiece tokenizer or the one trained here."""
    if tokenizer == "byte-level":
        base = byte_level(
            ["<s>", "</s>", "[INST]", "[/INST]", "<|im_start|>", "<|im_end|>"],
            name=name,
            bos=True,
            bos_token="<s>",
            eos_token="</s>",
        )
    elif tokenizer == "llama2":
        assert shared_data is not None
        base = llama2(shared_data)
    else:
        base = mistral("mistral_instruct_tokenizer_240323.model.v3", tokenizer)
    copied = copy.deepcopy(base.tokenizer)
    copied.chat_template = WRITTEN[name][0]
    return Case(f"{name}-{tokenizer}", copied, base.bytes)


CHATML_ONLY = [("chatml", "byte-level")]
ON_LLAMA = [
    (name, tokenizer)
    for name in ("llama2", "mistral_v3", "zephyr", "vicuna")
    for tokenizer in ("byte-level", "llama2", "first")
]
RANDOM = [("llama2", "section"), ("mistral_v3", "first"), *((name, "byte-level") for name in WRITTEN)]


@pytest.mark.parametrize(("name", "tokenizer"), ON_LLAMA + CHATML_ONLY)
def test_written_templates(name: str, tokenizer: str, request: pytest.FixtureRequest) -> None:
    shared = request.getfixturevalue("shared_data") if tokenizer == "llama2" else None
    case = written(name, tokenizer, shared)
    assert sum(check_chat(case, chat, WRITTEN[name][1]) for chat in CHATS) >= 16


@pytest.mark.parametrize(("name", "tokenizer"), RANDOM)
@FEW
@given(data=st.data())
def test_written_templates_with_control_text_in_contents(
    name: str, tokenizer: str, data: st.DataObject
) -> None:
    control = ["<s>", "</s>", "[INST]", "[/INST]", "<unk>", "<|im_end|>"]
    check_chat(
        written(name, tokenizer), data.draw(alternating(texts(control), system=True)), WRITTEN[name][1]
    )


def with_template(template: str) -> Case:
    """The ChatML tokenizer with another template."""
    base = chatml()
    copied = copy.deepcopy(base.tokenizer)
    copied.chat_template = template
    return Case("chatml-other", copied, base.bytes)


def test_an_empty_response_is_trained_to_end_and_one_that_is_left_out_takes_no_other_end() -> None:
    chat = [user("q"), assistant(""), user("r"), assistant("s")]
    assert pieces(encode(chatml(), chat)) == [
        ("user", 0, "q"),
        ("end", 1, "<|im_end|>"),
        ("user", 2, "r"),
        ("assistant", 3, "s"),
        ("end", 3, "<|im_end|>"),
    ]
    # The template leaves the empty message out: the end of the user's message is nobody's response.
    skipping = with_template(SKIPS_EMPTY)
    assert pieces(encode(skipping, chat)) == [
        ("user", 0, "q"),
        ("user", 2, "r"),
        ("assistant", 3, "s"),
        ("end", 3, "<|im_end|>"),
    ]
    assert pieces(encode(skipping, [user("q"), assistant("")])) == [("user", 0, "q")]
    no_system = [system(""), user("q"), assistant(""), user(""), assistant("s")]
    assert pieces(encode(real("gptoss"), no_system)) == [
        ("user", 1, "q"),
        ("end", 2, "<|end|>"),
        ("assistant", 4, "s"),
        ("end", 4, "<|return|>"),
    ]


def test_edge_whitespace_belongs_to_the_content_where_the_template_keeps_it() -> None:
    chat = [user(" q\n"), assistant("\n\na \n")]
    assert pieces(encode(chatml(), chat)) == [
        ("user", 0, " q\n"),
        ("assistant", 1, "\n\na \n"),
        ("end", 1, "<|im_end|>"),
    ]
    trims = with_template(CHATML.replace("message['content']", "(message['content'] | trim)"))
    assert pieces(encode(trims, chat)) == [("user", 0, "q"), ("assistant", 1, "a"), ("end", 1, "<|im_end|>")]
    left = with_template(CHATML.replace("message['content']", "message['content'].lstrip('\\n')"))
    assert pieces(encode(left, chat)) == [
        ("user", 0, " q\n"),
        ("assistant", 1, "a \n"),
        ("end", 1, "<|im_end|>"),
    ]


def test_edge_whitespace_between_contents_that_only_whitespace_parts() -> None:
    chat = [user(" a\n"), assistant("\nb\n"), user("\nc ")]
    for change, wanted in [
        ("message['content']", [" a\n", "\nb\n", "\nc "]),
        ("message['content'].strip()", ["a", "b", "c"]),
        ("message['content'].rstrip()", [" a", "\nb", "\nc"]),
        ("message['content'].lstrip()", ["a\n", "b\n", "c "]),
    ]:
        row = encode(with_template(LOOP + "{{ " + change + " + '\\n' }}{% endfor %}"), chat)
        assert [text for _, _, text in pieces(row)] == wanted


def test_templates_that_change_contents() -> None:
    chat = [user("hello"), assistant("there")]
    assert pieces(encode(with_template(SHOUTS), chat)) == [
        ("user", 0, "HELLO"),
        ("assistant", 1, "THERE"),
        ("end", 1, "<|im_end|>"),
    ]
    row = encode(with_template(CUTS), chat)
    assert isinstance(row, BadRow) and row.reason == "spans cannot be derived"
    drops = with_template(
        LOOP + "{% if message['role'] == 'user' %}{{ message['content'] }}{% endif %}{% endfor %}"
    )
    row = encode(drops, chat)
    assert isinstance(row, BadRow) and row.reason == "content not rendered" and "message 1" in row.detail


def test_an_end_is_not_found_in_the_next_message() -> None:
    # No end token and no header: the next content may spell the EOS token, which stays that content's text.
    bare = with_template(LOOP + "{{ message['content'] + '\\n' }}{% endfor %}")
    assert pieces(encode(bare, [user("q"), assistant("a"), user("<|im_end|> r"), assistant("s")])) == [
        ("user", 0, "q"),
        ("assistant", 1, "a"),
        ("user", 2, "<|im_end|> r"),
        ("assistant", 3, "s"),
    ]


def test_a_header_that_an_earlier_content_spells_is_not_taken_for_the_turns_own() -> None:
    thinks = (
        LOOP + "{{ '<|im_start|>' + ('me' if message.reasoning_content else message['role']) + '\\n' }}"
        "{% if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif "
        "%}"
        "{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    row = encode(
        with_template(thinks), [user("<|im_start|>assistant\n trap"), assistant("a", reasoning_content="r")]
    )
    assert isinstance(row, BadRow) and row.reason == "spans cannot be derived"


# -- tools and reasoning ----------------------------------------------------------------------------------

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
CALL = [{"type": "function", "id": "call_1", "function": {"name": "add", "arguments": {"a": 17}}}]
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
    weights = row.weights(WeightPolicy(instruction=0.5, response=2.0, template=0.25))
    assert weights.tolist() == expected_weights(row.kinds, row.messages, [1.0] * 4, 0.5, 2.0, 0.25).tolist()
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


# -- prompts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["llama3", "qwen2_5", "qwen3", "gptoss", "gemma", "phi3", "cohere2", "mistral", "tulu"]
)
def test_the_generation_prompt_is_the_templates_own(name: str) -> None:
    case = (
        byte_level_with_bos()
        if name == "tulu"
        else written("zephyr", "byte-level")
        if name == "mistral"
        else real(name)
    )
    chat = [user("hello"), assistant("there"), user("more </s>")]
    rendered = chat_format(case).render(conversation(chat), generation_prompt=True)
    if name == "tulu":
        assert (
            rendered.text == "<|user|>\nhello\n<|assistant|>\nthere</s>\n<|user|>\nmore </s>\n<|assistant|>\n"
        )
    else:
        assert rendered.text == rendering(case, chat, add_generation_prompt=True)
    assert [rendered.text[a:b] for a, b in rendered.data_ranges] == ["hello", "there", "more </s>"]


# -- the paper's format -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["byte-level", "section", "first"])
@settings(FEW, max_examples=40)
@given(data=st.data())
def test_the_saved_template_gives_the_training_text_and_ids(name: str, data: st.DataObject) -> None:
    case = byte_level_with_bos() if name == "byte-level" else mistral("tokenizer.model.v1", name)
    chat = data.draw(chats(texts()))
    check_saved_template(case, chat)


def check_saved_template(case: Case, chat: Chat) -> None:
    """The template that is saved with a model renders what training saw: the text, the ids, and the
    prompt's."""
    rows = encoder(case, "tulu")
    shown = case.tokenizer
    for prompt in (False, True):
        rendered = rows.chat_format.render(conversation(chat), generation_prompt=prompt)
        given_chat = [dict(message) for message in chat]
        text = str(
            shown.apply_chat_template(
                given_chat,
                chat_template=rows.chat_format.template,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        )
        assert text.removeprefix("<s>").removeprefix(" ") == rendered.text
        ids = shown.apply_chat_template(
            given_chat,
            chat_template=rows.chat_format.template,
            return_dict=False,
            add_generation_prompt=prompt,
        )
        tokens = rows.text_encoder.encode([rendered])[0]
        if not tokens.control_text:
            assert tokens.ids.tolist() == ids
            assert ids.count(shown.bos_token_id) == 1
        assert ids[0] == shown.bos_token_id


def test_the_saved_template_with_the_real_tokenizers(shared_data: Path) -> None:
    for chat in CHATS:
        check_saved_template(llama2(shared_data), chat)


def test_the_tulu_format_by_value() -> None:
    tulu = TuluFormat("</s>")
    rendered = tulu.render(
        conversation([system(" s "), user("u\n"), assistant(""), user(""), assistant("a </s>")])
    )
    assert (
        rendered.text
        == "<|system|>\ns\n<|user|>\nu\n<|assistant|>\n</s>\n<|user|>\n\n<|assistant|>\na </s></s>"
    )
    spans = [(KINDS[s.kind], s.message, rendered.text[s.start : s.end]) for s in rendered.spans]
    assert spans == [
        ("system", 0, "s"),
        ("user", 1, "u"),
        ("end", 2, "</s>"),
        ("assistant", 4, "a </s>"),
        ("end", 4, "</s>"),
    ]
    assert [rendered.text[a:b] for a, b in rendered.data_ranges] == ["s", "u", "a </s>"]
    assert tulu.render(conversation([user("u"), assistant("a"), user(" ")])).text == (
        "<|user|>\nu\n<|assistant|>\na</s>\n<|user|>"
    )


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (tool("42"), "role 'tool'"),
        (assistant("a", tool_calls=CALL), "tool_calls"),
        (assistant("a", reasoning_content="r"), "reasoning_content"),
    ],
)
def test_the_tulu_format_refuses_what_it_has_no_place_for(message: dict[str, Any], name: str) -> None:
    with pytest.raises(RowRefused) as refused:
        TuluFormat("</s>").render(conversation([user("q"), message]))
    assert refused.value.reason == f"{name} not in this format" and "message 1" in refused.value.detail


@pytest.mark.parametrize(
    ("prompt", "completion", "text"),
    [
        ("Q:", "A", "Q: A</s>"),
        ("Q: ", "A", "Q: A</s>"),
        ("Q:\n", "A", "Q:\nA</s>"),
        ("Q:", "\nA", "Q:\nA</s>"),
        ("Q:", "", "Q: </s>"),
        ("", "A", "A</s>"),
        (" Q ", " A ", " Q  A </s>"),
    ],
)
def test_prompt_and_completion_are_joined_as_they_are(prompt: str, completion: str, text: str) -> None:
    tulu = TuluFormat("</s>")
    rendered = tulu.render(plain_row(prompt, completion))
    assert rendered.text == text
    spans = {(KINDS[s.kind], s.message): rendered.text[s.start : s.end] for s in rendered.spans}
    assert spans == {
        key: value
        for key, value in {("user", 0): prompt, ("assistant", 1): completion, ("end", 1): "</s>"}.items()
        if value
    }
    assert tulu.render(plain_row(prompt, completion), generation_prompt=True).text == prompt


# -- choosing a format ------------------------------------------------------------------------------------


def test_the_format_is_chosen_by_name(tmp_path: Path) -> None:
    with_own, without = chatml().tokenizer, byte_level_with_bos().tokenizer
    assert load_chat_format("auto", with_own).name == "tokenizer"
    assert load_chat_format("auto", without).name == "tulu"
    assert load_chat_format("tulu", with_own).end_strings == ("<|im_end|>",)
    file = tmp_path / "mine.jinja"
    file.write_text(ZEPHYR, encoding="utf-8")
    mine = load_chat_format(str(file), without)
    assert mine.name == "mine.jinja" and mine.end_strings == ("</s>",) and mine.template == ZEPHYR
    with pytest.raises(UserError, match="no chat template"):
        load_chat_format("tokenizer", without)
    with pytest.raises(UserError, match=r"nowhere\.jinja"):
        load_chat_format(str(tmp_path / "nowhere.jinja"), without)
    with pytest.raises(UserError, match="EOS"):
        load_chat_format("tulu", byte_level(["<s>"], bos_token="<s>").tokenizer)


def test_end_strings_are_single_tokens_at_which_generation_stops() -> None:
    wanted = {
        "cohere2": ("<|END_OF_TURN_TOKEN|>",),
        "gptoss": ("<|return|>", "<|end|>"),
        "phi3": ("<|end|>", "<|endoftext|>"),
        "gemma": ("<end_of_turn>", "<eos>"),
        "llama3": ("<|eot_id|>",),
        "glm4moe": ("<|endoftext|>",),
    }
    assert {name: chat_format(real(name)).end_strings for name in wanted} == wanted


def test_the_end_string_of_smollm2s_template() -> None:
    assert chat_format(smollm2()).end_strings == ("<|im_end|>",)
