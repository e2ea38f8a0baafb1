"""The tiny model: the same bytes for the same input, and a folder transformers loads."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from script_loader import run_script

from instruction_modelling.models.tiny import train_tokenizer


def write_rows(path: Path, questions: list[str]) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes."}]}
        for question in questions
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the shipped sample."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    with pytest.MonkeyPatch.context() as patch:
        assert run_script(patch, "make_tiny_model", "--output_dir", folder) == 0
    return folder


def test_same_seed_same_bytes(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_script(monkeypatch, "make_tiny_model", "--output_dir", tmp_path / "again") == 0
    assert digests(tmp_path / "again") == digests(made)


def test_another_seed_changes_the_weights_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_script(monkeypatch, "make_tiny_model", "--output_dir", tmp_path / "other", "--seed", 1) == 0
    one, other = digests(made), digests(tmp_path / "other")
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} == {"model.safetensors", "MANIFEST.sha256"}


def test_making_it_leaves_the_random_state_alone() -> None:
    import torch

    from instruction_modelling.models.tiny import random_llama

    tokenizer = train_tokenizer(["some text"])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    random_llama(tokenizer, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_transformers_loads_it(made: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(made), AutoTokenizer.from_pretrained(made)
    assert model.num_parameters() == 338_400
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (model.dtype, model.config.vocab_size, len(tokenizer)) == (torch.float32, 1024, 1024)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", None)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    )
    with torch.no_grad():
        loss = model(
            **tokenizer("Which river?", return_tensors="pt"),
            labels=tokenizer("Which river?", return_tensors="pt")["input_ids"],
        ).loss
    # Knowing nothing is a loss of about ln 1024.
    assert loss.item() == pytest.approx(6.93, abs=0.3)


def test_conversations_are_written_in_the_tulu_format(made: Path) -> None:
    from transformers import AutoTokenizer

    from instruction_modelling.chat.formats import load_chat_format
    from instruction_modelling.rows.conversations import read_conversations

    tokenizer = AutoTokenizer.from_pretrained(made)
    sample = next(iter(sorted((Path(__file__).resolve().parents[2] / "data" / "sample").glob("*.jsonl"))))
    conversation = read_conversations(sample).conversations[0]
    rendered = load_chat_format("auto", tokenizer).sequences(conversation)[0]
    assert rendered.text.removeprefix("<s>").startswith("<|user|>\n")
    assert rendered.text.endswith(conversation.messages[-1].content.strip() + "</s>")


@given(st.text())
def test_its_tokenizer_knows_any_text(text: str) -> None:
    tokenizer = train_tokenizer(["abc abc"])
    ids = tokenizer.encode(text, split_special_tokens=True)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def test_another_file_and_bad_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    rows = write_rows(tmp_path / "rows.jsonl", ["zyxwv zyxwv zyxwv"])
    with rows.open("a") as handle:
        handle.write('{"x": 1}\n')
    arguments = ("--output_dir", tmp_path / "m", "--train_file", rows)
    assert run_script(monkeypatch, "make_tiny_model", *arguments) == 2
    assert f"{rows}:2" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
    assert run_script(monkeypatch, "make_tiny_model", *arguments, "--max_bad_rows", 1) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer.tokenize("zyxwv") == ["zyxwv"]
    assert 258 < len(tokenizer) < 1024


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--train_file", "absent.jsonl"], "absent.jsonl: there is no such file"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert run_script(monkeypatch, "make_tiny_model", "--output_dir", tmp_path / "m", *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_model_of_the_users_is_left_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    assert run_script(monkeypatch, "make_tiny_model", "--output_dir", mine) == 2
    assert "is left alone" in capsys.readouterr().err
    assert (mine / "config.json").read_text() == "{}"
