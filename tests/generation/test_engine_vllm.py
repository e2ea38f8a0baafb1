"""The vLLM engine, for real: its own environment, the embedded model, beside transformers."""

import json
from pathlib import Path

import pytest
from training_runs import ROOT, run

from instruction_modelling.errors import UserError
from instruction_modelling.generation.engine import EngineOptions, Request, Sampling, open_engine
from instruction_modelling.generation.vllm_engine import ENVIRONMENT

MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (ENVIRONMENT / ".setup-stamp").exists(),
        reason="vLLM's environment is not there (scripts/setup_vllm.sh)",
    ),
    pytest.mark.skipif(not MODEL.is_dir(), reason="the embedded model is not there (scripts/setup.sh)"),
]


def test_greedy_completions_are_those_of_transformers(tmp_path: Path) -> None:
    outcome = run(
        "compare_engines",
        "--model_name_or_path",
        MODEL,
        "--num_rows",
        16,
        "--max_new_tokens",
        32,
        "--json",
        tmp_path / "out.json",
    )
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["rows"] == 16 and found["share"] >= 0.9
    assert all(abs(part["gap"]) < 0.01 for part in found["differ"])


def test_stops_samples_and_room_are_kept() -> None:
    with open_engine(
        EngineOptions(model_name_or_path=str(MODEL), use_vllm=True, dtype="float32", max_model_len=128)
    ) as engine:
        ids = engine.chat_ids(
            [{"role": "user", "content": "Count from one to ten in words, separated by commas."}]
        )
        sampling = Sampling(40, temperature=0.8, top_p=0.95, samples=3)
        first = {
            (one.key, one.sample): one.text
            for one in engine.complete([Request("a", ids), Request("b", ids)], sampling)
        }
        again = {(one.key, one.sample): one.text for one in engine.complete([Request("b", ids)], sampling)}
        assert len(first) == 6 and len(set(first.values())) > 1
        assert again == {place: text for place, text in first.items() if place[0] == "b"}
        greedy = next(iter(engine.complete([Request("c", ids)], Sampling(40))))
        stop = greedy.text[6:9]
        cut = next(iter(engine.complete([Request("d", ids)], Sampling(40, stop=(stop,)))))
        assert cut.text == greedy.text[: greedy.text.find(stop)] and cut.stopped
        long = engine.plain_ids("word " * 200)[:124]
        assert next(iter(engine.complete([Request("e", long)], Sampling(40)))).tokens <= 4


def test_a_model_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((MODEL / "config.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((MODEL / name).read_text())
    engine = open_engine(EngineOptions(model_name_or_path=str(tmp_path), use_vllm=True))
    with engine, pytest.raises(UserError, match="vLLM could not go on"):
        list(engine.complete([Request("a", [1, 2])], Sampling(4)))
