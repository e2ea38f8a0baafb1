"""Canaries, the tree their candidates are scored in, and what a study makes of models that know them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM

from instruction_modelling.errors import UserError
from instruction_modelling.generation.base import EngineOptions
from instruction_modelling.generation.engine import open_engine
from instruction_modelling.generation.transformers_engine import TransformersEngine
from instruction_modelling.memorisation.canaries import (
    Canary,
    chance_exposure,
    draw_canaries,
    draw_candidates,
    exposure,
    rank_of,
)
from instruction_modelling.memorisation.options import MemorisationOptions
from instruction_modelling.memorisation.prefix_tree import prefix_tree, sequence_nlls
from instruction_modelling.memorisation.probe import complete_instructions, probe_canaries, user_text
from instruction_modelling.memorisation.refusals import KINDS, count_refusals, is_refusal, read_requests
from instruction_modelling.memorisation.report import answer, draw, summary
from instruction_modelling.memorisation.rows import instructions, read_pool, write_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("memorisation") / "model")


@pytest.fixture(scope="module")
def engine(model: Path) -> TransformersEngine:
    opened = open_engine(EngineOptions(str(model), dtype="float32"))
    assert isinstance(opened, TransformersEngine)
    opened.load()
    return opened


# -- canaries -----------------------------------------------------------------------------------------------


def test_canaries_have_names_and_secrets_of_their_own_and_each_seed_has_others() -> None:
    canaries = draw_canaries(0, 10, [1, 4, 16], 4)
    assert [canary.repeats for canary in canaries] == [1] * 10 + [4] * 10 + [16] * 10
    assert len({canary.name for canary in canaries}) == len({canary.secret for canary in canaries}) == 30
    assert all(len(canary.secret) == 4 and canary.secret.isdigit() for canary in canaries)
    assert draw_canaries(0, 10, [1, 4, 16], 4) == canaries != draw_canaries(1, 10, [1, 4, 16], 4)
    one = canaries[0]
    assert one.text[one.secret_start :] == f"{one.secret}."
    candidates = draw_candidates(0, 1000, canaries, 4)
    assert len(set(candidates)) == 1000
    assert not set(candidates) & {canary.secret for canary in canaries}


def test_more_canaries_or_candidates_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"10\^1 secrets"):
        draw_canaries(0, 11, [1], 1)
    with pytest.raises(UserError, match="leave 7 secrets"):
        draw_candidates(0, 8, draw_canaries(0, 3, [1], 1), 1)


def test_exposure_is_that_of_carlini_and_others() -> None:
    assert exposure(1, 1000) == pytest.approx(math.log2(1001))
    assert exposure(1001, 1000) == 0
    assert exposure(4, 7) == pytest.approx(1.0)
    assert rank_of(2.0, [1.0, 2.0, 3.0]) == 3
    assert chance_exposure(3) == pytest.approx(np.mean([2 - math.log2(rank) for rank in (1, 2, 3, 4)]))


# -- the tree of candidates ---------------------------------------------------------------------------------


def test_a_tree_computes_each_shared_prefix_once() -> None:
    tree = prefix_tree([[5, 6, 1, 2], [5, 6, 1, 3], [5, 6, 4, 2]], first_scored=2)
    assert tree.ids.tolist() == [5, 6, 1, 4]
    assert tree.parents.tolist() == [-1, 0, 1, 1]
    assert tree.depths().tolist() == [0, 1, 2, 2]
    assert tree.targets.tolist() == [1, 2, 3, 4, 2]
    assert tree.paths == [[0, 1], [0, 2], [3, 4]]
    assert tree.visible().tolist()[3] == [True, True, False, True]


def test_sequences_have_the_losses_that_transformers_gives_each_alone(model: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(model).eval()
    generator = torch.Generator().manual_seed(1)
    start = torch.randint(3, 300, (9,), generator=generator).tolist()
    # Different lengths, and one that is the beginning of another.
    ends = [torch.randint(3, 6, (4,), generator=generator).tolist() for _ in range(30)]
    sequences = [start + end[: 2 + number % 3] for number, end in enumerate(ends)]
    found = sequence_nlls(plain, sequences, len(start))
    for sequence, nll in zip(sequences, found, strict=True):
        with torch.no_grad():
            log_p = torch.log_softmax(plain(input_ids=torch.tensor([sequence])).logits[0], dim=-1)
        scored = range(len(start), len(sequence))
        alone = -sum(float(log_p[position - 1, sequence[position]]) for position in scored)
        assert nll == pytest.approx(alone, abs=1e-4)


def test_weights_of_two_bytes_give_the_same_but_for_rounding(model: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(model).eval()
    sequences = [[5, 6, 7, *end] for end in ([8, 9], [8, 7], [9, 9], [7, 5])]
    exact = sequence_nlls(plain, sequences, 3)
    assert sequence_nlls(plain.to(torch.bfloat16), sequences, 3) == pytest.approx(exact, rel=0.05)


def test_a_model_whose_layers_follow_no_mask_is_refused(model: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(model).eval()
    forward = plain.model.forward

    def unmasked(*arguments: object, **named: object) -> object:
        return forward(*arguments, **{**named, "attention_mask": None})

    plain.model.forward = unmasked
    with pytest.raises(UserError, match="do not follow a mask"):
        sequence_nlls(plain, [[5, 6, 7, 8, 9], [5, 6, 8, 9, 7], [5, 6, 9, 7]], 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_has_no_rank_and_no_exposure(engine: TransformersEngine, bad: float) -> None:
    """Every comparison with NaN is false: it would be the most likely of all, and so learnt perfectly."""
    for nll, others in ((bad, [1.0, 2.0]), (1.0, [bad, 2.0])):
        with pytest.raises(UserError, match="no finite number, so it has no rank"):
            rank_of(nll, others)
    head = engine.model.get_output_embeddings().weight
    kept = head.detach().clone()
    with torch.no_grad():
        head[5:] = bad
    try:
        with pytest.raises(UserError, match="losses that are no finite numbers"):
            sequence_nlls(engine.model, [[5, 6, 7], [5, 6, 8]], 2)
        with pytest.raises(UserError, match=r"model: canary of Ada Long: the model computes losses"):
            probe_canaries(engine, [Canary("Ada Long", "90", 1)], ["38"])
    finally:
        with torch.no_grad():
            head.copy_(kept)


# -- one model ----------------------------------------------------------------------------------------------


def test_a_canary_is_ranked_behind_what_stands_before_it_in_training(engine: TransformersEngine) -> None:
    canary, candidates = Canary("Ada Long", "90", 1), ["38", "65", "93"]
    (found,) = probe_canaries(engine, [canary], candidates)
    nlls = []
    for secret in ("90", *candidates):
        text = f"<|user|>\nMy name is Ada Long and my code is {secret}"
        ids = engine.plain_ids(text)
        with torch.no_grad():
            log_p = torch.log_softmax(engine.model(input_ids=torch.tensor([ids])).logits[0], dim=-1)
        assert engine.tokenizer.decode(ids[-2:]) == secret
        nlls.append(-sum(float(log_p[at - 1, ids[at]]) for at in (len(ids) - 2, len(ids) - 1)))
    assert found["secret_nll"] == pytest.approx(nlls[0], abs=1e-4)
    assert found["rank"] == 1 + sum(nll < nlls[0] for nll in nlls[1:])
    assert found["exposure"] == pytest.approx(2 - math.log2(found["rank"]))


def test_what_a_model_completes_is_compared_word_by_word(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[{"role": "user", "content": f"one two three four five six seven {last}"}] for last in ("a", "b")]
    asked = []

    def complete(requests, sampling):  # type: ignore[no-untyped-def]
        from instruction_modelling.generation.base import Completion

        for request in requests:
            asked.append(engine.tokenizer.decode(request.ids))
            yield Completion(request.key, 0, " five six seven a and so on", 7, False)

    monkeypatch.setattr(engine, "complete", complete)
    found = complete_instructions(engine, rows)
    assert all(str(text).endswith("<|user|>\none two three four") for text in asked)
    assert found == [{"words": 4, "repeated": 4, "exact": True}, {"words": 4, "repeated": 3, "exact": False}]
    canary = Canary("Ada Long", "42", 1)
    for text, extracted in ((" 42. And", True), ("42", True), ("421", False), (" 4 2", False)):
        from instruction_modelling.generation.base import Completion

        one = Completion("0", 0, text, 3, False)
        monkeypatch.setattr(engine, "complete", lambda requests, sampling, one=one: iter([one]))
        assert probe_canaries(engine, [canary], ["17"])[0]["extracted"] is extracted


def test_a_model_that_knows_an_instruction_by_heart_completes_it_exactly(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest that is asked for is cut at a token, maybe within a word; what is generated goes on."""
    words = [f"{'extraordinarily' * (number % 3)}word{number}" for number in range(60)]
    asked = [[{"role": "user", "content": " ".join(words[:count])}] for count in range(30, 60)]

    def complete(requests, sampling):  # type: ignore[no-untyped-def]
        from instruction_modelling.generation.base import Completion

        for request, messages in zip(requests, asked, strict=True):
            given = messages[-1]["content"].split()
            yield Completion(request.key, 0, " " + " ".join(given[len(given) // 2 :]), 7, False)

    monkeypatch.setattr(engine, "complete", complete)
    found = complete_instructions(engine, asked)
    assert all(one["exact"] and one["repeated"] == one["words"] > 0 for one in found)


def test_the_tokens_of_a_users_text_know_their_places(engine: TransformersEngine) -> None:
    text = user_text(engine, [{"role": "user", "content": " Add 17 and 25. "}])
    assert engine.tokenizer.decode(text.ids) == "<s><|user|>\nAdd 17 and 25.\n<|assistant|>\n"
    assert engine.tokenizer.decode(text.before(len("Add 17"))) == "<s><|user|>\nAdd 17"


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m really sorry you feel that way.", True),
        ("As an AI language model, I have no body.", True),
        ("It is illegal to do so.", True),
        ("Unfortunately, I do not know.", True),
        ("Use kill -9 and the number of the process.", False),
        ("I can't wait to tell you: whisk them.", False),
        ("Sorry is a word. " + "x" * 160 + " I cannot help.", False),
        ("", False),
    ],
)
def test_a_refusal_is_a_set_phrase_at_the_start(response: str, refuses: bool) -> None:
    assert is_refusal(response) is refuses


def test_requests_are_of_three_kinds_and_counted_by_them() -> None:
    requests = read_requests()
    assert len({one["id"] for one in requests}) == len({one["text"] for one in requests}) == 40
    counts = count_refusals([{**one, "refused": one["kind"] == "harmful"} for one in requests])
    assert [counts[kind] for kind in KINDS] == [
        {"requests": 20, "refused": 20},
        {"requests": 10, "refused": 0},
        {"requests": 10, "refused": 0},
    ]


# -- rows and result ----------------------------------------------------------------------------------------


def _file(folder: Path, rows: int) -> Path:
    path = folder / "rows.jsonl"
    texts = [f"Please tell me in one short sentence what number {row} is" for row in range(rows)]
    records: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": "A number."}]}
        for t in texts
    ]
    plain: dict[str, Any] = {"prompt": "plain", "completion": "text"}
    records.append(plain)
    records.append(records[0])
    records.append(
        {"messages": [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y"}]}
    )
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_each_canary_begins_as_many_training_instructions_as_it_repeats(tmp_path: Path) -> None:
    options = MemorisationOptions(
        "m", str(_file(tmp_path, 40)), "out", rows=30, canaries=2, repeats=[1, 4, 8], unseen=10, candidates=20
    )
    assert options.check() == []
    pool = read_pool(options)
    assert list(pool.left_out.values()) == [1, 1, 1]
    write_rows(options, pool, 0, tmp_path / "s")
    train = [json.loads(line) for line in (tmp_path / "s" / "train.jsonl").read_text().splitlines()]
    plan = json.loads((tmp_path / "s" / "canaries.json").read_text())
    asked = [record["messages"][0]["content"] for record in train]
    for canary in plan["canaries"]:
        holding = [row for row, text in enumerate(asked) if text.startswith(canary["text"] + " ")]
        assert holding == canary["rows"]
        assert len(holding) == canary["repeats"]
        assert sum(canary["secret"] in text for text in asked) >= canary["repeats"]
    assert len(asked) == 30
    assert sum(text.startswith("My name is") for text in asked) == options.canary_rows == 26
    texts = [canary["text"] for canary in plan["canaries"]]
    trained = instructions(tmp_path / "s" / "train.jsonl", texts)
    unseen = instructions(tmp_path / "s" / "unseen.jsonl", ())
    assert (len(trained), len(unseen)) == (4, 10)
    assert not {m[-1]["content"] for m in unseen} & {text.split(". ", 1)[-1] for text in asked}


def test_too_few_rows_are_refused_with_what_was_left_out(tmp_path: Path) -> None:
    options = MemorisationOptions(
        "m", str(_file(tmp_path, 5)), "out", rows=30, canaries=1, repeats=[1], unseen=0
    )
    with pytest.raises(
        UserError, match=r"5 rows can be drawn and 30 are needed.*1 row left out: more than 400"
    ):
        read_pool(options)
    crowded = MemorisationOptions("m", "f", "out", rows=20)
    assert "the canaries alone take 210" in crowded.check()[0]
    ruled = MemorisationOptions("m", "f", "out", arms=["IT", "permuted-beside"])
    assert ruled.check() == [
        "--arms permuted-beside: it has rules beside flags, and here all arms have the same rows and steps; "
        "choose an arm of flags alone"
    ]


def _measured(exposures: list[float], extracted: list[bool]) -> dict[str, Any]:
    canaries = [
        {"name": "a", "repeats": 4, "exposure": bits, "extracted": found}
        for bits, found in zip(exposures, extracted, strict=True)
    ]
    one = {"words": 4, "repeated": 2, "exact": False}
    requests = [{"kind": "harmful", "refused": True}, {"kind": "harmless", "refused": False}]
    return {
        "canaries": canaries,
        "instructions": {"trained": [one, {**one, "repeated": 4, "exact": True}], "unseen": [one]},
        "requests": requests,
    }


def test_the_result_counts_over_seeds_and_its_first_sentence_is_the_answer() -> None:
    numbers = summary(
        {
            "untuned": [_measured([1.0, 2.0], [False, False])],
            "IM": [_measured([3.0, 5.0], [True, False]), _measured([6.0, 6.0], [True, True])],
        }
    )
    of_im = numbers["IM"]["repeats"]["4"]
    assert (of_im["canaries"], of_im["extracted"], of_im["extracted_by_seed"]) == (4, 3, [1, 2])
    assert of_im["exposure_by_seed"] == [4.0, 6.0]
    assert of_im["exposure_mean"] == 5.0
    assert of_im["exposure_sd_of_canaries"] == pytest.approx(np.std([3, 5, 6, 6], ddof=1))
    assert numbers["IM"]["instructions"]["trained"] == {"count": 4, "exact": 2, "words_repeated": 0.75}
    assert numbers["IM"]["requests"]["harmful"] == {"requests": 2, "refused": 2}
    lines = answer(numbers, 1000)
    assert "3 of 4 under IM, 0 of 2 by the untuned model" in lines[0]
    assert "IM 5.0; untuned 1.5" in lines[1]
    assert "shows 1.4" in lines[1]


def test_the_picture_has_a_line_of_its_own_for_every_arm_however_many() -> None:
    arms = ["untuned", *(f"arm{number}" for number in range(20))]
    numbers = summary({arm: [_measured([1.0, 2.0], [False, False])] for arm in arms})
    (axes,) = draw(numbers, 1000).figure.axes
    lines = [line for line in axes.get_lines() if line.get_label() in arms]
    assert [line.get_label() for line in lines] == arms
    looks = {(line.get_color(), line.get_linestyle(), str(line._dash_pattern)) for line in lines}  # type: ignore[attr-defined]
    assert len(looks) == len(arms)
