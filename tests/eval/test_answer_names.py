"""Names, ids and inputs that files of answers bring along: nothing leaves its folder or takes another's."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from alpaca_runs import evaluate, instruction, number_in, output_file, ranking, read
from judge_server import JudgeServer
from mt_bench_samples import row, run_module, write_answers, write_benchmark, written

from eval.alpaca_farm.pairs import read_outputs
from eval.mt_bench import run_eval, show_results
from eval.mt_bench.questions import load_benchmark
from eval.names import folder_name
from instruction_modelling.errors import UserError


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mine", "mine"),
        ("Llama-2.7b_it", "Llama-2.7b_it"),
        ("/home/me/ckpt/llama-it", "home_me_ckpt_llama-it"),
        ("../../escape", "escape"),
        ("a/../b", "a_b"),
        ("..", "model"),
        ("", "model"),
        ("~/x", "~_x"),
        (r"C:\ckpt\it", "C__ckpt_it"),
        (".hidden", "hidden"),
        ("two\nlines\x00", "two_lines_"),
        ("hub/model:free", "hub_model_free"),
        ("模型", "模型"),
    ],
)
def test_a_name_is_one_part_of_a_path(name: str, folder: str) -> None:
    assert folder_name(name) == folder


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    first, second = folder_name("é" * 300 + "1"), folder_name("é" * 300 + "2")
    assert first != second and len(first.encode()) <= 120 and first.startswith("éé")


def answers_of(path: Path, generator: str | None, mine: str = "mine") -> Path:
    """A file of answers, of which the generator is left out for None."""
    output_file(path, generator or "", lambda n: f"<{mine} {n}>")
    if generator is None:
        rows = json.loads(path.read_text())
        for one in rows:
            del one["generator"]
        path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reference's answers; the working directory is a folder of its own."""
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "deep")
    return output_file(tmp_path / "reference.json", "other", lambda n: f"<other {n}>")


@pytest.mark.parametrize("generator", ["{outside}/ckpt/it", "../../escape", "..", "a/b"])
def test_a_generator_writes_below_the_folder_of_results_alone(
    generator: str, reference: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    path = answers_of(tmp_path / "m.json", generator.format(outside=outside))
    before = {one for one in tmp_path.rglob("*") if one.is_file()}
    with JudgeServer(lambda body, count: ranking(body, True)) as server:
        outcome = evaluate(1, server, "--reference_path", reference, "--model_outputs", path)
    assert outcome.code == 0, outcome.err
    made = {one for one in tmp_path.rglob("*") if one.is_file()} - before
    results = Path.cwd() / "results" / "eval"
    assert made and all(results in one.parents for one in made)
    assert len(list(results.iterdir())) == 1


def test_files_without_a_generator_are_called_as_they_are_and_keep_their_results(
    reference: Path, tmp_path: Path
) -> None:
    for name, wins in (("first", True), ("second", False)):
        path = answers_of(tmp_path / f"{name}.json", None)
        with JudgeServer(lambda body, count, wins=wins: ranking(body, wins)) as server:  # type: ignore[misc]
            assert evaluate(1, server, "--reference_path", reference, "--model_outputs", path).code == 0
    for name, rate in (("first", 100), ("second", 0)):
        result = read(Path("results/eval") / name / "alpaca_eval_1", "results.json")
        assert (result["win_rate"], result["model"]) == (rate, name)


def test_two_files_of_one_name_do_not_overwrite_each_other(reference: Path, tmp_path: Path) -> None:
    first = answers_of(tmp_path / "first.json", "mine")
    second = answers_of(tmp_path / "second.json", "mine", "mine again")
    fixed = ["--reference_path", reference]
    with JudgeServer(lambda body, count: ranking(body, True)) as server:
        assert evaluate(1, server, *fixed, "--model_outputs", first).code == 0
        before = Path("results/eval/mine/alpaca_eval_1/results.json").read_bytes()
        sent = len(server.requests)
        asked_for = (*fixed, "--model_outputs", second)
        outcome = evaluate(1, server, *asked_for, "--save_dir", "results/eval/mine")
        assert outcome.code == 2 and f"holds the results of other answers ({first})" in outcome.err
        assert "--save_dir" in outcome.err and len(server.requests) == sent
        # Nor do they stand beside each other as one model's, in either benchmark.
        outcome = evaluate(2, server, *asked_for, "--save_dir", "results/eval/mine")
        assert outcome.code == 2 and "other answers" in outcome.err
        # Without a folder that is asked for, they get one of their own, and find it again.
        for _ in range(2):
            assert evaluate(1, server, *asked_for).code == 0
            assert len(server.requests) == 2 * sent
        assert sorted(one.name for one in Path("results/eval").iterdir()) == ["mine", "mine-2"]
        assert read(Path("results/eval/mine-2/alpaca_eval_1"), "results.json")["outputs"]["file"] == str(
            second
        )
        assert Path("results/eval/mine/alpaca_eval_1/results.json").read_bytes() == before
        sent = len(server.requests)
        # The same file, named otherwise or with other answers, is the same.
        assert evaluate(1, server, *fixed, "--model_outputs", os.path.relpath(first)).code == 0
        assert len(server.requests) == sent
        answers_of(first, "mine", "mine mended")
    with JudgeServer(lambda body, count: ranking(body, False)) as server:
        assert evaluate(1, server, *fixed, "--model_outputs", first).code == 0
    assert read(Path("results/eval/mine/alpaca_eval_1"), "results.json")["win_rate"] == 0


def test_two_services_models_of_one_name_do_not_overwrite_each_other(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = ["--reference_path", reference, "--no_evaluate_with_llm"]
    with JudgeServer(lambda body, count: f"{body['model']} says {number_in(body)}") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert evaluate(1, None, *fixed, "--openai_engine", "one/m").code == 0
        outcome = evaluate(1, None, *fixed, "--openai_engine", "two/m")
        assert outcome.code == 2 and "holds the answers of one/m" in outcome.err
        assert evaluate(1, None, *fixed, "--openai_engine", "one/m").code == 0
    outputs = read(Path("results/eval/m/alpaca_eval"), "model_outputs.json")
    assert outputs[3]["output"] == "one/m says 3"


def test_several_generators_in_one_file_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "m.json"
    rows = [
        {"instruction": instruction(n), "output": "x", "generator": "mine-v2" if n == 2 else "mine"}
        for n in range(4)
    ]
    path.write_text(json.dumps(rows))
    read_outputs(path, "")
    assert "holds answers of 2 generators (mine 3, mine-v2 1), which are judged as one model's" in caplog.text


@pytest.mark.parametrize(
    ("fields", "joined"),
    [
        ({"instruction": "Summarise.", "input": "A text."}, "Summarise.\n\nA text."),
        ({"instruction": "Summarise.", "input": ""}, "Summarise."),
        ({"instruction": "Summarise.", "input": None}, "Summarise."),
        ({"instruction": "Summarise.\n\nA text.", "input": "A text."}, "Summarise.\n\nA text."),
    ],
)
def test_an_input_is_joined_to_its_instruction(fields: dict[str, Any], joined: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{**fields, "output": "x", "generator": None, "dataset": None}]))
    output = read_outputs(path, "").outputs[0]
    assert (output.instruction, output.generator, output.dataset) == (joined, "m", "")


def test_an_input_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"instruction": "x", "input": ["a"], "output": "y"}]))
    with pytest.raises(UserError, match=r'entry 0: "input" is \[\'a\'\]; it must be a string'):
        read_outputs(path, "")


# -- MT-Bench ----------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark of four questions; the working directory is a folder of its own."""
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "deep")
    return write_benchmark(tmp_path / "data")


def judged(monkeypatch: pytest.MonkeyPatch, server: JudgeServer, data: Path, *arguments: object) -> int:
    judge = ("--judge_base_url", server.url, "--data_dir", data)
    return run_module(monkeypatch, run_eval, *judge, *arguments)


def respelt(path: Path, change: Any) -> Path:
    """Rewrite the ids of a file of lines."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({**one, "question_id": change(one["question_id"])}) + "\n" for one in rows)
    )
    return path


def test_names_of_a_model_and_a_judge_stay_below_the_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = write_answers(tmp_path / "m.jsonl", "m")
    before = {one for one in tmp_path.rglob("*") if one.is_file()}
    with JudgeServer(lambda body, count: "[[8]]") as server:
        names = ("--model_id", f"{tmp_path}/ckpt/it", "--judge_model", "../../judge")
        assert judged(monkeypatch, server, data, "--answers", answers, *names) == 0
        assert {body["model"] for body in server.requests} == {"../../judge"}
    made = {one for one in tmp_path.rglob("*") if one.is_file()} - before
    folder = Path.cwd() / "results" / "eval" / folder_name(f"{tmp_path}/ckpt/it") / "mt_bench"
    assert made and all(folder in one.parents for one in made)
    assert folder / "model_judgment" / "judge_single.jsonl" in made


def test_two_files_of_one_name_keep_their_ratings(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_answers(tmp_path / name / "im.jsonl", f"text of {name}")
    with JudgeServer(lambda body, count: "[[8]]") as server:
        assert judged(monkeypatch, server, data, "--answers", tmp_path / "a" / "im.jsonl") == 0
        results = Path("results/eval/im/mt_bench/results.json")
        before = results.read_bytes()
        other = ("--answers", tmp_path / "b" / "im.jsonl")
        assert judged(monkeypatch, server, data, *other, "--save_dir", "results/eval/im") == 2
        assert f"other answers ({tmp_path / 'a' / 'im.jsonl'})" in capsys.readouterr().err
        assert len(server.requests) == 8
        assert judged(monkeypatch, server, data, *other) == 0
        assert Path("results/eval/im-2/mt_bench/results.json").exists()
        assert results.read_bytes() == before


def test_two_baselines_keep_their_results(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_answers(tmp_path / "m.jsonl", "m")
    pair = ("--answers", answers, "--mode", "pairwise-baseline", "--baseline_answers")
    with JudgeServer(lambda body, count: "[[A]]") as server:
        first, second = (write_answers(tmp_path / f"{name}.jsonl", name) for name in ("base", "other"))
        assert judged(monkeypatch, server, data, *pair, first) == 0
        before = Path("results/eval/m/mt_bench/results_pairwise.json").read_bytes()
        assert judged(monkeypatch, server, data, *pair, second) == 2
        assert f"other answers ({first})" in capsys.readouterr().err
    assert Path("results/eval/m/mt_bench/results_pairwise.json").read_bytes() == before


@pytest.mark.parametrize("spelt", ["answers", "questions", "references"])
def test_ids_given_as_texts_are_the_same_questions(
    spelt: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = write_answers(tmp_path / "m.jsonl", "m")
    paths = {
        "answers": answers,
        "questions": data / "question.jsonl",
        "references": data / "reference_answer" / "gpt-4.jsonl",
    }
    respelt(paths[spelt], str)
    with JudgeServer(lambda body, count: "[[8]]") as server:
        assert judged(monkeypatch, server, data, "--answers", answers) == 0
        assert "Q First math? R ref 82 one A m 82 one" in {
            body["messages"][1]["content"] for body in server.requests
        }
    lines = Path("results/eval/m/mt_bench/items.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines][:3] == ["81_1", "81_2", "82_1"]


def test_ids_that_are_names_are_read_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = write_answers(tmp_path / "m.jsonl", "m")
    for path in (answers, data / "question.jsonl", data / "reference_answer" / "gpt-4.jsonl"):
        respelt(path, lambda number: f"zz_{200 - number}")
    with JudgeServer(lambda body, count: "[[8]]") as server:
        assert judged(monkeypatch, server, data, "--answers", answers) == 0
    lines = Path("results/eval/m/mt_bench/items.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in lines][:3] == ["zz_119_1", "zz_119_2", "zz_118_1"]


def test_a_question_that_stands_twice_is_named(data: Path) -> None:
    path = data / "question.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0].replace("81", '"81"') + "\n")
    with pytest.raises(UserError, match="holds question 81 for the second time"):
        load_benchmark(data)


def test_judgments_of_ids_in_both_spellings_are_of_one_question(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "j.jsonl", [row(81, 1, 4), {**row(81, 1, 8), "question_id": "81"}])
    arguments = ("--judgments", path, "--question_file", data / "question.jsonl")
    assert run_module(monkeypatch, show_results, *arguments) == 0
    printed = capsys.readouterr().out
    assert "duplicates enter the means: 1 of m" in printed and "6.00" in printed
