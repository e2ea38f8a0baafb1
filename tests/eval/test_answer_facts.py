"""What is kept beside a model's answers: which model made them, or that none did."""

from pathlib import Path

import pytest

from eval.answer_facts import making
from instruction_modelling.generation.engine import EngineOptions
from instruction_modelling.models.identity import model_identity


def test_a_run_without_a_model_has_no_models_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert making(EngineOptions(), questions=3)["model_identity"] is None
    made = making(EngineOptions(model_name_or_path=str(tmp_path)), questions=3)
    assert made["model_identity"] == model_identity(tmp_path) and made["questions"] == 3
