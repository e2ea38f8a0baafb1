"""Threads that wait for each other leave the processor to whoever has work."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("given", "holds"), [(None, "PASSIVE"), ("active", "ACTIVE")])
def test_torchs_threads_sleep_while_they_wait_unless_told_otherwise(given: str | None, holds: str) -> None:
    environment = {**os.environ, "OMP_DISPLAY_ENV": "true"}
    environment.pop("OMP_WAIT_POLICY", None)
    if given:
        environment["OMP_WAIT_POLICY"] = given
    command = [sys.executable, "-c", "import instruction_modelling, torch"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    # What the library that runs the threads has read, not what was meant.
    assert re.findall(r"OMP_WAIT_POLICY\s*=\s*'(\w+)'", said.stderr) == [holds]
