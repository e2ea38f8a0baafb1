"""Hostile folders of models: what is wrong is said in a line, and nothing in them is run."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_inputs import lines_said, messages
from safetensors.torch import load_file, save_file
from tiny import make_tiny_model

from instruction_modelling.errors import UserError
from instruction_modelling.models.loading import fit_embeddings, load_model, load_tokenizer
from instruction_modelling.models.sizes import require_embeddings
from instruction_modelling.training.model_check import check_model

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
TOKENIZER, OPTIONS = "tokenizer.json", "tokenizer_config.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("whole") / "model")


class Door:
    """A pickle of this makes a file as it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write(name: str, content: bytes | str) -> Callable[[Path], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def fields(name: str, **values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        given = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**given, **values}))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    return lambda folder: save_file(
        {name: tensor.clone() for name, tensor in change(load_file(folder / WEIGHTS)).items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )


def cut(name: str, end: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:end])


def shards(folder: Path) -> None:
    """Leave the first of two shards."""
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    of = {name: f"model-0000{1 + (place >= 5)}-of-00002.safetensors" for place, name in enumerate(names)}
    first = {name: weights[name] for name in names[:5]}
    save_file(first, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": of}))


def pickled(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        torch.save({"model.norm.weight": Door(folder / "door")}, folder / name)

    return change


def with_nan(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights["model.norm.weight"][3] = float("nan")
    return weights


def without(name: str, then: Callable[[Path], object] = lambda path: None) -> Callable[[Path], object]:
    """A change that takes a file away, and gives its path to another change."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        then(folder / name)

    return change


def shards_with_index(text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        shards(folder)
        (folder / INDEX).write_text(text)

    return change


CASES: dict[str, Callable[[Path], object]] = {
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "weights cut off": cut(WEIGHTS, -1000),
    "a header cut off": cut(WEIGHTS, 20),
    "empty weights": write(WEIGHTS, b""),
    "a header that lies": write(WEIGHTS, b"\xff" * 8 + b"{}"),
    "a shard missing": shards,
    "an index that is broken": shards_with_index("{"),
    "an index of a wrong type": shards_with_index('{"weight_map": 3}'),
    "weights that link to themselves": without(WEIGHTS, lambda path: path.symlink_to(WEIGHTS)),
    "a folder in place of weights": without(WEIGHTS, Path.mkdir),
    "weights under other names": tensors(lambda given: {f"x.{name}": part for name, part in given.items()}),
    "a head of other sizes": tensors(lambda given: given | {"lm_head.weight": given["lm_head.weight"][:300]}),
    "NaN in the weights": tensors(with_nan),
    "no configuration": lambda folder: (folder / CONFIG).unlink(),
    "a configuration that is no JSON": write(CONFIG, '{"a": '),
    "a configuration that is a list": write(CONFIG, "[1]"),
    "an empty configuration": write(CONFIG, ""),
    "a configuration that is no text": write(CONFIG, b"\xff\xfe\0"),
    "a configuration without a kind": write(CONFIG, "{}"),
    "an unknown kind of model": fields(CONFIG, model_type="martian"),
    "another width": fields(CONFIG, hidden_size=128),
    "a width that is a text": fields(CONFIG, hidden_size="96"),
    "a negative width": fields(CONFIG, hidden_size=-4),
    "no heads": fields(CONFIG, num_attention_heads=0),
    "a layer too many": fields(CONFIG, num_hidden_layers=3),
    "a smaller vocabulary": fields(CONFIG, vocab_size=100),
    "a thousand million layers": fields(CONFIG, num_hidden_layers=10**9),
    "more layers than tensors": fields(CONFIG, num_hidden_layers=1500),
    "no layers": fields(CONFIG, num_hidden_layers=0),
    "a thousand million experts": fields(CONFIG, num_local_experts=10**9),
    "a width of a thousand million": fields(CONFIG, hidden_size=10**9),
    "a vocabulary of a million million": fields(CONFIG, vocab_size=10**12),
    "a model far larger than its weights": fields(CONFIG, intermediate_size=10**7),
    "an end token beyond the vocabulary": fields(CONFIG, eos_token_id=10**12),
    "an unknown activation": fields(CONFIG, hidden_act="nope"),
    "a generation configuration that is no JSON": write("generation_config.json", "{"),
    "a program of its own": fields(
        CONFIG, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    ),
    "pickles": pickled("pytorch_model.bin"),
    "pickles in shards": pickled("pytorch_model-00001-of-00002.bin"),
    "pickles of another name": pickled("consolidated.00.pth"),
}
OF_TOKENIZERS: dict[str, Callable[[Path], object]] = {
    "no tokenizer": without(TOKENIZER, lambda path: path.with_name(OPTIONS).unlink()),
    "a tokenizer cut off": cut(TOKENIZER, 200),
    "a tokenizer without entries": write(TOKENIZER, "{}"),
    "a tokenizer that is a list": write(TOKENIZER, "[]"),
    "tokenizer options that are no JSON": write(OPTIONS, "{"),
    "tokenizer options that are a list": write(OPTIONS, "[]"),
    "an end token that is a number": fields(OPTIONS, eos_token=3),
    "a template file that is no text": write("chat_template.jinja", b"\xff\xfe"),
}
NAMES = {
    "a file as the folder": lambda folder: str(folder / CONFIG),
    "a folder that is not there": lambda folder: str(folder / "absent"),
    "a name that is too long": lambda folder: "x" * 400,
    "a name with a space": lambda folder: "a b",
    "no name": lambda folder: "",
}
EXPECTED = messages("model folders")


def load_tiny(folder: Path) -> Any:
    return load_model(str(folder), torch.float32)


def loaded(name: str) -> list[str]:
    model = load_model(name, torch.float32)
    check_model(model, False, "cpu")
    return ["loaded"]


def tokenizer_loaded(name: str) -> list[str]:
    load_tokenizer(name)
    return ["loaded"]


def test_every_message_has_its_case() -> None:
    assert {*CASES, *OF_TOKENIZERS, *NAMES} == set(EXPECTED)


@pytest.mark.parametrize("name", [*CASES, *OF_TOKENIZERS])
def test_a_hostile_folder_is_refused_in_these_words(name: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    (CASES.get(name) or OF_TOKENIZERS[name])(folder)
    there = set(os.listdir(folder))
    load = loaded if name in CASES else tokenizer_loaded
    assert lines_said(lambda: load(str(folder)), tmp_path) == EXPECTED[name]
    assert set(os.listdir(folder)) == there


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_model_is_refused_in_these_words(name: str, whole: Path) -> None:
    assert lines_said(lambda: loaded(NAMES[name](whole)), whole) == EXPECTED[name]
    refused = lines_said(lambda: tokenizer_loaded(NAMES[name](whole)), whole)
    assert len(refused) == 1 and refused[0].startswith("error: ")


def test_a_pickle_beside_safetensors_is_left_alone(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    torch.save({"x": Door(folder / "door")}, folder / "pytorch_model.bin")
    assert loaded(str(folder)) == ["loaded"]
    assert not (folder / "door").exists()


def test_a_program_beside_a_known_model_is_not_run(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    fields(CONFIG, auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})(folder)
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(folder / 'door')!r})\nC = M = object\n")
    assert loaded(str(folder)) == ["loaded"]
    assert not (folder / "door").exists()


def test_an_id_far_beyond_the_others_is_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    given = json.loads((folder / TOKENIZER).read_text())
    given["model"]["vocab"]["far"] = 10**9
    (folder / TOKENIZER).write_text(json.dumps(given))
    tokenizer = load_tokenizer(str(folder))
    assert lines_said(lambda: [str(fit_embeddings(load_tiny(whole), tokenizer))], tmp_path) == [
        f"error: the tokenizer has {len(tokenizer)} tokens, and 'far' has the id 1,000,000,000: the rows "
        "of the embeddings up to there would stand for nothing; give it an id behind the others"
    ]


def test_ids_with_a_gap_get_embeddings_up_to_the_largest(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    given = json.loads((folder / TOKENIZER).read_text())
    given["model"]["vocab"]["far"] = 600
    (folder / TOKENIZER).write_text(json.dumps(given))
    model, tokenizer = load_tiny(whole), load_tokenizer(str(folder))
    before = model.get_input_embeddings().weight.detach().clone()
    assert fit_embeddings(model, tokenizer) == list(range(len(before), 601))
    after = model.get_input_embeddings().weight.detach()
    assert after.shape[0] == 601 and torch.equal(after[: len(before)], before)


def test_rows_of_another_tokenizer_are_refused_before_they_are_scored(whole: Path) -> None:
    model = load_tiny(whole)
    rows = model.get_input_embeddings().weight.shape[0]
    require_embeddings(model, rows - 1)
    with pytest.raises(UserError) as refused:
        require_embeddings(model, rows)
    assert str(refused.value) == (
        f"the rows hold the token {rows}, and the model has embeddings of {rows} tokens: the tokenizer is "
        "not the model's; give the one that it was trained with (--tokenizer_name)"
    )


def test_weights_that_the_configuration_has_no_place_for_are_named(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    fields(CONFIG, num_hidden_layers=1)(folder)
    assert loaded(str(folder)) == ["loaded"]
    assert (
        f"{folder}: 9 of its weights have no place in the model that its config.json describes and are left "
        "out (model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight, "
        "model.layers.1.mlp.gate_proj.weight, ...)"
    ) in caplog.messages
