"""The file of responses as scoring reads it."""

from pathlib import Path

import pytest

from instruction_modelling.errors import UserError
from instruction_modelling.generation.responses import Response, read_responses


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
