"""Words around instructions come from a file or from nowhere, and the authors' own give the authors' file."""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from conversions import contents, converted
from raw_samples import read_lines, write_json

from instruction_modelling.errors import UserError
from instruction_modelling.sources.conversion.templates import PromptTemplate, PromptTemplates


def test_alpagasus_has_the_instructions_and_outputs_of_the_authors_file_row_for_row(
    shared_data: Path, tmp_path: Path
) -> None:
    raw_path = shared_data / "raw" / "alpagasus" / "dolly_3k.json"
    theirs = read_lines(shared_data / "train" / "alpagasus_3k_dolly.jsonl")
    ours, report = converted("alpagasus_3k_dolly", raw_path, tmp_path)
    assert len(ours) == len(theirs) == 2996 and report.refused.total() == 0
    assert [(row["dataset"], row["id"]) for row in ours] == [(row["dataset"], row["id"]) for row in theirs]
    for source, our, their in zip(json.loads(raw_path.read_bytes()), ours, theirs, strict=True):
        (_, question), (_, answer) = contents(their)
        assert answer.strip() == contents(our)[1][1]
        assert question.index(source["instruction"].strip()) <= question.rindex(source["input"].strip())
        assert contents(our)[0][1] == "\n\n".join(
            filter(None, (source["instruction"].strip(), source["input"].strip()))
        )


def templates_of(raw: list[dict[str, str]], done: list[dict[str, Any]]) -> PromptTemplates:
    """The templates that a processed file was wrapped in, found by taking instruction, input and output out
    of it.

    Their order and weights follow from the random number of each row: the seed is 42, and the two sets that
    are converted before this one took one number a row."""
    rng = random.Random(42)
    for _ in range(5305 + 9229):
        rng.random()
    seen: dict[bool, dict[tuple[str, str], list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for source, row in zip(raw, done, strict=True):
        (_, prompt), (_, answer) = contents(row)
        prompt = prompt.replace(source["instruction"].strip(), "{instruction}", 1)
        if source["input"].strip():
            prompt = prompt.replace(source["input"].strip(), "{input}", 1)
        before = answer[: len(answer) - len(source["output"].strip())]
        seen[bool(source["input"].strip())][prompt, before + "{output}"].append(rng.random())
    lists = {}
    for has_input, found in seen.items():
        assert len(found) == 14
        ordered = sorted(found, key=lambda texts: min(found[texts]))
        ends = [round(20 * max(found[texts])) for texts in ordered]
        lists[has_input] = [
            PromptTemplate(*texts, (end - begin) / 20)
            for texts, begin, end in zip(ordered, [0, *ends], ends, strict=False)
        ]
    return PromptTemplates(lists[True], lists[False])


def test_with_the_authors_templates_and_seed_the_authors_file_comes_out(
    shared_data: Path, tmp_path: Path
) -> None:
    raw_path = shared_data / "raw" / "alpagasus" / "dolly_3k.json"
    theirs = read_lines(shared_data / "train" / "alpagasus_3k_dolly.jsonl")
    templates = templates_of(json.loads(raw_path.read_bytes()), theirs)
    ours, _ = converted("alpagasus_3k_dolly", raw_path, tmp_path, templates=templates)
    assert ours == theirs


def test_templates_come_from_a_file_and_leave_braces_in_the_data_alone(tmp_path: Path) -> None:
    file = write_json(
        tmp_path / "t.json",
        {
            "with_input": [{"prompt": "Q {instruction} ON {input}", "completion": "\n{output}"}],
            "without_input": [{"prompt": "Q {instruction}", "weight": 3}, {"prompt": "T: {instruction}"}],
        },
    )
    rows = [
        {"instruction": "use {input} and {x}", "input": "{output}", "output": "{instruction}"},
        *({"instruction": f"i{i}", "input": "", "output": "o"} for i in range(400)),
    ]
    written, report = converted("stanford_alpaca", rows, tmp_path, templates=file)
    assert contents(written[0]) == [("u", "Q use {input} and {x} ON {output}"), ("a", "\n{instruction}")]
    drawn = sum(contents(row)[0][1].startswith("Q ") for row in written[1:])
    # 300 expected; the standard deviation is 8.7.
    assert 265 < drawn < 335
    assert converted("stanford_alpaca", rows, tmp_path, templates=file)[0] == written
    assert converted("stanford_alpaca", rows, tmp_path, templates=file, seed=1)[0] != written
    assert json.loads(report.card.read_text())["options"]["templates"] == str(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "with_input"),
        ({"with_input": [], "without_input": []}, "is empty"),
        ([], "is not an object"),
        (
            {"with_input": [{"prompt": "{instruction}"}], "without_input": [{"prompt": "{instruction}"}]},
            "with_input, template 1",
        ),
        (
            {
                "with_input": [{"prompt": "{instruction}{input}"}],
                "without_input": [{"prompt": "{instruction}", "weight": 0}],
            },
            "weight 0",
        ),
        (
            {"with_input": [{"prompt": "{instruction}{input}", "completion": ""}], "without_input": []},
            "the completion",
        ),
    ],
)
def test_a_templates_file_that_does_not_fit_is_an_error(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        converted(
            "dolly",
            [{"instruction": "a", "context": "", "response": "b"}],
            tmp_path,
            templates=write_json(tmp_path / "t.json", content),
        )
