"""Overlaps of training and test sets: found where they were put, compared with a brute-force search, in
bounded memory."""

import json
import random
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_samples import write_lines
from training_runs import run

from instruction_modelling.analysis.overlap import items as overlap_items
from instruction_modelling.analysis.overlap import results as overlap_results
from instruction_modelling.analysis.overlap.index import OverlapIndex, OverlapSettings
from instruction_modelling.analysis.overlap.results import ItemText
from instruction_modelling.analysis.overlap.search import SearchResult, find_overlaps
from instruction_modelling.analysis.overlap.texts import texts_of, words_of
from instruction_modelling.errors import UserError


def chat(number: int, user: str, assistant: str) -> dict[str, Any]:
    return {
        "id": f"row_{number}",
        "dataset": "d",
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}],
    }


def pairs(found: SearchResult) -> set[tuple[int, int, str, str]]:
    """(training line, test line, test words, kind)"""
    return {(one.train_line, one.test.line, one.test.words, one.kind) for one in found.overlaps}


# -- an independent search ------------------------------------------------------------------------------


def plain_words(text: str) -> list[str]:
    """Word by word, character by character."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c if c.isalnum() else " " for c in folded).split()


def brute_force(
    train: list[list[str]], test: list[list[str]], settings: OverlapSettings
) -> set[tuple[int, int, str, str]]:
    """Rows and items as lists of texts; by the definitions, in quadratic time."""
    in_items = Counter(
        run for item in test for run in {run for text in item for run in plain_runs(text, settings.ngram)}
    )
    limit = max(settings.common_items, len(test) // 100)
    common = {run for run, items in in_items.items() if items > limit}
    return {
        (row, number, " ".join(plain_words(text)), kind)
        for row, texts in enumerate(train, start=1)
        for number, item in enumerate(test, start=1)
        for text in item
        if len(plain_words(text)) >= settings.min_words
        and (kind := kind_of_overlap(text, texts, common, settings))
    }


def plain_runs(text: str, size: int) -> set[tuple[str, ...]]:
    words = plain_words(text)
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def kind_of_overlap(
    text: str, train_texts: list[str], common: set[tuple[str, ...]], settings: OverlapSettings
) -> str | None:
    words = plain_words(text)
    same = any(plain_words(other) == words for other in train_texts)
    counted = plain_runs(text, settings.ngram) - common
    if not counted:
        lines = [line for other in train_texts if "\n" in other for line in other.split("\n")]
        as_line = any(plain_words(line) == words for line in lines)
        return "exact" if same else "contained" if as_line else None
    shared = {run for other in train_texts for run in plain_runs(other, settings.ngram)} & counted
    if not shared or len(shared) < settings.min_share * len(counted):
        return None
    return "exact" if same else "contained" if shared == counted else "partial"


words = st.lists(st.sampled_from(["a", "b", "C", "d,", "É", "e-f"]), max_size=9).map(" ".join)
texts = st.lists(st.one_of(words, st.tuples(words, words).map("\n".join)), min_size=1, max_size=2)


@given(
    train=st.lists(texts, min_size=1, max_size=6),
    test=st.lists(texts, min_size=1, max_size=6),
    settings=st.builds(
        OverlapSettings,
        ngram=st.just(3),
        min_share=st.sampled_from([0.3, 0.5, 1.0]),
        min_words=st.just(2),
        common_items=st.sampled_from([1, 2, 20]),
        max_memory_mb=st.sampled_from([370, 4000]),
    ),
)
def test_what_is_found_is_what_a_brute_force_search_finds(
    tmp_path_factory: pytest.TempPathFactory,
    train: list[list[str]],
    test: list[list[str]],
    settings: OverlapSettings,
) -> None:
    folder = tmp_path_factory.mktemp("overlap")
    if not any(len(plain_words(text)) >= 2 for item in test for text in item):
        return
    with pytest.MonkeyPatch.context() as patch:
        if settings.max_memory_mb == 370:
            # A part for every text or two.
            patch.setattr(overlap_items, "TEXT_BYTES", 30 << 20)
        found = find_overlaps(
            write_lines(folder / "train.jsonl", [{"texts": row} for row in train]),
            [write_lines(folder / "test.jsonl", [{"texts": item} for item in test])],
            settings,
        )
    assert pairs(found) == brute_force(train, test, settings)
    assert found.train_rows == len(train) and found.tests[0].items == len(test)


# -- what is compared -----------------------------------------------------------------------------------


LINE = "The quick brown fox jumps over the lazy dog near the river bank"


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        (LINE, "exact"),
        ("THE QUICK, brown fox -- jumps over\nthe *lazy* dog   near the river bank!", "exact"),
        (f"Translate this to French: “{LINE}”. Thank you.", "contained"),
        (f"{LINE.replace('dog', 'cat')} and more", "partial"),
        ("\uff34\uff48\uff45 quick brown fox jumps over the lazy dog near the river bank", "exact"),
        ("The quick brown fox sleeps, and over the lazy dog near it the river bank stands", None),
    ],
)
def test_forms_of_a_text(tmp_path: Path, inside: str, kind: str | None) -> None:
    train = write_lines(
        tmp_path / "train.jsonl",
        [chat(0, "What else is there to say?", "Nothing."), chat(1, inside, "Fine.")],
    )
    test = write_lines(tmp_path / "test.jsonl", [chat(0, LINE, "No.")])
    found = find_overlaps(train, [test], OverlapSettings(ngram=4, min_share=0.4))
    assert [(one.train_line, one.train_name, one.train_field, one.kind) for one in found.overlaps] == (
        [(2, "row_1", "user", kind)] if kind else []
    )


def test_short_texts_overlap_as_wholes_or_lines_and_the_shortest_not_at_all(tmp_path: Path) -> None:
    test = write_lines(
        tmp_path / "test.jsonl", [{"question": "Who wrote Hamlet, then?"}, {"question": "Yes."}]
    )
    train = write_lines(
        tmp_path / "train.jsonl",
        [
            chat(0, "who wrote HAMLET then", "Yes."),
            chat(1, "Answer in one word.\nWho wrote Hamlet then?", "Yes."),
            chat(2, "Tell me who wrote Hamlet then, please", "Yes."),
            chat(3, "Who?\nWho wrote Hamlet then?", "Who wrote Hamlet, then?"),
        ],
    )
    found = find_overlaps(train, [test], OverlapSettings())
    assert [(one.train_line, one.kind) for one in found.overlaps] == [
        (1, "exact"),
        (2, "contained"),
        (4, "exact"),
    ]
    assert (found.tests[0].texts, found.tests[0].short) == (2, 1)


def test_a_text_without_words_overlaps_with_nothing(tmp_path: Path) -> None:
    test = write_lines(tmp_path / "test.jsonl", [{"question": "Why?", "hint": "..."}])
    train = write_lines(tmp_path / "train.jsonl", [chat(0, "!", "?"), chat(1, "why", "")])
    search = find_overlaps(train, [test], OverlapSettings(min_words=1))
    assert [(overlap.train_line, overlap.test.field) for overlap in search.overlaps] == [(2, "question")]
    assert (search.tests[0].texts, search.tests[0].short) == (2, 1)


def test_a_fixed_opening_of_many_items_is_no_overlap(tmp_path: Path) -> None:
    opening = "The following are multiple choice questions with answers about the subject of"
    test = write_lines(tmp_path / "test.jsonl", [{"question": f"{opening} topic{n}."} for n in range(50)])
    train = write_lines(
        tmp_path / "train.jsonl", [chat(0, f"{opening} cooking.", "No."), chat(1, f"{opening} topic7", "No.")]
    )
    found = find_overlaps(train, [test], OverlapSettings())
    assert [(one.train_line, one.test.line) for one in found.overlaps] == [(2, 8)] and found.common_runs == 5


def test_system_prompts_and_tools_that_test_items_share_are_no_overlap(tmp_path: Path) -> None:
    """The application wrote them, and rows of both files have them; what one item alone has is its own."""
    system = "You are the assistant of a shop for lamps and answer briefly and never about other things."
    own = "Answer out of this text alone: the lamp was made in the year of the great flood by two brothers."
    tools = [
        {"name": "find", "description": "Finds a lamp by its name in the list of all the lamps we sell."}
    ]

    def row(number: int, role: str, setting: str, asked: str) -> dict[str, Any]:
        rest = chat(number, asked, "No.")
        messages = [{"role": role, "content": setting}, *rest["messages"]]
        return rest | {"messages": messages, "tools": tools}

    asked = "Which of the lamps that you sell burns for the longest time?"
    test = write_lines(
        tmp_path / "test.jsonl",
        [
            row(0, "system", system, asked),
            row(1, "Developer", system, "Why so?"),
            row(2, "system", own, "Who?"),
        ],
    )
    train = write_lines(
        tmp_path / "train.jsonl",
        [row(3, "system", system, "Hello!"), row(4, "system", own, "Bye!"), row(5, "system", system, asked)],
    )
    found = find_overlaps(train, [test], OverlapSettings(processes=1))
    assert [(one.train_line, one.test.line, one.test.field) for one in found.overlaps] == [
        (2, 3, "system"),
        (3, 1, "user"),
    ]
    # Two system prompts, and the description of the tool in each of three items (its name is a word).
    assert (found.tests[0].shared, found.tests[0].texts) == (2 + 2 * 3, 3 * (3 + 2))
    outcome = run("find_overlap", train, test, "--output_dir", tmp_path / "out", "--num_processes", 1)
    said = "8 system prompts and texts of tool definitions that several items have are not compared"
    assert said in outcome.out
    (counts,) = json.loads((tmp_path / "out" / "results.json").read_text())["tests"]
    assert (counts["settings_shared"], counts["items_with_overlap"]) == (8, 2)


def test_a_long_text_without_spaces_is_found_within_another(tmp_path: Path) -> None:
    question = "日本の首都はどこですか、そして人口は何人ですか"
    test = write_lines(tmp_path / "test.jsonl", [{"question": question}])
    train = write_lines(
        tmp_path / "train.jsonl", [chat(0, f"次の質問に答えてください。{question}。", "東京")]
    )
    assert [one.kind for one in find_overlaps(train, [test], OverlapSettings()).overlaps] == ["contained"]


@pytest.mark.parametrize(
    ("question", "other", "answer"),
    [
        # Hindi, Tamil, Arabic with points: five to six words within a longer sentence.
        ("भारत की राजधानी क्या है", "मुझे बताइए कि {} और वहाँ कितने लोग रहते हैं", "नई दिल्ली"),
        ("இந்தியாவின் தலைநகரம் எந்த நகரம் ஆகும்", "எனக்குச் சொல் {} அங்கே எத்தனை பேர்", "புது தில்லி"),
        ("مَا هِيَ عَاصِمَةُ مِصْرَ اليَوْمَ", "قل لي {} وكم عدد سكانها", "القاهرة"),
        ("เมืองหลวงของประเทศไทยคืออะไร", "บอกฉันหน่อยว่า{}และมีคนอยู่กี่คน", "กรุงเทพ"),
        ("印度的首都是什么", "请告诉我{}，那里住着多少人", "人工智能"),
        ("インドの首都はどこですか", "教えてください{}そこに何人住んでいますか", "ニューデリー"),
    ],
)
def test_words_with_marks_and_words_without_spaces_are_counted_as_words(
    tmp_path: Path, question: str, other: str, answer: str
) -> None:
    test = write_lines(tmp_path / "test.jsonl", [{"question": question, "answer": answer}])

    def kinds(rows: list[Any]) -> list[str]:
        return [
            o.kind
            for o in find_overlaps(
                write_lines(tmp_path / "x.jsonl", rows), [test], OverlapSettings()
            ).overlaps
        ]

    # As in English: shorter than a run of eight, so only a row that has it as a whole overlaps.
    assert kinds([chat(0, other.format(question), "x"), chat(1, "x", answer)]) == []
    assert kinds([chat(0, f"x\n{question}\ny", "z")]) == ["contained"]
    assert kinds([chat(0, question, "z")]) == ["exact"]


def test_words_that_differ_in_vowel_signs_alone_are_different_words() -> None:
    assert words_of("कल दिन में काली") == "कल दिन में काली" != words_of("काल दान में कली")
    assert words_of("தமிழ் মাসে").split() == ["தமிழ்", "মাসে"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tiếng Việt", unicodedata.normalize("NFD", "Tiếng Việt")),
        ("今天天气很好", "今 天 天 气 很 好"),
        ("今天天气很好", "今天 天气 很好"),
        ("เมืองหลวงของประเทศไทย", "เมือง หลวง ของ ประเทศไทย"),
        ("ＡＢＣ　１２", "abc 12"),
        ("می\u200cخواهم", "میخواهم"),
        ("كِتَابٌ", "كتاب"),
        ("ガギグ", "ｶﾞｷﾞｸﾞ"),
        ("한국어 조사", unicodedata.normalize("NFD", "한국어 조사")),
        ("soft\u00adware 👩\u200d👧", "software"),
    ],
)
def test_forms_that_a_reader_takes_for_the_same_have_the_same_words(one: str, other: str) -> None:
    assert words_of(one) == words_of(other)


def test_texts_are_every_string_but_names_and_numbers() -> None:
    row = {
        "id": "x",
        "task_id": "HumanEval/1",
        "question": "Q?",
        "choices": {"text": ["A", "B"], "label": ["1", "2"]},
        "n": 3,
    }
    assert [tuple(text) for text in texts_of(row)] == [("question", "Q?"), ("text", "A"), ("text", "B")]
    assert [tuple(text) for text in texts_of({"conversations": [{"from": "human", "value": "hi"}]})] == [
        ("human", "hi")
    ]
    assert words_of("Don't  stop_now—ÉTÉ 3.5%") == "don t stop now été 3 5"


# -- files, processes, memory ---------------------------------------------------------------------------


def some_rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(3000)]
    return [
        chat(
            n,
            " ".join(draw.choices(vocabulary, k=draw.randint(3, 40))),
            " ".join(draw.choices(vocabulary, k=20)),
        )
        for n in range(count)
    ]


def test_processes_and_parts_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(3000, 0)
    tests = some_rows(200, 1)
    for n in range(0, 200, 4):
        rows[n * 15]["messages"][0]["content"] += " " + tests[n]["messages"][1]["content"]
    train, test = write_lines(tmp_path / "train.jsonl", rows), write_lines(tmp_path / "test.jsonl", tests)
    monkeypatch.setattr("instruction_modelling.analysis.overlap.batches.BYTES_AT_ONCE", 50_000)
    one = find_overlaps(train, [test], OverlapSettings())
    two = find_overlaps(train, [test], OverlapSettings(processes=2))
    monkeypatch.setattr(overlap_items, "TEXT_BYTES", 1 << 20)
    monkeypatch.setattr(overlap_results, "BYTES_IN_MEMORY", 4000)
    monkeypatch.setattr(overlap_results, "_READ_AT_ONCE", 3)
    parts = find_overlaps(train, [test], OverlapSettings(max_memory_mb=400))
    # Also where most of what is found goes through a file on its way.
    assert list(one.overlaps) == list(two.overlaps) == list(parts.overlaps) == list(parts.overlaps)
    assert len(parts.overlaps) == len(list(one.overlaps)) and one.passes == two.passes == 1 < parts.passes
    assert {(o.train_line, o.test.line) for o in one.overlaps} == {
        (n * 15 + 1, n + 1) for n in range(0, 200, 4)
    }
    assert one.train_rows == two.train_rows == parts.train_rows == 3000


def test_an_index_takes_no_more_memory_than_is_reckoned_with(tmp_path: Path) -> None:
    import tracemalloc

    import numpy as np

    draw = random.Random(0)
    vocabulary = [f"word{n}" for n in range(5000)]
    texts = [ItemText(0, n, None, "q", " ".join(draw.choices(vocabulary, k=60))) for n in range(12_000)]
    runs = 53 * len(texts)
    tracemalloc.start()
    index = OverlapIndex(texts, np.zeros(0, dtype=np.uint64), OverlapSettings())
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index.runs) == runs
    # Hashing 6 MB of words in one piece takes 400 MB.
    assert held < peak < overlap_items.RUN_BYTES * runs + (30 << 20)


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", some_rows(3, 0))
    with pytest.raises(UserError, match="2 processes need at least 546"):
        find_overlaps(train, [train], OverlapSettings(processes=2, max_memory_mb=100))


def test_other_kinds_of_files_are_read(tmp_path: Path) -> None:
    import bz2
    import gzip

    train = tmp_path / "train.json"
    train.write_text(json.dumps([chat(0, "Nothing to see here, really.", "No."), chat(1, LINE, "No.")]))
    tests = [tmp_path / name for name in ("a.txt", "b.txt.bz2", "c.csv", "d.jsonl.gz")]
    tests[0].write_text(f"first line that is elsewhere nowhere to be found\n{LINE}\n")
    tests[1].write_bytes(bz2.compress(LINE.encode()))
    tests[2].write_text(f'"{LINE}",A,B\n')
    tests[3].write_bytes(gzip.compress((json.dumps({"q": LINE}) + "\n").encode()))
    found = find_overlaps(train, tests, OverlapSettings())
    assert [(one.train_line, one.test.file, one.test.line) for one in found.overlaps] == [
        (2, 0, 2),
        (2, 1, 1),
        (2, 2, 1),
        (2, 3, 1),
    ]


# -- the script -----------------------------------------------------------------------------------------


def test_the_lists_say_what_to_leave_out_and_the_rest_is_left_as_it_was(tmp_path: Path) -> None:
    raw = [
        json.dumps(chat(n, f"An ordinary question of number {n}, about nothing.", "So.")) + "\n"
        for n in range(5)
    ]
    raw[3] = json.dumps(chat(3, LINE, "So."), indent=None, separators=(",", ":")) + "\n"
    raw.insert(2, "not json\n")
    (tmp_path / "train.jsonl").write_text("".join(raw))
    test = write_lines(
        tmp_path / "test.jsonl",
        [{"id": "t0", "q": "Something else that nobody ever asked anywhere at all"}, {"id": "t1", "q": LINE}],
    )
    outcome = run(
        "find_overlap",
        tmp_path / "train.jsonl",
        test,
        "--output_dir",
        tmp_path / "out",
        "--write_clean",
        "--num_processes",
        1,
    )
    assert outcome.code == 0, outcome.err
    assert "1 of 5 rows overlap with a test set (1 more could not be read)" in outcome.out

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "out" / name).read_text().splitlines()]

    assert [(line["line"], line["id"], line["kind"]) for line in lines("remove_train.jsonl")] == [
        (5, "row_3", "exact")
    ]
    assert [(line["line"], line["id"]) for line in lines("remove_test.jsonl")] == [(2, "t1")]
    assert lines("overlaps.jsonl")[0]["words"] == LINE.lower()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["tests"][0]["by_kind"] == {"exact": 1, "contained": 0, "partial": 0}
    assert results["train"] | {"path": ""} == {
        "path": "",
        "rows": 5,
        "rows_refused": 1,
        "rows_with_overlap": 1,
    }
    assert (tmp_path / "out" / "train_clean.jsonl").read_text() == "".join(raw[:4] + raw[5:])
    # What is written overlaps with nothing.
    assert (
        "0 of 4 rows overlap"
        in run("find_overlap", tmp_path / "out" / "train_clean.jsonl", test, "--num_processes", 1).out
    )


def test_half_characters_are_no_obstacle_but_to_a_copy_of_their_row(tmp_path: Path) -> None:
    train = tmp_path / "train.json"
    train.write_text(json.dumps([chat(0, LINE, "No."), {**chat(1, "Fine " * 9, "\ud800"), "id": "a\ud800"}]))
    test = write_lines(tmp_path / "test.jsonl", [{"q": LINE}, {"q": "fine " * 9}])
    outcome = run("find_overlap", train, test, "--output_dir", tmp_path / "out", "--num_processes", 1)
    assert outcome.code == 0 and '"train_id":"a?"' in (tmp_path / "out" / "overlaps.jsonl").read_text()
    train.write_text(json.dumps([chat(0, LINE, "No."), chat(1, "Nothing to see here", "\ud800")]))
    outcome = run(
        "find_overlap", train, test, "--output_dir", tmp_path / "out", "--write_clean", "--num_processes", 1
    )
    assert (
        outcome.code == 2
        and "train.json:2: cannot be written as JSON" in outcome.err
        and "Traceback" not in outcome.err
    )


def test_mistakes_are_said_in_a_line(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", some_rows(2, 0))
    for arguments, said in (
        ([train], "name test files after the training file"),
        ([train, tmp_path / "no.jsonl"], "there is no such file"),
        ([train, train, "--min_share", 0], "--min_share 0.0 must be above 0"),
        ([train, train, "--write_clean"], "needs --output_dir"),
        ([train, write_lines(tmp_path / "short.jsonl", [{"a": "b"}])], "nothing can be compared"),
    ):
        outcome = run("find_overlap", *arguments)
        assert outcome.code == 2 and said in outcome.err.replace("so ", "") and "Traceback" not in outcome.err


# -- real data ------------------------------------------------------------------------------------------


def disturbed(text: str, draw: random.Random) -> str:
    """The same words in another form."""
    text = draw.choice([text.upper(), text.lower(), text.title(), text])
    return draw.choice(["", "Q: ", "- "]) + "  ".join(text.split()) + draw.choice(["", "!", " ..."])


def test_real_rows_are_found_in_real_rows_and_nothing_else_is(shared_data: Path, tmp_path: Path) -> None:
    """A test set like Tülu V2, which has LIMA's rows: 100 of LIMA's, disturbed, among 1,000 of Dolly's."""
    draw = random.Random(0)
    lima = [
        json.loads(line)
        for line in (shared_data / "train" / "lima_data.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    dolly = [
        json.loads(line)
        for line in (shared_data / "train" / "alpagasus_3k_dolly.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    chosen = draw.sample(range(1030), 100)
    injected = [
        {
            **lima[n],
            "messages": [{**m, "content": disturbed(m["content"], draw)} for m in lima[n]["messages"]],
        }
        for n in chosen
    ]
    test = write_lines(tmp_path / "test.jsonl", dolly[:1000] + injected)
    found = find_overlaps(shared_data / "train" / "lima_data.jsonl", [test], OverlapSettings(processes=2))
    hits = {(one.test.line - 1001, one.train_line - 1) for one in found.overlaps}
    assert len({item for item, row in hits if item >= 0 and row == chosen[item]}) >= 95
    # LIMA and Dolly share nothing, and what else LIMA shares with itself it really says twice.
    assert not {item for item, _ in hits if item < 0}
    for item, row in hits:
        if row != chosen[item]:
            both = [
                {
                    w
                    for m in lima[n]["messages"]
                    for w in zip(*(plain_words(m["content"])[k:] for k in range(8)), strict=False)
                }
                for n in (chosen[item], row)
            ]
            assert both[0] & both[1]


def test_lines_of_benchmarks_put_into_training_rows_are_found(shared_data: Path, tmp_path: Path) -> None:
    """Recall on lines of eight words and more, each put into the middle of a row, disturbed."""
    draw = random.Random(1)
    dolly = [
        json.loads(line)
        for line in (shared_data / "train" / "alpagasus_3k_dolly.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    questions = [
        json.loads(line)["question"]
        for line in (shared_data / "eval" / "gsm8k" / "test.jsonl").read_text().splitlines()
    ]
    sentences = [s for q in questions for s in q.split(". ") if len(s.split()) >= 8][:1500]
    for n, sentence in enumerate(sentences):
        content = dolly[n]["messages"][0]["content"].split()
        at = draw.randint(0, len(content))
        dolly[n]["messages"][0]["content"] = " ".join(
            [*content[:at], disturbed(sentence, draw), *content[at:]]
        )
    (tmp_path / "test.txt").write_text("".join(sentence.replace("\n", " ") + "\n" for sentence in sentences))
    found = find_overlaps(
        write_lines(tmp_path / "train.jsonl", dolly), [tmp_path / "test.txt"], OverlapSettings(processes=2)
    )
    rows = {(one.test.line, one.train_line) for one in found.overlaps}
    recall = sum((n + 1, n + 1) in rows for n in range(len(sentences))) / len(sentences)
    assert recall >= 0.95, recall
    # Rows that nothing was put into.
    assert not {row for _, row in rows if row > len(sentences)}
