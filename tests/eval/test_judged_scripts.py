"""scripts/eval_mt_bench.sh and eval_alpaca_eval.sh: failing models, kills, interrupts, tables."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, JudgeServer
from tiny import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
RANKING = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"


def command(
    name: str, server: JudgeServer, arguments: Sequence[object], flags: Sequence[object] = ()
) -> list[str]:
    """A script's command line, judged by the server."""
    judge = [
        "--judge_base_url",
        server.url,
        "--judge_model",
        "scripted",
        "--max_new_tokens",
        "3",
        "--dtype",
        "float32",
    ]
    return list(map(str, ["bash", f"scripts/{name}.sh", *arguments, "--", *judge, *flags]))


def environment() -> dict[str, str]:
    """Without a hub, and with AlpacaEval 1 alone."""
    return {**os.environ, "IS_ALPACA_EVAL_2": "False", "HF_HUB_OFFLINE": "1"}


def done(line: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=250, env=environment())


def questions(folder: Path, count: int) -> Path:
    """MT-Bench's files, with so many questions."""
    (folder / "reference_answer").mkdir(parents=True)

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(
        "question.jsonl",
        [
            {"question_id": n, "category": "stem", "turns": [f"First {n}?", f"Second {n}?"]}
            for n in range(count)
        ],
    )
    write("reference_answer/gpt-4.jsonl", [])
    write(
        "judge_prompts.jsonl",
        [
            {
                "name": f"{name}{turn}",
                "system_prompt": "Be fair.",
                "output_format": "[[rating]]",
                "prompt_template": "{question} {answer}"
                if not turn
                else "{question_1} {answer_1} {question_2} {answer_2}",
            }
            for name in ("single-v1", "single-math-v1", "pair-v2", "pair-math-v1")
            for turn in ("", "-multi-turn")
        ],
    )
    return folder


@pytest.mark.slow
def test_mt_bench_survives_a_failing_model_a_kill_and_an_interrupt_and_ends_with_one_table(
    tmp_path: Path,
) -> None:
    models = [make_tiny_model(tmp_path / name, seed=seed) for seed, name in enumerate(("it", "im"))]
    flags = ["--data_dir", questions(tmp_path / "data", 6), "--judge_parallel", "1"]
    results = tmp_path / "results"
    arguments = ["--results", results, models[0], tmp_path / "none", f"{models[1]}/"]
    slow = True
    with JudgeServer(
        lambda body, count: Answer(
            f"[[{5 if 'Second' in body['messages'][1]['content'] else 8}]]", delay=0.3 if slow else 0.0
        )
    ) as server:
        line = command("eval_mt_bench", server, arguments, flags)
        replies = results / "it" / "mt_bench" / "judge_replies.jsonl"
        for sent, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
            there = replies.read_bytes().count(b"\n") if replies.exists() else 0
            run = subprocess.Popen(
                line,
                cwd=ROOT,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            deadline = time.monotonic() + 120
            while not (replies.exists() and replies.read_bytes().count(b"\n") >= there + 2):
                assert time.monotonic() < deadline and run.poll() is None
                time.sleep(0.02)
            os.killpg(run.pid, sent)
            said, _ = run.communicate(timeout=60)
            assert run.returncode == code and not (results / "im").exists(), said
            assert "Traceback" not in said
        kept, asked, slow = replies.read_bytes().count(b"\n"), len(server.requests), False
        assert 4 <= kept < 12 and asked - kept <= 2, (
            "no more than what was under way at a kill is asked twice"
        )
        end = done(line)
        assert end.returncode == 1 and "failed (mt_bench): " + str(tmp_path / "none") in end.stderr, (
            end.stderr
        )
        assert "Traceback" not in end.stderr and len(server.requests) - asked == 24 - kept
        rows = [line.split() for line in end.stdout.splitlines()]
        at = rows.index(["==", "mt_bench:", "scripted_single"])
        assert [row[:6] for row in rows[at + 2 : at + 4]] == [
            [name, "8.0000", "5.0000", "6.5000", "12", "0"] for name in ("im", "it")
        ]
        assert (results / "mt_bench_scripted_single.png").read_bytes().startswith(b"\x89PNG")
        # Once more: nothing is generated, asked or written twice.
        before = len(server.requests)
        assert done(line).returncode == 1 and len(server.requests) == before
        assert (
            len(
                (results / "it" / "mt_bench" / "model_judgment" / "scripted_single.jsonl")
                .read_text()
                .splitlines()
            )
            == 12
        )


@pytest.mark.slow
def test_alpaca_eval_goes_on_after_a_model_that_fails_stops_when_interrupted_and_ends_with_a_table(
    tmp_path: Path,
) -> None:
    model = make_tiny_model(tmp_path / "tiny")
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps([{"instruction": f"Do {n}.", "output": f"other {n}"} for n in range(10)]))
    results, slow = tmp_path / "results", True
    with JudgeServer(lambda body, count: Answer(RANKING, delay=0.3 if slow else 0.0)) as server:
        flags = ["--reference_path", reference, "--judge_parallel", "1"]
        line = command("eval_alpaca_eval", server, ["--results", results, model, tmp_path / "none"], flags)
        replies = results / "tiny" / "alpaca_eval_1" / "judge_replies.jsonl"
        run = subprocess.Popen(
            line,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not (replies.exists() and replies.read_bytes().count(b"\n") >= 2):
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGINT)
        said, _ = run.communicate(timeout=60)
        assert (
            run.returncode == 130
            and "the same command goes on from there" in said
            and "none" not in said.split("==")[-1]
        ), said
        kept, asked, slow = replies.read_bytes().count(b"\n"), len(server.requests), False
        end = done(line)
        assert len(server.requests) - asked == 10 - kept
    assert end.returncode == 1, end.stderr
    assert f"failed (alpaca_eval): {tmp_path / 'none'}" in end.stderr and "Traceback" not in end.stderr
    result = json.loads((results / "tiny" / "alpaca_eval_1" / "results.json").read_text())
    table = end.stdout.splitlines()[-3:]
    assert table[0].split() == [
        "model",
        "AlpacaEval",
        "1",
        "AlpacaEval",
        "2",
        "2,",
        "length-controlled",
        "judges",
    ]
    assert table[1].split() == [
        "tiny",
        f"{result['win_rate']:.2f}",
        "±",
        f"{result['standard_error']:.2f}",
        "-",
        "-",
        "scripted",
    ]
    assert table[2].split() == ["none", "-", "-", "-", "-"]


@pytest.mark.parametrize("name", ["eval_mt_bench", "eval_alpaca_eval"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no model is given"),
        (["a/m", "b/m"], "would both write to results/eval/m"),
        (["--yes", "m"], "after the models and a --"),
        (["--results"], "--results needs a folder"),
    ],
)
def test_mistakes_on_the_command_line_are_said_before_anything_runs(
    name: str, arguments: list[str], said: str
) -> None:
    end = subprocess.run(
        ["bash", f"scripts/{name}.sh", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert (
        end.returncode == 2
        and said in end.stderr
        and f"usage: bash scripts/{name}.sh" in end.stderr
        and not end.stdout
    )
