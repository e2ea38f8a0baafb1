"""The inspector's sums: shares of the loss by span kind, and lengths."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from inspections import GOOD, RESPONSE_NAMES, UNEVEN, Inspect, some_rows


def shares_from(records: list[dict[str, Any]], normalization: str, denominator: str) -> dict[str, float]:
    """The shares of the loss by their definition, from the weights of every token."""
    sums: dict[str, float] = {}
    for record in records:
        tokens = [token for token in record["tokens"][1:] if token["weight"]]
        of_im = {*RESPONSE_NAMES, "user", "system"}
        counted = {
            "nonzero": tokens,
            "response": [t for t in tokens if t["kind"] in RESPONSE_NAMES],
            "messages": [t for t in record["tokens"][1:] if t["kind"] in of_im],
        }[denominator]
        scale = {"example": 1 / len(counted), "square": len(counted) ** -0.5}.get(normalization, 1.0)
        for token in tokens:
            sums[token["kind"]] = sums.get(token["kind"], 0.0) + token["weight"] * scale
    return {kind: value / sum(sums.values()) for kind, value in sums.items()}


@pytest.mark.parametrize(
    ("normalization", "denominator"),
    [*product(["example", "token", "square", "sum"], ["nonzero", "response"]), ("example", "messages")],
)
def test_shares_are_the_sums_of_the_tokens_coefficients(
    inspect: Inspect, normalization: str, denominator: str
) -> None:
    flags = ["--loss_normalization", normalization, "--loss_denominator", denominator]
    records = {
        name: inspect(UNEVEN, *flags, "--instruction_loss_weight", weight).records
        for name, weight in (("IT", 0), ("IM", 1))
    }
    result = inspect(UNEVEN, *flags, "--instruction_loss_weight", 0.3)
    expected = shares_from(result.records, normalization, denominator)
    for kind, entry in result.summary["by_kind"].items():
        tokens = [token for record in result.records for token in record["tokens"] if token["kind"] == kind]
        assert entry["tokens"] == len(tokens)
        assert entry["tokens_with_loss"] == (0 if kind == "template" else len(tokens))
        assert entry["loss_share"] == pytest.approx(expected.get(kind, 0.0), abs=1e-6)
    given = "reweighted IM w=0.3" if denominator == "messages" else "IM w=0.3"
    assert list(result.summary["arms"]) == ["IT", "IM", given]
    for name in ("IT", "IM"):
        expected = shares_from(records[name], normalization, denominator)
        for kind, share in result.summary["arms"][name].items():
            assert share == pytest.approx(expected.get(kind, 0.0), abs=1e-6)


def test_every_row_counts_the_same_under_example_normalisation(inspect: Inspect) -> None:
    # Half of the loss is row 0's, however short it is; row 1 has no instruction.
    result = inspect(
        [{"prompt": "aaaa", "completion": "\nbb"}, {"prompt": "", "completion": "xyzxyzxyz"}], "--use_lm_loss"
    )
    first, second = ([token["kind"] for token in record["tokens"][1:]] for record in result.records)
    users = first.count("user") / len(first)
    assert 0 < users < 1
    assert "user" not in second
    assert result.summary["by_kind"]["user"]["loss_share"] == pytest.approx(users / 2, abs=1e-6)


def test_totals_of_real_rows_by_value(shared_data: Path, inspect: Inspect) -> None:
    rows = some_rows(shared_data, "lima_data.jsonl", 5)
    result = inspect(
        rows, "--use_lm_loss", "--mask_style", "released", tokenizer=shared_data / "tokenizers" / "llama2"
    )
    # All but BOS and the first header, `<|user|>` and its line break in six tokens, is trained.
    entry = result.summary["by_kind"]["template"]
    assert entry["tokens"] - entry["tokens_with_loss"] == len(rows) * 7
    assert result.summary["arms"]["IM"]["template"] == entry["loss_share"] > 0
    assert result.summary["arms"]["IM (released)"] == result.summary["arms"]["IM"]
    assert result.summary["arm"] == "IM (released)"


def test_the_first_token_of_a_row_keeps_its_weight_and_counts_nowhere(
    inspect: Inspect, template: Callable[[str], Path]
) -> None:
    bare = template(
        "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' }}\n{% endfor %}"
    )
    result = inspect([GOOD], "--use_lm_loss", "--chat_format", bare)
    first = result.records[0]["tokens"][0]
    assert (first["kind"], first["weight"], first["start"]) == ("user", 1.0, 0)
    users = [token for token in result.records[0]["tokens"] if token["kind"] == "user"]
    assert result.summary["by_kind"]["user"]["tokens"] == len(users)
    assert result.summary["by_kind"]["user"]["tokens_with_loss"] == len(users) - 1


def test_language_modelling_weighs_every_token_and_sums_over_blocks(inspect: Inspect) -> None:
    result = inspect(UNEVEN, "--use_lm_modelling", "--block_size", 50)
    tokens = [token for record in result.records for token in record["tokens"]]
    assert {token["weight"] for token in tokens} == {1.0}
    blocks = len(tokens) // 50
    assert result.summary["tokens"] == blocks * 50
    with_loss = sum(entry["tokens_with_loss"] for entry in result.summary["by_kind"].values())
    assert with_loss == blocks * 49
    templates = sum(token["kind"] == "template" for token in tokens[: blocks * 50])
    assert result.summary["by_kind"]["template"]["tokens"] == templates
    assert f"{blocks} blocks" in result.out
    assert list(result.summary["arms"]) == ["IT", "IM", "LM"]


def test_lengths_are_means_of_tokens(inspect: Inspect) -> None:
    result = inspect(UNEVEN)
    instruction = [sum(t["kind"] == "user" for t in record["tokens"]) for record in result.records]
    response = [sum(t["kind"] in RESPONSE_NAMES for t in record["tokens"]) for record in result.records]
    lengths = result.summary["lengths"]
    assert lengths["instruction"]["mean"] == pytest.approx(sum(instruction) / 3)
    assert lengths["response"]["median"] == sorted(response)[1]
    assert lengths["instruction_to_response"] == pytest.approx(sum(instruction) / sum(response))


def test_columns_are_named_by_all_that_has_a_loss_in_them(inspect: Inspect) -> None:
    for flags, names in (
        (["--template_loss_weight", 0.25], ["IT t=0.25", "IM t=0.25"]),
        (["--loss_weights", "tool=0.5,user=0"], ["IT [tool=0.5]", "IM [tool=0.5]"]),
        (
            ["--use_lm_loss", "--template_loss_weight", 1, "--loss_weights", "system=0"],
            ["IT t=1", "IM t=1", "IM t=1 [system=0]"],
        ),
    ):
        result = inspect(UNEVEN, *flags)
        assert list(result.summary["arms"]) == names
        assert all(name in result.out for name in names)
