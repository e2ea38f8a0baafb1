"""The files of a report: results.json, table.md, report.html and figures/."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from instruction_modelling.comparison.report.figures import draw_data_set
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import arm_looks
from instruction_modelling.comparison.report.page import report_page
from instruction_modelling.comparison.report.table import markdown_report
from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_text


def write_report(folder: Path, sets: Sequence[ReportedDataSet], results: dict[str, Any]) -> Path:
    """Write the report's files; return the path of report.html.

    Args:
        folder: where they go; made where it is absent.
        sets: the data sets.
        results: what results.json shall hold: title, note, command and the numbers of `report_results`.

    Raises:
        UserError: a file cannot be written.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made into the report's folder ({error.strerror}); choose another "
            "--output_dir"
        ) from None
    looks = arm_looks([arm for data in sets for arm in data.arms])
    pictures = {
        data.name: draw_data_set(data, results["datasets"][data.name], looks, folder / "figures")
        for data in sets
    }
    numbers = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / "results.json", numbers + "\n")
    write_text(folder / "table.md", markdown_report(sets, results))
    write_text(folder / "report.html", report_page(sets, results, looks, pictures))
    return folder / "report.html"


def linked_pages(given: Sequence[str], folder: Path) -> list[dict[str, str]]:
    """Return the label and the address of pages given as LABEL=FILE, as seen from the report's folder.

    Raises:
        UserError: one is not of that form, or there is no such file.
    """
    pages = []
    for page in given:
        label, _, name = page.partition("=")
        if not name or not Path(name).is_file():
            raise UserError(f"--page {page}: give LABEL=FILE, with a file that is there")
        relative = Path(os.path.relpath(Path(name).resolve(), folder.resolve()))
        pages.append({"label": label, "href": quote(relative.as_posix())})
    return pages
