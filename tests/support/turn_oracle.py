"""What the model has to write in each turn of a chat, computed once more from `apply_chat_template` alone.

Nothing here marks a content or knows a span. For the assistant's turn i, P is the text of the messages
before it with the generation prompt, R the text of the messages through it. S is what R has after the longest
common prefix with P, up to the turn's end; where R rewrites the history, after the last place in R at which
the prompt's own text stands. The end is what follows the turn's last words both in R and with one more
message behind, up to the last control token of that; where nothing is common, what follows in R; where
nothing follows, the role token of whoever speaks next.
"""

import re
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

ASKED = {"role": "user", "content": "Qqfollowqq"}


class Untold(Exception):
    """The oracle cannot tell where the turn begins, or the template refuses the messages."""


@dataclass
class Oracle:
    """The renderings of one row by a tokenizer's template."""

    tokenizer: PreTrainedTokenizerBase
    messages: list[dict[str, Any]]
    tools: list[Any] | None
    parts: bool | None = None
    """Whether the template writes contents only where they are lists of parts."""

    def __post_init__(self) -> None:
        added = [token for token in self.tokenizer.added_tokens_decoder.values() if token.content.strip()]
        names = sorted((token.content for token in added), key=len, reverse=True)
        self.signs = re.compile("|".join(map(re.escape, names)))
        self.special = {token.content for token in added if token.special}

    def render(self, messages: list[dict[str, Any]], prompted: bool = False) -> str | None:
        """Return the template's text of messages; None where it refuses them."""
        if self.parts is None:
            self.parts = False
            self.parts = ASKED["content"] not in (self.render([ASKED]) or ASKED["content"])
        if self.parts:
            messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, tools=self.tools, add_generation_prompt=prompted, tokenize=False
                )
            )
        except Exception:
            return None

    def header_sign(self) -> str:
        """Return the sign that begins a message's header."""
        text = self.render([ASKED]) or ""
        before = text[: max(0, text.find(ASKED["content"]))]
        skipped = {str(self.tokenizer.bos_token), "[gMASK]", "<sop>"}
        return next((found[0] for found in self.signs.finditer(before) if found[0] not in skipped), "")

    def written(self, index: int) -> str:
        """Return S of the assistant's turn at message `index`."""
        text = self.render(self.messages[: index + 1])
        prompt = self.render(self.messages[:index], True) if index else None
        if text is None or not prompt:
            raise Untold
        start = self._start(index, text, prompt)
        end, role = self._end(index, text, start)
        written, content = text[start:end] + role, str(self.messages[index]["content"])
        if content.strip().split("</think>")[-1].strip() not in written:
            # Gemma 4 writes the words of a turn behind the results of its calls, once they are there.
            raise Untold
        return written

    def _start(self, index: int, text: str, prompt: str) -> int:
        same = _same(prompt, text)
        words = [str(message["content"]).strip() for message in self.messages[:index]]
        history = max(
            (prompt.rfind(word) + len(word) for word in words if word and word in prompt), default=0
        )
        if same >= history:
            return self._before_sign(prompt, self._before_sign(text, same)) if same < len(prompt) else same
        plain = self.render(self.messages[:index])
        opening = prompt[len(plain) :] if plain and prompt.startswith(plain) else ""
        message = self.messages[index]
        first = str(message.get("reasoning_content") or message["content"]).strip()
        limit = text.rfind(first) if first else len(text)
        position = text.rfind(opening, 0, limit if limit >= 0 else len(text)) if opening else -1
        if position < 0:
            raise Untold
        return position + len(opening)

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
        row = Oracle(self.tokenizer, [ASKED, {"role": "assistant", "content": "Aqfol0w"}], None)
        text = row.render(row.messages) or ""
        tail = text[text.rfind("Aqfol0w") + 7 :]
        return bool(self._until(tail, self.header_sign()))

    def _until(self, text: str, sign: str) -> list[re.Match[str]]:
        found = []
        for match in self.signs.finditer(text):
            if match[0] == sign:
                break
            found.append(match)
        return found


def _same(one: str, other: str) -> int:
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)
