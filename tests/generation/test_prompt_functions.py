"""Functions that write prompts: called with what they take, and ended as training ends an answer."""

import sys
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import llama2, smollm2
from transformers import PreTrainedTokenizerBase

from eval.templates import create_prompt_with_xwin_chat_format, create_prompt_with_zephyr_chat_format
from instruction_modelling.errors import UserError
from instruction_modelling.generation.prompt_functions import PromptFunction
from instruction_modelling.generation.prompts import PromptMaker

CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Again"},
]
MODULE = """
def plain(messages):
    return "P:" + messages[-1]["content"]

def with_tokenizer(messages, tokenizer, add_bos=False):
    assert add_bos is False
    return "".join(m["content"] + tokenizer.eos_token for m in messages)

def under_another_name(messages, tok):
    return tok.eos_token

def by_position(messages, tokenizer, /):
    return tokenizer.eos_token

def by_keyword(messages, *, tokenizer, eos_token=None, **more):
    return tokenizer.eos_token + eos_token

def optional(messages, tokenizer=None, add_bos=True):
    return tokenizer.eos_token + str(add_bos)

def ends(messages, bos="<s>", eos="</s>", add_bos=True):
    return f"[{bos if add_bos else ''}{eos}]"

class Format:
    def __call__(self, messages, tokenizer):
        return tokenizer.eos_token + messages[0]["content"]

called = Format()

def own_bos(messages, tokenizer):
    return tokenizer.bos_token + "x"

def needs_more(messages, tokenizer, style):
    return ""

def nothing():
    return ""

def fails(messages):
    raise KeyError("tools")

def ids(messages):
    return [1, 2]

number = 3
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_prompts.py").write_text(MODULE)
    (tmp_path / "broken_prompts.py").write_text("def f(messages)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_prompts", raising=False)
    return "my_prompts."


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return smollm2().tokenizer


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain", "P:Again"),
        ("with_tokenizer", "Hi<|im_end|>Hello.<|im_end|>Again<|im_end|>"),
        ("under_another_name", "<|im_end|>"),
        ("by_position", "<|im_end|>"),
        ("by_keyword", "<|im_end|><|im_end|>"),
        ("optional", "<|im_end|>False"),
        ("ends", "[<|im_end|>]"),
        ("called", "<|im_end|>Hi"),
    ],
)
def test_a_function_is_given_what_it_takes(
    functions: str, tokenizer: PreTrainedTokenizerBase, name: str, text: str
) -> None:
    assert PromptFunction(functions + name, tokenizer)(CHAT) == text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_prompts.needs_more", "nothing here can fill its style"),
        ("my_prompts.nothing", "takes no messages"),
        ("my_prompts.number", "is a int, no function"),
        ("my_prompts.absent", "there is no such function"),
        ("broken_prompts.f", "there is no such function .*broken_prompts.py"),
        ("my_prompts.fails", "fails on a chat of user, assistant, user: KeyError: 'tools'"),
        ("my_prompts.ids", "returned a list; it must return the prompt as text"),
    ],
)
@pytest.mark.usefixtures("functions")
def test_what_is_wrong_with_a_function_is_told_in_one_line(
    tokenizer: PreTrainedTokenizerBase, name: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        PromptFunction(name, tokenizer)(CHAT)


def test_bos_is_written_once_where_both_write_it(functions: str, shared_data: Path) -> None:
    maker = PromptMaker(llama2(shared_data).tokenizer, "tulu", functions + "own_bos")
    assert maker.chat_ids(CHAT) == maker.plain_ids("x")
    assert maker.plain_ids("x")[0] == 1 and 1 not in maker.plain_ids("x")[1:]


@pytest.mark.parametrize("case", ["smollm2", "llama2"])
def test_tulu_by_name_gives_the_ids_of_training(case: str, request: pytest.FixtureRequest) -> None:
    made = smollm2() if case == "smollm2" else llama2(request.getfixturevalue("shared_data"))
    by_name = PromptMaker(made.tokenizer, "auto", "eval.templates.create_prompt_with_tulu_chat_format")
    ids = by_name.chat_ids(CHAT)
    assert ids == PromptMaker(made.tokenizer, "tulu", None).chat_ids(CHAT)
    assert ids.count(made.tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("name", ["tulu", "llama2", "xwin", "zephyr"])
def test_every_format_ends_answers_with_the_tokenizers_own_token(
    tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    maker = PromptMaker(tokenizer, "auto", f"eval.templates.create_prompt_with_{name}_chat_format")
    text = str(tokenizer.decode(maker.chat_ids(CHAT)))
    assert "</s>" not in text and "<s>" not in text
    assert text.split("Hello.")[1].lstrip().startswith("<|im_end|>")


@pytest.mark.parametrize(
    ("function", "system", "text"),
    [
        (
            create_prompt_with_xwin_chat_format,
            None,
            "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives "
            "helpful, detailed, and polite answers to the user's questions. USER: Hi ASSISTANT: Hello.</s>"
            "USER: Again ASSISTANT:",
        ),
        (
            create_prompt_with_xwin_chat_format,
            "Be brief.",
            "<s>Be brief. USER: Hi ASSISTANT: Hello.</s>USER: Again ASSISTANT:",
        ),
        (
            create_prompt_with_zephyr_chat_format,
            "Be brief.",
            "<s><|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n<|user|>\nAgain</s>\n"
            "<|assistant|>\n",
        ),
    ],
)
def test_the_formats_of_xwin_and_zephyr_by_value(function: Any, system: str | None, text: str) -> None:
    messages = [{"role": "system", "content": system}, *CHAT] if system else CHAT
    assert function(messages) == text
    with pytest.raises(ValueError, match="has no role 'tool'"):
        function([*CHAT, {"role": "tool", "content": "x"}])
