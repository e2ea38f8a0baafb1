"""Compare finished runs: report.html, table.md, results.json and figures, from the run folders' evaluations.

Runs are grouped by training file and arm; several seeds of an arm become mean ± SD. The arm IT is the
reference that the others are held against, row by row. What was not measured is shown as missing; runs that
did not finish are named and left out.

Before: src/finetune.py for each run; src/compute_loss.py, src/generate.py, src/compute_bleu.py and
src/score_responses.py for what the report shall show, under <run>/eval/train and <run>/eval/test.

    python src/report.py --runs runs/it_seed0 runs/im_seed0 --base runs/base --output_dir report
"""

from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.called import this_command
from instruction_modelling.command_line import parse_options
from instruction_modelling.comparison.report.groups import group_runs
from instruction_modelling.comparison.report.results import report_results
from instruction_modelling.comparison.report.runs import read_base, read_run
from instruction_modelling.comparison.report.training_data import (
    TrainingData,
    given_shares,
    length_ratios,
    rows_left_out,
)
from instruction_modelling.comparison.report.writing import linked_pages, write_report
from instruction_modelling.errors import run_main
from instruction_modelling.inputs import missing_inputs


@dataclass
class ReportOptions:
    """Report."""

    runs: list[str]
    """Run folders: what src/finetune.py wrote at --output_dir, with their evaluations under eval/."""
    output_dir: str = field(metadata={"input": "output"})
    """Folder for report.html, table.md, results.json and figures/."""
    base: list[str] | None = None
    """Folders with evaluations of the untuned model, the control; each goes to the data set whose files it
    was evaluated on."""
    title: str = "Where should the loss fall?"
    """Title of the report."""
    note: str | None = None
    """A sentence shown at the top and among the caveats: what the report is and is not."""
    train_file: list[str] | None = None
    """The training files, for the length ratio: mean words of instructions over mean words of responses, as
    the paper's Table 5 counts them."""
    weights_json: list[str] | None = None
    """Summaries by src/inspect_weights.py, {"arms": {"IT": {kind: share of the loss}}}, for the figure of
    where the loss falls (default: what the runs recorded)."""
    rows_json: list[str] | None = None
    """What src/compare.py wrote of the rows that all arms were trained on (rows.json of a comparison)."""
    page: list[str] | None = None
    """Pages that the report links to, each as LABEL=FILE."""
    left_out: list[str] | None = None
    """Records of evaluations (summary.json and the like) that are named and not read: those that an earlier
    command left (src/compare.py finds them)."""
    failed: list[str] | None = None
    """Jobs of the comparison that failed, which are named among what the report lacks."""


def make_report(options: ReportOptions, command: str) -> tuple[Path, list[str]]:
    """Read the runs, write the report's files, and return the path of report.html and the answer's lines."""
    # A folder given twice, by whatever path, is one run.
    folders = {Path(folder).resolve(): Path(folder) for folder in options.runs}
    left_out_records = [Path(path) for path in options.left_out or []]
    runs = [read_run(folder, left_out_records) for folder in folders.values()]
    bases = [read_base(Path(folder), left_out_records) for folder in options.base or []]
    sets = group_runs(runs, bases, options.failed or [])
    ratios = length_ratios([Path(file) for file in options.train_file or []], sets)
    shares = given_shares([Path(file) for file in options.weights_json or []], sets)
    folder = Path(options.output_dir)
    heading = {
        "title": options.title,
        "note": options.note,
        "command": command,
        "pages": linked_pages(options.page or [], folder),
    }
    left_out = rows_left_out([Path(file) for file in options.rows_json or []], sets)
    results = report_results(sets, TrainingData(ratios, shares, left_out))
    path = write_report(folder, sets, heading | results)
    return path, [line for data in results["datasets"].values() for line in data["answer"]]


def main() -> None:
    """Read the options, write the report, say where it is."""
    options = parse_options(ReportOptions, also_check=missing_inputs)
    path, answer = make_report(options, this_command())
    note = [f"Note: {options.note}"] if options.note else []
    print("\n".join([*note, *answer, str(path)]))


if __name__ == "__main__":
    run_main(main)
