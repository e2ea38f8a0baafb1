"""The table and what goes with it in words, for a terminal."""

from collections.abc import Sequence

from eval.table.scores import NOT_COUNTED, Results, Score
from eval.table.suite import AGGREGATIONS, OF_CATEGORY, REMARKS, WRONG_TURNS, category_mean
from eval.table.table import COLUMNS, SHORT, Cell, Rows
from instruction_modelling.analysis.literature import paper_tables
from instruction_modelling.called import module_command

MOST_PROBLEMS = 20
# A benchmark with more tasks than this is shown without them.
MOST_TASKS = 8
LEGEND = (
    "U&K understanding and knowledge, Multi multilinguality, CSR commonsense reasoning, M&C math and code, "
    "S&H safety and helpfulness, AE AlpacaEval; ± standard error over items, or standard deviation over "
    "(runs); – missing; † from a part of the items"
)
# What stands behind a number that is without some benchmarks, and behind one of a part of its items.
INCOMPLETE = "*"
PART = "†"


def aggregation_lines(aggregation: str) -> list[str]:
    """Return how the numbers were put together, each of the paper's wrong turns named."""
    turns = [
        f"  - {turn}" + (f": here {instead}" if aggregation == "corrected" else "")
        for turn, instead in WRONG_TURNS
    ]
    return [
        f"aggregation {aggregation}: {AGGREGATIONS[aggregation]}",
        *turns,
        *(f"  - {remark}" for remark in REMARKS),
    ]


def cell_text(cell: Cell, digits: int = 2) -> str:
    """Return a cell in words: value, marks, error, and of how many runs it is."""
    if cell.value is None:
        return "–"
    text = f"{cell.value:.{digits}f}{marks(cell)}"
    if cell.error is not None:
        text += f" ± {cell.error:.{digits}f}"
    if cell.runs < cell.of_runs:
        return f"{text} ({cell.runs} of {cell.of_runs})"
    return text + (f" ({cell.runs})" if cell.runs > 1 else "")


def marks(cell: Cell) -> str:
    """Return what stands behind a cell's value: * where it, or that of one of its runs, lacks benchmarks, †
    where it is of a part of the items."""
    return INCOMPLETE * cell.incomplete + PART * bool(cell.part)


def grid(rows: Rows) -> list[list[str]]:
    """Return the table as text: a header, and a line a model."""
    return [
        ["", *(SHORT[column] for column in COLUMNS)],
        *([name, *(cell_text(row[column]) for column in COLUMNS)] for name, row in rows.items()),
    ]


def table_lines(rows: Rows) -> list[str]:
    """Return the table for a terminal."""
    lines = grid(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def table_notes(rows: Rows, models: Sequence[Results]) -> list[str]:
    """Return what is missing and what is of a part of its items, by row, the losses on files, and how many
    examples were cut at the model's length."""
    notes = []
    for name, row in rows.items():
        missing = sorted({key for column in row for key in row[column].missing if column != "mean"})
        shown = [cell for column, cell in row.items() if column != "mean" and cell.value is not None]
        part = [note for cell in shown for note in cell.part]
        if missing:
            notes.append(f"{name} lacks: {', '.join(missing)}")
        if part:
            notes.append(f"{PART} {name}: {', '.join(part)}")
    if any(cell.incomplete for row in rows.values() for cell in row.values()):
        notes.append(f"{INCOMPLETE} without the benchmarks it lacks, or a run of it lacks")
    if any(cell.part for row in rows.values() for cell in row.values()):
        notes.append(f"{PART} from a part of the items: in no mean, unless --partial is given")
    notes += _length_notes(models)
    for results in models:
        for file, loss in results.losses.items():
            cut = f", {loss['cut']:,} of them cut at the maximum length" if loss["cut"] else ""
            notes.append(
                f"{results.name}: loss {loss['mean']:.4f} on {file} (nats per response token, mean over "
                f"{loss['examples']:,} examples{cut})"
            )
    return notes


def _length_notes(models: Sequence[Results]) -> list[str]:
    """Return how many examples of the models' benchmarks were cut at their length."""
    notes = []
    for results in models:
        cut = [f"{key} {said}" for key, said in results.cut.items() if said != NOT_COUNTED]
        if cut:
            notes.append(f"{results.name}: examples cut at the model's length: {', '.join(cut)}")
    unknown = [results for results in models if NOT_COUNTED in results.cut.values()]
    if unknown:
        keys = list(
            dict.fromkeys(
                key for results in unknown for key, said in results.cut.items() if said == NOT_COUNTED
            )
        )
        most = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        notes.append(
            f"how many examples were cut at the model's length is not counted in {most} of "
            f"{', '.join(results.name for results in unknown)}; "
            f"{module_command('eval.nlp.cut_examples', *(results.folder for results in unknown))} counts them"
        )
    return notes


def print_notes(rows: Rows, models: Sequence[Results]) -> None:
    """Print the table's notes, and what could not be read."""
    for note in table_notes(rows, models):
        print(f"  {note}")
    for results in models:
        print_problems(results.name, results.problems)


def print_problems(name: str, problems: Sequence[str]) -> None:
    """Print what could not be used of a model's results; a long list is cut."""
    for problem in problems[:MOST_PROBLEMS]:
        print(f"  {name}: {problem}")
    if len(problems) > MOST_PROBLEMS:
        print(f"  {name}: and {len(problems) - MOST_PROBLEMS:,} more (--json has them all)")


def task_lines(models: Sequence[Results]) -> list[str]:
    """Return every benchmark of every model, and its tasks, a line each."""
    lines = [""]
    for category, keys in OF_CATEGORY.items():
        lines.append(category)
        for key in keys:
            for results in models:
                score = results.scores.get(key)
                lines.append(f"  {key:22} {results.name:30} {_score_text(score)}")
                if score and len(score.tasks) <= MOST_TASKS:
                    lines += [
                        f"    {task:20} {'':30} {value:.2f}" for task, value in sorted(score.tasks.items())
                    ]
    return lines


def _score_text(score: Score | None) -> str:
    if score is None:
        return "–"
    text = f"{score.value:.2f}{PART if score.part else ''}" + (
        f" ± {score.error:.2f}" if score.error is not None else ""
    )
    return text + (f"  ({'; '.join(score.differs)})" if score.differs else "")


def print_paper() -> None:
    """Print Tables 1 to 4 and 7 as they ship, Table 1 with the means of its categories."""
    for name, table in paper_tables().items():
        if not name.startswith("table_") or "rows" not in table:
            continue
        has_mean = name == "table_1"
        print(table["source"])
        titles = [*table["columns"], *["mean again"] * has_mean]
        print(f"{'data':28} {'method':12}" + "".join(f"{title:>16}" for title in titles))
        for row in table["rows"]:
            known = dict(zip(table["columns"], row["values"], strict=True))
            again = [category_mean(known)] if has_mean else []
            shown = [value for value in (*row["values"], *again) if value is not None]
            print(f"{row['data']:28} {row['method']:12}" + "".join(f"{value:16.2f}" for value in shown))
