"""What src/report.py says of two arms with two seeds each, whose numbers are known."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from report_checks import HOSTILE, ReportPage, make_runs, run_report, table_row
from report_fixtures import TRAIN_FILE, write_responses, write_run
from script_loader import SRC, run_script


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
    assert found["rows"] == 32 and found["covers_zero"] is False and found["verdict"] == "lower"
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
    # 1.96 standard errors of 32 differences, a quarter of each -1 and 1.
    assert found["low"] == pytest.approx(-0.245, abs=0.03) and found["high"] == pytest.approx(0.245, abs=0.03)


def test_stop_rate_is_paired_by_the_responses(results: dict[str, Any]) -> None:
    found = results["datasets"]["brief_train"]["differences"]["IM"]["finished"]
    assert found["mean"] == pytest.approx(0.125) and found["rows"] == 32


def test_what_was_not_measured_is_null_and_missing(report: Path, results: dict[str, Any], page: str) -> None:
    arms = results["datasets"]["brief_train"]["arms"]
    assert arms["IM"]["train_bleu"] is None and arms["base"]["exact_match"] is None
    markdown = (report / "table.md").read_text(encoding="utf-8")
    assert table_row(markdown, "BLEU with training outputs") == ["10.5", "42.0 ± 2.8", "missing"]
    assert table_row(markdown, "Exact match (%)") == ["missing", "50.0 ± 0.0", "50.0 ± 0.0"]
    row = re.search(r'<th scope="row">BLEU with training outputs.*?</tr>', page, re.DOTALL)
    assert row and row.group().count("missing</td>") == 1
    assert results["datasets"]["brief_train"]["length_ratio"] is None


def test_the_table_shows_mean_spread_and_count(report: Path) -> None:
    markdown = (report / "table.md").read_text(encoding="utf-8")
    assert table_row(markdown, "Test response loss (nats per token)") == [
        "3.250",
        "2.600 ± 0.141",
        "2.350 ± 0.071",
    ]
    assert table_row(markdown, "Test response loss, arm − IT") == [
        "+0.650 [+0.369, +0.962]",
        "0 (reference)",
        "−0.250 [−0.250, −0.250]",
    ]
    assert "base: the model before tuning" in markdown and "nats per token" in markdown
    assert "report.py --runs" in markdown and "> A demonstration, not evidence." in markdown


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


def test_the_answer_is_against_the_untuned_model_first_and_then_against_it(
    page: str, results: dict[str, Any]
) -> None:
    lines = results["datasets"]["brief_train"]["answer"]
    assert [line.partition(":")[0] for line in lines] == [
        "On brief_train, IM is better than the untuned model",
        "On brief_train, IT is better than the untuned model",
        "On brief_train, IM is better than IT",
    ]
    assert lines[2] == (
        "On brief_train, IM is better than IT: test response loss 2.350 against 2.600 nats per token "
        "(difference −0.250, 95 % interval −0.250 to −0.250); no clear difference in exact match and "
        "token F1."
    )
    text = " ".join(ReportPage(page).text.split())
    assert text.index(lines[0]) < text.index(lines[2]) < text.index("Responses side by side")
    assert text.index("Responses side by side") < text.index("All measures")
    assert page.count("<strong>better than</strong>") == 3


def test_responses_are_escaped(page: str) -> None:
    assert "<script" not in page and "<b>bold" not in page
    assert HOSTILE in ReportPage(page).text
    assert "<title>Colours &lt;1&gt;</title>" in page


def test_empty_and_absent_responses_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_responses(it, ["", "\n\n\n", "x" * 1600 + "..."], ["red", "green", "blue"])
    run_report(monkeypatch, tmp_path, "--runs", it, im)
    text = " ".join(
        ReportPage((tmp_path / "report" / "report.html").read_text(encoding="utf-8")).text.split()
    )
    assert "IT (empty) IM missing" in text and "IT (only white space) IM missing" in text
    assert "IT did not stop " + "x" * 1500 + " […, 103 more characters]" in text


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    parsed = ReportPage(page)
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
    parsed = ReportPage(page)
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
    text = " ".join(ReportPage(page).text.split())
    assert "use_lm_loss false true" in text and "num_train_epochs 1" in text
    assert (
        TRAIN_FILE["sha256"] in text
        and "python 3.11.7, torch 2.13.0" in text
        and "a processor, 2 cores" in text
    )
    assert text.count("A demonstration, not evidence.") == 3  # At the top, in the command, among the caveats.
    assert "Few seeds (IT 2, IM 2)" in text and "Few test rows (32)" in text


def test_figures_are_saved_as_png_as_well(report: Path) -> None:
    names = {path.name for path in (report / "figures").iterdir()}
    assert names == {
        f"brief_train-{name}.png"
        for name in ("loss-shares", "loss-by-arm", "differences", "histograms", "loss-curves")
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (report / "figures").iterdir())


def test_the_same_runs_make_the_same_report(
    report: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    assert "Note: A demonstration, not evidence.\nOn brief_train, " in capsys.readouterr().out
    before = json.loads((report / "results.json").read_text(encoding="utf-8"))
    assert again | {"command": ""} == before | {"command": ""}
    pages = [(folder / "report.html").read_text(encoding="utf-8") for folder in (report, tmp_path / "report")]
    drawings = [re.findall(r"<svg.*?</svg>", text, re.DOTALL) for text in pages]
    assert drawings[0] == drawings[1]


def test_shares_of_the_loss_are_what_the_runs_recorded(results: dict[str, Any], page: str) -> None:
    assert results["datasets"]["brief_train"]["loss_shares"] == {
        "IT": {"template": 0.0, "user": 0.0, "assistant": 0.8, "end": 0.2},
        "IM": {"template": 0.0, "user": 0.75, "assistant": 0.2, "end": 0.05},
    }
    assert "IM: user 75%, assistant 20%, end 5%" in page


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
