"""A model's scores by benchmark, and what is known of how they were made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.table.items import Items, item_scores
from eval.table.layout import ResultPlaces

NOT_COUNTED = "not counted"


@dataclass
class Score:
    """A score: percent (MT-Bench: 1 to 10), its standard error, how it was made, and how it differs from the
    paper's way."""

    value: float
    error: float | None
    about: dict[str, Any]
    differs: list[str] = field(default_factory=list)
    tasks: dict[str, float] = field(default_factory=dict)
    """Of each task, where there are several."""
    whole: bool = True
    """Whether every task of the benchmark is in it."""
    part: str = ""
    """Of how many of its items it is, where it is not of all: "27 of 6,511 items"."""


@dataclass
class Results:
    """A model's scores by benchmark; `problems` names what was there and could not be used."""

    layout: ResultPlaces
    scores: dict[str, Score] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    corrected: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    """The file that the result of each of lm-eval's tasks is from."""
    temperature: float | None = None
    """Of the HumanEval run that counts."""
    losses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By file: "mean" (nats per response token, the mean over examples), "examples", and "cut" (of them, at
    the maximum length; None where that is not recorded)."""
    cut: dict[str, str] = field(default_factory=dict)
    """By benchmark, how many of its examples were cut at the model's length, in words."""

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.layout.name

    @property
    def folder(self) -> Path:
        """Return the model's folder."""
        return self.layout.folder

    def items(self) -> Items:
        """Return the scores of the items behind the table; items of what has no score are of no result."""
        items = item_scores(self.layout, self.files, self.corrected, self.temperature, self.problems)
        return {key: of_tasks for key, of_tasks in items.items() if key in self.scores}
