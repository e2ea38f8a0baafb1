"""The paper's chat format (Tülu's), and plain prompt/completion rows: spans known by construction."""

import json

from instruction_modelling.chat.settings import ChatSettings
from instruction_modelling.chat.spans import ROLE_KINDS, Rendered, Source, Span, SpanKind, without_empty
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation, Message


def render_plain(conversation: Conversation, eos: str, generation_prompt: bool = False) -> Rendered:
    """Return a prompt/completion row: the two texts as they are, joined by a space where neither side has
    whitespace, then the EOS token; with `generation_prompt` the prompt alone."""
    control_tokens = (eos,) if eos else ()
    prompt = conversation.messages[0].content
    prompt_range = (0, len(prompt))
    spans = [Span(0, len(prompt), SpanKind.USER, 0)]
    sources = [Source(0, len(prompt), 0, 0)]
    if generation_prompt:
        return Rendered(
            prompt, without_empty(spans), (prompt_range,), True, control_tokens, sources=tuple(sources)
        )
    completion = conversation.messages[1].content
    gap = "" if not prompt or prompt[-1].isspace() or completion[:1].isspace() else " "
    start = len(prompt) + len(gap)
    end = start + len(completion)
    spans += [Span(start, end, SpanKind.ASSISTANT, 1), Span(end, end + len(eos), SpanKind.END, 1)]
    text = prompt + gap + completion + eos
    sources.append(Source(start, end, 1, 0))
    ranges = prompt_range, (start, end)
    return Rendered(text, without_empty(spans), ranges, True, control_tokens, sources=tuple(sources))


class TuluFormat:
    """The paper's format: `<|role|>` on a line, the stripped content, the EOS token after a response,
    messages joined by newlines, no newline at the end, BOS where the tokenizer adds one."""

    name = "tulu"

    def __init__(self, eos: str, bos: str = ""):
        """Take the text of the EOS token, and what `template` has to write in front so that it gives the ids
        that training sees (the tokenizer's BOS, where it adds one)."""
        self.eos = eos
        self.end_strings: tuple[str, ...] = (eos,)
        self.user_end, self.settings = "", ChatSettings()
        self.identity = f"tulu {eos} {bos}"
        # The same text as a Jinja template, saved with the model so that any engine renders it alike.
        self.template = (
            "{% for message in messages %}"
            + (
                "{% if loop.first %}{{ " + json.dumps(bos, ensure_ascii=False) + " }}{% endif %}"
                if bos
                else ""
            )
            + "{{ '<|' + message['role'] + '|>' }}"
            "{% set content = message['content'] | trim %}"
            "{% if content or message['role'] == 'assistant' or not loop.last or add_generation_prompt %}"
            "{{ '\\n' + content }}{% endif %}"
            "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
            "{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
        )

    def prompt(self, conversation: Conversation) -> Rendered:
        """Return the text and spans of a conversation with the generation prompt; as `sequences`."""
        return self._render(conversation, generation_prompt=True)

    def sequences(self, conversation: Conversation) -> tuple[Rendered, ...]:
        """Return the one sequence that a conversation is trained as: the format never rewrites a turn.

        Raises:
            RowRefused: the row has tools, tool messages, tool calls or reasoning, for which the format has
                no place.
        """
        return (self._render(conversation, generation_prompt=False),)

    def _render(self, conversation: Conversation, generation_prompt: bool) -> Rendered:
        if conversation.plain:
            return render_plain(conversation, self.eos, generation_prompt)
        if conversation.tools:
            raise RowRefused(
                "tools not in this format",
                "the Tülu format has no place for `tools`; use a chat "
                "template that renders them (--chat_format tokenizer, or a Jinja file such as "
                "arms/tool_chat.jinja)",
            )
        parts: list[str] = []
        spans: list[Span] = []
        sources: list[Source] = []
        length = 0
        for index, message in enumerate(conversation.messages):
            self._refuse_what_has_no_place(index, message)
            content = message.content.strip()
            head = f"<|{message.role}|>\n" if index == 0 else f"\n<|{message.role}|>\n"
            start = length + len(head)
            parts += [head, content]
            length = start + len(content)
            stripped = len(message.content) - len(message.content.lstrip())
            sources.append(Source(start, length, index, stripped))
            spans.append(Span(start, length, ROLE_KINDS[message.role], index))
            if message.role == "assistant":
                parts.append(self.eos)
                spans.append(Span(length, length + len(self.eos), SpanKind.END, index))
                length += len(self.eos)
        text = "".join(parts)
        # The format ends without a newline, so a last header with no content loses the newline that ends it.
        text = text + "\n<|assistant|>\n" if generation_prompt else text.removesuffix("\n")
        spans = list(without_empty(spans))
        contents = tuple((span.start, span.end) for span in spans if span.kind != SpanKind.END)
        return Rendered(text, tuple(spans), contents, True, (self.eos,), sources=tuple(sources))

    @staticmethod
    def _refuse_what_has_no_place(index: int, message: Message) -> None:
        fields = ("tool_calls", "reasoning_content")
        without_place = [name for name in fields if getattr(message, name)]
        if message.role == "tool":
            without_place.append("role 'tool'")
        if without_place:
            raise RowRefused(
                f"{without_place[0]} not in this format",
                f"message {index}: the Tülu format has no place for "
                f"{' and '.join(without_place)}; use a chat template that renders it "
                "(--chat_format tokenizer, or a Jinja file such as arms/tool_chat.jinja)",
            )
