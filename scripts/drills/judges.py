"""Evaluate answers by judges that stall or lie, and print what came of each as rows of a table.

    python scripts/drills/judges.py FOLDER

Each is a server on the loopback, and the evaluation (AlpacaEval 1, ten answers) a process of its own, with 2
seconds of patience and 3 attempts. It must end with the exit code that is expected, without a traceback,
with a line that says what the judge did, and with results only where they are right. FOLDER is written
anew."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tests" / "support")]

from alpaca_runs import output_file, ranking  # noqa: E402
from judge_server import Answer, JudgeServer, Script  # noqa: E402


@dataclass
class Judge:
    """A judge, and what must come of it."""

    name: str
    script: Script | None
    """Its answers; None: it takes connections and is silent."""
    code: int
    words: str
    """A regular expression of what the evaluation says of it."""


def always(answer: Answer) -> Script:
    """Return a script that answers everything so."""
    return lambda body, count: answer


def after(count: int, answer: Answer) -> Script:
    """Return a script whose first answers to a question are so, and then the model's answer wins."""
    return lambda body, asked: answer if asked < count else right(body, asked)


def right(body: dict[str, Any], count: int) -> str:
    """Return a verdict for the model's answer."""
    return ranking(body, mine_wins=True)


def page(text: str) -> Answer:
    """Return a page in place of an answer."""
    return Answer(body=text.encode(), headers={"Content-Type": "text/html"})


UNREAD = r"error: .*0 of 10 judgments|error: .*readable"
JUDGES = [
    Judge("answers as it should", right, 0, r"win rate 100"),
    Judge("takes connections and never answers", None, 2, r"error: .*no answer within 2 s"),
    Judge(
        "a byte a second, for ever",
        always(Answer("late" * 99, drip=1.0)),
        2,
        r"error: .*no whole answer within 20 s",
    ),
    Judge("rubbish in place of a verdict", always(Answer("banana")), 2, UNREAD),
    Judge("an empty verdict", always(Answer("")), 2, UNREAD),
    Judge(
        "a verdict that is cut off",
        always(Answer("[{'model': 'model_1', 'ra", finish_reason="length")),
        2,
        UNREAD,
    ),
    Judge("JSON of another kind", always(Answer(body=b'{"a": [1]}')), 2, r"error: .*holds no message"),
    Judge(
        "a page of HTML, status 200",
        always(page("<html>welcome</html>")),
        2,
        r"error: .*not a chat completion",
    ),
    Judge(
        "an error with status 200",
        always(Answer(body=b'{"error": {"message": "backend is gone", "code": 500}}')),
        2,
        r"error: .*backend is gone",
    ),
    Judge(
        "half a response, then hangs up",
        always(Answer("x" * 999, cut=True)),
        2,
        r"error: .*connection failed",
    ),
    Judge("half a response, twice, then answers", after(2, Answer("x" * 999, cut=True)), 0, r"win rate 100"),
    Judge(
        "429 with Retry-After: 3, once, then answers",
        after(1, Answer("slow down", status=429, headers={"Retry-After": "3"})),
        0,
        r"win rate 100",
    ),
    Judge(
        "429 with Retry-After: 1, for ever",
        always(Answer("slow down", status=429, headers={"Retry-After": "1"})),
        2,
        r"error: .*status 429: slow down",
    ),
    Judge("401", always(Answer("who are you", status=401)), 2, r"error: .*does not take the key"),
    Judge(
        "no such model", always(Answer("no such model", status=404)), 2, r"error: .*does not give scripted"
    ),
]


@contextmanager
def serving(judge: Judge) -> Iterator[str]:
    """Give the judge's address while it is there."""
    if judge.script is None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
    else:
        with JudgeServer(judge.script) as server:
            yield server.url


def evaluate(judge: Judge, folder: Path) -> tuple[int, float, str]:
    """Return the evaluation's exit code, its seconds, and all that it said."""
    folder.mkdir(parents=True)
    files = [
        *("--reference_path", output_file(folder / "reference.json", "other", lambda n: f"<other {n}>")),
        *("--model_outputs", output_file(folder / "model.json", "mine", lambda n: f"<mine {n}>")),
        *("--save_dir", folder / "results", "--max_instructions", 10),
    ]
    asked = ("--judge_model", "scripted", "--judge_timeout", 2, "--judge_max_tries", 3, "--judge_parallel", 4)
    with serving(judge) as address:
        begin = time.monotonic()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "eval.alpaca_farm.run_eval",
                "--judge_base_url",
                address,
                *map(str, [*asked, *files]),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "IS_ALPACA_EVAL_2": "False",
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, time.monotonic() - begin, done.stdout + done.stderr


def main() -> int:
    """Ask them all; return 1 where one of them was not met as it must be."""
    wrong = 0
    for number, judge in enumerate(JUDGES):
        folder = Path(sys.argv[1]) / f"{number:02d}"
        code, seconds, said = evaluate(judge, folder)
        (folder / "said.txt").write_text(said, encoding="utf-8")
        lines = [line for line in said.splitlines() if re.search(judge.words, line)]
        results = list((folder / "results").glob("alpaca_eval_1*/results.json"))
        met = bool(code == judge.code and lines and "Traceback" not in said and bool(results) == (code == 0))
        wrong += not met
        line = (lines or said.splitlines() or [""])[-1]
        print(
            f"| {judge.name} | {'' if met else '**NOT as it must be**: '}{code} | {seconds:.0f} | `{line}` |",
            flush=True,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
