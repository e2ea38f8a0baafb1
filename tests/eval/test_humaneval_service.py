"""HumanEval of a model behind an address: every sample is asked for, kept, read and run."""

import json
from pathlib import Path
from typing import Any

import pytest
from humaneval_samples import needs_bubblewrap
from judge_server import Answer, JudgeServer

from eval.codex_humaneval import run_eval
from eval.codex_humaneval.problems import load_problems
from instruction_modelling.errors import UserError

PROBLEMS = list(load_problems().values())[:2]


@pytest.fixture(autouse=True)
def untried_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.codex_humaneval.verdicts.check_sandbox", lambda sandbox: None)


def evaluate(
    monkeypatch: pytest.MonkeyPatch, server: JudgeServer, folder: Path, *arguments: object
) -> dict[str, Any]:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    given = ["--openai_engine", "hub/coder", "--save_dir", folder, "--max_num_examples", 2]
    given += ["--unbiased_sampling_size_n", 4, "--eval_pass_at_ks", 1, *arguments]
    assert run_eval.main([str(word) for word in given]) == 0
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def answer(body: dict[str, Any], count: int) -> str:
    """The first task's own solution behind a wrong draft; for the second, only the first time it is asked."""
    content = body["messages"][0]["content"]
    problem = next(problem for problem in PROBLEMS if problem["prompt"] in content)
    right = f"```python\n{problem['prompt']}{problem['canonical_solution']}```"
    wrong = f"```python\ndef {problem['entry_point']}(*given):\n    return None\n```"
    return f"<think>{wrong}</think>\n{right}" if problem is PROBLEMS[0] or count == 0 else wrong


@needs_bubblewrap
def test_every_sample_is_asked_for_read_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeServer(answer) as server:
        results = evaluate(monkeypatch, server, tmp_path / "r", "--temperature", 0.7, "--max_new_tokens", 99)
        assert {name: results[name] for name in ("pass@1", "samples", "passed", "unanswered", "read_as")} == {
            "pass@1": (1 + 1 / 4) / 2,
            "samples": 8,
            "passed": 5,
            "unanswered": 0,
            "read_as": {"function": 8},
        }
        assert (results["model"], results["engine"], results["chat_answer"]) == (
            "hub/coder",
            "service",
            "free",
        )
        assert len(server.requests) == 8
        body = server.requests[0]
        assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == (
            "hub/coder",
            0.7,
            0.95,
            99,
        )
        assert body["messages"][0]["content"].startswith(
            "Complete the following python function. Please only"
        )
        # What is done is kept, and what was answered is asked for no more.
        (tmp_path / "r" / "results.json").unlink()
        again = evaluate(monkeypatch, server, tmp_path / "r", "--temperature", 0.7, "--max_new_tokens", 99)
        assert again == results and len(server.requests) == 8


@needs_bubblewrap
def test_an_answer_that_is_none_fails_and_too_many_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(body: dict[str, Any], count: int) -> "str | Answer":
        if PROBLEMS[0]["prompt"] in body["messages"][0]["content"]:
            return answer(body, count)
        return Answer(None, finish_reason="content_filter")

    with JudgeServer(half) as server:
        with pytest.raises(UserError, match=r"hub/coder did not answer 4 of 8 requests.*\n  - 4 times: "):
            evaluate(monkeypatch, server, tmp_path / "r")
        assert not (tmp_path / "r" / "results.json").exists()
        results = evaluate(monkeypatch, server, tmp_path / "r", "--max_empty_share", 0.5)
    assert (results["pass@1"], results["unanswered"]) == (0.5, 4)
    assert results["read_as"] == {"function": 4, "empty": 4}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--openai_engine", "m", "--model", "m"], "give either --openai_engine or --model"),
        ([], "nor --openai_engine"),
        (["--openai_engine", "m", "--use_vllm"], "asks a service"),
        (["--openai_engine", "m", "--max_empty_share", "2"], "--max_empty_share 2.0 must be between"),
        (["--openai_engine", "m", "--cost_limit", "-1"], "--cost_limit -1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(flags: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_eval.main(flags)
