"""A weight in the data that multiplies 0 is told; spans that belong to no message are refused."""

from pathlib import Path
from typing import Any

import pytest
from training_runs import write_rows

from instruction_modelling.rows.conversations import ConversationFile, read_conversations
from instruction_modelling.tokens.idle_weights import idle_weights
from instruction_modelling.tokens.weights import WeightPolicy, read_loss_weights

IT, IM = WeightPolicy(), WeightPolicy(instruction=1.0)


def read(folder: Path, *messages: dict[str, Any], **columns: Any) -> ConversationFile:
    chat = [{"role": "user", "content": "q"}, *messages, {"role": "assistant", "content": "a"}]
    return read_conversations(write_rows(folder / "rows.jsonl", [{"messages": chat, **columns}]))


@pytest.mark.parametrize(
    "given",
    [{"weight": 0.5}, {"loss": True}, {"train": True}, {"masked": False}, {"loss_spans": [[0, 1, 2]]}],
    ids=str,
)
@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_a_weight_of_a_kind_that_weighs_nothing_is_told(
    tmp_path: Path, role: str, given: dict[str, Any]
) -> None:
    file = read(tmp_path, {"role": role, "content": "7", **given})
    told = str(idle_weights(file, IT))
    assert f"has weights on 1 message of the role {role} (first: {file.path}:1), but " in told
    assert told.endswith(f"--loss_weights {role}=1")
    assert idle_weights(file, WeightPolicy(table=read_loss_weights(f"{role}=0.1"))) is None
    assert (idle_weights(file, IM) is None) == (role != "tool")


@pytest.mark.parametrize("given", [{}, {"weight": 0}, {"loss": False}, {"masked": True}, {"loss": None}])
def test_what_asks_for_no_loss_is_not_told(tmp_path: Path, given: dict[str, Any]) -> None:
    # A weight of the row is of its answers too.
    file = read(tmp_path, {"role": "user", "content": "7", **given}, weight=0.5)
    assert idle_weights(file, IT) is None
    assert "has them on 1 row (" in str(idle_weights(file, IT, weighs_all=True))


def test_blocks_of_equal_weights_have_none_of_the_rows(tmp_path: Path) -> None:
    assert idle_weights(read(tmp_path, {"role": "system", "content": "s"}), IT, weighs_all=True) is None


def test_the_end_of_a_users_turn_has_its_messages_weight(tmp_path: Path) -> None:
    file = read(tmp_path, {"role": "user", "content": "7", "weight": 0.5})
    assert idle_weights(file, WeightPolicy(table=read_loss_weights("user_end=1"))) is None


@pytest.mark.parametrize("key", ["loss_spans", "train_detail", "training_detail"])
def test_spans_of_a_row_are_refused(tmp_path: Path, key: str) -> None:
    rows: list[dict[str, Any]] = [{"instruction": "q", "output": "xyz", key: [[0, 1, 0]]}]
    rows.append({"instruction": "q", "output": "a"})
    file = read_conversations(write_rows(tmp_path / "rows.jsonl", rows))
    assert [bad.reason for bad in file.bad_rows] == [f"{key} of a row"] and len(file.conversations) == 1
