"""A chat template that writes what it writes with a run's variables, and with the date of the run's start.

Templates that write today's date (Llama-3.2's, gpt-oss's) call `strftime_now`. A run that goes on the next
day must write the date of its first day, and the tuned model is asked with the date that it was trained
with. transformers lets no function through as a variable, so the clock becomes a macro in front of the
template, and so do the variables: the template that is trained with is the one that is saved."""

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from instruction_modelling.errors import UserError

CLOCK = "strftime_now"
_MACRO = f"macro {CLOCK}(format)"
# The formats that a template calls the clock with.
_FORMATS = re.compile(CLOCK + r"\s*\(\s*(?:format\s*=\s*)?(\"[^\"]*\"|'[^']*')")

Templates = str | dict[str, str] | None
"""A tokenizer's `chat_template`: one, several by name, or none."""


def today() -> datetime.date:
    """Return the date by the clock that transformers gives to templates."""
    from transformers.utils import chat_template_utils

    clock = getattr(chat_template_utils, "datetime", datetime.datetime)
    return clock.now().date()


def read_variables(text: str | None) -> dict[str, Any]:
    """Return the value of --chat_template_kwargs, a JSON object.

    Raises:
        UserError: it is none, or names a variable that is given for each row.
    """
    try:
        variables = json.loads(text) if text else {}
    except ValueError as error:
        raise UserError(f"--chat_template_kwargs {text}: no JSON ({error})") from error
    if not isinstance(variables, dict):
        raise UserError(
            f"--chat_template_kwargs {text}: give a JSON object, such as '{{\"enable_thinking\": false}}'"
        )
    taken = sorted({"messages", "tools", "documents", "add_generation_prompt", CLOCK} & variables.keys())
    if taken:
        raise UserError(f"--chat_template_kwargs: {taken[0]} cannot be set, for it is given for each row")
    return variables


def reads_date(templates: Templates) -> bool:
    """Return whether a template may write today's date."""
    return any(_reads_clock(template) for template in _texts(templates))


def fixed_date(templates: Templates, date: datetime.date) -> str | None:
    """Return a run's date as YYYY-MM-DD where `with_defaults` has put it into a template, else None."""
    return date.isoformat() if any(_MACRO in template for template in _texts(templates)) else None


def require_read(templates: Templates, variables: Mapping[str, Any]) -> None:
    """Refuse variables that no template reads.

    Raises:
        UserError: there is one.
    """
    for name in variables:
        if not any(_names(template, name) for template in _texts(templates)):
            raise UserError(
                f"--chat_template_kwargs: the chat template reads no variable {name}, so it would change "
                "nothing"
            )


def not_read(identity: str, names: Iterable[str]) -> list[str]:
    """Return which variables the templates in a chat format's `identity` do not name."""
    return [name for name in names if not _names(identity, name)]


def with_defaults(template: str, variables: Mapping[str, Any], date: datetime.date | None = None) -> str:
    """Return a template that writes what it writes with these variables, where a row gives no others, and
    with the clock at midnight of this date; as it is where it reads none of them."""
    lines = [_clock_macro(template, date)] if date and _reads_clock(template) else []
    lines += [
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}"
        for name, value in variables.items()
        if _names(template, name)
    ]
    # Templates are read with `trim_blocks`: the newline behind a block is not written.
    return "".join(f"{line}\n" for line in lines) + template


def _texts(templates: Templates) -> list[str]:
    return list(templates.values()) if isinstance(templates, dict) else [templates] if templates else []


def _reads_clock(template: str) -> bool:
    """Return whether a template calls transformers' clock, and not one that an earlier run has fixed."""
    return CLOCK in template and _MACRO not in template


def _names(template: str, name: str) -> bool:
    return name.isidentifier() and re.search(rf"\b{re.escape(name)}\b", template) is not None


def _clock_macro(template: str, date: datetime.date) -> str:
    time = datetime.datetime.combine(date, datetime.time())
    formats = dict.fromkeys(found[1:-1] for found in _FORMATS.findall(template))
    cases = "".join(
        f"{{%- {'elif' if number else 'if'} format == {json.dumps(text)} -%}}{time.strftime(text)}"
        for number, text in enumerate(formats)
    )
    # A format that is made as the template runs is not known here.
    other = time.strftime("%Y-%m-%d")
    written = f"{cases}{{%- else -%}}{other}{{%- endif -%}}" if cases else other
    return f"{{%- {_MACRO} -%}}{written}{{%- endmacro %}}"


def _literal(value: Any) -> str:
    """Return a JSON value as Jinja writes it."""
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(name)}: {_literal(inner)}" for name, inner in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value)
