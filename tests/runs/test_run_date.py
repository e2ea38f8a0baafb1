"""A run owns its date and its template's variables: they stay when it goes on, and in the saved model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from template_toys import set_day
from tiny import make_tiny_model
from training_runs import Outcome, record, run, same_bits, sample_rows, write_rows

DATED = (
    "{{ bos_token }}Today is {{ strftime_now('%d %b %Y') }}.\n"
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
THINKING = DATED.replace("Today is {{ strftime_now('%d %b %Y') }}.", "Thinking {{ mode | default('on') }}.")
ROWS = 6


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose template writes today's date, rows, and a token cache of its own."""
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    make_tiny_model(tmp_path / "model", DATED)
    write_rows(tmp_path / "rows.jsonl", sample_rows(ROWS))
    return tmp_path


def tune(place: Path, folder: str, *arguments: object) -> Outcome:
    """Three steps on the rows, a checkpoint after each."""
    names = ("--model_name_or_path", place / "model", "--train_file", place / "rows.jsonl")
    steps = ("--per_device_train_batch_size", 2, "--checkpointing_steps", 1, "--num_train_epochs", 1)
    return run("finetune", *names, "--output_dir", place / folder, *steps, *arguments)


def cut_back(folder: Path) -> None:
    """Leave a run as one that was stopped after its first step."""
    for name in ("step_2", "step_3"):
        shutil.rmtree(folder / name)


def test_a_run_goes_on_the_next_day_with_its_own_date(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_day(monkeypatch, "2026-03-30")
    assert tune(place, "whole").code == 0 and tune(place, "stopped").code == 0
    cut_back(place / "stopped")
    set_day(monkeypatch, "2026-03-31")
    shutil.rmtree(place / "cache")
    outcome = tune(place, "stopped", "--resume_from_checkpoint", "latest")
    assert outcome.code == 0, outcome.err
    assert same_bits(place / "whole", place / "stopped")
    assert record(place / "stopped")["data"]["template_date"] == "2026-03-30"
    state = json.loads((place / "stopped" / "step_3" / "checkpoint.json").read_text())
    assert state["fingerprint"]["template date"] == "2026-03-30"
    # By the checkpoint's name too; and a run that begins has its own day.
    cut_back(place / "stopped")
    named = tune(place, "stopped", "--resume_from_checkpoint", place / "stopped" / "step_1")
    assert named.code == 0 and same_bits(place / "whole", place / "stopped")
    assert tune(place, "new").code == 0 and record(place / "new")["data"]["template_date"] == "2026-03-31"
    assert not same_bits(place / "whole", place / "new")


def test_the_saved_model_is_asked_with_the_date_it_was_trained_with(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    set_day(monkeypatch, "2026-03-30")
    assert tune(place, "run").code == 0
    set_day(monkeypatch, "2026-05-01")
    tokenizer: Any = AutoTokenizer.from_pretrained(place / "run")
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s>Today is 30 Mar 2026.\n<|user|>\nHi\n<|assistant|>\n"


def test_a_template_without_a_date_has_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its cache serves the next day too."""
    make_tiny_model(place / "model", THINKING)
    set_day(monkeypatch, "2026-03-30")
    assert tune(place, "one").code == 0
    cached = sorted((place / "cache").rglob("*"))
    set_day(monkeypatch, "2026-03-31")
    assert tune(place, "two").code == 0 and sorted((place / "cache").rglob("*")) == cached
    assert "template_date" not in record(place / "two")["data"]
    assert (place / "two" / "chat_template.jinja").read_text() == THINKING


@pytest.mark.parametrize("own_file", [False, True], ids=["the tokenizer's template", "a Jinja file"])
def test_variables_for_every_row_are_trained_with_and_saved(place: Path, own_file: bool) -> None:
    from transformers import AutoTokenizer

    (place / "format.jinja").write_text(THINKING)
    make_tiny_model(place / "model", None if own_file else THINKING)
    arm = ("--chat_format", place / "format.jinja") if own_file else ()
    variables = ("--chat_template_kwargs", '{"mode": "off"}')
    assert tune(place, "plain", *arm).code == 0
    outcome = tune(place, "off", *arm, *variables)
    assert outcome.code == 0, outcome.err
    assert not same_bits(place / "plain", place / "off")
    tokenizer: Any = AutoTokenizer.from_pretrained(place / "off")
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False).startswith("<s>Thinking off.\n")
    assert tokenizer.apply_chat_template(chat, tokenize=False, mode="on").startswith("<s>Thinking on.\n")
    refused = tune(place, "off", *arm, "--resume_from_checkpoint", "latest")
    assert refused.code == 2 and "chat_template_kwargs" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--chat_template_kwargs", '{"enable_thinking": false}'), "reads no variable enable_thinking"),
        (("--chat_template_kwargs", "{"), "no JSON"),
        (
            ("--chat_template_kwargs", '{"mode": 1}', "--chat_format", "tulu"),
            "the Tülu format has no variables",
        ),
    ],
    ids=str,
)
def test_variables_that_would_change_nothing_are_refused(
    place: Path, arguments: tuple[object, ...], words: str
) -> None:
    outcome = tune(place, "run", *arguments)
    assert outcome.code == 2 and words in outcome.err and "Traceback" not in outcome.err
