"""docs/files.md names every field that the scripts write, and no other."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from files_page import check_page, headings
from paper_runs import alpaca_eval
from tiny import make_tiny_model
from training_runs import finetune, run, sample_rows, write_rows

# Files of the inspector, by the option that asks for them.
SHOWN = ("output_file", "summary_file", "export")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Every documented file as its JSON values, from two arms, their measurements and a report."""
    folder = tmp_path_factory.mktemp("files")
    model = make_tiny_model(folder / "model")
    bad: list[dict[str, Any]] = [{"messages": []}, {"messages": [{"role": "user", "content": "a"}]}]
    train = write_rows(folder / "train.jsonl", [*sample_rows(8), *bad])
    test = write_rows(folder / "test.jsonl", sample_rows(4, "brief_answers_test"))
    shared = (
        "--max_bad_rows",
        2,
        "--eval_file",
        test,
        "--num_train_epochs",
        1,
        "--checkpointing_steps",
        "epoch",
    )
    it = finetune(model, train, folder / "it", *shared)
    sampled = ("--sample_file", test, "--sample_tokens", 3)
    im = finetune(model, train, folder / "im", *shared, "--use_lm_loss", "--apply_kl_div_loss", *sampled)
    plain = finetune(model, train, folder / "plain", *shared, "--use_lm_loss")
    for tuned in (it, im, plain):
        out = tuned / "eval" / "test"
        asked = ("--model_name_or_path", tuned, "--eval_file", test, "--output_dir", out)
        responses = out / "responses.jsonl"
        for script, arguments in (
            ("compute_loss", asked),
            ("generate", (*asked, "--max_new_tokens", 4)),
            ("score_responses", ("--responses", responses, "--output_dir", out)),
            ("compute_bleu", ("--responses", responses, "--output_file", out / "bleu.json")),
        ):
            outcome = run(script, *arguments)
            assert outcome.code == 0, outcome.err
    shown = [part for name in SHOWN for part in (f"--{name}", folder / name)]
    outcome = run(
        "inspect_weights", "--train_file", train, "--tokenizer_name", model, "--max_bad_rows", 2, *shown
    )
    assert outcome.code == 0, outcome.err
    described = folder / "format.json"
    outcome = run(
        "inspect_weights", "--tokenizer_name", model, "--describe_format", "--output_file", described
    )
    assert outcome.code == 0, outcome.err
    exported = parquet.read_table(folder / "export")
    about = json.loads(exported.schema.metadata[b"instruction_modelling"])
    outcome = run("report", "--runs", it, im, "--train_file", train, "--output_dir", folder / "report")
    assert outcome.code == 0, outcome.err

    benchmarks = ("--results", folder / "benchmarks")
    for tuned in (it, plain, im):
        alpaca_eval(folder / "benchmarks" / tuned.name, 20.0, words=(3, 5))
    for figure in ("2", "3", "5", "6", "11", "table_2", "7"):
        outcome = run("plot_paper", figure, it, plain, im, "--output_dir", folder / "paper", *benchmarks)
        assert outcome.code == 0, outcome.err

    def values(path: Path) -> list[Any]:
        text = path.read_text(encoding="utf-8")
        return (
            [json.loads(line) for line in text.splitlines()]
            if path.suffix == ".jsonl" or path.name == "output_file"
            else [json.loads(text)]
        )

    out = im / "eval" / "test"
    drawn = [value for path in sorted((folder / "paper").glob("*.json")) for value in values(path)]
    return {
        "### metrics.jsonl": values(im / "metrics.jsonl"),
        "### samples.jsonl": values(im / "samples.jsonl"),
        "### run.json": values(im / "run.json"),
        "### bad_rows.jsonl": values(im / "bad_rows.jsonl") + values(it / "bad_rows.jsonl"),
        "### checkpoints: epoch_N/, step_N/, best_N/": values(im / "epoch_1" / "checkpoint.json"),
        "### --output_file": values(folder / "output_file"),
        "### --summary_file": values(folder / "summary_file"),
        "### --export": [exported.to_pylist()[0], about],
        "### --output_file with --describe_format": values(described),
        "### losses.jsonl": values(out / "losses.jsonl"),
        "### summary.json": values(out / "summary.json"),
        "### responses.jsonl": values(out / "responses.jsonl"),
        "### generation.json": values(out / "generation.json"),
        "### scores.json, scores.jsonl": values(out / "scores.json") + values(out / "scores.jsonl"),
        "### bleu.json": values(out / "bleu.json"),
        "## The report: `src/report.py`, `src/compare.py`": values(folder / "report" / "results.json"),
        "## The paper's figures: `src/plot_paper.py`": drawn,
    }


# Held by the tests of those scripts, which have their files at hand.
ELSEWHERE = {
    "## An answer: `src/try_im.py`",
    "## The benchmark: `benchmarks/run.py`",
    "### memorisation.json",
    "### result.json",
    "### answers/faults.json",
    "## A record of the study: `src/study.py`",
}


@pytest.mark.parametrize("heading", [heading for heading in headings() if heading not in ELSEWHERE])
def test_what_is_written_is_what_the_page_says(files: dict[str, list[Any]], heading: str) -> None:
    check_page(heading, files[heading])
