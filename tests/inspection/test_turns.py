"""A row turn by turn: what the model sees, what it must write, and which sequence trains it."""

from pathlib import Path
from typing import Any

import pytest
from inspections import ANSWER, QUESTION, Inspect, Page, chat
from template_toys import installed_templates, toy_tokenizer

HEADER = "<|im_start|>assistant\n"
FIRST, SECOND = "Only one and seven divide it.", "Three times three."


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer with Qwen3's template, which drops the reasoning of earlier turns."""
    folder = tmp_path_factory.mktemp("qwen3")
    toy_tokenizer(installed_templates()["qwen3.jinja"]).save_pretrained(folder)
    return folder


def thought(content: str, reasoning: str) -> dict[str, Any]:
    """An assistant's message with reasoning."""
    return {"role": "assistant", "content": content, "reasoning_content": reasoning}


REASONED = {
    "messages": [
        {"role": "user", "content": "Is 7 prime?"},
        thought("Yes.", FIRST),
        {"role": "user", "content": "And 9?"},
        thought("No.", SECOND),
    ]
}


def turn_lines(out: str) -> list[str]:
    """The lines on turns, without the space between their columns."""
    names = ("turn ", "  sees ", "  writes ", "  note ")
    return [" ".join(line.split(None, 1)) for line in out.splitlines() if line.startswith(names)]


def test_each_turn_is_shown_with_what_the_model_sees_and_must_write(inspect: Inspect, qwen3: Path) -> None:
    result = inspect([REASONED], "--response_loss_weight", 0.5, tokenizer=qwen3)
    first = "<|im_start|>user⏎Is 7 prime?<|im_end|>⏎<|im_start|>assistant⏎"
    later = f"{first}Yes.<|im_end|>⏎<|im_start|>user⏎And 9?<|im_end|>⏎<|im_start|>assistant⏎"
    assert turn_lines(result.out) == [
        "turn 1 of 2, message 1, trained in sequence 0:",
        f"sees {first}",
        f"writes [reasoning 0.5] <think>⏎{FIRST}⏎</think>⏎⏎ [assistant 0.5] Yes. [end 0.5] <|im_end|>",
        "turn 2 of 2, message 3, trained in sequence 1:",
        f"sees {later}",
        f"writes [reasoning 0.5] <think>⏎{SECOND}⏎</think>⏎⏎ [assistant 0.5] No. [end 0.5] <|im_end|>",
    ]
    assert "sequence 0, trains message 1:" in result.out
    assert "sequence 1, trains message 3:" in result.out


def test_a_row_of_several_sequences_has_as_many_records(inspect: Inspect, qwen3: Path) -> None:
    records = inspect([REASONED, chat(QUESTION, ANSWER)], tokenizer=qwen3).records
    assert [(record["row"], record["part"]) for record in records] == [(0, 0), (0, 1), (1, 0)]
    assert [record["id"] for record in records] == ["rows_0", "rows_0", "rows_1"]
    trained = ["".join(r["text"][t["start"] : t["end"]] for t in r["tokens"] if t["weight"]) for r in records]
    assert trained == [
        f"<think>\n{FIRST}\n</think>\n\nYes.<|im_end|>",
        f"<think>\n{SECOND}\n</think>\n\nNo.<|im_end|>",
        f"<think>\n\n</think>\n\n{ANSWER}<|im_end|>",
    ]
    kinds = {token["kind"] for record in records for token in record["tokens"] if token["weight"]}
    assert kinds == {"opening", "reasoning", "assistant", "end"}


def test_the_page_shows_the_turns_below_the_sequence_that_trains_them(inspect: Inspect, qwen3: Path) -> None:
    page = Page(inspect([REASONED], tokenizer=qwen3).page)
    first, second = page.texts("turn")
    assert "turn 1 of 2, message 1, trained in sequence 0" in first
    assert f"<think>⏎{FIRST}⏎</think>⏎⏎reasoning 1" in first
    assert "No.assistant 1<|im_end|>end 1" in second
    assert page.open == []


def test_a_prompt_that_the_turn_does_not_go_on_with_is_told(inspect: Inspect, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    toy_tokenizer(template).save_pretrained(tmp_path / "thinks")
    lines = turn_lines(inspect([chat("Why?", "So.")], tokenizer=tmp_path / "thinks").out)
    assert lines[-1] == "note the generation prompt goes on with <think>⏎ and the turn does not"
    assert lines[-2] == "writes [assistant 1] So. [end 1] <|im_end|>"


def test_long_texts_lose_their_middle_and_cut_turns_are_told(inspect: Inspect) -> None:
    row = chat("q" * 1_000, "a" * 1_000, "And?", "Done.")
    lines = turn_lines(inspect([row]).out)
    # The prompt is the BOS, a header before and after, and the thousand letters.
    left_out = len(f"<s><|user|>\n{'q' * 1_000}\n<|assistant|>\n") - 300
    assert f" … {left_out:,} characters … " in lines[1]
    assert lines[2] == f"writes [assistant 1] {'a' * 200} … 400 characters … {'a' * 400} [end 1] </s>"
    cut = turn_lines(inspect([row], "--max_seq_length", 40).out)
    assert cut[2] == "writes nothing"
    assert cut[3] == "note cut off as a whole: it lies behind --max_seq_length"
    assert cut[4] == "turn 2 of 2, message 3:"
