"""How an inspection is shown: on the terminal, and as a page."""

import re
import sys

import pytest
from inspections import ANSWER, UNEVEN, Inspect, Page, chat

HOSTILE = "<script>alert('x')</script> & \"q\" \x1b[2J\u202e</div>"


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
