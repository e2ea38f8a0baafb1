"""The responses to a file's rows: the folder they go to, and a run that stops and goes on."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from response_rows import ROWS, prompts_of, write_response_rows
from script_loader import run_script
from tiny import make_tiny_model

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.generation.base import Completion, EngineOptions, Request, Sampling
from instruction_modelling.generation.engine import open_engine
from instruction_modelling.generation.prompts import RowPrompt
from instruction_modelling.generation.respond import GenerateOptions, respond, response_of
from instruction_modelling.generation.transformers_engine import TransformersEngine
from instruction_modelling.rows.conversations import read_conversations


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def eval_file(tmp_path: Path) -> Path:
    return write_response_rows(tmp_path / "rows.jsonl")


def options_of(model: Path, eval_file: Path, out: Path, **more: Any) -> GenerateOptions:
    return GenerateOptions(str(model), str(eval_file), str(out), max_new_tokens=6, dtype="float32", **more)


def arguments(folder: Path, eval_file: Path, out: Path, *more: object) -> list[object]:
    return [
        "--model_name_or_path",
        folder,
        "--eval_file",
        eval_file,
        "--output_dir",
        out,
        "--max_new_tokens",
        6,
        "--dtype",
        "float32",
        *more,
    ]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_the_files_of_a_run(
    folder: Path, eval_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "eval" / "test"
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, out, "--batch_size", 2)) == 0
    rows = read(out / "responses.jsonl")
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert list(rows[0]) == [
        "row",
        "id",
        "prompt",
        "instruction",
        "response",
        "reference",
        "tokens",
        "finished",
    ]
    prompts, _ = prompts_of(folder, eval_file)
    engine = open_engine(EngineOptions(model_name_or_path=str(folder), eval_batch_size=1))
    requests = [Request(str(prompt.row), prompt.ids) for prompt in prompts]
    done = {completion.key: completion for completion in engine.complete(requests, Sampling(6))}
    assert rows == [vars(response_of(prompt, done[str(prompt.row)])) for prompt in prompts]
    made = json.loads((out / "generation.json").read_text())
    assert made["model"] == str(folder) and made["file"] == str(eval_file)
    assert made["sha256"] == read_conversations(eval_file).sha256
    assert (made["max_new_tokens"], made["temperature"], made["top_p"], made["seed"]) == (6, 0.0, 1.0, 0)
    assert (made["dtype"], made["rows"], made["chat_format"], made["end_tokens"]) == (
        "float32",
        5,
        "tulu",
        ["</s>"],
    )
    assert sorted(path.name for path in out.iterdir()) == ["generation.json", "responses.jsonl"]
    assert made["complete"] is True and made["seconds"] > 0 and made["left_out"] == {}


def test_a_killed_run_continues_to_the_same_bytes(
    folder: Path, eval_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, whole, "--batch_size", 1)) == 0
    complete_batch = TransformersEngine.complete_batch
    answered: list[int] = []

    def counted(self: TransformersEngine, batch: Sequence[Any], sampling: Sampling) -> list[Completion]:
        if len(answered) >= 3:
            raise KeyboardInterrupt
        answered.extend(int(draw.request.key) for draw in batch)
        return complete_batch(self, batch, sampling)

    monkeypatch.setattr(TransformersEngine, "complete_batch", counted)
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, cut, "--batch_size", 1)) == 130
    part = cut / "responses.part.jsonl"
    assert [int(line["key"]) for line in read(part)[1:]] == answered[:3]
    assert not (cut / "responses.jsonl").exists()
    part.write_bytes(part.read_bytes()[:-15])
    lost = answered[2]
    again: list[int] = []

    def noted(self: TransformersEngine, batch: Sequence[Any], sampling: Sampling) -> list[Completion]:
        again.extend(int(draw.request.key) for draw in batch)
        return complete_batch(self, batch, sampling)

    monkeypatch.setattr(TransformersEngine, "complete_batch", noted)
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, cut, "--batch_size", 1)) == 0
    assert set(again) == set(range(5)) - set(answered[:2]) and lost in again
    assert (cut / "responses.jsonl").read_bytes() == (whole / "responses.jsonl").read_bytes()
    assert json.loads((cut / "generation.json").read_text())["rows_answered_before"] == 2
    assert not part.exists()


def test_a_finished_run_is_not_computed_again_and_another_is_refused(
    folder: Path,
    eval_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert run_script(monkeypatch, "generate", *arguments(folder, eval_file, out)) == 0
    before = (out / "responses.jsonl").read_bytes()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    with monkeypatch.context() as patched:
        patched.setattr(TransformersEngine, "load", never)
        assert run_script(patched, "generate", *arguments(folder, eval_file, out, "--batch_size", 3)) == 0
        assert run_script(patched, "generate", *arguments(folder, eval_file, out, "--seed", 4)) == 2
        assert "seed: 0 then, 4 now" in capsys.readouterr().err
        assert run_script(patched, "generate", *arguments(folder, eval_file, out, "--num_rows", 2)) == 2
        assert "num_rows: None then, 2 now" in capsys.readouterr().err
    assert (out / "responses.jsonl").read_bytes() == before
    assert (
        run_script(
            monkeypatch, "generate", *arguments(folder, eval_file, out, "--num_rows", 2, "--overwrite_output")
        )
        == 0
    )
    assert (out / "responses.jsonl").read_bytes() == b"".join(before.splitlines(keepends=True)[:2])


def test_a_model_trained_again_in_the_same_folder_is_another_run(
    eval_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = make_tiny_model(tmp_path / "model"), tmp_path / "out"
    assert run_script(monkeypatch, "generate", *arguments(model, eval_file, out)) == 0
    make_tiny_model(model, seed=1)
    assert run_script(monkeypatch, "generate", *arguments(model, eval_file, out)) == 2
    assert "model_identity" in capsys.readouterr().err


def test_rows_that_cannot_be_used_stop_the_run_or_are_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    long = {"messages": [{"role": "user", "content": "why " * 300}, {"role": "assistant", "content": "so"}]}
    path.write_text(
        json.dumps(ROWS[0]) + "\n" + json.dumps(long) + "\n{broken\n" + json.dumps(ROWS[2]) + "\n{beyond\n"
    )
    given = arguments(folder, path, out, "--max_seq_length", 200, "--num_rows", 4)
    assert run_script(monkeypatch, "generate", *given) == 2
    said = capsys.readouterr().err
    assert f"{path}:3: not JSON" in said and "--max_bad_rows 1" in said, "a long prompt stops nothing"
    assert not out.exists()
    assert run_script(monkeypatch, "generate", *given, "--max_bad_rows", 2) == 0
    assert [row["row"] for row in read(out / "responses.jsonl")] == [0, 3]
    made = json.loads((out / "generation.json").read_text())
    assert (made["rows"], made["left_out"]) == (2, {"prompt too long": 1, "not JSON": 1})
    assert [(row["row"], row["line"]) for row in made["rows_left_out"]] == [(1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--temperature", "-1"), "--temperature -1.0"),
        (("--temperature", "nan"), "--temperature nan"),
        (("--top_p", "0"), "--top_p 0.0"),
        (("--top_p", "0.9"), "does nothing at --temperature 0"),
        (("--max_new_tokens", "0"), "--max_new_tokens 0: must be 1 or more"),
        (("--num_rows", "0"), "--num_rows 0"),
        (("--seed", "-1"), "--seed -1"),
    ],
)
def test_options_that_make_no_sense(given: tuple[str, str], message: str) -> None:
    argv = [str(word) for word in arguments(Path("m"), Path("f"), Path("out"), *given)]
    with pytest.raises(UserError, match=re.escape(message)):
        parse_options(GenerateOptions, argv, "x")


@pytest.mark.parametrize("name", ["none/at/all", "config only"])
def test_a_model_that_is_not_there(folder: Path, eval_file: Path, tmp_path: Path, name: str) -> None:
    model = tmp_path / name
    if name == "config only":
        model.mkdir()
        for file in folder.iterdir():
            if file.suffix != ".safetensors":
                (model / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=re.escape(str(model))):
        respond(options_of(model, eval_file, tmp_path / "out"))


def test_help_names_every_option(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import fields

    assert run_script(monkeypatch, "generate", "--help") == 0
    said = capsys.readouterr().out
    assert all(f"--{field.name}" in said for field in fields(GenerateOptions))


# -- the folder -------------------------------------------------------------------------------------------


def test_a_damaged_final_file_is_completed(
    folder: Path, eval_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(folder, eval_file, tmp_path / "out")
    responses, _ = respond(options)
    path = tmp_path / "out" / "responses.jsonl"
    whole = path.read_bytes()
    lines = whole.split(b"\n")
    lines[1] = lines[1][:7]
    path.write_bytes(b"\n".join(lines))
    asked: list[str] = []
    complete = TransformersEngine._complete

    def killed(self: TransformersEngine, requests: Sequence[Request], sampling: Sampling) -> Any:
        asked.extend(request.key for request in requests)
        raise KeyboardInterrupt

    # Killed before the first answer of the continued run: nothing is lost.
    monkeypatch.setattr(TransformersEngine, "_complete", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            respond(options)
    monkeypatch.setattr(TransformersEngine, "_complete", complete)
    assert respond(options)[0] == responses and path.read_bytes() == whole
    assert asked == ["1", "1"]


def test_a_copy_of_the_model_goes_on_with_the_same_responses(
    folder: Path, eval_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond(options_of(folder, eval_file, tmp_path / "out"))
    copy = make_tiny_model(tmp_path / "copy")
    monkeypatch.setattr(TransformersEngine, "load", lambda self: pytest.fail("the model was loaded"))
    respond(options_of(copy, eval_file, tmp_path / "out"))


def test_another_run_is_refused_with_what_differs(folder: Path, eval_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    respond(options_of(folder, eval_file, out))
    with pytest.raises(UserError) as error:
        respond(options_of(folder, eval_file, out, seed=7))
    assert "seed: 0 then, 7 now" in str(error.value) and "--overwrite_output" in str(error.value)
    assert "model" not in str(error.value)
    respond(options_of(folder, eval_file, out, seed=7, overwrite_output=True))
    respond(options_of(folder, eval_file, out, seed=7))


@pytest.mark.parametrize("generation", [None, "{broken", "[]"])
def test_responses_of_unknown_origin_are_not_touched(
    folder: Path, eval_file: Path, tmp_path: Path, generation: str | None
) -> None:
    (tmp_path / "responses.jsonl").write_text('{"response": "mine"}\n')
    if generation is not None:
        (tmp_path / "generation.json").write_text(generation)
    with pytest.raises(UserError, match=r"no readable generation\.json"):
        respond(options_of(folder, eval_file, tmp_path))
    assert (tmp_path / "responses.jsonl").read_text() == '{"response": "mine"}\n'


def test_a_folder_that_cannot_be_made_is_said(folder: Path, eval_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        respond(options_of(folder, eval_file, tmp_path / "file" / "under"))


def test_a_prompt_completion_answer_loses_the_space_that_joins_it() -> None:
    completion = Completion("0", 0, " Paris", 2, True)
    joined = response_of(RowPrompt(0, "a", "in", [0], "in", None, space_follows=True), completion)
    assert (joined.response, joined.tokens, joined.finished) == ("Paris", 2, True)
    assert response_of(RowPrompt(0, "a", "in", [0], "in", None), completion).response == " Paris"
