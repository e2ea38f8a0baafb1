"""What ends a user's turn is marked with its message, weighs what the table says, and nothing more is it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import assistant, conversation, system, user
from chat_templates import encoder, pieces, real, written
from chat_tokenizers import byte_level, byte_level_with_bos, chatml
from one_sequence import one_sequence
from oracle import KINDS
from template_toys import toy_tokenizer
from training_runs import run, write_rows

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy, read_loss_weights

BETWEEN = (
    "{% for m in messages %}{{ '<|sep|>' if not loop.first }}"
    "{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("qwen3", "<|im_end|>"),
        ("llama3_2", "<|eot_id|>"),
        ("gptoss", "<|end|>"),
        ("gemma3", "<end_of_turn>"),
        ("cohere2", "<|END_OF_TURN_TOKEN|>"),
        ("phi3", "<|end|>"),
        # The next header alone tells that the user is done.
        ("deepseekv3", ""),
        ("glm4moe", ""),
    ],
)
def test_what_ends_a_users_turn_in_published_formats(template: str, end: str) -> None:
    assert encoder(real(template)).chat_format.user_end == end


def test_what_ends_a_users_turn_in_written_formats(shared_data: Path) -> None:
    ends = {
        "llama2": " [/INST]",
        "mistral_v3": "[/INST]",
        "zephyr": "</s>",
        "vicuna": "",
        "chatml": "<|im_end|>",
    }
    for name, end in ends.items():
        assert encoder(written(name, "byte-level")).chat_format.user_end == end
    # Llama-2's tokenizer has no token for it, so it is no control token.
    assert encoder(written("llama2", "llama2", shared_data)).chat_format.user_end == ""
    assert load_chat_format("tulu", byte_level_with_bos().tokenizer).user_end == ""


@pytest.mark.parametrize(
    ("template", "end"),
    [
        # Written before the next message only: nothing ends the last one.
        (BETWEEN, ""),
        # A header behind every user's text, with what ends an answer before it.
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}"
            "{{ '<|user|>' + m['content'] + '<|end|>\\n<|assistant|>\\n' }}"
            "{% else %}{{ m['content'] + '<|end|>\\n' }}{% endif %}{% endfor %}",
            "<|end|>",
        ),
        # The generation prompt's own token.
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}"
            "{{ '<|user|>' + m['content'] + '<|over|><|assistant|>' }}"
            "{% else %}{{ m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt and messages[-1]['role'] != 'user' %}"
            "{{ '<|assistant|>' }}{% endif %}",
            "<|over|>",
        ),
        # Parts with words between them.
        (
            "{% for m in messages %}{{ '<|open|>' + m['role'] + m['content'] + '<|close|>message<|sep|>' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|open|>assistant' }}{% endif %}",
            "<|close|>message<|sep|>",
        ),
        # Words come first: that is a header.
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'Q: ' + m['content'] + '\\nA: <|sep|>' }}"
            "{% else %}{{ m['content'] + '<|end|>' }}{% endif %}{% endfor %}",
            "",
        ),
    ],
    ids=("separator", "header behind", "prompt's token", "parts", "words"),
)
def test_what_ends_a_users_turn_in_odd_formats(template: str, end: str) -> None:
    assert load_chat_format("tokenizer", toy_tokenizer(template)).user_end == end


def test_every_user_has_an_end_with_its_message_and_weight() -> None:
    chat = [system("s"), user("u", weight=0.5), user(""), assistant("a"), user("<|im_end|>", weight=3.0)]
    row = one_sequence(next(iter(encoder(chatml()).encode([conversation(chat)]))))
    ends = [(message, text) for kind, message, text in pieces(row) if kind == "user_end"]
    assert ends == [(1, "<|im_end|>"), (2, "<|im_end|>"), (4, "<|im_end|>")]
    weights: Any = row.weights(WeightPolicy(table=read_loss_weights("user_end=0.25,assistant=0,end=0")))
    places = np.flatnonzero(weights)
    assert weights[places].tolist() == [0.125, 0.25, 0.75]
    assert [KINDS[kind] for kind in row.kinds[places]] == ["user_end"] * 3
    assert row.messages[places].tolist() == [1, 2, 4]
    assert set(row.tokens.ids[places].tolist()) == {chatml().tokenizer.eos_token_id}


def test_neither_the_template_nor_the_instruction_weight_reaches_it() -> None:
    (row,) = encoder(chatml()).encode([conversation([user("u"), assistant("a")])])
    weights = one_sequence(row).weights(WeightPolicy(1.0, 1.0, 1.0))
    assert [KINDS[kind] for kind in one_sequence(row).kinds[weights == 0]] == ["user_end"]


def test_in_a_rewritten_history_each_end_is_owned_once() -> None:
    case = real("qwen3")
    chat = [
        user("q"),
        assistant("a", reasoning_content="r"),
        user("s"),
        assistant("b", reasoning_content="t"),
    ]
    data = collect(
        RowEncoder(case.tokenizer, load_chat_format("auto", case.tokenizer), 4096).encode(
            [conversation(chat)]
        )
    )
    assert len(data.sequence_lengths) == 2
    owned = data.messages[(data.kinds == SpanKind.USER_END) & data.owned]
    assert owned.tolist() == [0, 2]
    read = data.messages[(data.kinds == SpanKind.USER_END) & ~data.owned]
    assert read.tolist() == [0]


def test_a_weight_is_refused_where_nothing_ends_a_users_turn(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    none = byte_level(["</s>"], eos_token="</s>").tokenizer
    none.save_pretrained(tmp_path / "none")
    chatml().tokenizer.save_pretrained(tmp_path / "chatml")
    arguments = ("--train_file", file, "--loss_weights")
    refused = run("inspect_weights", "--tokenizer_name", tmp_path / "none", *arguments, "user_end=1")
    assert refused.code == 2 and "the chat format tulu writes no control token behind a user's" in refused.err
    off = run("inspect_weights", "--tokenizer_name", tmp_path / "none", *arguments, "user_end=0")
    assert off.code == 0, off.err
    taken = run("inspect_weights", "--tokenizer_name", tmp_path / "chatml", *arguments, "user_end=1")
    assert taken.code == 0 and "user_end" in taken.out and "IT [user_end=1]" in taken.out
    plain = write_rows(tmp_path / "plain.jsonl", [*rows, {"prompt": "p", "completion": "c"}])
    training = ("--model_name_or_path", tmp_path / "chatml", "--output_dir", tmp_path / "out", "--train_file")
    refused = run("finetune", *training, plain, "--loss_weights", "user_end=1")
    assert refused.code == 2 and "plain.jsonl:2 is a plain prompt and its completion" in refused.err
