"""src/analyze_data.py from the command line: its JSON, its table, its page, and files that are not as they
should be."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from browser import measured_widths, needs_browser, put_in_frame
from chat_tokenizers import byte_level
from script_loader import SRC, run_script


def write(path: Path, rows: list[Any]) -> Path:
    """A file of JSON Lines; strings as they are."""
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """A row of one question and one answer."""
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        **more,
    }


def analysed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: object, code: int = 0
) -> list[dict[str, Any]]:
    """The `files` of the JSON that the script writes."""
    out = tmp_path / "out" / "analysis.json"
    assert run_script(monkeypatch, "analyze_data", *arguments, "--json", out) == code
    return json.loads(out.read_text(encoding="utf-8"))["files"]


# Rows, then mean total, output and its SD, instruction and its SD.
TABLE_5 = {
    "lima_data": (1030, [484.47, 442.75, 491.34, 41.72, 79.28]),
    "alpagasus_3k_dolly": (2996, [111.91, 68.08, 106.38, 43.83, 107.53]),
}


@pytest.mark.parametrize("name", TABLE_5)
def test_the_papers_table_comes_out(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    rows, published = TABLE_5[name]
    path = shared_data / "train" / f"{name}.jsonl"
    (found,) = analysed(monkeypatch, tmp_path, path)
    words = found["words"]
    assert (found["path"], found["rows"]) == (str(path), rows)
    assert [
        round(words[key], 2) for key in ("total", "output", "output_sd", "instruction", "instruction_sd")
    ] == published
    assert words["output"] != published[1]
    assert found["advice"]["nearest"][0]["name"] == {"lima_data": "LIMA"}.get(name, "Alpagasus Dolly 3k")
    turns = {"lima_data": {"1": 1000, "2": 16, "3": 10, "4": 3, "10": 1}}.get(name, {"1": 2996})
    assert found["turns"]["rows_by_responses"] == turns


def test_every_shape_of_row_and_every_empty_output_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "mixed.jsonl",
        [
            chat("one two", "three"),
            chat("one", ""),
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "a b"},
                    {"from": "gpt", "value": "c d"},
                ]
            },
            {"instruction": "add", "input": "1 2", "output": "3"},
            {"prompt": "p q r", "completion": "s"},
        ],
    )
    (found,) = analysed(monkeypatch, tmp_path, path)
    # Instruction: 3, 2, 2 + 3, 1 + 3, 4; output: 2, 2, 3, 2, 2.
    assert (
        found["rows"] == 5 and found["words"]["instruction"] == 18 / 5 and found["words"]["output"] == 11 / 5
    )
    assert found["words"]["total"] == 29 / 5 and found["words"]["output_sd"] == pytest.approx(0.4, rel=1e-15)
    assert found["empty_outputs"] == {"rows": 1, "listed": [{"line": 2, "id": "mixed_1"}]}
    assert found["turns"]["messages_by_role"] == {"user": 5, "assistant": 5, "system": 1}
    assert found["turns"]["plain_rows"] == 1 and found["turns"]["rows_with_system"] == 1


def test_duplicates_are_listed_by_line_and_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = " ".join(f"w{number}" for number in range(50))
    path = write(
        tmp_path / "same.jsonl",
        [
            chat("q", "a", id="first"),
            "",
            chat("Q ", "a", id="second"),
            chat("q", "b"),
            chat(long, "a"),
            chat(long + " more", "a"),
        ],
    )
    (found,) = analysed(monkeypatch, tmp_path, path)
    assert found["blank_lines"] == 1
    assert found["unread_keys"] == {}
    (group,) = found["duplicates"]["row"]["largest"]
    assert group == {"size": 2, "rows": [{"line": 1, "id": "first"}, {"line": 3, "id": "second"}]}
    assert found["duplicates"]["conflicting"]["rows"] == found["duplicates"]["instruction"]["rows"] == 3
    near = found["near_duplicates"]
    assert (near["groups"], near["extra_rows"]) == (2, 2)
    # 49 and 50 shingles of three words, of which 48 are in both.
    (pair,) = near["pairs"]
    assert pair["similarity"] == 48 / 51 and [row["line"] for row in pair["rows"]] == [5, 6]
    assert analysed(monkeypatch, tmp_path, path, "--no_near_duplicates")[0]["near_duplicates"] is None
    by_instruction = analysed(monkeypatch, tmp_path, path, "--near_duplicate_text", "instruction")[0][
        "near_duplicates"
    ]
    assert by_instruction["rows"] == 5 and by_instruction["of"] == "instruction"


def test_columns_that_nothing_reads_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where an export has its answers beside the messages."""
    row = {"messages": [{"role": "user", "content": "q"}], "choices": [{"index": 0}]}
    (found,) = analysed(monkeypatch, tmp_path, write(tmp_path / "stored.jsonl", [row, row]))
    assert found["unread_keys"] == {"column choices": 2}
    out, err = capsys.readouterr()
    assert "read by nothing: column choices (2); if one holds what is to be trained on" in " ".join(
        out.split()
    )
    assert err == f"written: {tmp_path}/out/analysis.json\n"


def test_unusable_rows_are_counted_listed_and_not_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "bad.jsonl", [chat("q", "a"), "{not json", {"text": "x"}, chat("q two", "b")])
    (found,) = analysed(monkeypatch, tmp_path, path, code=2)
    assert found["rows"] == 2 and found["bad_rows"]["rows"] == 2
    assert [bad["line"] for bad in found["bad_rows"]["listed"]] == [2, 3]
    printed = capsys.readouterr()
    assert (
        f"{path}:2: not JSON" in printed.out
        and "--max_bad_rows 2" in printed.err
        and "Traceback" not in printed.err
    )
    assert analysed(monkeypatch, tmp_path, path, "--max_bad_rows", "2")[0]["rows"] == 2


def test_usable_rows_of_all_files_are_written_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one.jsonl", [chat("a", "b", id="x"), "{", {"q": "c", "messages": None}])
    other = tmp_path / "other.csv"
    other.write_text("instruction,output\nc,d\n")
    clean = tmp_path / "clean.jsonl"
    assert run_script(monkeypatch, "analyze_data", one, other, "--write_clean", clean) == 2
    rows = [json.loads(line) for line in clean.read_text().splitlines()]
    assert rows == [chat("a", "b", id="x", dataset="one"), chat("c", "d", id="other_0", dataset="other")]
    assert run_script(monkeypatch, "analyze_data", clean, "--write_clean", clean) == 2
    assert f"--write_clean {clean}: is a file that is analysed too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), ("{not json\n", "none of its 1 rows can be used"), (None, "no such file")],
)
def test_a_file_that_cannot_be_used_is_explained(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "x.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert run_script(monkeypatch, "analyze_data", path) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--near_duplicate_threshold", "0"),
        ("--shingle_words", "0"),
        ("--batch_sizes", "0"),
        ("--max_tokens_per_device", "5"),
        ("--json", "x.jsonl"),
        ("--json", "o", "--html", "o"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = write(tmp_path / "x.jsonl", [chat("q", "a")]).read_bytes()
    assert run_script(monkeypatch, "analyze_data", "x.jsonl", *arguments) == 2
    assert arguments[0] in capsys.readouterr().err and (tmp_path / "x.jsonl").read_bytes() == before


def test_several_files_stand_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (
        write(tmp_path / "one.jsonl", [chat("a b", "c")] * 3),
        write(tmp_path / "two.jsonl", [chat("a", "b c d e")]),
    )
    found = analysed(monkeypatch, tmp_path, one, two)
    assert [(file["path"], file["rows"]) for file in found] == [(str(one), 3), (str(two), 1)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["one.jsonl", "two.jsonl"] and lines[1].split() == ["rows", "3", "1"]
    assert re.search(r"rows that repeat one +2 \(66\.7%\) +0$", "\n".join(lines), re.MULTILINE)
    assert re.search(r"output / instruction +0\.6667 +2\.5000$", "\n".join(lines), re.MULTILINE)
    # What was published is told once, and of which file where not of all.
    printed = "\n".join(lines)
    assert printed.count("arXiv 2401.13586]") == 1 and printed.count("── ") == 3
    assert (
        "(two.jsonl)" in printed[printed.index("What the paper and later studies found") :]
        or found[0]["advice"]["regime"] == (found[1]["advice"]["regime"])
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_level(["</s>"], name="small", eos_token="</s>").tokenizer.save_pretrained(folder)
    return folder


def test_with_a_tokenizer_tokens_are_counted_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokenizer: Path
) -> None:
    tool = {"messages": [{"role": role, "content": "x"} for role in ("user", "tool", "assistant")]}
    path = write(tmp_path / "x.jsonl", [chat("what is it? " * 9, "red"), chat("why", "because " * 40), tool])
    (found,) = analysed(
        monkeypatch,
        tmp_path,
        path,
        "--tokenizer_name",
        tokenizer,
        "--max_seq_length",
        "40",
        "--batch_sizes",
        "2",
        code=2,
    )
    tokens = found["tokens"]
    assert tokens["rows"] == 2 and tokens["refused_rows"]["rows"] == 1 and tokens["chat_format"] == "tulu"
    assert tokens["refused_rows"]["listed"][0]["line"] == 3
    assert tokens["truncation"]["rows_cut"] == 2 and tokens["truncation"]["responses_lost"] == 1
    assert tokens["packing"]["batch_sizes"][0]["packed"] == 1.0
    assert tokens["loss_shares"]["IT"]["example"]["response"] == pytest.approx(1.0)
    assert {caution["key"] for caution in found["advice"]["cautions"]} >= {"truncation"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A page of two files, one of them with long names, markup and unusable rows."""
    tmp_path = tmp_path_factory.mktemp("page")
    long = "x" * 120
    one = write(
        tmp_path / ("a_long_name_" * 6 + ".jsonl"),
        [
            chat("<script>alert(1)</script>", long, id=f"<b>{long}</b>"),
            chat("q", ""),
            chat("q", "b"),
            {"<i>": 1},
        ]
        + [
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a {n}"}] * n}
            for n in range(1, 40)
        ],
    )
    two = write(tmp_path / "two.jsonl", [chat(f"question {n} of many", f"answer {n}") for n in range(50)])
    out = tmp_path / "page.html"
    flags = ["--tokenizer_name", tokenizer, "--html", out, "--max_bad_rows", "1"]
    with pytest.MonkeyPatch.context() as patch:
        assert run_script(patch, "analyze_data", one, two, *flags) == 0
    return out


def test_the_page_is_self_contained_and_says_what_the_json_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "<i>" not in text and "<b>" not in text
    assert not re.search(r"""(?:src|href)=["'](?!#)""", text) and "mathdefault" not in text
    # Two axes and the gains once; lengths, shares and packing of both files, and turns of the one whose rows
    # differ.
    assert text.count("<svg") == 2 + 2 * 3 + 1
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "two.jsonl: in brief" in text and "extrapolation" in text
    # What was published stands there once, by what it says of IM.
    assert [
        text.count(f"<h3>{title}</h3>") for title in ("For IM", "Against IM", "Neither, or both", "Cautions")
    ] == [1] * 4
    assert text.count("GSM8K, math fell") == 1 == text.count("Test safety before you release")


@needs_browser
@pytest.mark.parametrize("width", [320, 1200])
def test_nothing_is_wider_than_the_page(page: Path, width: int) -> None:
    assert measured_widths(put_in_frame(page), width) == (width, width, 0)


def test_help_answers_at_once_and_words_need_no_torch(tmp_path: Path) -> None:
    began = time.monotonic()
    shown = subprocess.run(
        [sys.executable, SRC / "analyze_data.py", "--help"], capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0 and "FILE" in shown.stdout and time.monotonic() - began < 10
    path = write(tmp_path / "x.jsonl", [chat("q", "a")])
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, SRC / "analyze_data.py", path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
