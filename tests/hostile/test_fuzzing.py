"""Whatever a row holds and whatever template writes it: it is refused by name, or every character and every
token of it is whose it should be.

A short time in every run of the tests, the same rows each time. For as long as it is given, with other rows
each time, and over every template at hand:

    FUZZ_MINUTES=45 python -m pytest -q -s -m slow tests/hostile/test_fuzzing.py
"""

import os
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz_chats import (
    POLICIES,
    RELEASED,
    TULU,
    check_encoding,
    check_reading,
    format_of,
    line_of,
    rows,
    templates,
)
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

FEW = (
    "trl/qwen3.jinja",
    "trl/gptoss.jinja",
    "trl/llama3_1.jinja",
    "trl/glm4moe.jinja",
    "trl/deepseekv3.jinja",
    TULU,
    RELEASED,
)
LIMITS = st.sampled_from([1 << 20] * 6 + [12, 40])
HEALTH = list(HealthCheck)


def one_row(draw: Callable[[Any], Any], folder: Path, names: tuple[str, ...]) -> tuple[int, int]:
    """Draw a format and some rows; return how many rows were drawn, and how many were encoded."""
    name = draw(st.sampled_from(names))
    by = format_of(name, draw(LIMITS) if name in FEW and name != RELEASED else 1 << 20)
    drawn = draw(st.lists(rows(by.signs), min_size=1, max_size=3))
    file = check_reading(folder, [line_of(row) for row in drawn])
    return len(drawn), check_encoding(file, by, draw(POLICIES))


@settings(max_examples=25, deadline=None, suppress_health_check=HEALTH, derandomize=True)
@given(data=st.data())
def test_any_row_in_any_format_is_refused_or_weighed_as_it_should(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    one_row(data.draw, tmp_path_factory.getbasetemp(), FEW)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif("FUZZ_MINUTES" not in os.environ, reason="no time is given: FUZZ_MINUTES=45")
def test_for_as_long_as_is_given_nothing_is_found() -> None:
    counts: Counter[str] = Counter()
    findings: dict[str, str] = {}
    names = (*templates(), TULU, RELEASED)
    end = time.monotonic() + 60 * float(os.environ["FUZZ_MINUTES"])
    first = int(os.environ.get("FUZZ_SEED", time.time()))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + 10**9):
            if time.monotonic() > end:
                break

            @seed(number)
            @settings(
                max_examples=200,
                deadline=None,
                suppress_health_check=HEALTH,
                database=None,
                # Without making what is found small, which takes minutes each time.
                phases=[Phase.generate],
            )
            @given(data=st.data())
            def search(data: st.DataObject) -> None:
                drawn, encoded = one_row(data.draw, Path(folder), names)
                counts.update(examples=1, rows=drawn, encoded=encoded)

            try:
                search()
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                words = traceback.format_exc()
                where = "\n".join(line for line in words.splitlines() if "File " in line)[-400:]
                if where not in findings:
                    findings[where] = words
                    print(f"seed {number}:\n{words}", flush=True)
            counts["rounds"] += 1
            if counts["rounds"] % 5 == 0:
                print(f"{dict(counts)}, {len(findings)} findings", flush=True)
    print(f"{dict(counts)} from seed {first} on, {len(findings)} findings", flush=True)
    assert not findings
