"""Prompts of chats, texts and rows as token ids: the same ids whichever engine completes them.

A row's prompt is what the model saw in training before the response: the messages before the last assistant
message, rendered with the chat format's generation prompt and encoded as in training."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import Rendered, SpanKind
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.generation.prompt_functions import PromptFunction
from instruction_modelling.rows.conversations import BadRow, Conversation
from instruction_modelling.rows.messages import Message
from instruction_modelling.tokens.encoder import TextEncoder, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TOO_LONG = "prompt too long"


class PromptMaker:
    """Makes the prompts of a model.

    Args:
        chat_format: as in training: auto, tulu, tokenizer or a Jinja file.
        function: dotted name of a function that renders messages instead, or None.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat_format: str, function: str | None):
        self._tokenizer = tokenizer
        self._function = PromptFunction(function, tokenizer) if function else None
        self._format = load_chat_format(chat_format, tokenizer)
        self._encoder = TextEncoder(tokenizer)
        self.name = function or self._format.name
        # Whose turn is written: the assistant's, or the user's.
        self.speaker: Literal["assistant", "user"] = "assistant"
        # A function's chats end as Tülu's do: with the tokenizer's EOS, which generation configs name.
        self.end_strings: tuple[str, ...] = (
            (str(tokenizer.eos_token),) if function and tokenizer.eos_token else self._format.end_strings
        )

    def speak_as_user(self) -> None:
        """Make prompts of users' turns from now on: `end_strings` is then what ends one.

        Raises:
            UserError: the chat format has nothing that ends a user's turn, or a function writes the prompts.
        """
        ids = self._tokenizer(self._format.user_end, add_special_tokens=False)["input_ids"]
        if self._function or not ids:
            raise UserError(
                f"--speaker user: the chat format {self.name} has no token that ends a user's turn, so a "
                "user would never stop; use one that has (ChatML's <|im_end|>, Llama-3's <|eot_id|>)"
            )
        self.speaker = "user"
        self.end_strings = (str(self._tokenizer.convert_ids_to_tokens(ids[0])),)

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the token ids of a chat with the opening of the next answer.

        Raises:
            UserError: the chat format, or the function, cannot render these messages.
        """
        if self._function:
            return self.plain_ids(self._function(messages))
        conversation = Conversation(
            row=0,
            line=0,
            id="prompt",
            dataset="prompt",
            messages=tuple(Message(role=given["role"], content=given["content"]) for given in messages),
        )
        try:
            return self.encode(conversation)[1]
        except RowRefused as refused:
            raise UserError(
                f"a chat of {', '.join(given['role'] for given in messages)} cannot be rendered: "
                f"{refused.reason}: {refused}"
            ) from refused

    def plain_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, behind what the tokenizer puts in front of every text."""
        return list(self._tokenizer(text)["input_ids"])

    def encode(self, conversation: Conversation) -> tuple[str, list[int]]:
        """Return the rendered text of a conversation with the opening of the next answer, and its token ids.

        Raises:
            RowRefused: the chat format cannot render it.
        """
        rendered, tokens = self.rendered(conversation)
        return rendered.text, tokens.ids.tolist()

    def encode_before_user(self, conversation: Conversation) -> tuple[str, list[int]]:
        """Return what stands before the text of a conversation's last message, a user's, and its token ids.

        Raises:
            RowRefused: the chat format cannot render it, or writes nothing of that message.
        """
        rendered, tokens = self.rendered(conversation)
        last = len(conversation.messages) - 1
        start = min(
            (s.start for s in rendered.spans if s.message == last and s.kind == SpanKind.USER), default=None
        )
        if start is None:
            raise RowRefused("no user's text", "the chat format writes nothing of the user's last message")
        # A token that begins before the text and reaches into it is the user's to write.
        return rendered.text[:start], tokens.ids[tokens.end <= start].tolist()

    def rendered(self, conversation: Conversation) -> tuple[Rendered, Tokens]:
        """Return a conversation with the opening of the next answer as text with spans, and as tokens with
        their places in the text.

        Raises:
            RowRefused: the chat format cannot render it.
        """
        rendered: Rendered = self._format.prompt(conversation)
        return rendered, self._encoder.encode([rendered])[0]


# -- prompts of rows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowPrompt:
    """What a model is given for a row: the rendered text and its token ids.

    `instruction` is the last user message, where a user's turn is written the message before it; `reference`
    is the row's own response or user's message, None where it has none. In training a space stands between
    the prompt of a prompt/completion row and its response: `space_follows`.
    """

    row: int
    id: str
    text: str
    ids: list[int]
    instruction: str
    reference: str | None
    space_follows: bool = False


@dataclass(frozen=True)
class PromptLimits:
    """How long a row's prompt may be, in tokens: at most `max_seq_length` (BOS counted), and so that
    `max_new_tokens` fit behind it into the model's `positions` (None: no limit)."""

    max_seq_length: int
    max_new_tokens: int
    positions: int | None

    def check(self, tokens: int) -> None:
        """Raise RowRefused where a prompt has too many tokens: it is never cut."""
        if tokens > self.max_seq_length:
            raise RowRefused(
                TOO_LONG,
                f"its prompt has {tokens} tokens and --max_seq_length is {self.max_seq_length}; "
                "a cut prompt would be another question",
            )
        if self.positions is not None and tokens + self.max_new_tokens > self.positions:
            raise RowRefused(
                TOO_LONG,
                f"its prompt of {tokens} tokens and --max_new_tokens {self.max_new_tokens} do not "
                f"fit the model's {self.positions} positions",
            )


def split_reference(conversation: Conversation) -> tuple[Conversation, str | None]:
    """Return the conversation before its final assistant message, and that message's content.

    Where the last message is not an assistant's, these are the whole conversation and None; a final message
    of tool calls alone has no reference either. A prompt/completion row stays whole: rendering takes its
    prompt alone.

    Raises:
        RowRefused: nothing stands before the response.
    """
    last = conversation.messages[-1]
    if last.role != "assistant":
        return conversation, None
    reference = None if last.tool_calls and not last.content else last.content
    if conversation.plain:
        return conversation, reference
    if len(conversation.messages) == 1:
        raise RowRefused(
            "no prompt", "its only message is the assistant's; a response needs an instruction before it"
        )
    return replace(conversation, messages=conversation.messages[:-1]), reference


def make_prompts(
    conversations: Sequence[Conversation], maker: PromptMaker, limits: PromptLimits
) -> tuple[list[RowPrompt], list[BadRow]]:
    """Return the prompts of conversations in their order, and the rows that have none."""
    prompts: list[RowPrompt] = []
    refused: list[BadRow] = []
    for conversation in conversations:
        try:
            make = _user_prompt if maker.speaker == "user" else _row_prompt
            prompt = make(conversation, maker)
            limits.check(len(prompt.ids))
            prompts.append(prompt)
        except RowRefused as error:
            refused.append(
                BadRow(conversation.row, conversation.line, conversation.id, error.reason, error.detail)
            )
    return prompts, refused


def split_user_reference(conversation: Conversation) -> tuple[Conversation, str]:
    """Return the conversation up to its last user message, and that message's content.

    Raises:
        RowRefused: it has no user message, or is a plain prompt with its completion.
    """
    turns = [index for index, message in enumerate(conversation.messages) if message.role == "user"]
    if conversation.plain or not turns:
        raise RowRefused(
            "no user's turn", "--speaker user writes a user's message of a chat, and it has none"
        )
    last = turns[-1]
    return replace(conversation, messages=conversation.messages[: last + 1]), conversation.messages[
        last
    ].content


def _user_prompt(conversation: Conversation, maker: PromptMaker) -> RowPrompt:
    chat, reference = split_user_reference(conversation)
    text, ids = maker.encode_before_user(chat)
    before = [message.content for message in chat.messages[:-1]]
    return RowPrompt(
        row=conversation.row,
        id=conversation.id,
        text=text,
        ids=ids,
        instruction=before[-1] if before else "",
        reference=reference,
    )


def _row_prompt(conversation: Conversation, maker: PromptMaker) -> RowPrompt:
    history, reference = split_reference(conversation)
    text, ids = maker.encode(history)
    if not ids:
        raise RowRefused("no prompt", "its prompt is empty and the tokenizer puts nothing in front of it")
    user = [message.content for message in history.messages if message.role == "user"]
    return RowPrompt(
        row=conversation.row,
        id=conversation.id,
        text=text,
        ids=ids,
        instruction=user[-1] if user else "",
        reference=reference,
        space_follows=conversation.plain and not text[-1:].isspace(),
    )


def prompts_sha256(prompts: Sequence[RowPrompt]) -> str:
    """Return the hex digest of the prompts' rows and token ids."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(f"{prompt.row} {prompt.ids}\n".encode())
    return digest.hexdigest()
