"""The engine of all evaluations: the same prompts as in training, exact stops, draws that nothing changes,
restarts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_tiny_model

from eval.templates import create_prompt_with_llama2_chat_format, create_prompt_with_tulu_chat_format
from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.errors import UserError
from instruction_modelling.generation.engine import (
    AnswerFile,
    Completion,
    Engine,
    EngineOptions,
    Request,
    Sampling,
    complete_all,
    fingerprint_of,
    open_engine,
)
from instruction_modelling.models.loading import load_model, load_tokenizer
from instruction_modelling.rows.conversations import Conversation, Message
from instruction_modelling.tokens.encoder import TextEncoder

TWO_TURNS = [
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Elbe."},
    {"role": "user", "content": "Another one."},
]
TEXTS = [
    "The river",
    "A very long text about rivers, boats and bridges that goes on",
    "Rain",
    "Boats on the river at night",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "model"
    make_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return open_engine(EngineOptions(model_name_or_path=str(model), eval_batch_size=3))


def requests(engine: Engine) -> list[Request]:
    return [Request(str(number), engine.plain_ids(text)) for number, text in enumerate(TEXTS)]


def greedy(model: Path, ids: list[int], count: int, ends: list[int]) -> list[int]:
    """Token by token, one prompt at a time, without padding or cache."""
    network = load_model(str(model), torch.float32).eval()
    out: list[int] = []
    with torch.no_grad():
        while len(out) < count and (not out or out[-1] not in ends):
            out.append(int(network(torch.tensor([ids + out]), use_cache=False).logits[0, -1].argmax()))
    return out


def test_prompts_are_those_of_training(model: Path, engine: Engine) -> None:
    tokenizer = load_tokenizer(str(model))
    conversation = Conversation(
        0, 0, "x", "x", tuple(Message(one["role"], one["content"]) for one in TWO_TURNS)
    )
    rendered = load_chat_format("auto", tokenizer).render(conversation, generation_prompt=True)
    assert engine.chat_ids(TWO_TURNS) == TextEncoder(tokenizer).encode([rendered])[0].ids.tolist()
    assert engine.plain_ids("The river") == tokenizer("The river")["input_ids"]


def test_a_function_named_by_its_place_makes_the_prompt_instead(model: Path, engine: Engine) -> None:
    own = open_engine(
        EngineOptions(
            model_name_or_path=str(model),
            chat_formatting_function="eval.templates.create_prompt_with_tulu_chat_format",
        )
    )
    text = "<|user|>\nName a river.\n<|assistant|>\nThe Elbe.</s>\n<|user|>\nAnother one.\n<|assistant|>\n"
    assert create_prompt_with_tulu_chat_format(TWO_TURNS) == "<s>" + text
    assert own.chat_ids(TWO_TURNS) == own.plain_ids(text) and own.chat_format.endswith("tulu_chat_format")
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
    eos = str(by_format.tokenizer.eos_token)
    assert str(by_format.tokenizer.decode(by_format.chat_ids(TWO_TURNS))).replace(
        eos, "</s>"
    ) == by_name.tokenizer.decode(by_name.chat_ids(TWO_TURNS))


def test_the_llama_2_format_is_metas() -> None:
    system = [{"role": "system", "content": "Be brief."}, *TWO_TURNS]
    assert create_prompt_with_llama2_chat_format(system) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nName a river. [/INST] The Elbe. </s><s>[INST] Another "
        "one. [/INST]"
    )
    with pytest.raises(ValueError, match="take turns"):
        create_prompt_with_llama2_chat_format(TWO_TURNS[1:])


def test_greedy_completions_are_those_of_a_loop_without_batches(model: Path, engine: Engine) -> None:
    asked = requests(engine)
    done = {one.key: one for one in engine.complete(asked, Sampling(12))}
    for request in asked:
        ids = greedy(model, request.ids, 12, engine.end_ids)
        ended = ids[-1] in engine.end_ids
        text = engine.tokenizer.decode(
            ids[:-1] if ended else ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert (done[request.key].text, done[request.key].tokens, done[request.key].stopped) == (
            text,
            len(ids),
            ended,
        )


def test_a_completion_is_cut_at_the_first_stop_string(engine: Engine) -> None:
    asked = requests(engine)
    whole = {one.key: one for one in engine.complete(asked, Sampling(24))}
    stop = (whole["0"].text[5:8], "never to be found")
    cut = {one.key: one for one in engine.complete(asked, Sampling(24, stop=stop))}
    for key, one in whole.items():
        place = one.text.find(stop[0])
        assert cut[key].text == (one.text[:place] if place >= 0 else one.text)
        assert cut[key].stopped == (place >= 0 or one.stopped) and cut[key].tokens <= one.tokens
    assert cut["0"].text == whole["0"].text[:5] and cut["0"].tokens < 24


def test_draws_depend_on_request_and_sample_alone(model: Path, engine: Engine) -> None:
    asked = requests(engine)
    sampling = Sampling(8, temperature=0.9, top_p=0.95, samples=3)
    all_at_once = {(one.key, one.sample): one for one in engine.complete(asked, sampling)}
    assert len(all_at_once) == 12 and len({one.text for one in all_at_once.values()}) > 6
    other = open_engine(EngineOptions(model_name_or_path=str(model), eval_batch_size=1))
    assert {(one.key, one.sample): one for one in other.complete(asked[2:], sampling)} == {
        place: one for place, one in all_at_once.items() if place[0] in "23"
    }
    reseeded = [Request(one.key, one.ids, seed=7) for one in asked]
    assert {one.text for one in engine.complete(reseeded, sampling)} != {
        one.text for one in all_at_once.values()
    }


def test_a_prompt_near_the_models_end_gets_the_room_that_is_left(model: Path) -> None:
    small = open_engine(EngineOptions(model_name_or_path=str(model), max_model_len=20))
    ids = small.plain_ids("a " * 40)
    done = {
        one.key: one
        for one in small.complete([Request("long", ids[:17]), Request("short", ids[:4])], Sampling(10))
    }
    assert done["long"].tokens <= 3 and done["short"].tokens <= 10
    with pytest.raises(UserError, match="leaves no room in the model's 20"):
        list(small.complete([Request("full", ids[:20])], Sampling(1)))
    with pytest.raises(UserError, match="two requests"):
        list(small.complete([Request("a", ids[:2]), Request("a", ids[:3])], Sampling(1)))


def test_memory_that_runs_out_halves_the_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, sizes = requests(engine), []
    expected = list(engine.complete(asked, Sampling(6)))
    network = engine._model  # type: ignore[attr-defined]
    generate = network.generate

    def short_of_memory(input_ids: torch.Tensor, **others: Any) -> torch.Tensor:
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(input_ids=input_ids, **others)

    monkeypatch.setattr(network, "generate", short_of_memory)
    done = list(engine.complete(asked, Sampling(6)))
    assert sizes[0] == 3 and sizes[-4:] == [1, 1, 1, 1]
    assert sorted(done, key=lambda one: one.key) == sorted(expected, key=lambda one: one.key)


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

    room = None

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
    monkeypatch.setattr(
        "instruction_modelling.files.durable.os.replace",
        lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left")),
    )
    with pytest.raises(UserError, match="No space left"):
        complete_all(Interrupted(9), asked, sampling, path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    answers = AnswerFile(path, fingerprint_of(Interrupted(9), asked, sampling))
    answers._handle = Path("/dev/full").open("w")  # noqa: SIM115
    with pytest.raises(UserError, match="what was there before is kept"):
        answers.add(Completion("b", 0, "text", 1, True))
    assert path.read_bytes() == before


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
        AnswerFile(path, fingerprint_of(Interrupted(9), asked, sampling))
    assert json.dumps(fingerprint_of(Interrupted(9), asked, sampling))


def test_vllm_without_its_environment_says_how_to_make_it(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_PYTHON", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"scripts/setup_vllm\.sh"):
        open_engine(EngineOptions(model_name_or_path=str(model), use_vllm=True))
