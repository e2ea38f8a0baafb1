"""The first pass over prompts, by groups of like length, changes no answer."""

from typing import Any

import pytest
import torch
from model_families import FAMILIES
from step_samples import VOCABULARY, random_model

from instruction_modelling.generation import prefill

LENGTHS = (11, 9, 5, 4, 3, 2)


def batch(lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Made-up prompts, padded on the left."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(2, VOCABULARY, (len(lengths), max(lengths)), generator=draw)
    mask = (torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


@torch.no_grad()
def answers(model: Any, ids: torch.Tensor, mask: torch.Tensor, kept: Any = None) -> Any:
    return model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=kept,
        max_new_tokens=5,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        output_scores=True,
        return_dict_in_generate=True,
    )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_answers_are_those_of_one_prompt_at_a_time(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "ROWS", 2)
    model = random_model(FAMILIES[family]()).eval()
    (ids, mask), sizes = batch(LENGTHS), list[tuple[int, ...]]()

    def note(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        sizes.append(tuple(named["input_ids"].shape))

    model.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        kept = prefill.prefilled(model, ids, mask)
    if "window" in family:
        assert kept is None and not sizes
        return
    assert sizes == [(2, 10), (2, 4), (2, 2)]
    assert kept.get_seq_length() == 10
    together = answers(model, ids, mask, kept)
    for row, length in enumerate(LENGTHS):
        alone = answers(model, ids[row : row + 1, -length:], mask[row : row + 1, -length:])
        assert torch.equal(together.sequences[row, 11:], alone.sequences[0, length:])
        for mine, own in zip(together.scores, alone.scores, strict=True):
            torch.testing.assert_close(mine[row], own[0], rtol=1e-4, atol=1e-5)


def test_the_first_pass_is_left_alone_where_nothing_is_saved_or_rounding_is_coarse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefill, "ROWS", 2)
    model = random_model(FAMILIES["qwen2"]()).eval()
    with torch.no_grad():
        assert prefill.prefilled(model, *batch((7, 6, 7))) is None
        assert prefill.prefilled(model, *batch((7,))) is None
        assert prefill.prefilled(model, *batch((7, 5, 1, 1))) is None
        assert prefill.prefilled(model, *batch((7, 5, 2, 1))) is not None
        assert prefill.prefilled(model.bfloat16(), *batch((7, 5, 2, 1))) is None
