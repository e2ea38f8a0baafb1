"""Tokens and keys of the environment reach the one host that each is for, and nothing that is written."""

import base64
import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from judge_server import Answer, JudgeServer
from mt_bench_samples import run_module, write_answers, write_benchmark
from tiny import make_tiny_model
from training_runs import Outcome, run, sample_rows, write_rows
from upload_hub import UploadHub

from eval.mt_bench import run_eval

CANARIES = {
    name: f"canary-{name.lower().replace('_', '-')}-7f3a91"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "OTHER_JUDGE_KEY")
}


# In the texts of rows, by themselves and beside the words that the sample's rows have.
TOLD = "told-in-a-row-7f3a91"


def rows_that_tell(count: int) -> list[dict[str, Any]]:
    """The sample's rows, each with a secret in what the user says and in what is answered."""
    rows = sample_rows(count)
    for row in rows:
        for message in row["messages"]:
            message["content"] += f" {TOLD}"
    return rows


def tellers(folder: Path) -> list[str]:
    """The files under a folder that hold what rows tell, in their names or bytes."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and TOLD.encode() in path.read_bytes() + str(path.relative_to(folder)).encode()
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and rows; all that is written goes into it."""
    for name, canary in CANARIES.items():
        monkeypatch.setenv(name, canary)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    make_tiny_model(tmp_path / "model")
    write_rows(tmp_path / "rows.jsonl", rows_that_tell(8))
    return tmp_path


def holders(folder: Path) -> list[str]:
    """What holds a canary, as it is or as base64 writes it, in any file's name or bytes."""
    signs = [canary.encode() for canary in CANARIES.values()]
    signs += [base64.b64encode(b"x" * shift + sign)[4:-4] for sign in signs for shift in range(3)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        str(path.relative_to(folder))
        for path in files
        if any(sign in path.read_bytes() + str(path).encode() for sign in signs)
    ]


def said(*outcomes: Outcome) -> str:
    """All that was printed."""
    assert [one.code for one in outcomes] == [0] * len(outcomes), [one.err for one in outcomes]
    return "".join(one.out + one.err for one in outcomes)


def test_no_file_and_no_line_holds_a_secret_after_training_scoring_and_uploading(place: Path) -> None:
    model, rows, tuned = place / "model", place / "rows.jsonl", place / "run"
    with UploadHub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        words = said(
            run(
                *("finetune", "--model_name_or_path", model, "--train_file", rows, "--output_dir", tuned),
                *("--max_train_steps", 1, "--checkpointing_steps", 1, "--with_tracking"),
                *("--push_to_hub", "lab/tuned"),
            ),
            run(
                *("compute_loss", "--model_name_or_path", tuned, "--eval_file", rows),
                *("--output_dir", place / "losses"),
            ),
            run(
                *("generate", "--model_name_or_path", tuned, "--eval_file", rows, "--num_rows", 2),
                *("--max_new_tokens", 2, "--output_dir", place / "answers"),
            ),
            inspected := run(
                *("inspect_weights", "--tokenizer_name", model, "--train_file", rows),
                *("--html", place / "weights.html", "--summary_file", place / "weights.json"),
            ),
            run("report", "--runs", tuned, "--output_dir", place / "report"),
        )
    shown = inspected.out
    assert hub.tokens == {f"Bearer {CANARIES['HF_TOKEN']}"}
    uploaded = b"".join(content for files in hub.files.values() for content in files.values())
    assert uploaded and holders(place) == []
    for canary in CANARIES.values():
        assert canary not in words and canary.encode() not in uploaded
    # What rows tell is where their texts are asked for, and in no log, record, card, report or cache.
    assert tellers(place) == ["answers/responses.jsonl", "rows.jsonl", "weights.html"]
    assert TOLD not in words.replace(shown, "") and TOLD in shown and TOLD.encode() not in uploaded


@pytest.mark.slow
def test_what_rows_tell_is_in_the_copies_of_a_comparison_alone(place: Path) -> None:
    rows = write_rows(place / "rows.jsonl", rows_that_tell(12))
    out = place / "out"
    outcome = run(
        *("compare", "--model_name_or_path", place / "model", "--train_file", rows, "--output_dir", out),
        *("--arms", "IT", "--train_responses", 0, "--test_responses", 0),
    )
    assert TOLD not in said(outcome) and (out / "report.html").exists()
    assert tellers(place) == ["out/rows/rows_test.jsonl", "out/rows/rows_train.jsonl", "rows.jsonl"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("Fine. [[7]]", id="an answer"),
        pytest.param(
            Answer(f"Incorrect API key provided: {CANARIES['OPENAI_API_KEY']}", status=401), id="a refusal"
        ),
        pytest.param(f"Your key is {CANARIES['OPENAI_API_KEY']}. [[7]]", id="an answer that says it"),
    ],
)
def test_a_judge_gets_its_own_key_in_a_header_and_nothing_else_does(
    place: Path, answer: str | Answer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_benchmark(place / "benchmark")
    answers = write_answers(place / "answers.jsonl", "An answer.")
    with JudgeServer(lambda body, count: answer) as server:
        code = run_module(
            *(monkeypatch, run_eval, "--answers", answers, "--data_dir", data, "--model_id", "m"),
            *("--judge_base_url", server.url, "--judge_model", "judge", "--save_dir", place / "out"),
            *("--judge_max_tries", 1),
        )
    assert code == (2 if isinstance(answer, Answer) else 0)
    assert {head["authorization"] for head in server.headers} == {f"Bearer {CANARIES['OPENAI_API_KEY']}"}
    sent = json.dumps([server.requests, server.paths])
    sent += json.dumps([{**head, "authorization": ""} for head in server.headers])
    words = "".join(capfd.readouterr())
    for canary in CANARIES.values():
        assert canary not in words and canary not in sent
    assert holders(place) == []
