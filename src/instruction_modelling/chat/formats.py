"""Messages to one rendered text with character spans: who wrote what.

Two kinds of format. `TuluFormat` is the paper's: it writes the text itself, so it knows its spans.
`TemplateFormat` takes any Hugging Face chat template, unedited: marks in a second rendering say where the
data's texts are (`marks`), and the text of the generation prompt says where a turn begins (`turns`). A row
for which that fails is refused with its reason, never mislabelled.

Rules for what a span covers:
- an assistant's turn is all that the model has to write once it is asked: what the generation prompt leaves
  open (`opening`), reasoning, content, calls, and every part of the end;
- content is stripped, or keeps its edge whitespace, exactly as the format does it;
- `end` is what ends a response; where the template has nothing for that (GLM), the role token of whoever
  speaks next, with which the model then stops;
- a template that rewrites earlier turns (Qwen3 drops their reasoning) gives several sequences (`sequences`);
  what a template writes in none of them refuses the row;
- control text in `tools`, `tool_calls` and names, which a template writes among its own, refuses the row;
- the text a template writes only because `tools` were given is of kind `tools`;
- `user_end` is what ends a user's turn, whatever comes next (`user_ends`);
- everything else, default system prompts included, is `template`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from instruction_modelling.chat.settings import ChatSettings
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
    """`tulu`, `tokenizer`, or the name of the Jinja file."""
    template: str
    """The format as a Jinja template, to be saved with the model."""
    identity: str
    """Everything that decides what it renders, for the key of a cache."""
    end_strings: tuple[str, ...]
    """The tokens by which a response can end, and at which generation stops."""

    settings: ChatSettings
    """What a run has said of its chats."""
    user_end: str
    """What follows every user's text and ends it; "" where the format has nothing for that."""

    def prompt(self, conversation: Conversation) -> Rendered:
        """Return the text and spans of a conversation with the generation prompt, or raise `RowRefused`."""
        ...

    def sequences(self, conversation: Conversation) -> tuple[Rendered, ...]:
        """Return the sequences that a conversation is trained as, or raise `RowRefused`."""
        ...


def load_chat_format(choice: str, tokenizer: "PreTrainedTokenizerBase") -> ChatFormat:
    """Return the chat format named by `--chat_format`: `auto`, `tulu`, `tokenizer` or a Jinja file.

    Raises:
        UserError: the tokenizer has no EOS token, or no template where one was asked for, or the file cannot
            be read.
    """
    tokenizers_template, for_tools = tokenizer.chat_template, None
    if isinstance(tokenizers_template, dict):
        # As transformers does, rows with tools take the template of that name.
        for_tools = tokenizers_template.get("tool_use")
        tokenizers_template = tokenizers_template.get("default") or for_tools
    if choice == "tokenizer" and not tokenizers_template:
        raise UserError(
            "--chat_format tokenizer: the tokenizer has no chat template; choose tulu or give a Jinja file"
        )
    if choice == "tulu" or (choice == "auto" and not tokenizers_template):
        if not tokenizer.eos_token:
            raise UserError(
                "the Tülu format ends a response with the EOS token, and the tokenizer names none; set "
                "eos_token in its tokenizer_config.json"
            )
        return TuluFormat(str(tokenizer.eos_token), _bos_text(tokenizer))
    if choice in ("auto", "tokenizer"):
        return TemplateFormat(tokenizer, str(tokenizers_template), "tokenizer", for_tools)
    path = Path(choice)
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--chat_format {choice}: neither auto, tulu, tokenizer nor a readable Jinja file ({error})"
        ) from error
    return TemplateFormat(tokenizer, template, path.name)


def _bos_text(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the text that gives, in front of a Tülu chat, the ids that the tokenizer puts there.

    A tokenizer that writes a space before the first word of a text only would not write it after the text of
    its BOS: that space is then part of what is returned."""
    ids = bos_ids(tokenizer)
    bos, chat = "".join(map(str, tokenizer.convert_ids_to_tokens(ids))), "<|user|>\na"

    def encoded(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    training_ids = [*ids, *encoded(chat)]
    needs_space = encoded(bos + chat) != training_ids and encoded(f"{bos} {chat}") == training_ids
    return f"{bos} " if ids and needs_space else bos


def bos_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids of the special tokens that the tokenizer puts in front of a text (Llama: BOS; OPT:
    `</s>`; GPT-2: none)."""
    encoded = tokenizer("a", add_special_tokens=True, return_special_tokens_mask=True)
    ids = []
    for token, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        if not special:
            break
        ids.append(int(token))
    # Some tokenizers leave their BOS out of the mask: then it is what they add to the ids of the bare text.
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = list(encoded["input_ids"])
    if not ids and full != bare and full[-len(bare) :] == bare:
        ids = full[: len(full) - len(bare)]
    return ids
