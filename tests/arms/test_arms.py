"""Arms by name: the shipped ones are what they say, and a file of one's own adds to them or is refused."""

from pathlib import Path

import pytest

from instruction_modelling.arms.rules import Selection, StopAt
from instruction_modelling.arms.table import read_arms
from instruction_modelling.errors import UserError


def test_shipped_arms_are_what_their_names_say() -> None:
    said = {name: arm.options().with_recipe().arm() for name, arm in read_arms().items()}
    assert said == {
        "IT": "IT",
        "IM": "IM",
        "NEFTune": "IT+NEFTune",
        "IM+NEFTune": "IM+NEFTune",
        **{f"IM-w{weight}": f"IM w={weight}" for weight in ("0.01", "0.03", "0.1", "0.2", "0.3", "0.5")},
        "prompt-only": "prompt only",
        "KL": "IT+KL 1",
        "reweighted-IT": "reweighted IT",
        "IM-response": "IM",
        "released-masks": "IM (released)",
        "released-recipe": "IM (released)",
        # What these do stands in their rules.
        **dict.fromkeys(("permuted-beside", "others-beside", "unrelated-beside", "healed-base"), "IT"),
        **dict.fromkeys(("IT-matched-KL", "IT-matched-loss"), "IT"),
    }
    assert all(arm.about for arm in read_arms().values())


def test_the_two_by_two_differs_in_the_loss_on_instructions_and_in_the_denominator() -> None:
    arms = read_arms()
    cells = {
        name: (arms[name].options().instruction_weight(), arms[name].options().loss_denominator)
        for name in ("IT", "reweighted-IT", "IM-response", "IM")
    }
    assert cells == {
        "IT": (0.0, "nonzero"),
        "reweighted-IT": (0.0, "messages"),
        "IM-response": (1.0, "response"),
        "IM": (1.0, "nonzero"),
    }


def test_the_controls_have_other_texts_or_another_end() -> None:
    rules = {name: arm.rules.as_dict() for name, arm in read_arms().items() if arm.rules.as_dict()}
    assert rules == {
        "permuted-beside": {"data_transform": "permuted-instruction-beside"},
        "others-beside": {"data_transform": "other-instructions-beside"},
        "unrelated-beside": {"data_transform": "unrelated-text-beside"},
        "healed-base": {"data_transform": "unrelated-text-alone"},
        "IT-matched-KL": {"stop_at": {"quantity": "kl", "of": "IM"}},
        "IT-matched-loss": {"stop_at": {"quantity": "loss", "of": "IM"}},
    }


def test_a_file_gives_rules(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[few]\nflags = []\nselect = { ratio_at_least = 0.5, ratio_below = 2, rows = 3 }\n"
        '[early]\nflags = ["--use_lm_loss"]\nstop_at = { quantity = "loss", of = "few", every = 2 }\n'
    )
    arms = read_arms(file)
    assert arms["few"].rules.select == Selection(ratio_at_least=0.5, ratio_below=2, rows=3)
    assert arms["early"].rules.stop_at == StopAt("loss", "few", 2) and not arms["early"].rules.change_rows


def test_a_file_adds_arms(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[hot]\nabout = "a high rate"\nflags = ["--use_lm_loss", "--learning_rate", "1e-3"]\n')
    arms = read_arms(file)
    assert list(arms)[-1] == "hot" and arms["hot"].options().learning_rate == 1e-3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[IM]\nflags = []", "[IM] is the name of an arm that is there already"),
        ('["a/b"]\nflags = []', "[a/b]: a name has letters, digits"),
        ("[a]", "[a]: flags is a list of words in quotes"),
        ('[a]\nflags = "--use_lm_loss"', "[a]: flags is a list of words in quotes"),
        (
            "[a]\nflags = []\nseeds = 3",
            "[a]: seeds: not one of about, flags, select, data_transform, stop_at",
        ),
        (
            "[a]\nflags = []\nselct = {}",
            "[a]: selct: not one of about, flags, select, data_transform, stop_at; did ",
        ),
        ("[a]\nflags = []\nselct = {}", "did you mean select?"),
        ("[a]\nflags = []\nselect = 3", "[a]: select is a table, such as select = { ratio"),
        (
            "[a]\nflags = []\nselect = {}",
            "[a]: select: give one of ratio, ratio_at_least, ratio_below and rows",
        ),
        (
            "[a]\nflags = []\nselect = { row = 3 }",
            "[a]: select: row: not one of ratio, ratio_at_least, ratio_below",
        ),
        ("[a]\nflags = []\nselect = { row = 3 }", "did you mean rows?"),
        ("[a]\nflags = []\nselect = { rows = 0 }", "[a]: select: rows = 0: it is a whole number above 0"),
        (
            "[a]\nflags = []\nselect = { rows = true }",
            "[a]: select: rows = True: it is a whole number above 0",
        ),
        (
            "[a]\nflags = []\nselect = { ratio = nan, rows = 1 }",
            "select: ratio = nan: it is a number above 0",
        ),
        ("[a]\nflags = []\nselect = { ratio = 1 }", "[a]: select: ratio: say with rows how many"),
        ("[a]\nflags = []\nselect = { ratio_at_least = 2, ratio_below = 1 }", "so no row is selected"),
        ('[a]\nflags = []\ndata_transform = "unrelated-beside"', "did you mean unrelated-text-beside?"),
        (
            "[a]\nflags = []\ndata_transform = 1",
            "[a]: data_transform 1: not one of permuted-instruction-beside",
        ),
        ('[a]\nflags = []\nstop_at = { quantity = "kl" }', "[a]: stop_at lacks of: write stop_at ="),
        ('[a]\nflags = []\nstop_at = { quantity = "nll", of = "IM" }', "quantity = 'nll': it is kl or loss"),
        (
            '[a]\nflags = []\nstop_at = { quantity = "kl", of = "IN" }',
            "[a]: stop_at: of = 'IN': not one of IT, IM,",
        ),
        (
            '[a]\nflags = []\nstop_at = { quantity = "kl", of = "a" }',
            "an arm that has an end of its own is needed",
        ),
        (
            '[a]\nflags = []\nstop_at = { quantity = "kl", of = "IT-matched-KL" }',
            "an arm that has an end of its own is needed",
        ),
        (
            '[a]\nflags = ["--max_train_steps", "3"]\nstop_at = { quantity = "kl", of = "IM" }',
            "--max_train_steps among the flags is what it sets",
        ),
        ("a = 1", "[a]: an arm is a table"),
        ("[IM-w0.25]\nflags = []", '[IM-w0]: a name with a dot stands in quotes: ["IM-w0.25"]'),
        ("[tuned-IM]\nflags = []", "[tuned-IM]: is what another model is called"),
        ('[a]\nflags = ["--config", "c.yaml"]', "[a]: --config is not an arm's to set"),
        ('[a]\nflags = ["--seed", "3"]', "[a]: --seed is not an arm's to set"),
        ('[a]\nflags = ["--train_file=x"]', "[a]: --train_file is not an arm's to set"),
        ('[a]\nflags = ["--use_lm_los"]', "[a]: --use_lm_los: no such option; did you mean --use_lm_loss?"),
        ('[a]\nflags = ["--neftune_alpha"]', "[a]: --neftune_alpha: expected one argument"),
        ('[a]\nflags = ["--neftune_alpha 5"]', "[a]: --neftune_alpha 5: "),
        ('[a]\nflags = ["--use_lm_loss", "rows.jsonl"]', "[a]: rows.jsonl: "),
        ('[a]\nflags = ["--train_file rows.jsonl"]', "[a]: --train_file rows.jsonl: "),
        ('[a]\nflags = ["--lora_rank", "8"]', "[a]: the options do not fit together:"),
        ("[a\n", "no TOML file"),
    ],
)
def test_what_is_no_arm_is_refused_with_its_name(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        read_arms(file)
    assert str(file) in str(raised.value) and problem in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_arms(tmp_path / "none.toml")
