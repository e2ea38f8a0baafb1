"""What src/report.py says of runs whose numbers are known."""

import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import (
    TEST_FILE,
    TRAIN_FILE,
    write_bleu,
    write_json,
    write_losses,
    write_responses,
    write_rows,
    write_run,
)
from script_loader import SRC, run_script

REFERENCES = ["red", "green", "blue", "white"]
HOSTILE = '<script>alert("1")</script> & <b>bold</b>'


def make_runs(root: Path) -> tuple[list[Path], Path]:
    """IT and IM with two seeds each, an unfinished IM run, and a base model, on four test rows."""
    it = [write_run(root / f"it_{seed}", "IT", seed) for seed in (0, 1)]
    im = [write_run(root / f"im_{seed}", "IM", seed) for seed in (0, 1)]
    unfinished = write_run(root / "im_2", "IM", 2, finished=False)
    base = root / "base"
    write_losses(it[0], "test", [1.0, 2.0, 3.0, 4.0], user=3.0)
    write_losses(it[1], "test", [1.2, 2.2, 3.2, 4.2], user=3.0)
    write_losses(im[0], "test", [0.8, 1.7, 2.9, 3.8], user=2.0)
    write_losses(im[1], "test", [0.9, 2.0, 2.8, 3.9], user=2.0)
    write_losses(unfinished, "test", [99.0] * 4, user=99.0)
    write_losses(base, "test", [3.0, 3.0, 3.0, 4.0], user=3.5)
    for run, loss in ((it[0], 0.5), (it[1], 0.5), (im[0], 0.75), (im[1], 0.75), (base, 2.0)):
        write_losses(run, "train", [loss] * 3)
    write_responses(it[0], ["red", "green", "no", "no..."], REFERENCES)
    write_responses(it[1], ["red", "green", "no", "no"], REFERENCES)
    write_responses(im[0], [HOSTILE, "green", "blue", "no"], REFERENCES)
    write_responses(im[1], ["no", "green", "blue", "no"], REFERENCES)
    write_bleu(it[0], "train", 40.0, 30.0)
    write_bleu(it[1], "train", 44.0, 34.0)
    write_bleu(base, "train", 10.5, 9.0)
    return [*it, *im, unfinished], base


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on `make_runs`."""
    root = tmp_path_factory.mktemp("runs")
    runs, base = make_runs(root)
    with pytest.MonkeyPatch.context() as patch:
        code = run_script(
            patch,
            "report",
            "--runs",
            *runs,
            "--base",
            base,
            "--output_dir",
            root / "report",
            "--title",
            "Colours <1>",
            "--note",
            "A demonstration, not evidence.",
        )
    assert code == 0
    return root / "report"


@pytest.fixture(scope="module")
def results(report: Path) -> dict[str, Any]:
    """results.json of that report."""
    return json.loads((report / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    """report.html of that report."""
    return (report / "report.html").read_text(encoding="utf-8")


def table_row(markdown: str, label: str) -> list[str]:
    """The cells of the Markdown row that begins with the label, without the label."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def run_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """results.json of a report with these arguments."""
    assert run_script(monkeypatch, "report", *arguments, "--output_dir", tmp_path / "report") == 0
    return json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object
) -> str:
    """What the script says when it refuses these arguments; nothing is written then."""
    assert run_script(monkeypatch, "report", *arguments, "--output_dir", tmp_path / "report") == 2
    assert not (tmp_path / "report").exists()
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    return said


# -- numbers ----------------------------------------------------------------------------------------------


def test_arms_are_means_over_seeds(results: dict[str, Any]) -> None:
    arms = results["datasets"]["brief_train"]["arms"]
    assert list(arms) == ["base", "IT", "IM"]
    assert arms["IT"]["seeds"] == [0, 1] and arms["base"]["seeds"] == []
    # (2.5 + 2.7) / 2, and the sample standard deviation 0.2 / sqrt(2).
    assert arms["IT"]["test_response_nll"] == {
        "mean": pytest.approx(2.6),
        "sd": pytest.approx(0.2 / 2**0.5),
        "n": 2,
    }
    assert arms["IM"]["test_response_nll"] == {
        "mean": pytest.approx(2.35),
        "sd": pytest.approx(0.1 / 2**0.5),
        "n": 2,
    }
    assert arms["IM"]["train_response_nll"]["mean"] == pytest.approx(0.75)
    assert arms["IM"]["test_user_nll"]["mean"] == pytest.approx(2.0)
    assert arms["base"]["test_response_nll"] == {"mean": 3.25, "sd": None, "n": 1}
    assert arms["IT"]["exact_match"]["mean"] == 0.5
    assert arms["IT"]["finished"]["mean"] == pytest.approx((0.75 + 1) / 2)
    assert arms["IT"]["train_bleu"] == {"mean": 42.0, "sd": pytest.approx(4 / 2**0.5), "n": 2}
    assert arms["IT"]["train_corpus_bleu"]["mean"] == 32.0


def test_differences_are_paired_by_row_and_signed_arm_minus_it(results: dict[str, Any]) -> None:
    found = results["datasets"]["brief_train"]["differences"]["IM"]["test_response_nll"]
    # By row, averaged over seeds: -0.25, -0.25, -0.25, -0.25.
    assert found["mean"] == pytest.approx(-0.25)
    assert found["low"] == pytest.approx(-0.25) and found["high"] == pytest.approx(-0.25)
    assert found["rows"] == 4 and found["covers_zero"] is False and found["verdict"] == "lower"
    assert (
        found["by_seed"] == {"0": pytest.approx(-0.2), "1": pytest.approx(-0.3)}
        and found["seeds_agree"] is True
    )
    train = results["datasets"]["brief_train"]["differences"]["IM"]["train_response_nll"]
    assert train["mean"] == pytest.approx(0.25) and train["verdict"] == "higher" and train["rows"] == 3
    base = results["datasets"]["brief_train"]["differences"]["base"]["test_response_nll"]
    assert base["mean"] == pytest.approx(3.25 - 2.6) and base["by_seed"] == {}
    assert "IT" not in results["datasets"]["brief_train"]["differences"]


def test_a_difference_whose_interval_covers_zero_is_not_clear(results: dict[str, Any]) -> None:
    found = results["datasets"]["brief_train"]["differences"]["IM"]["exact_match"]
    # By row: IT 1, 1, 0, 0 and IM 0, 1, 1, 0.
    assert found["mean"] == 0 and found["covers_zero"] is True and found["verdict"] == "no clear difference"
    assert found["low"] == pytest.approx(-0.5, abs=0.26) and found["high"] == pytest.approx(0.5, abs=0.26)


def test_stop_rate_is_paired_by_the_responses(results: dict[str, Any]) -> None:
    found = results["datasets"]["brief_train"]["differences"]["IM"]["finished"]
    assert found["mean"] == pytest.approx(0.125) and found["rows"] == 4


def test_what_was_not_measured_is_null_and_missing(report: Path, results: dict[str, Any], page: str) -> None:
    arms = results["datasets"]["brief_train"]["arms"]
    assert arms["IM"]["train_bleu"] is None and arms["base"]["exact_match"] is None
    markdown = (report / "table.md").read_text(encoding="utf-8")
    assert table_row(markdown, "BLEU with training outputs") == ["10.5", "42.0 ± 2.8 (2)", "missing"]
    assert table_row(markdown, "Exact match (%)") == ["missing", "50.0 ± 0.0 (2)", "50.0 ± 0.0 (2)"]
    row = re.search(r'<th scope="row">BLEU with training outputs.*?</tr>', page, re.DOTALL)
    assert row and row.group().count("missing</td>") == 1
    assert results["datasets"]["brief_train"]["length_ratio"] is None


def test_the_table_shows_mean_spread_and_count(report: Path) -> None:
    markdown = (report / "table.md").read_text(encoding="utf-8")
    assert table_row(markdown, "Test response loss (nats per token)") == [
        "3.250",
        "2.600 ± 0.141 (2)",
        "2.350 ± 0.071 (2)",
    ]
    assert table_row(markdown, "Test response loss, arm − IT") == [
        "+0.650 [−0.100, +1.400]",
        "0 (reference)",
        "−0.250 [−0.250, −0.250]",
    ]
    assert "base: the model before tuning" in markdown and "nats per token" in markdown
    assert "python src/report.py --runs" in markdown and "> A demonstration, not evidence." in markdown


def test_unfinished_runs_are_named_and_not_counted(report: Path, results: dict[str, Any], page: str) -> None:
    arms = results["datasets"]["brief_train"]["arms"]
    assert arms["IM"]["seeds"] == [0, 1] and arms["IM"]["test_response_nll"]["mean"] < 3
    run = next(run for run in results["runs"] if run["folder"].endswith("im_2"))
    assert run["finished"] is False and run["measures"] == {}
    for text in (page, (report / "table.md").read_text(encoding="utf-8")):
        assert re.search(r"Left out, because it did not finish: \S*im_2 \(IM, seed 2\)", text)


def test_every_run_is_listed_with_what_made_it(results: dict[str, Any]) -> None:
    run = next(run for run in results["runs"] if run["folder"].endswith("it_1"))
    assert run["seed"] == 1 and run["git_commit"] == "c0ffee" and run["options"]["learning_rate"] == 2e-05
    assert run["measures"]["test_response_nll"] == pytest.approx(2.7)


# -- the page ---------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th", "p", "li", "dt", "dd", "h5", "div", "small") else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_answer_says_what_the_numbers_say(page: str) -> None:
    text = " ".join(Page(page).text.split())
    assert (
        "On brief_train, IM's test response loss was lower than IT's: 2.350 against 2.600 nats per token (IM "
        "− IT: "
        "−0.250, 95 % interval −0.250 to −0.250; base 3.250)."
    ) in text
    assert (
        "Its exact match showed no clear difference from IT's: 50.0 % against 50.0 % (IM − IT: 0.0 percentage"
        in text
    )
    assert ", which covers 0)" in text


def test_responses_are_escaped(page: str) -> None:
    assert "<script" not in page and "<b>bold" not in page
    assert HOSTILE in Page(page).text
    assert "<title>Colours &lt;1&gt;</title>" in page


def test_empty_and_absent_responses_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_responses(it, ["", "\n\n\n", "x" * 1600 + "..."], ["red", "green", "blue"])
    run_report(monkeypatch, tmp_path, "--runs", it, im)
    text = " ".join(Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8")).text.split())
    assert "IT (empty) IM missing" in text and "IT (only white space) IM missing" in text
    assert "IT did not stop " + "x" * 1500 + " […, 103 more characters]" in text


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in parsed.elements
    }
    for _, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    assert re.findall(r"https?:", page) == [] and "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_the_page_can_be_used_without_seeing_it(page: str) -> None:
    parsed = Page(page)
    headers = [attributes for tag, attributes in parsed.elements if tag == "th"]
    assert headers and all(attributes.get("scope") in ("row", "col") for attributes in headers)
    pictures = [attributes for tag, attributes in parsed.elements if tag == "svg"]
    assert len(pictures) == 5
    assert all(
        attributes["role"] == "img" and len(attributes["aria-label"] or "") > 40 for attributes in pictures
    )
    assert "IM train 0.750" in (pictures[1]["aria-label"] or "") and "base test 3.250" in (
        pictures[1]["aria-label"] or ""
    )
    ids = Counter(attributes["id"] for _, attributes in parsed.elements if attributes.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    links = [attributes["href"] for _, attributes in parsed.elements if attributes.get("href")]
    assert links and {str(link)[1:] for link in links} <= set(ids)
    assert dict(parsed.elements)["html"] == {"lang": "en"}


def test_the_page_tells_how_it_was_made(page: str) -> None:
    text = " ".join(Page(page).text.split())
    assert "use_lm_loss false true" in text and "num_train_epochs 1" in text
    assert (
        TRAIN_FILE["sha256"] in text
        and "python 3.11.7, torch 2.13.0" in text
        and "a processor, 2 cores" in text
    )
    assert text.count("A demonstration, not evidence.") == 3  # At the top, in the command, among the caveats.
    assert "Few seeds (IT 2, IM 2)" in text and "Few test rows (4)" in text


def test_figures_are_saved_as_png_as_well(report: Path) -> None:
    names = {path.name for path in (report / "figures").iterdir()}
    assert names == {
        f"brief_train-{name}.png"
        for name in ("loss-shares", "loss-by-arm", "differences", "histograms", "loss-curves")
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (report / "figures").iterdir())


def test_the_same_runs_make_the_same_report(
    report: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = [report.parent / name for name in ("it_0", "it_1", "im_0", "im_1", "im_2")]
    arguments = (
        "--runs",
        *runs,
        "--base",
        report.parent / "base",
        "--title",
        "Colours <1>",
        "--note",
        "A demonstration, not evidence.",
    )
    again = run_report(monkeypatch, tmp_path, *arguments)
    before = json.loads((report / "results.json").read_text(encoding="utf-8"))
    assert again | {"command": ""} == before | {"command": ""}
    pages = [(folder / "report.html").read_text(encoding="utf-8") for folder in (report, tmp_path / "report")]
    drawings = [re.findall(r"<svg.*?</svg>", text, re.DOTALL) for text in pages]
    assert drawings[0] == drawings[1]


# -- grouping ---------------------------------------------------------------------------------------------


def test_data_sets_are_kept_apart_and_each_has_its_own_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs, bases = [], []
    for name, loss in (("brief", 2.0), ("long", 1.0)):
        for arm in ("IT", "IM"):
            data = {"path": f"data/{name}.jsonl", "sha256": name * 8}
            runs.append(write_run(tmp_path / f"{name}_{arm}", arm, data=data))
            write_losses(runs[-1], "test", [loss, loss], sha256=f"{name} test")
        bases.append(tmp_path / f"base_{name}")
        write_losses(bases[-1], "test", [loss + 1, loss + 2], sha256=f"{name} test")
    results = run_report(monkeypatch, tmp_path, "--runs", *runs, "--base", *bases)
    means = {
        name: {arm: stats["test_response_nll"]["mean"] for arm, stats in data["arms"].items()}
        for name, data in results["datasets"].items()
    }
    assert means == {
        "brief": {"base": 3.5, "IT": 2.0, "IM": 2.0},
        "long": {"base": 2.5, "IT": 1.0, "IM": 1.0},
    }


def test_a_base_evaluation_that_fits_no_run_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = [
        write_run(tmp_path / name, "IT", data={"path": f"{name}.jsonl", "sha256": name * 9})
        for name in ("brief", "long")
    ]
    write_losses(tmp_path / "base", "train", [1.0, 2.0])
    results = run_report(monkeypatch, tmp_path, "--runs", *runs, "--base", tmp_path / "base")
    assert [list(data["arms"]) for data in results["datasets"].values()] == [["IT"], ["IT"]]


def test_a_base_model_measured_on_other_rows_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_losses(run, "test", [1.0, 2.0])
    write_losses(tmp_path / "base", "test", [9.0, 9.0], sha256="other rows")
    data = run_report(monkeypatch, tmp_path, "--runs", run, "--base", tmp_path / "base")["datasets"][
        "brief_train"
    ]
    assert list(data["arms"]) == ["IT"]
    assert any("base model's test evaluation is missing" in warning for warning in data["warnings"])


def test_files_of_one_name_and_other_bytes_are_two_data_sets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = [
        write_run(tmp_path / name, "IT", data={"path": f"{name}/train.jsonl", "sha256": name * 10})
        for name in "ab"
    ]
    results = run_report(monkeypatch, tmp_path, "--runs", *runs)
    assert list(results["datasets"]) == ["train@aaaaaaaa", "train@bbbbbbbb"]


def test_runs_that_differ_in_an_option_are_arms_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = [
        write_run(tmp_path / "slow", "IT", learning_rate=1e-05),
        write_run(tmp_path / "it", "IT"),
        write_run(tmp_path / "im", "IM"),
    ]
    for run, loss in zip(runs, (3.0, 2.0, 1.0), strict=True):
        write_losses(run, "test", [loss, loss])
    data = run_report(monkeypatch, tmp_path, "--runs", *runs)["datasets"]["brief_train"]
    assert set(data["arms"]) == {"IT (learning_rate 1e-05)", "IT (learning_rate 2e-05)", "IM"}
    # The one that differs from IM in nothing but the loss is the reference.
    assert data["reference"] == "IT (learning_rate 2e-05)"
    assert data["differences"]["IM"]["test_response_nll"]["mean"] == pytest.approx(-1.0)
    assert data["differences"]["IT (learning_rate 1e-05)"]["test_response_nll"]["mean"] == pytest.approx(1.0)


def test_layout_and_bookkeeping_do_not_make_an_arm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", "IT", 0, packing=True),
        write_run(tmp_path / "b", "IT", 1, logging_steps=5),
    ]
    data = run_report(monkeypatch, tmp_path, "--runs", *runs)["datasets"]["brief_train"]
    assert data["arms"]["IT"]["seeds"] == [0, 1]


def test_a_run_given_twice_counts_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_losses(run, "test", [1.0, 2.0])
    data = run_report(monkeypatch, tmp_path, "--runs", run, f"{run}/../it")["datasets"]["brief_train"]
    assert data["arms"]["IT"]["test_response_nll"] == {"mean": 1.5, "sd": None, "n": 1}


def test_arms_come_in_the_order_of_their_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ["prompt only", "IM w=0.5", "IM", "IM w=0.1", "IT"]
    runs = [write_run(tmp_path / name, name) for name in names]
    data = run_report(monkeypatch, tmp_path, "--runs", *runs)["datasets"]["brief_train"]
    assert list(data["arms"]) == ["IT", "IM", "IM w=0.1", "IM w=0.5", "prompt only"]
    assert data["contrast"] == "IM"


def test_without_it_the_question_is_not_answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = write_run(tmp_path / "im", "IM")
    write_losses(run, "test", [1.0, 2.0])
    results = run_report(monkeypatch, tmp_path, "--runs", run)
    assert results["datasets"]["brief_train"]["differences"] == {
        "IM": dict.fromkeys(
            (
                "train_response_nll",
                "test_response_nll",
                "test_user_nll",
                "exact_match",
                "token_f1",
                "finished",
            )
        )
    }
    page = Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    assert "the question is not answered here: it takes an IT run to compare with" in " ".join(
        page.text.split()
    )


# -- what cannot be used ----------------------------------------------------------------------------------


def test_only_rows_that_both_arms_have_are_paired(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_losses(it, "test", [1.0, 2.0, 3.0])
    write_losses(im, "test", [1.5, 2.5, 9.0])
    rows = [
        {"row": 0, "nll": {"response": 1.5}},
        {"row": 1, "nll": {"response": 2.5}},
        {"row": 2, "dropped": "long", "nll": {}},
    ]
    write_rows(im / "eval" / "test" / "losses.jsonl", rows)
    found = run_report(monkeypatch, tmp_path, "--runs", it, im)["datasets"]["brief_train"]["differences"][
        "IM"
    ]
    assert found["test_response_nll"]["rows"] == 2 and found["test_response_nll"]["mean"] == pytest.approx(
        0.5
    )


def test_a_loss_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), "IT", seed) for seed in (0, 1)]
    write_losses(runs[0], "test", [1.0, 2.0])
    write_losses(runs[1], "test", [1.0, float("nan")])
    data = run_report(monkeypatch, tmp_path, "--runs", *runs)["datasets"]["brief_train"]
    assert data["arms"]["IT"]["test_response_nll"] == {"mean": 1.5, "sd": None, "n": 1}
    assert any("test response loss is nan" in warning for warning in data["warnings"])
    assert table_row(
        (tmp_path / "report" / "table.md").read_text(encoding="utf-8"), "Test response loss"
    ) == ["1.500 (1 of 2)"]


def test_scores_of_other_responses_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_responses(run, ["red", "no"], ["red", "green"])
    scores = run / "eval" / "test" / "scores.json"
    write_json(scores, json.loads(scores.read_text()) | {"responses_sha256": "of an earlier file"})
    data = run_report(monkeypatch, tmp_path, "--runs", run)["datasets"]["brief_train"]
    assert data["arms"]["IT"]["exact_match"] is None
    assert any("scores.json is of other responses" in warning for warning in data["warnings"])


def test_responses_under_way_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_responses(run, ["red", "no"], ["red", "green"])
    write_json(run / "eval" / "test" / "generation.json", {**TEST_FILE, "complete": False})
    data = run_report(monkeypatch, tmp_path, "--runs", run)["datasets"]["brief_train"]
    assert data["arms"]["IT"]["exact_match"] is None and data["arms"]["IT"]["finished"] is None
    assert any("generate.py did not finish" in warning for warning in data["warnings"])


def test_settings_that_differ_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_losses(it, "test", [1.0, 2.0], max_seq_length=256)
    write_losses(im, "test", [1.0, 2.0], max_seq_length=512)
    warnings = run_report(monkeypatch, tmp_path, "--runs", it, im)["datasets"]["brief_train"]["warnings"]
    assert any("test evaluations differ in max_seq_length: 256" in warning for warning in warnings)


def test_a_run_without_run_json_did_not_finish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_rows(tmp_path / "begun" / "metrics.jsonl", [{"step": 1, "loss": 2.0}])
    results = run_report(monkeypatch, tmp_path, "--runs", run, tmp_path / "begun")
    assert list(results["datasets"]) == ["brief_train"]
    assert any("begun (unknown arm)" in warning for warning in results["datasets"]["brief_train"]["warnings"])


Refusal = tuple[pytest.MonkeyPatch, pytest.CaptureFixture[str], Path]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """What `refused` needs."""
    return monkeypatch, capsys, tmp_path


def test_runs_evaluated_on_different_files_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_losses(it, "test", [1.0, 2.0])
    write_losses(im, "test", [1.0, 2.0], sha256="another file")
    said = refused(*refusal, "--runs", it, im)
    assert (
        "the test losses of the runs on brief_train come from different files" in said
        and "another file" in said
    )


def test_a_seed_twice_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, "IT", 7) for name in "ab"]
    assert "both are IT with seed 7 on brief_train" in refused(*refusal, "--runs", *runs)


def test_no_finished_run_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT", finished=False)
    assert "no run has finished" in refused(*refusal, "--runs", run)


@pytest.mark.parametrize(
    ("folder", "why"), [("absent", "there is no such folder"), ("empty", "it has no run.json")]
)
def test_a_folder_that_is_no_run_is_refused(refusal: Refusal, tmp_path: Path, folder: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(*refusal, "--runs", tmp_path / folder)
    assert f"{tmp_path / folder}: is not a run folder, {why}" in said


def test_a_broken_file_is_named_with_its_line(refusal: Refusal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_losses(run, "test", [1.0, 2.0])
    path = run / "eval" / "test" / "losses.jsonl"
    path.write_text(path.read_text() + '{"row": 2, "nl')
    assert f"{path}:3: not JSON" in refused(*refusal, "--runs", run, write_run(tmp_path / "im", "IM"))
    path.write_text('{"nll": {"response": 1.0}}\n')
    assert 'record 1 has no whole number "row"' in refused(*refusal, "--runs", run, tmp_path / "im")


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"arm": "IT"}', '{"arm": "IT", "finished": true, "options": [1]}']
)
def test_a_broken_run_json_is_named(refusal: Refusal, tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path / "it", "IT")
    (run / "run.json").write_text(text)
    assert f"{run / 'run.json'}" in refused(*refusal, "--runs", run)


def test_a_base_folder_without_evaluations_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    assert f"{tmp_path}: holds no evaluation of the base model" in refused(
        *refusal, "--runs", run, "--base", tmp_path
    )


# -- the training data ------------------------------------------------------------------------------------


def training_file(path: Path) -> Path:
    """Two rows: 3 + 2 and 5 words of instruction, 2 and 3 words of response."""
    write_rows(
        path,
        [
            {
                "messages": [
                    {"role": "system", "content": "Be very brief."},
                    {"role": "user", "content": "Which\ncolour?"},
                    {"role": "assistant", "content": "Deep red."},
                ]
            },
            {
                "messages": [
                    {"role": "user", "content": "And the colour of grass?"},
                    {"role": "assistant", "content": "It is green."},
                ]
            },
        ],
    )
    return path


def test_length_ratio_counts_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = training_file(tmp_path / "brief_train.jsonl")
    results = run_report(
        monkeypatch, tmp_path, "--runs", write_run(tmp_path / "it", "IT"), "--train_file", file
    )
    data = results["datasets"]["brief_train"]
    ratio = data["length_ratio"]
    assert (
        ratio["instruction_words"]["mean"] == 6.5
        and ratio["response_words"]["mean"] == 3.5
        and ratio["ratio"] == 6.5 / 3.5
    )
    assert ratio["rows"] == 2 and ratio["response_words"]["sd"] == 0.5
    # Its name is that of the runs' file, its bytes are not.
    assert ratio["changed"] is True and any("has changed since" in warning for warning in data["warnings"])
    assert (
        "Instructions are 1.86 times as long as responses" in (tmp_path / "report" / "table.md").read_text()
    )


def test_length_ratio_goes_by_the_bytes_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import hashlib

    file = training_file(tmp_path / "renamed.jsonl")
    data = {"path": "data/original.jsonl", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    run = write_run(tmp_path / "it", "IT", data=data)
    ratio = run_report(monkeypatch, tmp_path, "--runs", run, "--train_file", file)["datasets"]["original"][
        "length_ratio"
    ]
    assert ratio["ratio"] == 6.5 / 3.5 and ratio["changed"] is False


def test_a_training_file_of_no_run_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    file = training_file(tmp_path / "other.jsonl")
    said = refused(*refusal, "--runs", write_run(tmp_path / "it", "IT"), "--train_file", file)
    assert "no run was trained on this file" in said and "data/brief_train.jsonl" in said


def test_shares_of_the_loss_are_what_the_runs_recorded(results: dict[str, Any], page: str) -> None:
    assert results["datasets"]["brief_train"]["loss_shares"] == {
        "IT": {"template": 0.0, "user": 0.0, "assistant": 0.8, "end": 0.2},
        "IM": {"template": 0.0, "user": 0.75, "assistant": 0.2, "end": 0.05},
    }
    assert "IM: user 75%, assistant 20%, end 5%" in page


def test_shares_of_the_inspector_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shares = {"IT": {"user": 0.0, "assistant": 1.0}, "IM": {"user": 0.9, "assistant": 0.1}}
    write_json(tmp_path / "weights.json", {"sha256": TRAIN_FILE["sha256"], "arms": shares})
    results = run_report(
        monkeypatch,
        tmp_path,
        "--runs",
        write_run(tmp_path / "it", "IT"),
        "--weights_json",
        tmp_path / "weights.json",
    )
    assert results["datasets"]["brief_train"]["loss_shares"] == shares


@pytest.mark.parametrize(
    ("summary", "why"),
    [
        ({"arms": {}}, 'needs "arms"'),
        ({"arms": {"IT": {"user": 0.5, "assistant": 0.7}}}, "add up to 1.2"),
        ({"arms": {"IT": {"user": -0.5, "assistant": 1.5}}}, "the share of 'user' in arm 'IT' is -0.5"),
        (
            {"sha256": "other", "arms": {"IT": {"assistant": 1.0}}},
            "not that of a file that a run was trained on",
        ),
    ],
)
def test_wrong_shares_are_refused(
    refusal: Refusal, tmp_path: Path, summary: dict[str, Any], why: str
) -> None:
    write_json(tmp_path / "weights.json", summary)
    run = write_run(tmp_path / "it", "IT")
    assert why in refused(*refusal, "--runs", run, "--weights_json", tmp_path / "weights.json")


def test_a_metric_command_has_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")]
    for run, values in zip(runs, ([1.0, 2.0], [3.0, 5.0]), strict=True):
        write_responses(run, ["red", "no"], ["red", "green"])
        at = run / "eval" / "test"
        write_rows(
            at / "scores.jsonl", [{"row": row, "politeness": value} for row, value in enumerate(values)]
        )
        scores = json.loads((at / "scores.json").read_text())
        write_json(at / "scores.json", scores | {"metrics": {"politeness": sum(values) / 2}})
    data = run_report(monkeypatch, tmp_path, "--runs", *runs)["datasets"]["brief_train"]
    assert data["arms"]["IM"]["metrics.politeness"]["mean"] == 4.0
    assert data["differences"]["IM"]["metrics.politeness"]["mean"] == 2.5
    assert table_row((tmp_path / "report" / "table.md").read_text(), "politeness (mean") == [
        "1.500 (1)",
        "4.000 (1)",
    ]


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", SRC / "report.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "--runs" in done.stdout and "--note" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not {"matplotlib", "torch", "transformers", "jinja2"} & loaded
