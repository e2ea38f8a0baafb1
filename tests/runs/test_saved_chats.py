"""A tuned model, opened by plain transformers from its folder alone, writes the chats that it has learnt by
heart as its chat template has them, turn after turn, and stops where each turn ends."""

import json
import re
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from chat_templates import template_text
from memorising import MANY, Reopened, learn_by_heart
from template_toys import set_day
from todays_chats import CHATS, TOOLS
from training_runs import record, run
from turn_oracle import Oracle

from instruction_modelling.generation.check import check_answers

REASONING, PLAIN = CHATS["reasoning in both"][0], CHATS["two exchanges"][0]
TOOL, TOOL_AND_REASONING = CHATS["tool"][0], CHATS["reasoning and a call"][0]


@dataclass
class Format:
    """Where a format's templates are, two rows that it can write, and where its turns end."""

    first: list[dict[str, Any]]
    second: list[dict[str, Any]]
    stops: set[str]
    """Those of the template; the model's own eos may be among the saved ones besides."""
    shared: str = ""
    """The file's name among the public data, where the installed packages lack it."""
    variables: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        return [{"messages": deepcopy(self.first)}, {"messages": deepcopy(self.second), "tools": TOOLS}]


FORMATS = {
    "gptoss": Format(REASONING, TOOL_AND_REASONING, {"<|return|>", "<|call|>"}),
    "qwen3_5_think": Format(REASONING, TOOL_AND_REASONING, {"<|im_end|>"}),
    "glm4moe": Format(REASONING, TOOL_AND_REASONING, {"<|user|>", "<|observation|>"}),
    "llama3_2": Format(PLAIN, TOOL, {"<|eot_id|>"}),
    # Its prompt begins a thought, in other words than its chats, and an answer without one closes it.
    "nemotron_3_nano": Format(PLAIN, TOOL, {"<|im_end|>"}),
    "glm47 without reasoning": Format(
        PLAIN, TOOL, {"<|user|>", "<|observation|>"}, shared="llamacpp__GLM-4.7-Flash.jinja"
    ),
    "glm47": Format(
        REASONING, TOOL_AND_REASONING, {"<|user|>", "<|observation|>"}, shared="llamacpp__GLM-4.7-Flash.jinja"
    ),
    "kimi_k3": Format(REASONING, TOOL_AND_REASONING, {"<|end_of_msg|>"}, shared="llamacpp__Kimi-K3.jinja"),
    # Command-R7B writes reasoning before calls alone, and its prompt has an empty one unless told to think.
    "command_r7b without reasoning": Format(
        PLAIN,
        TOOL,
        {"<|END_OF_TURN_TOKEN|>"},
        shared="llamacpp__CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja",
    ),
    "command_r7b": Format(
        PLAIN,
        [*TOOL_AND_REASONING[:3], TOOL[3]],
        {"<|END_OF_TURN_TOKEN|>"},
        shared="llamacpp__CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja",
        variables={"enable_thinking": True},
    ),
}


def template_of(name: str, request: pytest.FixtureRequest) -> str:
    """The format's template, as it was published; the test is skipped where it is absent."""
    if not FORMATS[name].shared:
        return template_text(name)
    path = request.getfixturevalue("shared_data") / "templates" / FORMATS[name].shared
    if not path.is_file():
        pytest.skip(f"no {path.name} among the public data files")
    return path.read_text(encoding="utf-8")


def check_written(tuned: Reopened, row: dict[str, Any]) -> None:
    """Ask for every assistant's turn of a row in the words before it, and hold what comes against what
    `apply_chat_template` writes of the turn."""
    messages, tools, tokenizer = row["messages"], row.get("tools"), tuned.tokenizer
    oracle = Oracle(tokenizer, deepcopy(messages), tools)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        ids = tuned.answer(messages[:index], tools)
        written = tokenizer.decode(ids)
        assert len(ids) < MANY and written == oracle.turn(index).text, f"message {index}: {written!r}"
        assert tokenizer.decode(ids[-1:]) in tuned.stops()
        asked = str(oracle.render(messages[:index], prompted=True))
        history = str(oracle.render(messages[: index + 1]))
        # GLM stops with the role of whoever speaks next, which no history has yet.
        turn = written if written in history else tokenizer.decode(ids[:-1])
        assert turn in history
        if history.startswith(asked):
            assert history.startswith(asked + turn)


# Command-R7B's template is so long that a row takes half a minute.
FORMATS_AT_TIMES = [
    pytest.param(name, marks=[pytest.mark.slow] * name.startswith("command_r7b")) for name in FORMATS
]


@pytest.mark.parametrize("name", FORMATS_AT_TIMES)
def test_a_saved_model_writes_its_rows_back_and_stops(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = FORMATS[name]
    set_day(monkeypatch, "2026-03-30")
    folder = learn_by_heart(tmp_path, template_of(name, request), chat.rows(), chat.variables)
    assert not record(folder)["data"]["prompts_differ"]
    # Templates that write a date write that of the training, whenever the model is asked.
    set_day(monkeypatch, "2026-11-26")
    tuned = Reopened.from_folder(folder)
    assert tuned.stops() - {"</s>", "<|endoftext|>"} == chat.stops
    for row in chat.rows():
        check_written(tuned, row)
    if name == "llama3_2":
        check_card(tuned, folder)
        faults = check_answers(folder, str(tmp_path / "rows.jsonl"), 2)
        assert faults["rows"] == 2 and not any(faults["answers"].values())
    if name == "gptoss":
        assert ", 2 of 2 rows, as 4 sequences, sha256" in (folder / "README.md").read_text(encoding="utf-8")
        check_own_path(tuned, folder, chat.rows(), tmp_path)


def check_card(tuned: Reopened, folder: Path) -> None:
    """The card's lines of Python, run as they stand, print the model's answer."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    with redirect_stdout(StringIO()) as printed:
        exec(lines, {})
    ids = tuned.answer([{"role": "user", "content": "What is a rainbow?"}], None)
    text = tuned.tokenizer.decode(ids, skip_special_tokens=True)
    assert text and printed.getvalue().strip() == text.strip()


def check_own_path(tuned: Reopened, folder: Path, rows: list[dict[str, Any]], place: Path) -> None:
    """The project's own generation gives the same texts: those of each row's last turn."""
    outcome = run(
        "generate", "--model_name_or_path", folder, "--eval_file", place / "rows.jsonl",
        "--output_dir", place / "responses",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    lines = (place / "responses" / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    for row, response in zip(rows, map(json.loads, lines), strict=True):
        ids = tuned.answer(row["messages"][:-1], row.get("tools"))
        assert response["response"] == tuned.tokenizer.decode(ids, skip_special_tokens=True)
        assert (response["tokens"], response["finished"]) == (len(ids), True)


def test_templates_by_name_are_saved_and_each_row_is_written_by_its_own(tmp_path: Path) -> None:
    templates = {"default": template_text("llama3_2"), "tool_use": template_text("qwen2_5")}
    rows = [{"messages": PLAIN}, {"messages": TOOL, "tools": TOOLS}]
    tuned = Reopened.from_folder(learn_by_heart(tmp_path, templates, rows))
    assert tuned.tokenizer.chat_template.keys() == {"default", "tool_use"}
    assert tuned.stops() == {"<|eot_id|>", "<|im_end|>"}
    for row in rows:
        check_written(tuned, row)


def test_a_prompt_that_opens_what_the_turn_leaves_out_is_said_in_log_and_card(tmp_path: Path) -> None:
    """DeepSeek-R1's chats ask for a thought, which rows without reasoning do not have."""
    template, rows = template_text("deepseek_r1_distill"), [{"messages": PLAIN}]
    folder = learn_by_heart(tmp_path, template, rows, steps=1)
    log, card = ((folder / name).read_text(encoding="utf-8") for name in ("train.log", "README.md"))
    assert record(folder)["data"]["prompts_differ"] == 2
    assert "before 2 turns the generation prompt opens something that the turn does not go on with" in log
    assert "Before 2 turns the chat template's generation prompt opens something" in card
