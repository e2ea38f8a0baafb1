"""Messages to one rendered text with character spans: who wrote what.

Two kinds of format. `TuluFormat` is the paper's and knows its spans by construction. `TemplateFormat` takes
any Hugging Face chat template, unedited: it renders the conversation once as it is and once with each
content wrapped in two private-use characters; where the two agree after those characters are taken out, their
places are the spans. A row for which that fails is refused with its reason, never mislabelled.

Rules for what a span covers:
- content is stripped, or keeps its edge whitespace, exactly as the format does it;
- `end` is the token that ends a response (Cohere's templates write two), without the whitespace around it;
  GLM's
  chats have none of their own (the next message's header ends a response), so there nothing teaches where to
  stop;
- an assistant turn with `reasoning_content` (or inline `<think>` text that the template moves) or
  `tool_calls`
  is covered from the generation prompt to its end token, since the model has to write all of it; where the
  template leaves out such a part (Qwen3's drops earlier reasoning), the row is refused;
- control text in `tools`, `tool_calls` and names, which a template writes among its own, refuses the row;
- the text a template writes only because `tools` were given is of kind `tools`;
- everything else, default system prompts included, is `template`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from instruction_modelling.chat.spans import Rendered
from instruction_modelling.chat.template import TemplateFormat
from instruction_modelling.chat.tulu import TuluFormat
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ChatFormat(Protocol):
    """What the rest of the library asks of a chat format."""

    name: str
    template: str
    end_strings: tuple[str, ...]

    def render(self, conversation: Conversation, generation_prompt: bool = False) -> Rendered: ...


def load_chat_format(choice: str, tokenizer: "PreTrainedTokenizerBase") -> ChatFormat:
    """The chat format named by `--chat_format`: `auto`, `tulu`, `tokenizer` or a Jinja file.

    Raises:
        UserError: no EOS token, no template where one was asked for, or an unreadable file.
    """
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if choice == "tokenizer" and not own:
        raise UserError(
            "--chat_format tokenizer: the tokenizer has no chat template; choose tulu or give a Jinja file"
        )
    if choice == "tulu" or (choice == "auto" and not own):
        if not tokenizer.eos_token:
            raise UserError(
                "the Tülu format ends a response with the EOS token, and the tokenizer names none; set "
                "eos_token in its tokenizer_config.json"
            )
        return TuluFormat(str(tokenizer.eos_token), _bos_text(tokenizer))
    if choice in ("auto", "tokenizer"):
        return TemplateFormat(tokenizer, str(own), "tokenizer")
    path = Path(choice)
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--chat_format {choice}: neither auto, tulu, tokenizer nor a readable Jinja file ({error})"
        ) from error
    return TemplateFormat(tokenizer, template, path.name)


def _bos_text(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text that gives, in front of a Tülu chat, the ids that the tokenizer puts there. A tokenizer that
    writes a space before the first word only would not write it after the text of its BOS: that space is then
    part of it."""
    ids = bos_ids(tokenizer)
    text, chat = "".join(map(str, tokenizer.convert_ids_to_tokens(ids))), "<|user|>\na"
    wanted = [*ids, *tokenizer(chat, add_special_tokens=False)["input_ids"]]
    spaced = tokenizer(f"{text} {chat}", add_special_tokens=False)["input_ids"] == wanted
    exact = tokenizer(text + chat, add_special_tokens=False)["input_ids"] == wanted
    return f"{text} " if ids and spaced and not exact else text


def bos_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The special tokens that the tokenizer puts in front of a text (Llama: BOS; OPT: `</s>`; GPT-2:
    none)."""
    encoded = tokenizer("a", add_special_tokens=True, return_special_tokens_mask=True)
    ids = []
    for token, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        if not special:
            break
        ids.append(int(token))
    # Some tokenizers leave their BOS out of the mask: what stands before the same text without it is the
    # prefix.
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = list(encoded["input_ids"])
    if not ids and full != bare and full[-len(bare) :] == bare:
        ids = full[: len(full) - len(bare)]
    return ids
