"""Published rows of one instruction and one output convert to rows of chat, format by format."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from conversions import contents, converted
from raw_samples import read_lines, write_json, write_sheet

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.sources.conversion.formats import raw_files_of


@pytest.mark.parametrize(
    "name", ["stanford_alpaca", "code_alpaca", "gpt4_alpaca", "self_instruct", "alpagasus_3k_dolly"]
)
def test_alpaca_shaped_rows_join_instruction_and_input_by_an_empty_line(name: str, tmp_path: Path) -> None:
    rows = [
        {"instruction": " Add. ", "input": " 1 2\n", "output": "3 "},
        {"instruction": "Hi", "input": " ", "output": ""},
        {"instruction": "Hi", "output": "Ho"},
        {"instruction": "", "input": "only this", "output": "ok"},
    ]
    written, report = converted(name, rows, tmp_path)
    assert [contents(row) for row in written] == [
        [("u", "Add.\n\n1 2"), ("a", "3")],
        [("u", "Hi"), ("a", "")],
        [("u", "Hi"), ("a", "Ho")],
        [("u", "only this"), ("a", "ok")],
    ]
    assert {row["dataset"] for row in written} == {name} and report.refused.total() == 0


def test_rows_that_are_no_rows_are_counted_by_reason_and_listed_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "alpaca_data.jsonl"
    good = '{"instruction": "a", "input": "", "output": "b"}'
    path.write_text(
        "\n".join(
            [
                good,
                "{nonsense",
                "[]",
                '"text"',
                '{"instruction": "a", "input": ""}',
                '{"instruction": 7, "output": ""}',
                '{"instruction": " ", "input": null, "output": "b"}',
                '{"instruction": "half \\ud83d", "input": "", "output": "b"}',
                good,
            ]
        )
    )
    written, report = converted("stanford_alpaca", path, tmp_path)
    assert [row["id"] for row in written] == ["stanford_alpaca_0", "stanford_alpaca_8"]
    assert report.refused == {
        "not JSON": 1,
        "not an object": 2,
        "no output": 1,
        "instruction is not a string": 1,
        "no instruction": 1,
        "lone surrogate": 1,
    }
    listed = read_lines(report.refusals)
    assert [(entry["line"], entry["reason"]) for entry in listed][:2] == [
        (2, "not JSON"),
        (3, "not an object"),
    ]
    assert {entry["file"] for entry in listed} == {str(path)}
    assert [refusal.line for refusal in report.examples] == [2, 3, 4, 5, 6, 7, 8]


def test_the_real_alpaca_files_convert_whole_and_in_order(shared_data: Path, tmp_path: Path) -> None:
    files = {
        "stanford_alpaca": ("stanford_alpaca/alpaca_5000.json", 5000, 2),
        "code_alpaca": ("code_alpaca/code_alpaca_2k.json", 2017, 2),
        "gpt4_alpaca": ("alpaca_format/llamafactory_alpaca_en_demo.json", 999, 0),
        "hard_coded": ("hard_coded/llamafactory_identity.json", 91, 0),
    }
    for name, (file, count, empty) in files.items():
        path = shared_data / "raw" / file
        written, report = converted(name, path, tmp_path)
        raw = json.loads(path.read_bytes())
        assert len(written) == count == len(raw) and report.refused.total() == 0
        assert sum(not contents(row)[1][1] for row in written) == empty
        for source, row in zip(raw, written, strict=True):
            parts = [part for part in (source["instruction"].strip(), source["input"].strip()) if part]
            assert contents(row) == [("u", "\n\n".join(parts)), ("a", source["output"].strip())]
        assert len(read_conversations(report.output).conversations) == count


def test_dolly_reads_context_and_response(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "raw" / "dolly" / "litgpt_dolly.json"
    written, _ = converted("dolly", path, tmp_path)
    first = json.loads(path.read_bytes())[0]
    assert contents(written[0]) == [
        ("u", f"{first['instruction']}\n\n{first['context']}"),
        ("a", first["response"]),
    ]
    assert len(written) == 12


def test_self_instruct_takes_every_instance_of_a_seed_task(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "raw" / "self_instruct" / "seed_tasks.jsonl"
    written, _ = converted("self_instruct", path, tmp_path)
    expected = [
        (task["instruction"].strip(), instance["input"].strip(), instance["output"].strip())
        for task in read_lines(path)
        for instance in task["instances"]
    ]
    assert [contents(row) for row in written] == [
        [("u", "\n\n".join(filter(None, e[:2]))), ("a", e[2])] for e in expected
    ]


def test_unnatural_instructions_put_constraints_under_the_instruction_unless_they_say_none(
    tmp_path: Path,
) -> None:
    instances = [
        {"input": "x", "constraints": c, "output": "y"} for c in (None, "", "None.", "NONE", "Be brief.")
    ]
    written, report = converted(
        "unnatural_instructions",
        [
            {"instruction": "Do.", "instances": [*instances, "broken", {"input": "z"}]},
            {"instruction": "No instance", "instances": []},
        ],
        tmp_path,
    )
    assert [contents(row)[0][1] for row in written] == ["Do.\n\nx"] * 4 + ["Do.\nBe brief.\n\nx"]
    assert report.refused == {"not an object": 1, "no output": 1, "no instances": 1}


@pytest.mark.parametrize("name", ["flan_v2", "cot"])
def test_a_flan_prompt_gets_a_line_break_unless_it_ends_in_one_or_in_a_colon(
    name: str, tmp_path: Path
) -> None:
    prompts = ["a", "a\n", "a: ", "a:\n\n", " a "]
    written, _ = converted(name, [{"inputs": prompt, "targets": " b\n"} for prompt in prompts], tmp_path)
    assert [contents(row) for row in written] == [
        [("u", prompt), ("a", " b\n")] for prompt in ("a\n", "a\n", "a: ", "a:\n\n", " a \n")
    ]


def test_cot_reads_flans_own_columns(shared_data: Path, tmp_path: Path) -> None:
    for name, count in (("aqua", 2728), ("creak", 6915), ("qasc", 1084), ("strategyqa", 2061)):
        written, report = converted("cot", shared_data / "raw" / "cot" / f"{name}_train.tsv", tmp_path)
        assert (len(written), report.refused.total()) == (count, 0)
    assert contents(written[0])[0][1] == "Are more people today related to Genghis Khan than Julius Caesar?\n"
    assert contents(written[0])[1][1].startswith("Julius Caesar had three") and contents(written[0])[1][
        1
    ].endswith("Genghis Khan.\nyes")
    path = tmp_path / "x_train.tsv"
    path.write_text("Q?\\nOptions:\\n- a\tb\tsince\\nso\nQ\tb\nQ\t\tsince\nQ\tb\t \n\t b\tsince\n")
    written, report = converted("cot", path, tmp_path)
    assert [contents(row) for row in written] == [[("u", "Q?\nOptions:\n- a\n"), ("a", "since\nso\nb")]]
    assert report.refused == {"not three columns": 1, "no answer": 1, "no rationale": 1, "no instruction": 1}


def test_science_names_its_task_and_hard_coded_reads_a_sheet(tmp_path: Path) -> None:
    written, report = converted(
        "science",
        [{"dataset": "qasper", "input": " p ", "output": " f "}, {"input": "p", "output": "f"}],
        tmp_path,
    )
    assert [(row["dataset"], row["id"], contents(row)) for row in written] == [
        ("science.qasper", "science_0", [("u", " p "), ("a", " f ")])
    ]
    assert report.refused == {"no dataset": 1}
    sheet = write_sheet(
        tmp_path / "h.xlsx", [["Prompt", "Output"], ["Who?", "Tülu."], ["When?", None], ["Year?", 2023]]
    )
    written, report = converted("hard_coded", sheet, tmp_path)
    assert [contents(row) for row in written] == [[("u", "Who?"), ("a", "Tülu.")]]
    assert report.refused == {"no Output": 1, "Output is not a string": 1}


# ---- Super-NaturalInstructions


def task(count: int, **more: Any) -> dict[str, Any]:
    return {
        "Definition": ["Say it. "],
        "Positive Examples": [{"input": f"e{i}", "output": f"o{i}"} for i in range(3)],
        "Instances": [
            {"id": f"t-{i}", "input": f"in {i}", "output": [f"out {i}", "other"]} for i in range(count)
        ],
        **more,
    }


def test_super_ni_takes_zero_shot_instances_then_few_shot_ones(tmp_path: Path) -> None:
    written, report = converted("super_ni", write_json(tmp_path / "t.json", task(62)), tmp_path)
    assert report.left_out == {} and len(written) == 62
    assert contents(written[59]) == [("u", "Say it.\n\nin 59"), ("a", "out 59")]
    rng = random.Random(42)
    [rng.random() for _ in range(60)]
    one, two = rng.sample(task(0)["Positive Examples"], k=2)
    assert contents(written[60])[0][1] == (
        f"Say it.\n\nInput:\n{one['input']}\nOutput:\n{one['output']}\n\nInput:\n{two['input']}\n"
        f"Output:\n{two['output']}\n\nInput:\nin 60\nOutput:\n"
    )


def test_super_ni_draws_eighty_of_more_instances_and_counts_the_others(tmp_path: Path) -> None:
    written, report = converted("super_ni", write_json(tmp_path / "t.json", task(200)), tmp_path)
    assert (len(written), report.left_out) == (80, {"not drawn": 120})
    drawn = random.Random(42).sample(range(200), k=80)
    assert [contents(row)[1][1] for row in written] == [f"out {i}" for i in drawn]


def test_super_ni_takes_a_definition_and_outputs_that_are_strings_whole(tmp_path: Path) -> None:
    odd = task(
        1,
        Definition="One string.",
        Instances=[
            {"input": "q", "output": "word"},
            {"input": "q", "output": []},
            {"input": "", "output": ["x"]},
        ],
    )
    written, report = converted("super_ni", write_json(tmp_path / "t.json", odd), tmp_path)
    assert [contents(row) for row in written] == [
        [("u", "One string.\n\nq"), ("a", "word")],
        [("u", "One string."), ("a", "x")],
    ]
    assert report.refused == {"output is not a string": 1}


def test_the_real_super_ni_task_converts(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "raw" / "super_ni" / "tasks" / "task062_bigbench_repeat_copy_logic.json"
    written, _ = converted("super_ni", path, tmp_path)
    raw = json.loads(path.read_bytes())
    assert [contents(row) for row in written] == [
        [("u", f"{raw['Definition'][0]}\n\n{instance['input']}"), ("a", instance["output"][0])]
        for instance in raw["Instances"]
    ]


def test_super_ni_tasks_are_those_of_the_training_split_without_mmlu(tmp_path: Path) -> None:
    root = tmp_path / "super_ni"
    (root / "splits" / "xlingual").mkdir(parents=True)
    (root / "splits" / "xlingual" / "train_tasks.txt").write_text("task2_b\ntask7_mmmlu_law\ntask1_a\n")
    for name in ("task1_a", "task2_b", "task3_test", "task7_mmmlu_law"):
        write_json(root / "tasks" / f"{name}.json", task(1))
    assert [path.stem for path in raw_files_of("super_ni", tmp_path)] == ["task2_b", "task1_a"]
    (root / "tasks" / "task1_a.json").unlink()
    with pytest.raises(UserError, match=r"1 of its 2 tasks .* task1_a\.json"):
        raw_files_of("super_ni", tmp_path)
