"""A conversation on the terminal: its answers are those of plain transformers, and the whole of it stands
before each."""

import json
import re
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_tiny_model
from training_runs import run

from instruction_modelling.errors import UserError
from instruction_modelling.generation.base import Request
from instruction_modelling.generation.talk import Talk, TalkOptions, shown, talk

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("talk") / "a model", TEMPLATE)


def plain_answer(model: Path, messages: list[dict[str, str]], count: int) -> str:
    """What transformers alone answers, from the saved files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    asked = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    given = network.generate(**asked, max_new_tokens=count, do_sample=False)
    return str(tokenizer.decode(given[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))


def test_each_answer_is_that_of_plain_transformers_to_all_that_was_said(model: Path) -> None:
    pieces: list[str] = []
    conversation = Talk(TalkOptions(str(model), system="Be brief.", max_new_tokens=8), pieces.append)
    said = [{"role": "system", "content": "Be brief."}]
    for question in ("The river", "And then?"):
        said.append({"role": "user", "content": question})
        pieces.clear()
        answer = conversation.ask(question)
        assert answer.text == plain_answer(model, said, 8) == "".join(pieces)
        said.append({"role": "assistant", "content": answer.text})
        assert conversation.messages == said
    assert conversation.undo() and conversation.messages == said[:3]
    conversation.reset()
    assert conversation.messages == said[:1] and not conversation.undo()


def test_what_no_longer_fits_is_left_out_from_the_front_and_said(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    conversation = Talk(TalkOptions(str(model), system="Be brief.", max_new_tokens=8), lambda text: None)
    question = {"role": "user", "content": "And now?"}
    fits = conversation.engine.chat_ids([*conversation.messages, *_exchange("two"), question])
    conversation.engine.position_limit = len(fits) + 8
    conversation.messages += [*_exchange("one"), *_exchange("two")]
    conversation.ask("And now?")
    assert [message["content"] for message in conversation.messages[:2]] == ["Be brief.", "two"]
    assert re.search(r"the first 2 messages no longer fit into the model's \d+ positions", caplog.text)
    before = list(conversation.messages)
    with pytest.raises(UserError, match=r"this question has \d+ tokens, and the model \d+ positions"):
        conversation.ask("long " * 60)
    assert conversation.messages == before


def _exchange(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = Talk(TalkOptions(str(model)), lambda text: None)

    def stopped(request: Request, sampling: Any, show: Any) -> Any:
        show("The ri")
        raise KeyboardInterrupt

    monkeypatch.setattr(conversation.engine, "stream", stopped)
    lines = iter(["Hello?"])

    def read() -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    talk(conversation, read)
    assert "(stopped)" in capsys.readouterr().out
    assert [one["content"] for one in conversation.messages] == ["Hello?", "The ri"]


def test_a_model_cannot_drive_the_terminal() -> None:
    assert shown("a\x1b[2J\x9b\u202eb\n\tc\r") == "a\\x1b[2J\\x9b\\u202eb\n\tc\\r"
    assert shown("日本 é 🙂") == "日本 é 🙂"


def test_commands_and_what_is_saved(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conversation = Talk(TalkOptions(str(model), max_new_tokens=4), lambda text: None)
    rows = tmp_path / "kept rows.jsonl"
    lines = iter(
        [
            f"/save {rows}",
            "Hello\u2028you?",
            f"/save {rows}",
            "/reset",
            "Hi?",
            f"/save {rows}",
            "/help",
            "/exit",
        ]
    )
    talk(conversation, lambda: next(lines))
    said = capsys.readouterr()
    assert "nothing was answered yet" in said.err and "/undo takes the last exchange back" in said.out
    # Another end of a line within a text is none of the file's.
    kept = [json.loads(line) for line in rows.read_text().strip().split("\n")]
    assert [row["messages"][0]["content"] for row in kept] == ["Hello\u2028you?", "Hi?"]


def test_one_question_gets_one_answer_on_the_standard_output(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run("chat", model, "--prompt", "The river", "--max_new_tokens", 6)
    assert (outcome.code, outcome.out) == (
        0,
        plain_answer(model, [{"role": "user", "content": "The river"}], 6) + "\n",
    )
    monkeypatch.setattr(sys, "stdin", StringIO("The river\n"))
    assert run("chat", model, "--prompt", "-", "--max_new_tokens", 6).out == outcome.out
    monkeypatch.setattr(sys, "stdin", StringIO(" \n"))
    assert run("chat", model, "--prompt", "-").code == 2
    wrong = run("chat", model.parent / "no model", "--temperature", -1, "--top_p", 0)
    assert wrong.code == 2 and "--temperature -1" in wrong.err and "--top_p 0" in wrong.err
