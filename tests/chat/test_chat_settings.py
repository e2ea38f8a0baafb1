"""--end_of_turn and --history: turns that end by nothing get an end, and a history is trained as a whole."""

from pathlib import Path
from typing import Any

import pytest
from chat_samples import assistant, conversation, system, user
from chat_templates import CALL, encoder, pieces, real, with_template
from chat_tokenizers import Case, byte_level, chatml
from one_sequence import one_sequence
from template_toys import installed_templates, toy_tokenizer
from todays_chats import ROWS
from turn_oracle import Oracle, Untold

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.settings import ChatSettings
from instruction_modelling.chat.spans import RESPONSE_KINDS, SpanKind
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.row_encoder import TemplateDefaults, row_encoder

# Nothing ends an answer, and no control token begins what follows.
ENDLESS = (
    "{% for m in messages %}{{ '### ' + m['role'] + ':\n' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
WORDS = ENDLESS.replace(
    "m['content'] + '\n'", "m['content'] + (' (over)' if m['role'] == 'assistant' else '') + '\n'"
)
TWO = [user("q"), assistant("a"), user("r"), assistant("b")]


def endless(template: str = ENDLESS) -> Case:
    """A tokenizer whose template ends no turn."""
    return byte_level(["</s>", "<stop>"], ["<plain>"], eos_token="</s>", chat_template=template)


def format_of(template: str, **settings: Any) -> Any:
    case = endless(ChatSettings(**settings).written_before(template))
    return load_chat_format("tokenizer", case.tokenizer)


def spans_of(chat_format: Any, chat: Any, **fields: Any) -> list[list[tuple[str, int, str]]]:
    """The spans of each sequence."""
    return [
        [(s.kind.name.lower(), s.message, part.text[s.start : s.end]) for s in part.spans]
        for part in chat_format.sequences(conversation(chat, **fields))
    ]


# -- the settings in front of a template -------------------------------------------------------------------


@pytest.mark.parametrize("template", [ENDLESS, "\n  {{ messages[0].content }}", "{#- a comment -#}\nx"])
def test_settings_in_front_of_a_template_write_nothing(template: str) -> None:
    chat = [user("q"), assistant("a")]
    plain, case = endless(template).tokenizer, endless(template)
    given = ChatSettings("#}<|x|>", "whole").written_before(template)
    case.tokenizer.chat_template = given
    assert case.tokenizer.apply_chat_template(chat, tokenize=False) == plain.apply_chat_template(
        chat, tokenize=False
    )
    assert ChatSettings.of(given) == ChatSettings("#}<|x|>", "whole")
    assert ChatSettings.of(template) == ChatSettings() and ChatSettings().written_before(template) == template


def test_settings_that_are_given_come_before_those_that_stand_there() -> None:
    given = ChatSettings("<stop>", "whole").written_before(ENDLESS)
    changed = ChatSettings(history="as_written").written_before(given)
    assert ChatSettings.of(changed) == ChatSettings("<stop>", "as_written")
    assert changed.count("instruction_modelling") == 1 and changed.endswith(ENDLESS)


def test_settings_are_part_of_a_formats_identity_and_of_the_caches_key() -> None:
    formats = [
        format_of(ENDLESS),
        format_of(ENDLESS, end_of_turn="<stop>"),
        format_of(ENDLESS, history="whole"),
    ]
    assert len({found.identity for found in formats}) == 3
    keys = set()
    for settings in (ChatSettings(), ChatSettings("<stop>"), ChatSettings(history="whole")):
        defaults = TemplateDefaults.read(None, settings=settings)
        keys.add(row_encoder(endless().tokenizer, "auto", 64, defaults=defaults).fingerprint)
    assert len(keys) == 3


# -- the end of a turn ---------------------------------------------------------------------------------------


def test_a_token_ends_each_turn_of_a_template_that_ends_none() -> None:
    found = format_of(ENDLESS, end_of_turn="<stop>")
    assert found.end_strings == ("<stop>",)
    # The history that the model reads has no such token, so each turn is behind a history of its own.
    first, second = found.sequences(conversation(TWO))
    assert first.text == "### user:\nq\n### assistant:\na<stop>"
    assert second.text == "### user:\nq\n### assistant:\na\n### user:\nr\n### assistant:\nb<stop>"
    assert spans_of(found, TWO)[0] == [("user", 0, "q"), ("assistant", 1, "a"), ("end", 1, "<stop>")]
    assert spans_of(found, TWO)[1][-2:] == [("assistant", 3, "b"), ("end", 3, "<stop>")]
    assert format_of(ENDLESS).end_strings == ("</s>",)


def test_the_token_is_one_token_and_trained() -> None:
    case = endless(ChatSettings(end_of_turn="<plain>").written_before(ENDLESS))
    (row,) = encoder(case).encode([conversation(TWO[:2])])
    row = one_sequence(row)
    (end,) = row.tokens.ids[row.kinds == 4].tolist()
    assert end == case.tokenizer.convert_tokens_to_ids("<plain>") == row.tokens.ids[-1]


def test_words_that_end_every_turn_stay_before_the_token() -> None:
    found = format_of(WORDS, end_of_turn="<stop>")
    (spans,) = spans_of(found, TWO[:2])
    assert spans == [("user", 0, "q"), ("assistant", 1, "a"), ("end", 1, " (over)"), ("end", 1, "<stop>")]


def test_an_end_is_refused_where_there_is_one_or_the_token_is_none() -> None:
    for text, words in (
        ("<stop", "none of the tokenizer's added tokens"),
        ("stop", "none of the tokenizer's added tokens"),
        ("<stop><stop>", "none of the tokenizer's added tokens"),
    ):
        with pytest.raises(UserError, match=words):
            format_of(ENDLESS, end_of_turn=text)
    with pytest.raises(UserError, match=r"ends a turn by itself, with <\|im_end\|>"):
        case = with_template(
            ChatSettings("<|im_start|>").written_before(str(chatml().tokenizer.chat_template))
        )
        load_chat_format("tokenizer", case.tokenizer)
    with pytest.raises(UserError, match=r"ends a turn by itself, with <\|user\|>"):
        glm = installed_templates()["glm4moe.jinja"]
        load_chat_format("tokenizer", toy_tokenizer(ChatSettings("<|user|>").written_before(glm)))
    with pytest.raises(UserError, match="the Tülu format ends a response by itself"):
        defaults = TemplateDefaults.read(None, settings=ChatSettings("</s>"))
        row_encoder(byte_level(["</s>"], eos_token="</s>").tokenizer, "auto", 64, defaults=defaults)


def test_turns_of_published_templates_without_an_end_are_what_the_model_has_to_write(
    shared_data: Path,
) -> None:
    names = ("chujie__amberchat", "chujie__solar-instruct", "llamacpp__llama-cpp-rwkv-world")
    folder, compared = shared_data / "templates", 0
    if not folder.is_dir():
        pytest.skip("no folder of published templates beside the public data files")
    for name in names:
        template = (folder / f"{name}.jinja").read_text(encoding="utf-8")
        tokenizer = toy_tokenizer(template)
        tokenizer.chat_template = ChatSettings("</s>").written_before(template)
        found = load_chat_format("tokenizer", tokenizer)
        for row in ROWS.values():
            oracle = Oracle(tokenizer, row.messages, row.tools, row.variables)
            given = conversation(
                [{k: m[k] for k in ("role", "content")} for m in row.messages if "tool_calls" not in m]
            )
            if (
                row.variables
                or len(given.messages) < len(row.messages)
                or oracle.lost()
                or oracle.render(row.messages) is None
            ):
                continue
            parts = found.sequences(given)
            for index in oracle.answers:
                try:
                    turn = oracle.turn(index)
                except Untold:
                    continue
                ends = [(part, span) for part in parts for span in part.spans if span.kind == SpanKind.END]
                ((part, end),) = [(part, span) for part, span in ends if span.message == index]
                start = min(s.start for s in part.spans if s.message == index and s.kind in RESPONSE_KINDS)
                assert end.end == len(part.text) and part.text[start:] == turn.text.rstrip() + "</s>"
                assert part.text[:start] == turn.before
                compared += 1
    assert compared > 30


# -- the whole history ---------------------------------------------------------------------------------------


def whole(name: str) -> Any:
    case = real(name)
    tokenizer = toy_tokenizer(ChatSettings(history="whole").written_before(str(case.tokenizer.chat_template)))
    return load_chat_format("tokenizer", tokenizer)


def test_an_end_that_is_no_stop_has_no_loss_in_a_whole_history() -> None:
    found = whole("gptoss")
    assert "<|end|>" not in found.end_strings and "<|return|>" in found.end_strings
    (part,) = found.sequences(conversation(TWO))
    assert "a<|end|>" in part.text and part.text.endswith("b<|return|>")
    (spans,) = spans_of(found, TWO)
    assert spans == [
        ("user", 0, "q"),
        ("user_end", 0, "<|end|>"),
        ("opening", 1, "<|channel|>final<|message|>"),
        ("assistant", 1, "a"),
        ("user", 2, "r"),
        ("user_end", 2, "<|end|>"),
        ("opening", 3, "<|channel|>final<|message|>"),
        ("assistant", 3, "b"),
        ("end", 3, "<|return|>"),
    ]


def test_what_a_whole_history_lacks_refuses_the_row() -> None:
    found = encoder(real("qwen3"))
    thinking = [user("q"), assistant("a", reasoning_content="why"), user("r"), assistant("b")]
    (row,) = found.encode([conversation(thinking)])
    assert not isinstance(row, BadRow) and len(row.sequences) == 2
    case = with_template(
        ChatSettings(history="whole").written_before(str(real("qwen3").tokenizer.chat_template))
    )
    (row,) = encoder(case).encode([conversation(thinking)])
    assert isinstance(row, BadRow) and row.reason == "reasoning_content not rendered"
    assert "--history whole trains the text of the whole conversation alone" in row.detail


def test_turns_without_their_opening_are_trained_as_they_stand_in_a_whole_history() -> None:
    found = whole("qwen3")
    (spans,) = spans_of(found, TWO)
    assert [(kind, text) for kind, message, text in spans if message == 1] == [
        ("assistant", "a"),
        ("end", "<|im_end|>"),
    ]
    assert [(kind, text) for kind, message, text in spans if message == 3] == [
        ("opening", "<think>\n\n</think>\n\n"),
        ("assistant", "b"),
        ("end", "<|im_end|>"),
    ]
    calling = [
        user("q"),
        {"role": "assistant", "content": "", "tool_calls": CALL},
        {"role": "tool", "content": "17"},
        *TWO[1:],
    ]
    (spans,) = spans_of(found, calling)
    (call, end) = [(kind, text) for kind, message, text in spans if message == 1]
    assert (
        call[0] == "tool_calls"
        and call[1].startswith("<tool_call>")
        and call[1].rstrip().endswith("</tool_call>")
    )
    assert end == ("end", "<|im_end|>")


def test_a_format_that_never_rewrites_is_the_same_either_way() -> None:
    chat = [system("s"), *TWO]
    one = chatml()
    other = with_template(ChatSettings(history="whole").written_before(str(one.tokenizer.chat_template)))
    rows = [one_sequence(next(iter(encoder(case).encode([conversation(chat)])))) for case in (one, other)]
    assert pieces(rows[0]) == pieces(rows[1]) and rows[0].tokens.ids.tolist() == rows[1].tokens.ids.tolist()


@pytest.mark.parametrize("name", ["qwen3", "gptoss", "glm4moe", "llama3_1", "gemma4", "nemotron_3_nano"])
def test_a_whole_history_is_the_template_s_text_with_every_content_in_it(name: str) -> None:
    found, compared = whole(name), 0
    plain = load_chat_format("tokenizer", toy_tokenizer(installed_templates()[f"{name}.jinja"]))
    for row in ROWS.values():
        if row.tools or row.variables or any(not m["content"].strip() for m in row.messages):
            continue
        given = conversation([{k: v for k, v in m.items() if k in ("role", "content")} for m in row.messages])
        try:
            several, (part,) = plain.sequences(given), found.sequences(given)
        except Exception as error:
            assert type(error).__name__ == "RowRefused"
            continue
        # Nemotron's turns stand behind their prompts, which the whole text has in other words.
        assert part.text == several[-1].text or name == "nemotron_3_nano"
        assert part.owned_start == 0
        texts = {
            m: "".join(part.text[s.start : s.end] for s in part.spans if s.message == m) for m in range(9)
        }
        for index, message in enumerate(row.messages):
            assert message["content"].strip().split("</think>")[-1].strip() in texts[index]
        if len(several) == 1 and part.text == several[0].text:
            assert part.spans == several[0].spans
        compared += 1
    assert compared >= 4
