"""The inspector: what it says about every token, its sums, its warnings, and the forms it has."""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from script_loader import SRC, load_script, run_script
from tiny import make_tiny_tokenizer

from instruction_modelling.command_line import make_parser, parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions

QUESTION = "Which river flows through Paris?"
ANSWER = "The Seine flows through Paris."
RESPONSE_NAMES = ("assistant", "end", "reasoning", "tool_calls")


def chat(*contents: str, **extra: Any) -> dict[str, Any]:
    """A row of user and assistant messages in turn."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)], **extra}


GOOD = chat(QUESTION, ANSWER)


@dataclass
class Inspected:
    """What one call of the script left behind."""

    code: int
    out: str
    error: str
    records: list[dict[str, Any]]
    summary: dict[str, Any]
    page: str

    def warned(self, name: str) -> list[str]:
        """The warnings of that name."""
        return [warning for warning in self.summary["warnings"] if warning.startswith(f"{name}:")]


Inspect = Callable[..., Inspected]


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE tokenizer: BOS, EOS, no pad token, no chat template."""
    folder = tmp_path_factory.mktemp("tiny_tokenizer")
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def inspect(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Inspect:
    """Runs the script on rows (objects, or raw lines) with every output asked for."""

    def run(rows: list[Any], *arguments: object, tokenizer: Path | None = None) -> Inspected:
        file = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        places = {name: tmp_path / "made" / name for name in ("output_file", "summary_file", "html")}
        flags: list[object] = [part for name, place in places.items() for part in (f"--{name}", place)]
        flags += ["--train_file", file, "--tokenizer_name", tokenizer or tiny_tokenizer]
        capsys.readouterr()
        code = run_script(monkeypatch, "inspect_weights", *flags, *arguments)
        out, error = capsys.readouterr()
        text = {name: place.read_text(encoding="utf-8") for name, place in places.items()}
        records = [json.loads(line) for line in text["output_file"].splitlines()]
        return Inspected(code, out, error, records, json.loads(text["summary_file"]), text["html"])

    return run


@pytest.fixture
def template(tmp_path: Path) -> Callable[[str], Path]:
    """A Jinja file with the given chat template."""

    def write(text: str) -> Path:
        path = tmp_path / "template.jinja"
        path.write_text(text, encoding="utf-8")
        return path

    return write


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% else %}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# -- every token --------------------------------------------------------------------------------------------


def tulu_characters(messages: list[dict[str, str]]) -> tuple[str, list[str]]:
    """The Tülu text of a conversation and the kind of each of its characters, by its definition."""
    text, kinds = "", []
    for index, message in enumerate(messages):
        parts = [("\n" if index else "") + f"<|{message['role']}|>\n", message["content"].strip(), ""]
        if message["role"] == "assistant":
            parts[2] = "</s>"
        for part, kind in zip(parts, ("template", message["role"], "end"), strict=True):
            text += part
            kinds += [kind] * len(part)
    return text, kinds


def some_rows(shared_data: Path, name: str, count: int) -> list[dict[str, Any]]:
    """The first `count` rows of a training file, and as many with more than two messages, if it has them."""
    with (shared_data / "train" / name).open(encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle]
    return rows[:count] + [row for row in rows[count:] if len(row["messages"]) > 2][:count]


@pytest.mark.parametrize("name", ["lima_data.jsonl", "alpagasus_3k_dolly.jsonl"])
@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_records_of_real_rows_equal_an_independent_recomputation(
    shared_data: Path, inspect: Inspect, name: str, weight: float
) -> None:
    from tokenizers import Tokenizer

    folder = shared_data / "tokenizers" / "llama2"
    engine = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = some_rows(shared_data, name, 12)
    result = inspect(rows, "--instruction_loss_weight", weight, tokenizer=folder)
    of_kind = {"template": 0.0, "system": weight, "user": weight, "assistant": 1.0, "end": 1.0}
    assert len(result.records) == len(rows)
    for number, (row, record) in enumerate(zip(rows, result.records, strict=True)):
        text, kinds = tulu_characters(row["messages"])
        encoding = engine.encode(text, add_special_tokens=False)
        expected = [{"id": 1, "start": 0, "end": 0, "kind": "template", "weight": 0.0}]
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            kind = kinds[end - 1]
            expected.append({"id": id_, "start": start, "end": end, "kind": kind, "weight": of_kind[kind]})
        assert record == {
            "row": number,
            "id": row["id"],
            "text": text,
            "dropped": None,
            "tokens": expected[:2048],
        }


@pytest.mark.parametrize("name", ["lima_data", "alpagasus_3k_dolly"])
@pytest.mark.parametrize("arm", ["IT", "IM"])
def test_released_masks_give_the_labels_of_the_released_code(
    shared_data: Path, inspect: Inspect, name: str, arm: str
) -> None:
    expected = json.loads((shared_data / "released_labels.json").read_text())[f"{name}:{arm}"]["first_rows"]
    with (shared_data / "train" / f"{name}.jsonl").open(encoding="utf-8") as handle:
        rows = [json.loads(next(handle)) for _ in expected]
    flags = ["--mask_style", "released", *(["--use_lm_loss"] if arm == "IM" else [])]
    result = inspect(rows, *flags, tokenizer=shared_data / "tokenizers" / "llama2")
    hashes = []
    for record in result.records:
        labels = [token["id"] if token["weight"] else -100 for token in record["tokens"]]
        hashes.append(hashlib.sha256(json.dumps(labels, separators=(",", ":")).encode()).hexdigest()[:12])
    assert hashes == expected


def test_byte_level_tokens_cover_the_text_and_take_the_kind_of_their_last_character(
    inspect: Inspect, tiny_tokenizer: Path
) -> None:
    from transformers import AutoTokenizer

    rows = [chat("Add 17 and 25. 👩‍🚀 日本", " The sum is 42.\n", "naïve?", ""), chat("\n\n  Oslo?", "Oslo")]
    result = inspect(rows, "--use_lm_loss")
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    for row, record in zip(rows, result.records, strict=True):
        text, kinds = tulu_characters(row["messages"])
        assert record["text"] == text
        assert [token["id"] for token in record["tokens"]] == tokenizer(text)["input_ids"]
        covered = set()
        for token in record["tokens"][1:]:
            assert token["kind"] == kinds[token["end"] - 1]
            assert token["weight"] == (0.0 if token["kind"] == "template" else 1.0)
            covered |= set(range(token["start"], token["end"]))
        assert covered == set(range(len(text)))


def test_message_weights_multiply_and_stay_short_decimals(inspect: Inspect) -> None:
    row = chat(QUESTION, ANSWER)
    row["messages"][0]["weight"] = 0.5
    row["messages"][1]["weight"] = 0.1
    record = inspect([row], "--instruction_loss_weight", 0.2).records[0]
    weights = {token["kind"]: token["weight"] for token in record["tokens"]}
    assert weights == {"template": 0.0, "user": 0.1, "assistant": 0.1, "end": 0.1}


def test_rows_are_cut_at_the_maximum_length_and_keep_their_whole_text(inspect: Inspect) -> None:
    rows = [GOOD, chat(QUESTION, ANSWER + " " + ANSWER)]
    length, longer = (len(record["tokens"]) for record in inspect(rows).records)
    most = length + 2
    assert most < longer
    result = inspect(rows, "--max_seq_length", most)
    whole, cut = result.records
    assert len(whole["tokens"]) == length
    assert len(cut["tokens"]) == most
    assert cut["text"].endswith(ANSWER + "</s>")
    lengths = result.summary["lengths"]
    assert lengths["row"]["min"] == length
    assert lengths["row"]["max"] == most
    assert lengths["row"]["mean"] == (length + most) / 2
    assert lengths["truncated_rows"] == 1
    assert lengths["longest_before_cutting"] == longer
    assert lengths["tokens_cut"] == longer - most


# -- rows left out ------------------------------------------------------------------------------------------

BAD_ROWS = [
    "{not json",
    GOOD,
    {"id": "w", "messages": [{"role": "wizard", "content": "x"}]},
    {"id": "t", **chat("a", "b"), "tools": [{"type": "function", "function": {"name": "f"}}]},
    {"id": "q", "messages": [{"role": "user", "content": "only a question"}]},
]


def test_rows_left_out_appear_in_their_places_with_the_reason(inspect: Inspect) -> None:
    result = inspect(BAD_ROWS, "--max_bad_rows", 3)
    assert result.code == 0
    assert [(record["row"], record["id"], record["dropped"]) for record in result.records] == [
        (0, "rows_0", "not JSON"),
        (1, "rows_1", None),
        (2, "w", "unknown role"),
        (3, "t", "tools not in this format"),
        (4, "q", "no token with a loss weight"),
    ]
    assert [bool(record["tokens"]) for record in result.records] == [False, True, False, False, False]
    assert [record["text"] for record in result.records[2:]] == ["", "", "<|user|>\nonly a question"]
    assert result.summary["rows"] == 5
    assert result.summary["rows_used"] == 1
    assert result.summary["dropped"] == {
        "not JSON": 1,
        "unknown role": 1,
        "tools not in this format": 1,
        "no token with a loss weight": 1,
    }
    assert result.summary["tokens"] == len(result.records[1]["tokens"])
    (warning,) = result.warned("rows dropped")
    assert "4 of 5" in warning
    assert warning.endswith("rows.jsonl:1)")


def test_too_many_bad_rows_write_everything_and_exit_with_2(inspect: Inspect) -> None:
    result = inspect(BAD_ROWS, "--max_bad_rows", 2)
    assert result.code == 2
    assert len(result.records) == 5
    assert "3 of 5 rows cannot be used" in result.error
    assert "rows.jsonl:3: unknown role" in result.error
    assert "Traceback" not in result.error
    assert result.summary["rows_used"] == 1
    assert QUESTION in result.out


def test_a_file_without_a_usable_row_is_shown_too(inspect: Inspect) -> None:
    result = inspect(["{", "[]"])
    assert result.code == 2
    assert [record["dropped"] for record in result.records] == ["not JSON", "not an object"]
    assert result.summary["by_kind"] == {}
    assert result.summary["arms"] == {"IT": {}, "IM": {}}


def test_rows_without_a_response_for_the_denominator_are_dropped_as_in_training(inspect: Inspect) -> None:
    rows = [GOOD, chat("only a question")]
    flags = ["--use_lm_loss", "--loss_denominator", "response"]
    assert inspect(rows, *flags).records[1]["dropped"] == "no response token for the denominator"
    assert inspect(rows, *flags, "--loss_normalization", "sum").records[1]["dropped"] is None
    assert inspect(rows, "--use_lm_loss").records[1]["dropped"] is None


# -- sums ---------------------------------------------------------------------------------------------------

UNEVEN = [
    chat(QUESTION, ANSWER),
    chat("Oslo?", "Name the capital of Norway. Oslo.", "Add 17 and 25.", "The sum is 42."),
    chat("Explain how a bicycle stays upright, and say why it falls when it stands still.", "No."),
]


def shares_from(records: list[dict[str, Any]], normalization: str, denominator: str) -> dict[str, float]:
    """The shares of the loss by their definition, from the weights of every token."""
    sums: dict[str, float] = {}
    for record in records:
        tokens = [token for token in record["tokens"][1:] if token["weight"]]
        counted = [t for t in tokens if denominator == "nonzero" or t["kind"] in RESPONSE_NAMES]
        scale = 1 / len(counted) if normalization == "example" else 1.0
        for token in tokens:
            sums[token["kind"]] = sums.get(token["kind"], 0.0) + token["weight"] * scale
    return {kind: value / sum(sums.values()) for kind, value in sums.items()}


@pytest.mark.parametrize("normalization", ["example", "token", "sum"])
@pytest.mark.parametrize("denominator", ["nonzero", "response"])
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
    assert list(result.summary["arms"]) == ["IT", "IM", "IM w=0.3"]
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


# -- warnings -----------------------------------------------------------------------------------------------

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


def test_end_tokens_that_the_format_does_not_write(inspect: Inspect, template: Callable[[str], Path]) -> None:
    endless = template("{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}")
    (warning,) = inspect(UNEVEN, "--chat_format", endless).warned("end token not supervised")
    assert "4 of 4 responses (the chat format writes no end token after 4; first:" in warning
    assert "rows.jsonl:1, message 1" in warning


def test_end_tokens_of_weight_zero(inspect: Inspect) -> None:
    flags = ["--use_lm_loss", "--response_loss_weight", 0]
    (warning,) = inspect(UNEVEN, *flags).warned("end token not supervised")
    assert "the end token of 4 has loss weight 0" in warning


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


# -- how it is shown ----------------------------------------------------------------------------------------

HOSTILE = "<script>alert('x')</script> & \"q\" \x1b[2J\u202e</div>"


class Page(HTMLParser):
    """The texts and titles of a page's elements by class, and every tag and attribute."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[set[str], dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in ("meta", "br"):
            return
        given = dict(attrs)
        self.open.append(len(self.found))
        self.found.append((set((given.get("class") or "").split()), given, []))

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for place in self.open:
            self.found[place][2].append(data)

    def texts(self, name: str) -> list[str]:
        """The text of each element of a class."""
        return ["".join(data) for classes, _, data in self.found if name in classes]

    def titles(self, name: str) -> list[str | None]:
        """The title of each element of a class."""
        return [given.get("title") for classes, given, _ in self.found if name in classes]


def test_the_page_shows_every_token_and_escapes_everything(inspect: Inspect) -> None:
    row = chat(HOSTILE, "Oslo\nNorway 日", id="<b>&id")
    result = inspect([row], "--instruction_loss_weight", 0.1)
    page = Page(result.page)
    assert "script" not in page.tags
    assert not page.attributes & {"src", "href", "onclick", "onerror"}
    assert not re.search("https?:", result.page)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", result.page)
    assert page.open == []
    tokens = result.records[0]["tokens"]
    titles = [title for title in page.titles("t") if title]
    assert len(titles) == len(tokens)
    for token, title in zip(tokens, titles, strict=True):
        assert title.endswith(f" · id {token['id']} · {token['kind']} · weight {token['weight']}")
    (shown,) = page.texts("row")
    # The last two characters but the tag are one of three bytes, hence of three tokens.
    escaped = HOSTILE.replace("\x1b", "␛").replace("\u202e", "⟨U+202E⟩▫▫")
    assert f"⏎\n{escaped}0.1⏎\n<|assistant|>⏎\nOslo⏎\nNorway 日▫▫</s>" in shown
    assert "<b>&id" in "".join("".join(data) for _, _, data in page.found)
    styles = {"user": "part", "assistant": "one", "end": "one", "template": "zero"}
    for kind, style in styles.items():
        of_kind = [c for c, given, _ in page.found if f"k-{kind}" in c and given.get("title")]
        assert of_kind
        assert all(style in classes for classes in of_kind)
    assert "prefers-color-scheme: dark" in result.page


def test_the_page_holds_the_totals_and_a_legend(inspect: Inspect) -> None:
    result = inspect(UNEVEN, "--use_lm_loss")
    cells = re.findall(r'<tr><th scope="row">.*?</tr>', result.page)
    assert len(cells) == 5
    for kind, line in zip(("template", "user", "assistant", "end"), cells, strict=False):
        entry = result.summary["by_kind"][kind]
        assert f">{kind}</span>" in line
        assert f"<td>{entry['tokens']:,}</td><td>{entry['tokens_with_loss']:,}</td>" in line
        for arm in ("IT", "IM"):
            assert f"<td>{result.summary['arms'][arm].get(kind, 0):.1%}<span" in line
    assert Page(result.page).texts("legend") == ["templateuserassistantend"]


def test_plain_text_names_kind_and_weight_of_each_run(inspect: Inspect) -> None:
    row = chat("Oslo?\nNorway?", ANSWER + "\x1b[31m")
    result = inspect([row], "--instruction_loss_weight", 0.25, "--num_examples", 1)
    assert (
        "[template 0.0] <s><|user|>⏎\n[user 0.25] Oslo?⏎\nNorway?\n[template 0.0] ⏎\n<|assistant|>⏎\n"
        f"[assistant 1.0] {ANSWER}␛[31m\n[end 1.0] </s>\n"
    ) in result.out
    assert "\x1b" not in result.out


def test_the_table_puts_it_and_im_side_by_side(inspect: Inspect) -> None:
    result = inspect(UNEVEN, "--instruction_loss_weight", 0.5)
    (head,) = [line for line in result.out.splitlines() if line.startswith("kind ")]
    assert head.split() == ["kind", "tokens", "with", "a", "loss", "IT", "IM", "IM", "w=0.5"]
    (user,) = [line for line in result.out.splitlines() if line.startswith("user ")]
    arms = result.summary["arms"]
    assert re.findall(r"[\d.]+%", user) == [
        f"{arms[arm].get('user', 0):.1%}" for arm in ("IT", "IM", "IM w=0.5")
    ]
    assert "█" in user
    (last,) = [line for line in result.out.splitlines() if line.startswith("all ")]
    assert last.endswith("3 rows             3 rows             3 rows")


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_colour_on_a_terminal_unless_no_color_is_set(
    inspect: Inspect, monkeypatch: pytest.MonkeyPatch, no_colour: str
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setenv("TERM", "xterm")
    out = inspect([chat("Oslo?", "Yes\nno")], "--instruction_loss_weight", 0.5, "--num_examples", 1).out
    if no_colour:
        assert "\x1b" not in out
        assert "[user 0.5] Oslo?" in out
        return
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert "<s><|user|>⏎\nOslo?[0.5]⏎\n<|assistant|>⏎\nYes⏎\nno</s>\n" in plain
    # Users are blue and underlined (they have a loss), the template is neither.
    assert re.search(r"\x1b\[34;4mO", out)
    assert re.search(r"\x1b\[90m<s>\x1b\[0m", out)
    assert all(
        line.count("\x1b[0m") == len(re.findall(r"\x1b\[[1-9][\d;]*m", line)) for line in out.splitlines()
    )


def test_num_examples_is_the_number_of_rows_shown(inspect: Inspect) -> None:
    for number in (0, 1, 3):
        result = inspect(UNEVEN, "--num_examples", number)
        assert len(re.findall(r"^── row \d", result.out, re.MULTILINE)) == number
        assert len(Page(result.page).texts("row")) == number
        assert len(result.records) == 3


# -- options ------------------------------------------------------------------------------------------------


def inspect_options(*arguments: str) -> Any:
    """The options the script makes of these arguments."""
    return parse_options(load_script("inspect_weights").InspectOptions, arguments, "")


def test_every_option_of_training_is_accepted_and_none_needs_a_model() -> None:
    flags = {action.dest: action for action in make_parser(FinetuneOptions, "")._actions}
    own = {
        action.dest: action
        for action in make_parser(load_script("inspect_weights").InspectOptions, "")._actions
    }
    assert {field.name for field in fields(FinetuneOptions)} <= set(own)
    for name, action in flags.items():
        assert own[name].option_strings == action.option_strings
        assert own[name].choices == action.choices
    assert not any(action.required for action in own.values())
    options = inspect_options("--train_file", "f", "--tokenizer_name", "t", "--use_lm_loss", "--use_lora")
    assert options.model_name_or_path is None
    assert options.num_examples == 2
    assert options.policy().instruction == 1.0


def test_the_training_option_is_still_required_in_training() -> None:
    required = [action.dest for action in make_parser(FinetuneOptions, "")._actions if action.required]
    assert required == ["model_name_or_path"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_file", "f"], "give --tokenizer_name"),
        (["--tokenizer_name", "t"], "give --train_file"),
        (["--train_file", "f", "--tokenizer_name", "t", "--num_examples", "-1"], "--num_examples -1"),
        (["--train_file", "f", "--tokenizer_name", "t", "--html", "./f"], "is the file of --train_file too"),
        (
            ["--train_file", "f", "--tokenizer_name", "t", "--html", "x", "--output_file", "x"],
            "--output_file x: is the file of --html too",
        ),
        (["--train_file", "f", "--tokenizer_name", "t", "--response_loss_weight", "nan"], "a loss weight"),
    ],
)
def test_options_that_do_not_fit_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        inspect_options(*arguments)


def test_the_model_names_the_tokenizer_where_no_other_is_given(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(GOOD) + "\n")
    arguments = ["--train_file", tmp_path / "rows.jsonl", "--model_name_or_path", tiny_tokenizer]
    assert run_script(monkeypatch, "inspect_weights", *arguments) == 0
    assert f"tokenizer: {tiny_tokenizer}" in capsys.readouterr().out


def run_for_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """The error message of a call that must fail."""
    assert run_script(monkeypatch, "inspect_weights", *arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_errors_are_messages(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(GOOD) + "\n")
    base = ["--train_file", file, "--tokenizer_name", tiny_tokenizer]
    (tmp_path / "taken").mkdir()
    error = run_for_error(monkeypatch, capsys, *base, "--output_file", tmp_path / "taken")
    assert f"{tmp_path / 'taken'} could not be written: Is a directory" in error
    error = run_for_error(monkeypatch, capsys, *base, "--html", file / "below" / "page.html")
    assert "could not be written: Not a directory" in error
    (tmp_path / "chatml.jinja").write_text(CHATML)
    error = run_for_error(
        monkeypatch, capsys, *base, "--recipe", "released", "--chat_format", tmp_path / "chatml.jinja"
    )
    assert "--mask_style released" in error
    error = run_for_error(monkeypatch, capsys, "--train_file", tmp_path / "no", *base[2:])
    assert "there is no such file" in error


def test_help_is_quick_and_says_what_a_share_is() -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, SRC / "inspect_weights.py", "--help"], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - begin < 4
    assert "share of the loss of a kind is the sum of its tokens' coefficients" in " ".join(
        done.stdout.split()
    )
    assert "The first token of a row is predicted by nothing" in done.stdout
    assert done.stdout.index("Inspection:") < done.stdout.index("Model:")


# -- data sets of the hub -----------------------------------------------------------------------------------


def test_a_data_set_of_the_hub_is_kept_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from instruction_modelling.sources.downloads.hub import fetch_dataset

    asked = []

    def load(name: str, configuration: str | None, split: str) -> datasets.Dataset:
        asked.append((name, configuration, split))
        if name == "some/missing":
            raise FileNotFoundError("no such data set\nmore")
        return datasets.Dataset.from_list(
            [{"prompt": "日", "completion": "b"}, {"prompt": "c", "completion": "d"}]
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path))
    path = fetch_dataset("some/set", "small")
    assert path == tmp_path / "datasets" / "some_set_small.jsonl"
    assert [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()] == [
        "日",
        "c",
    ]
    assert fetch_dataset("some/set", "small") == path
    assert asked == [("some/set", "small", "train")]
    fetch_dataset("some/set", "small", again=True)
    assert len(asked) == 2
    with pytest.raises(UserError, match="--dataset_name some/missing: cannot be loaded: no such data set;"):
        fetch_dataset("some/missing")
    assert [file.name for file in (tmp_path / "datasets").iterdir()] == ["some_set_small.jsonl"]
