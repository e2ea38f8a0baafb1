"""A million training rows: how fast, in how much memory, what is found of what was put there, and what
besides."""

import json
import random
import resource
import time
from pathlib import Path

import pytest

from instruction_modelling.analysis.overlap.index import OverlapSettings
from instruction_modelling.analysis.overlap.search import find_overlaps

ROWS, INJECTED = 1_000_000, 2_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_rows_are_compared_in_minutes(shared_data: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    sentences = []
    for name in ("lima_data.jsonl", "alpagasus_3k_dolly.jsonl"):
        for line in (shared_data / "train" / name).read_text(encoding="utf-8").splitlines():
            for message in json.loads(line)["messages"]:
                sentences += [
                    json.dumps(part)[1:-1]
                    for part in message["content"].split(". ")
                    if 3 <= len(part.split()) <= 60
                ]
    questions = [
        json.loads(line)["question"]
        for line in (shared_data / "eval" / "gsm8k" / "test.jsonl").read_text().splitlines()
    ]
    lines = [
        line.strip()
        for question in questions
        for line in question.replace("\n", " ").split(". ")
        if len(line.split()) >= 8
    ]
    tests = [
        tmp_path / "lines.txt",
        shared_data / "eval" / "mt_bench" / "question.jsonl",
        *sorted((shared_data / "eval" / "bbh").glob("*.json")),
    ]
    tests[0].write_text("".join(line + "\n" for line in lines))
    places = dict(
        zip(
            sorted(draw.sample(range(ROWS), INJECTED)),
            draw.choices(range(len(lines)), k=INJECTED),
            strict=True,
        )
    )
    train = tmp_path / "train.jsonl"
    with train.open("w") as handle:
        for row in range(ROWS):
            parts = draw.choices(sentences, k=6)
            if row in places:
                parts.insert(3, json.dumps(lines[places[row]].upper())[1:-1])
            user, assistant = ". ".join(parts[:4]), ". ".join(parts[4:])
            handle.write(
                f'{{"id": "{row}", "messages": [{{"role": "user", "content": "{user}"}}, '
                f'{{"role": "assistant", "content": "{assistant}"}}]}}\n'
            )
    limit = 1500
    begin = time.monotonic()
    found = find_overlaps(train, tests, OverlapSettings(max_memory_mb=limit, processes=2))
    seconds = time.monotonic() - begin
    peak = sum(
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    pairs = {(one.train_line - 1, one.test.line - 1) for one in found.overlaps if one.test.file == 0}
    recall = sum((row, line) in pairs for row, line in places.items()) / INJECTED
    other = {one.train_line for one in found.overlaps if one.train_line - 1 not in places}
    print(
        f"\n{ROWS:,} rows, {train.stat().st_size / 1e6:,.0f} MB, {sum(t.items for t in found.tests):,} test "
        f"items: {seconds:.0f} s, "
        f"{ROWS / seconds:,.0f} rows/s; recall {recall:.4f}; rows found without an injection: {len(other)}; "
        f"main process and largest worker at most {peak:,.0f} MB together"
    )
    assert recall >= 0.95 and len(other) <= ROWS // 1000 and found.train_rows == ROWS
    assert seconds < 600
