"""What would stop a comparison is found before any model is made."""

import json
from pathlib import Path
from typing import Any

import pytest
from row_files import write
from script_loader import run_script
from tiny import make_tiny_model

from instruction_modelling.comparison import jobs as comparison_jobs
from instruction_modelling.comparison import timing
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.preflight import check_lengths, row_choice, with_evaluation
from instruction_modelling.comparison.row_sets import TrainAndTest
from instruction_modelling.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of 256 positions."""
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 256}))
    return folder


def row(words: int, answer: str = "Yes.") -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "why " * words}, {"role": "assistant", "content": answer}]
    }


def prepared(model: Path, tmp_path: Path, rows: list[Any], **changes: Any) -> TrainAndTest:
    """Return the files of a comparison on these rows, its lengths checked."""
    train = write(tmp_path, *rows)
    test = write(tmp_path, *changes.pop("test", rows), name="test.jsonl")
    options = ComparisonOptions(str(model), [str(train)], str(tmp_path / "out"), [str(test)], **changes)
    files = row_choice(options).of(train, test, tmp_path / "out")
    check_lengths(options, [files])
    return files


def test_a_prompt_that_is_too_long_is_counted_and_stops_nothing(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = [row(2), row(300, "an answer that is cut"), row(3)]
    prepared(model, tmp_path, [row(2)] * 4, test=test, max_seq_length=160, max_new_tokens=8, row_set="own")
    assert "1 of 3 prompts get no response, of any model (prompt too long" in caplog.text


def test_not_one_prompt_that_fits_is_an_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not one prompt of 4 rows can be answered.*--train_responses 0"):
        prepared(model, tmp_path, [row(2)] * 4, max_seq_length=200, max_new_tokens=255)


def test_rows_longer_than_the_models_positions_are_said_before_training(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A Llama computes them, though it was never trained there: a warning that names both numbers."""
    rows = [row(2)] * 4 + [row(2, "yes " * 300)]
    prepared(model, tmp_path, rows, max_seq_length=1024, max_new_tokens=8)
    assert "the model's 256 positions" in caplog.text


def test_a_model_with_a_vector_for_each_position_refuses_longer_rows(tmp_path: Path) -> None:
    from tiny import make_tiny_tokenizer
    from transformers import OPTConfig

    folder = tmp_path / "opt"
    make_tiny_tokenizer().save_pretrained(folder)
    OPTConfig(
        vocab_size=512,
        hidden_size=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        max_position_embeddings=64,
        architectures=["OPTForCausalLM"],
    ).save_pretrained(folder)
    with pytest.raises(UserError, match=r"64 positions, and it has no vector for more"):
        prepared(folder, tmp_path, [row(2)] * 4 + [row(2, "yes " * 100)], max_seq_length=512)


def test_compare_refuses_bad_rows_before_it_makes_anything(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> float:
        raise AssertionError("a model was made")

    monkeypatch.setattr(timing, "calibrate", never)
    train = write(tmp_path, *[row(2)] * 12, b"{broken")
    given = ["--model_name_or_path", model, "--train_file", train, "--output_dir", tmp_path / "out"]
    assert run_script(monkeypatch, "compare", *given) == 2
    assert "1 of 13 rows cannot be used" in capsys.readouterr().err


# -- rows that are measured while training -----------------------------------------------------------------


def choosing_arm(tmp_path: Path) -> str:
    path = tmp_path / "arms.toml"
    path.write_text('[best]\nflags = ["--keep_best"]\n')
    return str(path)


def test_an_arm_that_chooses_its_weights_gets_other_rows_to_choose_by(model: Path, tmp_path: Path) -> None:
    train, test = write(tmp_path, *[row(2)] * 4), write(tmp_path, row(5), row(6), name="test.jsonl")
    held = write(tmp_path, row(7), row(8), name="held.jsonl")
    given: dict[str, Any] = {"arms": ["IT", "best"], "arms_file": choosing_arm(tmp_path)}
    paths = str(model), [str(train)], str(tmp_path / "out"), [str(test)]
    (problem,) = ComparisonOptions(*paths, **given).check()
    assert problem.startswith("--arms best: chooses its weights by the loss on other rows")
    options = ComparisonOptions(*paths, eval_file=[str(held)], **given)
    assert options.check() == []
    assert ComparisonOptions(*paths, eval_file=[str(held)] * 2, **given).check() == [
        "--eval_file: 2 files for 1 training files"
    ]
    sets = [row_choice(options).of(train, test, tmp_path / "out")]
    (files,) = with_evaluation(options, sets)
    assert files.evaluation == held
    for job in comparison_jobs.plan(options, files)[0]:
        if job.script == "finetune":
            assert job.arguments[job.arguments.index("--eval_file") + 1] == str(held) and held in job.inputs


@pytest.mark.parametrize("rows", [[row(5), row(6)], [row(9), {**row(6), "id": "another"}]])
def test_rows_to_choose_by_are_never_test_rows(
    model: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    """By what they say: a copy of the file under another name, or one row of it, is seen."""
    train, test = write(tmp_path, *[row(2)] * 4), write(tmp_path, row(5), row(6), name="test.jsonl")
    held = write(tmp_path, *rows, name="held.jsonl")
    options = ComparisonOptions(str(model), [str(train)], str(tmp_path / "out"), [str(test)], [str(held)])
    sets = [row_choice(options).of(train, test, tmp_path / "out")]
    shared = 2 if len(rows[0]["messages"][0]["content"]) == len("why " * 5) else 1
    with pytest.raises(
        UserError, match=rf"--eval_file {held}: {shared} rows? of it \({held}:{3 - shared} is the"
    ):
        with_evaluation(options, sets)
