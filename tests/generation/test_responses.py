import json
from dataclasses import asdict
from pathlib import Path

import pytest

from instruction_modelling.errors import UserError
from instruction_modelling.generation.responses import Response, ResponseWriter, read_responses

ANSWERS = [
    Response(
        row,
        f"id{row}",
        f"p{row}",
        f"i{row}",
        f"antwoord {row} ü \u2028 end",
        None if row == 2 else "ref",
        row + 1,
        row != 1,
    )
    for row in range(4)
]
IDENTITY = {"model": "m", "seed": 0, "end_tokens": ["</s>"]}
ROWS = {0, 1, 2, 3}


def test_a_run_written_and_read_back(tmp_path: Path) -> None:
    writer = ResponseWriter(tmp_path / "deep" / "folder", IDENTITY)
    assert writer.open(ROWS) == set()
    writer.append([ANSWERS[3], ANSWERS[1]])
    writer.append([ANSWERS[0], ANSWERS[2]])
    assert writer.finish({"rows": 4}) == ANSWERS
    path = tmp_path / "deep" / "folder" / "responses.jsonl"
    assert read_responses(path).responses == ANSWERS
    assert [json.loads(line) for line in path.read_text().split("\n")[:-1]] == [asdict(a) for a in ANSWERS]
    assert json.loads((path.parent / "generation.json").read_text()) == {
        **IDENTITY,
        "rows": 4,
        "complete": True,
    }
    assert sorted(p.name for p in path.parent.iterdir()) == ["generation.json", "responses.jsonl"]


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_killed_run_goes_on_behind_its_last_whole_line(tmp_path: Path, cut: int) -> None:
    first = ResponseWriter(tmp_path, IDENTITY)
    first.open(ROWS)
    first.append([ANSWERS[3], ANSWERS[1]])
    part = tmp_path / "responses.part.jsonl"
    part.write_bytes(part.read_bytes()[:-cut])
    second = ResponseWriter(tmp_path, IDENTITY)
    # A line that lacks no more than its newline is whole.
    kept = {3, 1} if cut == 1 else {3}
    assert second.open(ROWS) == kept
    second.append([ANSWERS[0]])
    # Killed a second time.
    third = ResponseWriter(tmp_path, IDENTITY)
    assert third.open(ROWS) == kept | {0}
    third.append([answer for answer in ANSWERS if answer.row not in kept | {0}])
    assert third.finish({}) == ANSWERS
    assert read_responses(tmp_path / "responses.jsonl").responses == ANSWERS


def test_an_answer_to_no_row_of_the_file_is_not_kept(tmp_path: Path) -> None:
    writer = ResponseWriter(tmp_path, IDENTITY)
    writer.open(ROWS)
    writer.append(ANSWERS)
    again = ResponseWriter(tmp_path, IDENTITY)
    assert again.open({0, 2}) == {0, 2}
    assert again.finish({}) == [ANSWERS[0], ANSWERS[2]]


def test_a_damaged_final_file_is_completed(tmp_path: Path) -> None:
    writer = ResponseWriter(tmp_path, IDENTITY)
    writer.open(ROWS)
    writer.append(ANSWERS)
    writer.finish({})
    path = tmp_path / "responses.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:7]
    path.write_bytes(b"\n".join(lines))
    again = ResponseWriter(tmp_path, IDENTITY)
    assert again.open(ROWS) == {0, 2, 3}
    # Killed before the first answer of the continued run: nothing is lost.
    once_more = ResponseWriter(tmp_path, IDENTITY)
    assert once_more.open(ROWS) == {0, 2, 3}


def test_another_run_is_refused_and_named(tmp_path: Path) -> None:
    writer = ResponseWriter(tmp_path, IDENTITY)
    writer.open(ROWS)
    writer.append(ANSWERS[:1])
    other = ResponseWriter(tmp_path, {**IDENTITY, "seed": 7})
    with pytest.raises(UserError) as error:
        other.open(ROWS)
    assert "seed: 0 then, 7 now" in str(error.value) and "--overwrite_output" in str(error.value)
    assert "model" not in str(error.value)
    assert ResponseWriter(tmp_path, IDENTITY).open(ROWS) == {0}
    assert other.open(ROWS, overwrite=True) == set()
    assert ResponseWriter(tmp_path, {**IDENTITY, "seed": 7}).open(ROWS) == set()


@pytest.mark.parametrize("generation", [None, "{broken", "[]"])
def test_responses_of_unknown_origin_are_not_touched(tmp_path: Path, generation: str | None) -> None:
    (tmp_path / "responses.jsonl").write_text('{"response": "mine"}\n')
    if generation is not None:
        (tmp_path / "generation.json").write_text(generation)
    with pytest.raises(UserError, match=r"no readable generation\.json"):
        ResponseWriter(tmp_path, IDENTITY).open(ROWS)
    assert (tmp_path / "responses.jsonl").read_text() == '{"response": "mine"}\n'


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        ResponseWriter(tmp_path / "file" / "under", IDENTITY).open(ROWS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no responses"),
        ("\n \n", "holds no responses"),
        ('{"response": "x"}\n{"response": ', ":2: "),
        ('{"response": "x"}\n\n[1]\n', ":3: not a response"),
        ('{"answer": "x"}', ":1: no response: it has the keys answer"),
        ('{"response": 5}', '"response" is 5; it must be of type str'),
        ('{"response": "x", "reference": ["y"]}', '"reference" is'),
        ('{"response": "x", "tokens": true}', '"tokens" is True'),
        ('{"response": "x", "finished": 1}', '"finished" is 1; it must be of type bool'),
        ('{"row": 4, "response": "x"}\n{"row": 4, "response": "y"}', ":2: row 4 was on line 1 already"),
        ("\x1f\x8b", "gzip"),
    ],
)
def test_files_that_cannot_be_scored(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as error:
        read_responses(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read: No such file"):
        read_responses(tmp_path / "none.jsonl")


def test_what_a_line_may_leave_out(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('\n{"response": "x", "reference": null}\n{"response": "", "id": 17, "extra": [1]}\n')
    assert read_responses(path).responses == [
        Response(0, "0", "", "", "x", None),
        Response(1, "17", "", "", "", None),
    ]
