"""A tuned model goes to a hub privately, with its card and without the data; the token goes nowhere else."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from tiny import make_tiny_model
from training_runs import run, sample_rows, write_rows
from upload_hub import TOKEN, UploadHub


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("publish")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", [*sample_rows(3), {"messages": [], "secret": "of the data"}])
    return folder


def tune(place: Path, folder: Path, *arguments: object) -> Any:
    return run(
        "finetune", "--model_name_or_path", place / "model", "--train_file", place / "rows.jsonl",
        "--max_bad_rows", 1, "--max_train_steps", 1, "--output_dir", folder, *arguments,
    )  # fmt: skip


def holds(folder: Path, secret: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_run_is_uploaded_whole_and_private(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with UploadHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        outcome = tune(place, tmp_path / "run", "--push_to_hub", "lab/tuned")
        assert outcome.code == 0, outcome.err
        assert f"pushed to {hub.url}/lab/tuned" in outcome.out
    assert [one["visibility"] for one in hub.made] == ["private"]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    files = hub.files["lab/tuned"]
    assert set(files) == {
        "README.md",
        *("config.json", "generation_config.json", "model.safetensors", "run.json", "metrics.jsonl"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    for name, content in files.items():
        assert name == "README.md" or content == (tmp_path / "run" / name).read_bytes()
    assert b"pipeline(\"text-generation\", 'lab/tuned')" in files["README.md"]
    assert holds(tmp_path / "run", TOKEN) == [] and TOKEN not in outcome.err + outcome.out


def test_a_refused_upload_keeps_the_model_and_says_how_to_try_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a run"
    with UploadHub(refuse="/commit/main") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        outcome = tune(place, folder, "--push_to_hub", "lab/tuned", "--hub_public")
        assert outcome.code == 0 and (folder / "model.safetensors").exists()
        assert hub.made[0]["visibility"] == "public"
        assert "--push_to_hub lab/tuned: " in outcome.out and "403" in outcome.out
        assert f"push_to_hub.py '{folder}' lab/tuned" in outcome.out
        assert TOKEN not in outcome.out and holds(folder, TOKEN) == []
        hub.refuse = None
        again = run("push_to_hub", folder, "lab/tuned")
        assert again.out == f"pushed to {hub.url}/lab/tuned\n"
        assert "model.safetensors" in hub.files["lab/tuned"]


def test_what_cannot_be_uploaded_is_said_before_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, wish = tmp_path / "run", ("--push_to_hub", "lab/tuned")
    with UploadHub(refuse="/repos/create") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        outcome = tune(place, folder, *wish)
    assert outcome.code == 2 and "403" in outcome.err and TOKEN not in outcome.out
    gone = tune(place, folder, *wish)
    assert gone.code == 2 and "--push_to_hub lab/tuned: " in gone.err
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text(json.dumps({"finished": False}))
    with UploadHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        begun = run("push_to_hub", tmp_path / "begun", "lab/tuned")
    assert begun.code == 2 and "the run is not finished" in begun.err
    monkeypatch.delenv("HF_TOKEN")
    none = tune(place, folder, *wish)
    assert none.code == 2 and "there is no token: set HF_TOKEN" in none.err
    assert "a model on a hub is called" in tune(place, folder, "--push_to_hub", "a/b/c").err
    assert not (folder / "model.safetensors").exists()
