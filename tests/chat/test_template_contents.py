"""What templates do to contents: empty ones, edge whitespace, changed and left out texts."""

from chat_samples import assistant, conversation, system, user
from chat_templates import CUTS, LOOP, SHOUTS, SKIPS_EMPTY, encode, encoder, pieces, real, with_template
from chat_tokenizers import CHATML, chatml
from oracle import KINDS

from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded_rows import EncodedRow


def test_an_empty_response_is_trained_to_end_and_one_that_is_left_out_takes_no_other_end() -> None:
    chat = [user("q"), assistant(""), user("r"), assistant("s")]
    assert pieces(encode(chatml(), chat)) == [
        ("user", 0, "q"),
        ("user_end", 0, "<|im_end|>"),
        ("end", 1, "<|im_end|>"),
        ("user", 2, "r"),
        ("user_end", 2, "<|im_end|>"),
        ("assistant", 3, "s"),
        ("end", 3, "<|im_end|>"),
    ]
    # The template leaves the empty message out: the end of the user's message is nobody's response.
    skipping = with_template(SKIPS_EMPTY)
    assert pieces(encode(skipping, chat)) == [
        ("user", 0, "q"),
        ("user_end", 0, "<|im_end|>"),
        ("user", 2, "r"),
        ("user_end", 2, "<|im_end|>"),
        ("assistant", 3, "s"),
        ("end", 3, "<|im_end|>"),
    ]
    asked = [("user", 0, "q"), ("user_end", 0, "<|im_end|>")]
    assert pieces(encode(skipping, [user("q"), assistant("")])) == asked
    no_system = [system(""), user("q"), assistant(""), user(""), assistant("s")]
    (row,) = encoder(real("gptoss")).encode([conversation(no_system)])
    assert isinstance(row, EncodedRow)
    assert [[(KINDS[s.kind], s.message) for s in part.rendered.spans] for part in row.sequences] == [
        [("user", 1), ("user_end", 1), ("opening", 2), ("end", 2)],
        [("user", 1), ("user_end", 1), ("user_end", 3), ("opening", 4), ("assistant", 4), ("end", 4)],
    ]


def test_edge_whitespace_belongs_to_the_content_where_the_template_keeps_it() -> None:
    chat = [user(" q\n"), assistant("\n\na \n")]
    assert pieces(encode(chatml(), chat)) == [
        ("user", 0, " q\n"),
        ("user_end", 0, "<|im_end|>"),
        ("assistant", 1, "\n\na \n"),
        ("end", 1, "<|im_end|>"),
    ]
    trims = with_template(CHATML.replace("message['content']", "(message['content'] | trim)"))
    assert pieces(encode(trims, chat)) == [
        ("user", 0, "q"),
        ("user_end", 0, "<|im_end|>"),
        ("assistant", 1, "a"),
        ("end", 1, "<|im_end|>"),
    ]
    left = with_template(CHATML.replace("message['content']", "message['content'].lstrip('\\n')"))
    assert pieces(encode(left, chat)) == [
        ("user", 0, " q\n"),
        ("user_end", 0, "<|im_end|>"),
        ("assistant", 1, "a \n"),
        ("end", 1, "<|im_end|>"),
    ]


def test_edge_whitespace_between_contents_that_only_whitespace_parts() -> None:
    chat = [user(" a\n"), assistant("\nb\n"), user("\nc ")]
    for change, wanted in [
        ("message['content']", [" a\n", "\nb\n", "\nc "]),
        ("message['content'].strip()", ["a", "b", "c"]),
        ("message['content'].rstrip()", [" a", "\nb", "\nc"]),
        ("message['content'].lstrip()", ["a\n", "b\n", "c "]),
    ]:
        row = encode(with_template(LOOP + "{{ " + change + " + '\\n' }}{% endfor %}"), chat)
        assert [text for _, _, text in pieces(row)] == wanted


def test_templates_that_change_contents() -> None:
    chat = [user("hello"), assistant("there")]
    assert pieces(encode(with_template(SHOUTS), chat)) == [
        ("user", 0, "HELLO"),
        # This template has no generation prompt: the model is to write its own header.
        ("opening", 1, "assistant: "),
        ("assistant", 1, "THERE"),
        ("end", 1, "<|im_end|>"),
    ]
    row = encode(with_template(CUTS), chat)
    assert isinstance(row, BadRow) and row.reason == "spans cannot be derived"
    drops = with_template(
        LOOP + "{% if message['role'] == 'user' %}{{ message['content'] }}{% endif %}{% endfor %}"
    )
    row = encode(drops, chat)
    assert isinstance(row, BadRow) and row.reason == "content not rendered" and "message 1" in row.detail


def test_an_end_is_not_found_in_the_next_message() -> None:
    # No end token and no header: the next content may spell the EOS token, which stays that content's text.
    bare = with_template(LOOP + "{{ message['content'] + '\\n' }}{% endfor %}")
    assert pieces(encode(bare, [user("q"), assistant("a"), user("<|im_end|> r"), assistant("s")])) == [
        ("user", 0, "q"),
        ("assistant", 1, "a"),
        ("user", 2, "<|im_end|> r"),
        ("assistant", 3, "s"),
    ]


def test_a_header_that_an_earlier_content_spells_is_not_taken_for_the_turns_own() -> None:
    thinks = (
        LOOP + "{{ '<|im_start|>' + ('me' if message.reasoning_content else message['role']) + '\\n' }}"
        "{% if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>' }}{% endif "
        "%}"
        "{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    # The template writes this turn behind another header than its prompt has: the model is to write the rest.
    chat = [user("<|im_start|>assistant\n trap"), assistant("a", reasoning_content="r")]
    assert pieces(encode(with_template(thinks), chat))[1:] == [
        ("user_end", 0, "<|im_end|>"),
        ("reasoning", 1, "me\n<think>"),
        ("reasoning", 1, "r"),
        ("reasoning", 1, "</think>"),
        ("assistant", 1, "a"),
        ("end", 1, "<|im_end|>"),
    ]
