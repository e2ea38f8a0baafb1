"""Several training files and several evaluation files: what a run of them trains on, measures and says."""

import json
from pathlib import Path
from typing import Any

import checkpoint_runs
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from checkpoint_runs import RESUME, attempt, interrupt
from row_nlls import row_nlls
from tiny import make_tiny_model
from training_runs import SAMPLE, losses, metrics, record, same_bits, sample_rows, write_rows

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.rows.mixture import row_files
from instruction_modelling.tokens.quotas import Quotas, quotas_of
from instruction_modelling.training.plan import StepPlan

quiet = checkpoint_runs.quiet
# Rows of the files, and what an epoch of 20 examples has of them at 0.2 : 0.5 : 0.3.
SIZES, PROPORTIONS, QUOTAS = (12, 3, 5), (2, 5, 3), (4, 10, 6)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and rows.jsonl as three files: JSON Lines, Parquet, and one whose rows name a data set."""
    folder = tmp_path_factory.mktemp("several")
    make_tiny_model(folder / "model")
    rows: list[dict[str, Any]] = [{"messages": row["messages"], "id": "same"} for row in sample_rows(20)]
    write_rows(folder / "rows.jsonl", rows)
    write_rows(folder / "a.jsonl", rows[:12])
    parquet.write_table(pa.Table.from_pylist(rows[12:15]), folder / "b.parquet")
    write_rows(folder / "c.jsonl", [{**row, "dataset": "named"} for row in rows[15:]])
    return folder


def files(place: Path) -> tuple[object, ...]:
    return ("--train_file", place / "a.jsonl", place / "b.parquet", place / "c.jsonl")


def tune(place: Path, folder: Path, *arguments: object) -> Path:
    outcome = attempt(place, folder, *arguments)
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def mixed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(
        place,
        tmp_path_factory.mktemp("runs") / "mixed",
        *files(place),
        *("--proportions", *PROPORTIONS, "--logging_steps", 3),
    )


def test_without_proportions_several_files_are_the_run_of_their_rows_in_one(
    place: Path, tmp_path: Path
) -> None:
    one = tune(place, tmp_path / "one", "--max_train_steps", 3)
    several = tune(place, tmp_path / "several", *files(place), "--max_train_steps", 3)
    assert same_bits(one, several) and losses(one) == losses(several)
    said = record(several)["data"]
    assert said["path"] == "a + b + c" and said["rows"] == said["used"] == 20
    assert [(entry["name"], entry["rows"], entry["used"]) for entry in said["files"]] == [
        ("a", 12, 12),
        ("b", 3, 3),
        ("c", 5, 5),
    ]
    assert "files" not in record(one)["data"] and "proportion" not in said["files"][0]
    assert [entry["sha256"] for entry in said["files"]] == [
        read_conversations(place / name).sha256 for name in ("a.jsonl", "b.parquet", "c.jsonl")
    ]


def test_an_epoch_of_a_mixture_has_the_quota_of_each_file(place: Path, mixed: Path) -> None:
    """Tokens by data set of each epoch, held against a count over the plan's examples, row by row."""
    said = record(mixed)
    assert said["steps"] == 6 and said["epochs"] == 2 and said["options"]["proportions"] == [2, 5, 3]
    for entry, size, share, quota in zip(said["data"]["files"], SIZES, PROPORTIONS, QUOTAS, strict=True):
        assert entry["proportion"] == share / 10 and entry["examples_per_epoch"] == quota
        assert entry["passes_per_epoch"] == quota / size
    assert said["data"]["tokens_per_epoch"] != said["data"]["tokens"]
    rows = read_conversations(place / "rows.jsonl").conversations
    lengths = [len(row_nlls(place / "model", {"messages": _plain(row)})["response"]) for row in rows]
    names = ["a"] * 12 + ["b"] * 3 + ["named"] * 5
    plan = StepPlan(20, 8, 0, 6, Quotas(SIZES, QUOTAS))
    for epoch, line in enumerate(metrics(mixed)):
        taken = [int(example) for step in range(3) for example in plan.batch(3 * epoch + step)]
        assert [sum(low <= one < high for one in taken) for low, high in ((0, 12), (12, 15), (15, 20))] == [
            *QUOTAS
        ]
        tokens = {name: sum(lengths[one] for one in taken if names[one] == name) for name in set(names)}
        assert line["dataset_nll_tokens"] == tokens


def _plain(row: Any) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in row.messages]


def test_the_log_and_the_card_say_how_often_rows_are_seen(place: Path, mixed: Path) -> None:
    log, card = (mixed / "train.log").read_text(), (mixed / "README.md").read_text()
    for words in (
        f"{place}/a.jsonl: 12 rows, 12 used; 20.0% of an epoch, 4 examples: 33.3% of its rows, other ones",
        f"{place}/b.parquet: 3 rows, 3 used; 50.0% of an epoch, 10 examples: each row 3 or 4 times, 3.33 on",
        f"{place}/c.jsonl: 5 rows, 5 used; 30.0% of an epoch, 6 examples: each row 1 or 2 times, 1.20 on",
    ):
        assert words in log
    assert "| data | a + b + c, 20 of 20 rows, sha256" in card
    assert (
        "| files | a: 12 of 12 rows, 4 examples an epoch; b: 3 of 3 rows, 10 examples an epoch; c: 5 of 5 "
        "rows, 6 examples an epoch |" in card
    )


def test_shares_of_the_loss_are_those_of_an_epoch(place: Path, mixed: Path) -> None:
    """Each example of a mixture's epoch counts as often as the epoch has it, on average."""
    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.tokens.collector import collect
    from instruction_modelling.tokens.row_encoder import row_encoder
    from instruction_modelling.tokens.weighted import totals_by_kind, weigh_rows
    from instruction_modelling.tokens.weights import WeightPolicy

    encoder = row_encoder(load_tokenizer(str(place / "model")), "auto", 2048)
    names = [str(place / name) for name in ("a.jsonl", "b.parquet", "c.jsonl")]
    file = read_conversations(row_files(names, PROPORTIONS))
    encoded = collect(encoder.encode(file.conversations))
    weighted, _ = weigh_rows(encoded, WeightPolicy(), "example", "nonzero")
    quotas = quotas_of(file, weighted.data.rows)
    assert quotas is not None
    once = totals_by_kind(weighted)["end"]["loss_share"]
    found = totals_by_kind(weighted, quotas.times())["end"]["loss_share"]
    # A row's coefficients are 1/n each.
    kinds = [weighted.data.kinds[weighted.data.span(row)] for row in range(20)]
    counts = weighted.all_counts().tolist()
    per_row = [int((of_row == SpanKind.END).sum()) / n for of_row, n in zip(kinds, counts, strict=True)]
    wanted = sum(
        share * sum(of) / len(of)
        for share, of in zip((0.2, 0.5, 0.3), (per_row[:12], per_row[12:15], per_row[15:]), strict=True)
    )
    assert found == pytest.approx(wanted, rel=1e-6) and found != pytest.approx(once, rel=1e-3)
    assert record(mixed)["data"]["by_kind"]["end"]["loss_share"] == pytest.approx(wanted, rel=1e-6)


def test_a_mixture_goes_on_bit_for_bit_after_a_kill_and_is_no_other_mixture(
    place: Path, mixed: Path, tmp_path: Path
) -> None:
    """Once by flags, once by a mixture's file: the same files in the same shares are the same run."""
    yaml = place / "mix.yaml"
    yaml.write_text("files: {a.jsonl: 0.2, b.parquet: 0.5, c.jsonl: 0.3}\n")
    interrupt(place, tmp_path, 4, *files(place), "--proportions", *PROPORTIONS, "--logging_steps", 3)
    other = attempt(place, tmp_path, *files(place), "--proportions", 1, 1, 1, *RESUME)
    assert other.code == 2 and "examples of each file an epoch: [4, 10, 6] then, [7, 7, 6] now" in other.err
    none = attempt(place, tmp_path, *files(place), *RESUME)
    assert none.code == 2 and "examples of each file an epoch: [4, 10, 6] then, None now" in none.err
    resumed = tune(place, tmp_path, "--train_file", yaml, "--logging_steps", 3, *RESUME)
    assert same_bits(resumed, mixed)
    again, whole = ([line["dataset_nll"] for line in metrics(run)] for run in (resumed, mixed))
    assert again == whole


def test_rows_left_out_are_counted_and_listed_by_file(place: Path, tmp_path: Path) -> None:
    bad = write_rows(
        tmp_path / "bad.jsonl",
        [*sample_rows(2), {"messages": []}, {"messages": [{"role": "user", "content": "no answer"}]}],
    )
    arguments = ("--train_file", place / "a.jsonl", bad, "--max_train_steps", 1)
    refused = attempt(place, tmp_path / "run", *arguments)
    assert refused.code == 2 and f"{bad}:3: " in refused.err
    folder = tune(place, tmp_path / "run", *arguments, "--max_bad_rows", 1)
    listed = [json.loads(line) for line in (folder / "bad_rows.jsonl").read_text().splitlines()]
    assert [(line["file"], line["row"], line.get("line")) for line in listed] == [
        (str(bad), 2, 3),
        (str(bad), 3, None),
    ]
    first, second = record(folder)["data"]["files"]
    assert first["left_out"] == {} and second["used"] == 2 and sum(second["left_out"].values()) == 2
    assert "no token with a loss weight" in second["left_out"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--proportions", 1), "--proportions: shares are of several files, and there is one"),
        (("--train_file", "a", "b", "--proportions", 1, -2), "--proportions: -2.0 is no share"),
        (("--train_file", "a", "a"), "--train_file: a is named twice"),
        (("--train_file", "a", "mix.yaml"), "a mixture stands alone"),
        (
            ("--train_file", "a", "b", "--proportions", 1, 2, "--use_lm_modelling"),
            "files have no proportions",
        ),
        (
            ("--train_file", "a", "b", "--recipe", "released", "--use_lm_modelling"),
            "cuts its groups from one file",
        ),
        (("--eval_file", "a", "a"), "--eval_file: a is named twice"),
        (("--eval_file", "mix.yml"), "mix.yml: is a mixture of files"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    place: Path, tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    outcome = attempt(place, tmp_path / "run", *arguments)
    assert outcome.code == 2 and said in outcome.err and not (tmp_path / "run").exists()


def test_each_evaluation_file_has_its_own_loss_by_name(place: Path, tmp_path: Path) -> None:
    """Held against losses of the untuned model, row by row: the learning rate is 0."""
    short = write_rows(tmp_path / "short.jsonl", sample_rows(3, "brief_answers_test"))
    folder = tune(
        place,
        tmp_path / "run",
        *("--eval_file", place / "c.jsonl", short, "--max_train_steps", 1, "--learning_rate", 0),
    )
    (line,) = [line for line in metrics(folder) if "eval_rows" in line]
    rows = [json.loads(text) for text in (place / "c.jsonl").read_text().splitlines()]
    means: dict[str, list[float]] = {"c": [], "short": []}
    for name, row in [
        *(("c", row) for row in rows),
        *(("short", row) for row in sample_rows(3, "brief_answers_test")),
    ]:
        nlls = row_nlls(place / "model", row)["response"]
        means[name].append(sum(nlls) / len(nlls))
    wanted = {name: sum(of) / len(of) for name, of in means.items()}
    assert line["eval_file_rows"] == {"c": 5, "short": 3} and line["eval_rows"] == 8
    assert line["eval_file_nll"] == pytest.approx(wanted, abs=1e-5)
    assert line["eval_response_nll"] == pytest.approx(sum(map(sum, means.values())) / 8, abs=1e-5)
    assert f"(c {wanted['c']:.4f}, short {wanted['short']:.4f})" in (folder / "train.log").read_text()


def test_an_evaluation_file_without_a_response_is_named(place: Path, tmp_path: Path) -> None:
    none = write_rows(tmp_path / "none.jsonl", [{"messages": [{"role": "user", "content": "hm"}]}])
    outcome = attempt(place, tmp_path / "run", "--eval_file", SAMPLE / "brief_answers_test.jsonl", none)
    assert outcome.code == 2 and f"--eval_file {none}: none of its 1 rows has a response" in outcome.err
