"""The paper's figures, and its Table 2, from one's own runs.

    python src/plot_paper.py 2 model/*_bf16 model/*_bf16_im              gain by length ratio and by rows
    python src/plot_paper.py 3 model/lima_* --base results/base          losses of responses (8, 9: alike)
    python src/plot_paper.py 4 model/lima_*_ep10* model/lima_*_epoch_*   benchmarks by epochs
    python src/plot_paper.py 5 model/*13b*                               other models
    python src/plot_paper.py 6 model/tulu_*                              length of answers and wins by rows
    python src/plot_paper.py 7 data/lima_data.jsonl model/RUN            lengths of training files
    python src/plot_paper.py table_2 model/*                             BLEU with training outputs

Figure 10 is AlpacaEval by epochs, 11 the length of answers. RUNS are run folders of src/finetune.py with what
src/compute_loss.py, src/generate.py and others left in their eval/train and eval/test, and models that
src/export_checkpoint.py made of checkpoints; benchmark scores are read from RESULTS/NAME, NAME being the run
folder's. Every picture is a PNG and an SVG, and beside it stands a JSON file with every number in it. What is
missing is said and never drawn as 0; the paper's own numbers stand beside where it prints them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from instruction_modelling.called import this_command
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main

if TYPE_CHECKING:
    from eval.paper.plots import PaperFigure
    from eval.paper.runs import PaperRuns

_MOST_LINES = 12


@dataclass
class PlotPaperOptions:
    """Figures."""

    figure: Literal["2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "table_2"] = field(
        metadata={"positional": "FIGURE"}
    )
    """Number of the paper's figure: 2 to 11, or table_2."""
    runs: list[str] = field(metadata={"positional": "RUN"})
    """Run folders (of Figure 7 also training files)."""
    results: str = "results/eval"
    """Folder of the benchmark results, with a folder for each model in it."""
    output_dir: str = "results/paper"
    """Where the pictures and numbers go."""
    base: list[str] = field(default_factory=list)
    """Folders of evaluations of the untuned model (eval/train, eval/test), for Figures 3, 8, 9, Table 2."""
    train_file: list[str] = field(default_factory=list)
    """Training files that are no longer where the runs found them, for the length ratios of Figure 2."""
    lengths: Literal["alpaca_eval", "test"] = "alpaca_eval"
    """Which answers Figures 6 and 11 count the words of: those to AlpacaEval's instructions, or those to the
    test file (eval/test/scores.jsonl)."""
    partial: bool = False
    """Take in scores of a part of a benchmark's items, and means without some benchmarks."""


def make_figure(options: PlotPaperOptions) -> "tuple[PaperFigure, PaperRuns | None, list[str]]":
    """Return the figure, the runs behind it (None for Figure 7, which has none) and what is missing."""
    from eval.paper.bleu import table_2
    from eval.paper.epochs import figure_4
    from eval.paper.fractions import figure_6
    from eval.paper.gains import figure_2
    from eval.paper.lengths import figure_7
    from eval.paper.losses import figure_3
    from eval.paper.models import figure_5
    from eval.paper.runs import read_paper_runs

    if options.figure == "7":
        missing: list[str] = []
        return figure_7([Path(path) for path in options.runs], missing), None, missing
    bases = [Path(folder) for folder in options.base]
    folders = [Path(folder) for folder in options.runs]
    runs = read_paper_runs(folders, Path(options.results), bases, options.partial)
    if options.figure == "2":
        figure = figure_2(runs, [Path(file) for file in options.train_file])
    elif options.figure in ("3", "8", "9"):
        figure = figure_3(runs, options.figure)
    elif options.figure in ("4", "10", "11"):
        figure = figure_4(runs, options.figure, options.lengths)
    elif options.figure == "5":
        figure = figure_5(runs)
    elif options.figure == "6":
        figure = figure_6(runs, options.lengths)
    else:
        figure = table_2(runs)
    return figure, runs, runs.missing


def main() -> None:
    """Draw the figure, write its files, and print the answer, what is missing and where the files are."""
    options = parse_options(PlotPaperOptions)
    from eval.paper.plots import write_figure
    from instruction_modelling.pages.drawing import drawing_style

    with drawing_style():
        figure, runs, missing = make_figure(options)
        doubts = list(dict.fromkeys(runs.doubts)) if runs else []
        facts = {
            "figure": options.figure,
            "missing": missing,
            "doubts": doubts,
            "runs": options.runs,
            "command": this_command(),
        }
        paths = write_figure(figure, Path(options.output_dir), facts)
    print("\n".join(figure.answer))
    print_some("missing", missing)
    print_some("compare with care", doubts)
    for plot in figure.plots:
        if plot.table:
            print(plot.table)
    print(f"written: {', '.join(map(str, paths))}")


def print_some(heading: str, lines: "list[str]") -> None:
    """Print the first lines under a heading; the JSON files hold them all."""
    for line in lines[:_MOST_LINES]:
        print(f"  {heading}: {line}")
    if len(lines) > _MOST_LINES:
        print(f"  {heading}: and {len(lines) - _MOST_LINES} more (the JSON files hold them all)")


if __name__ == "__main__":
    run_main(main)
