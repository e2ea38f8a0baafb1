"""The split: near-duplicates stay together in any order of the rows, and a seed's subset is its own."""

import random

import pytest

from instruction_modelling.decision.split import (
    LEAST_TEST,
    near_duplicate_clusters,
    split_rows,
    training_subset,
)
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.rows.messages import Message

WORDS = [f"word{n}" for n in range(3000)]


def conversation(row: int, user: str, answer: str, system: str = "") -> Conversation:
    messages = [Message("user", user), Message("assistant", answer)]
    return Conversation(
        row=row,
        line=row + 1,
        id=str(row),
        dataset="",
        messages=(*([Message("system", system)] if system else []), *messages),
    )


def texts(count: int) -> list[tuple[str, str]]:
    draw = random.Random(0)
    return [(" ".join(draw.sample(WORDS, 12)), " ".join(draw.sample(WORDS, 8))) for _ in range(count)]


def test_near_duplicates_of_the_user_text_or_of_the_row_are_one_cluster() -> None:
    pairs = texts(4)
    rows = [conversation(i, user, answer) for i, (user, answer) in enumerate(pairs)]
    rows.append(conversation(4, pairs[0][0].upper() + " more", pairs[1][1]))
    rows.append(conversation(5, pairs[2][0], "another answer altogether"))
    assert sorted(near_duplicate_clusters(rows)) == [[0, 4], [1], [2, 5], [3]]


def test_a_system_prompt_that_all_rows_share_makes_no_cluster() -> None:
    prompt = " ".join(WORDS[:200])
    rows = [conversation(i, user, answer, prompt) for i, (user, answer) in enumerate(texts(6))]
    assert sorted(near_duplicate_clusters(rows)) == [[i] for i in range(6)]


def test_the_split_follows_from_texts_and_holds_each_row_once() -> None:
    pairs = texts(200)
    pairs[10:40] = [(pairs[10][0], answer) for _, answer in pairs[10:40]]
    rows = [conversation(i, *pair) for i, pair in enumerate(pairs)]
    split = split_rows(rows)
    assert sorted([*split.test, *split.validation, *split.pool]) == list(range(200))
    assert (len(split.test), len(split.validation)) == (66, 20) and split.clusters == 1
    alike = set(range(10, 40))
    assert sum(bool(alike & set(part)) for part in (split.test, split.validation, split.pool)) == 1
    backwards = split_rows([conversation(i, *pair) for i, pair in enumerate(reversed(pairs))])
    assert {pairs[i] for i in split.test} == {pairs[199 - i] for i in backwards.test}


def test_too_few_rows_end_at_once_with_the_number_needed() -> None:
    rows = [conversation(i, *pair) for i, pair in enumerate(texts(30))]
    with pytest.raises(UserError, match=rf"30 usable rows: too few .* it takes 120, of which {LEAST_TEST}"):
        split_rows(rows)


def test_rows_that_are_all_alike_are_refused() -> None:
    user, answer = texts(1)[0]
    with pytest.raises(UserError, match="150 rows, of which 150 say or ask nearly the same as others: no 40"):
        split_rows([conversation(i, user, answer) for i in range(150)])


def test_a_seed_draws_rows_of_its_own() -> None:
    first, second = training_subset(100, 50, 0), training_subset(100, 50, 1)
    assert first == training_subset(100, 50, 0) and first != second
    assert len(set(first)) == 50 and first == sorted(first) and max(first) < 100


def test_rows_of_one_form_are_compared_by_what_stands_in_its_gaps() -> None:
    form, pairs = " ".join(WORDS[:60]), texts(40)
    rows = [conversation(i, f"{form} {user}", "yes") for i, (user, _) in enumerate(pairs)]
    rows.append(conversation(40, f"{form} {pairs[7][0]} really", "no"))
    rows.append(conversation(41, f"{form} {pairs[9][0]}", "yes"))
    expected = [[7, 40], [9, 41], *([i] for i in range(40) if i not in (7, 9))]
    assert sorted(near_duplicate_clusters(rows)) == sorted(expected)
    # One question that many rows ask is no form: its rows stay together.
    asked = [conversation(i, form, answer) for i, (_, answer) in enumerate(pairs)]
    assert sorted(near_duplicate_clusters(asked)) == [list(range(40))]


def test_rows_of_one_form_that_have_the_same_long_response_stay_together() -> None:
    form, pairs = " ".join(WORDS[:60]), texts(60)
    said = " ".join(WORDS[100:130])
    rows = [conversation(i, f"{form} {WORDS[200 + i]}", said) for i in range(30)]
    rows += [conversation(30 + i, *pair) for i, pair in enumerate(pairs)]
    assert sorted(near_duplicate_clusters(rows)) == [list(range(30)), *([i] for i in range(30, 90))]
    # A label is what many texts are given, in a word or in a sentence.
    sentences = [
        conversation(i, f"{form} {pairs[i][0]}", f"{said} {'yes' if i % 3 else 'no'}") for i in range(30)
    ]
    others = [conversation(30 + i, *pair) for i, pair in enumerate(pairs[30:])]
    assert sorted(near_duplicate_clusters([*sentences, *others])) == [[i] for i in range(60)]
    labelled = [conversation(i, f"{form} {WORDS[200 + i]}", "yes") for i in range(30)]
    assert sorted(near_duplicate_clusters([*labelled, *rows[30:]])) == [[i] for i in range(90)]


def test_copies_of_a_test_row_are_listed_and_a_large_cluster_is_not_tested_on() -> None:
    pairs = texts(400)
    rows = [conversation(i, *pair) for i, pair in enumerate([*pairs, *pairs[:60], *pairs[:60]])]
    split = split_rows(rows)
    groups = [group for group in ([i, 400 + i, 460 + i] for i in range(60)) if group[0] in split.test]
    assert split.alike == sorted(groups) and split.clusters == 60 and groups
    assert split.distinct == len(split.test) - 2 * len(groups) >= LEAST_TEST
    # One pair among few rows: it is trained on, and 40 others are tested on.
    few = [conversation(i, *pair) for i, pair in enumerate([*pairs[:119], pairs[5]])]
    assert split_rows(few).distinct >= LEAST_TEST
    many = [conversation(i, *pair) for i, pair in enumerate([*pairs, *[pairs[0]] * 12])]
    split = split_rows(many)
    # 137 are tested on: a cluster of more than 6 takes too much of their room.
    assert len(split.test) == 137 and not {0, *range(400, 412)} & {*split.test} and not split.alike
    with pytest.raises(UserError, match="no 40 that differ can be tested on"):
        split_rows([conversation(i, *pair) for i, pair in enumerate(pairs[:75] * 2)])
