"""Published dialogues convert to rows of chat, format by format."""

import json
from pathlib import Path
from typing import Any

import pytest
from conversions import WordTokenizer, contents, converted
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_samples import node, read_lines, turns, write_json, write_parquet

from instruction_modelling.errors import UserError


def test_lima_alternates_roles_and_cuts_off_an_unanswered_last_message(tmp_path: Path) -> None:
    written, report = converted(
        "lima",
        [
            {"conversations": ["q", "a", "q2"]},
            {"conversations": ["q"]},
            {"conversations": []},
            {"conversations": ["q", 3]},
            {"source": "x"},
            {"conversations": [" q\n", "a", "b", "c"]},
        ],
        tmp_path,
    )
    assert [contents(row) for row in written] == [
        [("u", "q"), ("a", "a")],
        [("u", " q\n"), ("a", "a"), ("u", "b"), ("a", "c")],
    ]
    assert report.refused == {"no answer": 1, "no conversations": 2, "message is not a string": 1}
    assert report.notes == {"unanswered last message cut off": 2}


def test_lima_gives_the_shipped_file(shared_data: Path, tmp_path: Path) -> None:
    shipped = read_lines(shared_data / "train" / "lima_data.jsonl")
    raw = [
        {"conversations": [message["content"] for message in row["messages"]], "source": ""}
        for row in shipped
    ]
    assert converted("lima", raw, tmp_path)[0] == shipped


def test_wizardlm_needs_turns(tmp_path: Path) -> None:
    rows = [
        {"idx": 1, "conversations": turns("q", "a")},
        {"idx": 2, "conversations": turns("q", "a", "b")},
        {"idx": 3, "conversations": turns("q", "a")[::-1]},
    ]
    written, report = converted("wizardlm", rows, tmp_path)
    assert [contents(row) for row in written] == [[("u", "q"), ("a", "a")]]
    assert report.refused == {"no turns of user and assistant": 2}


def test_sharegpt_refuses_senders_it_does_not_know(shared_data: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "x", "conversations": [{"from": "user", "value": "q"}, {"from": "chatgpt", "value": "a"}]},
        {"id": "x", "conversations": [{"from": "system", "value": "s"}, *turns("q", "a")]},
        {"id": "x", "conversations": [*turns("q", "a"), {"from": "bing", "value": "b"}]},
        {"id": "x", "conversations": [{"from": None, "value": "q"}]},
        {"id": "x", "conversations": turns("q")},
    ]
    written, report = converted("sharegpt", rows, tmp_path, max_tokens=0)
    assert [contents(row) for row in written] == [[("u", "q"), ("a", "a")]]
    assert report.refused == {"system message": 1, "bing message": 1, "unknown sender": 1, "no answer": 1}
    path = shared_data / "raw" / "sharegpt" / "fastchat_dummy_conversation.json"
    written, _ = converted("sharegpt", path, tmp_path, max_tokens=0)
    assert [[c for _, c in contents(row)] for row in written] == [
        [m["value"] for m in r["conversations"]] for r in json.loads(path.read_bytes())
    ]
    _, report = converted(
        "sharegpt",
        shared_data / "raw" / "sharegpt" / "llamafactory_glaive_toolcall_en_demo.json",
        tmp_path,
        max_tokens=0,
    )
    assert (report.rows_written, report.refused) == (147, {"unknown sender": 153})


def test_sharegpt_is_split_between_turns_and_no_turn_is_lost(tmp_path: Path) -> None:
    def said(*words: int) -> list[dict[str, str]]:
        return turns(*(f"{place} " + "w " * (count - 1) for place, count in enumerate(words)))

    # A message of n words counts n + 1 tokens and 6 around it; at most 40 tokens are one turn of 26 words.
    rows = [
        {"id": "a", "conversations": said(5, 5, 5, 5, 5, 5)},  # 24 each: every turn for itself
        {"id": "b", "conversations": said(1, 1, 1, 1, 1, 1)},  # 16 each: two and one
        {"id": "c", "conversations": said(1, 1, 20, 20, 1, 1)},  # the middle one is too long
        {"id": "d", "conversations": [*said(1, 1, 1)]},  # the last question has no answer
        {"id": "e", "conversations": said(1, 1)[::-1]},
    ]
    written, report = converted("sharegpt", rows, tmp_path, max_tokens=40, tokenizer=WordTokenizer())
    assert [[content.split()[0] for _, content in contents(row)] for row in written] == [
        ["0", "1"],
        ["2", "3"],
        ["4", "5"],
        ["0", "1", "2", "3"],
        ["4", "5"],
        ["0", "1"],
        ["4", "5"],
        ["0", "1"],
    ]
    assert report.refused == {
        "one turn is longer than a piece may be": 1,
        "no turns of user and assistant": 1,
    }
    assert report.notes == {"unanswered last message cut off": 1}
    # The published splitter loses the last turn wherever that does not fit into the piece before it.
    written, report = converted(
        "sharegpt", rows, tmp_path, max_tokens=40, tokenizer=WordTokenizer(), released_split=True
    )
    assert [[content.split()[0] for _, content in contents(row)] for row in written] == [
        ["0", "1"],
        ["2", "3"],
        ["0", "1", "2", "3"],
        ["0", "1"],
        ["0", "1"],
    ]
    assert report.refused["last turn, lost as the published splitter does"] == 3


def published_pieces(counts: list[int], most: int) -> list[tuple[int, int]]:
    """The published splitter's rule, told by positions: a piece ends where the next turn does not fit, or at
    the last turn."""
    pieces, start, total = [], 0, 0
    for place in range(0, len(counts), 2):
        turn = counts[place] + counts[place + 1] + 12
        if total + turn > most:
            pieces.append((start, place))
            start, total = (place + 2 if turn > most else place), 0
        elif place + 2 == len(counts):
            pieces.append((start, place + 2))
        total += turn
    return [piece for piece in pieces if piece[0] < piece[1]]


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=12), most=st.integers(14, 80))
def test_splits_cover_every_turn_once_or_follow_the_published_rule(lengths: list[int], most: int) -> None:
    from instruction_modelling.sources.conversion.split import PieceKind, split_conversation

    counts = [length for length in lengths for _ in range(2)]
    pieces = list(split_conversation(counts, most))
    assert [place for piece in pieces for place in range(piece.start, piece.end)] == list(range(len(counts)))
    for piece in pieces:
        total = sum(counts[piece.start : piece.end]) + 6 * (piece.end - piece.start)
        assert (total <= most) == (piece.kind is PieceKind.KEPT)
    released = list(split_conversation(counts, most, released=True))
    assert [place for piece in released for place in range(piece.start, piece.end)] == list(
        range(len(counts))
    )
    assert [
        (piece.start, piece.end) for piece in released if piece.kind is PieceKind.KEPT
    ] == published_pieces(counts, most)


def test_sharegpt_needs_a_tokenizer_for_whole_conversations_only(tmp_path: Path) -> None:
    rows = [{"id": "x", "conversations": turns("q", "a")}]
    with pytest.raises(UserError, match="split at 4096 tokens with a tokenizer"):
        converted("sharegpt_4096", rows, tmp_path)
    split = write_json(tmp_path / "sharegpt_html_cleaned_and_split_4096.json", rows)
    written, _ = converted("sharegpt_4096", split, tmp_path)
    assert written[0]["dataset"] == "sharegpt" and written[0]["id"] == "sharegpt_0"


def test_baize_splits_one_text_into_turns(shared_data: Path, tmp_path: Path) -> None:
    rows = [
        {"topic": "t", "input": "A talk.\n[|Human|] q \n[|AI|] a\n[|Human|] "},
        {"input": "[|Human|] q\n[|AI|] a\n[|Human|] q2"},
        {"input": "[|Human|] q\n[|AI|] a [|AI|] b"},
        {"input": "no marks"},
        {"input": "[|Human|] q\n[|Human|] r\n[|AI|] a"},
        {"topic": "t"},
    ]
    written, report = converted("baize", rows, tmp_path)
    assert [contents(row) for row in written] == [[("u", "q"), ("a", "a")]] * 2
    assert report.refused == {"no turns of user and assistant": 2, "no answer": 1, "no input": 1}
    assert report.notes == {"unanswered last message cut off": 1}
    written, report = converted("baize", shared_data / "raw" / "baize" / "quora_chat_data.json", tmp_path)
    assert (len(written), report.refused.total()) == (96, 0)
    assert all("[|" not in content for row in written for _, content in contents(row))


def test_oasst_paths_end_at_the_last_answer(tmp_path: Path) -> None:
    deleted = node("assistant", "gone", node("prompter", "gone too"), deleted=True)
    tree = node(
        "prompter",
        "q",
        node("assistant", "a1", node("prompter", "q2", node("assistant", "a2"))),
        node("assistant", "a3", deleted),
        node("assistant", "a4", node("prompter", "nobody answered")),
        deleted,
    )
    rows = [
        {"prompt": tree},
        {"prompt": node("prompter", "q", deleted=True)},
        {"prompt": None},
        {"prompt": node("prompter", "q", node("narrator", "once"))},
    ]
    written, report = converted("oasst1", rows, tmp_path)
    assert [contents(row) for row in written] == [
        [("u", "q"), ("a", "a1"), ("u", "q2"), ("a", "a2")],
        [("u", "q"), ("a", "a3")],
    ]
    assert report.refused == {"deleted message": 3, "no answer": 1, "no prompt": 1, "unknown role": 1}


def test_oasst_follows_the_best_replies_and_takes_a_missing_quality_as_0(tmp_path: Path) -> None:
    tree = node(
        "prompter",
        "q",
        node(
            "assistant", "unlabelled", node("prompter", "x", node("assistant", "y"), node("assistant", "z"))
        ),
        node("assistant", "best", quality=0.8),
        node("assistant", "null labels", labels=None),
        node("assistant", "second", quality=0.3),
        node("assistant", "as good", quality=0.3),
    )
    written, report = converted("oasst1", [{"prompt": tree}], tmp_path, best_replies=1)
    assert [contents(row)[-1][1] for row in written] == ["best"]
    assert report.left_out == {"not among the best replies": 5}
    assert report.notes == {"reply without a quality label, taken as 0": 2}
    written, report = converted("oasst1", [{"prompt": tree}], tmp_path, best_replies=2)
    assert [contents(row)[-1][1] for row in written] == ["best", "second"]


def leaves_of(message: dict[str, Any], best: int | None) -> list[list[str]]:
    """The texts along each path to a last answer, by another way round: from the leaves up."""
    there = [reply for reply in message["replies"] if not reply.get("deleted")]
    if best is not None:
        there.sort(key=lambda reply: -((reply.get("labels") or {}).get("quality") or {"value": 0.0})["value"])
        there = there[:best]
    if not there:
        return [[message["text"]]] if message["role"] == "assistant" else []
    return [[message["text"], *path] for reply in there for path in leaves_of(reply, best)]


@pytest.mark.parametrize("best", [None, 1, 2])
@pytest.mark.parametrize(("file", "trees"), [("en_100_tree", 100), ("oasst2_filtered", 551)])
def test_the_real_oasst_trees_give_every_path(
    shared_data: Path, tmp_path: Path, file: str, trees: int, best: int | None
) -> None:
    path = shared_data / "raw" / "oasst" / f"{file}.jsonl"
    written, _ = converted("oasst1", path, tmp_path, best_replies=best)
    raw = read_lines(path)
    expected = [
        texts
        for tree in raw
        if not tree["prompt"].get("deleted")
        for texts in leaves_of(tree["prompt"], best)
    ]
    assert len(raw) == trees and [[content for _, content in contents(row)] for row in written] == expected
    assert all(
        [role for role, _ in contents(row)] == ["u", "a"] * (len(row["messages"]) // 2) for row in written
    )


def test_open_orca_reads_parquet_and_leaves_out_empty_system_prompts(tmp_path: Path) -> None:
    rows = [
        {"id": f"o{i}", "system_prompt": system, "question": "q", "response": "r"}
        for i, system in enumerate(["Be kind.", "", None, " "])
    ]
    written, _ = converted("open_orca", write_parquet(tmp_path / "o.parquet", rows), tmp_path)
    assert [contents(row) for row in written] == [[("s", "Be kind."), ("u", "q"), ("a", "r")]] + [
        [("u", "q"), ("a", "r")]
    ] * 3


def test_less_keeps_what_rows_say_of_themselves_and_replaces_an_id_that_comes_twice(
    shared_data: Path, tmp_path: Path
) -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [
        {"dataset": "cot", "id": "cot_7", "messages": chat},
        {"dataset": "cot", "id": "cot_7", "messages": chat},
        {"messages": chat},
        {"messages": chat[:1]},
        {"messages": [{"role": "robot", "content": ""}]},
        {"messages": []},
    ]
    written, report = converted("less", rows, tmp_path)
    assert [(row["dataset"], row["id"]) for row in written] == [
        ("cot", "cot_7"),
        ("cot", "less_1"),
        ("less", "less_2"),
    ]
    assert report.refused == {"no answer": 1, "unknown role": 1, "no messages": 1}
    assert report.notes == {"id that an earlier row has, replaced": 1}
    shipped = shared_data / "train" / "alpagasus_3k_dolly.jsonl"
    assert converted("less", shipped, tmp_path)[0] == read_lines(shipped)
