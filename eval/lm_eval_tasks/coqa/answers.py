"""CoQA's prompt and its score: the best word overlap with the references, each left out in turn where there
are several.

Answers are compared as in SQuAD: in small letters, without punctuation and the articles a, an, the.
"""

import re
import string
from collections import Counter
from itertools import zip_longest
from typing import Any

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def doc_to_text(doc: dict[str, Any]) -> str:
    """Return the story and the conversation so far, up to the last question."""
    text = doc["story"] + "\n\n"
    for question, answer in zip_longest(doc["questions"]["input_text"], doc["answers"]["input_text"][:-1]):
        text += f"Q: {question}\n\n" + (f"A: {answer}\n\n" if answer is not None else "A:")
    return text


def doc_to_target(doc: dict[str, Any]) -> list[str]:
    """Return the last question's answers."""
    return references(doc)


def references(doc: dict[str, Any]) -> list[str]:
    """Return every answer that people gave to the last question, those that differ in case alone once."""
    turn = len(doc["questions"]["input_text"])
    answers = [doc["answers"]["input_text"][turn - 1]]
    for extra in (doc.get("additional_answers") or {}).values():
        answer = extra["input_text"][turn - 1]
        if answer.lower() not in (known.lower() for known in answers):
            answers.append(answer)
    return answers


def counted_words(text: str) -> list[str]:
    """Return the words that count."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def exact(reference: str, answer: str) -> float:
    """Return 1 where both say the same words, else 0."""
    return float(counted_words(reference) == counted_words(answer))


def overlap(reference: str, answer: str) -> float:
    """Return the harmonic mean of precision and recall of words; two texts without words agree."""
    expected, given = counted_words(reference), counted_words(answer)
    if not expected or not given:
        return float(expected == given)
    same = sum((Counter(expected) & Counter(given)).values())
    return 2 * same / (len(expected) + len(given))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return exact match and F1 of what was generated up to the first line break."""
    answer, answers = results[0].strip().split("\n")[0], references(doc)
    scores = {}
    for name, score in (("em", exact), ("f1", overlap)):
        if len(answers) > 1:
            # What one person scores against the others is what the mean over left-out references measures.
            scores[name] = sum(
                max(score(other, answer) for index, other in enumerate(answers) if index != left_out)
                for left_out in range(len(answers))
            ) / len(answers)
        else:
            scores[name] = score(answers[0], answer)
    return scores
