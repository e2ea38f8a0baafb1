"""The tokens of a packed micro-batch where nobody says how many."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.runs.fingerprint import RunInputs, check_same_run, option_of, run_fingerprint
from instruction_modelling.training.pack_size import pack_limit

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def options(model: Any = "", **given: Any) -> FinetuneOptions:
    return FinetuneOptions(str(model), train_file=["f.jsonl"], packing=True, **given)


def test_a_cpu_packs_1024_tokens_or_the_longest_row(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert pack_limit(options(), CPU, 700) == 1024
        assert pack_limit(options(), CPU, 1800) == 1800
        assert pack_limit(options(max_tokens_per_device=900), CPU, 700) == 900
    assert [record.message.split()[4] for record in caplog.records] == ["1024", "1800"]
    with pytest.raises(UserError, match="--max_tokens_per_device 600: the longest row has 700 tokens"):
        pack_limit(options(max_tokens_per_device=600), CPU, 700)


@pytest.mark.parametrize(
    ("layers", "width", "gigabytes", "checkpointing", "tokens"),
    [
        # SmolLM2-135M, 1B and 7B on cards of 80, 24 and 8 GB.
        (30, 576, 80, False, 16384),
        (16, 2048, 80, False, 8192),
        (32, 4096, 80, False, 2048),
        (32, 4096, 80, True, 16384),
        (16, 2048, 24, False, 4096),
        (32, 4096, 8, False, 2048),
    ],
)
def test_a_gpu_packs_what_its_memory_holds_of_the_model(  # noqa: PLR0913 (a table's columns)
    layers: int,
    width: int,
    gigabytes: int,
    checkpointing: bool,
    tokens: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": 8,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    memory = SimpleNamespace(total_memory=gigabytes * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    given = options(tmp_path, gradient_checkpointing=checkpointing)
    assert pack_limit(given, CUDA, 700) == tokens
    assert pack_limit(given, CUDA, 20000) == 20000
    assert pack_limit(options(tmp_path / "none"), CUDA, 700) == 2048


def test_with_dropout_a_checkpoint_of_another_pack_is_another_run(tmp_path: Path) -> None:
    """The size that was taken counts, whether it was asked for or not; an older checkpoint, which has what
    was asked for alone, packed --max_seq_length tokens."""

    def facts(tokens: int | None, dropout: bool) -> dict[str, Any]:
        inputs = RunInputs("", "", "", "no", 8, 1, dropout)
        return run_fingerprint({**options().with_recipe().as_dict(), "max_tokens_per_device": tokens}, inputs)

    state = {"fingerprint": facts(1024, True)}
    check_same_run(tmp_path, state, facts(1024, True))
    with pytest.raises(UserError, match="max_tokens_per_device: 1024 then, 2048 now"):
        check_same_run(tmp_path, state, facts(2048, True))
    check_same_run(tmp_path, {"fingerprint": facts(None, True)}, facts(2048, True))
    with pytest.raises(UserError, match="max_tokens_per_device: 2048 then, 1024 now"):
        check_same_run(tmp_path, {"fingerprint": facts(None, True)}, facts(1024, True))
    blocks = {"packing": True, "max_tokens_per_device": None, "max_seq_length": 512, "block_size": 900}
    assert option_of(blocks, "max_tokens_per_device") == 900
    assert option_of({**blocks, "packing": False}, "max_tokens_per_device") is None
    check_same_run(tmp_path, {"fingerprint": facts(1024, False)}, facts(2048, False))
