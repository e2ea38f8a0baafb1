"""The shipped arm files on what tools return and what users write: what such models learn, by plain
transformers and by --speaker user."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memorising import Reopened, learn_by_heart
from tiny import make_tiny_model, make_tiny_tokenizer
from training_runs import run, write_rows

from instruction_modelling.arms.table import read_arms
from instruction_modelling.chat.spans import RESPONSE_KINDS, SpanKind
from instruction_modelling.errors import UserError
from instruction_modelling.generation.base import EngineOptions
from instruction_modelling.generation.engine import open_engine
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.row_encoder import row_encoder
from instruction_modelling.tokens.weighted import weigh_rows

ROOT = Path(__file__).resolve().parents[2]
ARMS = ROOT / "arms"
TEMPLATE = (ARMS / "tool_chat.jinja").read_text(encoding="utf-8")
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def _row(place: str, degrees: int) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"place": place}}}
    return {
        "tools": TOOLS,
        "messages": [
            {"role": "user", "content": f"How warm is {place}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": json.dumps({"degrees": degrees})},
            {"role": "assistant", "content": f"{degrees} degrees."},
            {"role": "user", "content": f"Thanks, {place} it is."},
            {"role": "assistant", "content": "Enjoy it."},
        ],
    }


ROWS = [_row("Oslo", 7), _row("Rome", 23)]


def written_after(tuned: Reopened, text: str, count: int) -> str:
    """Return what transformers alone writes behind a text, control tokens included."""
    ids = tuned.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        new = tuned.model.generate(input_ids=ids, max_new_tokens=count)[0, ids.shape[1] :]
    return str(tuned.tokenizer.decode(new, skip_special_tokens=False))


def test_a_user_simulator_writes_what_users_write_and_stops_where_they_stop(tmp_path: Path) -> None:
    flags = read_arms(ARMS / "user_simulator.toml")["user-simulator"].flags
    folder = learn_by_heart(tmp_path, TEMPLATE, ROWS, steps=60, flags=flags)
    kinds = json.loads((folder / "run.json").read_text())["data"]["by_kind"]
    assert {kind for kind, entry in kinds.items() if entry["tokens_with_loss"]} == {"user", "user_end"}
    tuned = Reopened.from_folder(folder)
    for row in ROWS:
        before = tuned.tokenizer.apply_chat_template(row["messages"][:4], tools=TOOLS, tokenize=False)
        written = written_after(tuned, f"{before}<|im_start|>user\n", 60)
        assert written == row["messages"][4]["content"] + "<|im_end|>"
    # The project's own way: the last user message of each row, from what stands before it.
    shown = write_rows(tmp_path / "shown.jsonl", [{**row, "messages": row["messages"][:5]} for row in ROWS])
    asked = ("--model_name_or_path", folder, "--eval_file", shown, "--output_dir", tmp_path / "users")
    outcome = run("generate", *asked, "--speaker", "user")
    assert outcome.code == 0, outcome.err
    lines = (tmp_path / "users" / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    for row, line in zip(ROWS, map(json.loads, lines), strict=True):
        assert line["response"] == line["reference"] == row["messages"][4]["content"]
        assert (line["finished"], line["instruction"]) == (True, row["messages"][3]["content"])
        assert line["prompt"].endswith("<|im_start|>user\n")
    described = json.loads((tmp_path / "users" / "generation.json").read_text())
    assert (described["speaker"], described["end_tokens"]) == ("user", ["<|im_end|>"])


def test_a_model_of_tool_outputs_writes_them_and_its_responses_too(tmp_path: Path) -> None:
    flags = read_arms(ARMS / "tool_outputs.toml")["tool-outputs"].flags
    folder = learn_by_heart(tmp_path, TEMPLATE, ROWS, steps=60, flags=flags)
    tuned = Reopened.from_folder(folder)
    for row in ROWS:
        before = tuned.tokenizer.apply_chat_template(row["messages"][:2], tools=TOOLS, tokenize=False)
        output = row["messages"][2]["content"]
        assert written_after(tuned, f"{before}<|im_start|>tool\n", len(output)).startswith(output)
        answer = tuned.tokenizer.decode(tuned.answer(row["messages"][:3], TOOLS), skip_special_tokens=True)
        assert answer == row["messages"][3]["content"]


def test_every_shipped_file_of_arms_can_be_used() -> None:
    names = {path.name: set(read_arms(path)) - set(read_arms()) for path in sorted(ARMS.glob("*.toml"))}
    assert names == {
        "tool_outputs.toml": {"tool-outputs", "tool-outputs-w0.1", "tool-outputs-alone"},
        "user_simulator.toml": {"user-simulator", "user-and-assistant"},
    }


def test_a_loss_on_tool_outputs_takes_nothing_from_the_responses(tmp_path: Path) -> None:
    """Each response token has the coefficient that IT gives it."""
    file = read_conversations(str(write_rows(tmp_path / "rows.jsonl", ROWS)))
    data = encode_file(file, row_encoder(make_tiny_tokenizer(TEMPLATE), "tokenizer", 512))
    arms, by_kind = read_arms(ARMS / "tool_outputs.toml"), {}
    for name in ("IT", "tool-outputs", "tool-outputs-w0.1", "tool-outputs-alone"):
        options = arms[name].options()
        weighted, dropped = weigh_rows(
            data, options.policy(), options.loss_normalization, options.loss_denominator
        )
        assert not dropped
        loss = np.concatenate(weighted.coefficients([0, 1])[0])
        by_kind[name] = {kind: loss[data.kinds == kind] for kind in (*RESPONSE_KINDS, SpanKind.TOOL)}
    tool = SpanKind.TOOL
    for kind in RESPONSE_KINDS:
        for name in ("tool-outputs", "tool-outputs-w0.1"):
            np.testing.assert_array_equal(by_kind[name][kind], by_kind["IT"][kind])
        assert not by_kind["tool-outputs-alone"][kind].any()
    responses = sum(by_kind["IT"][kind].sum() for kind in RESPONSE_KINDS)
    assert responses == pytest.approx(1.0)
    assert not by_kind["IT"][tool].any()
    assert (by_kind["tool-outputs"][tool] > 0).all()
    np.testing.assert_allclose(by_kind["tool-outputs-w0.1"][tool], 0.1 * by_kind["tool-outputs"][tool], 1e-6)
    assert by_kind["tool-outputs-alone"][tool].sum() == pytest.approx(1.0)


def test_a_format_without_an_end_of_users_turns_is_refused(tmp_path: Path) -> None:
    engine = open_engine(EngineOptions(str(make_tiny_model(tmp_path / "tulu"))))
    with pytest.raises(UserError, match="no token that ends a user's turn"):
        engine.speak_as_user()
