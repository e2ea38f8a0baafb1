"""A model is known by what it holds, not by where it lies."""

import shutil
from pathlib import Path

import pytest
from tiny import make_tiny_model

from instruction_modelling.models.identity import model_identity


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("identity") / "model")


def test_a_copy_elsewhere_is_the_same_model(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    assert model_identity(model) == model_identity(tmp_path / "copy") == model_identity(str(model))


@pytest.mark.parametrize("change", ["weights", "template", "config", "missing"])
def test_another_weight_template_or_configuration_is_another_model(
    model: Path, tmp_path: Path, change: str
) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    if change == "weights":
        # One step of training moves every weight; here one block in a hundred of a file of the same size.
        data = bytearray((copy / "model.safetensors").read_bytes())
        for at in range(len(data) // 2, len(data) - 8, 4096):
            data[at] ^= 1
        (copy / "model.safetensors").write_bytes(data)
    elif change == "template":
        (copy / "chat_template.jinja").write_text("{{ messages }}")
    elif change == "config":
        (copy / "config.json").write_text((copy / "config.json").read_text().replace("2048", "1024"))
    else:
        (copy / "generation_config.json").unlink()
    assert model_identity(copy) != model_identity(model)


def test_what_lies_beside_a_model_does_not_make_it_another(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "run.json").write_text("{}")
    (copy / "metrics.jsonl").write_text("{}\n")
    (copy / "step_3").mkdir()
    (copy / "step_3" / "weights.safetensors").write_bytes(b"x")
    assert model_identity(copy) == model_identity(model)


def test_a_name_on_the_hub_that_is_not_in_the_cache_is_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_identity("some-one/some-model") == "hub:some-one/some-model"
