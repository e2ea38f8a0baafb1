"""Folders whose only tokenizer is Mistral's tekken.json."""

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from training_runs import finetune, sample_rows, write_rows

from instruction_modelling.errors import UserError
from instruction_modelling.models import tekken
from instruction_modelling.models.loading import load_tokenizer

mistral = pytest.importorskip("mistral_common")
# An older file, which leaves its special tokens to the library.
FILE = Path(mistral.__file__).parent / "data" / "tekken_240911.json"
needs_file = pytest.mark.skipif(not FILE.exists(), reason="this mistral-common ships no tekken.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Mistral publishes it: a configuration and tekken.json."""
    path = tmp_path_factory.mktemp("tekken")
    config = transformers.MistralConfig(
        vocab_size=131072,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=4096,
    )
    transformers.MistralForCausalLM(config).save_pretrained(path)
    shutil.copy(FILE, path / "tekken.json")
    return path


@needs_file
def test_its_ids_are_those_of_mistrals_library_with_offsets(folder: Path) -> None:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    tokenizer: Any = load_tokenizer(str(folder))
    own = Tekkenizer.from_file(folder / "tekken.json")
    text = "def f(n):\n    return 'wörld' * n  # 東京 12"
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert encoded["input_ids"] == own.encode(text, bos=True, eos=False)
    pieces = [text[start:end] for start, end in encoded["offset_mapping"][1:]]
    assert "".join(pieces[:4]).startswith("def f(n")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


@needs_file
@pytest.mark.slow
def test_a_run_saves_it_in_the_usual_form(folder: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(2))
    run = finetune(folder, rows, tmp_path / "run", "--max_train_steps", 1)
    assert "has no chat template beside its tekken.json" in (run / "train.log").read_text()
    text = "The Seine, 12 km."
    saved: Any = transformers.AutoTokenizer.from_pretrained(run)
    assert saved(text)["input_ids"] == load_tokenizer(str(folder))(text)["input_ids"]
    assert not (run / "tekken.json").exists()
    assert transformers.GenerationConfig.from_pretrained(run).eos_token_id == 2


@needs_file
def test_without_mistrals_library_it_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("mistral_common"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(
        UserError, match=r"does not list its special tokens.*pip install mistral-common.*NEW_FOLDER"
    ):
        load_tokenizer(str(folder))


@needs_file
def test_a_conversion_that_cuts_otherwise_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Any = load_tokenizer(str(folder))
    tokenizer.add_tokens(["wör"])
    with pytest.raises(UserError, match=r"it cuts .* otherwise than Mistral's own library"):
        tekken._compare_with_mistrals(folder, tokenizer)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text("{")
    with pytest.raises(UserError, match=r"tekken.json cannot be read"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tekken.json").write_text(json.dumps({"special_tokens": []}))
    with pytest.raises(UserError, match=r"cannot be read as a tokenizer"):
        load_tokenizer(str(tmp_path))
