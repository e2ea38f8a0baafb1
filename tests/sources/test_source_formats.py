"""Published data convert to rows of chat, format by format; no row vanishes without being counted."""

import gzip
import hashlib
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_samples import (
    alpaca_rows,
    node,
    read_lines,
    turns,
    write_json,
    write_lines,
    write_parquet,
    write_sheet,
)

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.sources.conversion.formats import CONVERTERS, convert, raw_files_of
from instruction_modelling.sources.conversion.report import ConversionReport
from instruction_modelling.sources.conversion.templates import PromptTemplate, PromptTemplates


class WordTokenizer:
    """One token a word, and one before the text, as Llama's."""

    name_or_path = "words"

    def __call__(self, texts: list[str], verbose: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] + [2] * len(text.split()) for text in texts]}


def converted(
    name: str, rows: list[Any] | Path, folder: Path, **options: Any
) -> tuple[list[Any], ConversionReport]:
    """The rows written and the report; what is always true of them is checked here."""
    path = rows if isinstance(rows, Path) else write_lines(folder / "raw" / f"{name}.jsonl", rows)
    report = convert(name, [path], folder / f"{name}_data.jsonl", **options)
    written = read_lines(report.output)
    assert report.rows_read == report.rows_written + report.refused.total() + report.left_out.total()
    assert len(written) == report.rows_written
    assert len({row["id"] for row in written}) == len(written)
    assert all(list(row) == ["dataset", "id", "messages"] for row in written)
    assert (len(read_lines(report.refusals)) if report.refusals.exists() else 0) == report.refused.total()
    return written, report


def contents(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"][0], message["content"]) for message in row["messages"]]


# ---- formats of one instruction and one output


@pytest.mark.parametrize(
    "name", ["stanford_alpaca", "code_alpaca", "gpt4_alpaca", "self_instruct", "alpagasus_3k_dolly"]
)
def test_alpaca_shaped_rows_join_instruction_and_input_by_an_empty_line(name: str, tmp_path: Path) -> None:
    rows = [
        {"instruction": " Add. ", "input": " 1 2\n", "output": "3 "},
        {"instruction": "Hi", "input": " ", "output": ""},
        {"instruction": "Hi", "output": "Ho"},
        {"instruction": "", "input": "only this", "output": "ok"},
    ]
    written, report = converted(name, rows, tmp_path)
    assert [contents(row) for row in written] == [
        [("u", "Add.\n\n1 2"), ("a", "3")],
        [("u", "Hi"), ("a", "")],
        [("u", "Hi"), ("a", "Ho")],
        [("u", "only this"), ("a", "ok")],
    ]
    assert {row["dataset"] for row in written} == {name} and report.refused.total() == 0


def test_rows_that_are_no_rows_are_counted_by_reason_and_listed_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "alpaca_data.jsonl"
    good = '{"instruction": "a", "input": "", "output": "b"}'
    path.write_text(
        "\n".join(
            [
                good,
                "{nonsense",
                "[]",
                '"text"',
                '{"instruction": "a", "input": ""}',
                '{"instruction": 7, "output": ""}',
                '{"instruction": " ", "input": null, "output": "b"}',
                '{"instruction": "half \\ud83d", "input": "", "output": "b"}',
                good,
            ]
        )
    )
    written, report = converted("stanford_alpaca", path, tmp_path)
    assert [row["id"] for row in written] == ["stanford_alpaca_0", "stanford_alpaca_8"]
    assert report.refused == {
        "not JSON": 1,
        "not an object": 2,
        "no output": 1,
        "instruction is not a string": 1,
        "no instruction": 1,
        "lone surrogate": 1,
    }
    listed = read_lines(report.refusals)
    assert [(entry["line"], entry["reason"]) for entry in listed][:2] == [
        (2, "not JSON"),
        (3, "not an object"),
    ]
    assert {entry["file"] for entry in listed} == {str(path)}
    assert [refusal.line for refusal in report.examples] == [2, 3, 4, 5, 6, 7, 8]


def test_the_real_alpaca_files_convert_whole_and_in_order(shared_data: Path, tmp_path: Path) -> None:
    files = {
        "stanford_alpaca": ("stanford_alpaca/alpaca_5000.json", 5000, 2),
        "code_alpaca": ("code_alpaca/code_alpaca_2k.json", 2017, 2),
        "gpt4_alpaca": ("alpaca_format/llamafactory_alpaca_en_demo.json", 999, 0),
        "hard_coded": ("hard_coded/llamafactory_identity.json", 91, 0),
    }
    for name, (file, count, empty) in files.items():
        path = shared_data / "raw" / file
        written, report = converted(name, path, tmp_path)
        raw = json.loads(path.read_bytes())
        assert len(written) == count == len(raw) and report.refused.total() == 0
        assert sum(not contents(row)[1][1] for row in written) == empty
        for source, row in zip(raw, written, strict=True):
            parts = [part for part in (source["instruction"].strip(), source["input"].strip()) if part]
            assert contents(row) == [("u", "\n\n".join(parts)), ("a", source["output"].strip())]
        assert len(read_conversations(report.output).conversations) == count


def test_dolly_reads_context_and_response(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "raw" / "dolly" / "litgpt_dolly.json"
    written, _ = converted("dolly", path, tmp_path)
    first = json.loads(path.read_bytes())[0]
    assert contents(written[0]) == [
        ("u", f"{first['instruction']}\n\n{first['context']}"),
        ("a", first["response"]),
    ]
    assert len(written) == 12


def test_self_instruct_takes_every_instance_of_a_seed_task(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "raw" / "self_instruct" / "seed_tasks.jsonl"
    written, _ = converted("self_instruct", path, tmp_path)
    expected = [
        (task["instruction"].strip(), instance["input"].strip(), instance["output"].strip())
        for task in read_lines(path)
        for instance in task["instances"]
    ]
    assert [contents(row) for row in written] == [
        [("u", "\n\n".join(filter(None, e[:2]))), ("a", e[2])] for e in expected
    ]


def test_unnatural_instructions_put_constraints_under_the_instruction_unless_they_say_none(
    tmp_path: Path,
) -> None:
    instances = [
        {"input": "x", "constraints": c, "output": "y"} for c in (None, "", "None.", "NONE", "Be brief.")
    ]
    written, report = converted(
        "unnatural_instructions",
        [
            {"instruction": "Do.", "instances": [*instances, "broken", {"input": "z"}]},
            {"instruction": "No instance", "instances": []},
        ],
        tmp_path,
    )
    assert [contents(row)[0][1] for row in written] == ["Do.\n\nx"] * 4 + ["Do.\nBe brief.\n\nx"]
    assert report.refused == {"not an object": 1, "no output": 1, "no instances": 1}


@pytest.mark.parametrize("name", ["flan_v2", "cot"])
def test_a_flan_prompt_gets_a_line_break_unless_it_ends_in_one_or_in_a_colon(
    name: str, tmp_path: Path
) -> None:
    prompts = ["a", "a\n", "a: ", "a:\n\n", " a "]
    written, _ = converted(name, [{"inputs": prompt, "targets": " b\n"} for prompt in prompts], tmp_path)
    assert [contents(row) for row in written] == [
        [("u", prompt), ("a", " b\n")] for prompt in ("a\n", "a\n", "a: ", "a:\n\n", " a \n")
    ]


def test_cot_reads_flans_own_columns(shared_data: Path, tmp_path: Path) -> None:
    for name, count in (("aqua", 2728), ("creak", 6915), ("qasc", 1084), ("strategyqa", 2061)):
        written, report = converted("cot", shared_data / "raw" / "cot" / f"{name}_train.tsv", tmp_path)
        assert (len(written), report.refused.total()) == (count, 0)
    assert contents(written[0])[0][1] == "Are more people today related to Genghis Khan than Julius Caesar?\n"
    assert contents(written[0])[1][1].startswith("Julius Caesar had three") and contents(written[0])[1][
        1
    ].endswith("Genghis Khan.\nyes")
    path = tmp_path / "x_train.tsv"
    path.write_text("Q?\\nOptions:\\n- a\tb\tsince\\nso\nQ\tb\nQ\t\tsince\nQ\tb\t \n\t b\tsince\n")
    written, report = converted("cot", path, tmp_path)
    assert [contents(row) for row in written] == [[("u", "Q?\nOptions:\n- a\n"), ("a", "since\nso\nb")]]
    assert report.refused == {"not three columns": 1, "no answer": 1, "no rationale": 1, "no instruction": 1}


def test_science_names_its_task_and_hard_coded_reads_a_sheet(tmp_path: Path) -> None:
    written, report = converted(
        "science",
        [{"dataset": "qasper", "input": " p ", "output": " f "}, {"input": "p", "output": "f"}],
        tmp_path,
    )
    assert [(row["dataset"], row["id"], contents(row)) for row in written] == [
        ("science.qasper", "science_0", [("u", " p "), ("a", " f ")])
    ]
    assert report.refused == {"no dataset": 1}
    sheet = write_sheet(
        tmp_path / "h.xlsx", [["Prompt", "Output"], ["Who?", "Tülu."], ["When?", None], ["Year?", 2023]]
    )
    written, report = converted("hard_coded", sheet, tmp_path)
    assert [contents(row) for row in written] == [[("u", "Who?"), ("a", "Tülu.")]]
    assert report.refused == {"no Output": 1, "Output is not a string": 1}


# ---- Super-NaturalInstructions


def task(count: int, **more: Any) -> dict[str, Any]:
    return {
        "Definition": ["Say it. "],
        "Positive Examples": [{"input": f"e{i}", "output": f"o{i}"} for i in range(3)],
        "Instances": [
            {"id": f"t-{i}", "input": f"in {i}", "output": [f"out {i}", "other"]} for i in range(count)
        ],
        **more,
    }


def test_super_ni_takes_zero_shot_instances_then_few_shot_ones(tmp_path: Path) -> None:
    written, report = converted("super_ni", write_json(tmp_path / "t.json", task(62)), tmp_path)
    assert report.left_out == {} and len(written) == 62
    assert contents(written[59]) == [("u", "Say it.\n\nin 59"), ("a", "out 59")]
    rng = random.Random(42)
    [rng.random() for _ in range(60)]
    one, two = rng.sample(task(0)["Positive Examples"], k=2)
    assert contents(written[60])[0][1] == (
        f"Say it.\n\nInput:\n{one['input']}\nOutput:\n{one['output']}\n\nInput:\n{two['input']}\n"
        f"Output:\n{two['output']}\n\nInput:\nin 60\nOutput:\n"
    )


def test_super_ni_draws_eighty_of_more_instances_and_counts_the_others(tmp_path: Path) -> None:
    written, report = converted("super_ni", write_json(tmp_path / "t.json", task(200)), tmp_path)
    assert (len(written), report.left_out) == (80, {"not drawn": 120})
    drawn = random.Random(42).sample(range(200), k=80)
    assert [contents(row)[1][1] for row in written] == [f"out {i}" for i in drawn]


def test_super_ni_takes_a_definition_and_outputs_that_are_strings_whole(tmp_path: Path) -> None:
    odd = task(
        1,
        Definition="One string.",
        Instances=[
            {"input": "q", "output": "word"},
            {"input": "q", "output": []},
            {"input": "", "output": ["x"]},
        ],
    )
    written, report = converted("super_ni", write_json(tmp_path / "t.json", odd), tmp_path)
    assert [contents(row) for row in written] == [
        [("u", "One string.\n\nq"), ("a", "word")],
        [("u", "One string."), ("a", "x")],
    ]
    assert report.refused == {"output is not a string": 1}


def test_the_real_super_ni_task_converts(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "raw" / "super_ni" / "tasks" / "task062_bigbench_repeat_copy_logic.json"
    written, _ = converted("super_ni", path, tmp_path)
    raw = json.loads(path.read_bytes())
    assert [contents(row) for row in written] == [
        [("u", f"{raw['Definition'][0]}\n\n{instance['input']}"), ("a", instance["output"][0])]
        for instance in raw["Instances"]
    ]


def test_super_ni_tasks_are_those_of_the_training_split_without_mmlu(tmp_path: Path) -> None:
    root = tmp_path / "super_ni"
    (root / "splits" / "xlingual").mkdir(parents=True)
    (root / "splits" / "xlingual" / "train_tasks.txt").write_text("task2_b\ntask7_mmmlu_law\ntask1_a\n")
    for name in ("task1_a", "task2_b", "task3_test", "task7_mmmlu_law"):
        write_json(root / "tasks" / f"{name}.json", task(1))
    assert [path.stem for path in raw_files_of("super_ni", tmp_path)] == ["task2_b", "task1_a"]
    (root / "tasks" / "task1_a.json").unlink()
    with pytest.raises(UserError, match=r"1 of its 2 tasks .* task1_a\.json"):
        raw_files_of("super_ni", tmp_path)


# ---- dialogues


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
    from instruction_modelling.sources.conversion.split import Piece, split_conversation

    counts = [length for length in lengths for _ in range(2)]
    pieces = list(split_conversation(counts, most))
    assert [place for piece in pieces for place in range(piece.start, piece.end)] == list(range(len(counts)))
    for piece in pieces:
        total = sum(counts[piece.start : piece.end]) + 6 * (piece.end - piece.start)
        assert (total <= most) == (piece.kind is Piece.KEPT)
    released = list(split_conversation(counts, most, released=True))
    assert [place for piece in released for place in range(piece.start, piece.end)] == list(
        range(len(counts))
    )
    assert [(piece.start, piece.end) for piece in released if piece.kind is Piece.KEPT] == published_pieces(
        counts, most
    )


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


# ---- AlpaGasus and templates


def test_alpagasus_has_the_instructions_and_outputs_of_the_authors_file_row_for_row(
    shared_data: Path, tmp_path: Path
) -> None:
    raw_path = shared_data / "raw" / "alpagasus" / "dolly_3k.json"
    theirs = read_lines(shared_data / "train" / "alpagasus_3k_dolly.jsonl")
    ours, report = converted("alpagasus_3k_dolly", raw_path, tmp_path)
    assert len(ours) == len(theirs) == 2996 and report.refused.total() == 0
    assert [(row["dataset"], row["id"]) for row in ours] == [(row["dataset"], row["id"]) for row in theirs]
    for source, our, their in zip(json.loads(raw_path.read_bytes()), ours, theirs, strict=True):
        (_, question), (_, answer) = contents(their)
        assert answer.strip() == contents(our)[1][1]
        assert question.index(source["instruction"].strip()) <= question.rindex(source["input"].strip())
        assert contents(our)[0][1] == "\n\n".join(
            filter(None, (source["instruction"].strip(), source["input"].strip()))
        )


def templates_of(raw: list[dict[str, str]], done: list[dict[str, Any]]) -> PromptTemplates:
    """The templates that a processed file was wrapped in, found by taking instruction, input and output out
    of it.

    Their order and weights follow from the random number of each row: the seed is 42, and the two sets that
    are converted before this one took one number a row."""
    rng = random.Random(42)
    for _ in range(5305 + 9229):
        rng.random()
    seen: dict[bool, dict[tuple[str, str], list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for source, row in zip(raw, done, strict=True):
        (_, prompt), (_, answer) = contents(row)
        prompt = prompt.replace(source["instruction"].strip(), "{instruction}", 1)
        if source["input"].strip():
            prompt = prompt.replace(source["input"].strip(), "{input}", 1)
        before = answer[: len(answer) - len(source["output"].strip())]
        seen[bool(source["input"].strip())][prompt, before + "{output}"].append(rng.random())
    lists = {}
    for has_input, found in seen.items():
        assert len(found) == 14
        ordered = sorted(found, key=lambda texts: min(found[texts]))
        ends = [round(20 * max(found[texts])) for texts in ordered]
        lists[has_input] = [
            PromptTemplate(*texts, (end - begin) / 20)
            for texts, begin, end in zip(ordered, [0, *ends], ends, strict=False)
        ]
    return PromptTemplates(lists[True], lists[False])


def test_with_the_authors_templates_and_seed_the_authors_file_comes_out(
    shared_data: Path, tmp_path: Path
) -> None:
    raw_path = shared_data / "raw" / "alpagasus" / "dolly_3k.json"
    theirs = read_lines(shared_data / "train" / "alpagasus_3k_dolly.jsonl")
    templates = templates_of(json.loads(raw_path.read_bytes()), theirs)
    ours, _ = converted("alpagasus_3k_dolly", raw_path, tmp_path, templates=templates)
    assert ours == theirs


def test_templates_come_from_a_file_and_leave_braces_in_the_data_alone(tmp_path: Path) -> None:
    file = write_json(
        tmp_path / "t.json",
        {
            "with_input": [{"prompt": "Q {instruction} ON {input}", "completion": "\n{output}"}],
            "without_input": [{"prompt": "Q {instruction}", "weight": 3}, {"prompt": "T: {instruction}"}],
        },
    )
    rows = [
        {"instruction": "use {input} and {x}", "input": "{output}", "output": "{instruction}"},
        *({"instruction": f"i{i}", "input": "", "output": "o"} for i in range(400)),
    ]
    written, report = converted("stanford_alpaca", rows, tmp_path, templates=file)
    assert contents(written[0]) == [("u", "Q use {input} and {x} ON {output}"), ("a", "\n{instruction}")]
    drawn = sum(contents(row)[0][1].startswith("Q ") for row in written[1:])
    # 300 expected; the standard deviation is 8.7.
    assert 265 < drawn < 335
    assert converted("stanford_alpaca", rows, tmp_path, templates=file)[0] == written
    assert converted("stanford_alpaca", rows, tmp_path, templates=file, seed=1)[0] != written
    assert json.loads(report.card.read_text())["options"]["templates"] == str(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "with_input"),
        ({"with_input": [], "without_input": []}, "is empty"),
        ([], "is not an object"),
        (
            {"with_input": [{"prompt": "{instruction}"}], "without_input": [{"prompt": "{instruction}"}]},
            "with_input, template 1",
        ),
        (
            {
                "with_input": [{"prompt": "{instruction}{input}"}],
                "without_input": [{"prompt": "{instruction}", "weight": 0}],
            },
            "weight 0",
        ),
        (
            {"with_input": [{"prompt": "{instruction}{input}", "completion": ""}], "without_input": []},
            "the completion",
        ),
    ],
)
def test_a_templates_file_that_does_not_fit_is_an_error(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        converted(
            "dolly",
            [{"instruction": "a", "context": "", "response": "b"}],
            tmp_path,
            templates=write_json(tmp_path / "t.json", content),
        )


# ---- all formats


def test_a_limit_draws_rows_as_random_sample_does_and_says_what_was_not_drawn(tmp_path: Path) -> None:
    rows = alpaca_rows("x", 50)
    written, report = converted("gpt4_alpaca", rows, tmp_path, limit=7, seed=5)
    assert [row["id"] for row in written] == [
        f"gpt4_alpaca_{i}" for i in random.Random(5).sample(range(50), k=7)
    ]
    assert [contents(row)[1][1] for row in written] == [
        rows[int(row["id"].rsplit("_", 1)[1])]["output"] for row in written
    ]
    assert report.left_out == {"not drawn": 43}
    assert len(converted("gpt4_alpaca", rows, tmp_path, limit=50)[0]) == 50
    with pytest.raises(UserError, match="a limit cannot be set"):
        converted("unnatural_instructions", [{}], tmp_path, limit=3)


def test_several_files_are_numbered_through_and_named_in_the_card(tmp_path: Path) -> None:
    files = [write_json(tmp_path / f"{i}.json", alpaca_rows(f"file {i}", 3)) for i in range(2)]
    report = convert("stanford_alpaca", files, tmp_path / "out" / "stanford_alpaca_data.jsonl")
    assert [row["id"] for row in read_lines(report.output)] == [f"stanford_alpaca_{i}" for i in range(6)]
    card = json.loads((tmp_path / "out" / "stanford_alpaca_data.card.json").read_text())
    assert card["sources"] == [
        {
            "file": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "bytes": file.stat().st_size,
        }
        for file in files
    ]
    assert card["sha256"] == hashlib.sha256(report.output.read_bytes()).hexdigest() == report.sha256
    assert (card["rows_read"], card["rows_written"], card["refused"], card["options"]["seed"]) == (
        6,
        6,
        {},
        42,
    )
    assert sorted(path.name for path in report.output.parent.iterdir()) == [
        "stanford_alpaca_data.card.json",
        "stanford_alpaca_data.jsonl",
    ]


def test_an_unusable_file_leaves_what_was_there_before(tmp_path: Path) -> None:
    written, report = converted("stanford_alpaca", alpaca_rows("x", 3), tmp_path)
    broken = tmp_path / "broken.json"
    broken.write_text('[{"instruction": "a", "output": "b"}, {"instr')
    with pytest.raises(UserError, match="broken in element 2"):
        converted("stanford_alpaca", broken, tmp_path)
    with pytest.raises(UserError, match=r"none of 2 rows could be converted \(2 no instruction\)"):
        converted("stanford_alpaca", [{"x": 1}, {"x": 2}], tmp_path)
    assert read_lines(report.output) == written
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_an_error_and_leaves_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, report = converted("stanford_alpaca", alpaca_rows("x", 3), tmp_path)

    def full(self: Any, chunk: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("instruction_modelling.sources.conversion.report._Written.write", full)
    with pytest.raises(
        UserError, match=r"stanford_alpaca_data\.jsonl: cannot be written: No space left on device"
    ):
        converted("stanford_alpaca", alpaca_rows("y", 30_000), tmp_path)
    assert read_lines(report.output) == written
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_list_of_refused_rows_goes_when_none_is_refused_any_more(tmp_path: Path) -> None:
    _, report = converted("stanford_alpaca", [*alpaca_rows("x", 1), {}], tmp_path)
    assert report.refusals.exists()
    _, report = converted("stanford_alpaca", alpaca_rows("x", 1), tmp_path)
    assert not report.refusals.exists()


def test_gzipped_files_convert_and_are_found(tmp_path: Path) -> None:
    path = tmp_path / "dolly" / "databricks-dolly-15k.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b'{"instruction": "a", "context": "", "response": "b"}\n'))
    assert raw_files_of("dolly", tmp_path) == [path] and raw_files_of("lima", tmp_path) == []
    assert len(converted("dolly", path, tmp_path)[0]) == 1


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    import tracemalloc

    peaks = []
    for count in (4_000, 24_000):
        # Every tenth row is refused.
        rows = [
            {"instruction": f"say {i} " + "word " * 60, "input": ""} | ({"output": "yes"} if i % 10 else {})
            for i in range(count)
        ]
        path = write_lines(tmp_path / f"{count}.jsonl", rows)
        del rows
        tracemalloc.start()
        report = convert("stanford_alpaca", [path], tmp_path / "out.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (report.rows_written, report.refused.total()) == (count * 9 // 10, count // 10)
    # The larger file alone is 8 MB; the buffers of reading and writing are 3 MB.
    assert peaks[1] < peaks[0] + 1_500_000 and peaks[1] < 6_000_000


TEXTS = st.one_of(
    st.none(), st.text(max_size=6), st.integers(0, 3), st.lists(st.text(max_size=3), max_size=2)
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "from": st.sampled_from(["human", "gpt", "system", "bing", 3, None]),
        "value": TEXTS,
        "role": st.sampled_from(["user", "assistant", "x", None]),
        "content": TEXTS,
    },
)
TREE: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.fixed_dictionaries({"role": st.sampled_from(["prompter", "assistant", "x"]), "text": TEXTS}),
    lambda inner: st.fixed_dictionaries(
        {
            "role": st.sampled_from(["prompter", "assistant"]),
            "text": TEXTS,
            "replies": st.lists(inner, max_size=3),
        },
        optional={
            "deleted": st.booleans(),
            "labels": st.sampled_from([None, {}, {"quality": {}}, {"quality": {"value": 0.5}}]),
        },
    ),
    max_leaves=6,
)
FIELD_VALUES = {
    **dict.fromkeys(
        [
            "instruction",
            "input",
            "output",
            "context",
            "response",
            "inputs",
            "targets",
            "dataset",
            "Prompt",
            "Output",
            "question",
            "system_prompt",
            "Definition",
        ],
        TEXTS,
    ),
    "instances": st.one_of(
        TEXTS,
        st.lists(
            st.fixed_dictionaries({}, optional={"input": TEXTS, "output": TEXTS, "constraints": TEXTS}),
            max_size=3,
        ),
    ),
    "conversations": st.one_of(TEXTS, st.lists(st.one_of(MESSAGE, TEXTS), max_size=4)),
    "messages": st.one_of(TEXTS, st.lists(st.one_of(MESSAGE, TEXTS), max_size=4)),
    "prompt": st.one_of(TEXTS, TREE),
    "Instances": st.lists(st.fixed_dictionaries({}, optional={"input": TEXTS, "output": TEXTS}), max_size=3),
    "Positive Examples": st.one_of(
        st.none(), st.lists(st.fixed_dictionaries({}, optional={"input": TEXTS, "output": TEXTS}), max_size=3)
    ),
}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(CONVERTERS)))
def test_whatever_a_file_holds_every_row_is_written_or_refused_and_nothing_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    rows = data.draw(
        st.lists(st.one_of(st.fixed_dictionaries({}, optional=FIELD_VALUES), TEXTS), min_size=1, max_size=6)
    )
    folder = tmp_path_factory.mktemp("any")
    options: dict[str, Any] = {"best_replies": data.draw(st.sampled_from([None, 1]))}
    if name.startswith("sharegpt"):
        options |= {"max_tokens": data.draw(st.sampled_from([0, 16])), "tokenizer": WordTokenizer()}
    path = write_json(folder / "x.json", rows[0] if CONVERTERS[name].whole_files else rows)
    try:
        _, report = converted(name, path, folder, **options)
    except UserError as error:
        assert "could be converted" in str(error)
        return
    if CONVERTERS[name].one_to_one:
        assert report.rows_read == len(rows)
        numbers = [int(row["id"].rsplit("_", 1)[1]) for row in read_lines(report.output)]
        assert numbers == sorted(numbers)
    # What was written is what training reads.
    assert all(bad.reason == "no content" for bad in read_conversations(report.output).bad_rows)
