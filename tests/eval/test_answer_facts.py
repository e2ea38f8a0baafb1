"""What is kept beside a model's answers: which model made them, or that none did."""

from pathlib import Path

import pytest

from eval.answer_facts import making
from eval.codex_humaneval.options import HumanEvalOptions
from eval.codex_humaneval.run_eval import made_with
from eval.nlp.benchmarks import NlpBenchmark
from eval.nlp.run_eval import NlpOptions, how_made
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


def test_answers_depend_on_what_a_templates_file_holds(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    found = []
    for text in ("{{ messages }}", "{{ messages[0] }}"):
        template.write_text(text)
        found.append(making(EngineOptions(chat_format=str(template))))
    assert found[0] != found[1]
    assert found[0] == {**found[1], "chat_format_sha256": found[0]["chat_format_sha256"]}
    assert "chat_format_sha256" not in making(EngineOptions(chat_format="tulu"))


def test_humanevals_results_depend_on_what_its_files_hold(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    found = []
    for text in ("{}", "{ }"):
        problems.write_text(text)
        found.append(made_with(HumanEvalOptions(model_name_or_path="m", data_file=str(problems))))
    assert found[0]["data_file_sha256"] != found[1]["data_file_sha256"]


def test_results_of_local_files_depend_on_the_files_of_their_benchmark(tmp_path: Path) -> None:
    items, others = (tmp_path / name / "test.jsonl" for name in ("lambada", "piqa"))
    found = []
    for text, other in (("a", "a"), ("b", "a"), ("b", "b")):
        for path, words in ((items, text), (others, other)):
            path.parent.mkdir(exist_ok=True)
            path.write_text(words)
        benchmark = NlpBenchmark("lambada", ("lambada_local",), None)
        options = NlpOptions(model_name_or_path="m", local=True, local_dir=str(tmp_path))
        found.append(how_made(benchmark, options))
    assert found[0] != found[1] == found[2]
