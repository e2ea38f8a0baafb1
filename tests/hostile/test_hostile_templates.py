"""Hostile chat templates and tokenizers: a template is a stranger's program, and the run outlives it."""

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile_inputs import bad_row_said, lines_said, messages
from tiny import make_tiny_tokenizer

from instruction_modelling.chat import limits
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.rows.conversations import BadRow, Conversation, Message
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.row_encoder import row_encoder

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
RENDERED = "<user>Hello there</s><assistant>Well, hello</s>"
ROW = Conversation(0, 1, "a", "d", (Message("user", "Hello there"), Message("assistant", "Well, hello")))
OPEN_DOOR = "{{ lipsum.__globals__['os'].popen('touch DIR/door').read() }}"
TEMPLATES: dict[str, Any] = {
    "a loop without end": CHAT
    + "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a text that doubles": CHAT
    + "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a product of a hundred billion characters": CHAT + "{{ 'x' * 10**11 }}",
    "a list of ten billion": CHAT + "{% set x = [0] * (10**10) %}",
    "a range of a billion": CHAT + "{% for a in range(10**9) %}{% endfor %}",
    "a text far longer than the chat": CHAT + "{% for a in range(40000) %}{{ '%1000s' % 'a' }}{% endfor %}",
    "a macro that calls itself": CHAT + "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "brackets without end": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a loop left open": "{% for m in messages %}",
    "an unknown tag": "{% foo %}",
    "an unknown filter": CHAT + "{{ 'a' | nofilter }}",
    "a file included": CHAT + "{% include '/etc/passwd' %}",
    "a module imported": CHAT + "{% import 'os' as os %}",
    "an attribute with underscores": CHAT + "{{ ''.__class__.__mro__ }}",
    "globals of a function": CHAT + "{{ cycler.__init__.__globals__ }}",
    "a program started": CHAT + OPEN_DOOR,
    "a message changed": "{% for m in messages %}{% set _ = m.update({'content': 'x'}) %}{% endfor %}",
    "a message added": "{% set _ = messages.append({'role': 'user', 'content': 'x'}) %}" + CHAT,
    "a message left out": "{% for m in messages if m.role == 'user' %}<user>{{ m.content }}{% endfor %}",
    "a content cut short": "{% for m in messages %}{{ m.role }}{{ m.content | truncate(3) }}{% endfor %}",
    "a text that depends on the content": CHAT + "{{ messages[0].content | length }}",
    "a text drawn by chance": CHAT + "{{ range(1000) | random }}",
    "messages in reverse": CHAT.replace("in messages", "in messages | reverse"),
    "nothing written": "{# nothing #}",
    "an error raised": "{{ raise_exception('no\nway') }}",
    "a division by zero": CHAT + "{{ 1 / 0 }}",
    "an undefined variable": CHAT + "{{ nothing.at.all }}",
    "half a surrogate pair": CHAT + "{{ '\\ud800' }}",
    "a number as template": 3,
    "a list as template": [CHAT],
    "an object of numbers as template": {"default": 3},
}


def encoded(tokenizer: Any, chat_format: str = "auto") -> list[str]:
    lines = []
    for row in row_encoder(tokenizer, chat_format, 64).encode([ROW]):
        if isinstance(row, BadRow):
            lines.append(bad_row_said(row))
        else:
            lines += [f"{len(part.tokens.ids)} tokens: {part.rendered.text!r}" for part in row.sequences]
    return lines


def without(*names: str, template: Any = CHAT, **values: Any) -> Any:
    tokenizer = make_tiny_tokenizer(template)
    for name in names:
        setattr(tokenizer, name, None)
    for name, value in values.items():
        setattr(tokenizer, name, value)
    return tokenizer


def format_file(folder: Path, content: bytes) -> str:
    (folder / "chat.jinja").write_bytes(content)
    return str(folder / "chat.jinja")


TOKENIZERS: dict[str, Callable[[Path], list[str]]] = {
    "no BOS in the Tülu format": lambda folder: encoded(without("bos_token", template=None)),
    "no EOS in the Tülu format": lambda folder: encoded(without("eos_token", template=None)),
    "no BOS, EOS or pad in a template": lambda folder: encoded(
        without("bos_token", "eos_token", "pad_token")
    ),
    "an EOS that is new": lambda folder: encoded(without(eos_token="<none>")),
    "a template for tools that is broken": lambda folder: encoded(
        without(template={"default": CHAT, "tool_use": "{{"})
    ),
    "no template under the name tokenizer": lambda folder: encoded(without(template=None), "tokenizer"),
    "a file that is not there": lambda folder: encoded(without(), str(folder / "absent.jinja")),
    "a folder as the file": lambda folder: encoded(without(), str(folder)),
    "a file that is no text": lambda folder: encoded(without(), format_file(folder, b"\xff\xfe\0")),
    "an empty file": lambda folder: encoded(without(), format_file(folder, b"")),
    "a file that is no template": lambda folder: encoded(without(), format_file(folder, b"{% for")),
    "a file's name with NUL": lambda folder: encoded(without(), "a\0b"),
}
EXPECTED = messages("chat templates")


@pytest.fixture(autouse=True)
def small_limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough for all that ends by itself, on a busy machine too.
    monkeypatch.setattr(limits, "SECONDS", 0.5 if "a loop without end" in request.node.name else 60)
    monkeypatch.setattr(limits, "BYTES", 2**28)


def test_every_message_has_its_case() -> None:
    assert {*TEMPLATES, *TOKENIZERS} == set(EXPECTED)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_hostile_template_is_refused_in_these_words(name: str, tmp_path: Path) -> None:
    template = TEMPLATES[name]
    if isinstance(template, str):
        template = template.replace("DIR", str(tmp_path))
    address_space, handler = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    assert lines_said(lambda: encoded(without(template=template)), tmp_path) == EXPECTED[name]
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_AS) == address_space
    assert signal.getsignal(signal.SIGPROF) in (handler, limits._alarm)
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_without_its_tokens_is_honoured_or_refused(name: str, tmp_path: Path) -> None:
    assert lines_said(lambda: TOKENIZERS[name](tmp_path), tmp_path) == EXPECTED[name]


def test_an_answer_that_begins_as_the_prompt_goes_on_is_trained_from_its_first_letter() -> None:
    """What the generation prompt opens has the answer's first letters in common with it, by chance."""
    prompt = "{% if add_generation_prompt %}<assistant>Here are my steps:{% endif %}"
    template = CHAT.partition("{% if add")[0] + prompt
    row = replace(ROW, messages=(ROW.messages[0], Message("assistant", "Hello")))
    (encoded_row,) = row_encoder(without(template=template), "auto", 64).encode([row])
    assert isinstance(encoded_row, EncodedRow)
    (part,) = encoded_row.sequences
    written = [
        (span.kind, part.rendered.text[span.start : span.end])
        for span in part.rendered.spans
        if span.message == 1
    ]
    assert written == [(SpanKind.ASSISTANT, "Hello"), (SpanKind.END, "</s>")]


def test_a_timer_that_was_running_goes_on_and_its_signal_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGPROF, lambda *_: rung.append(1))
    left, interval = signal.setitimer(signal.ITIMER_PROF, 5.0)
    try:
        assert limits.within_limits(lambda: "text", 4) == "text"
        # The kernel counts in ticks.
        assert 0 < signal.getitimer(signal.ITIMER_PROF)[0] <= 5.1
        os.kill(os.getpid(), signal.SIGPROF)
        assert rung == [1]
    finally:
        signal.setitimer(signal.ITIMER_PROF, left, interval)
        signal.signal(signal.SIGPROF, before)


def test_a_busy_machine_is_no_fault_of_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.2)

    def wait() -> str:
        time.sleep(0.5)
        return "text"

    begin = time.monotonic()
    assert limits.within_limits(wait, 4) == "text"
    assert time.monotonic() - begin >= 0.5


def test_the_limits_grow_with_the_conversation() -> None:
    text = "a" * (limits.CHARACTERS + 1)
    limits.require_length(text, lambda: len(text) // 2)
    with pytest.raises(
        limits.UserError, match=f"writes {len(text):,} characters for one conversation of 9 char"
    ):
        limits.require_length(text, lambda: 9)
    assert limits.within_limits(lambda: text, len(text)) is text
