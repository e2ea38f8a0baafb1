"""What the model has to write in each turn of a chat, computed once more from `apply_chat_template` alone.

Nothing here marks a content or knows a span. For the assistant's turn i, P is the text of the messages
before it with the generation prompt, R the text of the messages through it. S is what R has after the longest
common prefix with P, up to the turn's end; where R rewrites the history, after the last place in R at which
the prompt's own text stands. The end is what follows the turn's last words both in R and with one more
message behind, up to the last control token of that; where nothing is common, what follows in R; where
nothing follows, the role token of whoever speaks next.

The model reads P before S. Where P opens something that S leaves open, or closes what S closes, no S can
follow it: then the model reads R up to S.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

# What templates open and close.
PAIRS = (
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
)
ASKED = {"role": "user", "content": "Qqfollowqq"}
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


class Untold(Exception):
    """The oracle cannot tell where the turn begins, or the template refuses the messages."""


@dataclass(frozen=True)
class Written:
    """One turn: what the model reads before it, and what it has to write."""

    before: str
    text: str
    rewrites: bool
    """Whether R writes the history otherwise than P, so that the turn can only stand behind P."""


@dataclass
class Oracle:
    """The renderings of one row by a tokenizer's template."""

    tokenizer: PreTrainedTokenizerBase
    messages: list[dict[str, Any]]
    tools: list[Any] | None
    variables: Mapping[str, Any] = field(default_factory=dict)
    parts: bool | None = None
    """Whether the template writes contents only where they are lists of parts."""

    def __post_init__(self) -> None:
        added = [token for token in self.tokenizer.added_tokens_decoder.values() if token.content.strip()]
        names = sorted((token.content for token in added), key=len, reverse=True)
        self.signs = re.compile("|".join(map(re.escape, names)))
        self.special = {token.content for token in added if token.special}
        self.texts: dict[str, str | None] = {}
        self.turns: dict[int, Written | Untold] = {}
        if self.render(self.messages) is None:
            # Some templates take the arguments of calls as JSON strings alone.
            given, self.messages = self.messages, [_with_string_arguments(m) for m in self.messages]
            if self.render(self.messages) is None:
                self.messages = given
        self._name_reasoning()

    def _name_reasoning(self) -> None:
        """Put reasoning under the first key under which the template writes it."""
        self.reasoning_key = REASONING_KEYS[0]
        thoughts = [m["reasoning_content"] for m in self.messages if m.get("reasoning_content")]
        for key in REASONING_KEYS if thoughts else ():
            named = [
                {key if name == "reasoning_content" else name: value for name, value in message.items()}
                for message in self.messages
            ]
            shown = [self.render(named[: index + 1]) or "" for index in range(len(named))]
            if any(thought in text for thought in thoughts for text in shown):
                self.reasoning_key, self.messages = key, named
                return

    def render(self, messages: list[dict[str, Any]], prompted: bool = False) -> str | None:
        """Return the template's text of messages; None where it refuses them."""
        if self.parts is None:
            self.parts = False
            self.parts = ASKED["content"] not in (self.render([ASKED]) or ASKED["content"])
            self.texts = {}
        key = json.dumps([messages, prompted])
        if key not in self.texts:
            self.texts[key] = self._rendered(messages, prompted)
        return self.texts[key]

    def _rendered(self, messages: list[dict[str, Any]], prompted: bool) -> str | None:
        if self.parts:
            messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tools=self.tools,
                    add_generation_prompt=prompted,
                    tokenize=False,
                    **self.variables,
                )
            )
        except Exception:
            return None

    @property
    def answers(self) -> list[int]:
        """Return the indices of the assistant's messages."""
        return [index for index, message in enumerate(self.messages) if message["role"] == "assistant"]

    def header_sign(self) -> str:
        """Return the sign that begins a message's header."""
        text = self.render([ASKED]) or ""
        before = text[: max(0, text.find(ASKED["content"]))]
        skipped = {str(self.tokenizer.bos_token), "[gMASK]", "<sop>"}
        return next((found[0] for found in self.signs.finditer(before) if found[0] not in skipped), "")

    # -- a turn ----------------------------------------------------------------------------------------

    def turn(self, index: int) -> Written:
        """Return what stands before the assistant's turn at message `index`, and S.

        Raises:
            Untold: it cannot be told.
        """
        if index not in self.turns:
            try:
                self.turns[index] = self._turn(index)
            except Untold as untold:
                self.turns[index] = untold
        found = self.turns[index]
        if isinstance(found, Untold):
            raise found
        return found

    def written(self, index: int) -> str:
        """Return S of the assistant's turn at message `index`; as `turn`."""
        return self.turn(index).text

    def _turn(self, index: int) -> Written:
        text = self.render(self.messages[: index + 1])
        prompt = self.render(self.messages[:index], True) if index else None
        if text is None or not prompt:
            raise Untold
        start, rewrites = self._start(index, text, prompt)
        end, role = self._end(index, text, start)
        written, content = text[start:end] + role, str(self.messages[index]["content"])
        thought, _, words = content.strip().rpartition("</think>")
        if (words.strip() or thought.partition("<think>")[2].strip()) not in written:
            # Gemma 4 writes the words of a turn behind the results of its calls, once they are there.
            raise Untold
        if not rewrites and start < len(prompt) and self._taken_up(index, prompt, start, written):
            return Written(prompt, written, True)
        return Written(prompt if rewrites else text[:start], written, rewrites)

    def user_end(self, index: int) -> str | None:
        """Return what ends the user's turn at message `index`; None where the template refuses every way in
        which it may go on. It is the run of signs behind the words that is the same in all of these ways,
        before any header; a sign that ends a plain answer, too, ends it alone."""
        before, content = self.messages[: index + 1], str(self.messages[index]["content"])
        answer = {"role": "assistant", "content": "Aqfol0w"}
        ways = [
            self.render(before),
            self.render(before, True),
            self.render([*before, answer]),
            self.render([*before, ASKED]),
        ]
        # Some templates keep the whitespace behind a content, which is the content's then.
        words = content.strip()
        kept = words + content[len(content.rstrip()) :]
        words = kept if kept in (ways[0] or ways[2] or "") else words
        tails = [text[text.rfind(words) + len(words) :] for text in ways if text and words in text]
        if not tails:
            return None
        common = min(tails, key=len)
        for tail in tails:
            common = common[: self._before_sign(tail, self._before_sign(common, _same(tail, common)))]
        headers = {self.header_sign()}
        for asked, plain in ((ways[1], ways[0]), (self.render([*before, answer], True), ways[2])):
            if asked and plain and asked.startswith(plain):
                headers.update(found[0] for found in [self.signs.search(asked[len(plain) :])] if found)
        answers = [found[0] for found in self._answers_signs()]
        run = ""
        for found in self.signs.finditer(common):
            if found[0] in headers or (not run and common[: found.start()].strip()):
                break
            run = common[: found.end()]
            if [other[0] for other in self.signs.finditer(run)] == answers:
                break
        return run

    def _taken_up(self, index: int, prompt: str, start: int, written: str) -> bool:
        """Return whether S goes on from all of P: nothing but what is opened and closed stands there, and
        each of it is open and closed in turn, and closed at the end."""
        plain = self.render(self.messages[:index]) or ""
        header = len(plain) if prompt.startswith(plain) and len(plain) <= start else start
        rest = prompt[start:].replace("<|channel>thought", "<|channel>")
        for opening, closing in PAIRS:
            rest = rest.replace(opening, "").replace(closing, "")
            signs = re.findall(f"{re.escape(opening)}|{re.escape(closing)}", prompt[header:] + written)
            if signs != [opening, closing] * (len(signs) // 2):
                return False
        return not rest.strip()

    def _start(self, index: int, text: str, prompt: str) -> tuple[int, bool]:
        same = _same(prompt, text)
        words = [str(message["content"]).strip() for message in self.messages[:index]]
        history = max(
            (prompt.rfind(word) + len(word) for word in words if word and word in prompt), default=0
        )
        plain = self.render(self.messages[:index])
        # What P writes before it asks may itself be written otherwise in R (an end behind a tool's result).
        asked = len(plain) if plain and plain != prompt and prompt.startswith(plain) else 0
        if same >= max(history, asked):
            if same == len(prompt):
                return same, False
            start = self._before_sign(prompt, self._before_sign(text, same))
            # Letters that the answer and what the prompt opens have in common by chance are the answer's.
            content = str(self.messages[index]["content"]).strip()
            begin = text.find(content, history) if content else -1
            by_chance = 0 <= begin < start and text[begin:start].strip() not in ("<think>", "</think>")
            return begin if by_chance else start, False
        opening = prompt[len(plain) :] if plain and prompt.startswith(plain) else ""
        message = self.messages[index]
        first = str(message.get(self.reasoning_key) or message["content"]).strip()
        limit = text.rfind(first) if first else len(text)
        position = text.rfind(opening, 0, limit if limit >= 0 else len(text)) if opening else -1
        if position < 0:
            raise Untold
        return position + len(opening), True

    def last_words(self, index: int) -> str:
        """Return the last text of the data in a turn; "" where it ends by calls."""
        message = self.messages[index]
        return (
            "" if message.get("tool_calls") else str(message["content"]).strip().split("</think>")[-1].strip()
        )

    def _before_sign(self, text: str, position: int) -> int:
        inside = (
            found.start() for found in self.signs.finditer(text) if found.start() < position < found.end()
        )
        return next(inside, position)

    def _end(self, index: int, text: str, start: int) -> tuple[int, str]:
        words, calls = self.last_words(index), self.messages[index].get("tool_calls")
        content_end = text.rfind(words) + len(words) if words else start
        content = str(self.messages[index]["content"])
        kept = content[len(content.rstrip()) :]
        if words and text.startswith(kept, content_end):
            content_end, words = content_end + len(kept), words + kept
        follower = ASKED
        if calls:
            after = self.messages[index + 1 : index + 2]
            name = calls[0]["function"]["name"]
            result = {"role": "tool", "content": "Qqfollowqq", "tool_call_id": calls[0]["id"], "name": name}
            follower = after[0] if after and after[0]["role"] == "tool" else result
        tail, header = text[content_end:], self.header_sign()
        more = self.render([*self.messages[: index + 1], follower])
        if more is None:
            signs = self._until(tail, header)
            return content_end + (signs[-1].end() if signs else len(tail.rstrip())), ""
        position = more.rfind(words) + len(words) if words else _same(text, more) - _same(tail, more[start:])
        gap = more[position:] if words else more[start:] if more[:start] == text[:start] else None
        if gap is None:
            raise Untold
        common = tail[: self._before_sign(gap, self._before_sign(tail, _same(tail, gap)))]
        signs = (
            self._until(common, header)
            if len(common) < len(tail.rstrip())
            else list(self.signs.finditer(common))
        )
        answers_end = self._answers_end()
        if calls and not answers_end:
            length = len(tail.rstrip())
            following = self.signs.search(gap, length)
            if following and following[0] in self.special and not gap[length : following.start()].strip():
                return content_end + length, following[0]
        if signs:
            return content_end + signs[-1].end(), ""
        alone = self._until(tail, header)
        if alone:
            return content_end + alone[-1].end(), ""
        following = self.signs.search(gap)
        if following and following[0] in self.special and not gap[: following.start()].strip():
            return content_end, following[0]
        return content_end + (len(tail.rstrip()) if calls else 0), ""

    def _answers_end(self) -> bool:
        """Return whether the template ends a plain answer by a sign of its own."""
        return bool(self._answers_signs())

    def _answers_signs(self) -> list[re.Match[str]]:
        """Return the signs behind a plain answer, up to the next header."""
        text = self.render([ASKED, {"role": "assistant", "content": "Aqfol0w"}]) or ""
        tail = text[text.rfind("Aqfol0w") + 7 :]
        return self._until(tail, self.header_sign())

    def _until(self, text: str, sign: str) -> list[re.Match[str]]:
        found = []
        for match in self.signs.finditer(text):
            if match[0] == sign:
                break
            found.append(match)
        return found

    # -- the row ---------------------------------------------------------------------------------------

    def shown(self) -> list[str]:
        """Return every text that the model may read of the row: of its first messages, with the generation
        prompt and without."""
        texts = [
            self.render(self.messages[:count], prompted)
            for count in range(1, len(self.messages) + 1)
            for prompted in (False, True)
        ]
        return [text for text in texts if text]

    def lost(self) -> str:
        """Return what the template was given and writes nowhere, in a few words; "" where it writes all."""
        everything = "\n".join(self.shown())
        for index, message in enumerate(self.messages):
            turn = self._from_turn_on(index)
            thought, _, words = str(message["content"]).rpartition("</think>")
            if not _written(words, everything):
                return f"{message['role']} text"
            thoughts = [thought.partition("<think>")[2], str(message.get(self.reasoning_key) or "")]
            if not all(_written(text, turn) for text in thoughts):
                return "reasoning"
            if self._drops_a_call(index):
                return "calls"
            beside = turn.replace(words.strip(), "", 1)
            for call in message.get("tool_calls") or []:
                if not _written(call["function"]["name"], beside):
                    return "calls"
                arguments = call["function"]["arguments"]
                values = json.loads(arguments) if isinstance(arguments, str) else arguments
                if not all(_written(value, turn) for value in _leaves(values)):
                    return "arguments of calls"
        if self.tools:
            without = Oracle(self.tokenizer, self.messages, None, self.variables).shown()
            if "\n".join(without) == everything:
                return "definitions of tools"
        return ""

    def _drops_a_call(self, index: int) -> bool:
        """Return whether the template writes the same without one of a message's calls."""
        message, through = self.messages[index], self.render(self.messages[: index + 1])
        calls = message.get("tool_calls") or []
        for left_out in range(len(calls)):
            others = [call for number, call in enumerate(calls) if number != left_out]
            kept = {key: value for key, value in message.items() if key != "tool_calls"}
            without = {**kept, "tool_calls": others} if others else kept
            if through is not None and self.render([*self.messages[:index], without]) == through:
                return True
        return False

    def _from_turn_on(self, index: int) -> str:
        """Return what the template writes of message `index` and, where it cannot be had alone, of those
        after it: what follows the common prefix of the texts before it and through it."""
        counts = range(index + 1, len(self.messages) + 1)
        through = next((text for count in counts if (text := self.render(self.messages[:count]))), "")
        before = self.render(self.messages[:index], True) or self.render(self.messages[:index]) or ""
        return through[_same(before, through) :]

    def fewest_sequences(self) -> int:
        """Return the least number of sequences that hold each turn in place, each a stretch of turns.

        Raises:
            Untold: a turn cannot be told.
        """
        answers = self.answers
        least = [0] * (len(answers) + 1)
        for first in range(len(answers) - 1, -1, -1):
            least[first] = 1 + min(
                least[last + 1] for last in range(first, len(answers)) if self._stand_together(first, last)
            )
        return least[0]

    def _stand_together(self, first: int, last: int) -> bool:
        """Return whether one sequence can hold the turns from the first to the last of these."""
        if first == last:
            return True
        answers = self.answers
        bound = answers[last + 1] if last + 1 < len(answers) else len(self.messages)
        turns = [self.turn(index) for index in answers[first : last + 1]]
        if any(turn.rewrites for turn in turns):
            return False
        for through in range(answers[last], bound):
            text = self.render(self.messages[: through + 1])
            earlier = turns if through > answers[last] else turns[:-1]
            if text and all(text.startswith(turn.before + turn.text) for turn in earlier):
                return True
        return False


def _with_string_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def _written(value: Any, text: str) -> bool:
    """Return whether a value stands in a text, as it is or as JSON or XML writes it."""
    if not isinstance(value, str):
        return json.dumps(value) in text or str(value) in text
    ways = (value, json.dumps(value)[1:-1], html.escape(value), html.escape(value, quote=False))
    return any(way.strip() in text for way in ways)


def _same(one: str, other: str) -> int:
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)
