"""What is plainly wrong with answers is counted, and said where it is not rare."""

import json
from pathlib import Path
from typing import Any

import pytest
from files_page import check_page
from tiny import make_tiny_model
from training_runs import record, run, sample_rows

from instruction_modelling.generation.faults import (
    FAULTS,
    copies,
    count_faults,
    ends_in_loop,
    fault_warnings,
    faults_of,
)
from instruction_modelling.generation.responses import Response

QUESTION = "Name the three longest rivers of Europe and the seas they reach."


def answer(text: str, finished: bool | None = True, reference: str | None = "The Volga.") -> Response:
    return Response(0, "a", "", QUESTION, text, reference, finished=finished)


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("The river is long. " * 4, True),
        ("First the Volga. " + "and the sea " * 9 + "and th", True),
        ("no " * 20, True),
        ("ha ha ha ha", False),
        ("1. One\n2. Two\n3. Three\n4. Four\n5. Five\n6. Six\n7. Seven\n8. Eight", False),
        ("The Volga reaches the Caspian Sea, the Danube the Black Sea, the Ural the Caspian Sea.", False),
        ("a b c d " * 3, False),
        ("", False),
    ],
)
def test_a_loop_is_a_piece_that_ends_the_text_four_times_or_more(text: str, loops: bool) -> None:
    assert ends_in_loop(text) is loops


def test_an_answer_copies_where_it_holds_a_whole_long_instruction() -> None:
    assert copies(f"User:  {QUESTION}\nThe Volga", QUESTION)
    assert not copies("The three longest rivers of Europe", QUESTION)
    assert not copies("Add 1 and 2: 3", "Add 1 and 2")


def test_each_fault_is_counted_once_an_answer_and_beside_the_references() -> None:
    answers = [
        answer("The Volga, the Danube and the Ural."),
        answer("", reference=""),
        answer("and on " * 30, finished=False, reference="so " * 40),
        answer(f"{QUESTION} {QUESTION}"),
        answer(QUESTION, reference=f"Ask: {QUESTION}"),
        answer("Yes.", finished=None, reference=None),
    ]
    assert [faults_of(one) for one in answers] == [
        [],
        ["empty"],
        ["no_end", "loop"],
        ["copied_prompt"],
        [],
        [],
    ]
    assert count_faults(answers) == {
        "rows": 6,
        "answers": {"no_end": 1, "loop": 1, "empty": 1, "copied_prompt": 1},
        "references": {"loop": 1, "empty": 1},
    }


def counts(rows: int, references: dict[str, int] | None = None, **answers: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "answers": {**dict.fromkeys(FAULTS, 0), **answers},
        "references": {"loop": 0, "empty": 0, **(references or {})},
    }


def test_a_warning_is_due_from_a_tenth_of_the_answers_beyond_the_references() -> None:
    assert fault_warnings(counts(20, no_end=1), "x") == []
    assert fault_warnings(counts(1, no_end=1), "x") == []
    assert fault_warnings(counts(20, empty=5, references={"empty": 4}), "x") == []
    (said,) = fault_warnings(counts(20, no_end=2), "Test answers of IM")
    assert said.startswith(
        "Test answers of IM: 2 of 20 did not end within the tokens they had: the end token"
    )
    (said,) = fault_warnings(counts(20, loop=7, references={"loop": 1}), "x")
    assert said.startswith("x: 7 of 20 end in a loop (of the references 1): too little training")


def test_a_run_whose_model_never_stops_says_so(tmp_path: Path) -> None:
    """A random model, hardly trained, and of its end token nothing."""
    make_tiny_model(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in sample_rows(6)), encoding="utf-8")
    arguments = ("--model_name_or_path", tmp_path / "model", "--train_file", rows, "--max_train_steps", 1)
    outcome = run("finetune", *arguments, "--output_dir", tmp_path / "run", "--check_answers", 4)
    assert outcome.code == 0, outcome.err
    found = record(tmp_path / "run")["answers"]
    assert found == json.loads((tmp_path / "run" / "answers" / "faults.json").read_text())
    check_page("### answers/faults.json", [found])
    assert found["rows"] == 4 and found["answers"]["no_end"] >= 3
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert f"the answers: {found['answers']['no_end']} of 4 did not end within the tokens they had" in log
    again = run("check_answers", tmp_path / "run", "--eval_file", rows, "--rows", 4)
    assert again.code == 3 and "responses.jsonl, faults.json" in again.out
    assert json.loads((tmp_path / "run" / "answers" / "faults.json").read_text()) == found
    assert run("check_answers", tmp_path / "no run", "--eval_file", rows, "--rows", 0).code == 2
