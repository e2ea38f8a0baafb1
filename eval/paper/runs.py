"""The runs that a figure is drawn of: what was measured in each run folder, and its benchmark scores.

A run's scores lie in RESULTS/NAME, NAME being its folder's name, as scripts/eval_*.sh leave them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.alpaca_farm.pairs import read_outputs
from eval.table.items import read_items
from eval.table.results import read_results
from eval.table.scores import Results
from eval.table.table import TITLES, Cell, cells
from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.groups import ReportedDataSet, group_runs
from instruction_modelling.comparison.report.runs import (
    SPLITS,
    ReportedRun,
    SplitEvaluation,
    finite,
    read_base,
    read_run,
)
from instruction_modelling.errors import UserError
from instruction_modelling.rows.words import text_words
from instruction_modelling.statistics import mean_and_sample_sd

OUTPUTS = "alpaca_eval/model_outputs.json"


@dataclass
class PaperRuns:
    """Finished runs with their scores.

    `missing` collects in words what a figure asked for and did not find, `doubts` what makes numbers hard to
    compare with each other or with the paper's."""

    runs: list[ReportedRun]
    results_root: Path
    partial: bool = False
    bases: list[ReportedRun] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    _results: dict[Path, Results | None] = field(default_factory=dict)
    _cells: dict[Path, dict[str, Cell]] = field(default_factory=dict)
    _answered: dict[Path, int] = field(default_factory=dict)

    def by_model(self, own_evaluations: bool = True) -> dict[str, list[ReportedDataSet]]:
        """Return the data sets of each tuned model, as the report groups them.

        Args:
            own_evaluations: whether the figure is of what the run folders hold of losses and answers, which
                must then be of one file; without it they are not looked at.
        """
        models: dict[str, list[ReportedRun]] = {}
        for run in self.runs:
            none = {split: SplitEvaluation(run.folder / "eval" / split) for split in SPLITS}
            known = run if own_evaluations else replace(run, evaluations=none)
            models.setdefault(model_of(run), []).append(known)
        grouped = {model: group_runs(runs, self.bases) for model, runs in models.items()}
        for sets in grouped.values():
            self.doubts += [warning for data in sets for warning in data.warnings]
        return grouped

    def results_of(self, run: ReportedRun) -> Results | None:
        """Return a run's benchmark results; None, said among what is missing, where it has no folder.

        Raises:
            UserError: the folder is that of another run as well.
        """
        if run.folder not in self._results:
            folder = self.results_root / run.folder.resolve().name
            same = [str(other.folder) for other in self.runs if other.folder.resolve().name == folder.name]
            if len(same) > 1:
                raise UserError(
                    f"{' and '.join(same)} have one name, so {folder} may hold the results of either: give "
                    "the folders different names and evaluate them again, or name one of them"
                )
            if folder.is_dir():
                results = self._results[run.folder] = read_results(folder)
                for problem in results.problems:
                    self.say_doubt(f"{run.folder}: {problem}")
            else:
                self._results[run.folder] = None
                self.say_missing(
                    f"{run.folder}: no results in {folder} (bash scripts/eval_all.sh {run.folder})"
                )
        return self._results[run.folder]

    def value(self, run: ReportedRun, column: str) -> float | None:
        """Return a column of the paper's table for a run; None, said among what is missing, where it has none
        or one of a part of the items (unless `partial`)."""
        results = self.results_of(run)
        if results is None:
            return None
        if run.folder not in self._cells:
            self._cells[run.folder] = cells(results, self.partial)
        cell = self._cells[run.folder][column]
        if cell.value is None:
            lacks = f", for it lacks {', '.join(cell.missing)}" if column == "mean" else ""
            self.say_missing(f"{run.folder}: no {title_of(column)}{lacks}")
            return None
        if cell.part and not self.partial:
            self.say_missing(
                f"{run.folder}: {title_of(column)} is of a part of the items "
                f"({', '.join(cell.part)}) and left "
                "out; --partial takes it in"
            )
            return None
        if cell.incomplete:
            self.say_doubt(f"{run.folder}: {title_of(column)} is without {', '.join(cell.missing)}")
        if cell.part:
            self.say_doubt(
                f"{run.folder}: {title_of(column)} is of a part of the items ({', '.join(cell.part)})"
            )
        if cell.differs:
            self.say_doubt(
                f"{run.folder}: {title_of(column)} was made otherwise than the paper's: "
                f"{'; '.join(cell.differs)}"
            )
        return cell.value

    def stat(self, arm: ReportedArm, column: str) -> dict[str, Any] | None:
        """Return {"mean", "sd", "n"} of a column over an arm's seeds; None where none has it."""
        values = [value for run in arm.runs if (value := self.value(run, column)) is not None]
        return mean_and_sample_sd(values)

    def item_scores(self, run: ReportedRun, benchmark: str) -> dict[str, float]:
        """Return the score of each item of a judged benchmark; empty where there are none."""
        results = self.results_of(run)
        if results is None:
            return {}
        problems: list[str] = []
        scores = read_items(results.layout.judged[benchmark], problems)
        for problem in problems:
            self.say_missing(problem)
        return scores

    def answer_words(self, run: ReportedRun, source: str) -> list[float]:
        """Return the words of each answer of a run; empty, said among what is missing, where there are none.

        Args:
            run: the run.
            source: alpaca_eval (its answers to AlpacaEval's instructions) or test (those that
                src/score_responses.py counted in its eval/test).
        """
        if source == "test":
            scores = run.evaluations["test"].row_scores if "test" in run.evaluations else {}
            words = [row["words"] for row in scores.values() if "words" in row]
            if not words:
                self.say_missing(
                    f"{run.folder}: no words of answers in {run.folder / 'eval' / 'test' / 'scores.jsonl'} "
                    "(src/generate.py, then src/score_responses.py)"
                )
            return words
        results = self.results_of(run)
        if results is None:
            return []
        path = results.folder / OUTPUTS
        if not path.is_file():
            self.say_missing(
                f"{run.folder}: no answers in {path} (bash scripts/eval_alpaca_eval.sh {run.folder})"
            )
            return []
        answers = read_outputs(path, "Make it again with scripts/eval_alpaca_eval.sh").outputs
        first, count = next(iter(self._answered.items()), (run.folder, len(answers)))
        if len(answers) != count:
            self.say_doubt(
                f"{run.folder} answered {len(answers):,} instructions and {first} {count:,}: the lengths are "
                "of answers to different ones"
            )
        self._answered[run.folder] = len(answers)
        return [float(text_words(answer.output)) for answer in answers]

    def say_missing(self, what: str) -> None:
        """Add to what is missing, once."""
        if what not in self.missing:
            self.missing.append(what)

    def say_doubt(self, what: str) -> None:
        """Add to what makes numbers hard to compare, once."""
        if what not in self.doubts:
            self.doubts.append(what)


def title_of(column: str) -> str:
    """Return what a column of the paper's table is called in a sentence."""
    return "mean of the NLP benchmarks" if column == "mean" else f"{TITLES[column]} score"


def model_of(run: ReportedRun) -> str:
    """Return the last part of the name of the model that a run tuned."""
    name = (run.record.get("model") or {}).get("name_or_path") or run.options.get("model_name_or_path")
    return Path(str(name)).name if name else "unnamed model"


def epochs_of(run: ReportedRun) -> float | None:
    """Return the epochs that a model was trained; None where its run.json does not say."""
    return finite(run.record.get("epochs"))


def read_paper_runs(
    folders: Sequence[Path], results_root: Path, bases: Sequence[Path] = (), partial: bool = False
) -> PaperRuns:
    """Return the finished runs of some folders; those that did not finish are said to be missing.

    Args:
        folders: run folders, and models that src/export_checkpoint.py made of checkpoints.
        results_root: the folder of the benchmark results, one folder a model in it.
        bases: folders of evaluations of the untuned model.
        partial: whether scores of a part of the items count.

    Raises:
        UserError: a folder is no run, or none has finished.
    """
    # A folder given twice, by whatever path, is one run.
    runs = [read_run(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]
    finished = [run for run in runs if run.finished]
    if not finished:
        raise UserError(
            f"no run has finished of {', '.join(str(run.folder) for run in runs)}: there is nothing "
            "to draw; go "
            "on with one: src/finetune.py --resume_from_checkpoint latest"
        )
    read = PaperRuns(finished, results_root, partial, [read_base(folder) for folder in bases])
    for run in runs:
        if not run.finished:
            read.say_missing(f"{run.folder}: did not finish, and is left out")
    return read
