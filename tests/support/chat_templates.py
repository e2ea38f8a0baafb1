"""Chat templates, real ones and ones written for the tests, and one chat held against the oracle."""

import copy
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from chat_samples import Chat, conversation
from chat_tokenizers import CHATML, Case, byte_level, chatml, llama2, mistral
from hypothesis import HealthCheck, settings
from one_sequence import OneSequence, one_sequence
from oracle import KINDS, check_row, content_place, template_chat

from instruction_modelling.chat.formats import ChatFormat, load_chat_format
from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.row_encoder import RowEncoder

FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
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
# What ends a user's turn, where it is not the last of what may end a response.
USER_ENDS = {
    "cohere2": "<|END_OF_TURN_TOKEN|>",
    "deepseek_r1_distill": "",
    "deepseekv3": "",
    "muse_glimmer": "<|eot|>",
    "llama2": "[/INST]",
    "mistral_v3": "[/INST]",
    "vicuna": "",
}
# Templates that write only contents in parts.
PARTS_ONLY = ("idefics3", "llava_next", "smolvlm")
NO_EOS_IN_CHAT = {"gemma": "<eos>", "gemma3": "<eos>", "glm4moe": "<|endoftext|>", "phi3": "<|endoftext|>"}
# Their generation prompt begins a thought that an answer without one closes in another way.
THOUGHT_IN_PROMPT = ("nemotron_3_5_lightning", "nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra")
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


def encode(case: Case, chat: Chat, **fields: Any) -> Any:
    """One chat of one sequence, encoded or refused."""
    return one_sequence(next(iter(encoder(case).encode([conversation(chat, **fields)]))))


def rendering(case: Case, chat: Any, **settings: Any) -> str:
    """The chat as transformers renders it."""
    return str(
        case.tokenizer.apply_chat_template([dict(message) for message in chat], tokenize=False, **settings)
    )


def check_chat(case: Case, chat: Chat, ends: tuple[str, ...]) -> bool:
    """Hold one chat against the oracle; whether the template takes it at all."""
    row = next(iter(encoder(case).encode([conversation(chat)])))
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
    if len(row.sequences) > 1 or not ends or case.name in THOUGHT_IN_PROMPT:
        # Several sequences, turns behind their prompts, ends by the next role's token: test_todays_chats.py
        # holds them.
        return True
    row = one_sequence(row)
    if row.rendered.text != text:
        # A turn is trained behind what it is asked: a blank system message may stand in that alone.
        last = max(index for index, message in enumerate(chat) if message["role"] == "assistant")
        asked = rendering(case, chat[:last], add_generation_prompt=True)
        assert not text.startswith(asked) and row.rendered.text.startswith(asked)
        return True
    user_end = USER_ENDS.get(case.name.partition("-")[0])
    if user_end and user_end not in case.bytes.added.values():
        user_end = ""
    expected = template_chat(functools.partial(rendering, case), chat, ends, user_end)
    check_row(row, expected, case.bytes)
    control = [case.bytes.added[number] for number in case.special_ids]
    if not any(token in message["content"] for message in chat for token in control):
        wanted = case.tokenizer.apply_chat_template([dict(message) for message in chat], return_dict=False)
        assert row.tokens.ids.tolist() == wanted
    return True


def pieces(row: Any) -> list[tuple[str, int, str]]:
    """A row's spans as (kind, message, text), the template's left out."""
    assert isinstance(row, OneSequence), row
    text = row.rendered.text
    return [(KINDS[span.kind], span.message, text[span.start : span.end]) for span in row.rendered.spans]


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


def with_template(template: str) -> Case:
    """The ChatML tokenizer with another template."""
    base = chatml()
    copied = copy.deepcopy(base.tokenizer)
    copied.chat_template = template
    return Case("chatml-other", copied, base.bytes)


CALL = [{"type": "function", "id": "call_1", "function": {"name": "add", "arguments": {"a": 17}}}]
