"""The inspector's warnings: one for each thing that is suspicious, none for a clean file."""

from collections.abc import Callable
from pathlib import Path

import pytest
from inspections import ANSWER, CHATML, GOOD, QUESTION, UNEVEN, Inspect, Page, chat
from tiny import make_tiny_tokenizer

ALL_WARNINGS = [
    "end token not supervised",
    "double BOS",
    "no pad token",
    "template text in content",
    "control text in content",
    "many rows truncated",
    "rows dropped",
    "tokens straddle spans",
    "generation prompt differs",
]


def test_a_clean_file_has_no_warnings(inspect: Inspect, tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path / "padded")
    for flags in ([], ["--use_lm_loss"], ["--mask_style", "released"]):
        result = inspect(UNEVEN, *flags, tokenizer=tmp_path / "padded")
        assert result.summary["warnings"] == []
        assert "no warnings" in result.out


def test_a_tokenizer_without_a_pad_token_is_named(inspect: Inspect) -> None:
    result = inspect(UNEVEN)
    assert [warning.split(":")[0] for warning in result.summary["warnings"]] == ["no pad token"]


def test_keys_that_nothing_reads_are_named_with_their_rows(inspect: Inspect) -> None:
    row = chat(QUESTION, ANSWER)
    (warning,) = inspect([{**row, "verdict": "good"}, {**row, "verdict": "bad"}]).warned(
        "keys that nothing reads"
    )
    assert "column verdict (2 rows)" in warning and "--columns" in warning


def test_end_tokens_that_the_format_does_not_write(inspect: Inspect, template: Callable[[str], Path]) -> None:
    endless = template("{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}")
    (warning,) = inspect(UNEVEN, "--chat_format", endless).warned("end token not supervised")
    assert "4 of 4 responses (the chat format writes no end token after 4; first:" in warning
    assert "rows.jsonl:1, message 1" in warning


def test_rows_without_a_response_say_what_it_trains_of_them(inspect: Inspect) -> None:
    """An empty answer's end is trained; nothing is of a row without an answer."""
    empty = chat(QUESTION, "")
    rows = [chat(QUESTION, ANSWER), empty, chat(QUESTION), empty]
    (warning,) = inspect(rows).warned("rows without a response")
    assert "3 of 4 rows (first: " in warning and "rows.jsonl:2)" in warning
    assert (
        "IT of 2 trains the tags and the end alone and leaves 1 out, IM trains on their instructions"
        in warning
    )
    (warning,) = inspect(rows[:2]).warned("rows without a response")
    assert "IT of 1 trains the tags and the end alone, IM" in warning


def test_end_tokens_of_weight_zero(inspect: Inspect) -> None:
    flags = ["--use_lm_loss", "--response_loss_weight", 0]
    (warning,) = inspect(UNEVEN, *flags).warned("end token not supervised")
    assert "the end token of 4 has loss weight 0" in warning


def test_ends_of_turns_that_are_not_to_be_trained_are_no_end_warning(inspect: Inspect) -> None:
    rows = [chat(QUESTION, ANSWER, QUESTION, ANSWER)]
    for turns in ("first", "last"):
        assert not inspect(rows, "--train_turns", turns).warned("end token not supervised")
    (warning,) = inspect(rows, "--train_turns", "last", "--loss_weights", "end=0").warned(
        "end token not supervised"
    )
    assert "1 of 1 responses (the end token of 1 has loss weight 0" in warning


def test_ends_lost_to_cutting_or_weighed_zero_by_hand_are_no_end_warning(inspect: Inspect) -> None:
    unweighted = chat(QUESTION, "Oslo.", QUESTION, ANSWER)
    unweighted["messages"][1]["weight"] = 0
    assert not inspect([unweighted]).warned("end token not supervised")
    cut = inspect([GOOD], "--max_seq_length", len(inspect([GOOD]).records[0]["tokens"]) - 2)
    assert cut.records[0]["tokens"][-1]["kind"] == "assistant"
    assert not cut.warned("end token not supervised")


def test_double_bos(inspect: Inspect, template: Callable[[str], Path]) -> None:
    (warning,) = inspect(UNEVEN, "--chat_format", template("{{ bos_token }}{{ bos_token }}" + CHATML)).warned(
        "double BOS"
    )
    assert "<s> stands twice at the start of 3 rows" in warning
    assert not inspect(UNEVEN, "--chat_format", template("{{ bos_token }}" + CHATML)).warned("double BOS")
    # The text of a BOS token in the content is text.
    assert not inspect([{"prompt": "<s>Hi", "completion": "Ho"}]).warned("double BOS")


def test_role_headers_in_content(inspect: Inspect) -> None:
    pasted = chat("A log:\n<|assistant|>\nHello", ANSWER)
    (warning,) = inspect([GOOD, pasted], "--use_lm_loss").warned("template text in content")
    assert "1 row" in warning
    assert "rows.jsonl:2: '<|assistant|>'" in warning
    assert not inspect([chat("An assistant | user", ANSWER)]).warned("template text in content")


INST = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{% for m in messages %}{{ m.role|upper }}: {{ m.content }}"
    "{{ eos_token if m.role == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        # The line break after a block is dropped: the end of a turn touches the header of the next.
        (CHATML, ["<|im_start|>system", "<|im_start|>user", "<|im_start|>assistant"]),
        (INST, ["[INST]", "[/INST]"]),
        (VICUNA, ["SYSTEM:", "USER:", "ASSISTANT:"]),
    ],
)
def test_role_headers_are_found_in_any_template(
    inspect: Inspect, template: Callable[[str], Path], text: str, headers: list[str]
) -> None:
    path = template(text)
    assert not inspect([GOOD], "--chat_format", path).warned("template text in content")
    for header in headers:
        (warning,) = inspect([chat(f"A log {header} B", ANSWER)], "--chat_format", path).warned(
            "template text in content"
        )
        assert repr(header) in warning


def test_control_text_in_content(inspect: Inspect) -> None:
    result = inspect([GOOD, chat("What is </s>?", ANSWER)], "--use_lm_loss")
    (warning,) = result.warned("control text in content")
    assert "rows.jsonl:2: '</s>'" in warning
    # It is text: one end token, of the response, carries the control token's id.
    assert [t["kind"] for t in result.records[1]["tokens"] if t["id"] == 1] == ["end"]


def test_more_than_five_percent_truncated(inspect: Inspect) -> None:
    long = chat(QUESTION, " ".join([ANSWER] * 20))
    flags = ["--max_seq_length", 100]
    (warning,) = inspect([GOOD] * 18 + [long, long], *flags).warned("many rows truncated")
    assert "2 of 20 rows (10.0%)" in warning
    assert "rows.jsonl:19)" in warning
    assert not inspect([GOOD] * 19 + [long], *flags).warned("many rows truncated")


def test_straddling_tokens_and_unequal_prompts(inspect: Inspect) -> None:
    row = {"prompt": "Q: ", "completion": ANSWER}
    result = inspect([GOOD, row])
    assert "1 in 1 row" in result.warned("tokens straddle spans")[0]
    (warning,) = result.warned("generation prompt differs")
    assert "in 1 row of 2" in warning
    assert "rows.jsonl:2, token" in warning


def test_generation_prompts_of_templates(inspect: Inspect, template: Callable[[str], Path]) -> None:
    body = (
        "{% for m in messages %}{{ m.role|upper }}: {{ m.content }}{{ eos_token if m.role == 'assistant' }}\n"
    )
    body += "{% endfor %}{% if add_generation_prompt %}ASSISTANT:%s{% endif %}"
    good = inspect(UNEVEN, "--chat_format", template(body.replace("%s", "")))
    assert not good.warned("generation prompt differs")
    # With the space in the prompt, the answer's first word has lost its own: " The" becomes " " and "The".
    wrong = inspect([GOOD, GOOD], "--chat_format", template(body.replace("%s", " ")))
    (warning,) = wrong.warned("generation prompt differs")
    assert "in 2 rows of 2" in warning
    assert "' ' in the prompt, ' The' in training" in warning


@pytest.mark.parametrize("name", ALL_WARNINGS)
def test_warnings_reach_the_terminal_and_the_page(
    inspect: Inspect, template: Callable[[str], Path], name: str
) -> None:
    rows = [
        chat("</s> <|im_start|>assistant", " ".join([ANSWER] * 20)),
        {"prompt": "Q: ", "completion": ANSWER},
        "{",
    ]
    endless = template("{{ bos_token }}{{ bos_token }}" + CHATML.replace("{{ eos_token }}", ""))
    result = inspect(rows, *["--chat_format", endless, "--max_seq_length", 100, "--max_bad_rows", 1])
    if name == "end token not supervised":
        result = inspect([GOOD], "--chat_format", endless)
    (warning,) = result.warned(name)
    assert f"warning: {warning}" in result.out
    assert warning in Page(result.page).texts("warning")
