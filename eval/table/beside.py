"""What is set beside the table: the difference of two arms, and a row of the paper's Table 1."""

from collections.abc import Collection, Sequence
from typing import Any

from eval.table.compare import compare
from eval.table.display import MOST_TASKS, PART, cell_text, print_problems
from eval.table.made import made_differently
from eval.table.scores import Results
from eval.table.suite import OF_CATEGORY, paper_row, paper_table
from eval.table.table import COLUMNS, TITLES, Cell, Rows, group_name
from instruction_modelling.errors import UserError

# The benchmarks that each column of several puts together.
_OF_COLUMN = {**OF_CATEGORY, "mean": [key for keys in OF_CATEGORY.values() for key in keys]}


def compare_arms(
    names: Sequence[str], rows: Rows, models: Sequence[Results], group: str, partial: bool = False
) -> dict[str, Any]:
    """Print and return the second arm's scores minus the first's.

    A difference is clear where its interval leaves 0 out and the runs' scores were made in one way.

    Args:
        names: of the two arms: of a model, or what the seeds of one have in common.
        rows: the table's.
        models: the results of every model of the table.
        group: regular expression of what tells the seeds of one arm apart; empty: every model is an arm.
        partial: whether scores of a part of the items enter categories and their mean.

    Returns:
        {"first", "second": names, "differences": see `compare`, each with "made_differently" (in words) and
        "clear"; "not_compared": by benchmark, why in words}.

    Raises:
        UserError: a name is no arm, or the two have no scored items in common.
    """
    arms = [_arm(name, rows, models, group) for name in names]
    runs = list({results.name: results for arm in arms for results in arm}.values())
    problems_before = {results.name: len(results.problems) for results in runs}
    scores = [(key, score) for results in runs for key, score in results.scores.items()]
    in_part = {key for key, score in scores if score.part or not score.whole}
    items = {results.name: results.items() for results in runs}
    first, second = ({results.name: items[results.name] for results in arm} for arm in arms)
    differences = compare(first, second, in_part, partial)
    for results in runs:
        print_problems(results.name, results.problems[problems_before[results.name] :])
    if not differences:
        raise UserError(
            f"--compare: {' and '.join(names)} have no scores of items in common (lm-eval's --log_samples "
            "files, items.jsonl)"
        )
    unlike = {key: made_differently(runs, key) for key in dict.fromkeys(key for key, _ in scores)}
    for name, difference in differences.items():
        ways = [(key, unlike[key]) for key in _OF_COLUMN.get(name, [name]) if unlike[key]]
        difference["made_differently"] = [f"{key}: {way}" for key, found in ways for way in found]
        covers_0 = difference["low"] is None or difference["low"] <= 0 <= difference["high"]
        difference["clear"] = not covers_0 and not ways
    not_compared = {}
    for key in unlike:
        if key not in differences:
            lack = [name for name, of_run in items.items() if key not in of_run]
            not_compared[key] = (
                f"no scores of items in {', '.join(lack)}" if lack else "no item is in every run"
            )
    print(f"\n{names[1]} minus {names[0]}, paired bootstrap over items, 95 % intervals")
    _print_differences(differences, in_part, not_compared, partial)
    if "translation" in differences and not models[0].corrected:
        print("  (a positive difference in translation is more errors: TER)")
    return {"first": names[0], "second": names[1], "differences": differences, "not_compared": not_compared}


def _print_differences(
    differences: dict[str, dict[str, Any]],
    in_part: Collection[str],
    not_compared: dict[str, str],
    partial: bool,
) -> None:
    for name in [*COLUMNS, *sorted(set(differences) - set(COLUMNS))]:
        if name in differences:
            mark = f" {PART} from a part of the items" if name in in_part else ""
            print(f"  {TITLES.get(name, name):26} {_difference_text(differences[name])}{mark}")
    for name, difference in differences.items():
        for run, tasks in difference["lacking"].items():
            more = f" and {len(tasks) - MOST_TASKS:,} more" if len(tasks) > MOST_TASKS else ""
            print(
                f"  ({run} has no results for these tasks of {name}: {', '.join(tasks[:MOST_TASKS])}{more}; "
                "their items are in no difference"
                + (")" if partial else ", and the benchmark is in no category unless --partial is given)")
            )
    for name, difference in differences.items():
        if name not in _OF_COLUMN:
            for way in difference["made_differently"]:
                print(f"  (made differently, and so not clear: {way})")
    for name, why in not_compared.items():
        print(f"  (not compared: {TITLES.get(name, name)}, {why})")


def _arm(name: str, rows: Rows, models: Sequence[Results], group: str) -> list[Results]:
    arm = [results for results in models if results.name == name] or [
        results for results in models if group and group_name(results.name, group) == name
    ]
    if not arm:
        known = dict.fromkeys([*rows, *(results.name for results in models)])
        raise UserError(f"--compare {name}: there is {', '.join(known)}")
    return arm


def _difference_text(difference: dict[str, Any]) -> str:
    interval = (
        f"no interval ({difference['no_interval']})"
        if difference["low"] is None
        else f"[{difference['low']:+.2f}, {difference['high']:+.2f}]"
    )
    items = f"{difference['items']:6,} items"
    items += f", {difference['copies']:,} of them copies" if difference["copies"] else ""
    items += f", {difference['unpaired']:,} not in every run" if difference["unpaired"] else ""
    said = "  clear" if difference["clear"] else "  made differently" * bool(difference["made_differently"])
    return f"{difference['difference']:+7.2f}  {interval}  {items}{said}"


def beside_paper(row: str, models: Sequence[Results], cells_of: Rows) -> dict[str, Any]:
    """Print and return each run beside a row of Table 1, with what tells whether the two compare.

    Args:
        row: DATA/METHOD.
        models: the results of each run.
        cells_of: the cells of each run by its name.

    Raises:
        UserError: Table 1 has no such row.
    """
    data, method = row.split("/")
    paper = paper_row(data, method)
    if paper is None:
        rows = ", ".join(f"{known['data']}/{known['method']}" for known in paper_table()["rows"])
        raise UserError(f"--paper {row}: Table 1 has {rows}")
    print(
        f"\nbeside the paper's Table 1, {row} (Llama-2-7B, 2 epochs; LIMA 10; lm-eval at an unnamed version, "
        "alpaca-eval 0.5, one run)"
    )
    runs: dict[str, Any] = {}
    for results in models:
        runs[results.name] = {}
        for column in COLUMNS:
            cell = cells_of[results.name][column]
            keys = [key for key in OF_CATEGORY.get(column, [column]) if key in results.scores]
            how = "; ".join(sorted({_how(results, key) for key in keys}))
            reasons = [f"lacks {', '.join(cell.missing)}"] * bool(cell.missing) + cell.differs
            print(
                f"  {results.name:24} {TITLES[column]:26} {cell_text(cell):>16}  paper {paper[column]:6.2f}  "
                f"{_comparable(cell, reasons)}" + (f"  [{how}]" if how else "")
            )
            runs[results.name][column] = {
                "value": cell.value,
                "paper": paper[column],
                "not_comparable": reasons,
                "how": how,
            }
    return {"row": row, "values": paper, "runs": runs}


def _comparable(cell: Cell, reasons: Sequence[str]) -> str:
    if cell.value is None:
        return "missing"
    return f"not comparable: {'; '.join(reasons)}" if reasons else "comparable in what is recorded"


def _how(results: Results, key: str) -> str:
    about = results.scores[key].about
    harness = about.get("harness")
    program = f"{harness.get('name')} {harness.get('version')}" if isinstance(harness, dict) else str(harness)
    shots = f", {'/'.join(about['num_fewshot'])} examples" if about.get("num_fewshot") else ""
    judge = f", judge {about['judge']}" if about.get("judge") else ""
    return f"{key}: {program}{shots}{judge}"
