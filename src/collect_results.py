"""The paper's table from result folders: six categories, their mean, MT-Bench, AlpacaEval 1 and 2.

    python src/collect_results.py results/eval/it results/eval/im
    python src/collect_results.py results/eval/* --per_task --json table.json --markdown table.md \\
        --csv table.csv --figure table.png
    python src/collect_results.py results/eval/it results/eval/im --compare it im
    python src/collect_results.py results/eval/im --paper lima_data/IM
    python src/collect_results.py output/lima_im, or the folder that holds the authors' output/ and others

A folder holds what the evaluation scripts wrote for one model (docs/evaluation.md), or the authors' output/,
results_humaneval/, results_alpaca_eval/ and output_loss/. What is missing shows as –, never as 0. A score of
a part of the items is marked † everywhere and in no mean. A category without one of its benchmarks, or with
one in part, has no value unless --partial is given (then marked). Behind a number stands its standard error;
folders whose names differ in their seed alone (NAME_seed0, NAME_seed1, ...) are one row of means and standard
deviations.

--aggregation paper puts numbers together as the paper does; corrected mends its two wrong turns, which the
output names. --compare A B gives B minus A with 95 % intervals of a paired bootstrap over items; A and B are
folders' names, or what several seeds have in common. --paper DATA/METHOD sets a row of the paper's Table 1
beside the run, and says of each column how it was made and whether the two can be compared."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main

if TYPE_CHECKING:
    from eval.table.scores import Results
    from eval.table.table import Rows


@dataclass
class CollectOptions:
    """Results."""

    folders: list[str] = field(default_factory=list, metadata={"positional": "FOLDER"})
    """Result folders, one a model."""
    aggregation: Literal["paper", "corrected"] = "paper"
    """How scores are put together."""
    partial: bool = False
    """Give a category's value also where benchmarks are missing (marked *) or of a part of their items
    (marked †), and the mean."""
    per_task: bool = False
    """Show every benchmark too, and the tasks of those that have several."""
    group: str = field(default=r"[-_.]?seed[-_]?\d+", metadata={"may_be_empty": True})
    """Regular expression of what tells the seeds of one arm apart in the folders' names; empty: every folder
    is a row."""
    compare: list[str] = field(default_factory=list)
    """Two rows of the table: the second's scores minus the first's, with intervals."""
    paper: str | None = None
    """Row of the paper's Table 1 to set beside: DATA/METHOD, such as lima_data/IM, none/base; all prints
    the paper's Tables 1 to 4 and 7."""
    json: str | None = None
    """Write every number to this file."""
    markdown: str | None = None
    """Write the table to this file, in Markdown."""
    csv: str | None = None
    """Write the table to this file, separated by commas."""
    figure: str | None = None
    """Draw the table to this file (.png, .svg, .pdf)."""

    def check(self) -> "list[str]":
        """Return every problem of the options, in words."""

        problems = []
        if not self.folders and self.paper != "all":
            problems.append("name result folders")
        if self.compare and len(self.compare) != 2:
            problems.append(f"--compare takes two names, not {len(self.compare)}")
        if self.paper and self.paper != "all" and self.paper.count("/") != 1:
            problems.append(f"--paper {self.paper}: give DATA/METHOD, such as lima_data/IM")
        try:
            re.compile(self.group)
        except re.error as error:
            problems.append(f"--group {self.group}: not a regular expression: {error}")
        return problems


def main() -> int:
    """Read the folders, put their scores together, print the table and write it."""
    options = parse_options(CollectOptions)
    from eval.table.beside import beside_paper, compare_arms
    from eval.table.display import (
        LEGEND,
        aggregation_lines,
        print_notes,
        print_paper,
        table_lines,
        task_lines,
    )
    from eval.table.results import read_models
    from eval.table.table import cells, grouped

    if options.paper == "all":
        print_paper()
        if not options.folders:
            return 0
    models = read_models([Path(folder) for folder in options.folders], options.aggregation == "corrected")
    cells_of = {results.name: cells(results, options.partial) for results in models}
    rows = grouped(cells_of, options.group, options.partial) if options.group else cells_of
    print("\n".join([*aggregation_lines(options.aggregation), "", *table_lines(rows), LEGEND]))
    print_notes(rows, models)
    if options.per_task:
        print("\n".join(task_lines(models)))
    beside: dict[str, Any] = {"comparison": None, "paper": None}
    if options.compare:
        beside["comparison"] = compare_arms(options.compare, rows, models, options.group, options.partial)
    if options.paper and options.paper != "all":
        beside["paper"] = beside_paper(options.paper, models, cells_of)
    write_files(options, rows, models, beside)
    return 0


def write_files(
    options: CollectOptions, rows: "Rows", models: "list[Results]", beside: dict[str, Any]
) -> None:
    """Write the files that were asked for."""
    from eval.table.display import aggregation_lines
    from eval.table.figure import draw_table
    from eval.table.files import write_table_csv, write_table_json, write_table_markdown

    if options.json:
        write_table_json(Path(options.json), rows, models, options.aggregation, beside)
    if options.markdown:
        write_table_markdown(Path(options.markdown), rows, models, options.aggregation)
    if options.csv:
        write_table_csv(Path(options.csv), rows)
    if options.figure:
        draw_table(rows, Path(options.figure), aggregation_lines(options.aggregation)[0].partition(": ")[2])
    written = [path for path in (options.json, options.markdown, options.csv, options.figure) if path]
    if written:
        print(f"written to {', '.join(written)}")


if __name__ == "__main__":
    run_main(main)
