"""The encoder of rows that a script's options ask for."""

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from instruction_modelling.chat.defaults import read_variables, require_read, today, with_defaults
from instruction_modelling.chat.formats import ChatFormat, load_chat_format
from instruction_modelling.chat.template import TemplateFormat
from instruction_modelling.errors import UserError
from instruction_modelling.tokens.encoded import RowEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TemplateDefaults:
    """What a run gives its chat template (`chat.defaults`)."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    """For every row that has none of its own."""
    date: datetime.date | None = None
    """What the template writes as today's date; None for the day on which it is rendered."""

    @classmethod
    def read(cls, text: str | None, date: datetime.date | None = None) -> "TemplateDefaults":
        """Return those of --chat_template_kwargs, with this date or today's.

        Raises:
            UserError: as `read_variables`.
        """
        return cls(read_variables(text), date or today())


def row_encoder(  # noqa: PLR0913 (each is an option of the scripts)
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: str,
    max_seq_length: int,
    released: bool = False,
    threads: int | None = None,
    defaults: TemplateDefaults = TemplateDefaults(),
) -> RowEncoder:
    """Return the encoder from conversations to tokens that training, scoring and the inspector share.

    Args:
        chat_format: as `load_chat_format` takes it.
        released: give the released code's masks too.
        threads: that tokenise; None for all cores. The first encoding of a process fixes them.
        defaults: of the chat template; they go into the tokenizer's own too, with which it is saved.

    Raises:
        UserError: the format is not known, or reads none of the variables, or the released masks were asked
            for with another than Tülu's.
    """
    if threads:
        # Before the format is loaded, which encodes a probe.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    loaded = _load_format(chat_format, tokenizer, defaults)
    if released and loaded.name != "tulu":
        raise UserError(
            "--mask_style released (--recipe released) is defined for the Tülu format, and this tokenizer "
            "has a chat template of its own: add --chat_format tulu, or --mask_style exact"
        )
    return RowEncoder(tokenizer, loaded, max_seq_length, released)


def _load_format(choice: str, tokenizer: "PreTrainedTokenizerBase", defaults: TemplateDefaults) -> ChatFormat:
    """Return the chat format of this name, with defaults in front of its template."""
    before, variables = tokenizer.chat_template, defaults.variables

    def with_own(template: str) -> str:
        return with_defaults(template, variables, defaults.date)

    if isinstance(before, dict):
        tokenizer.chat_template = {name: with_own(template) for name, template in before.items()}
    elif before:
        tokenizer.chat_template = with_own(before)
    loaded = load_chat_format(choice, tokenizer)
    if loaded.name == "tulu":
        if variables:
            raise UserError(
                "--chat_template_kwargs: the Tülu format has no variables; leave it out, or give another "
                "--chat_format"
            )
        return loaded
    if loaded.name == "tokenizer":
        require_read(before, variables)
        return loaded
    require_read(loaded.template, variables)
    changed = with_own(loaded.template)
    return loaded if changed == loaded.template else TemplateFormat(tokenizer, changed, loaded.name)
