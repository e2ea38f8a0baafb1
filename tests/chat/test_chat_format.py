"""Generation prompts, the paper's format, the saved template, and the format chosen by name."""

from pathlib import Path
from typing import Any

import pytest
from chat_samples import CHATS, Chat, assistant, chats, conversation, plain_row, system, texts, tool, user
from chat_templates import CALL, FEW, ZEPHYR, chat_format, encoder, real, rendering, written
from chat_tokenizers import Case, byte_level, byte_level_with_bos, chatml, llama2, mistral, smollm2
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import KINDS

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.tulu import TuluFormat
from instruction_modelling.errors import RowRefused, UserError


@pytest.mark.parametrize(
    "name", ["llama3", "qwen2_5", "qwen3", "gptoss", "gemma", "phi3", "cohere2", "mistral", "tulu"]
)
def test_the_generation_prompt_is_the_templates_own(name: str) -> None:
    case = (
        byte_level_with_bos()
        if name == "tulu"
        else written("zephyr", "byte-level")
        if name == "mistral"
        else real(name)
    )
    chat = [user("hello"), assistant("there"), user("more </s>")]
    rendered = chat_format(case).prompt(conversation(chat))
    if name == "tulu":
        assert (
            rendered.text == "<|user|>\nhello\n<|assistant|>\nthere</s>\n<|user|>\nmore </s>\n<|assistant|>\n"
        )
    else:
        assert rendered.text == rendering(case, chat, add_generation_prompt=True)
    assert [rendered.text[a:b] for a, b in rendered.data_ranges] == ["hello", "there", "more </s>"]


@pytest.mark.parametrize("name", ["byte-level", "section", "first"])
@settings(FEW, max_examples=40)
@given(data=st.data())
def test_the_saved_template_gives_the_training_text_and_ids(name: str, data: st.DataObject) -> None:
    case = byte_level_with_bos() if name == "byte-level" else mistral("tokenizer.model.v1", name)
    chat = data.draw(chats(texts()))
    check_saved_template(case, chat)


def check_saved_template(case: Case, chat: Chat) -> None:
    """The template that is saved with a model renders what training saw: the text, the ids, and the
    prompt's."""
    rows = encoder(case, "tulu")
    shown = case.tokenizer
    for prompt in (False, True):
        row = conversation(chat)
        rendered = rows.chat_format.prompt(row) if prompt else rows.chat_format.sequences(row)[0]
        given_chat = [dict(message) for message in chat]
        text = str(
            shown.apply_chat_template(
                given_chat,
                chat_template=rows.chat_format.template,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        )
        assert text.removeprefix("<s>").removeprefix(" ") == rendered.text
        ids = shown.apply_chat_template(
            given_chat,
            chat_template=rows.chat_format.template,
            return_dict=False,
            add_generation_prompt=prompt,
        )
        tokens = rows.text_encoder.encode([rendered])[0]
        if not tokens.control_text:
            assert tokens.ids.tolist() == ids
            assert ids.count(shown.bos_token_id) == 1
        assert ids[0] == shown.bos_token_id


def test_the_saved_template_with_the_real_tokenizers(shared_data: Path) -> None:
    for chat in CHATS:
        check_saved_template(llama2(shared_data), chat)


def test_the_tulu_format_by_value() -> None:
    tulu = TuluFormat("</s>")
    (rendered,) = tulu.sequences(
        conversation([system(" s "), user("u\n"), assistant(""), user(""), assistant("a </s>")])
    )
    assert (
        rendered.text
        == "<|system|>\ns\n<|user|>\nu\n<|assistant|>\n</s>\n<|user|>\n\n<|assistant|>\na </s></s>"
    )
    spans = [(KINDS[s.kind], s.message, rendered.text[s.start : s.end]) for s in rendered.spans]
    assert spans == [
        ("system", 0, "s"),
        ("user", 1, "u"),
        ("end", 2, "</s>"),
        ("assistant", 4, "a </s>"),
        ("end", 4, "</s>"),
    ]
    assert [rendered.text[a:b] for a, b in rendered.data_ranges] == ["s", "u", "a </s>"]
    assert tulu.sequences(conversation([user("u"), assistant("a"), user(" ")]))[0].text == (
        "<|user|>\nu\n<|assistant|>\na</s>\n<|user|>"
    )


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (tool("42"), "role 'tool'"),
        (assistant("a", tool_calls=CALL), "tool_calls"),
        (assistant("a", reasoning_content="r"), "reasoning_content"),
    ],
)
def test_the_tulu_format_refuses_what_it_has_no_place_for(message: dict[str, Any], name: str) -> None:
    with pytest.raises(RowRefused) as refused:
        TuluFormat("</s>").sequences(conversation([user("q"), message]))[0]
    assert refused.value.reason == f"{name} not in this format" and "message 1" in refused.value.detail


@pytest.mark.parametrize(
    ("prompt", "completion", "text"),
    [
        ("Q:", "A", "Q: A</s>"),
        ("Q: ", "A", "Q: A</s>"),
        ("Q:\n", "A", "Q:\nA</s>"),
        ("Q:", "\nA", "Q:\nA</s>"),
        ("Q:", "", "Q: </s>"),
        ("", "A", "A</s>"),
        (" Q ", " A ", " Q  A </s>"),
    ],
)
def test_prompt_and_completion_are_joined_as_they_are(prompt: str, completion: str, text: str) -> None:
    tulu = TuluFormat("</s>")
    rendered = tulu.sequences(plain_row(prompt, completion))[0]
    assert rendered.text == text
    spans = {(KINDS[s.kind], s.message): rendered.text[s.start : s.end] for s in rendered.spans}
    assert spans == {
        key: value
        for key, value in {("user", 0): prompt, ("assistant", 1): completion, ("end", 1): "</s>"}.items()
        if value
    }
    assert tulu.prompt(plain_row(prompt, completion)).text == prompt


def test_the_format_is_chosen_by_name(tmp_path: Path) -> None:
    with_own, without = chatml().tokenizer, byte_level_with_bos().tokenizer
    assert load_chat_format("auto", with_own).name == "tokenizer"
    assert load_chat_format("auto", without).name == "tulu"
    assert load_chat_format("tulu", with_own).end_strings == ("<|im_end|>",)
    file = tmp_path / "mine.jinja"
    file.write_text(ZEPHYR, encoding="utf-8")
    mine = load_chat_format(str(file), without)
    assert mine.name == "mine.jinja" and mine.end_strings == ("</s>",) and mine.template == ZEPHYR
    with pytest.raises(UserError, match="no chat template"):
        load_chat_format("tokenizer", without)
    with pytest.raises(UserError, match=r"nowhere\.jinja"):
        load_chat_format(str(tmp_path / "nowhere.jinja"), without)
    with pytest.raises(UserError, match="EOS"):
        load_chat_format("tulu", byte_level(["<s>"], bos_token="<s>").tokenizer)


def test_end_strings_are_single_tokens_at_which_generation_stops() -> None:
    wanted = {
        "cohere2": ("<|END_OF_TURN_TOKEN|>",),
        # `<|end|>` closes the analysis, within a turn.
        "gptoss": ("<|return|>", "<|call|>"),
        "phi3": ("<|end|>",),
        "gemma": ("<end_of_turn>",),
        "llama3": ("<|eot_id|>",),
        # Whoever speaks next.
        "glm4moe": ("<|user|>", "<|observation|>"),
    }
    assert {name: chat_format(real(name)).end_strings for name in wanted} == wanted


def test_the_end_string_of_smollm2s_template() -> None:
    assert chat_format(smollm2()).end_strings == ("<|im_end|>",)
