"""BLEU of responses against references, by sacrebleu, with the tokenizer that the script of each reference
asks for.

sacrebleu's usual tokenizer, 13a, looks for words between spaces: a Chinese sentence is one word to it, and
its BLEU 0. So `auto` looks at each reference:

- `zh` (each Chinese character a word) where it is Chinese;
- `ja-mecab` where it is Japanese and MeCab is installed (pip install sacrebleu[ja]);
- `flores200`, which makes BLEU spBLEU, where it is of another script without spaces, or Japanese without
  MeCab, and sacrebleu's model lies on this machine; `char`, single characters, where it does not;
- `13a` in all other cases.

The reference decides, not the response: the scores of two models on one file are made alike. Texts are
composed (NFC) first, so that a letter with its accent is one character on both sides."""

import importlib.util
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.generation.responses import Response
from instruction_modelling.rows.scripts import main_script

TOKENIZERS = ("auto", "13a", "zh", "ja-mecab", "ko-mecab", "flores200", "char", "intl", "none")
_SPBLEU_MODEL = "flores200sacrebleuspm"
_WHAT_IT_IS = {
    "13a": "words between spaces",
    "zh": "each Chinese character a word",
    "ja-mecab": "words that MeCab finds",
    "flores200": "spBLEU: pieces of the FLORES-200 model",
    "char": "single characters: higher than BLEU of words, and comparable with char alone",
}


@dataclass(frozen=True)
class Bleu:
    """BLEU from 0 to 100, and what sacrebleu says it computed."""

    sentence_bleu: float
    corpus_bleu: float
    rows: int
    rows_without_reference: int
    signature: str
    corpus_signature: str
    tokenizers: dict[str, int]
    """Rows by the tokenizer they were scored with."""
    note: str | None
    """How rows were tokenised, in words; None where 13a suits all."""


def bleu(responses: Sequence[Response], tokenize: str = "auto") -> Bleu:
    """Return the mean over rows of sentence BLEU, and the BLEU of all rows as one corpus.

    Sentence BLEU has effective order: n-gram orders longer than the response do not count. Rows without a
    reference are counted and left out.

    Args:
        tokenize: one of `TOKENIZERS`; all but `auto` hold for every row.

    Raises:
        UserError: no row has a reference, or what the tokenizer needs is not installed.
    """
    from sacrebleu.metrics import BLEU

    pairs = [
        (unicodedata.normalize("NFC", response.response), unicodedata.normalize("NFC", response.reference))
        for response in responses
        if response.reference is not None
    ]
    if not pairs:
        raise UserError(
            f"none of the {len(responses)} responses has a reference to compare with; BLEU needs rows whose "
            "last message is the assistant's"
        )
    references = [reference for _, reference in pairs]
    names = [tokenizer_for(reference) if tokenize == "auto" else tokenize for reference in references]
    counts = dict(Counter(names).most_common())
    metrics = {name: _metric(name, effective_order=True) for name in counts}
    sentences = [
        metrics[name].sentence_score(response, [reference]).score
        for name, (response, reference) in zip(names, pairs, strict=True)
    ]
    if len(counts) == 1:
        corpus = _metric(names[0])
    else:
        # One corpus of rows that are tokenised already, each by its own tokenizer.
        corpus = BLEU(tokenize="none", force=True)
        cut = {name: metric.tokenizer for name, metric in metrics.items()}
        pairs = [
            (cut[name](response.rstrip()), cut[name](reference.rstrip()))
            for name, (response, reference) in zip(names, pairs, strict=True)
        ]
    whole = corpus.corpus_score([response for response, _ in pairs], [[reference for _, reference in pairs]])
    # The signature of a metric names one tokenizer, which is that of some rows only.
    used = "tok:" + "+".join(sorted(counts))
    return Bleu(
        math.fsum(sentences) / len(sentences),
        whole.score,
        len(pairs),
        len(responses) - len(pairs),
        str(metrics[names[0]].get_signature()).replace(f"tok:{names[0]}", used),
        str(corpus.get_signature()).replace("tok:none", used),
        counts,
        _note(counts, references),
    )


def _note(counts: dict[str, int], references: Sequence[str]) -> str | None:
    unspaced = sum(main_script(reference) != "spaced" for reference in references)
    if set(counts) == {"13a"} and not unspaced:
        return None
    note = "tokenised by " + "; ".join(
        f"{name} ({_WHAT_IT_IS.get(name, 'as sacrebleu does')}) in {_rows(count)}"
        for name, count in counts.items()
    )
    if unspaced and set(counts) <= {"13a", "intl", "none"}:
        note += f". {_rows(unspaced)} have a reference written without spaces, whose words this does not find"
    return note


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def tokenizer_for(reference: str) -> str:
    """Return the tokenizer that `auto` takes for a reference (module docstring)."""
    script = main_script(reference)
    if script == "spaced":
        return "13a"
    if script == "Chinese":
        return "zh"
    if script == "Japanese" and _has_modules("MeCab", "ipadic"):
        return "ja-mecab"
    return "flores200" if _spbleu_model().exists() else "char"


def _has_modules(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)


def _spbleu_model() -> Path:
    """Return where sacrebleu keeps the model of spBLEU once it is downloaded."""
    from sacrebleu.utils import SACREBLEU_DIR

    return Path(SACREBLEU_DIR) / "models" / _SPBLEU_MODEL


def _metric(name: str, effective_order: bool = False):
    from sacrebleu.metrics import BLEU

    if name == "flores200" and not _spbleu_model().exists():
        raise UserError(
            f"--bleu_tokenize flores200: its model is not at {_spbleu_model()}; put it there (sacrebleu's "
            "documentation names the source), or take char"
        )
    try:
        return BLEU(tokenize=name, effective_order=effective_order)
    except (RuntimeError, ImportError) as error:
        first, *_ = str(error).strip().splitlines() or [""]
        raise UserError(
            f"--bleu_tokenize {name}: {first} (pip install 'sacrebleu[{name.split('-')[0]}]')"
        ) from None
