"""Fixtures of the inspector's tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspections import Inspect, Inspected
from script_loader import run_script
from tiny import make_tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE tokenizer: BOS, EOS, no pad token, no chat template."""
    folder = tmp_path_factory.mktemp("tiny_tokenizer")
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def inspect(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Inspect:
    """Runs the script on rows (objects, or raw lines) with every output asked for."""

    def run(rows: list[Any], *arguments: object, tokenizer: Path | None = None) -> Inspected:
        file = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        places = {name: tmp_path / "made" / name for name in ("output_file", "summary_file", "html")}
        flags: list[object] = [part for name, place in places.items() for part in (f"--{name}", place)]
        flags += ["--train_file", file, "--tokenizer_name", tokenizer or tiny_tokenizer]
        capsys.readouterr()
        code = run_script(monkeypatch, "inspect_weights", *flags, *arguments)
        out, error = capsys.readouterr()
        text = {name: place.read_text(encoding="utf-8") for name, place in places.items()}
        records = [json.loads(line) for line in text["output_file"].splitlines()]
        return Inspected(code, out, error, records, json.loads(text["summary_file"]), text["html"])

    return run


@pytest.fixture
def template(tmp_path: Path) -> Callable[[str], Path]:
    """A Jinja file with the given chat template."""

    def write(text: str) -> Path:
        path = tmp_path / "template.jinja"
        path.write_text(text, encoding="utf-8")
        return path

    return write
