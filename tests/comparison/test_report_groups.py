"""Which runs of a report make an arm, a data set and a base model, and what of them cannot be used."""

import json
from pathlib import Path

import pytest
from report_checks import Refusal, ReportPage, data_set_numbers, run_report, table_row
from report_fixtures import TEST_FILE, write_losses, write_responses, write_run

from instruction_modelling.files.whole import write_json, write_json_lines


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """Return the script run on what it must refuse."""
    return Refusal(monkeypatch, capsys, tmp_path)


def test_data_sets_are_kept_apart_and_each_has_its_own_base(tmp_path: Path) -> None:
    runs, bases = [], []
    for name, loss in (("brief", 2.0), ("long", 1.0)):
        for arm in ("IT", "IM"):
            data = {"path": f"data/{name}.jsonl", "sha256": name * 8}
            runs.append(write_run(tmp_path / f"{name}_{arm}", arm, data=data))
            write_losses(runs[-1], "test", [loss, loss], sha256=f"{name} test")
        bases.append(tmp_path / f"base_{name}")
        write_losses(bases[-1], "test", [loss + 1, loss + 2], sha256=f"{name} test")
    data_sets = data_set_numbers(runs, bases)
    means = {
        name: {arm: stats["test_response_nll"]["mean"] for arm, stats in data["arms"].items()}
        for name, data in data_sets.items()
    }
    assert means == {
        "brief": {"base": 3.5, "IT": 2.0, "IM": 2.0},
        "long": {"base": 2.5, "IT": 1.0, "IM": 1.0},
    }


def test_a_base_evaluation_that_fits_no_run_is_not_guessed(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, "IT", data={"path": f"{name}.jsonl", "sha256": name * 9})
        for name in ("brief", "long")
    ]
    write_losses(tmp_path / "base", "train", [1.0, 2.0])
    data_sets = data_set_numbers(runs, [tmp_path / "base"])
    assert [list(data["arms"]) for data in data_sets.values()] == [["IT"], ["IT"]]


def test_a_base_model_measured_on_other_rows_is_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_losses(run, "test", [1.0, 2.0])
    write_losses(tmp_path / "base", "test", [9.0, 9.0], sha256="other rows")
    data = data_set_numbers([run], [tmp_path / "base"])["brief_train"]
    assert list(data["arms"]) == ["IT"]
    assert any("base model's test evaluation is missing" in warning for warning in data["warnings"])


def test_files_of_one_name_and_other_bytes_are_two_data_sets(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, "IT", data={"path": f"{name}/train.jsonl", "sha256": name * 10})
        for name in "ab"
    ]
    data_sets = data_set_numbers(runs)
    assert list(data_sets) == ["train@aaaaaaaa", "train@bbbbbbbb"]


def test_runs_that_differ_in_an_option_are_arms_of_their_own(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "slow", "IT", learning_rate=1e-05),
        write_run(tmp_path / "it", "IT"),
        write_run(tmp_path / "im", "IM"),
    ]
    for run, loss in zip(runs, (3.0, 2.0, 1.0), strict=True):
        write_losses(run, "test", [loss, loss])
    data = data_set_numbers(runs)["brief_train"]
    assert set(data["arms"]) == {"IT (learning_rate 1e-05)", "IT (learning_rate 2e-05)", "IM"}
    # The one that differs from IM in nothing but the loss is the reference.
    assert data["reference"] == "IT (learning_rate 2e-05)"
    assert data["differences"]["IM"]["test_response_nll"]["mean"] == pytest.approx(-1.0)
    assert data["differences"]["IT (learning_rate 1e-05)"]["test_response_nll"]["mean"] == pytest.approx(1.0)


def test_of_several_im_arms_the_one_most_like_it_answers(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "it", "IT"),
        write_run(tmp_path / "slow", "IM", learning_rate=1e-05),
        write_run(tmp_path / "im", "IM"),
    ]
    data = data_set_numbers(runs)["brief_train"]
    assert list(data["arms"]) == ["IT", "IM (learning_rate 1e-05)", "IM (learning_rate 2e-05)"]
    assert data["contrast"] == "IM (learning_rate 2e-05)"


def test_layout_and_bookkeeping_do_not_make_an_arm(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", "IT", 0, packing=True),
        write_run(tmp_path / "b", "IT", 1, logging_steps=5),
    ]
    data = data_set_numbers(runs)["brief_train"]
    assert data["arms"]["IT"]["seeds"] == [0, 1]


def test_a_run_given_twice_counts_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_losses(run, "test", [1.0, 2.0])
    data = run_report(monkeypatch, tmp_path, "--runs", run, f"{run}/../it")["datasets"]["brief_train"]
    assert data["arms"]["IT"]["test_response_nll"] == {"mean": 1.5, "sd": None, "n": 1}


def test_arms_come_in_the_order_of_their_weights(tmp_path: Path) -> None:
    names = ["prompt only", "IM w=0.5", "IM", "IM w=0.1", "IT"]
    runs = [write_run(tmp_path / name, name) for name in names]
    data = data_set_numbers(runs)["brief_train"]
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
    page = ReportPage((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    assert "the question is not answered here: it takes an IT run to compare with" in " ".join(
        page.text.split()
    )


def test_only_rows_that_both_arms_have_are_paired(tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_losses(it, "test", [1.0, 2.0, 3.0])
    write_losses(im, "test", [1.5, 2.5, 9.0])
    rows = [
        {"row": 0, "nll": {"response": 1.5}},
        {"row": 1, "nll": {"response": 2.5}},
        {"row": 2, "dropped": "long", "nll": {}},
    ]
    write_json_lines(im / "eval" / "test" / "losses.jsonl", rows)
    found = data_set_numbers([it, im])["brief_train"]["differences"]["IM"]
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


def test_where_a_seed_diverged_nothing_is_better(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{arm}{seed}", arm, seed) for arm in ("IT", "IM") for seed in (0, 1)]
    for run, mean in zip(runs, (2.0, 2.1, 1.0, 1.1), strict=True):
        write_losses(run, "test", [mean + row / 100 for row in range(40)])
    assert " IM is better than IT: " in "".join(data_set_numbers(runs)["brief_train"]["answer"])
    write_losses(runs[3], "test", [float("nan") if row < 9 else 0.1 for row in range(40)])
    data = data_set_numbers(runs)["brief_train"]
    assert data["differences"]["IM"]["test_response_nll"]["not_finite"] == ["IM seed 1"]
    assert any("cannot tell whether IM is better than IT" in line for line in data["answer"])
    assert any("no number for IM seed 1: training has diverged" in line for line in data["answer"])


def test_values_beside_a_difference_are_of_its_rows_and_missing_rows_are_said(tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_losses(it, "test", [1.0] * 40 + [3.0] * 60)
    write_losses(im, "test", [1.1 + row / 1000 for row in range(40)])
    data = data_set_numbers([it, im])["brief_train"]
    found = data["differences"]["IM"]["test_response_nll"]
    assert found["rows"] == 40 and found["values"] == pytest.approx([1.1195, 1.0])
    (line,) = (line for line in data["answer"] if "IM is worse than IT" in line)
    assert (
        "test response loss 1.119 against 1.000" in line or "test response loss 1.120 against 1.000" in line
    )
    said = f"{im}: test response loss is of 40 of 100 test rows; differences of its arm are on these only."
    assert said in data["warnings"] and not any(str(it) in warning for warning in data["warnings"])


def test_records_of_an_earlier_command_are_named_and_not_read_and_failures_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    for run in (it, im):
        write_losses(run, "test", [1.0, 2.0])
        write_responses(run, ["red", "no"], ["red", "green"])
    stale = [im / "eval" / "test" / name for name in ("summary.json", "generation.json")]
    given = ("--runs", it, im, "--left_out", *stale, "--failed", "losses of IM seed 0 (exit code 2)")
    data = run_report(monkeypatch, tmp_path, *given)["datasets"]["brief_train"]
    assert data["arms"]["IM"]["test_response_nll"] is None and data["arms"]["IM"]["exact_match"] is None
    assert data["arms"]["IT"]["exact_match"]["mean"] == 0.5
    assert all(f"{path} is of an earlier command, and left out." in data["warnings"] for path in stale)
    assert "Failed, and not in this report: losses of IM seed 0 (exit code 2)." in data["warnings"]
    assert (
        data["answer"][-1] == "1 job of the comparison failed, so runs or measurements may be missing here."
    )


def test_the_format_that_a_model_was_tuned_in_is_no_other_format(tmp_path: Path) -> None:
    it = write_run(tmp_path / "it", "IT", chat_format="tulu")
    write_losses(it, "test", [1.0, 2.0], chat_format="auto")
    write_losses(tmp_path / "base", "test", [1.5, 2.5], chat_format="tulu")
    warnings = data_set_numbers([it], [tmp_path / "base"])["brief_train"]["warnings"]
    assert not any("chat_format" in warning for warning in warnings)


def test_scores_of_other_responses_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_responses(run, ["red", "no"], ["red", "green"])
    scores = run / "eval" / "test" / "scores.json"
    write_json(scores, json.loads(scores.read_text()) | {"responses_sha256": "of an earlier file"})
    data = data_set_numbers([run])["brief_train"]
    assert data["arms"]["IT"]["exact_match"] is None
    assert any("scores.json is of other responses" in warning for warning in data["warnings"])


def test_answers_that_loop_are_warned_of_with_their_arm(tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_responses(run, ["red and " * 20] * 3 + ["green"], ["red"] * 4)
    warnings = data_set_numbers([run])["brief_train"]["warnings"]
    assert any(
        warning.startswith("Test answers of IT, seed 0: 3 of 4 end in a loop (of the references 0): ")
        for warning in warnings
    )


def test_responses_under_way_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_responses(run, ["red", "no"], ["red", "green"])
    write_json(run / "eval" / "test" / "generation.json", {**TEST_FILE, "complete": False})
    data = data_set_numbers([run])["brief_train"]
    assert data["arms"]["IT"]["exact_match"] is None and data["arms"]["IT"]["finished"] is None
    assert any("generate.py did not finish" in warning for warning in data["warnings"])


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_losses(it, "test", [1.0, 2.0], max_seq_length=256)
    write_losses(im, "test", [1.0, 2.0], max_seq_length=512)
    warnings = data_set_numbers([it, im])["brief_train"]["warnings"]
    assert any("test evaluations differ in max_seq_length: 256" in warning for warning in warnings)


def test_a_run_without_run_json_did_not_finish(tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_json_lines(tmp_path / "begun" / "metrics.jsonl", [{"step": 1, "loss": 2.0}])
    data_sets = data_set_numbers([run, tmp_path / "begun"])
    assert list(data_sets) == ["brief_train"]
    assert any("begun (unknown arm)" in warning for warning in data_sets["brief_train"]["warnings"])


def test_runs_evaluated_on_different_files_are_refused(refused: Refusal, tmp_path: Path) -> None:
    it, im = write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")
    write_losses(it, "test", [1.0, 2.0])
    write_losses(im, "test", [1.0, 2.0], sha256="another file")
    said = refused("--runs", it, im)
    assert (
        "the test losses of the runs on brief_train come from different files" in said
        and "another file" in said
    )


def test_a_seed_twice_is_refused(refused: Refusal, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, "IT", 7) for name in "ab"]
    assert "both are IT with seed 7 on brief_train" in refused("--runs", *runs)


def test_no_finished_run_is_refused(refused: Refusal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT", finished=False)
    assert "no run has finished" in refused("--runs", run)


@pytest.mark.parametrize(
    ("folder", "why"),
    [("absent", "there is no such folder"), ("empty", "it has no run.json"), ("a.json", "it is a file")],
)
def test_a_folder_that_is_no_run_is_refused(refused: Refusal, tmp_path: Path, folder: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.json").write_text("{}")
    said = refused("--runs", tmp_path / folder)
    assert f"{tmp_path / folder}: is not a run folder, {why}" in said


def test_a_broken_file_is_named_with_its_line(refused: Refusal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    write_losses(run, "test", [1.0, 2.0])
    path = run / "eval" / "test" / "losses.jsonl"
    path.write_text(path.read_text() + '{"row": 2, "nl')
    assert f"{path}:3: not JSON" in refused("--runs", run, write_run(tmp_path / "im", "IM"))
    path.write_text('{"nll": {"response": 1.0}}\n')
    assert 'record 1 has no whole number "row"' in refused("--runs", run, tmp_path / "im")


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"arm": "IT"}', '{"arm": "IT", "finished": true, "options": [1]}']
)
def test_a_broken_run_json_is_named(refused: Refusal, tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path / "it", "IT")
    (run / "run.json").write_text(text)
    assert f"{run / 'run.json'}" in refused("--runs", run)


def test_a_base_folder_without_evaluations_is_refused(refused: Refusal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "it", "IT")
    assert f"{tmp_path}: holds no evaluation of the base model" in refused("--runs", run, "--base", tmp_path)
