"""The encoder of rows that a script's options ask for."""

import os
from typing import TYPE_CHECKING

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.errors import UserError
from instruction_modelling.tokens.encoded import RowEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def row_encoder(
    tokenizer: "PreTrainedTokenizerBase",
    chat_format: str,
    max_seq_length: int,
    released: bool = False,
    threads: int | None = None,
) -> RowEncoder:
    """Return the encoder from conversations to tokens that training, scoring and the inspector share.

    Args:
        chat_format: as `load_chat_format` takes it.
        released: give the released code's masks too.
        threads: that tokenise; None for all cores. The first encoding of a process fixes them.

    Raises:
        UserError: the format is not known, or the released masks were asked for with another than Tülu's.
    """
    if threads:
        # Before the format is loaded, which encodes a probe.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    loaded = load_chat_format(chat_format, tokenizer)
    if released and loaded.name != "tulu":
        raise UserError(
            "--mask_style released (--recipe released) is defined for the Tülu format, and this tokenizer "
            "has a chat template of its own: add --chat_format tulu, or --mask_style exact"
        )
    return RowEncoder(tokenizer, loaded, max_seq_length, released)
