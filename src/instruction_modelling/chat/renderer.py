"""A Hugging Face chat template as a function from messages to text, through transformers' own renderer."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instruction_modelling.chat.limits import require_length, within_limits
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.conversations import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _remember_safe_attributes(template: str) -> None:
    """Have the sandbox that transformers renders a template in remember which attributes are safe.

    It asks anew at every access, with dozens of checks of classes: most of the time of a rendering."""
    from jinja2.runtime import LoopContext
    from jinja2.utils import Namespace
    from transformers.utils import chat_template_utils

    compiler = getattr(chat_template_utils, "_compile_jinja_template", None)
    try:
        compiled = within_limits(lambda: compiler(template), len(template)) if compiler else None
    except UserError:
        raise
    except Exception:
        # Rendering says what is wrong with it.
        return
    if compiled is None or "is_safe_attribute" in vars(compiled.environment):
        return
    # Copied twice a rendering; of jinja's chain of two mappings that is a third of a short row's time.
    compiled.globals, environment = dict(compiled.globals), compiled.environment
    ask: Callable[[Any, str, Any], bool] = environment.is_safe_attribute
    answers: dict[tuple[type, str], bool] = {}

    # What messages and templates are made of: the answer depends on the type and the attribute alone.
    plain_types = (dict, list, str, tuple, Namespace, LoopContext)

    def is_safe_attribute(owner: Any, attribute: str, value: Any) -> bool:
        key = (type(owner), attribute)
        if key in answers:
            return answers[key]
        answer = ask(owner, attribute, value)
        if issubclass(type(owner), plain_types):
            answers[key] = answer
        return answer

    environment.is_safe_attribute = is_safe_attribute
    _read_items_first(environment, answers)


def _read_items_first(environment: Any, answers: Mapping[tuple[type, str], bool]) -> None:
    """Have the sandbox read what messages and namespaces hold without the detour of a failed attribute.

    Args:
        answers: which attributes of types are known to be safe.
    """
    read: Callable[[Any, str], Any] = environment.getattr
    attributes_of_dicts = frozenset(dir({}))
    # No value of these types is a method, which the sandbox looks at once more.
    inert = {str, int, float, bool, list, dict, type(None)}

    def read_attribute(owner: Any, attribute: str) -> Any:
        if type(owner) is dict:
            if attribute not in attributes_of_dicts:
                # The sandbox lets every item of a dict through.
                try:
                    return owner[attribute]
                except KeyError:
                    return environment.undefined(obj=owner, name=attribute)
        elif answers.get((type(owner), attribute)):
            value = getattr(owner, attribute, None)
            if value is not None and type(value) in inert:
                return value
        return read(owner, attribute)

    environment.getattr = read_attribute


class TemplateRenderer:
    """Renders messages with one template, and knows the tokenizer's added tokens by their texts.

    `added_tokens` are their texts, the longest first; `special_tokens` those that the tokenizer calls
    special; `string_arguments` says whether the template takes arguments of calls as JSON strings alone."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str):
        self.template, self._tokenizer = template, tokenizer
        _remember_safe_attributes(template)
        self.eos, self.bos = str(tokenizer.eos_token or ""), str(tokenizer.bos_token or "")
        tokens = [token for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
        self.added_tokens = sorted((token.content for token in tokens), key=len, reverse=True)
        self.special_tokens = {token.content for token in tokens if token.special}
        self._pattern = re.compile("|".join(map(re.escape, self.added_tokens)) or r"(?!)")
        self._takes_parts: bool | None = None
        self.string_arguments = False
        # Variables of the template that hold for every conversation; a conversation's own come before them.

    def tokens_in(self, text: str) -> list[tuple[int, int, str]]:
        """Return the added tokens that a text spells, left to right: (start, end, token)."""
        return [(found.start(), found.end(), found[0]) for found in self._pattern.finditer(text)]

    def token_start(self, text: str, position: int) -> int:
        """Return the position, moved back to the start of the added token that it lies within, if any."""
        reach = max(map(len, self.added_tokens), default=0)
        window = max(0, position - reach)
        for start, end, _ in self.tokens_in(text[window : position + reach]):
            if window + start < position < window + end:
                return window + start
        return position

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of messages, with the start of the assistant's next turn if `generation_prompt`.

        Raises:
            RowRefused: the template refuses them.
        """

        def written(string_arguments: bool) -> str:
            fields = [message.for_template(string_arguments) for message in messages]
            return self.render_fields(fields, tools, generation_prompt, variables)

        try:
            return written(self.string_arguments)
        except RowRefused:
            if self.string_arguments or not any(message.tool_calls for message in messages):
                raise
            text = written(string_arguments=True)
            # DeepSeek V3's templates put the arguments' text between others, and refuse an object.
            self.string_arguments = True
            return text

    def render_fields(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of messages given as `Message.for_template` returns them; as `render`."""
        if self._takes_parts is None:
            self._takes_parts = False
            self._takes_parts = self._takes_only_parts()
        if self._takes_parts:
            messages = [_with_parts(fields) for fields in messages]

        def written() -> str:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    chat_template=self.template,
                    add_generation_prompt=generation_prompt,
                    tokenize=False,
                    **(variables or {}),
                )
            )

        try:
            text = within_limits(written, _characters(messages))
        except UserError:
            raise
        # A template is a program: it may fail with any error, and so may a filter of it.
        except Exception as error:
            raise RowRefused(
                "refused by the chat template",
                f"the chat template refuses the conversation: {_in_one_line(error)}",
            ) from error
        require_length(text, lambda: _characters(messages))
        _require_whole_characters(text)
        return text

    def _takes_only_parts(self) -> bool:
        """Return whether the template leaves out a content that is a string and writes one that is a list of
        parts, as templates of models that see pictures do."""
        word = "Qqw0rd"
        message = {"role": "user", "content": word}
        try:
            return word not in self.render_fields([message]) and word in self.render_fields(
                [_with_parts(message)]
            )
        except RowRefused:
            return False


def _require_whole_characters(text: str) -> None:
    """Refuse a text that no tokenizer takes.

    Raises:
        RowRefused: half of a surrogate pair is in it; the data's own texts have none.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise RowRefused(
            "lone surrogate",
            f"the chat template writes half of a surrogate pair (\\u{half:04x}); write the whole "
            "character in it",
        ) from None


def _in_one_line(error: Exception) -> str:
    """Return what an error says, or its kind where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _characters(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return how many characters the contents of messages have."""
    return sum(len(content) for fields in messages if isinstance(content := fields.get("content"), str))


def _with_parts(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is a list of one part."""
    content = fields.get("content")
    return {**fields, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else fields
