"""Several files of rows are read as one, each row named by its own file."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from row_files import GOOD, write

from instruction_modelling.errors import UserError
from instruction_modelling.inputs import missing_inputs
from instruction_modelling.rows.conversations import check_bad_rows, read_conversations
from instruction_modelling.rows.mixture import read_mixture, row_files

BAD: dict[str, list[str]] = {"messages": []}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files with ids that clash: JSON Lines with a bad row, Parquet, and CSV with data sets named."""
    first = write(tmp_path, {**GOOD, "id": "1"}, BAD, GOOD, name="a.jsonl")
    parquet.write_table(pa.Table.from_pylist([{**GOOD, "id": "1"}, GOOD]), tmp_path / "b.parquet")
    (tmp_path / "c.csv").write_text("instruction,output,dataset\nAdd 1 and 2.,3,sums\nSay hi.,hi,\n")
    return [str(first), str(tmp_path / "b.parquet"), str(tmp_path / "c.csv")]


@pytest.mark.parametrize("keep", [True, False])
def test_rows_of_several_files_one_after_another(
    files: list[str], keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instruction_modelling.rows.conversations.KEPT_CHARACTERS", 3)
    file = read_conversations(row_files(files), keep=keep)
    assert [(row.row, row.id, row.dataset) for row in file.conversations] == [
        (0, "1", "a"),
        (2, "a_2", "a"),
        (3, "1", "b"),
        (4, "b_1", "b"),
        (5, "c_0", "sums"),
        (6, "c_1", "c"),
    ]
    assert [(member.name, str(member.path), member.first_row) for member in file.members] == [
        ("a", files[0], 0),
        ("b", files[1], 3),
        ("c", files[2], 5),
    ]
    assert [member.sha256 for member in file.members] == [read_conversations(name).sha256 for name in files]
    places = [*map(file.place, file.bad_rows), *map(file.place, file.conversations)]
    assert places == [
        f"{files[0]}:2",
        f"{files[0]}:1",
        f"{files[0]}:3",
        f"{files[1]}: row 1 (id 1)",
        f"{files[1]}: row 2",
        f"{files[2]}: row 1",
        f"{files[2]}: row 2",
    ]
    assert str(file.path) == "a + b + c" and file.rows == 7


def test_one_name_is_the_file_itself(files: list[str]) -> None:
    one, other = read_conversations(row_files(files[:1])), read_conversations(files[0])
    assert one == other and one.members == () and one.member_of(2).path == Path(files[0])


def test_data_sets_of_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    names = ["x/en/train.jsonl", "x/de/train.jsonl", "rest.jsonl", "p/q.json", "p/q.jsonl"]
    assert row_files(names).set_names == ("en/train", "de/train", "rest", "q.json", "q.jsonl")


def test_bad_rows_are_said_with_their_files(files: list[str], tmp_path: Path) -> None:
    file = read_conversations(row_files(files))
    with pytest.raises(UserError) as refused:
        check_bad_rows(file, 0)
    said = str(refused.value).splitlines()
    assert said[0].startswith("a + b + c: 1 of 7 rows cannot be used (1 ")
    assert said[1].startswith(f"  {files[0]}:2: ") and said[-1].endswith("--max_bad_rows 1")
    check_bad_rows(file, 1)
    hopeless = str(write(tmp_path, BAD, name="bad.jsonl"))
    with pytest.raises(UserError, match=r"bad\.jsonl: none of its 1 rows can be used"):
        check_bad_rows(read_conversations(row_files([*files, hopeless])), 2)
    empty = write(tmp_path, name="empty.jsonl")
    with pytest.raises(UserError, match=r"empty\.jsonl"):
        read_conversations(row_files([files[0], str(empty)]))


def mixture(folder: Path, text: str) -> Path:
    path = folder / "mix.yaml"
    path.write_text(text)
    return path


def test_a_mixture_names_files_beside_it_and_their_shares(files: list[str], tmp_path: Path) -> None:
    listed = mixture(tmp_path, "files: [a.jsonl, b.parquet, 'org/name:config:train']\nproportions: [5, 3, 2]")
    read = row_files([str(listed)])
    assert read.names == (files[0], files[1], "org/name:config:train")
    assert read.proportions == (0.5, 0.3, 0.2) and read.path == listed
    assert read_mixture(mixture(tmp_path, f"files:\n  a.jsonl: 1\n  {files[1]}: 3")).proportions == (
        0.25,
        0.75,
    )
    assert read_mixture(mixture(tmp_path, "files: [a.jsonl, b.parquet]")).proportions is None
    (tmp_path / "set").mkdir()
    assert read_mixture(mixture(tmp_path, "files: ['set::test']")).names == (f"{tmp_path}/set::test",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("files: [", "cannot be read as YAML: "),
        ("", "a mixture has a list `files:`"),
        ("- a.jsonl", "a mixture has a list `files:`"),
        ("files: []", "a mixture has a list `files:`"),
        ("files: a.jsonl", "`files` has to be a list of names"),
        ("files: [1]", "`files` has to be a list of names"),
        ("files: [a.jsonl]\nproportion: [1]", "did you mean proportions?"),
        ("files: [other.yaml]", "a mixture of mixtures is not read"),
        ("files: [a.jsonl, ./a.jsonl]", "a.jsonl is named twice"),
        ("files: [a.jsonl]\nproportions: [1]", "shares are of several files, and there is one"),
        ("files: [a.jsonl, b.jsonl]\nproportions: 0.5", "no list of numbers for 2 files"),
        ("files: [a.jsonl, b.jsonl]\nproportions: [1]", "1 numbers for 2 files"),
        ("files: [a.jsonl, b.jsonl]\nproportions: [1, 0]", "0 is no share"),
        ("files: [a.jsonl, b.jsonl]\nproportions: [1, .nan]", "nan is no share"),
        ("files: [a.jsonl, b.jsonl]\nproportions: [1, true]", "True is no share"),
        ("files: {a.jsonl: 1, b.jsonl: half}", "'half' is no share"),
        ("files: {a.jsonl: 1, b.jsonl: 1}\nproportions: [1, 1]", "not in both"),
        ("files: [\0]", "cannot be read as YAML: "),
        ("a: &a [x]\nb: *c", "cannot be read as YAML: "),
        ("files: !!python/object/apply:os.system [exit]", "cannot be read as YAML: "),
    ],
)
def test_what_is_no_mixture_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = mixture(tmp_path, text)
    with pytest.raises(UserError) as refused:
        read_mixture(path)
    assert said in str(refused.value) and str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_that_do_not_go_together(tmp_path: Path) -> None:
    path = str(mixture(tmp_path, "files: [a.jsonl, b.jsonl]"))
    for names, proportions, said in (
        ([path, "a.jsonl"], None, "a mixture stands alone"),
        ([path], [1.0], "whose proportions stand in it"),
        (["a", "b"], [1.0], "--proportions: 1 numbers for 2 files"),
        (["a", "b"], [1.0, -1.0], "--proportions: -1.0 is no share"),
        (["a"], [1.0], "--proportions: shares are of several files"),
        (["a", "a"], None, "--train_file: a is named twice"),
        ([str(tmp_path / "absent.yaml")], None, "there is no such file"),
    ):
        with pytest.raises(UserError, match=said):
            row_files(names, proportions)
    with pytest.raises(UserError, match="is a mixture of files"):
        read_conversations(path)


def test_a_file_that_changes_between_two_readings_is_said(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instruction_modelling.rows.conversations.KEPT_CHARACTERS", 3)
    file = read_conversations(row_files(files), keep=False)
    Path(files[2]).write_text("instruction,output\nAdd 1 and 2.,4\n")
    with pytest.raises(UserError, match=r"a \+ b \+ c: changed while it was read"):
        json.dumps([row.id for row in file.conversations])


@dataclass
class _Options:
    train_file: list[str] = field(metadata={"input": "rows"})


def test_a_file_that_a_mixture_names_and_that_is_not_there_is_told_with_the_mixture(tmp_path: Path) -> None:
    mixture = tmp_path / "mix.yaml"
    mixture.write_text("files: [absent one.parquet]\n", encoding="utf-8")
    (problem,) = missing_inputs(_Options([str(mixture)]))
    assert problem.startswith(f"--train_file {mixture} names absent one.parquet: there is no such file; ")
    (problem,) = missing_inputs(_Options([str(tmp_path / "absent.jsonl")]))
    assert problem.startswith(f"--train_file {tmp_path / 'absent.jsonl'}: there is no such file; ")
