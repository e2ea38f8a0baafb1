"""Where a user stops: what a template writes right after a user's text, whatever comes next.

It is the run of control tokens that follows the text alike before an answer, before another user, before the
generation prompt and where nothing follows, cut before the next message's header. A model that is trained on
it learns to end a user's turn; it weighs nothing unless --loss_weights says otherwise."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.chat.spans import Span, SpanKind
from instruction_modelling.rows.conversations import Message

_USER, _OTHER, _ANSWER = (
    Message("user", "Uqfol0w"),
    Message("user", "Wqfol0w"),
    Message("assistant", "Aqfol0w"),
)


class Render(Protocol):
    """What writes the text of messages; "" where the template refuses them."""

    def __call__(self, messages: Sequence[Message], *, prompted: bool) -> str:
        """Return the text, `prompted` with the generation prompt."""
        ...


def find_user_end(render: Render, renderer: TemplateRenderer, header_token: str, answer_end: str) -> str:
    """Return what ends every user's turn; "" where the template has nothing for that.

    Args:
        header_token: what begins a message's header.
        answer_end: what ends an answer: where it follows a user's text too, nothing behind it does.
    """
    cases = ([_USER], False), ([_USER], True), ([_USER, _ANSWER], False), ([_USER, _OTHER], False)
    texts = (render(messages, prompted=prompted) for messages, prompted in cases)
    gaps = [gap for gap in map(_behind_user, texts) if gap is not None]
    if not gaps:
        return ""
    common = gaps[0]
    for gap in gaps[1:]:
        same = next((i for i, (a, b) in enumerate(zip(common, gap, strict=False)) if a != b), None)
        same = min(len(common), len(gap)) if same is None else same
        common = common[: min(renderer.token_start(common, same), renderer.token_start(gap, same))]
    if answer_end.strip() and common.startswith(answer_end):
        return answer_end
    end = 0
    headers = {header_token, *_first_of_prompts(render, renderer)}
    for start, stop, token in renderer.tokens_in(common):
        # What begins by words is a header ("Assistant:"), not a run of control tokens.
        if token in headers or (not end and common[:start].strip()):
            break
        end = stop
    return common[:end]


def _behind_user(text: str) -> str | None:
    position = text.rfind(_USER.content)
    return text[position + len(_USER.content) :] if position >= 0 else None


def _first_of_prompts(render: Render, renderer: TemplateRenderer) -> Iterator[str]:
    """Yield the first control token of generation prompts, with which an answer's header begins."""
    for messages in ([_USER], [_USER, _ANSWER]):
        text, prompt = render(messages, prompted=False), render(messages, prompted=True)
        if text and prompt.startswith(text):
            yield from (token for _, _, token in renderer.tokens_in(prompt[len(text) :])[:1])


def user_end_spans(text: str, spans: Sequence[Span], user_end: str) -> list[Span]:
    """Return the spans of what ends the users' turns in a text, each with its message.

    Args:
        spans: of everything else; those of users' contents say where a turn may end.
    """
    if not user_end:
        return []
    taken = {span.start for span in spans if span.end > span.start}
    return [
        Span(span.end, span.end + len(user_end), SpanKind.USER_END, span.message)
        for span in spans
        if span.kind == SpanKind.USER and text.startswith(user_end, span.end) and span.end not in taken
    ]
