"""What a row says about the weight of its messages is honoured, under whichever key it says it."""

from pathlib import Path
from typing import Any

import pytest
from row_files import GOOD, read_one

from instruction_modelling.rows.conversations import Message


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({"weight": 0.5}, 0.5),
        ({"loss_weight": 0}, 0.0),
        ({"loss_scale": 2}, 2.0),
        ({"loss": True}, 1.0),
        ({"loss": False}, 0.0),
        ({"loss": None}, 1.0),
        ({"loss": 0.25}, 0.25),
        ({"train": False}, 0.0),
        ({"train": 1}, 1.0),
        ({"training": False}, 0.0),
        ({"training": True}, 1.0),
        ({"masked": True}, 0.0),
        ({"masked": False}, 1.0),
        ({"masked": 1}, 0.0),
        ({"weight": 0.5, "loss": True, "masked": False}, 0.5),
        ({"weight": 0.5, "loss_scale": 0.5}, 0.25),
        ({"weight": 0, "loss": False, "masked": True}, 0.0),
    ],
)
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_every_key_becomes_the_weight_of_the_message(
    tmp_path: Path, role: str, keys: dict[str, Any], weight: float
) -> None:
    row = {"messages": [{"role": role, "content": "x", **keys}]}
    assert read_one(tmp_path, row).messages == (Message(role, "x", weight=weight),)
    row = {"conversations": [{"from": role, "value": "x", **keys}]}
    assert read_one(tmp_path, row).messages == (Message(role, "x", weight=weight),)


def test_the_weight_of_a_row_multiplies_those_of_its_messages(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a", "weight": 0.5}, {"role": "assistant", "content": "b"}]
    for column in ("weight", "loss_weight"):
        row = {"messages": messages, column: 0.5, "system": "s"}
        assert [message.weight for message in read_one(tmp_path, row).messages] == [0.5, 0.25, 0.5]
    plain = read_one(tmp_path, {"prompt": "a", "completion": "b", "weight": 2})
    assert [message.weight for message in plain.messages] == [2.0, 2.0]
    assert [message.weight for message in read_one(tmp_path, GOOD | {"weight": 0}).messages] == [0.0, 0.0]
