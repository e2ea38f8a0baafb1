"""A small task for the sandbox, and the verdict on a body of its function."""

import shutil
from pathlib import Path

import pytest

from eval.sandbox.bubblewrap import Sandbox
from eval.sandbox.execution import Candidate, Verdict, try_candidate

ROOT = Path(__file__).resolve().parents[2]


TEST = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(41) == 42\n"


PROMPT = "def f(x):\n    '''Adds one.'''\n"


needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def verdict_of(
    sandbox: Sandbox, body: str, test: str = TEST, prompt: str = PROMPT, timeout: float = 5.0
) -> Verdict:
    """Try a body of the function f, and return the verdict."""
    return try_candidate(sandbox, Candidate("one", prompt, body, test, "f"), timeout)
