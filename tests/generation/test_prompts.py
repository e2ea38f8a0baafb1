"""The prompts of rows: what training shows before the response, and which rows have none."""

import json
from pathlib import Path

import pytest
from response_rows import ROWS, prompts_of, write_response_rows
from tiny import make_tiny_model

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.generation.prompts import RowPrompt, prompts_sha256, split_reference
from instruction_modelling.models.loading import load_tokenizer
from instruction_modelling.rows.conversations import Conversation, Message, read_conversations
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.row_encoder import RowEncoder

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def eval_file(tmp_path: Path) -> Path:
    return write_response_rows(tmp_path / "rows.jsonl")


def test_prompts_by_value(folder: Path, eval_file: Path) -> None:
    prompts, refused = prompts_of(folder, eval_file)
    assert refused == []
    assert [(p.row, p.id, p.reference) for p in prompts] == [
        (0, "a", "The Seine."),
        (1, "b", "Lima."),
        (2, "c", None),
        (3, "d", "42."),
        (4, "e", ""),
    ]
    assert prompts[0].text == "<|user|>\nWhich river flows through Paris?\n<|assistant|>\n"
    assert prompts[1].text == (
        "<|system|>\nAnswer in a few words.\n<|user|>\nName the capital of Norway.\n<|assistant|>\n"
        "Oslo.</s>\n<|user|>\nAnd </s> of Peru?\n<|assistant|>\n"
    )
    assert prompts[1].instruction == "And </s> of Peru?"
    assert prompts[2].text == "<|user|>\nAdd 17 and 25.\n<|assistant|>\n"
    assert prompts[3].text == "The sum is"
    assert [p.space_follows for p in prompts] == [False, False, False, True, False]
    tokenizer = load_tokenizer(str(folder))
    assert all(p.ids[0] == tokenizer.bos_token_id and p.ids.count(0) == 1 for p in prompts)
    # One end token, the earlier answer's; the user's "</s>" is text.
    assert prompts[1].ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(prompts[1].ids) == "<s>" + prompts[1].text


def test_a_prompt_is_what_training_shows_before_the_response(folder: Path, eval_file: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    encoder = RowEncoder(tokenizer, load_chat_format("auto", tokenizer), 2048)
    prompts, _ = prompts_of(folder, eval_file)
    for row, prompt in zip(encoder.encode(read_conversations(eval_file).conversations), prompts, strict=True):
        assert isinstance(row, EncodedRow)
        if prompt.reference and not prompt.space_follows:
            assert row.first.tokens.ids[: len(prompt.ids)].tolist() == prompt.ids


def test_rows_without_a_prompt_or_too_long_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"messages": [{"role": "assistant", "content": "alone"}]}, ROWS[0], ROWS[1]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    length = len(prompts_of(folder, path)[0][0].ids)
    prompts, refused = prompts_of(folder, path, max_seq_length=length)
    assert [p.row for p in prompts] == [1]
    assert [(bad.row, bad.reason) for bad in refused] == [(0, "no prompt"), (2, "prompt too long")]
    assert f"--max_seq_length is {length}" in refused[1].detail
    assert [p.row for p in prompts_of(folder, path, positions=length + 8)[0]] == [1]
    none, refused = prompts_of(folder, path, positions=length + 7)
    assert none == [] and f"the model's {length + 7} positions" in refused[1].detail


def test_tool_calls_alone_are_no_reference() -> None:
    call = Message("assistant", "", tool_calls=({"name": "f", "arguments": {}},))
    asked = Conversation(0, 1, "x", "d", (Message("user", "q"), call))
    history, reference = split_reference(asked)
    assert [m.role for m in history.messages] == ["user"] and reference is None


def test_the_prompts_hash_tells_rows_and_tokens_apart() -> None:
    one = RowPrompt(0, "a", "t", [1, 2], "t", None)
    others = [
        RowPrompt(1, "a", "t", [1, 2], "t", None),
        RowPrompt(0, "a", "t", [12], "t", None),
        RowPrompt(0, "a", "t", [1, 3], "t", None),
    ]
    assert len({prompts_sha256([p]) for p in [one, *others]}) == 4
    assert prompts_sha256([one]) == prompts_sha256([RowPrompt(0, "b", "u", [1, 2], "v", "w")])
