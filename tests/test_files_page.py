"""docs/files.md names every field that the scripts write, and no other."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from paper_runs import alpaca_eval
from tiny import make_tiny_model
from training_runs import finetune, run, sample_rows, write_rows

PAGE = Path(__file__).resolve().parents[1] / "docs" / "files.md"
# A placeholder in a documented field stands for one name that the data, not the code, decides.
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")

# Files of the inspector, by the option that asks for them.
SHOWN = ("output_file", "summary_file", "export")


def documented(heading: str) -> dict[str, bool]:
    """Return each field of the tables under a heading, and whether it is only there `if` something holds.

    `.name` in a list of fields stands in the place of the last part of the field before it.
    """
    section = PAGE.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    section = re.split(r"\n#{2,3} ", section)[0]
    fields: dict[str, bool] = {}
    for cells in re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE):
        before = ""
        for name in re.findall(r"`([^`]+)`", cells[0]):
            full = before.rpartition(".")[0] + name if name.startswith(".") else name
            fields[full], before = "*if*" in cells[1], full
    return fields


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every field of a JSON value that holds no further fields; a list of objects is
    `name[]`."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, value


def pattern(field: str) -> re.Pattern[str]:
    """Return what matches a documented field; a placeholder matches a name that may hold dots and spaces."""
    return re.compile(PLACEHOLDER.sub("NAME", re.escape(field)).replace("NAME", ".+"))


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
    im = finetune(model, train, folder / "im", *shared, "--use_lm_loss", "--apply_kl_div_loss")
    for tuned in (it, im):
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
    for tuned in (it, im):
        alpaca_eval(folder / "benchmarks" / tuned.name, 20.0, words=(3, 5))
    for figure in ("2", "3", "5", "6", "11", "table_2", "7"):
        outcome = run("plot_paper", figure, it, im, "--output_dir", folder / "paper", *benchmarks)
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
        "### run.json": values(im / "run.json"),
        "### bad_rows.jsonl": values(im / "bad_rows.jsonl") + values(it / "bad_rows.jsonl"),
        "### checkpoints: epoch_N/, step_N/": values(im / "epoch_1" / "checkpoint.json"),
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


HEADINGS = re.findall(r"^#{2,3} .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("heading", [heading for heading in HEADINGS if documented(heading)])
def test_what_is_written_is_what_the_page_says(files: dict[str, list[Any]], heading: str) -> None:
    fields = documented(heading)
    found = {path: value for record in files[heading] for path, value in leaves(record)}
    # Nothing within: what stands for a group of fields where it was not measured, or has no members.
    empty = {path for path, value in found.items() if value in (None, {}, [])}

    def stands_for(field: str, path: str) -> bool:
        parents = ["".join(field[: dot.start()]) for dot in re.finditer(r"\.", field)]
        within = pattern(field).fullmatch(path) or pattern(f"{field}.").match(path)
        return bool(within) or (path in empty and any(pattern(parent).fullmatch(path) for parent in parents))

    undocumented = sorted(path for path in found if not any(stands_for(field, path) for field in fields))
    assert not undocumented, f"written and not on the page: {undocumented}"
    required = [field for field, conditional in fields.items() if not conditional]
    absent = [field for field in required if not any(stands_for(field, path) for path in found)]
    assert not absent, f"on the page and not written: {absent}"
