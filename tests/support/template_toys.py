"""Small tokenizers that carry real chat templates: bytes, a few merges, and each sign of the template as one
token, so that a template can be tried without its model's files."""

import datetime
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# What models have as tokens of their own: <|signs|>, <｜signs｜>, [SIGNS], and a few <signs>.
SPECIAL = re.compile(
    r"<\|[^|<>\n'\"{} ]{1,40}\|>|<｜[^｜<>\n'\"{} ]{1,40}｜>|<\|[a-z_]{2,30}>|<[a-z_]{2,30}\|>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|ARGS|CALL_ID|TOOL_CONTENT|IMG|gMASK)\]"
    r"|<(?:start_of_turn|end_of_turn|sop|eop|bos|eos|s|/s|_user|_bot|_end|_system|reserved_10[67]|seed:bos"
    r"|seed:eos|beginning_of_sentence|end_of_sentence|end_of_utterance|sep)>|\]~b\]|\[e~\[|\]~!b\["
    r"|\[\|[a-z]{3,20}\|\]|</?(?:assistant|user|system)>"
)
# Tags that are tokens, though the tokenizer does not call them special.
TAGS = re.compile(
    r"</?(?:think|thinking|tool_call|tool_response|tools|seed:think|seed:tool_call|minimax:tool_call)>"
)
ENDS = (
    "<|return|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eot|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<|end_of_text|>",
    "</s>",
    "<|endoftext|>",
    "[e~[",
    "<seed:eos>",
    "[|endofturn|]",
    "</assistant>",
    "<｜hy_eos:opensource｜>",
)


_WORDS = ("user assistant system the model yes no hello",) * 3


@functools.cache
def _engine(texts: Sequence[str], vocabulary: int) -> str:
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    engine.train_from_iterator(texts, trainer)
    return engine.to_str()


@functools.cache
def _renderer() -> PreTrainedTokenizerFast:
    engine = Tokenizer.from_str(_engine(_WORDS, 380))
    return PreTrainedTokenizerFast(tokenizer_object=engine, bos_token="<BOS>", eos_token="</s>")


def _written(template: str) -> str:
    """Return what a template writes of two exchanges; "" where it refuses them."""
    messages = [{"role": role, "content": "Hm."} for role in ("user", "assistant", "user", "assistant")]
    try:
        text = _renderer().apply_chat_template(messages, chat_template=template, tokenize=False)
    except Exception:
        return ""
    # Without the usual ends that this tokenizer, another one, gives the template.
    return str(text).replace("</s>", "")


def toy_tokenizer(
    template: str | dict[str, str], texts: Sequence[str] = _WORDS, vocabulary: int = 380
) -> PreTrainedTokenizerFast:
    """Return a tokenizer with this chat template, or these by name; its EOS is the first usual end that they
    write, and its merges come from `texts`."""
    templates, template = template, "\n".join(template.values()) if isinstance(template, dict) else template
    # Some templates put their signs together from parts.
    template += _written(template) if isinstance(templates, str) else ""
    # GLM's chats end by the next role's token, and their EOS is another.
    by_role = "<|user|>" in template and "<|observation|>" in template
    eos = "<|endoftext|>" if by_role else next((end for end in ENDS if end in template), "</s>")
    special = dict.fromkeys([*SPECIAL.findall(template), eos, "<BOS>"])
    tags = [tag for tag in dict.fromkeys(TAGS.findall(template)) if tag not in special]
    engine = Tokenizer.from_str(_engine(tuple(texts), vocabulary))
    engine.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    engine.add_tokens([AddedToken(text, special=False, normalized=False) for text in tags])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=engine, bos_token="<BOS>", eos_token=eos)
    tokenizer.chat_template = templates
    return tokenizer


def templates_in(folder: Path) -> dict[str, str]:
    """Return the templates of a folder, by file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


def installed_templates() -> dict[str, str]:
    """Return the templates that the installed trl carries, by file name."""
    import trl

    return templates_in(Path(str(trl.__file__)).parent / "chat_templates")


def set_day(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    """Make it that day by the clock of transformers' templates."""
    import transformers.utils.chat_template_utils as templates

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.fromisoformat(f"{day}T12:00:00")

    monkeypatch.setattr(templates, "datetime", Clock)
