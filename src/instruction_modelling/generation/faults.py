"""What is plainly wrong with answers, whatever was asked: no end, loops, nothing, the question again.

A tuned model that never stops, or repeats itself, fails in silence: its loss may be the best of all."""

from collections.abc import Mapping, Sequence
from typing import Any

from instruction_modelling.generation.responses import Response

# Each fault, in words.
FAULTS = {
    "no_end": "did not end within the tokens they had",
    "loop": "end in a loop",
    "empty": "are empty",
    "copied_prompt": "write the instruction again",
}
REMEDIES = {
    "no_end": "the end token is not trained (src/inspect_weights.py shows its weight), the training too "
    "short, or --max_new_tokens too few",
    "loop": "too little training or too high a learning rate; see whether the untuned model does it as often",
    "empty": "rows with empty responses teach that (src/inspect_weights.py counts them)",
    "copied_prompt": "a loss on instructions teaches to write them: try a smaller --instruction_loss_weight",
}
# The share of answers with a fault, above the references' own, that is warned of; and how many at least.
_SHARE, _LEAST = 0.1, 2
# A loop: the text ends in a piece of it four times or more, over so many characters; how much is looked at.
_TIMES, _LENGTH, _LOOKED_AT = 4, 40, 1200
# An instruction shorter than this may well belong into its answer.
_COPIED_LENGTH = 30


def ends_in_loop(text: str) -> bool:
    """Return whether a text ends in one piece of it, again and again (the last may be cut off)."""
    text = " ".join(text.split())[-_LOOKED_AT:]
    for period in range(1, (len(text) + 1) // _TIMES + 1):
        # Between two pieces may be a space, which the last has no need of.
        length = max(_TIMES * period - 1, _LENGTH)
        if length > len(text):
            continue
        tail = text[-length:]
        if tail[period:] == tail[:-period]:
            return True
    return False


def copies(text: str, instruction: str) -> bool:
    """Return whether a text holds the whole instruction, word for word."""
    text, instruction = " ".join(text.split()), " ".join(instruction.split())
    return len(instruction) >= _COPIED_LENGTH and instruction in text


def faults_of(response: Response) -> list[str]:
    """Return the names of the faults of an answer, of `FAULTS`."""
    text, reference = response.response, response.reference or ""
    found = {
        "no_end": response.finished is False,
        "loop": ends_in_loop(text),
        "empty": not text.strip(),
        # An answer that must hold the instruction (a translation with its original, say) is no fault.
        "copied_prompt": copies(text, response.instruction) and not copies(reference, response.instruction),
    }
    return [name for name, is_so in found.items() if is_so]


def count_faults(responses: Sequence[Response]) -> dict[str, Any]:
    """Return how many answers have each fault, and how many references loop or are empty: {"rows", "answers":
    {name: count}, "references": {name: count}}."""
    answers, references = dict.fromkeys(FAULTS, 0), dict.fromkeys(("loop", "empty"), 0)
    for response in responses:
        for name in faults_of(response):
            answers[name] += 1
        if response.reference is not None:
            references["loop"] += ends_in_loop(response.reference)
            references["empty"] += not response.reference.strip()
    return {"rows": len(responses), "answers": answers, "references": references}


def fault_warnings(counts: Mapping[str, Any], whose: str) -> list[str]:
    """Return a sentence for each fault that a tenth of the answers or more have beyond the references.

    Args:
        counts: as `count_faults` gives them.
        whose: which answers they are, to begin the sentence: "IT-seed0, test".
    """
    rows = counts["rows"]
    return [
        f"{whose}: {number} of {rows:,} {FAULTS[name]}{of_references(counts, name)}: {REMEDIES[name]}."
        for name, number in counts["answers"].items()
        if number >= _LEAST and number - counts["references"].get(name, 0) >= _SHARE * rows
    ]


def of_references(counts: Mapping[str, Any], name: str) -> str:
    """Return in words how many references have the fault; "" where they cannot."""
    return f" (of the references {counts['references'][name]})" if name in counts["references"] else ""
