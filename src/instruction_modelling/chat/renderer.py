"""A Hugging Face chat template as a function from messages to text, through transformers' own renderer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TemplateRenderer:
    """Renders messages with one template, and knows the tokenizer's added tokens by their texts.

    `added_tokens` are their texts, the longest first; `special_tokens` those that the tokenizer calls
    special."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str):
        self.template, self._tokenizer = template, tokenizer
        self.eos = str(tokenizer.eos_token or "")
        tokens = [token for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
        self.added_tokens = sorted((token.content for token in tokens), key=len, reverse=True)
        self.special_tokens = {token.content for token in tokens if token.special}

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool = False,
    ) -> str:
        """Return the text of messages, with the start of the assistant's next turn if `generation_prompt`.

        Raises:
            RowRefused: the template refuses them.
        """
        return self.render_fields([message.for_template() for message in messages], tools, generation_prompt)

    def render_fields(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool = False,
    ) -> str:
        """Return the text of messages given as `Message.for_template` returns them; as `render`."""
        from jinja2.exceptions import TemplateError

        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    chat_template=self.template,
                    add_generation_prompt=generation_prompt,
                    tokenize=False,
                )
            )
        except (TemplateError, TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            raise RowRefused(
                "refused by the chat template", f"the chat template refuses the conversation: {error}"
            ) from error
