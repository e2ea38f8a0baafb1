"""The engine of all evaluations: the same prompts as in training, and completions that survive a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model

from eval.templates import create_prompt_with_llama2_chat_format, create_prompt_with_tulu_chat_format
from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.errors import UserError
from instruction_modelling.generation.answers import AnswerFile
from instruction_modelling.generation.base import Completion, Engine, EngineOptions, Request, Sampling
from instruction_modelling.generation.engine import complete_all, completions_stamp, open_engine
from instruction_modelling.models.loading import load_tokenizer
from instruction_modelling.rows.conversations import Conversation, Message
from instruction_modelling.tokens.encoder import TextEncoder

TWO_TURNS = [
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Elbe."},
    {"role": "user", "content": "Another one."},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "model"
    make_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return open_engine(EngineOptions(model_name_or_path=str(model), eval_batch_size=3))


def test_a_mistyped_folder_is_called_that_and_not_looked_for_on_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_tiny_model(tmp_path / "runs" / "tuned")
    (tmp_path / "qa.csv").write_text("a,b\n")
    for name, said in (
        ("runs/tunde", r"runs/tunde: there is no such folder; did you mean runs/tuned\?"),
        ("runs/x", "runs/x: there is no such folder; give a model's folder or its hub name"),
        # A name without a slash may be the hub's.
        ("rusn", r"rusn: .* no folder of that name is here either, did you mean runs\?"),
        ("qa.csv", "qa.csv: is a file; give the folder of the model that it lies in"),
    ):
        with pytest.raises(UserError, match=said):
            open_engine(EngineOptions(model_name_or_path=name))


def test_prompts_are_those_of_training(model: Path, engine: Engine) -> None:
    tokenizer = load_tokenizer(str(model))
    conversation = Conversation(
        0, 0, "x", "x", tuple(Message(one["role"], one["content"]) for one in TWO_TURNS)
    )
    rendered = load_chat_format("auto", tokenizer).prompt(conversation)
    assert engine.chat_ids(TWO_TURNS) == TextEncoder(tokenizer).encode([rendered])[0].ids.tolist()
    assert engine.plain_ids("The river") == tokenizer("The river")["input_ids"]


def test_a_function_named_by_its_place_makes_the_prompt_instead(model: Path, engine: Engine) -> None:
    by_name = open_engine(
        EngineOptions(
            model_name_or_path=str(model),
            chat_formatting_function="eval.templates.create_prompt_with_tulu_chat_format",
        )
    )
    text = "<|user|>\nName a river.\n<|assistant|>\nThe Elbe.</s>\n<|user|>\nAnother one.\n<|assistant|>\n"
    assert create_prompt_with_tulu_chat_format(TWO_TURNS) == "<s>" + text
    own = text.replace("</s>", str(by_name.tokenizer.eos_token))
    assert by_name.chat_ids(TWO_TURNS) == by_name.plain_ids(own)
    assert by_name.chat_format.endswith("tulu_chat_format")
    for name in ("eval.templates.no_such", "no_module.f"):
        with pytest.raises(UserError, match="there is no such function"):
            open_engine(EngineOptions(model_name_or_path=str(model), chat_formatting_function=name))


def test_tulu_by_name_is_tulu_by_format(model: Path) -> None:
    """The dotted function and the format of training give the same ids."""
    by_name = open_engine(
        EngineOptions(
            model_name_or_path=str(model),
            chat_formatting_function="eval.templates.create_prompt_with_tulu_chat_format",
        )
    )
    by_format = open_engine(EngineOptions(model_name_or_path=str(model), chat_format="tulu"))
    assert by_format.chat_ids(TWO_TURNS) == by_name.chat_ids(TWO_TURNS)


def test_the_llama_2_format_is_metas() -> None:
    system = [{"role": "system", "content": "Be brief."}, *TWO_TURNS]
    assert create_prompt_with_llama2_chat_format(system) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nName a river. [/INST] The Elbe. </s><s>[INST] Another "
        "one. [/INST]"
    )
    with pytest.raises(ValueError, match="take turns"):
        create_prompt_with_llama2_chat_format(TWO_TURNS[1:])


class Interrupted(Engine):
    """Completes so many requests and then fails; knows what it was asked."""

    name = "interrupted"

    def __init__(self, good: int):
        self.good, self.asked = good, [0]
        self.options, self.end_ids = EngineOptions(model_name_or_path="m"), [2]

    def _complete(self, requests: Any, sampling: Sampling) -> Any:
        self.asked.append(len(requests))
        for number, request in enumerate(requests):
            if number == self.good:
                raise KeyboardInterrupt
            for sample in range(sampling.samples):
                yield Completion(request.key, sample, f"{request.key}-{sample}", 3, True)

    def close(self) -> None: ...


def test_completions_are_kept_as_they_come_and_a_restart_goes_on(tmp_path: Path) -> None:
    asked = [Request(str(number), [number]) for number in range(10)]
    path, sampling = tmp_path / "folder" / "answers.jsonl", Sampling(5, samples=2, temperature=1.0)
    first = Interrupted(4)
    with pytest.raises(KeyboardInterrupt):
        complete_all(first, asked, sampling, path)
    with path.open("a") as handle:
        handle.write('{"key": "9", "sample": 0, "te')
    second = Interrupted(99)
    done = complete_all(second, asked, sampling, path)
    assert second.asked[-1] == 6
    assert [(one.key, one.sample, one.text) for one in done] == [
        (str(n), s, f"{n}-{s}") for n in range(10) for s in range(2)
    ]
    assert len(path.read_text().splitlines()) == 21
    third = Interrupted(0)
    assert complete_all(third, asked, sampling, path) == done and third.asked == [0]


def test_what_was_made_is_there_whatever_happens_to_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, sampling, path = [Request("a", [1]), Request("b", [2])], Sampling(5), tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        complete_all(Interrupted(1), asked, sampling, path)
    before = path.read_bytes()

    def full(*given: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("instruction_modelling.files.durable.os.write", full)
    with pytest.raises(UserError, match="No space left on device; what was there before is kept"):
        complete_all(Interrupted(9), asked, sampling, path)
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="No space left on device"):
        complete_all(Interrupted(9), asked, sampling, tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_killed_run_goes_on_behind_its_last_whole_line(tmp_path: Path, cut: int) -> None:
    asked, sampling, path = [Request(str(n), [n]) for n in range(4)], Sampling(5), tmp_path / "a.jsonl"
    whole = complete_all(Interrupted(9), asked, sampling, tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        complete_all(Interrupted(2), asked, sampling, path)
    path.write_bytes(path.read_bytes()[:-cut])
    second = Interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        complete_all(second, asked, sampling, path)
    # A line that lacks no more than its newline is whole.
    assert second.asked[-1] == (2 if cut == 1 else 3)
    assert complete_all(Interrupted(9), asked, sampling, path) == whole


def test_a_line_that_cannot_be_read_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked, sampling, path = [Request(str(n), [n]) for n in range(4)], Sampling(5), tmp_path / "a.jsonl"
    whole = complete_all(Interrupted(9), asked, sampling, path)
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][:7]
    path.write_bytes(b"\n".join(lines))
    again = Interrupted(9)
    assert complete_all(again, asked, sampling, path) == whole and again.asked[-1] == 1
    assert "1 broken line left out" in caplog.text


def test_a_file_without_a_completion_keeps_nobody_from_beginning(tmp_path: Path) -> None:
    asked, path = [Request("a", [1])], tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        complete_all(Interrupted(0), asked, Sampling(5), path)
    assert len(complete_all(Interrupted(1), asked, Sampling(6), path)) == 1


def test_completions_of_something_else_are_refused(tmp_path: Path) -> None:
    asked, sampling = [Request("a", [1])], Sampling(5)
    path = tmp_path / "answers.jsonl"
    complete_all(Interrupted(9), asked, sampling, path)
    with pytest.raises(UserError, match=r"another model, other prompts or other sampling \(sampling\)"):
        complete_all(Interrupted(9), asked, Sampling(6), path)
    with pytest.raises(UserError, match=r"\(prompts\)"):
        complete_all(Interrupted(9), [Request("a", [2])], sampling, path)
    path.write_text("something else\n")
    with pytest.raises(UserError, match="not one of this program's"):
        AnswerFile(path, completions_stamp(Interrupted(9), asked, sampling))
    assert json.dumps(completions_stamp(Interrupted(9), asked, sampling))


def test_a_copy_of_a_model_is_the_same_model_and_a_tuned_one_another(tmp_path: Path) -> None:
    def stamp(folder: Path) -> dict[str, Any]:
        engine = Interrupted(9)
        engine.options = EngineOptions(model_name_or_path=str(folder))
        return completions_stamp(engine, [], Sampling(5))

    first, copy, other = (
        make_tiny_model(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert stamp(first) == stamp(copy) != stamp(other)
    assert stamp(tmp_path / "missing") not in (stamp(first), stamp(other))


def test_vllm_without_its_environment_says_how_to_make_it(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_PYTHON", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"scripts/setup_vllm\.sh"):
        open_engine(EngineOptions(model_name_or_path=str(model), use_vllm=True))
