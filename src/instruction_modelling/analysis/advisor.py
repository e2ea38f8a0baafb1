"""What was published on sets like a given one, what its own numbers warn of, and which arms to run: a pure
function of numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from instruction_modelling.analysis import literature
from instruction_modelling.analysis.literature import STUDIES
from instruction_modelling.analysis.predictions import nearest_sets, position, predictions
from instruction_modelling.called import command
from instruction_modelling.rows.words import length_ratio

# Ratios from which on instructions are much longer than outputs (the paper's large gains), and up to which
# outputs are (its LIMA, 0.09, did not gain; Alpagasus Dolly 9k, 0.30, did).
_LONG_FROM, _SHORT_TO = 2.0, 0.2
FEW_ROWS, MANY_ROWS = 5000, 10_000
# The source of what the file's own numbers say.
THIS_FILE = "this file"
_MANY_ALIKE = 0.05
_LITTLE_RESPONSE, _MANY_NOT_LATIN = 0.5, 0.3
# Shares from which on conflicting outputs and cut-off tokens are worth mending before training.
_MANY_CONFLICTS, _MUCH_CUT = 0.01, 0.01
_STUDIES_OF_REGIME = {
    literature.LONG_INSTRUCTIONS: ("long instructions", "long user turns", "fractional prompts"),
    literature.LONG_OUTPUTS: ("long outputs", "fractional prompts"),
    literature.MIDDLE: ("middle ratios", "fractional prompts"),
}
_STUDIES_OF_ALL = (
    "overfitting",
    "neftune",
    "weighted tuning",
    "kl",
    "responses alone",
    "learning from use",
    "smollm3",
    "small exercise",
    "winogrande",
)
_CAUTIONS_OF_ALL = (
    "safety",
    "seed noise",
    "response weight",
    "nlp mean",
    "moved less",
    "contamination",
    "template wrappers",
)


@dataclass(frozen=True)
class SetNumbers:
    """What the advice depends on. Lengths are mean words a row; shares are of 1, None where not measured."""

    rows: int
    instruction: float
    output: float
    response_share_im: float | None = None
    """Share of IM's loss, normalised by example, that falls on responses."""
    duplicate_share: float = 0.0
    """Rows beyond the first of exact duplicates."""
    near_duplicate_share: float | None = None
    """Rows beyond the first of each group of near-duplicates."""
    conflicting_rows: int = 0
    empty_outputs: int = 0
    without_response: int = 0
    """Rows in which nothing of the assistant's can be trained."""
    tokens_lost_share: float | None = None
    """Tokens that the maximum length cuts off."""
    not_latin_share: float = 0.0
    """Characters that are letters of another script than the Latin one."""
    counting: str | None = None
    """How words were counted where white space does not part them."""
    path: str = "train.jsonl"
    columns: str | None = None
    """What --columns says of the file."""

    @property
    def repeated_share(self) -> float:
        """Return the share of rows that repeat others, exactly or nearly."""
        return max(self.duplicate_share, self.near_duplicate_share or 0.0)


def advise(numbers: SetNumbers) -> dict[str, Any]:
    """Return position, what to expect in brief, predictions, nearest sets of the paper, findings, arms,
    commands and cautions, each with its source.

    A set without output or instruction words, or without rows, has no place on the axes: it gets `position`
    None and no predictions."""
    ratio = length_ratio(numbers.instruction, numbers.output)
    if not (numbers.rows and ratio):
        return {
            "position": None,
            "regime": "unknown",
            "in_brief": _mend_first(numbers),
            "predictions": [],
            "nearest": [],
            "findings": [],
            "arms": [],
            "commands": [],
            "cautions": [_of_this_file("no ratio", _why_no_ratio(numbers))],
        }
    log_ratio, log_rows = math.log(ratio), math.log(numbers.rows)
    regime = _regime(ratio)
    arms = _arms(regime)
    where = position(log_ratio, log_rows)
    return {
        "position": where,
        "regime": regime,
        "in_brief": _in_brief(regime, numbers),
        "predictions": predictions(log_ratio, log_rows),
        "nearest": nearest_sets(log_ratio, log_rows),
        "findings": _findings(regime, numbers),
        "arms": arms,
        "commands": _commands(numbers, arms),
        "cautions": _cautions(where, numbers),
    }


def _regime(ratio: float) -> str:
    if ratio >= _LONG_FROM:
        return literature.LONG_INSTRUCTIONS
    return literature.LONG_OUTPUTS if ratio <= _SHORT_TO else literature.MIDDLE


def _in_brief(regime: str, numbers: SetNumbers) -> list[str]:
    """Return what to expect and what to do first, in a few sentences."""
    sentences = [literature.IN_BRIEF[regime], *([numbers.counting] if numbers.counting else [])]
    least = min(rows for rows, _ in literature.gains_by_rows())
    if numbers.rows < least:
        sentences.append(
            f"{numbers.rows:,} rows are fewer than the paper has tried ({least:,}): it finds few rows to "
            "favour IM, but has nothing on so few."
        )
    elif numbers.rows <= FEW_ROWS:
        sentences.append(f"{numbers.rows:,} rows are few, which the paper finds to favour IM.")
    elif numbers.rows >= MANY_ROWS:
        sentences.append(
            f"{numbers.rows:,} rows are many: in the paper's sweep (at a ratio near 10) gains were smaller "
            "from 10,000 on."
        )
    return [
        *sentences,
        *_mend_first(numbers),
        "Run IT and IM on three seeds or more: the published runs are one each, and the intervals are wide.",
    ]


def _why_no_ratio(numbers: SetNumbers) -> str:
    """Return what a file without words on one side can be used for."""
    if not numbers.output:
        return (
            "No response has a word, so there is no length ratio, and nothing for IT to learn but to end: "
            "mend the file, or name the column that the responses are in (--columns)."
        )
    return (
        "No instruction has a word, so there is no length ratio, and a loss on instructions changes nothing: "
        "tune with IT, or mend the file."
    )


def _mend_first(numbers: SetNumbers) -> list[str]:
    """Return the one sentence that names what is wrong with the file, or nothing."""
    conflicting, empty, lost = (
        numbers.conflicting_rows,
        numbers.empty_outputs,
        numbers.tokens_lost_share or 0.0,
    )
    faults = []
    if numbers.without_response:
        faults.append(
            f"{numbers.without_response:,} rows have no response or an empty one, of which IT trains at most "
            "the end token, and IM the instruction too"
        )
    if numbers.repeated_share > _MANY_ALIKE:
        faults.append(f"{numbers.repeated_share:.1%} of the rows repeat others")
    if conflicting > _MANY_CONFLICTS * numbers.rows:
        faults.append(f"{conflicting:,} rows give an instruction of others another output")
    if empty:
        faults.append(f"{empty:,} rows have an empty response")
    if lost > _MUCH_CUT:
        faults.append(f"the maximum length cuts {lost:.1%} of the tokens")
    return [f"Look first at this: {'; '.join(faults)}."] if faults else []


def _study(key: str) -> dict[str, str]:
    return asdict(STUDIES[key])


def _of_this_file(key: str, text: str) -> dict[str, str]:
    return {"key": key, "stance": "caution", "text": text, "source": THIS_FILE}


def _findings(regime: str, numbers: SetNumbers) -> list[dict[str, str]]:
    of_size = ["few rows"] if numbers.rows <= FEW_ROWS or numbers.rows >= MANY_ROWS else []
    return [_study(key) for key in [*_STUDIES_OF_REGIME[regime], *of_size, *_STUDIES_OF_ALL]]


def _arms(regime: str) -> list[dict[str, str]]:
    """Return names of arms as src/compare.py knows them, and why."""
    arms = [
        ("IT", "the reference: what every other arm is held against"),
        ("IM", "the paper's method"),
        ("IM-w0.1", "a small prompt weight: best for short outputs (arXiv 2401.13586), and near IT"),
        ("IM-w0.3", "within the range that WIT finds best (0 to 0.5, arXiv 2507.07817)"),
    ]
    if regime == literature.LONG_OUTPUTS:
        arms = [arm for arm in arms if arm[0] != "IM-w0.1"]
    else:
        arms.append(("IM+NEFTune", "raised AE1 over IM on six of the paper's seven sets (Table 4)"))
    arms.append(("NEFTune", "tells noise on the embeddings from loss on the instructions (Table 1)"))
    return [{"name": name, "reason": reason} for name, reason in arms]


def _commands(numbers: SetNumbers, arms: Sequence[Mapping[str, str]]) -> list[str]:
    names = [arm["name"] for arm in arms]
    columns = ("--columns", numbers.columns) if numbers.columns else ()
    given = ("--model_name_or_path", "MODEL", "--train_file", numbers.path, *columns, "--output_dir")
    weights = ("--instruction_loss_weight", 0.4, "--response_loss_weight", 0.6)
    added = ("--use_lm_loss", "--loss_denominator", "response")
    return [
        command("compare", *given, "runs/compare", "--arms", *names, "--seeds", 0, 1, 2),
        command("finetune", *given, "runs/wit", *weights),
        command("finetune", *given, "runs/im_response", *added),
    ]


def _cautions(where: Mapping[str, Any], numbers: SetNumbers) -> list[dict[str, str]]:
    """Return what the file's own numbers warn of, then what holds of every file."""
    return [
        *(_of_this_file(key, text) for key, text in _warnings(where, numbers)),
        *(_study(key) for key in _CAUTIONS_OF_ALL),
    ]


def _warnings(where: Mapping[str, Any], numbers: SetNumbers) -> Iterator[tuple[str, str]]:
    """Yield (key, text) of each warning that the file's own numbers give."""
    for axis, quantity in (("ratio", "length ratio"), ("rows", "number of rows")):
        if not where[f"{axis}_in_paper_range"]:
            low, high = where[f"paper_{axis}_range"]
            yield (
                f"{axis} out of range",
                f"The {quantity}, {_plain(where[axis])}, lies outside the paper's sets "
                f"({_plain(low)} to {_plain(high)}): every prediction for it is an extrapolation.",
            )
    if numbers.not_latin_share > _MANY_NOT_LATIN:
        yield (
            "not English",
            f"{numbers.not_latin_share:.0%} of the characters are letters of other scripts than the Latin "
            "one. What was published here is of English sets, and AlpacaEval and MT-Bench ask in English: "
            "no prediction is known to hold for other languages.",
        )
    share = numbers.response_share_im
    if share is not None and share < _LITTLE_RESPONSE:
        yield (
            "little on responses",
            f"Under IM only {share:.1%} of the loss falls on responses: compare with a "
            "fractional weight or --loss_denominator response before crediting the instructions.",
        )
    if numbers.without_response:
        yield (
            "rows without a response",
            f"{numbers.without_response:,} of {numbers.rows:,} rows have no response to train, or an empty "
            "one: IT trains at most its end token and leaves out rows without an end, IM trains on their "
            "instructions, so the two are tuned on different text. src/compare.py trains every arm on the "
            "other rows.",
        )
    if numbers.repeated_share > _MANY_ALIKE:
        yield (
            "duplicates",
            f"{numbers.repeated_share:.1%} of the rows repeat others (exactly or nearly): the effective size "
            "is smaller than the number of rows, and a random test split is not unseen.",
        )
    if numbers.conflicting_rows:
        yield (
            "conflicting outputs",
            f"{numbers.conflicting_rows:,} rows share their instruction with a row of "
            "another output; such rows cap what any model can fit.",
        )
    if numbers.empty_outputs:
        yield (
            "empty outputs",
            f"{numbers.empty_outputs:,} rows have an empty response: IT trains only the end "
            "token on them, IM the instruction too.",
        )
    if numbers.tokens_lost_share:
        yield (
            "truncation",
            f"The maximum length cuts {numbers.tokens_lost_share:.2%} of the tokens, ends of "
            "responses first: IM keeps training on the instructions of rows whose response is lost.",
        )


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
