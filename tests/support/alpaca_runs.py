"""Runs of AlpacaEval against a judge on this machine."""

import contextlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer

from eval.alpaca_farm import run_eval
from instruction_modelling.errors import run_main

FIRST_WINS = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"


SECOND_WINS = "[{'model': 'model_1', 'rank': 2}, {'model': 'model_2', 'rank': 1}]"


COUNT = 20


ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Outcome:
    """How a run ended and what it said."""

    code: int
    out: str
    err: str


def evaluate(number: int, server: JudgeServer | None, *arguments: object) -> Outcome:
    """Run the script in this process, AlpacaEval `number` judged by the server."""
    judge = (
        []
        if server is None
        else ["--judge_base_url", server.url, "--judge_model", "scripted", "--judge_timeout", "5"]
    )
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setenv("IS_ALPACA_EVAL_2", str(number == 2))
        patch.setattr("sys.argv", ["run_eval", *map(str, [*judge, *arguments])])
        patch.setattr("eval.chat_client.LONGEST_BACKOFF", 0.02)
        with pytest.raises(SystemExit) as stopped:
            run_main(run_eval.main)
    return Outcome(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


def instruction(number: int) -> str:
    """Return the text of an instruction."""
    return f"instruction {number:02d}."


def output_file(path: Path, generator: str, answer: Callable[[int], str]) -> Path:
    """Write a file of answers to the same instructions, and return its path."""
    path.write_text(
        json.dumps(
            [
                {
                    "instruction": instruction(number),
                    "output": answer(number),
                    "generator": generator,
                    "dataset": "made",
                }
                for number in range(COUNT)
            ]
        )
    )
    return path


def number_in(body: dict[str, Any]) -> int:
    """Which instruction a request is about."""
    found = re.search(r"instruction (\d\d)\.", body["messages"][-1]["content"])
    assert found
    return int(found[1])


def mine_first(body: dict[str, Any]) -> bool:
    """Return whether the judge sees the model's answer before the reference's."""
    content = body["messages"][-1]["content"]
    return content.index("<mine ") < content.index("<other ")


def ranking(body: dict[str, Any], mine_wins: bool) -> str:
    """Return the reply that prefers the model's answer, or the reference's."""
    return FIRST_WINS if mine_first(body) == mine_wins else SECOND_WINS


def read(folder: Path, name: str) -> Any:
    """Return a JSON file of the results."""
    return json.loads((folder / name).read_text())
