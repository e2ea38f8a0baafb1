"""The paper's table from result folders: six categories, their mean, MT-Bench, AlpacaEval 1 and 2.

    python src/collect_results.py results/eval/it results/eval/im python src/collect_results.py results/eval/*
    --per_task --json table.json --markdown table.md --csv table.csv --figure table.png python
    src/collect_results.py results/eval/it results/eval/im --compare it im python src/collect_results.py
    results/eval/im --paper lima_data/IM

A folder holds what the evaluation scripts wrote for one model (docs/evaluation.md). What is missing shows as
–, never as 0, and a category without one of its benchmarks has no value unless --partial is given (then
marked *). Behind a number stands its standard error; folders whose names differ in their seed alone
(NAME_seed0, NAME_seed1, ...) are one row of means and standard deviations.

--aggregation paper puts numbers together as the paper does; corrected mends its two wrong turns, which the
output names.
--compare A B gives B minus A with 95 % intervals of a paired bootstrap over items; A and B are folders'
names, or what several seeds have in common. --paper DATA/METHOD sets a row of the paper's Table 1 beside the
run, and says of each column how it was made and whether the two can be compared."""

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main

if TYPE_CHECKING:
    from eval.table.results import Results
    from eval.table.table import Cell

Rows = dict[str, "dict[str, Cell]"]
MOST_PROBLEMS = 20


@dataclass
class CollectOptions:
    """Results."""

    folders: list[str] = field(default_factory=list, metadata={"positional": "FOLDER"})
    """Result folders, one a model."""
    aggregation: Literal["paper", "corrected"] = "paper"
    """How scores are put together."""
    partial: bool = False
    """Give a category's value also where benchmarks are missing, marked * ."""
    per_task: bool = False
    """Show every benchmark too, and the tasks of those that have several."""
    group: str = r"[-_.]?seed[-_]?\d+"
    """Regular expression of what tells the seeds of one arm apart in the folders' names; empty: every folder
    is a row."""
    compare: list[str] = field(default_factory=list)
    """Two rows of the table: the second's scores minus the first's, with intervals."""
    paper: str | None = None
    """Row of the paper's Table 1 to set beside: DATA/METHOD, such as lima_data/IM, none/base; all prints the
    table."""
    json: str | None = None
    """Write every number to this file."""
    markdown: str | None = None
    """Write the table to this file, in Markdown."""
    csv: str | None = None
    """Write the table to this file, separated by commas."""
    figure: str | None = None
    """Draw the table to this file (.png, .svg, .pdf)."""

    def check(self) -> "list[str]":
        """Every problem of the options, in words."""
        import re

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
    """Reads, puts together, prints, writes."""
    options = parse_options(CollectOptions)
    from eval.table.results import read_results
    from eval.table.table import cells, grouped

    if options.paper == "all":
        print_paper()
        if not options.folders:
            return 0
    missing = [folder for folder in options.folders if not Path(folder).is_dir()]
    if missing:
        raise UserError(f"there is no folder {', '.join(missing)}")
    every = [read_results(Path(folder), options.aggregation == "corrected") for folder in options.folders]
    names = [results.name for results in every]
    if len(set(names)) < len(names):
        raise UserError(
            "two folders have one name: "
            f"{', '.join(sorted({name for name in names if names.count(name) > 1}))}"
        )
    single = {results.name: cells(results, options.partial) for results in every}
    rows = grouped(single, options.group) if options.group else single
    print("\n".join([*aggregation_lines(options.aggregation), "", *table_lines(rows), LEGEND]))
    print_notes(rows, every)
    if options.per_task:
        print("\n".join(task_lines(every)))
    compared = compare_arms(options, rows, every) if options.compare else None
    beside = beside_paper(options.paper, every, single) if options.paper and options.paper != "all" else None
    write_files(options, rows, every, compared, beside)
    return 0


LEGEND = (
    "U&K understanding and knowledge, Multi multilinguality, CSR commonsense reasoning, M&C math and code, "
    "S&H safety and "
    "helpfulness, AE AlpacaEval; ± standard error over items, or standard deviation over (runs); – missing"
)


def aggregation_lines(aggregation: str) -> list[str]:
    """How the numbers were put together, each of the paper's wrong turns named."""
    from eval.table.suite import AGGREGATIONS, REMARKS, WRONG_TURNS

    turns = [
        f"  - {turn}" + (f": here {instead}" if aggregation == "corrected" else "")
        for turn, instead in WRONG_TURNS
    ]
    return [
        f"aggregation {aggregation}: {AGGREGATIONS[aggregation]}",
        *turns,
        *(f"  - {remark}" for remark in REMARKS),
    ]


def shown(cell: "Cell", digits: int = 2) -> str:
    """A cell in words: value, error, and * where benchmarks are missing."""
    if cell.value is None:
        return "–"
    text = f"{cell.value:.{digits}f}" + ("*" if cell.missing and cell.of_runs == 1 else "")
    if cell.error is not None:
        text += f" ± {cell.error:.{digits}f}"
    if cell.runs < cell.of_runs:
        return f"{text} ({cell.runs} of {cell.of_runs})"
    return text + (f" ({cell.runs})" if cell.runs > 1 else "")


def grid(rows: Rows) -> list[list[str]]:
    """The table as text: a header, and a line a model."""
    from eval.table.table import COLUMNS, SHORT

    return [
        ["", *(SHORT[column] for column in COLUMNS)],
        *([name, *(shown(row[column]) for column in COLUMNS)] for name, row in rows.items()),
    ]


def table_lines(rows: Rows) -> list[str]:
    """The table for a terminal."""
    lines = grid(rows)
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return [
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def print_notes(rows: Rows, every: "list[Results]") -> None:
    """What is missing, what could not be read, and what was not done as in the paper."""
    missing = {
        name: sorted({one for column in row for one in row[column].missing if column != "mean"})
        for name, row in rows.items()
    }
    for name, keys in missing.items():
        if keys:
            print(f"  {name} lacks: {', '.join(keys)}")
    if any("*" in shown(cell) for row in rows.values() for cell in row.values()):
        print("  * without the benchmarks it lacks")
    for results in every:
        print_problems(results.name, results.problems)


def print_problems(name: str, problems: list[str]) -> None:
    """What could not be used of a model's results; a long list is cut."""
    for problem in problems[:MOST_PROBLEMS]:
        print(f"  {name}: {problem}")
    if len(problems) > MOST_PROBLEMS:
        print(f"  {name}: and {len(problems) - MOST_PROBLEMS:,} more (--json has them all)")


def task_lines(every: "list[Results]") -> list[str]:
    """Every benchmark of every model, and its tasks."""
    from eval.table.suite import OF_CATEGORY

    lines = [""]
    for category, keys in OF_CATEGORY.items():
        lines.append(category)
        for key in keys:
            for results in every:
                score = results.scores.get(key)
                text = (
                    "–"
                    if score is None
                    else f"{score.value:.2f}" + (f" ± {score.error:.2f}" if score.error is not None else "")
                )
                note = f"  ({'; '.join(score.differs)})" if score and score.differs else ""
                lines.append(f"  {key:22} {results.name:30} {text}{note}")
                for task, value in sorted(score.tasks.items()) if score and len(score.tasks) <= 8 else ():
                    lines.append(f"    {task:20} {'':30} {value:.2f}")
    return lines


def compare_arms(options: CollectOptions, rows: Rows, every: "list[Results]") -> dict[str, Any]:
    """Prints and gives the differences between two rows of the table."""
    from eval.table.compare import compare
    from eval.table.suite import HUMANEVAL
    from eval.table.table import COLUMNS, TITLES, group_name

    arms = []
    for name in options.compare:
        own = [results for results in every if results.name == name] or [
            results for results in every if options.group and group_name(results.name, options.group) == name
        ]
        if not own:
            raise UserError(
                f"--compare {name}: there is "
                f"{', '.join(dict.fromkeys([*rows, *(results.name for results in every)]))}"
            )
        arms.append(own)
    before = {results.name: len(results.problems) for results in every}
    found = compare(*([results.items() for results in own] for own in arms))
    for own in arms:
        for results in own:
            print_problems(results.name, results.problems[before[results.name] :])
    if not found:
        raise UserError(
            f"--compare: {' and '.join(options.compare)} have no scores of items in common (lm-eval's "
            "--log_samples files, "
            "items.jsonl)"
        )
    print(f"\n{options.compare[1]} minus {options.compare[0]}, paired bootstrap over items, 95 % intervals")
    for name in [*COLUMNS, *sorted(set(found) - set(COLUMNS))]:
        if name in found:
            one = found[name]
            clear = "" if one["low"] <= 0 <= one["high"] else "  clear"
            unpaired = f", {one['unpaired']:,} not in every run" if one["unpaired"] else ""
            print(
                f"  {TITLES.get(name, name):26} {one['difference']:+7.2f}  [{one['low']:+.2f}, "
                f"{one['high']:+.2f}]  "
                f"{one['items']:6,} items{unpaired}{clear}"
            )
    temperatures = {results.temperature for own in arms for results in own}
    if HUMANEVAL in found and len(temperatures) > 1:
        print(
            f"  (HumanEval at temperatures {' and '.join(map(str, sorted(temperatures, key=str)))}: each "
            "run's better one)"
        )
    if "translation" in found and options.aggregation == "paper":
        print("  (a positive difference in translation is more errors: TER)")
    return {"first": options.compare[0], "second": options.compare[1], "differences": found}


def beside_paper(row: str, every: "list[Results]", single: Rows) -> dict[str, Any]:
    """Prints and gives each run beside a row of Table 1, with what tells whether the two compare."""
    from eval.table.suite import OF_CATEGORY, paper_row, paper_table
    from eval.table.table import COLUMNS, TITLES

    data, method = row.split("/")
    theirs = paper_row(data, method)
    if theirs is None:
        known = ", ".join(f"{one['data']}/{one['method']}" for one in paper_table()["rows"])
        raise UserError(f"--paper {row}: Table 1 has {known}")
    print(
        f"\nbeside the paper's Table 1, {row} (Llama-2-7B, 2 epochs; LIMA 10; lm-eval at an unnamed version, "
        "alpaca-eval 0.5, one run)"
    )
    found: dict[str, Any] = {"row": row, "values": theirs, "runs": {}}
    for results in every:
        cells = single[results.name]
        found["runs"][results.name] = {}
        for column in COLUMNS:
            cell = cells[column]
            keys = OF_CATEGORY.get(column, [column])
            how = "; ".join(sorted({_how(results, key) for key in keys if key in results.scores}))
            why = list(cell.differs)
            if cell.missing:
                why.insert(0, f"lacks {', '.join(cell.missing)}")
            verdict = (
                "missing"
                if cell.value is None
                else f"not comparable: {'; '.join(why)}"
                if why
                else "comparable in what is recorded"
            )
            print(
                f"  {results.name:24} {TITLES[column]:26} {shown(cell):>16}  paper {theirs[column]:6.2f}  "
                f"{verdict}" + (f"  [{how}]" if how else "")
            )
            found["runs"][results.name][column] = {
                "value": cell.value,
                "paper": theirs[column],
                "not_comparable": why,
                "how": how,
            }
    return found


def _how(results: "Results", key: str) -> str:
    about = results.scores[key].about
    harness = about.get("harness")
    named = f"{harness.get('name')} {harness.get('version')}" if isinstance(harness, dict) else str(harness)
    shots = f", {'/'.join(about['num_fewshot'])} examples" if about.get("num_fewshot") else ""
    judge = f", judge {about['judge']}" if about.get("judge") else ""
    return f"{key}: {named}{shots}{judge}"


def print_paper() -> None:
    """Table 1 as it ships, with the means of its categories."""
    from eval.table.suite import category_mean, paper_table

    table = paper_table()
    print(table["source"])
    print(
        f"{'data':28} {'method':8}"
        + "".join(f"{name:>16}" for name in table["columns"])
        + f"{'mean again':>12}"
    )
    for row in table["rows"]:
        again = category_mean(dict(zip(table["columns"], row["values"], strict=True)))
        print(
            f"{row['data']:28} {row['method']:8}"
            + "".join(f"{value:16.2f}" for value in row["values"])
            + f"{again:12.2f}"
        )


def write_files(
    options: CollectOptions,
    rows: Rows,
    every: "list[Results]",
    compared: dict[str, Any] | None,
    beside: dict[str, Any] | None,
) -> None:
    """The files asked for."""
    from eval.table.figure import draw_table
    from eval.table.table import COLUMNS
    from instruction_modelling.runs.folder import write_aside

    if options.json:
        value = {
            "aggregation": options.aggregation,
            "about": aggregation_lines(options.aggregation),
            "columns": COLUMNS,
            "rows": {
                name: {column: asdict(cell) for column, cell in row.items()} for name, row in rows.items()
            },
            "models": {
                results.name: {
                    "folder": str(results.folder),
                    "problems": results.problems,
                    "scores": {key: asdict(score) for key, score in results.scores.items()},
                }
                for results in every
            },
            "comparison": compared,
            "paper": beside,
        }
        write_aside(Path(options.json), json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    lines = grid(rows)
    if options.markdown:
        text = [
            f"| {' | '.join(lines[0])} |",
            "|---" + "|--:" * (len(lines[0]) - 1) + "|",
            *(f"| {' | '.join(line)} |" for line in lines[1:]),
        ]
        about = aggregation_lines(options.aggregation)
        write_aside(
            Path(options.markdown),
            "\n".join([*text, "", LEGEND, "", about[0], "", *(line.strip() for line in about[1:])]) + "\n",
        )
    if options.csv:
        buffer = io.StringIO()
        header = [name for column in COLUMNS for name in (column, f"{column}_error", f"{column}_runs")]
        csv.writer(buffer, lineterminator="\n").writerows(
            [
                ["model", *header],
                *(
                    [
                        name,
                        *(
                            value
                            for column in COLUMNS
                            for value in (row[column].value, row[column].error, row[column].runs)
                        ),
                    ]
                    for name, row in rows.items()
                ),
            ]
        )
        write_aside(Path(options.csv), buffer.getvalue())
    if options.figure:
        draw_table(rows, Path(options.figure), aggregation_lines(options.aggregation)[0].partition(": ")[2])
    written = [path for path in (options.json, options.markdown, options.csv, options.figure) if path]
    if written:
        print(f"written to {', '.join(written)}")


if __name__ == "__main__":
    run_main(main)
