"""Where a data set stands on the paper's two axes, what was found there, and which arms to run: a pure
function of numbers.

A prediction is what the published points say on average, with a 95 % interval for one further set; it is of
one model (LLaMA-2-7B), one judge and one run a point, and no promise."""

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from instruction_modelling.analysis import literature
from instruction_modelling.analysis.literature import PAPER_SETS, STUDIES, PaperSet

# 97.5 % quantiles of Student's t by degrees of freedom: the points of Figure 2 less the line's two
# parameters.
_T = {13: 2.1604, 17: 2.1098}
# Ratios from which on instructions are much longer than outputs (the paper's large gains), and up to which
# outputs are (its LIMA, 0.09, did not gain; Alpagasus Dolly 9k, 0.30, did).
_LONG_FROM, _SHORT_TO = 2.0, 0.2
FEW_ROWS, MANY_ROWS = 5000, 10_000
# Ratios at which the paper's subsets of different sizes speak for a set.
NEAR_TEN = (5.0, 20.0)
# The source of what the file's own numbers say.
OWN = "this file"
_MANY_ALIKE = 0.05
_LITTLE_RESPONSE = 0.5
# Shares from which on conflicting outputs and cut-off tokens are worth mending before training.
_MANY_CONFLICTS, _MUCH_CUT = 0.01, 0.01


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
    tokens_lost_share: float | None = None
    """Tokens that the maximum length cuts off."""
    path: str = "train.jsonl"


@dataclass(frozen=True)
class Line:
    """A least-squares line through points, and what a prediction from it needs."""

    slope: float
    intercept: float
    r_squared: float
    residual_sd: float
    """Square root of the residual sum of squares over n - 2."""
    points: int
    mean_x: float
    squares_x: float
    least_x: float
    most_x: float

    def at(self, x: float) -> tuple[float, float, float]:
        """Prediction and 95 % interval for one further point."""
        y = self.slope * x + self.intercept
        spread = 1.0 + 1.0 / self.points + (x - self.mean_x) ** 2 / self.squares_x
        half = _T[self.points - 2] * self.residual_sd * math.sqrt(spread)
        return y, y - half, y + half


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """The least-squares line of y on x."""
    count = len(points)
    mean_x, mean_y = (math.fsum(point[axis] for point in points) / count for axis in (0, 1))
    squares_x = math.fsum((x - mean_x) ** 2 for x, _ in points)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in points) / squares_x
    intercept = mean_y - slope * mean_x
    residual = math.fsum((y - slope * x - intercept) ** 2 for x, y in points)
    whole = math.fsum((y - mean_y) ** 2 for _, y in points)
    xs = [x for x, _ in points]
    return Line(
        slope,
        intercept,
        1.0 - residual / whole,
        math.sqrt(residual / (count - 2)),
        count,
        mean_x,
        squares_x,
        min(xs),
        max(xs),
    )


def ratio_points(
    corrected: Collection[str] = tuple(literature.FIGURE_2_CORRECTED),
) -> list[tuple[float, float]]:
    """(ln ratio, AE1 gain in %) of Figure 2, left; the sets named in `corrected` by the paper's tables,
    others as drawn."""
    points = []
    for name, ratio, gain in literature.FIGURE_2_RATIO:
        right_ratio, right_gain = literature.FIGURE_2_CORRECTED[name] if name in corrected else (None, None)
        points.append((math.log(right_ratio or ratio), right_gain if right_gain is not None else gain))
    return points


def size_points() -> list[tuple[float, float]]:
    """(ln rows, AE1 gain in %) of Figure 2, right."""
    return [(math.log(rows), gain) for rows, gain in literature.FIGURE_2_SIZE]


def advise(numbers: SetNumbers) -> dict[str, Any]:
    """Position, what to expect in brief, predictions, nearest sets of the paper, findings, arms, commands and
    cautions, each with its source.

    A set without output or instruction words, or without rows, has no place on the axes: it gets `position`
    None and no predictions."""
    if not (numbers.rows and numbers.instruction and numbers.output):
        return {
            "position": None,
            "regime": "unknown",
            "in_brief": _mend_first(numbers),
            "predictions": [],
            "nearest": [],
            "findings": [],
            "arms": [],
            "commands": [],
            "cautions": [
                _own(
                    "no ratio",
                    "Without words of both instructions and outputs there is no length "
                    "ratio: tune with IT, or mend the file.",
                )
            ],
        }
    x, size = math.log(numbers.instruction / numbers.output), math.log(numbers.rows)
    regime = _regime(numbers)
    arms = _arms(regime)
    return {
        "position": _position(x, size),
        "regime": regime,
        "in_brief": _in_brief(regime, numbers),
        "predictions": _predictions(x, size),
        "nearest": nearest_sets(x, size),
        "findings": _findings(regime, numbers),
        "arms": arms,
        "commands": _commands(numbers.path, arms),
        "cautions": _cautions(numbers),
    }


def _regime(numbers: SetNumbers) -> str:
    ratio = numbers.instruction / numbers.output
    if ratio >= _LONG_FROM:
        return literature.LONG_INSTRUCTIONS
    return literature.LONG_OUTPUTS if ratio <= _SHORT_TO else literature.MIDDLE


def _in_brief(regime: str, numbers: SetNumbers) -> list[str]:
    """What to expect and what to do first, in a few sentences."""
    told = [literature.IN_BRIEF[regime]]
    least = min(rows for rows, _ in literature.FIGURE_2_SIZE)
    if numbers.rows < least:
        told.append(
            f"{numbers.rows:,} rows are fewer than the paper has tried ({least:,}): it finds few rows to "
            "favour IM, but "
            "has nothing on so few."
        )
    elif numbers.rows <= FEW_ROWS:
        told.append(f"{numbers.rows:,} rows are few, which the paper finds to favour IM.")
    elif numbers.rows >= MANY_ROWS:
        told.append(
            f"{numbers.rows:,} rows are many: in the paper's sweep (at a ratio near 10) gains were smaller "
            "from 10,000 on."
        )
    told += _mend_first(numbers)
    return [
        *told,
        "Run IT and IM on three seeds or more: the published runs are one each, and the intervals are wide.",
    ]


def _mend_first(numbers: SetNumbers) -> list[str]:
    """The one sentence that names what is wrong with the file, if anything is."""
    alike = max(numbers.duplicate_share, numbers.near_duplicate_share or 0.0)
    wrong = [
        text
        for applies, text in (
            (alike > _MANY_ALIKE, f"{alike:.1%} of the rows repeat others"),
            (
                numbers.conflicting_rows > _MANY_CONFLICTS * numbers.rows,
                f"{numbers.conflicting_rows:,} rows give an instruction of others another output",
            ),
            (numbers.empty_outputs > 0, f"{numbers.empty_outputs:,} rows have an empty response"),
            (
                (numbers.tokens_lost_share or 0.0) > _MUCH_CUT,
                f"the maximum length cuts {numbers.tokens_lost_share or 0.0:.1%} of the tokens",
            ),
        )
        if applies
    ]
    return [f"Look first at this: {'; '.join(wrong)}."] if wrong else []


def _position(x: float, size: float) -> dict[str, Any]:
    ratios = [known.ratio for known in PAPER_SETS]
    rows = [*(known.rows for known in PAPER_SETS), *(rows for rows, _ in literature.FIGURE_2_SIZE)]
    ratio, count = math.exp(x), round(math.exp(size))
    # Table 5 is rounded: a set of the paper itself must not fall out of its range.
    inside = min(ratios) * 0.999 <= ratio <= max(ratios) * 1.001
    return {
        "ratio": ratio,
        "log_ratio": x,
        "rows": count,
        "log_rows": size,
        "ratio_in_paper_range": inside,
        "rows_in_paper_range": min(rows) <= count <= max(rows),
        "paper_ratio_range": [min(ratios), max(ratios)],
        "paper_rows_range": [min(rows), max(rows)],
    }


def _prediction(
    name: str, line: Line, x: float, printed: tuple[float, float] | None, applies: bool, source: str
) -> dict[str, Any]:
    gain, low, high = line.at(x)
    return {
        "name": name,
        "ae1_gain_percent": gain,
        "low": low,
        "high": high,
        "by_printed_line": printed[0] * x + printed[1] if printed else None,
        "fit": asdict(line),
        "applies": applies,
        "extrapolated": not line.least_x - 1e-3 <= x <= line.most_x + 1e-3,
        "source": source,
    }


def _predictions(x: float, size: float) -> list[dict[str, Any]]:
    """By the length ratio, and by the rows; the latter applies only near the ratio of the subsets it was
    drawn from."""
    least, most = NEAR_TEN
    return [
        _prediction(
            "by length ratio, points corrected by the paper's tables",
            fit(ratio_points()),
            x,
            None,
            True,
            f"{literature.FIGURE_2}, left; WizardLM's ratio by Table 5, Dolly 9k's and Less Tydiqa's gains "
            "by Table 1",
        ),
        _prediction(
            "by length ratio, points as drawn",
            fit(ratio_points(())),
            x,
            literature.PAPER_RATIO_LINE,
            True,
            f"{literature.FIGURE_2}, left",
        ),
        _prediction(
            "by rows, for sets of a ratio near 10",
            fit(size_points()),
            size,
            literature.PAPER_SIZE_LINE,
            math.log(least) <= x <= math.log(most),
            f"{literature.FIGURE_2}, right",
        ),
    ]


def nearest_sets(x: float, size: float, count: int = 3) -> list[dict[str, Any]]:
    """The paper's tuned sets nearest to (ln ratio, ln rows), each axis in standard deviations over all its
    sets."""

    def spread(values: list[float]) -> float:
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))

    unit_x = spread([math.log(known.ratio) for known in PAPER_SETS])
    unit_size = spread([math.log(known.rows) for known in PAPER_SETS])

    def distance(known: PaperSet) -> float:
        return math.hypot((math.log(known.ratio) - x) / unit_x, (math.log(known.rows) - size) / unit_size)

    tuned = sorted((known for known in PAPER_SETS if known.it and known.im), key=distance)
    return [_neighbour(known, distance(known)) for known in tuned[:count]]


def _neighbour(known: PaperSet, distance: float) -> dict[str, Any]:
    assert known.it and known.im
    it, im = asdict(known.it), asdict(known.im)
    return {
        "name": known.name,
        "distance": distance,
        "rows": known.rows,
        "ratio": known.ratio,
        "it": it,
        "im": im,
        "difference": {key: im[key] - it[key] for key in it},
        "ae1_gain_percent": 100 * (im["ae1"] / it["ae1"] - 1),
        "source": literature.TABLES,
    }


def _study(key: str) -> dict[str, str]:
    return asdict(STUDIES[key])


def _own(key: str, text: str) -> dict[str, str]:
    return {"key": key, "stance": "caution", "text": text, "source": OWN}


def _findings(regime: str, numbers: SetNumbers) -> list[dict[str, str]]:
    keys = {
        literature.LONG_INSTRUCTIONS: ["long instructions", "long user turns", "fractional prompts"],
        literature.LONG_OUTPUTS: ["long outputs", "fractional prompts"],
        literature.MIDDLE: ["middle ratios", "fractional prompts"],
    }[regime]
    size = ["few rows"] if numbers.rows <= FEW_ROWS or numbers.rows >= MANY_ROWS else []
    return [
        _study(key)
        for key in [
            *keys,
            *size,
            "overfitting",
            "neftune",
            "weighted tuning",
            "kl",
            "responses alone",
            "learning from use",
            "smollm3",
            "small exercise",
            "winogrande",
        ]
    ]


def _arms(regime: str) -> list[dict[str, str]]:
    """Names of arms as src/compare.py knows them, and why."""
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


def _commands(path: str, arms: Sequence[Mapping[str, str]]) -> list[str]:
    names = " ".join(arm["name"] for arm in arms)
    file = shlex.quote(path)
    return [
        f"python src/compare.py --model_name_or_path MODEL --train_file {file} --output_dir runs/compare "
        f"--arms {names} "
        "--seeds 0 1 2",
        f"python src/finetune.py --model_name_or_path MODEL --train_file {file} --output_dir runs/wit "
        "--instruction_loss_weight 0.4 --response_loss_weight 0.6",
        f"python src/finetune.py --model_name_or_path MODEL --train_file {file} --output_dir "
        "runs/im_response "
        "--use_lm_loss --loss_denominator response",
    ]


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _cautions(numbers: SetNumbers) -> list[dict[str, str]]:
    cautions = []
    position = _position(math.log(numbers.instruction / numbers.output), math.log(numbers.rows))
    for axis, what in (("ratio", "length ratio"), ("rows", "number of rows")):
        if not position[f"{axis}_in_paper_range"]:
            low, high = position[f"paper_{axis}_range"]
            cautions.append(
                _own(
                    f"{axis} out of range",
                    f"The {what}, {_plain(position[axis])}, lies outside the paper's sets "
                    f"({_plain(low)} to {_plain(high)}): every prediction for it is an extrapolation.",
                )
            )
    share = numbers.response_share_im
    if share is not None and share < _LITTLE_RESPONSE:
        cautions.append(
            _own(
                "little on responses",
                f"Under IM only {share:.1%} of the loss falls on responses: compare with a "
                "fractional weight or --loss_denominator response before crediting the instructions.",
            )
        )
    if numbers.duplicate_share > _MANY_ALIKE or (numbers.near_duplicate_share or 0.0) > _MANY_ALIKE:
        most = max(numbers.duplicate_share, numbers.near_duplicate_share or 0.0)
        cautions.append(
            _own(
                "duplicates",
                f"{most:.1%} of the rows repeat others (exactly or nearly): the effective size is "
                "smaller than the number of rows, and a random test split is not unseen.",
            )
        )
    if numbers.conflicting_rows:
        cautions.append(
            _own(
                "conflicting outputs",
                f"{numbers.conflicting_rows:,} rows share their instruction with a row of "
                "another output; such rows cap what any model can fit.",
            )
        )
    if numbers.empty_outputs:
        cautions.append(
            _own(
                "empty outputs",
                f"{numbers.empty_outputs:,} rows have an empty response: IT trains only the end "
                "token on them, IM the instruction too.",
            )
        )
    if numbers.tokens_lost_share:
        cautions.append(
            _own(
                "truncation",
                f"The maximum length cuts {numbers.tokens_lost_share:.2%} of the tokens, ends of "
                "responses first: IM keeps training on the instructions of rows whose response is lost.",
            )
        )
    return cautions + [
        _study(key)
        for key in (
            "safety",
            "seed noise",
            "response weight",
            "nlp mean",
            "moved less",
            "contamination",
            "template wrappers",
        )
    ]
