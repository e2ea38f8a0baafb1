"""Weights by turn, by pattern and by span: against loops over the characters of each row, under templates
that keep history, rewrite it, and write reasoning apart."""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_tokenizers import byte_level_with_bos
from row_files import read_one, write
from template_toys import installed_templates, toy_tokenizer

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import BadRow, read_conversations
from instruction_modelling.tokens import patterns as patterns_module
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.factors import (
    TextFactors,
    TrainTurns,
    pattern_line,
    pattern_warnings,
    trained_turns,
    with_factors,
)
from instruction_modelling.tokens.patterns import LossPattern, read_loss_patterns
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy

POLICY = WeightPolicy(instruction=0.3, response=0.8, template=0.1)
FORMATS = {
    "tulu": None,
    # Stable, rewriting history, and rewriting it within tool loops too.
    "chatml": "chatml",
    "qwen3": "qwen3.jinja",
    "gptoss": "gptoss.jinja",
}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def encoder(name: str) -> RowEncoder:
    """Return an encoder of the format of this name."""
    if name == "tulu":
        tokenizer = byte_level_with_bos().tokenizer
        return RowEncoder(tokenizer, load_chat_format("tulu", tokenizer), 40_000)
    template = CHATML if name == "chatml" else installed_templates()[str(FORMATS[name])]
    tokenizer = toy_tokenizer(template)
    return RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 40_000)


def characters(draw: np.random.Generator, count: int, first: list[int]) -> str:
    """Return so many characters that no other text of the row has, in a random order of their numbers."""
    start, first[0] = first[0], first[0] + count
    return "".join(chr(0x4E00 + start + int(n)) for n in draw.permutation(count))


def make_row(draw: np.random.Generator, reasoning: bool) -> dict[str, Any]:
    """Return a row of several turns in which each character says where it comes from."""
    first: list[int] = [0]
    messages: list[dict[str, Any]] = []
    for turn in range(int(draw.integers(1, 5))):
        messages.append({"role": "user", "content": characters(draw, 12, first)})
        answer: dict[str, Any] = {"role": "assistant", "content": "  " + characters(draw, 20, first) + "\n"}
        if reasoning and draw.random() < 0.6:
            answer["reasoning_content"] = characters(draw, 15, first)
        if draw.random() < 0.4:
            answer["weight"] = float(draw.choice([0, 0.5, 2]))
        for message in (messages[-1], answer):
            if draw.random() < 0.5:
                cut = sorted(int(n) for n in draw.choice(np.arange(2, 12), 3, replace=False))
                weights = [float(w) for w in draw.choice([0, 0.25, 1, 3], 2)]
                message["loss_spans"] = [
                    {"start": cut[1], "end": cut[2], "weight": weights[1]},
                    [cut[0], cut[1], weights[0]],
                ]
        messages.append(answer)
        if turn == 0 and draw.random() < 0.3:
            messages.insert(0, {"role": "system", "content": characters(draw, 6, first)})
    return {"messages": messages}


def make_patterns(draw: np.random.Generator, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return patterns that match here and there, one of which another overlaps."""
    texts = [
        m[key]
        for row in rows
        for m in row["messages"]
        for key in ("content", "reasoning_content")
        if key in m
    ]
    found: dict[str, float] = {}
    for _ in range(6):
        text = str(draw.choice(np.array(texts))).strip()
        start = int(draw.integers(0, max(1, len(text) - 6)))
        found[f"{text[start]}.{{1,4}}"] = float(draw.choice([0, 0.5, 1.5]))
    return found | {"[\u4e00-\u4e20]+": 0.7, "(?<=[\u4e05-\u4e30]).": 0.9, "never": 5.0}


def turn_counts(messages: Sequence[dict[str, Any]], index: int, turns: str) -> bool:
    """Whether an assistant's message is trained, by counting the user's messages before and after it."""
    before = sum(m["role"] == "user" for m in messages[:index])
    after = sum(m["role"] == "user" for m in messages[index:])
    return {"all": True, "first": before <= 1, "last": after == 0}[turns]


def factors_by_loop(row: dict[str, Any], patterns: dict[str, float]) -> dict[str, tuple[int, float]]:
    """The message of each character of a row, and the product of the spans and patterns that hold it."""
    factors = {}
    for index, message in enumerate(row["messages"]):
        texts = {key: message[key] for key in ("content", "reasoning_content") if key in message}
        for key, place in ((key, place) for key, text in texts.items() for place in range(len(text))):
            product = 1.0
            for span in message.get("loss_spans", []) if key == "content" else []:
                start, end, weight = span.values() if isinstance(span, dict) else span
                product *= weight if start <= place < end else 1
            for pattern, weight in patterns.items() if message["role"] == "assistant" else []:
                for match in re.finditer(pattern, message[key]):
                    product *= weight if match.start() <= place < match.end() else 1
            if not message[key][place].isspace():
                factors[message[key][place]] = index, product
    return factors


BY_KIND = {
    SpanKind.SYSTEM: POLICY.instruction,
    SpanKind.USER: POLICY.instruction,
    SpanKind.TEMPLATE: 0.1,
    SpanKind.USER_END: 0.0,
}


def expected_weights(
    encoded: EncodedRow, row: dict[str, Any], patterns: dict[str, float], turns: str
) -> list[list[float]]:
    """The weight of each token, from the row as the file has it and the character that each token ends in."""
    factors = factors_by_loop(row, patterns)
    out = []
    for sequence in encoded.sequences:
        weights = []
        tokens = sequence.tokens
        for number, kind in enumerate(sequence.kinds.tolist()):
            message = int(sequence.messages[number])
            weight = BY_KIND.get(SpanKind(kind), POLICY.response) * bool(sequence.owned[number])
            own: dict[str, Any] = row["messages"][message] if message >= 0 else {"role": ""}
            weight *= own.get("weight", 1.0)
            if own["role"] == "assistant":
                weight *= turn_counts(row["messages"], message, turns)
            last = sequence.rendered.text[tokens.end[number] - 1 : tokens.end[number]]
            if tokens.end[number] > tokens.start[number] and last in factors:
                assert factors[last][0] == message
                weight *= factors[last][1]
            weights.append(weight)
        out.append(weights)
    return out


def flat_weights(data: EncodedData, row: int) -> list[list[float]]:
    flat = data.weights(POLICY)
    return [flat[data.sequence_span(s)].tolist() for s in data.sequences_of(row)]


@pytest.mark.parametrize("turns", ["all", "first", "last"])
@pytest.mark.parametrize("name", FORMATS)
def test_all_factors_multiply(tmp_path: Path, name: str, turns: TrainTurns) -> None:
    draw = np.random.default_rng(list(FORMATS).index(name))
    rows = [make_row(draw, name in ("qwen3", "gptoss")) for _ in range(25)]
    patterns = make_patterns(draw, rows)
    conversations = read_conversations(write(tmp_path, *rows)).conversations
    assert len(conversations) == len(rows)
    encoded = list(encoder(name).encode(conversations))
    bare = collect(encoded)
    assert not bare.refused, bare.refused[0].detail
    factors = TextFactors(turns, tuple(LossPattern(*item) for item in patterns.items()))
    data, matches = with_factors(bare, conversations, factors)
    for index, row in enumerate(encoded):
        assert isinstance(row, EncodedRow)
        expected = expected_weights(row, rows[index], patterns, turns)
        for found, wanted in zip(flat_weights(data, index), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
        # A row by itself has the weights of the data alone: its spans and its messages' weights.
        alone = expected_weights(row, rows[index], {}, "all")
        for part, wanted in zip(row.weights(POLICY), alone, strict=True):
            np.testing.assert_allclose(part, wanted, rtol=1e-6)
    if name in ("qwen3", "gptoss"):
        assert len(data.sequence_lengths) > len(data)
    # Ids, sequences and kinds never depend on weights.
    for field in ("ids", "kinds", "messages", "owned", "offsets", "sequence_offsets", "first_sequence"):
        np.testing.assert_array_equal(getattr(data, field), getattr(bare, field))
    texts = [
        text
        for row in rows
        for m in row["messages"]
        if m["role"] == "assistant"
        for text in (m["content"], m.get("reasoning_content", ""))
    ]
    for one in matches:
        hits = [match for text in texts for match in re.finditer(one.regex, text) if match[0]]
        assert one.matches == len(hits) and one.characters == sum(len(hit[0]) for hit in hits)
        assert one.weight == patterns[one.regex] and one.not_to_the_letter == 0
    assert "never" in [one.regex for one in matches if not one.matches] and any(o.matches for o in matches)
    # They hold across the blocks of language modelling, and for rows taken in another order.
    size = 37
    blocks = data.blocks(size, keep_kinds=True).weights(POLICY)
    np.testing.assert_array_equal(blocks, data.weights(POLICY)[data.owned][: len(blocks)])
    order = np.arange(len(data))[::-1]
    taken = data.take(order)
    for place, index in enumerate(order.tolist()):
        assert flat_weights(taken, place) == flat_weights(data, index)


def test_absence_and_weights_of_1_change_no_bit(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    rows = [make_row(draw, False) for _ in range(10)]
    for row in rows:
        for message in row["messages"]:
            message.pop("loss_spans", None)
    conversations = read_conversations(write(tmp_path, *rows)).conversations
    bare = collect(encoder("tulu").encode(conversations))
    assert bare.factors is None
    same, matches = with_factors(bare, conversations, TextFactors())
    assert same is bare and matches == []
    ones, _ = with_factors(bare, conversations, TextFactors("all", (LossPattern(".", 1.0),)))
    assert ones.weights(POLICY).tobytes() == bare.weights(POLICY).tobytes()
    none, _ = with_factors(bare, conversations, TextFactors("all", (LossPattern("(?s).", 0.0),)))
    zeroed = none.weights(POLICY)
    inside = (bare.positions >= 0) & np.isin(bare.kinds, [3])
    assert (
        inside.any()
        and not zeroed[inside].any()
        and zeroed[~inside].tobytes() == bare.weights(POLICY)[~inside].tobytes()
    )


@pytest.mark.parametrize(
    ("roles", "first", "last"),
    [
        ("ua", "ua", "ua"),
        ("suaua", "sua u-", "su-ua"),
        # All of a tool loop counts.
        ("uatauatata", "uatau-t-t-", "u-t-uatata"),
        # Before the first user's message, and without any after the last.
        ("auaua", "auau-", "-u-ua"),
        ("uau", "uau", "u-u"),
        # Messages of the user that follow one another are one turn.
        ("uuauua", "uuauu-", "uu-uua"),
        ("sa", "sa", "sa"),
    ],
)
def test_first_and_last_turns_by_value(roles: str, first: str, last: str) -> None:
    names = [{"u": "user", "a": "assistant", "s": "system", "t": "tool"}[role] for role in roles]
    for turns, expected in (("first", first), ("last", last)):
        kept = trained_turns(names, turns)  # type: ignore[arg-type]
        assert kept == [role != "-" for role in expected.replace(" ", "")]
    assert trained_turns(names, "all") == [True] * len(names)


def test_a_token_goes_by_its_last_character(tmp_path: Path) -> None:
    text = "The quick brown fox jumps over"
    conversation = read_one(
        tmp_path, {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": text}]}
    )
    (row,) = encoder("tulu").encode([conversation])
    assert isinstance(row, EncodedRow)
    bare = collect([row])
    first = row.first
    base = first.rendered.text.index(text)
    ends = first.tokens.end - base - 1
    longest = int(np.argmax((first.tokens.end - first.tokens.start) * (first.kinds == 3)))
    start, end = int(first.tokens.start[longest]) - base, int(first.tokens.end[longest]) - base
    assert end - start >= 3
    # A match that covers the token but for its last character, and one that covers that alone.
    for pattern, weight in ((text[start : end - 1], 1.0), (f"(?<={re.escape(text[: end - 1])}).", 0.25)):
        data, _ = with_factors(bare, [conversation], TextFactors("all", (LossPattern(pattern, 0.25),)))
        assert data.weights(WeightPolicy())[longest] == weight, pattern
    spans = {"role": "assistant", "content": text, "loss_spans": [[4, 12, 0.5]]}
    other = read_one(tmp_path, {"messages": [{"role": "user", "content": "x"}, spans]})
    found = collect(encoder("tulu").encode([other])).weights(WeightPolicy())
    expected = [
        (0.5 if 4 <= at < 12 else 1.0) * (kind in (3, 4)) for at, kind in zip(ends, first.kinds, strict=True)
    ]
    assert found.tolist() == expected and 0.5 in expected and 1.0 in expected


def test_axolotl_s_train_detail_trains_what_it_names_alone(tmp_path: Path) -> None:
    text = "0123456789"
    detail = [
        {"begin_offset": 2, "end_offset": 4, "train": True},
        {"begin_offset": 5, "end_offset": 6, "train": False},
        {"begin_offset": 8, "end_offset": 8, "train": True},
    ]
    for key in ("train_detail", "training_detail"):
        answer = {"role": "assistant", "content": text, key: detail}
        message = read_one(tmp_path, {"messages": [{"role": "user", "content": "x"}, answer]}).messages[1]
        weights = [1.0] * len(text)
        for start, end, weight in message.loss_spans:
            weights[start:end] = [weight] * (end - start)
        # End offsets are the last character itself; what no entry names is not trained.
        assert weights == [0, 0, 1, 1, 1, 0, 0, 0, 1, 0]
    asked = [{"begin_offset": 0, "end_offset": 0, "train": False}]
    user = {"role": "user", "content": "xyz", "train_detail": asked}
    row = read_one(tmp_path, {"messages": [user, {"role": "assistant", "content": "a"}]})
    assert row.messages[0].loss_spans == ((0, 1, 0.0), (1, 3, 0.0))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([[0, 2, 0.5], [2, 4, 0.25]], ((0, 2, 0.5), (2, 4, 0.25))),
        ([[1, 3, 0.5], [0, 2, 0.5]], ((0, 2, 0.5), (2, 3, 0.5))),
        ([[1, 3, 1]], ()),
        ([{"start": 4, "end": 5, "weight": 0}], ((4, 5, 0.0),)),
        ([[0, 5, -0.0]], ((0, 5, 0.0),)),
        # As Arrow has them: numbers of one type, and the keys of other objects as null.
        ([[0.0, 2.0, 0.5]], ((0, 2, 0.5),)),
        ([{"start": 1, "end": 2, "weight": 0.5, "note": None}], ((1, 2, 0.5),)),
        ([], ()),
    ],
)
def test_spans_are_read(tmp_path: Path, given: Any, kept: Any) -> None:
    for role in ("system", "user", "assistant", "tool"):
        row = {"messages": [{"role": role, "content": "Hello", "loss_spans": given}]}
        assert read_one(tmp_path, row).messages[0].loss_spans == kept


def test_spans_on_a_thought_within_the_content_with_its_tags(tmp_path: Path) -> None:
    content = "<think>\n\u4e00\u4e01\u4e02\n</think>\n\n\u4e03\u4e04"
    stop = content.index("</think>") + len("</think>")
    answer = {"role": "assistant", "content": content, "loss_spans": [[0, stop, 0.25]]}
    row = read_one(tmp_path, {"messages": [{"role": "user", "content": "x"}, answer]})
    (encoded,) = encoder("qwen3").encode([row])
    assert isinstance(encoded, EncodedRow)
    (weights,) = encoded.weights(WeightPolicy())
    first = encoded.first
    by_weight: dict[float, str] = {}
    for number, weight in enumerate(weights.tolist()):
        piece = first.rendered.text[first.tokens.start[number] : first.tokens.end[number]]
        by_weight[weight] = by_weight.get(weight, "") + piece
    assert set("\u4e00\u4e01\u4e02") <= set(by_weight[0.25]) and "<think>" in by_weight[0.25]
    assert "</think>" in by_weight[0.25] and set("\u4e03\u4e04") <= set(by_weight[1.0])
    assert "<|im_end|>" in by_weight[1.0] and encoded.changed_messages == ()


UPPER = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content | upper if 'loud' in m.content else m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_what_a_template_changes_is_refused_or_warned_of(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer(UPPER)
    own = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 40_000)
    question = {"role": "user", "content": "x"}
    plain = [question, {"role": "assistant", "content": "soft word"}]
    loud = [question, {"role": "assistant", "content": "loud word"}]
    weighed = [question, {"role": "assistant", "content": "loud word", "loss_spans": [[0, 4, 0.5]]}]
    conversations = read_conversations(
        write(tmp_path, *({"messages": rows} for rows in (plain, loud, weighed)))
    ).conversations
    encoded = list(own.encode(conversations))
    refused = encoded[2]
    assert isinstance(refused, BadRow) and refused.reason == "loss_spans on changed text"
    assert "message 1" in refused.detail and "characters 0 to 3" in refused.detail
    bare = collect(encoded)
    assert bare.changed_messages == [[], [1]]
    data, (word, none) = with_factors(
        bare, conversations, TextFactors("all", (LossPattern("word", 0.5), LossPattern("nowhere", 2)))
    )
    assert (word.matches, word.rows, word.characters, word.not_to_the_letter) == (2, 2, 8, 1)
    assert (none.matches, none.rows) == (0, 0)
    warnings = pattern_warnings([word, none])
    assert len(warnings) == 2 and "1 of 2 matches of 'word'" in warnings[0] and "'nowhere'" in warnings[1]
    assert (
        pattern_line([word, none]) == "'word' x 0.5: 2 matches in 2 rows; 'nowhere' x 2: 0 matches in 0 rows"
    )
    first, second = (data.weights(WeightPolicy())[data.span(row)] for row in (0, 1))
    assert 0.5 in first.tolist() and set(second.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", 'write {"regular expression": weight'),
        ("{}", 'write {"regular expression": weight'),
        ('{"a": 1, "a": 2}', "is twice"),
        ('{"(": 1}', "the pattern '(' is no regular expression"),
        ('{"": 1}', "matches nothing but the empty text"),
        ('{"^|(?=x)": 1}', "matches nothing but the empty text"),
        ('{"a": -1}', "the pattern 'a' has the weight -1; it must be a finite number >= 0"),
        ('{"a": true}', "the weight True"),
        ('{"a": "1"}', "the weight '1'"),
        ('{"a": NaN}', "the weight nan"),
        ('{"a": 1e999}', "the weight inf"),
        ('{"a": null}', "the weight None"),
    ],
)
def test_bad_files_of_patterns_are_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "patterns.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"--loss_patterns {path}: ")) as raised:
        read_loss_patterns(str(path))
    assert words in str(raised.value)


def test_files_of_patterns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "patterns.json"
    path.write_text(json.dumps({"a*": 0, r"\bno\b": 1.5, r"\p{Lu}+": -0.0}), encoding="utf-8")
    found = read_loss_patterns(str(path))
    assert found == (LossPattern("a*", 0.0), LossPattern(r"\bno\b", 1.5), LossPattern(r"\p{Lu}+", 0.0))
    assert str(found[2].weight) == "0.0" and read_loss_patterns(None) == ()
    with pytest.raises(UserError, match="cannot be read"):
        read_loss_patterns(str(tmp_path / "none.json"))


def test_a_search_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns_module, "SECONDS", 0.2)
    text = "a" * 200 + "!"
    conversation = read_one(
        tmp_path,
        {
            "id": "slow",
            "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": text}],
        },
    )
    data = collect(encoder("tulu").encode([conversation]))
    pattern = LossPattern("(?:a|aa)+$", 0.5)
    with pytest.raises(UserError, match=r"more than 0\.2 seconds in message 1 of row 0 \(id slow\)"):
        with_factors(data, [conversation], TextFactors("all", (pattern,)))


def test_spans_multiply_the_released_masks(tmp_path: Path) -> None:
    tokenizer = byte_level_with_bos().tokenizer
    released = RowEncoder(tokenizer, load_chat_format("tulu", tokenizer), 40_000, released=True)
    question = {"role": "user", "content": "\u4e10\u4e11"}
    answer = {"role": "assistant", "content": " \u4e00\u4e01\u4e02 "}
    rows = [
        read_one(tmp_path, {"messages": [question | more, answer | spans]})
        for more, spans in (({}, {}), ({"loss_spans": [[1, 2, 0.5]]}, {"loss_spans": [[2, 4, 0.25]]}))
    ]
    bare, spanned = released.encode(rows)
    assert isinstance(bare, EncodedRow) and isinstance(spanned, EncodedRow)
    policy = WeightPolicy(instruction=1.0, mask_style="released")
    (before,), (after,) = bare.weights(policy), spanned.weights(policy)
    factors = {"\u4e11": 0.5, "\u4e01": 0.25, "\u4e02": 0.25}
    last = [spanned.first.rendered.text[end - 1 : end] for end in spanned.first.tokens.end]
    assert after.tolist() == [weight * factors.get(c, 1.0) for weight, c in zip(before, last, strict=True)]
    assert {0.25, 0.5, 1.0} <= set(after.tolist())


def test_products_that_are_no_number_are_said(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "abc", "weight": 1e30, "loss_spans": [[0, 1, 1e30]]}
    row = read_one(tmp_path, {"id": "big", "messages": [{"role": "user", "content": "x"}, answer]})
    data = collect(encoder("tulu").encode([row]))
    with pytest.raises(UserError, match="row big: the product of its loss weights is too large"):
        data.weights(POLICY)


def test_another_pattern_never_tokenises_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(3)
    rows = [make_row(draw, False) for _ in range(8)]
    file, own = read_conversations(write(tmp_path, *deepcopy(rows))), encoder("tulu")
    encoded = encode_file(file, own)
    monkeypatch.setattr(own, "encode", lambda _: pytest.fail("encoded again"))
    again = encode_file(file, own)
    assert encoded.factors is not None and again.factors is not None
    assert again.factors.tobytes() == encoded.factors.tobytes()
    assert again.weights(POLICY).tobytes() == encoded.weights(POLICY).tobytes()
    one, other = (
        with_factors(again, file.conversations, TextFactors("all", (LossPattern(".", weight),)))[0]
        for weight in (0.5, 0.0)
    )
    assert one.weights(POLICY).sum() > other.weights(POLICY).sum() > 0
    assert replace(one, factors=None).weights(POLICY).sum() != one.weights(POLICY).sum()
