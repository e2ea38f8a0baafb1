"""What a run will need, by hand: hours, memory, disk, and the tokens of a file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import write_rows

from instruction_modelling.sweeps.estimates import Hardware, Workload, estimate, model_size, tokens_in


def test_the_estimate_by_hand() -> None:
    """Llama-2-7B on LIMA-like data: 1,000 rows of 700 tokens, 2 epochs, 2 A100s at 40 %."""
    size = model_size("meta-llama/Llama-2-7b-hf")
    assert size is not None and (size.parameters, size.layers, size.width) == (6.738e9, 32, 4096)
    work, hardware = Workload(1000, 700_000, 2, 2048, 1, 1), Hardware(2, 312, 0.4, 80)
    found = estimate(size, work, hardware)
    assert found.tokens == 1_400_000
    # 6 x 6.738e9 + 6 x 32 x 4096 x 700 operations a token.
    assert found.hours == pytest.approx((4.0428e10 + 5.505024e8) * 1.4e6 / (2 * 312e12 * 0.4) / 3600)
    assert found.memory == pytest.approx(6.738 * 18 / 2 + 34 * 32 * 4096 * 2048 / 1e9)
    assert (found.disk, found.kept_disk) == (
        pytest.approx(6.738 * (2 + 2 * 12)),
        pytest.approx(6.738 * (2 + 12)),
    )
    assert (
        found.line(2)
        == "2 GPUs, about 0.064 h (0.13 GPU-hours), 70 GB of memory each, 175 GB of disk (94.3 GB once "
        "finished)"
    )
    assert found.line(0).startswith("1 process on the CPU, hours not estimated, ")
    with_base = estimate(size, replace(work, has_base_model=True), hardware)
    assert with_base.memory - found.memory == pytest.approx(6.738)


def test_a_models_size_is_that_of_its_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    make_tiny_model(tmp_path)
    size = model_size(str(tmp_path))
    assert size is not None
    count = sum(weight.numel() for weight in load_file(tmp_path / "model.safetensors").values())
    assert size.parameters == pytest.approx(count, rel=0.01)
    assert model_size("someone/unknown") is None


def test_tokens_are_counted_by_characters_and_cut(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "x" * 40}, {"role": "assistant", "content": "y" * 60}]}
    ] * 2
    rows.append({"messages": [{"role": "user", "content": "z" * 4000}]})
    assert tokens_in(write_rows(tmp_path / "rows.jsonl", rows), 512) == (3, 26 + 26 + 512)
    pairs = [{"prompt": "x" * 10, "completion": "y" * 30}] * 3
    assert tokens_in(write_rows(tmp_path / "pairs.jsonl", pairs), 512) == (3, 3 * 11)
    (tmp_path / "array.json").write_text(json.dumps(pairs))
    assert tokens_in(tmp_path / "array.json", 512) == (3, 3 * 11)
    assert tokens_in(Path("data/lima_data.jsonl"), 2048) == (1030, round(1030 * 484.47 * 1.5))
