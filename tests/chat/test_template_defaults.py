"""The variables and the date that a run gives its chat template, and the template that is saved with them."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_tokenizer

from instruction_modelling.chat.defaults import read_variables, reads_date, require_read, with_defaults
from instruction_modelling.errors import UserError

DAY = datetime.date(2026, 3, 30)
DATED = (
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    'Today: {{ date_string }} {{ strftime_now("%Y-%m-%d") }}\n'
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    "{{ mode }}{{ (limits or {}).get('n', 'none') }}"
)
UNDATED = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
CHAT = [{"role": "user", "content": "Hi"}]


def written(template: str, **variables: Any) -> str:
    """What transformers renders."""
    return str(
        make_tiny_tokenizer().apply_chat_template(CHAT, chat_template=template, tokenize=False, **variables)
    )


def test_the_clock_stands_still_and_the_rest_is_as_it_was() -> None:
    found = written(with_defaults(DATED, {}, DAY))
    assert "Today: 30 Mar 2026 2026-03-30\n" in found
    assert found.split("\n")[1:] == written(DATED).split("\n")[1:]
    assert with_defaults(UNDATED, {}, DAY) == UNDATED
    assert reads_date(DATED) and reads_date({"default": UNDATED, "tool_use": DATED})
    assert not reads_date(UNDATED) and not reads_date(None)


@pytest.mark.parametrize(
    "variables",
    [
        {"enable_thinking": False},
        {"enable_thinking": True, "mode": 'a "b"'},
        {"limits": {"n": 3, "of": [1, None, True]}},
        {"date_string": "1 Jan 2000", "mode": "x", "not_read": 5},
    ],
    ids=str,
)
def test_the_saved_template_writes_what_the_run_wrote(variables: dict[str, Any]) -> None:
    saved = with_defaults(DATED, variables)
    assert written(saved) == written(DATED, **variables)
    # What is given with it comes first, as before.
    assert written(saved, mode="given") == written(DATED, **{**variables, "mode": "given"})


def test_a_template_that_reads_none_of_them_stays_as_it_is() -> None:
    assert with_defaults(UNDATED, {"enable_thinking": False}, DAY) == UNDATED
    assert with_defaults(DATED, {}) == DATED


def test_whitespace_at_the_start_of_a_template_stays() -> None:
    for start in ("\n\n  ", "  {%- if true %}x{% endif %}", "{# note #}\n", "a"):
        template = start + DATED
        assert written(with_defaults(template, {"mode": "x"})) == written(template, mode="x")


def test_a_variable_that_no_template_reads_is_refused() -> None:
    require_read({"default": UNDATED, "tool_use": DATED}, {"mode": 1})
    with pytest.raises(UserError, match="reads no variable enable_thinking"):
        require_read(UNDATED, {"enable_thinking": False})


def test_the_saved_template_survives_saving(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = make_tiny_tokenizer(with_defaults(DATED, {}, DAY))
    tokenizer.save_pretrained(tmp_path)
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert "Today: 30 Mar 2026 2026-03-30" in loaded.apply_chat_template(CHAT, tokenize=False)


def test_variables_are_a_json_object() -> None:
    assert read_variables(None) == {} and read_variables('{"enable_thinking": false}') == {
        "enable_thinking": False
    }
    for text, words in (
        ("{", "no JSON"),
        ("[1]", "a JSON object"),
        ('{"messages": 1}', "messages cannot be set"),
    ):
        with pytest.raises(UserError, match=words):
            read_variables(text)
