"""The Tülu mixtures are built from their parts, with the parts' limits, order and filter."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from raw_samples import read_lines, turns, write_json, write_tulu_parts

from instruction_modelling.errors import UserError
from instruction_modelling.sources.conversion.mixtures import (
    MENTIONS,
    TULU_V1,
    TULU_V2,
    Mixture,
    build_mixture,
    mention,
)
from instruction_modelling.sources.conversion.options import ConversionOptions
from instruction_modelling.sources.conversion.report import ConversionReport
from instruction_modelling.sources.conversion.templates import PromptTemplate, PromptTemplates


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Small parts."""
    write_tulu_parts(tmp_path / "raw")
    return tmp_path / "raw"


def built(mixture: Mixture, raw: Path, output: Path, **options: Any) -> ConversionReport:
    """Build a mixture with limits that are smaller by the same measure as the parts."""
    small = {25_000: 8, 20_000: 10, 30_000: 9, 50_000: 8}
    parts = tuple(replace(p, limit=small[p.limit] if p.limit else None) for p in mixture.parts)
    return build_mixture(replace(mixture, parts=parts), raw, output, ConversionOptions(**options))


def prompts(rows: list[Any], dataset: str) -> list[str]:
    return [
        next(m["content"] for m in row["messages"] if m["role"] == "user")
        for row in rows
        if row["dataset"] == dataset
    ]


def test_the_parts_and_limits_are_the_published_ones() -> None:
    def table(parts: Any) -> list[tuple[Any, ...]]:
        return [(p.format, p.limit, p.best_replies, p.repeat) for p in parts]

    assert table(TULU_V2.parts) == [
        ("flan_v2", None, None, 1),
        ("cot", 25_000, None, 1),
        ("oasst1", None, 1, 1),
        ("lima", None, None, 1),
        ("gpt4_alpaca", 20_000, None, 1),
        ("code_alpaca", None, None, 1),
        ("sharegpt_4096", None, None, 1),
        ("wizardlm", 30_000, None, 1),
        ("open_orca", 30_000, None, 1),
        ("science", None, None, 1),
        ("hard_coded", None, None, 10),
    ]
    assert [p.format for p in TULU_V1.parts] == [
        "flan_v2",
        "cot",
        "oasst1",
        "dolly",
        "gpt4_alpaca",
        "code_alpaca",
        "sharegpt",
    ]


def test_tulu_v2_has_every_part_in_order_and_counts_what_it_leaves_out(raw: Path, tmp_path: Path) -> None:
    report = built(TULU_V2, raw, tmp_path / "out" / "tulu_v2_data.jsonl")
    rows = read_lines(report.output)
    order = list(dict.fromkeys(row["dataset"] for row in rows))
    assert order == [
        "flan_v2",
        "cot",
        "oasst1",
        "lima",
        "code_alpaca",
        "sharegpt",
        "wizardlm",
        "open_orca",
        "science.qasper",
        "hard_coded",
    ]
    counts = {name: len(prompts(rows, name)) for name in order}
    assert counts == {
        "flan_v2": 5,
        "cot": 16,
        "oasst1": 3,
        "lima": 4,
        "code_alpaca": 6,
        "sharegpt": 1,
        "wizardlm": 9,
        "open_orca": 9,
        "science.qasper": 3,
        "hard_coded": 20,
    }
    assert report.left_out == {
        "not drawn": 2 * 4 + 20 + 16 + 31,
        "not among the best replies": 3,
        "mentions gpt4": 10,
        "mentions chatgpt": 1,
    }
    assert report.rows_read == report.rows_written + report.left_out.total()
    assert len({row["id"] for row in rows}) == len(rows) == report.rows_written
    assert all(row["messages"][-1]["content"] == "good" for row in rows if row["dataset"] == "oasst1")
    assert prompts(rows, "hard_coded") == ["Who made you?", "Your name?"] * 10
    filtered = read_lines(report.output.with_name("tulu_v2_data.filtered.jsonl"))
    assert len(filtered) == 11 and all(mention(row["messages"]) for row in filtered)
    assert not any(mention(row["messages"]) for row in rows if row["dataset"] != "hard_coded")
    card = json.loads(report.card.read_text())
    assert card["options"]["parts"][1]["limit"] == 8 and len(card["sources"]) == 12


def test_the_rows_drawn_are_those_of_one_generator_used_part_after_part(raw: Path, tmp_path: Path) -> None:
    rows = read_lines(built(TULU_V2, raw, tmp_path / "tulu_v2_data.jsonl", seed=9).output)
    # Independently, as the published script uses it: samples, and one number for every row that a template
    # could wrap.
    rng = random.Random(9)
    cot = [f"zsopt {i}\nThink:" for i in rng.sample(range(12), k=8)] + [
        f"fsopt {i}\nThink:" for i in rng.sample(range(12), k=8)
    ]
    rng.sample(range(30), k=10)
    for _ in range(10 + 6):
        rng.random()
    wizards = [f"wizard {i}" for i in rng.sample(range(25), k=9)]
    orca = [f"orca {i}" for i in range(40)]
    rng.shuffle(orca)
    assert prompts(rows, "cot") == cot
    assert prompts(rows, "wizardlm") == wizards
    assert prompts(rows, "open_orca") == orca[:9]
    template = PromptTemplate("Task: {instruction}"), PromptTemplate("Task: {instruction} {input}")
    wrapped = read_lines(
        built(
            TULU_V2, raw, tmp_path / "w.jsonl", seed=9, templates=PromptTemplates(template[1:], template[:1])
        ).output
    )
    assert [row["id"] for row in wrapped] == [row["id"] for row in rows]
    assert prompts(wrapped, "code_alpaca")[1] == "Task: code question 1"


def test_tulu_v1_has_its_own_parts_and_no_filter(raw: Path, tmp_path: Path) -> None:
    report = built(TULU_V1, raw, tmp_path / "tulu_v1_data.jsonl")
    rows = read_lines(report.output)
    assert [
        len(prompts(rows, name))
        for name in ("flan_v2", "cot", "oasst1", "dolly", "gpt4_alpaca", "code_alpaca", "sharegpt")
    ] == [7, 16, 6, 4, 30, 6, 2]
    assert not report.output.with_name("tulu_v1_data.filtered.jsonl").exists()


def test_missing_parts_are_named_together(raw: Path, tmp_path: Path) -> None:
    (raw / "lima" / "train.jsonl").unlink()
    (raw / "flan_v2" / "tulu_v2_resampled_flan_50k.jsonl").unlink()
    with pytest.raises(
        UserError, match=r"flan_v2 \(tulu_v2_resampled_flan_50k\.jsonl\); lima \(train\.jsonl\)"
    ):
        built(TULU_V2, raw, tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def test_sharegpt_is_split_here_where_its_split_file_is_missing(raw: Path, tmp_path: Path) -> None:
    class Tokenizer:
        name_or_path = "letters"

        def __call__(self, texts: list[str], verbose: bool = True) -> dict[str, list[str]]:
            return {"input_ids": texts}

    (raw / "sharegpt" / "sharegpt_html_cleaned_and_split_4096.json").unlink()
    for part in (1, 2):
        write_json(
            raw / "sharegpt" / f"sg_90k_part{part}_html_cleaned.json",
            [
                {
                    "id": "a",
                    "conversations": turns(f"part {part}" + "x" * 2000, "y" * 2000, "x" * 300, "short"),
                }
            ],
        )
    with pytest.raises(UserError, match="split at 4096 tokens with a tokenizer"):
        built(TULU_V2, raw, tmp_path / "x.jsonl")
    report = built(TULU_V2, raw, tmp_path / "x.jsonl", tokenizer=Tokenizer())
    shared = [row for row in read_lines(report.output) if row["dataset"] == "sharegpt"]
    assert [(row["id"], len(row["messages"])) for row in shared] == [("sharegpt_0", 2), ("sharegpt_2", 2)]
    assert report.refused == {"last turn, lost as the published splitter does": 2}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I am CHATGPT", "chatgpt"),
        ("a palm tree", "palm"),
        ("gpt-3.5 turbo", "gpt-3"),
        ("Jean-Claude", "claude"),
        ("open assistant", "open assistant"),
        ("a plain text", None),
    ],
)
def test_a_mention_in_any_message_and_any_case_is_found(text: str, found: str | None) -> None:
    assert mention([{"role": "user", "content": "x"}, {"role": "assistant", "content": text}]) == found


def test_the_filter_finds_what_the_published_strings_find(shared_data: Path) -> None:
    # As published, in their own case; some contain others.
    published = [
        "OpenAI",
        "Open AI",
        "ChatGPT",
        "Chat GPT",
        "GPT-3",
        "GPT3",
        "GPT 3",
        "GPT-4",
        "GPT4",
        "GPT 4",
        "GPT-3.5",
        "GPT3.5",
        "GPT 3.5",
        "BingChat",
        "Bing Chat",
        "BARD",
        "Palm",
        "Anthropic",
        "Claude",
        "LAION",
        "Open Assistant",
        "OpenAssistant",
    ]
    assert all(any(words in string.lower() for words in MENTIONS) for string in published)
    assert all(words in {string.lower() for string in published} for words in MENTIONS)
    hit = [row for row in read_lines(shared_data / "train" / "lima_data.jsonl") if mention(row["messages"])]
    assert len(hit) == 12
