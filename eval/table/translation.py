"""TER and chrF of corpora resampled ten thousand times: counts of each sentence once, then sums of them.

sacrebleu's own paired bootstrap gives each system's interval and no interval of their difference, and its
`corpus_score` counts every sentence anew at each call; so the counts come from its public functions and the
last step, from summed counts to a score, is here for many sums at a time."""

from collections.abc import Sequence

import numpy as np

# chrF's longest n-gram and its weight of recall, squared (Popović 2015; sacrebleu's defaults, and lm-eval's).
CHRF_ORDERS = 6
_BETA_SQUARED = 4.0


def corpus_counts(metric: str, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return the counts that a corpus score is made of, shape (sentences, counts).

    Args:
        metric: `ter` (edits, reference words) or `chrf` (for each order the n-grams of the translation, of
            the reference, of both).
        pairs: each sentence's reference and translation.
    """
    from sacrebleu.metrics import TER

    if metric == "chrf":
        return np.array([_chrf_counts(reference, translation) for reference, translation in pairs], float)
    ter = TER()
    scores = [ter.sentence_score(translation, [reference]) for reference, translation in pairs]
    return np.array([(score.num_edits, score.ref_length) for score in scores], float)


def corpus_score(metric: str, sums: np.ndarray) -> np.ndarray:
    """Return the score in percent of each corpus from its summed counts, shape (..., counts)."""
    return _ter(sums) if metric == "ter" else _chrf(sums)


def _chrf_counts(reference: str, translation: str) -> list[int]:
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    counts = []
    for of_translation, of_reference in zip(
        *(
            extract_all_char_ngrams(text, CHRF_ORDERS, include_whitespace=False)
            for text in (translation, reference)
        ),
        strict=True,
    ):
        # As in sacrebleu, an order that the reference is too short for does not count.
        counts += [
            of_translation.total() if of_reference else 0,
            of_reference.total(),
            (of_translation & of_reference).total(),
        ]
    return counts


def _ter(sums: np.ndarray) -> np.ndarray:
    edits, words = sums[..., 0], sums[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(words > 0, 100 * edits / words, np.where(edits > 0, 100.0, 0.0))


def _chrf(sums: np.ndarray) -> np.ndarray:
    """Average precision and recall over the orders that both texts have (Popović 2015)."""
    of_translation, of_reference, shared = (sums[..., column::3] for column in range(3))
    counted = (of_translation > 0) & (of_reference > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(counted, shared / of_translation, 0).sum(axis=-1) / orders
        recall = np.where(counted, shared / of_reference, 0).sum(axis=-1) / orders
        score = 100 * (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)
    return np.where(precision + recall > 0, score, 0.0)
