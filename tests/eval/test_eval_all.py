"""scripts/eval_all.sh with parts that only say how they were called, and the table of what they leave
behind."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from benchmark_fixtures import write_model
from training_runs import ROOT

PARTS = ("nlp", "humaneval", "mt_bench", "alpaca_eval")
PART = """#!/usr/bin/env bash
printf '%q ' {part} "$RESULTS" "$@" >>calls; echo >>calls
echo "{part} of $1"
case " ${{FAILING:-}} " in *" {part}:${{1##*/}} "*) exit "${{CODE:-3}}" ;; esac
if [[ {part} == "${{SLEEPING:-}}" ]]; then trap 'exit 130' INT; sleep 30 >/dev/null 2>&1 & wait; fi
"""


@dataclass
class Ran:
    code: int
    out: str
    calls: list[list[str]]


@dataclass
class Checkout:
    """A copy of the script beside stubs of the parts, and the real src/collect_results.py."""

    folder: Path

    def run(self, *arguments: object, **environment: str) -> Ran:
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        clean = {
            name: value for name, value in os.environ.items() if name not in ("OPENAI_API_KEY", "RESULTS")
        }
        done = subprocess.run(
            ["bash", self.folder / "scripts" / "eval_all.sh", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**clean, **environment},
            timeout=60,
        )
        lines = calls.read_text().splitlines() if calls.exists() else []
        return Ran(done.returncode, done.stdout + done.stderr, [shlex.split(line) for line in lines])


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "a project"
    (folder / "scripts" / "sourced").mkdir(parents=True)
    for script in ("eval_all.sh", "sourced/from_anywhere.sh"):
        shutil.copy(ROOT / "scripts" / script, folder / "scripts" / script)
    for part in PARTS:
        (folder / "scripts" / f"eval_{part}.sh").write_text(PART.format(part=part))
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    # The models of these tests are names alone; what is looked for first has tests of its own.
    python.write_text(
        '#!/usr/bin/env bash\ncase $* in "-m eval.preflight"*) [[ ${PREFLIGHT:-} ]] || exit 0 ;; esac\n'
        f'exec {ROOT}/.venv/bin/python "$@"\n'
    )
    python.chmod(0o755)
    for name in ("src", "eval"):
        (folder / name).symlink_to(ROOT / name)
    return Checkout(folder)


def test_every_part_runs_for_every_model_and_the_table_comes_last(checkout: Checkout) -> None:
    write_model(checkout.folder / "results" / "eval" / "it")
    write_model(checkout.folder / "results" / "eval" / "im x")
    ran = checkout.run("out/it/", "/models/im x", OPENAI_API_KEY="k")
    assert [(call[0], call[2]) for call in ran.calls] == [
        (part, model) for model in ("out/it", "/models/im x") for part in PARTS
    ]
    assert {call[1] for call in ran.calls} == {"results/eval"} and ran.code == 0
    table, summary = ran.out.index("Mean"), ran.out.index("part         result")
    assert ran.out.rindex("alpaca_eval of /models/im x") < table < summary
    assert ran.out[summary:].count(" ok ") == 8


def test_a_failing_part_stops_nothing_and_is_named_with_its_log(checkout: Checkout) -> None:
    write_model(checkout.folder / "r" / "im")
    ran = checkout.run("--results", "r", "it", "im", FAILING="nlp:it humaneval:im", OPENAI_API_KEY="k")
    assert len(ran.calls) == 8 and ran.code == 1
    rows = [
        line.split() for line in ran.out.splitlines() if line.startswith(("it ", "im ")) and ".log" in line
    ]
    assert [(row[0], row[1]) for row in rows if "failed" in row] == [("it", "nlp"), ("im", "humaneval")]
    assert (checkout.folder / "r" / "it" / "logs" / "nlp.log").read_text() == "nlp of it\n"
    assert "2 failed" in ran.out and ran.out.count("failed (3)") == 2


def test_the_judge_options_go_to_the_judged_parts_alone(checkout: Checkout) -> None:
    ran = checkout.run(
        "--judge_model",
        "my judge",
        "--judge_base_url",
        "http://127.0.0.1:1/v1",
        "--yes",
        "it",
        EVAL_FLAGS="--use_vllm",
        NLP_FLAGS="--model vllm",
        MT_BENCH_FLAGS="--max_questions 2",
    )
    judge = ["--judge_model", "my judge", "--judge_base_url", "http://127.0.0.1:1/v1", "--yes"]
    assert [call[2:] for call in ran.calls] == [
        ["it", "--", "--model", "vllm"],
        ["it", "--", "--use_vllm"],
        ["it", "--", "--use_vllm", "--max_questions", "2", *judge],
        ["it", "--", "--use_vllm", *judge],
    ]


@pytest.mark.parametrize("flags", [("--no_judge",), ()])
def test_without_a_judge_the_judged_parts_only_answer_and_the_summary_says_so(
    checkout: Checkout, flags: tuple[str, ...]
) -> None:
    ran = checkout.run(*flags, "it")
    assert [call[-1] for call in ran.calls] == ["--", "--", "--no_judge", "--no_evaluate_with_llm"]
    assert ran.out.count("answered, judge skipped") == 2
    assert ("There is no judge" in ran.out) == (not flags)


def test_parts_are_chosen_and_the_table_takes_flags(checkout: Checkout, tmp_path: Path) -> None:
    write_model(checkout.folder / "results" / "eval" / "it")
    ran = checkout.run(
        "--parts",
        "humaneval,nlp",
        "it",
        "--",
        "--json",
        tmp_path / "table.json",
        "--aggregation",
        "corrected",
    )
    assert [call[0] for call in ran.calls] == ["humaneval", "nlp"] and "There is no judge" not in ran.out
    assert json.loads((tmp_path / "table.json").read_text())["aggregation"] == "corrected"


def test_dry_run_prints_the_commands_and_runs_none(checkout: Checkout) -> None:
    ran = checkout.run("--dry_run", "--results", "my results", "a b", "--", "--per_task", OPENAI_API_KEY="k")
    *lines, where = [shlex.split(line) for line in ran.out.splitlines()]
    # It is called from another folder.
    assert where == ["results", "go", "to", *f"{checkout.folder}/my results".split()]
    assert lines[:-1] == [
        ["RESULTS=my results", "bash", f"scripts/eval_{part}.sh", "a b", "--"] for part in PARTS
    ]
    assert lines[-1] == [".venv/bin/python", "src/collect_results.py", "my results/a b", "--per_task"]
    assert not ran.calls and not (checkout.folder / "my results").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no model is given"),
        (("a/it", "b/it/"), "would both write to"),
        (("--parts", "nlp,mmlu", "it"), "there is nlp, humaneval"),
        (("--use_vllm", "it"), "no such option"),
        (("..",), "by its name"),
        (("--results",), "needs a value"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(
    checkout: Checkout, arguments: tuple[str, ...], said: str
) -> None:
    ran = checkout.run(*arguments)
    assert ran.code == 2 and said in ran.out and not ran.calls


def test_an_interrupt_stops_the_whole_evaluation(checkout: Checkout) -> None:
    process = subprocess.Popen(
        ["bash", checkout.folder / "scripts" / "eval_all.sh", "--no_judge", "it"],
        stdout=subprocess.PIPE,
        env={**os.environ, "SLEEPING": "humaneval"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (log := checkout.folder / "results/eval/it/logs/humaneval.log").exists() or not log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGINT)
    assert [line.split()[0] for line in (checkout.folder / "calls").read_text().splitlines()] == [
        "nlp",
        "humaneval",
    ]
