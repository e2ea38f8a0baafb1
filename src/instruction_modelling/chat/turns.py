"""What the model has to write in each assistant's turn of a template's chat, from the template's texts alone.

With P the text of the messages before a turn with the generation prompt, and R the text of the messages
through it, the model is asked P and has to write S: what R has after its common prefix with P, up to the end
of the turn. S holds opening tags, reasoning, content, calls and every part of the end, and nothing of the
next message's header.

The end is what follows the turn's content both where the turn is the last message and where another follows
it, up to the last control token of that. Where nothing is common to the two (gpt-oss), what follows as the
last message counts. Where nothing at all follows (GLM), the model stops by writing the role token of whoever
speaks next, so that token is appended."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from instruction_modelling.chat.prompts import takes_up
from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.chat.renderings import Renderings
from instruction_modelling.chat.spans import Span, SpanKind
from instruction_modelling.chat.turn_spans import Turn, common_prefix
from instruction_modelling.chat.user_ends import find_user_end
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.conversations import Conversation, Message
from instruction_modelling.rows.messages import REASONING_KEYS

# Tags that a model writes in its answers too: they are no sign that only the format writes.
_THINK_TAGS = ("<think>", "</think>")
# Where a prompt has opened it, a content begins within the thought; its closing tag has a line of its own.
_THOUGHT_IN_CONTENT = re.compile(
    r"\s*<think>.*?</think>\s*|(?:(?!<think>).)*?\n</think>(?=\s*\n|\s*\Z)\s*", re.DOTALL
)
_USER, _ANSWER, _THOUGHT = Message("user", "Uqfol0w"), Message("assistant", "Aqfol0w"), "Rqfol0w"
_CALL = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": "look_up", "arguments": {"key": "Vqfol0w"}},
}
_SECOND_CALL = {**_CALL, "id": "abcdef124"}
_TOOL = Message("tool", "Tqfol0w", tool_call_id="abcdef123", name="look_up")
_KEY = {"type": "string", "description": "the key"}
_TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Look up a key.",
            "parameters": {"type": "object", "properties": {"key": _KEY}, "required": ["key"]},
        },
    },
)


class TurnFinder:
    """Finds the assistant's turns in conversations, for one template and its variables."""

    control_tokens: tuple[str, ...]
    """The added tokens by which the template tells turns apart."""
    user_end: str
    """What ends a user's turn (`user_ends`); "" where the template has nothing for that."""
    end_strings: tuple[str, ...]
    """The tokens at which generation stops: the last of the end of an answer, a call and an answer after
    reasoning, unless it also occurs within one of these turns."""
    reasoning_keys: tuple[str, ...]
    """Those of `REASONING_KEYS` under which the template writes reasoning."""

    def __init__(
        self,
        renderer: TemplateRenderer,
        variables: dict[str, Any] | None = None,
        end_of_turn: str | None = None,
    ):
        """Take a template, its variables, and the token that ends each turn of one that writes no end.

        Raises:
            UserError: the template writes an end, or the token is no token of the tokenizer's.
        """
        self.renderer, self._variables = renderer, variables or {}
        self._end_of_turn: str | None = None
        self._header = ""
        # Templates named for tools write nothing, or no message, without any.
        self._tools = () if _USER.content in self._text([_USER], ()) else _TOOLS
        self._header_token = self._first_header_token()
        # The end of a plain answer, and the role token after it where it has none.
        self.answer_end, self.answer_appended = "", ""
        self._opening = ""
        probe = self._probe([_USER, _ANSWER])
        if probe is not None:
            self.answer_end = probe.text[probe.end_start : probe.end]
            self.answer_appended = probe.appended
            self._opening = probe.text[probe.start : probe.ranges[0].start] if probe.ranges else ""
            self._header = self._before_answer(probe)
        if end_of_turn is not None:
            self._take_end_of_turn(end_of_turn)
            probe = self._probe([_USER, _ANSWER])
        self.user_end = find_user_end(self._text, renderer, self._header_token, self.answer_end)
        self.control_tokens = self._control_tokens()
        self.reasoning_keys = tuple(key for key in REASONING_KEYS if self._writes_reasoning(key))
        self.end_strings = self._stop_tokens(probe)

    # -- what the template writes around contents it knows ---------------------------------------------

    def _text(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        prompted: bool = False,
    ) -> str:
        """Return the text of messages, with the tools that the template needs where none are given; "" where
        the template refuses them."""
        try:
            tools = self._tools if tools is None else tools
            return self.renderer.render(messages, tools, prompted, self._variables)
        except RowRefused:
            return ""

    def _first_header_token(self) -> str:
        """Return the control token that begins a message's header; "" where there is none."""
        text = self._text([_USER]) or self._text([Message("system", "S"), _USER])
        before = text[: max(0, text.find(_USER.content))]
        bos = str(self.renderer.bos)
        # ChatGLM's sequences begin with two tokens of their own.
        starts = {bos, "[gMASK]", "<sop>"}
        return next((token for _, _, token in self.renderer.tokens_in(before) if token not in starts), "")

    def _writes_reasoning(self, key: str) -> bool:
        """Return whether the template writes reasoning that stands under this key alone."""
        answer = {"role": "assistant", "content": _ANSWER.content, key: _THOUGHT}
        call = {**answer, "content": "", "tool_calls": [_CALL]}
        for fields, tools in ((answer, self._tools), (call, _TOOLS)):
            try:
                messages = [_USER.for_template(), fields]
                if _THOUGHT in self.renderer.render_fields(messages, tools, False, self._variables):
                    return True
            except RowRefused:
                continue
        return False

    def _probe(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None
    ) -> Turn | None:
        """Return the last turn of a made-up conversation; None where the template refuses it."""
        tools = self._tools if tools is None else tools
        row = Conversation(0, 0, "", "", tuple(messages), tuple(tools), template_variables=self._variables)
        try:
            return self.turn(Renderings(self.renderer, row), len(messages) - 1)
        except RowRefused:
            return None

    def _before_answer(self, probe: Turn) -> str:
        """Return what the template writes between a user's content and the start of the answer."""
        begin = probe.text.rfind(_USER.content, 0, probe.start) + len(_USER.content)
        return probe.text[begin : probe.start] if begin >= len(_USER.content) else ""

    def _take_end_of_turn(self, token: str) -> None:
        if token not in self.renderer.added_tokens:
            raise UserError(
                f"--end_of_turn {token}: none of the tokenizer's added tokens, each of which is one token "
                "wherever it stands; give one of them"
                + (f", such as {self.renderer.eos}" if self.renderer.eos else "")
            )
        ends = self.answer_end or self.answer_appended
        if ends:
            raise UserError(
                f"--end_of_turn {token}: this chat format ends a turn by itself, with {ends.strip()}; leave "
                "--end_of_turn out"
            )
        self._end_of_turn = self.answer_appended = token

    def _control_tokens(self) -> tuple[str, ...]:
        written = self._text([_USER, _ANSWER, _USER]) or self._text([_USER, _ANSWER])
        written += self._text([Message("system", "S1"), _USER])
        tokens = [token for token in self.renderer.added_tokens if token in written]
        tokens += [token for _, _, token in self.renderer.tokens_in(self.answer_end + self.answer_appended)]
        tokens += [self.renderer.eos] if self.renderer.eos else []
        # A word that is an added token (`user`, say) is a word in the data, too.
        signs = (token for token in tokens if token not in _THINK_TAGS and not token.isalnum())
        return tuple(dict.fromkeys(signs))

    def _stop_tokens(self, answer: Turn | None) -> tuple[str, ...]:
        key = next(iter(self.reasoning_keys), REASONING_KEYS[0])
        thinking = Message("assistant", _ANSWER.content, reasoning_content=_THOUGHT, reasoning_key=key)
        calling = Message("assistant", "", tool_calls=(_CALL,))
        # What ends a call ends no turn where it also stands between two calls.
        twice = Message("assistant", "", tool_calls=(_CALL, _SECOND_CALL))
        # A probe whose thought or call the template leaves out shows a turn that no row can have.
        turns = [
            (answer, ""),
            (self._probe([_USER, thinking]), _THOUGHT),
            (self._probe([_USER, calling], _TOOLS), "look_up"),
            (self._probe([_USER, twice], _TOOLS), "look_up"),
            (self._probe([_USER, calling, _TOOL, _ANSWER], _TOOLS), ""),
        ]
        lasts: list[str] = []
        within: set[str] = set()
        for turn in [turn for turn, text in turns if turn is not None and text in turn.written]:
            tokens = [token for _, _, token in self.renderer.tokens_in(turn.written)]
            ends = self.renderer.tokens_in(turn.text[turn.end_start : turn.end] + turn.appended)
            if ends:
                lasts.append(ends[-1][2])
                tokens = tokens[:-1]
            within.update(tokens)
        stops = [token for token in dict.fromkeys(lasts) if token not in within]
        if not stops and self.renderer.eos:
            stops = [self.renderer.eos]
        return tuple(stops)

    # -- a turn of a conversation ----------------------------------------------------------------------

    def turn(self, row: Renderings, index: int) -> Turn:
        """Return the assistant's turn at message `index`.

        Raises:
            RowRefused: the template refuses the messages through it, or it cannot be told where the turn
                begins.
        """
        count = row.rendered_from(index + 1)
        text, ranges = row.text(count), row.ranges(count)
        texts = [Span(r.start, r.end, r.mark.kind, index) for r in ranges if r.mark.message == index]
        if index and not any(span.end > span.start for span in texts) and text == row.text_or_none(index):
            # The template leaves the turn out: the model has nothing to write.
            return Turn(index, text, len(text), len(text), len(text))
        texts = [span for span in texts if span.end > span.start or span.kind == SpanKind.ASSISTANT]
        before = max((r.end for r in ranges if r.mark.message < index), default=0)
        texts = [part for span in texts for part in thought_apart(span, text)]
        start, rewrites, differs = self.start(row, index, text, before, texts)
        asked = ""
        if differs and count == index + 1:
            opened = (row.text_or_none(index, prompted=True) or "")[start:]
            if takes_up(text[before:start], opened, text[start:]):
                asked, differs = opened, False
        message = row.conversation.messages[index]
        # A thought that the prompt has opened (`<think>` within the content) is the turn's from there on.
        texts = [replace(span, start=max(start, span.start)) for span in texts if span.end >= start]
        content_end = max((span.end for span in texts), default=start)
        end, appended = self._end(row, index, text, content_end)
        end_start = self._end_start(text, content_end, end, appended)
        if message.tool_calls:
            texts.append(Span(end_start, end_start, SpanKind.TOOL_CALLS, index))
        turn = Turn(index, text, start, end_start, end, appended, rewrites, differs, asked)
        return replace(turn, opening=self._opening, ranges=tuple(texts))

    def start(
        self, row: Renderings, index: int, text: str, before: int, texts: Sequence[Span]
    ) -> tuple[int, bool, bool]:
        """Return where S begins in R, whether R writes the history otherwise than P, and whether P opens
        something that S does not go on with."""
        first = texts[0].start if texts else len(text)
        prompt = row.text_or_none(index, prompted=True) if index else None
        if prompt:
            same = common_prefix(prompt, text)
            if same == len(prompt):
                return same, False, False
            history = row.text_or_none(index)
            # A template that writes its generation prompt whether asked or not has no history of its own.
            asks = history and history != prompt and prompt.startswith(history)
            if same >= before and not (asks and same < len(history or "")):
                # Where it lies within an ordinary token, that token goes to the turn, as its last character.
                start = self.renderer.token_start(text, self.renderer.token_start(prompt, same))
                opened = text[:first].rstrip()
                begin = len(opened.removesuffix(_THINK_TAGS[0])) if opened.endswith(_THINK_TAGS[0]) else first
                if text[begin:start].strip() not in ("", *_THINK_TAGS):
                    # The answer's first letters are those of what the prompt opens, by chance.
                    start = begin
                return start, False, True
        # The history is written otherwise, or there is none: the prompt's own text is looked for after it.
        history = row.text_or_none(index) if index else None
        header = prompt[len(history) :] if prompt and history and prompt.startswith(history) else self._header
        for part in self._parts_of_header(header):
            position = text.rfind(part, before, first)
            if position >= 0:
                return position + len(part), bool(index), False
        if texts and text[:first].endswith(self._opening):
            return first - len(self._opening), bool(index), False
        if texts and not index:
            # A first message without any header (DeepSeek V3.2's).
            return first, False, False
        raise RowRefused(
            "spans cannot be derived",
            f"message {index}: where the assistant's turn begins cannot be told from the chat template",
        )

    def _parts_of_header(self, header: str) -> list[str]:
        """Return a header, and what is left of it without the end of the message before it or without what it
        opens: its parts between control tokens, the longest first."""
        starts = [begin for begin, _, _ in self.renderer.tokens_in(header)]
        cuts = sorted({0, *starts}), sorted({len(header), *(cut for cut in starts if cut)})
        parts = {header[start:stop] for start in cuts[0] for stop in cuts[1] if start < stop}
        return sorted((part for part in parts if part.strip()), key=len, reverse=True)

    def _end(self, row: Renderings, index: int, text: str, content_end: int) -> tuple[int, str]:
        """Return where S ends in R, and the token to append where the template writes no end."""
        message = row.conversation.messages[index]
        tail = text[content_end:]
        if self._end_of_turn is not None:
            # Words that end a turn both as the last and before another message are the turn's, too.
            afters = (row.followed(index + 1, other) for other in self._followers(row.conversation, index))
            gaps = (self._gap_after(after, text, content_end) for after in afters)
            kept = common_prefix(tail, next((gap for gap in gaps if gap is not None), tail))
            return content_end + len(tail[:kept].rstrip()), self._end_of_turn
        stripped = len(tail) - len(tail.lstrip())
        if message.tool_calls:
            closed = text.rstrip()
            if self.answer_end and closed.endswith(self.answer_end) and len(closed) >= content_end:
                return len(closed), ""
        elif self.answer_end and tail.startswith(self.answer_end, stripped):
            return content_end + stripped + len(self.answer_end), ""
        elif self.answer_appended and not tail.strip():
            return content_end, self.answer_appended
        for follower in self._followers(row.conversation, index):
            after = row.followed(index + 1, follower)
            gap = self._gap_after(after, text, content_end)
            if gap is not None:
                return self._common_end(tail, gap, content_end, bool(message.tool_calls))
        tokens = self._without_header(self.renderer.tokens_in(tail))
        return content_end + (tokens[-1][1] if tokens else len(tail.rstrip())), ""

    @staticmethod
    def _followers(conversation: Conversation, index: int) -> list[list[Message]]:
        """Return what may follow a turn: a tool's result after calls (the row's own where it is there), and a
        user's message."""
        message = conversation.messages[index]
        followers = [[_USER]]
        if message.tool_calls:
            call = message.tool_calls[0]
            name = str((call.get("function") or call).get("name", ""))
            result = Message(
                "tool", _TOOL.content, tool_call_id=str(call.get("id") or "abcdef123"), name=name
            )
            after = conversation.messages[index + 1 : index + 2]
            followers.insert(0, [after[0] if after and after[0].role == "tool" else result])
        return followers

    @staticmethod
    def _gap_after(after: str | None, text: str, content_end: int) -> str | None:
        """Return what follows the turn's content in `after`, the text with another message behind it; None
        where the content is not found there."""
        if after is None:
            return None
        if after[:content_end] == text[:content_end]:
            return after[content_end:]
        # The turn is written otherwise once another message follows: the last words of its content are found.
        words = text[:content_end][-40:]
        position = after.rfind(words)
        return after[position + len(words) :] if words and position >= 0 else None

    def _common_end(self, tail: str, gap: str, content_end: int, has_calls: bool) -> tuple[int, str]:
        """Return the end from what follows the content where the turn is the last (`tail`) and an earlier
        message (`gap`)."""
        same = common_prefix(tail, gap)
        same = min(self.renderer.token_start(tail, same), self.renderer.token_start(gap, same))
        tokens = self.renderer.tokens_in(tail[:same])
        if same < len(tail.rstrip()):
            tokens = self._without_header(tokens)
        written = len(tail.rstrip())
        own = [token for _, _, token in tokens[-1:] if token != self.answer_appended]
        if has_calls and self.answer_appended and same >= written and own:
            # Calls close with tokens of their own, which end no turn in a format whose answers have no end.
            tokens = []
        if tokens:
            return content_end + tokens[-1][1], ""
        alone = self._without_header(self.renderer.tokens_in(tail))
        if alone and not (has_calls and self.answer_appended):
            return content_end + alone[-1][1], ""
        following = self.renderer.tokens_in(gap[written if has_calls else 0 :])
        first = following[0] if following else None
        before = gap[written if has_calls else 0 :][: first[0]] if first else "x"
        if first and first[2] in self.renderer.special_tokens and not before.strip():
            return content_end + (written if has_calls else 0), first[2]
        return content_end + (written if has_calls else 0), ""

    def _without_header(self, tokens: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        """Return the tokens up to the next message's header, which some templates write after the last turn
        whether or not they are asked for a generation prompt."""
        for number, (_, _, token) in enumerate(tokens):
            if token == self._header_token:
                return tokens[:number]
        return tokens

    def _end_start(self, text: str, content_end: int, end: int, appended: str) -> int:
        """Return where the end of a turn begins in R: before an answer's usual end, else before the last
        control token."""
        if appended:
            return end
        if (
            self.answer_end
            and text[:end].endswith(self.answer_end)
            and end - len(self.answer_end) >= content_end
        ):
            return end - len(self.answer_end)
        tokens = self.renderer.tokens_in(text[content_end:end])
        if not tokens or tokens[-1][1] != end - content_end:
            return end
        # The first answer of all, from which the usual end is learnt, ends by everything after its content.
        return content_end + (tokens[-1] if self.answer_end or self.answer_appended else tokens[0])[0]


def thought_apart(span: Span, text: str) -> list[Span]:
    """Return a content's span, cut behind the thought that it begins with or within, if any."""
    if span.kind != SpanKind.ASSISTANT or text.find(_THINK_TAGS[1], span.start, span.end) < 0:
        return [span]
    thought = _THOUGHT_IN_CONTENT.match(text, span.start, span.end)
    if thought is None:
        return [span]
    return [replace(span, end=thought.end(), kind=SpanKind.REASONING), replace(span, start=thought.end())]
