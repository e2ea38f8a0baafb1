"""Exact and near-duplicates, against all pairs compared one by one and against what was put in."""

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from chat_samples import assistant, conversation, user

from instruction_modelling.analysis.duplicates import compared_row_text, exact_duplicates
from instruction_modelling.analysis.near_duplicates import (
    NearDuplicates,
    NearDuplicateSettings,
    choose_scheme,
    find_near_duplicates,
    signatures,
)
from instruction_modelling.analysis.shingles import jaccard, shingle_hashes, shingle_set
from instruction_modelling.rows.conversations import read_conversations

VOCABULARY = [f"word{number}" for number in range(3000)]


def sets_of(texts: list[str], size: int) -> list[set[tuple[str, ...]]]:
    """Shingles as words, without hashing."""
    found = []
    for text in texts:
        words = text.split()
        found.append(
            {tuple(words[at : at + size]) for at in range(max(len(words) - size + 1, 1))} if words else set()
        )
    return found


def near_duplicates(texts: list[str], threshold: float = 0.8, size: int = 3) -> NearDuplicates:
    return find_near_duplicates(
        lambda row: texts[row], len(texts), NearDuplicateSettings(threshold=threshold, shingle_words=size)
    )


def groups_by_brute_force(texts: list[str], threshold: float, size: int) -> list[list[int]]:
    """Connected components of the pairs at or above the threshold, every pair compared."""
    shingles = sets_of(texts, size)
    group = list(range(len(texts)))
    for one, two in combinations(range(len(texts)), 2):
        both, either = shingles[one] & shingles[two], shingles[one] | shingles[two]
        if either and len(both) / len(either) >= threshold:
            group = [group[one] if number == group[two] else number for number in group]
    members: dict[int, list[int]] = {}
    for row, number in enumerate(group):
        members.setdefault(number, []).append(row)
    return sorted(rows for rows in members.values() if len(rows) > 1)


def edited(words: list[str], share: float, draw: random.Random) -> list[str]:
    """The words with a run of about this share of them replaced."""
    count = round(share * len(words))
    start = draw.randrange(len(words) - count + 1)
    return words[:start] + draw.choices(VOCABULARY, k=count) + words[start + count :]


@pytest.mark.parametrize("size", [1, 3, 5])
def test_shingles_are_those_of_the_words(size: int) -> None:
    texts = [
        "",
        "a",
        "a b",
        "b a",
        "a b c d e f",
        "a b c d e f g",
        " a  b\n c\td e f ",
        "ab",
        "日本 語 é",
        "a b c d e f a b c d e f",
    ]
    _, offsets = shingle_hashes(texts, size)
    expected = sets_of(texts, size)
    assert np.diff(offsets).tolist() == [
        max(len(text.split()) - size + 1, 1) if text.split() else 0 for text in texts
    ]
    hashed = [shingle_set(text, size) for text in texts]
    assert [len(found) for found in hashed] == [len(shingles) for shingles in expected]
    for one, two in combinations(range(len(texts)), 2):
        both, either = expected[one] & expected[two], expected[one] | expected[two]
        assert jaccard(hashed[one], hashed[two]) == (len(both) / len(either) if either else 0.0)


def test_a_text_has_the_same_shingles_alone_and_among_others() -> None:
    texts = ["one two three four", "", "five six", "seven eight nine ten eleven"]
    hashes, offsets = shingle_hashes(texts, 3)
    for number, text in enumerate(texts):
        assert np.array_equal(np.unique(hashes[offsets[number] : offsets[number + 1]]), shingle_set(text, 3))


def test_signatures_estimate_the_similarity_without_bias() -> None:
    draw = random.Random(1)
    texts, exact = [], []
    for share in (0.05, 0.2, 0.4, 0.6) * 60:
        words = draw.choices(VOCABULARY, k=60)
        texts += [" ".join(words), " ".join(edited(words, share, draw))]
        exact.append(jaccard(shingle_set(texts[-2], 3), shingle_set(texts[-1], 3)))
    scheme = choose_scheme(0.8)
    found = signatures(texts, 3, scheme)
    errors = (found[0::2] == found[1::2]).mean(axis=1) - np.array(exact)
    # One estimate of a similarity s has the variance s (1 - s) / hashes.
    spread = np.sqrt(np.mean([s * (1 - s) for s in exact]) / scheme.hashes)
    assert abs(errors.mean()) < 4 * spread / np.sqrt(len(exact))
    assert errors.std() < 1.3 * spread


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.95, 1.0])
def test_the_chosen_scheme_misses_few_pairs_at_the_threshold(threshold: float) -> None:
    scheme = choose_scheme(threshold)
    assert scheme.recall(threshold) >= 0.995 and scheme.hashes <= 128
    assert scheme.recall(threshold) == pytest.approx(1 - (1 - threshold**scheme.rows) ** scheme.bands)


def test_a_threshold_near_zero_is_searched_as_well_as_can_be() -> None:
    assert choose_scheme(0.01).rows == 1 and choose_scheme(0.01).bands == 128


@pytest.mark.parametrize(("threshold", "size"), [(0.8, 3), (0.5, 2), (0.9, 1)])
def test_groups_are_those_of_all_pairs(threshold: float, size: int) -> None:
    draw = random.Random(2)
    texts = ["", "", "alone", "two words", "two words"]
    for _ in range(60):
        words = draw.choices(VOCABULARY, k=draw.randint(2, 80))
        texts += [
            " ".join(edited(words, draw.choice((0.0, 0.02, 0.05, 0.3)), draw))
            for _ in range(draw.randint(1, 4))
        ]
    draw.shuffle(texts)
    found = near_duplicates(texts, threshold, size)
    assert sorted(found.groups) == groups_by_brute_force(texts, threshold, size)
    shingles = sets_of(texts, size)
    for (one, two), similarity in found.similarity.items():
        assert (
            similarity == len(shingles[one] & shingles[two]) / len(shingles[one] | shingles[two]) >= threshold
        )
    assert found.large_buckets == 0


def test_real_rows_are_grouped_as_all_pairs_are(shared_data: Path) -> None:
    rows = read_conversations(shared_data / "train" / "alpagasus_3k_dolly.jsonl").conversations[:400]
    texts = [compared_row_text(row) for row in rows]
    assert sorted(near_duplicates(texts, 0.3, 2).groups) == groups_by_brute_force(texts, 0.3, 2)


def test_injected_near_duplicates_are_found_and_unlike_rows_are_not() -> None:
    draw = random.Random(3)
    originals = [draw.choices(VOCABULARY, k=100) for _ in range(1500)]
    copies = {row: edited(originals[row], 0.05, draw) for row in range(0, 1500, 5)}
    # Every fifth word replaced: most shingles hold one of them.
    unlike = [
        [draw.choice(VOCABULARY) if at % 5 == 0 else word for at, word in enumerate(words)]
        for words in originals[1:300:5]
    ]
    texts = [" ".join(words) for words in [*originals, *copies.values(), *unlike]]
    found = near_duplicates(texts)
    expected = [[row, len(originals) + place] for place, row in enumerate(copies)]
    hit = [group for group in found.groups if group in expected]
    assert len(hit) >= 0.98 * len(expected)
    assert hit == found.groups


def test_the_search_is_the_same_each_time_and_bounded_in_a_crowd() -> None:
    draw = random.Random(4)
    frame = draw.choices(VOCABULARY, k=60)
    texts = [" ".join([*frame, *draw.choices(VOCABULARY, k=2)]) for _ in range(700)]
    found = near_duplicates(texts)
    assert found.groups == [list(range(700))] and found.large_buckets > 0
    assert found == near_duplicates(texts)


def test_exact_duplicates_are_counted_after_normalising() -> None:
    rows = [
        conversation(chat, row=row)
        for row, chat in enumerate(
            [
                [user("What is  it?"), assistant("A cat.")],
                [user("what is it?\n"), assistant("a CAT.")],
                [user("What is it?"), assistant("A dog.")],
                [user("Ｗhat is it?"), assistant("A cat.")],
                [user("Something else"), assistant("A cat.")],
                [user("What is"), assistant("it?"), user("x"), assistant("y")],
            ]
        )
    ]
    found = exact_duplicates(rows)
    assert {
        kind: {key: value for key, value in group.items() if key != "largest"}
        for kind, group in found.items()
    } == {
        "instruction": {"groups": 1, "rows": 4, "extra_rows": 3},
        "row": {"groups": 1, "rows": 3, "extra_rows": 2},
        "conflicting": {"groups": 1, "rows": 4, "extra_rows": 3},
    }
    assert found["row"]["largest"] == [
        {
            "size": 3,
            "rows": [{"line": 1, "id": "row_0"}, {"line": 2, "id": "row_1"}, {"line": 4, "id": "row_3"}],
        }
    ]


def test_words_moved_from_instruction_to_output_make_another_row() -> None:
    rows = [conversation([user("a b"), assistant("c")]), conversation([user("a"), assistant("b c")], row=1)]
    assert exact_duplicates(rows)["row"]["groups"] == 0
