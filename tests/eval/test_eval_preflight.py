"""What the whole evaluation looks for before it starts, and what it says that it takes and costs."""

from pathlib import Path

import pytest
from tiny import make_tiny_model

from eval import preflight
from eval.catalogue import CATALOGUE
from eval.preflight import PreflightOptions, estimates, not_prepared, seconds_of

SEVEN_B = "meta-llama/Llama-2-7b-hf"


@pytest.fixture
def model(tmp_path: Path) -> str:
    make_tiny_model(tmp_path / "model")
    return str(tmp_path / "model")


def prepared(folder: Path) -> None:
    """Put what is looked for into a data folder."""
    for name in ("mt_bench", "alpaca_eval"):
        for path in CATALOGUE[name].paths(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (folder / "eval" / "hub_data.json").write_text("{}")


def test_what_is_not_prepared_is_one_line_with_its_command(model: str, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    assert not_prepared(PreflightOptions([model], data_dir=data)) == [
        "not prepared: mt_bench, alpaca_eval, nlp; make it with: "
        "sh prepare_eval_data.sh mt_bench alpaca_eval nlp"
    ]
    assert not_prepared(PreflightOptions([model], ["humaneval"], data_dir=data)) == []
    assert not_prepared(PreflightOptions([model], ["nlp"], data_dir=data, local=True))[0].startswith(
        "nlp --local: no benchmark is there"
    )
    prepared(tmp_path / "data")
    assert not_prepared(PreflightOptions([model], data_dir=data)) == []
    said = not_prepared(PreflightOptions([f"{tmp_path}/modle"], data_dir=data))
    assert said == [f"{tmp_path}/modle: there is no such folder; did you mean {model}?"]


def test_the_time_by_hand() -> None:
    """7B on an A100 at 40 %: MT-Bench reads 60,000 tokens, and writes 80,000, 32 at once."""
    expected = 2 * 7e9 * 60e3 / (0.4 * 312e12) + 2 * 7e9 * 80e3 / 32 / 2e12
    assert seconds_of("mt_bench", 7e9, on_gpu=True) == pytest.approx(expected)
    assert seconds_of("nlp", 7e9, on_gpu=False) > 100 * seconds_of("nlp", 7e9, on_gpu=True)


def test_hours_and_the_judges_cost_are_said_for_all_models(model: str) -> None:
    lines = estimates(PreflightOptions([SEVEN_B, SEVEN_B], ["humaneval", "mt_bench"]), gpus=1)
    # 160 turns of two models: 1,400 tokens at 30 dollars a million and 250 at 60.
    cost = 2 * 160 * (1400 * 30 + 250 * 60) / 1e6
    assert lines[1].endswith(
        f"; 320 requests to the judge gpt-4, about ${cost:.2f} (list prices of July 2025)"
    )
    assert lines[2].startswith("in all: about ") and lines[2].endswith(f"judges: about ${cost:.2f}")
    free = estimates(PreflightOptions([SEVEN_B], ["mt_bench"], no_judge=True), gpus=1)
    assert "judge" not in " ".join(free)
    local = PreflightOptions(
        [SEVEN_B], ["mt_bench"], judge_model="mine", judge_base_url="http://127.0.0.1:8000/v1"
    )
    assert "requests to the judge mine, about $0.0000 (a server on this machine)" in estimates(local, 1)[0]
    unknown = estimates(PreflightOptions(["someone/other"], ["nlp"]), gpus=0)
    assert unknown[-1] == "of unknown size, and not in these hours: someone/other"


def test_it_ends_with_2_or_prints_and_goes_on(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["x", "--models", model, "--data_dir", str(tmp_path / "data")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(preflight.UserError, match="not prepared: mt_bench"):
        preflight.main()
    monkeypatch.setattr("sys.argv", [*words, "--estimate"])
    assert preflight.main() == 0
    said = capsys.readouterr().out
    assert "# in all: about" in said and "# missing: not prepared: mt_bench" in said
