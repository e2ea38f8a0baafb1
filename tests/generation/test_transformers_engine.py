"""Completions by transformers: greedy ones by hand, exact stops, draws that nothing changes, memory that runs
out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_tiny_model

from instruction_modelling.errors import UserError
from instruction_modelling.generation.base import Completion, Engine, EngineOptions, Request, Sampling
from instruction_modelling.generation.draws import KeyedSampler, keep_top_p
from instruction_modelling.generation.engine import open_engine
from instruction_modelling.generation.transformers_engine import TransformersEngine
from instruction_modelling.models.loading import load_model

TEXTS = [
    "The river",
    "A very long text about rivers, boats and bridges that goes on",
    "Rain and snow",
    "Boats on the river at night",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("engine") / "model")


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return open_engine(EngineOptions(model_name_or_path=str(model), eval_batch_size=3))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    twin = Request("twin", asked[0].ids)
    of_twin = {completion.text for completion in engine.complete([twin], sampling)}
    assert of_twin != {all_at_once["0", sample].text for sample in range(3)}
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


def test_prompts_of_all_lengths_give_the_same_greedy_answers_in_any_batch(model: Path) -> None:
    plain = open_engine(EngineOptions(model_name_or_path=str(model)))
    asked = requests(plain)
    assert len({len(request.ids) for request in asked}) == len(asked), "the padding would not be tested"
    # A token that comes up inside two answers ends some, so that some answers end and some do not.
    free = [greedy(model, request.ids, 24, []) for request in asked]
    end = next(t for t in free[0][1:-1] if t not in free[0][:1] and any(t not in other for other in free))
    expected = [greedy(model, request.ids, 24, [end]) for request in asked]
    assert {tokens[-1] == end for tokens in expected} == {True, False}
    for size in (1, 2, 5):
        here = open_engine(EngineOptions(model_name_or_path=str(model), eval_batch_size=size))
        here.end_ids = [end]
        done = {completion.key: completion for completion in here.complete(asked, Sampling(24))}
        for request, tokens in zip(asked, expected, strict=True):
            ended = tokens[-1] == end
            text = str(here.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True))
            assert done[request.key] == Completion(request.key, 0, text, len(tokens), ended)


def test_the_models_own_generation_settings_are_not_used(tmp_path: Path) -> None:
    from transformers import GenerationConfig

    folder = make_tiny_model(tmp_path)
    plain = open_engine(EngineOptions(model_name_or_path=str(folder)))
    expected = list(plain.complete(requests(plain), Sampling(24)))
    GenerationConfig(
        repetition_penalty=5.0,
        do_sample=True,
        temperature=3.0,
        max_length=5,
        no_repeat_ngram_size=1,
        eos_token_id=[1],
        suppress_tokens=[3, 4],
    ).save_pretrained(folder)
    configured = open_engine(EngineOptions(model_name_or_path=str(folder)))
    assert list(configured.complete(requests(configured), Sampling(24))) == expected


def short_of_memory(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, most: int, error: Exception
) -> tuple[list[int], list[str]]:
    """Let batches of more than `most` prompts fail; return the sizes of the batches and the warnings."""
    sizes: list[int] = []
    said: list[str] = []
    complete_batch = TransformersEngine.complete_batch

    def fails(self: TransformersEngine, batch: Sequence[Any], sampling: Sampling) -> list[Completion]:
        sizes.append(len(batch))
        if len(batch) > most:
            raise error
        return complete_batch(self, batch, sampling)

    monkeypatch.setattr(TransformersEngine, "complete_batch", fails)
    monkeypatch.setattr(engine, "warn", said.append)
    return sizes, said


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked = requests(engine)
    expected = sorted(engine.complete(asked, Sampling(6)), key=lambda completion: completion.key)
    sizes, said = short_of_memory(monkeypatch, engine, 1, error)
    done = sorted(engine.complete(asked, Sampling(6)), key=lambda completion: completion.key)
    assert done == expected and sizes == [3, 1, 1, 1, 1]
    assert len(said) == 1 and "with 3 prompts at once: going on with 1" in said[0]


def test_a_prompt_that_never_fits_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(engine)
    short_of_memory(monkeypatch, engine, 0, torch.OutOfMemoryError("out of memory"))
    with pytest.raises(UserError, match=rf"the prompt 1 \({len(asked[1].ids)} tokens\) does not fit"):
        list(engine.complete(asked, Sampling(6)))


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, engine, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        list(engine.complete(requests(engine), Sampling(6)))


def test_a_tokenizer_that_is_not_the_models_is_said(engine: Engine) -> None:
    with pytest.raises(UserError, match="prompt 3 holds token 600 and the model has embeddings of 512"):
        list(engine.complete([Request("3", [0, 600])], Sampling(6)))


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    scores = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]).log()
    assert torch.isfinite(keep_top_p(scores, 0.6)).tolist() == [[False, True, True], [False, False, True]]
    assert torch.isfinite(keep_top_p(scores, 0.4)).tolist() == [[False, True, False], [False, False, True]]
    assert torch.isfinite(keep_top_p(scores, 1e-9)).sum(dim=-1).tolist() == [1, 1]
    assert keep_top_p(scores, 1.0) is scores


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.2]),
        # p^2, normalised: .25, .09, .04 of .38.
        (0.5, 1.0, [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
        (1.0, 0.7, [0.625, 0.375, 0.0]),
    ],
)
def test_tokens_are_drawn_from_the_softmax(temperature: float, top_p: float, expected: list[float]) -> None:
    rows = 4000
    scores = torch.tensor([0.5, 0.3, 0.2]).log().repeat(rows, 1)
    sampler = KeyedSampler(range(rows), temperature, top_p, torch.device("cpu"))
    drawn = sampler(torch.zeros(rows, 1), scores).argmax(dim=-1)
    shares = np.bincount(drawn.numpy(), minlength=3) / rows
    # Four standard errors of a share near one half.
    assert shares == pytest.approx(expected, abs=4 * 0.5 / rows**0.5)
    # The next draw of the same rows is another one.
    assert (sampler(torch.zeros(rows, 1), scores).argmax(dim=-1) != drawn).any()
