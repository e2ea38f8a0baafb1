"""What has been published about instruction modelling, as data: the tables of the paper (paper_tables.json)
and what each study says (studies.toml), each with its source.

IT: loss on the responses alone. IM: loss on the instructions too. "The paper" is Shi et al., *Instruction
Tuning With Loss Over Instructions*, NeurIPS 2024 (arXiv 2405.14394)."""

import json
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from instruction_modelling.rows.words import length_ratio

PAPER = "Shi et al. 2024, arXiv 2405.14394"
TABLES = f"{PAPER}, Tables 1, 4 and 5"
FIGURE_2 = f"{PAPER}, Figure 2"
# Where the instructions are long, where neither is much longer, where the outputs are long: keys of IN_BRIEF.
LONG_INSTRUCTIONS, MIDDLE, LONG_OUTPUTS = (
    "long instructions, short outputs",
    "neither much longer than the other",
    "short instructions, long outputs",
)


@cache
def paper_tables() -> dict[str, Any]:
    """Return Tables 1 to 5 and 7 and the numbers of Figures 2, 3 (with 8 and 9) and 7 of the paper, by
    `table_1`, `figure_2` and so on, as paper_tables.json has them.

    Tables but the fifth, and Figure 3: `source`, `columns`, and `rows` of data, method (base, chat, IT,
    NEFTune, IM, IT+KL WEIGHT and so on) and values, percent, MT-Bench from 1 to 10. Figure 2: points of
    AlpacaEval 1.0 gains, and under `corrected` the coordinates at which the
    figure disagrees with the paper's own tables (WizardLM stands at output / instruction; Less Tydiqa's gain
    is NEFTune's)."""
    return json.loads(Path(__file__).with_name("paper_tables.json").read_text(encoding="utf-8"))


# Files of the authors' whose names are longer than those of Table 1's data sets here.
_DATA_OF_FILE = {"tydiqa_": "tydiqa", "mmlu-chat_": "mmlu_chat", "bbh-icl_": "bbh_icl"}


def paper_data_name(stem: str) -> str:
    """Return the name that the paper's tables here have for a training file: the file's name without its
    ending, but for the LESS files, which are `tydiqa`, `mmlu_chat` and `bbh_icl`."""
    return next((name for start, name in _DATA_OF_FILE.items() if stem.startswith(start)), stem)


def paper_values(table: str, data: str, method: str | None = None) -> dict[str, float]:
    """Return a row of one of the paper's tables by column; empty where it has no such row.

    Args:
        table: a key of `paper_tables` with `columns` and `rows`.
        data: a data set's name there, or the name of its file.
        method: IT, IM and so on; None for tables without methods.
    """
    wanted = (paper_data_name(data), method)
    for row in paper_tables()[table]["rows"]:
        if (row["data"], row.get("method")) == wanted:
            return dict(zip(paper_tables()[table]["columns"], row["values"], strict=True))
    return {}


@dataclass(frozen=True)
class PaperScores:
    """What one row of Table 1 (LLaMA-2-7B) says: mean over six categories of NLP tasks (%), MT-Bench (1 to
    10), AlpacaEval 1.0 and 2.0 win rates (%)."""

    mean: float
    mt: float
    ae1: float
    ae2: float


@dataclass(frozen=True)
class PaperSet:
    """A data set of the paper: Table 5's words a row (`rows.words` counts them), and Table 1's scores by
    method (IT, NEFTune, IM), empty where no model was tuned on it."""

    name: str
    rows: int
    total: float
    output: float
    instruction: float
    scores: dict[str, PaperScores]

    @property
    def ratio(self) -> float:
        """Return mean instruction over mean output words."""
        ratio = length_ratio(self.instruction, self.output)
        assert ratio is not None
        return ratio

    @property
    def ae1_gain_percent(self) -> float:
        """Return how much higher AlpacaEval 1.0 is for IM than for IT, in percent of IT's."""
        return 100 * (self.scores["IM"].ae1 / self.scores["IT"].ae1 - 1)


def _paper_sets() -> tuple[PaperSet, ...]:
    table_1, table_5 = paper_tables()["table_1"], paper_tables()["table_5"]
    scores: dict[str, dict[str, PaperScores]] = {}
    for row in table_1["rows"]:
        values = dict(zip(table_1["columns"], row["values"], strict=True))
        scores.setdefault(row["data"], {})[row["method"]] = PaperScores(
            *(values[name] for name in ("mean", "mt_bench", "alpaca_eval_1", "alpaca_eval_2"))
        )
    sets = []
    for entry in table_5["sets"]:
        words = dict(zip(table_5["columns"], entry["values"], strict=True))
        lengths = words["rows"], words["total"], words["output"], words["instruction"]
        sets.append(PaperSet(entry["name"], *lengths, scores.get(entry["data"], {})))
    return tuple(sets)


PAPER_SETS = _paper_sets()
CORRECTED_SETS = tuple(paper_tables()["figure_2"]["corrected"])


def gains_by_ratio(corrected: Collection[str] = CORRECTED_SETS) -> list[tuple[float, float]]:
    """Return (instruction / output ratio, AE1 gain of IM over IT in %) of Figure 2, left; the sets named in
    `corrected` by the paper's tables, others as drawn."""
    figure = paper_tables()["figure_2"]
    points = [
        point | (figure["corrected"][point["set"]] if point["set"] in corrected else {})
        for point in figure["by_ratio"]
    ]
    return [(point["ratio"], point["gain"]) for point in points]


def gains_by_rows() -> list[tuple[int, float]]:
    """Return (rows, AE1 gain of IM over IT in %) of Figure 2, right: subsets of Tulu V2 with a ratio near
    10."""
    return [(rows, gain) for rows, gain in paper_tables()["figure_2"]["by_rows"]]


def printed_line(axis: str) -> tuple[float, float]:
    """Return (slope, intercept) that the paper prints in Figure 2 for gain = slope x ln(ratio or rows) +
    intercept; `axis` is `by_ratio` or `by_rows`."""
    slope, intercept = paper_tables()["figure_2"]["printed_lines"][axis]
    return slope, intercept


@dataclass(frozen=True)
class Study:
    """What one source says: `stance` is for IM, against it, mixed, or a caution about using it or reading
    results."""

    key: str
    stance: str
    text: str
    source: str


def _studies() -> tuple[dict[str, Study], dict[str, str]]:
    data = tomllib.loads(Path(__file__).with_name("studies.toml").read_text(encoding="utf-8"))
    return {study["key"]: Study(**study) for study in data["studies"]}, data["in_brief"]


# What each study says by its key, and what Table 1 and later work say of each regime in a sentence or two.
STUDIES, IN_BRIEF = _studies()
