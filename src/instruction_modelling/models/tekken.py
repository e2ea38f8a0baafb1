"""Mistral's tokenizers of folders that hold `tekken.json` alone, as fast tokenizers with offsets."""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

TEKKEN = "tekken.json"
# A folder with one of these has a tokenizer of the usual kind.
_USUAL = ("tokenizer.json", "tokenizer.model", "vocab.json")
_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
# Text that a wrong conversion would cut otherwise than Mistral's own library.
_SAMPLES = (
    "Hello wörld, it's 12345.",
    " a  b\n\n\tdef f(x):\n    return x",
    "東京 naïve — “café” 😀",
    "</s>[INST]",
)
_CONVERT = (
    "convert it where mistral-common 1.11.7 or newer is installed (pip install 'mistral-common[image]'): "
    "AutoTokenizer.from_pretrained(FOLDER, mistral_format=False).save_pretrained(NEW_FOLDER), and give "
    "--tokenizer_name NEW_FOLDER"
)


def is_tekken_alone(folder: Path) -> bool:
    """Return whether a folder's only tokenizer is a tekken.json."""
    return (folder / TEKKEN).is_file() and not any((folder / name).exists() for name in _USUAL)


def load_tekken_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load a folder's tekken.json as a fast tokenizer that puts `<s>` in front, as Mistral's chats begin.

    Raises:
        UserError: the file cannot be converted, or not to a tokenizer that cuts as Mistral's own does.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as temporary:
        given = Path(temporary)
        (given / TEKKEN).write_text(json.dumps(_with_special_tokens(folder)), encoding="utf-8")
        for name in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
            if (folder / name).is_file():
                shutil.copy(folder / name, given / name)
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(given, mistral_format=False, **_NAMES)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise UserError(
                f"{folder / TEKKEN} cannot be read as a tokenizer ({error}); {_CONVERT}"
            ) from error
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.name_or_path = str(folder)
    # What it was read from is gone, and its files are saved in the usual form.
    tokenizer.init_kwargs = {k: v for k, v in tokenizer.init_kwargs.items() if temporary not in str(v)}
    _compare_with_mistrals(folder, tokenizer)
    if not tokenizer.chat_template:
        logger.warning(
            "%s has no chat template beside its tekken.json: give Mistral's own as --chat_format FILE.jinja, "
            "else the Tülu format is used",
            folder,
        )
    return tokenizer


def _with_special_tokens(folder: Path) -> dict[str, Any]:
    """Return a tekken.json with the special tokens that older ones leave to Mistral's library."""
    try:
        content = json.loads((folder / TEKKEN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / TEKKEN} cannot be read: {error}") from error
    if content.get("special_tokens") is not None:
        return content
    try:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        tokens: Any = Tekkenizer.DEPRECATED_SPECIAL_TOKENS
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{folder / TEKKEN} does not list its special tokens, which Mistral's library knows, and that is "
            f"not installed here ({error}): pip install mistral-common, or {_CONVERT}"
        ) from error
    content["special_tokens"] = [
        {**token, "token_str": str(getattr(token["token_str"], "value", token["token_str"]))}
        for token in tokens
    ]
    return content


def _compare_with_mistrals(folder: Path, tokenizer: Any) -> None:
    """Hold the ids of some texts against those of Mistral's library, where it is installed."""
    try:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        own = Tekkenizer.from_file(folder / TEKKEN)
    except (ImportError, ValueError, KeyError):
        return
    for text in _SAMPLES:
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if ids != own.encode(text, bos=False, eos=False):
            raise UserError(
                f"{folder / TEKKEN}: converted, it cuts {text!r} otherwise than Mistral's own library; "
                f"{_CONVERT}"
            )
