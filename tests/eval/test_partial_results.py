"""src/collect_results.py: what is of a part of its items says so everywhere, and files are found where they
lie."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_fixtures import humaneval, tasks_of, write_model, write_nlp, write_part
from tiny import make_tiny_model
from training_runs import Outcome, run

from eval.nlp import cut_examples
from eval.nlp.cut_examples import write_cut
from eval.table.results import read_results
from eval.table.suite import BENCHMARKS, CATEGORIES
from instruction_modelling.called import module_command

BBH = [task for benchmark in BENCHMARKS if benchmark.key == "bbh_cot_fewshot" for task in tasks_of(benchmark)]
MMLU = tasks_of(BENCHMARKS[0])


def collect(*arguments: object) -> Outcome:
    return run("collect_results", *arguments)


def table(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    outcome = collect(*arguments, "--json", tmp_path / "table.json")
    assert outcome.code == 0, outcome.err
    return json.loads((tmp_path / "table.json").read_text())


def limited(folder: Path) -> Path:
    """A model whose BBH is of one item of each task (of 1,000)."""
    write_model(folder, 0.5, leave_out=("bbh_cot_fewshot",))
    write_nlp(folder, {task: [0.0] for task in BBH}, name="2026-01-02", limit=1)
    return folder


def test_a_score_of_a_part_is_marked_in_every_format_and_in_no_mean(tmp_path: Path) -> None:
    folder = limited(tmp_path / "im")
    files = {kind: tmp_path / f"t.{kind}" for kind in ("md", "csv", "svg")}
    given = ("--markdown", files["md"], "--csv", files["csv"], "--figure", files["svg"])
    outcome = collect(folder, *given, "--per_task")
    row = next(line for line in outcome.out.splitlines() if line.startswith("im "))
    assert "0.00† ± 0.00" in row and row.count("–") == 1, row
    said = "† im: bbh_cot_fewshot 27 of 27,000 items"
    assert said in outcome.out and "in no mean, unless --partial" in outcome.out
    markdown = files["md"].read_text()
    assert "0.00† ± 0.00" in markdown and said in markdown
    line = next(csv.DictReader(files["csv"].open()))
    assert (line["bbh"], line["bbh_part"], line["mean"], line["math_part"]) == (
        "0.0",
        "bbh_cot_fewshot 27 of 27,000 items",
        "",
        "",
    )
    picture = files["svg"].read_text()
    assert "<!-- 0.0† -->" in picture and "bbh_cot_fewshot 27 of 27,000 items" in picture
    assert "<pattern" in picture
    found = table(tmp_path, folder)["rows"]["im"]
    assert found["mean"]["value"] is None and found["mean"]["missing"] == ["bbh"]

    partial = table(tmp_path, folder, "--partial")["rows"]["im"]
    values = [partial[name]["value"] for name in CATEGORIES]
    assert partial["bbh"]["value"] == 0 and partial["mean"]["value"] == pytest.approx(sum(values) / 6)
    assert partial["mean"]["part"] == ["bbh"]
    assert f"{partial['mean']['value']:.2f}†" in collect(folder, "--partial").out


def test_a_benchmark_of_two_items_is_in_no_category(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5, leave_out=("mmlu",))
    write_nlp(folder, {task: [1.0, 1.0] for task in MMLU[:1]}, name="2026-01-02", limit=2)
    write_nlp(folder, {task: [1.0, 1.0] for task in MMLU[1:]}, name="2026-01-03", limit=2)
    found = table(tmp_path, folder)["rows"]["im"]["understanding"]
    assert found["value"] is None and found["missing"] == ["mmlu 114 of 57,000 items"]
    assert found["part"] == ["mmlu 114 of 57,000 items"]
    outcome = collect(folder, "--csv", tmp_path / "t.csv", "--figure", tmp_path / "t.svg")
    assert "lacks: mmlu 114 of 57,000 items" in outcome.out and "† im" not in outcome.out
    line = next(csv.DictReader((tmp_path / "t.csv").open()))
    assert (line["understanding"], line["understanding_part"]) == ("", "mmlu 114 of 57,000 items")
    assert "im: mmlu 114 of 57,000 items" in (tmp_path / "t.svg").read_text()
    partial = table(tmp_path, folder, "--partial")["rows"]["im"]["understanding"]
    assert partial["value"] == pytest.approx((100 + 4 * 50) / 5)
    assert partial["part"] == ["mmlu 114 of 57,000 items"]


def test_humaneval_and_judges_in_part_are_marked(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    humaneval(folder, 0.1, 0.75, tasks=20)
    write_part(folder, "mt_bench", {"average": 5.0, "judge": "gpt-4", "questions": 3}, {})
    found = table(tmp_path, folder)["rows"]["im"]
    assert found["math"]["value"] is None and found["math"]["missing"] == ["humaneval 20 of 164 tasks"]
    assert found["mt_bench"]["part"] == ["mt_bench 3 of 80 questions"]
    assert "5.00†" in collect(folder).out


def test_a_seed_of_a_part_is_in_no_mean_over_seeds(tmp_path: Path) -> None:
    folders = [write_model(tmp_path / f"im_seed{seed}", score) for seed, score in enumerate((0.25, 0.75))]
    folders.append(limited(tmp_path / "im_seed2"))
    cell = table(tmp_path, *folders)["rows"]["im"]["bbh"]
    assert (cell["value"], cell["runs"], cell["of_runs"], cell["part"]) == (50, 2, 3, [])
    cell = table(tmp_path, *folders, "--partial")["rows"]["im"]["bbh"]
    assert cell["value"] == pytest.approx(100 / 3) and cell["part"] == ["bbh_cot_fewshot 27 of 27,000 items"]


def test_a_mean_over_seeds_of_which_one_lacks_a_benchmark_keeps_its_mark(tmp_path: Path) -> None:
    folders = [write_model(tmp_path / "im_seed0", 0.5)]
    folders.append(write_model(tmp_path / "im_seed1", 0.75, leave_out=("mmlu",)))
    files = ("--csv", tmp_path / "t.csv", "--figure", tmp_path / "t.svg", "--markdown", tmp_path / "t.md")
    found = table(tmp_path, *folders, "--partial", *files)["rows"]["im"]
    # Of one seed four benchmarks, of the other five: the mean is there, and marked everywhere.
    assert (found["understanding"]["value"], found["understanding"]["incomplete"]) == (62.5, True)
    assert found["mean"]["incomplete"] and not found["bbh"]["incomplete"]
    for text in (collect(*folders, "--partial").out, (tmp_path / "t.md").read_text()):
        assert "62.50* ± 17.68 (2)" in text and "62.50 ± 17.68 (2)" in text
        assert "* without the benchmarks it lacks, or a run of it lacks" in text
    line = next(csv.DictReader((tmp_path / "t.csv").open()))
    assert (line["understanding_without"], line["bbh_without"]) == ("mmlu", "")
    picture = (tmp_path / "t.svg").read_text()
    assert "<!-- 62.5* -->" in picture and "<!-- 62.5 -->" in picture
    # Without --partial the seed that lacks it is in no mean, and the mean needs no mark.
    found = table(tmp_path, *folders)["rows"]["im"]["understanding"]
    assert (found["value"], found["runs"], found["incomplete"]) == (50, 1, False)
    assert "50.00 " in collect(*folders).out and "*" not in collect(*folders).out


def test_tasks_without_numbers_of_items_weigh_alike_and_that_is_said(tmp_path: Path) -> None:
    """One task counts its items and the other does not: 1 of 40 is no 40 times the other."""
    write_nlp(tmp_path / "im", {"arc_easy": [1.0] * 40})
    write_nlp(tmp_path / "im", {"arc_challenge": [0.0] * 40}, name="2026-01-02")
    path = next((tmp_path / "im").glob("nlp/*/results_2026-01-02.json"))
    result = json.loads(path.read_text())
    del result["n-samples"]
    path.write_text(json.dumps(result))
    score = read_results(tmp_path / "im").scores["ai2_arc"]
    assert score.value == 50
    assert "its tasks weigh alike, for how many items each has is not recorded" in score.differs


def test_a_difference_of_a_part_enters_no_category(tmp_path: Path) -> None:
    folders = [write_model(tmp_path / "it", 0.5, leave_out=("toxigen",)), write_model(tmp_path / "im", 0.75)]
    write_nlp(folders[0], {"toxigen": [0.0, 1.0]}, name="2026-01-02", limit=2)
    found = table(tmp_path, *folders, "--compare", "it", "im")["comparison"]["differences"]
    assert "toxigen" in found and "bbh" in found and "safety" not in found and "mean" not in found
    said = collect(*folders, "--compare", "it", "im").out
    assert "† from a part of the items" in next(line for line in said.splitlines() if "  toxigen " in line)
    found = table(tmp_path, *folders, "--partial", "--compare", "it", "im")["comparison"]["differences"]
    assert "safety" in found and "mean" in found


# -- where files lie --------------------------------------------------------------------------------------


def renamed(folder: Path, name: str) -> Path:
    """Give the results file in a folder another name, as lm-eval does for `--output_path NAME.json`."""
    path = next(folder.glob("nlp/**/results_*.json"))
    path.rename(path.with_name(name))
    return path.parent


@pytest.mark.parametrize(
    ("name", "below"),
    [("im_2026-01-01.json", "nlp"), ("results.json", "nlp"), ("results.json", "."), ("results.json", "lm/x")],
)
def test_lm_evals_files_are_read_under_their_usual_names(tmp_path: Path, name: str, below: str) -> None:
    for arm, values in (("it", [0.0, 0.0, 1.0]), ("im", [1.0, 0.0, 1.0])):
        write_nlp(tmp_path / arm, {"piqa": values, "winogrande": [0.5]})
        folder = renamed(tmp_path / arm, name)
        if name == "results.json":
            # As up to version 0.4.2: the model's arguments stand before the task, and there is no date.
            for path in folder.glob("samples_*"):
                task = path.name.removeprefix("samples_").rpartition("_")[0]
                path.rename(path.with_name(f"pretrained__m_{task}.jsonl"))
        place = tmp_path / arm / below
        if place != tmp_path / arm / "nlp":
            place.mkdir(parents=True, exist_ok=True)
            for path in list(folder.iterdir()):
                path.rename(place / path.name)
    found = table(tmp_path, tmp_path / "it", tmp_path / "im", "--compare", "it", "im")
    assert found["models"]["im"]["scores"]["piqa"]["value"] == pytest.approx(200 / 3)
    assert found["models"]["im"]["problems"] == []
    assert found["comparison"]["differences"]["piqa"]["difference"] == pytest.approx(100 / 3)


def test_a_dated_result_counts_before_one_without_a_date(tmp_path: Path) -> None:
    write_nlp(tmp_path / "im", {"piqa": [0.0, 0.0]}, name="2024-01-01")
    folder = renamed(tmp_path / "im", "results.json")
    write_nlp(tmp_path / "im", {"piqa": [1.0, 0.0]}, name="2026-01-01")
    assert read_results(tmp_path / "im").scores["piqa"].value == 50 and (folder / "results.json").exists()


def test_an_old_result_without_numbers_of_items_has_lm_evals_own_mean_of_a_group(tmp_path: Path) -> None:
    """Tasks of unequal size: 0 of 3 and 1 of 1 are a quarter, not a half."""
    write_nlp(tmp_path / "im", {"arc_easy": [0.0, 0.0, 0.0], "arc_challenge": [1.0]})
    path = renamed(tmp_path / "im", "results.json") / "results.json"
    assert read_results(tmp_path / "im").scores["ai2_arc"].value == 25
    run = json.loads(path.read_text())
    del run["n-samples"]
    path.write_text(json.dumps(run))
    assert read_results(tmp_path / "im").scores["ai2_arc"].value == 50
    run["results"]["ai2_arc"] = {"acc_norm,none": 0.25, "acc_norm_stderr,none": 0.01, "alias": "ai2_arc"}
    run["groups"] = {"ai2_arc": {"alias": "ai2_arc"}}
    path.write_text(json.dumps(run))
    score = read_results(tmp_path / "im").scores["ai2_arc"]
    assert score.value == 25 and score.error == pytest.approx(1)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "im"
    (folder / "nlp").mkdir(parents=True)
    (folder / "nlp" / "scores.json").write_text('{"piqa": 0.5}')
    (folder / "nlp" / "scores.csv").write_text("piqa,0.5\n")
    (folder / "humaneval_t0.2").mkdir()
    (folder / "mt_bench_first_5").mkdir()
    said = collect(folder).out
    for words in (
        "scores.json: is not a result of lm-eval",
        "of its 2 files none is a result that can be read (scores.csv, scores.json)",
        "humaneval_t0.2: is of another setting or of a part",
        "mt_bench_first_5: is of another setting or of a part",
    ):
        assert words in said, words


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """The authors' folders, with one model that has everything and one that has HumanEval alone."""
    write_nlp(tmp_path / "source", {"piqa": [1.0, 0.0], "gsm8k_cot": [0.5]})
    target = tmp_path / "theirs" / "output" / "lima_im"
    target.mkdir(parents=True)
    renamed(tmp_path / "source", "results.json")
    for path in (tmp_path / "source" / "nlp" / "model").iterdir():
        path.rename(target / path.name)
    root = tmp_path / "theirs"
    for folder, score in (("lima_im_t01", 0.125), ("lima_im_t07", 0.25), ("other_t01", 0.5)):
        (root / "results_humaneval" / folder).mkdir(parents=True)
        (root / "results_humaneval" / folder / "metrics.json").write_text(json.dumps({"pass@1": score}))
    for folder, rate in (("lima_im", 2.5), ("lima_im_v1", 33.0)):
        (root / "results_alpaca_eval" / folder).mkdir(parents=True)
        board = {"lima_im-greedy-long": rate, "gpt4": 95.0}
        metrics = {"win_rate": board, "n_total": {"lima_im-greedy-long": 805 if rate > 3 else 20}}
        (root / "results_alpaca_eval" / folder / "metrics.json").write_text(json.dumps(metrics))
    (root / "mt_bench_average_results.csv").write_text("model,score\nlima_im,4.83\n")
    (root / "output_loss" / "lima_im_tulu_dataset_01").mkdir(parents=True)
    np.save(root / "output_loss" / "lima_im_tulu_dataset_01" / "eval_losses.npy", np.array([1.0, 1.5, 0.5]))
    (root / "output_loss" / "lima_im_lima_data").mkdir()
    (root / "output_loss" / "lima_im_lima_data" / "summary.json").write_text(
        json.dumps({"mean_over_examples": {"response": 1.45}, "rows_scored": 1030, "truncated_rows": 71})
    )
    return root


@pytest.mark.parametrize("given", [".", "output/lima_im"])
def test_the_authors_folders_are_read(tmp_path: Path, authors: Path, given: str) -> None:
    found = table(tmp_path, authors / given)
    scores = found["models"]["lima_im"]["scores"]
    assert {key: score["value"] for key, score in scores.items()} == {
        "piqa": 50.0,
        "gsm8k_cot": 50.0,
        "humaneval": 25.0,
        "mt_bench": 4.83,
        "alpaca_eval_1": 33.0,
        "alpaca_eval_2": 2.5,
    }
    assert found["rows"]["lima_im"]["alpaca_eval_2"]["part"] == ["alpaca_eval_2 20 of 805 instructions"]
    assert found["models"]["lima_im"]["losses"] == {
        "lima_data": {"mean": 1.45, "examples": 1030, "cut": 71},
        "tulu_dataset_01": {"mean": 1.0, "examples": 3, "cut": None},
    }
    said = collect(authors / given).out
    assert (
        "loss 1.4500 on lima_data (nats per response token, mean over 1,030 examples, 71 of them cut" in said
    )
    assert ("other" in found["models"]) == (given == ".")
    if given == ".":
        assert found["models"]["other"]["scores"]["humaneval"]["value"] == 50


# -- what was cut -----------------------------------------------------------------------------------------


def test_examples_cut_at_the_models_length_are_counted(tmp_path: Path) -> None:
    """Against a plain count over all texts."""
    from transformers import AutoTokenizer

    model = make_tiny_model(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(model)
    folder = tmp_path / "im"
    longest = 40
    write_nlp(folder, {"piqa": [1.0] * 6, "gsm8k_cot": [1.0] * 3}, max_length=longest)
    path = next(folder.glob("nlp/**/results_*.json"))
    run = json.loads(path.read_text())
    run["config"]["model_args"] = f"pretrained={model},dtype=auto"
    path.write_text(json.dumps(run))
    prompts = ["The old house stands on a hill. " * count for count in (1, 2, 3, 4, 5, 6)]
    lines: list[dict[str, Any]] = []
    expected = 0
    for number, prompt in enumerate(prompts):
        for name in ("a", "b"):
            arguments = {
                f"gen_args_{i}": {"arg_0": prompt, "arg_1": text}
                for i, text in enumerate((" yes", " no no no"))
            }
            lines.append({"doc_id": number, "filter": name, "arguments": arguments, "acc_norm": 1.0})
        texts = [prompt + " yes", prompt + " no no no"]
        counts = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        expected += max(counts) > longest + 1
    assert 0 < expected < 6
    path.with_name("samples_piqa_2026-01-01.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    lines = [
        {"doc_id": number, "arguments": [[prompt, {"max_gen_toks": 30}]]}
        for number, prompt in enumerate(prompts[:3])
    ]
    path.with_name("samples_gsm8k_cot_2026-01-01.jsonl").write_text(
        "".join(json.dumps(x) + "\n" for x in lines)
    )
    generated = sum(
        len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) > longest - 30 for prompt in prompts[:3]
    )
    said = "how many examples were cut at the model's length is not counted in piqa, gsm8k_cot of im; "
    assert said + module_command("eval.nlp.cut_examples", folder) in collect(folder).out
    assert write_cut(path) == {
        "max_length": longest,
        "tasks": {"piqa": {"cut": expected, "items": 6}, "gsm8k_cot": {"cut": generated, "items": 3}},
    }
    said = collect(folder).out
    assert f"examples cut at the model's length: piqa {expected} of 6 at 40 tokens" in said
    assert "not counted" not in said


def test_results_that_do_not_say_how_long_the_model_is_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nlp(tmp_path / "im", {"piqa": [1.0]})
    monkeypatch.setattr("sys.argv", ["cut_examples", str(tmp_path / "im")])
    assert cut_examples.main() == 2
    said = capsys.readouterr().err
    assert "results_2026-01-01.json: does not say how many tokens the model takes" in said
